"""Folders of CSV files, whatever vendors and accidents made of them; and the sample."""

from __future__ import annotations

import gzip
import io
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stock_lakehouse.settings import Settings
from stock_lakehouse.sources import (
    DELIVERED_COLUMNS,
    Delivery,
    DeliveryFailure,
    FailureKind,
    SourceError,
    csv_rows,
    delivered_table,
)
from stock_lakehouse.sources.choose import source_of
from stock_lakehouse.sources.csv_folder import CsvFolderSource
from stock_lakehouse.sources.csv_header import HeaderError, columns_of
from stock_lakehouse.sources.csv_rows import CsvRules
from stock_lakehouse.sources.dates import DateRules
from stock_lakehouse.sources.download import Download
from stock_lakehouse.sources.sample import SampleSource

FIRST, LAST = date(2013, 1, 2), date(2023, 9, 21)
TICKERS = ("AAPL", "BRK-B", "NVDA")
HEADER = "Date,Open,High,Low,Close,Adj Close,Volume"
BAR = "2023-09-21,174.55,176.3,173.86,173.93,172.5,63047900"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "prices"
    path.mkdir()
    return path


def delivered(folder: Path, tickers: Sequence[str] = TICKERS) -> list[dict[str, Any]]:
    """Every delivered row."""
    tables = [delivery.rows for delivery in CsvFolderSource(folder).deliver(tickers, FIRST, LAST)]
    assert all(table.column_names == list(DELIVERED_COLUMNS) for table in tables)
    return [row for table in tables for row in table.to_pylist()]


KNOWN = DELIVERED_COLUMNS[DELIVERED_COLUMNS.index("adjusted_to") :]


def values(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says, null values and what is known of its delivery left out."""
    return {name: value for name, value in row.items() if value is not None and name not in KNOWN}


def text_of(*lines: str, end: str = "\n") -> bytes:
    return "".join(line + end for line in lines).encode()


def test_a_file_named_after_a_ticker_of_the_lake_that_is_not_asked_for_is_left_alone(folder: Path) -> None:
    for name in ("AAPL.csv", "brk-b.csv"):
        (folder / name).write_bytes(text_of(HEADER, BAR))
    source = CsvFolderSource(folder, known=TICKERS)
    (delivery,) = source.deliver(("BRK-B",), FIRST, LAST)
    assert delivery.rows["ticker"].to_pylist() == ["BRK-B"]


def test_a_file_named_after_a_ticker_holds_that_ticker(folder: Path) -> None:
    (folder / "AAPL.csv").write_bytes(text_of(HEADER, BAR))
    (folder / "brk-b.csv").write_bytes(text_of(HEADER, BAR))
    assert [row["ticker"] for row in delivered(folder)] == ["AAPL", "BRK-B"]
    assert values(delivered(folder)[0]) == {
        "ticker": "AAPL",
        "date": "2023-09-21",
        "open": "174.55",
        "high": "176.3",
        "low": "173.86",
        "close": "173.93",
        "adj_close": "172.5",
        "volume": "63047900",
    }


def test_a_file_of_several_tickers_says_which_in_a_column(folder: Path) -> None:
    lines = [f"{ticker},{BAR}" for ticker in ("AAPL", "nvda", " brk-b ", "MSFT", "not a ticker", "")]
    (folder / "all.csv").write_bytes(text_of(f"Symbol,{HEADER}", *lines))
    rows = delivered(folder)
    assert [row["ticker"] for row in rows] == ["AAPL", "NVDA", "BRK-B", "MSFT", None, None]
    assert [row["symbol"] for row in rows] == ["AAPL", "nvda", " brk-b ", "MSFT", "not a ticker", ""]


def test_a_row_that_contradicts_its_files_name_keeps_both_tickers(folder: Path) -> None:
    (folder / "AAPL.csv").write_bytes(text_of(f"{HEADER},Ticker", f"{BAR},NVDA"))
    (row,) = delivered(folder)
    assert (row["ticker"], row["symbol"]) == ("AAPL", "NVDA")


@pytest.mark.parametrize("name", ["AAPL.old.csv", "AAPL.csv.bak.csv", "my-AAPL.csv", "MSFT.csv"])
def test_another_name_says_nothing_about_the_ticker(folder: Path, name: str) -> None:
    (folder / name).write_bytes(text_of(HEADER, BAR))
    assert [row["ticker"] for row in delivered(folder)] == [None]


def test_gzip_is_read_like_plain_text(folder: Path) -> None:
    (folder / "AAPL.csv.gz").write_bytes(gzip.compress(text_of(HEADER, BAR)))
    (folder / "NVDA.CSV.GZ").write_bytes(gzip.compress(text_of(HEADER, BAR)))
    (folder / "BRK-B.CSV").write_bytes(text_of(HEADER, BAR))
    assert [row["ticker"] for row in delivered(folder)] == ["AAPL", "BRK-B", "NVDA"]
    assert {row["volume"] for row in delivered(folder)} == {"63047900"}


@pytest.mark.parametrize(
    "header",
    [
        "date,open,high,low,close,volume,adjusted",
        "Date,Open,High,Low,Close,Volume,Adj Close",
        "timestamp,open,high,low,close,volume,adjusted_close",
        "DATE,OPEN,HIGH,LOW,CLOSE,VOL,ADJ.CLOSE",
        '"Date","1. open","2. high","3. low","4. close","6. volume","5. adjusted close"',
        "\ufeffDate,Open,High,Low,Close/Last,Volume,AdjClose",
        " trade_date , o , h , l , c , v , adj ",
    ],
)
def test_usual_header_spellings_are_understood(folder: Path, header: str) -> None:
    (folder / "AAPL.csv").write_bytes(text_of(header, "2023-09-21,1,4,2,3,99,5"))
    assert values(delivered(folder)[0]) == {
        "ticker": "AAPL",
        "date": "2023-09-21",
        "open": "1",
        "high": "4",
        "low": "2",
        "close": "3",
        "volume": "99",
        "adj_close": "5",
    }


def test_columns_nobody_knows_are_left_out_and_actions_are_read(folder: Path) -> None:
    (folder / "AAPL.csv").write_bytes(text_of(f"{HEADER},Note,Dividends,Stock Splits", f"{BAR},hello,0.24,4.0"))
    (row,) = delivered(folder)
    assert (row["dividends"], row["stock_splits"]) == ("0.24", "4.0")
    assert "hello" not in row.values()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2023-09-20,1,2,3", "4 fields where the header has 7"),
        (f"{BAR},7", "8 fields where the header has 7"),
        ('2023-09-20,"1,2,3,4,5,6', "unexpected end of data"),
        ('2023-09-20,"1"2,3,4,5,6,7', "',' expected after '\"'"),
        ('2023-09-20,"1" 2,3,4,5,6,7', "',' expected after '\"'"),
        ("2023-09-20,1,\0,3,4,5,6", "a NUL character"),
    ],
)
def test_a_line_that_cannot_be_split_comes_with_file_line_and_reason_and_takes_no_other_with_it(
    folder: Path, line: str, reason: str
) -> None:
    (folder / "AAPL.csv").write_bytes(text_of(HEADER, BAR, line, BAR))
    before, broken, after = delivered(folder)
    assert (before.pop("line_number"), broken["line_number"], after.pop("line_number")) == ("2", "3", "4")
    assert before == after
    assert values(broken) == {"ticker": "AAPL", "problem": reason, "line": line.replace("\0", "\\0")}
    assert broken["file"] == "AAPL.csv"


def test_quoted_fields_may_hold_commas_and_quotes(folder: Path) -> None:
    (folder / "AAPL.csv").write_bytes(text_of(HEADER, '"2023-09-21","1,000.5",2,"say ""3""",4,5,6'))
    (row,) = delivered(folder)
    assert (row["open"], row["low"]) == ("1,000.5", 'say "3"')


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_is_one(folder: Path, end: str) -> None:
    (folder / "AAPL.csv").write_bytes(text_of(HEADER, BAR, "", "   ", BAR, end=end))
    rows = delivered(folder)
    assert [row["volume"] for row in rows] == ["63047900", "63047900"]
    assert {row["problem"] for row in rows} == {None}


def test_a_last_line_needs_no_end(folder: Path) -> None:
    (folder / "AAPL.csv").write_bytes(text_of(HEADER, BAR).rstrip())
    assert len(delivered(folder)) == 1


def test_bytes_that_are_no_utf_8_come_through_as_their_codes(folder: Path) -> None:
    (folder / "AAPL.csv").write_bytes(text_of(HEADER) + BAR.encode().replace(b"174.55", b"174\xff55") + b"\n")
    assert delivered(folder)[0]["open"] == "174\\xff55"


def test_a_very_long_line_is_cut_but_stays_its_own(folder: Path) -> None:
    long = "x" * 10_000
    (folder / "AAPL.csv").write_bytes(text_of(HEADER, long, long + "y", long))
    lines = [row["line"] for row in delivered(folder)]
    assert all(len(line) < 4_200 for line in lines)
    assert lines[0] == lines[2] != lines[1]


def test_a_line_too_long_to_be_a_bar_is_unreadable_known_by_all_of_its_text_and_takes_no_other_with_it(
    folder: Path,
) -> None:
    long = f"2023-09-21,{'9' * 3_000_000},2,1,2,2,7"
    (folder / "AAPL.csv").write_bytes(text_of(HEADER, BAR, long + "1", long + "2", long + "1", BAR))
    first, *broken, last = delivered(folder)
    assert values(first) == values(last)
    assert [(row["problem"], row["line_number"]) for row in broken] == [
        ("longer than 100,000 characters", number) for number in ("3", "4", "5")
    ]
    assert broken[0]["line"] == broken[2]["line"] != broken[1]["line"]
    assert all(len(row["line"]) < 4_200 for row in broken)


def test_a_header_too_long_to_be_one_is_an_unreadable_file(folder: Path) -> None:
    (folder / "AAPL.csv").write_bytes(text_of(f"{HEADER},{'x' * 3_000_000}", BAR))
    (row,) = delivered(folder)
    assert row["problem"].startswith("the file has no header: put a line such as Date,Open,High,Low,Close,Volume above")
    assert len(row["problem"]) < 500


def test_rows_of_much_text_come_in_smaller_batches(folder: Path) -> None:
    broad = f"2023-09-21,{'9' * 90_000},2,1,2,2,7"
    (folder / "AAPL.csv").write_bytes(text_of(HEADER, *[broad] * 300))
    sizes = [delivery.rows.num_rows for delivery in CsvFolderSource(folder).deliver(TICKERS, FIRST, LAST)]
    assert sum(sizes) == 300
    assert max(sizes) < 120


def test_the_name_of_a_file_is_written_on_one_line(folder: Path) -> None:
    (folder / "a\nb\x1b[31m.csv").write_bytes(text_of(HEADER, "1,2"))
    assert delivered(folder)[0]["file"] == r"a\nb\x1b[31m.csv"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty or has no header"),
        (b"\n\n", "the file is empty or has no header"),
        (b"\0\0\0\n", "the file is empty or has no header"),
        (
            text_of("Date,Open,High,Low", BAR),
            "no column for close in the header 'Date', 'Open', 'High', 'Low'; a file needs",
        ),
        (text_of("Open,High,Low,Close", BAR), "no column for date in the header"),
        (
            text_of(BAR, BAR),
            f"the file has no header: put a line such as Date,Open,High,Low,Close,Volume above its first line, "
            f"which is '{BAR}'",
        ),
        (
            text_of(f"{HEADER},Closing Price", BAR),
            "two columns mean close: 'Close' and 'Closing Price'; rename or remove one",
        ),
        (text_of(f"{HEADER},date", BAR), "two columns mean date: 'Date' and 'date'"),
        (
            text_of("Date,Stock Splits", "2020-08-31,4:1"),
            "no column for close in the header 'Date', 'Stock Splits'; a file needs at "
            "least a date and a close. A file of dividends or splits alone is not read",
        ),
    ],
)
def test_a_file_without_a_usable_header_is_one_unreadable_row(folder: Path, content: bytes, reason: str) -> None:
    (folder / "AAPL.csv").write_bytes(content)
    (folder / "NVDA.csv").write_bytes(text_of(HEADER, BAR))
    unreadable, good = delivered(folder)
    assert unreadable["ticker"] == "AAPL"
    assert unreadable["line"] == "the file AAPL.csv"
    assert unreadable["problem"].startswith(reason)
    assert unreadable["file"] == "AAPL.csv"
    assert good["problem"] is None


def test_a_header_error_names_what_is_missing() -> None:
    with pytest.raises(HeaderError, match=r"no column for date and close in the header 'days', 'open', 'volume'"):
        columns_of(["days", "open", "volume"])


def test_broken_gzip_keeps_the_rows_before_the_break(folder: Path) -> None:
    numbered = [BAR.replace("63047900", str(number)) for number in range(20_000)]
    packed = gzip.compress(text_of(HEADER, *numbered))
    (folder / "AAPL.csv.gz").write_bytes(packed[: len(packed) // 2])
    *rows, broken = delivered(folder)
    assert 1000 < len(rows) < 20_000
    assert [row["volume"] for row in rows] == [str(number) for number in range(len(rows))]
    assert broken["problem"].startswith("Compressed file ended")
    assert broken["file"] == "AAPL.csv.gz"
    assert broken["ticker"] == "AAPL"


@pytest.mark.parametrize("content", [b"no gzip at all", b"", gzip.compress(text_of(HEADER, BAR))[:-8] + bytes(8)])
def test_what_is_no_gzip_is_one_unreadable_row(folder: Path, content: bytes) -> None:
    (folder / "AAPL.csv.gz").write_bytes(content)
    assert delivered(folder)[-1]["problem"]
    assert delivered(folder)[-1]["file"] == "AAPL.csv.gz"


def test_a_files_name_need_not_be_utf_8(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9.csv")
    try:
        (folder / name).write_bytes(text_of(HEADER, "1,2"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert delivered(folder)[0]["file"] == "caf\\udce9.csv"


def test_long_files_come_in_batches_without_loss(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "ROWS_A_BATCH", 10)
    numbered = [BAR.replace("63047900", str(number)) for number in range(35)]
    (folder / "AAPL.csv").write_bytes(text_of(HEADER, *numbered))
    sizes = [delivery.rows.num_rows for delivery in CsvFolderSource(folder).deliver(TICKERS, FIRST, LAST)]
    assert len(sizes) > 3
    assert [row["volume"] for row in delivered(folder)] == [str(number) for number in range(35)]


def test_files_that_are_no_csv_and_folders_are_not_read(folder: Path) -> None:
    (folder / "AAPL.csv").write_bytes(text_of(HEADER, BAR))
    (folder / "readme.txt").write_text("hello")
    (folder / "AAPL.csv~").write_text("hello")
    (folder / "more.csv").mkdir()
    assert len(delivered(folder)) == 1


def test_a_folder_that_is_missing_or_has_no_csv_is_an_error_that_names_it(folder: Path) -> None:
    with pytest.raises(SourceError, match=r"csv_folder: there is no folder .*nowhere"):
        delivered(folder / "nowhere")
    with pytest.raises(SourceError, match=r"csv_folder: no file \*\.csv or \*\.csv\.gz in .*prices"):
        delivered(folder)


NEARLY_CSV = st.lists(
    st.one_of(
        st.sampled_from([HEADER, BAR, "", '"', ",", ",,,,,,", "\0", "\ufeff", "\u2028", "é"]), st.text(max_size=30)
    ),
    max_size=8,
).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass"))
AFTER_A_HEADER = st.binary(max_size=200).map(lambda tail: text_of(HEADER) + tail)
ANY_BYTES = st.one_of(
    st.binary(max_size=300),
    NEARLY_CSV,
    AFTER_A_HEADER,
    NEARLY_CSV.map(lambda text: text.decode("utf-8", "replace").encode("utf-16")),
    AFTER_A_HEADER.map(gzip.compress),
    st.tuples(AFTER_A_HEADER.map(gzip.compress), st.integers(1, 60)).map(lambda cut: cut[0][: -cut[1]]),
)


def assert_delivers(content: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / name).write_bytes(content)
        rows = delivered(Path(place))
    whole_file = [row for row in rows if row["line"] == f"the file {name}"]
    if whole_file:
        assert rows[-1:] == whole_file
    else:  # every line after the header is a row, and each before it that looks like one
        packed = gzip.decompress(content) if name.endswith(".gz") else content
        encoding = "utf-16" if packed.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
        lines = list(io.StringIO(packed.decode(encoding, "backslashreplace"), newline=""))
        headers = [number for number, line in enumerate(lines) if line.strip("\ufeff\r\n") == HEADER]
        if headers:
            above = sum(line.strip("\ufeff\r\n") == BAR for line in lines[: headers[0]])
            assert len(rows) == above + sum(1 for line in lines[headers[0] + 1 :] if line.strip())
        else:  # by chance the bytes hold another vendor's header, like "Date,C"
            assert len(rows) < sum(1 for line in lines if line.strip())
    for row in rows:
        assert row["file"] == name
        assert row["line"] is None or row["problem"] is not None
        assert all(value is None or value.encode("utf-8") is not None for value in row.values())
        assert all("\0" not in (value or "") for value in row.values())


@settings(max_examples=300, deadline=None)
@example(b"Date,C", "AAPL.csv")
@given(ANY_BYTES, st.sampled_from(["AAPL.csv", "all.csv", "AAPL.csv.gz"]))
def test_any_bytes_become_rows_or_an_unreadable_row(content: bytes, name: str) -> None:
    assert_delivers(content, name)


def test_the_sample_is_16194_rows_of_six_tickers() -> None:
    download = Download(SampleSource(), Settings().tickers, FIRST, LAST)
    rows = pa.concat_tables([delivery.rows for delivery in download])
    assert rows.num_rows == 16_194
    assert sorted(set(rows["ticker"].to_pylist())) == sorted(Settings().tickers)
    assert (min(rows["date"].to_pylist()), max(rows["date"].to_pylist())) == ("2013-01-02", "2023-09-21")
    assert rows["problem"].null_count == rows.num_rows
    assert download.failed == {}


def test_the_sample_gives_only_what_was_asked() -> None:
    deliveries = list(SampleSource().deliver(["NVDA"], date(2023, 9, 18), date(2023, 9, 20)))
    rows = pa.concat_tables([delivery.rows for delivery in deliveries]).to_pylist()
    assert sorted((row["ticker"], row["date"]) for row in rows) == [
        ("NVDA", "2023-09-18"),
        ("NVDA", "2023-09-19"),
        ("NVDA", "2023-09-20"),
    ]


def test_tickers_that_the_sample_lacks_fail_with_the_reason_while_others_are_delivered() -> None:
    download = Download(SampleSource(), ["AAPL", "MSFT"], FIRST, LAST)
    assert sum(delivery.rows.num_rows for delivery in download) == 2_699
    reason = "not in the sample, which has AAPL, AMZN, GOOG, META, NFLX, NVDA"
    assert download.failed == {"MSFT": DeliveryFailure(FailureKind.UNKNOWN_TICKER, reason)}


class Scripted:
    """A source that gives prepared deliveries."""

    name, interval = "scripted", "1d"

    def __init__(self, *deliveries: Delivery) -> None:
        self.deliveries = deliveries

    def deliver(self, tickers: Sequence[str], first: date, last: date) -> Iterator[Delivery]:
        yield from self.deliveries


BUSY = DeliveryFailure(FailureKind.UNAVAILABLE, "429")


def test_a_download_of_which_every_ticker_failed_is_an_error_with_the_reasons() -> None:
    nothing = delivered_table({})
    failed = [
        Delivery(nothing, {"AAPL": BUSY}),
        Delivery(nothing, {"NVDA": DeliveryFailure(FailureKind.UNAVAILABLE, "timed out")}),
    ]
    with pytest.raises(SourceError, match=r"scripted delivered none of 2 tickers: AAPL: 429; NVDA: timed out"):
        list(Download(Scripted(*failed), ["AAPL", "NVDA"], FIRST, LAST))


def test_a_download_of_which_some_tickers_failed_goes_on_and_remembers_them() -> None:
    nothing = delivered_table({})
    download = Download(Scripted(Delivery(nothing, {"AAPL": BUSY}), Delivery(nothing)), ["AAPL", "NVDA"], FIRST, LAST)
    assert len(list(download)) == 2
    assert download.failed == {"AAPL": BUSY}


def test_a_download_without_bars_has_not_failed() -> None:
    assert len(list(Download(Scripted(Delivery(delivered_table({}))), ["AAPL"], FIRST, LAST))) == 1


def test_the_settings_choose_the_source(folder: Path) -> None:
    assert isinstance(source_of(Settings()), SampleSource)
    known = Settings().tickers
    assert source_of(Settings(source="csv", csv_folder=folder)) == CsvFolderSource(folder, known=known)
    settings = Settings(
        source="csv", csv_folder=folder, csv_prices="as_traded", csv_dates="day_first", csv_decimal="comma",
        csv_time_zone="Europe/Berlin", csv_adjusted_to=LAST,
    )  # fmt: skip
    rules = CsvRules("as_traded", LAST, "comma", DateRules("day_first", zone="Europe/Berlin"))
    assert source_of(settings) == CsvFolderSource(folder, known=known, rules=rules)
    assert source_of(Settings(source="yfinance")).name == "yfinance"


ENDS = st.sampled_from(["\n", "\r\n", "\r", ""])
FIELD = st.text(st.sampled_from("ab1.,;\"' \t\0\ufeff\x85\u2028\u00e9\\"), max_size=3)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.lists(FIELD, min_size=1, max_size=4), ENDS), max_size=6), st.sampled_from(",;\t"))
def test_lines_split_at_once_have_the_fields_of_each_line(rows: list[tuple[list[str], str]], separator: str) -> None:
    text = io.StringIO("".join(separator.join(fields) + end for fields, end in rows), newline="")
    lines = list(text)
    columns = csv_rows.split_at_once(lines, separator, 3)
    by_line = [line.rstrip("\r\n").split(separator) for line in lines]
    if columns is not None:
        assert [list(row) for row in zip(*(column.to_pylist() for column in columns), strict=True)] == by_line
    else:
        has_blank = any(not line.strip() for line in lines)
        widths = {len(fields) for fields in by_line}
        assert has_blank or widths != {3} or any(mark in "".join(lines) for mark in '"\0\ufeff')


def test_a_file_of_plain_rows_is_split_at_once() -> None:
    assert csv_rows.split_at_once(["a,b\n", "c,\n"], ",", 2) == [pa.array(["a", "c"]), pa.array(["b", ""])]
