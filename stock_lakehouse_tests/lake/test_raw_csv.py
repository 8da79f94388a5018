"""What lands in raw, under which name, and that it is read back as it was delivered."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from stock_lakehouse.lake.raw_csv import RawCsv
from stock_lakehouse.lake.raw_files import fingerprint
from stock_lakehouse.lake.storage import Folder
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.sources import Contradiction, Landing, delivered_table
from stock_lakehouse.tables import UNREADABLE
from stock_lakehouse_tests.conftest import bytes_of

DAYS = market_calendar(date(2023, 1, 3)).between(date(2023, 9, 18), date(2023, 9, 21))
ASKED = Rectangle(DAYS, ("AAPL", "NVDA"))
NOW = datetime(2023, 9, 25, 12, 0, 0, 123456, tzinfo=UTC)
RUN = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
CLOSE = datetime(2023, 9, 21, 20, 30, tzinfo=UTC)
Row = dict[str, str | None]


@pytest.fixture
def raw(tmp_path: Path) -> RawCsv:
    return RawCsv(tmp_path / "lake")


def bar(
    day: str | None = "2023-09-21", close: str | None = "1.5", ticker: str | None = "AAPL", **more: str | None
) -> Row:
    return {
        "ticker": ticker,
        "symbol": ticker,
        "date": day,
        "open": "1",
        "high": "2",
        "low": "1",
        "close": close,
        "volume": "100",
        **more,
    }


def broken(line: str, problem: str = "AAPL.csv line 2: 3 fields", ticker: str | None = "AAPL") -> Row:
    return {"ticker": ticker, "line": line, "problem": problem}


def long_ago(day: date) -> datetime | None:
    """Every day became final long ago."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def land(
    raw: RawCsv,
    *rows: Row,
    now: datetime = NOW,
    final_at: Callable[[date], datetime | None] = long_ago,
    asked: Rectangle = ASKED,
    run_id: str = RUN,
) -> Landing:
    names = {name for row in rows for name in row}
    table = delivered_table({name: [row.get(name) for row in rows] for name in names})
    return raw.land(table, asked, source="test", interval="1d", run_id=run_id, now=now, final_at=final_at)


def later(hours: float) -> datetime:
    return NOW + timedelta(hours=hours)


def landed(raw: RawCsv, spark: SparkSession) -> list[dict[str, Any]]:
    """The rows that Spark reads, oldest first."""
    rows: list[dict[str, Any]] = raw.read(spark, ASKED.tickers, [2023]).toArrow().to_pylist()
    return sorted(rows, key=lambda row: row["ingested_at"])


def bits_of(*tickers: str) -> str:
    """The fingerprint as a name has it: two bits a ticker, by the first two bytes of its SHA-256."""
    bits = {byte for ticker in tickers for byte in hashlib.sha256(ticker.encode()).digest()[:2]}
    return f"{sum(2**bit for bit in bits):064x}"


def test_a_landing_is_one_file_a_year_whose_name_says_sessions_time_run_and_tickers(raw: RawCsv) -> None:
    years = Rectangle((date(2022, 12, 30), *DAYS), ("AAPL", "NVDA"))
    rows = [bar("2023-09-21"), bar("2023-09-18", ticker="NVDA"), bar("2022-12-30")]
    assert land(raw, *rows, asked=years) == Landing(delivered=3, landed=3, files=2)
    contents = {
        file.path.removeprefix("raw/stocks_daily/"): Path(str(raw.root)).parents[1].joinpath(file.path).read_bytes()
        for file in raw.files()
    }
    named = [
        f"year=2022/bars_2022-12-30_2022-12-30_20230925T120000123456Z_0a1b2c3d_{bits_of('AAPL')}",
        f"year=2023/bars_2023-09-18_2023-09-21_20230925T120000123456Z_0a1b2c3d_{bits_of('AAPL', 'NVDA')}",
    ]
    sealed = [name.encode() + content for name, content in zip(named, contents.values(), strict=True)]
    assert list(contents) == [
        f"{name}_{len(content):012x}{hashlib.sha256(both).hexdigest()[:16]}.csv"
        for name, content, both in zip(named, contents.values(), sealed, strict=True)
    ]
    assert max(len(Path(path).name) for path in contents) < 200
    assert raw.strangers() == []


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=600))
def test_a_name_never_says_that_a_ticker_of_the_file_is_not_in_it(tickers: list[str]) -> None:
    bits = fingerprint(tickers)
    assert all(fingerprint([ticker]) & bits == fingerprint([ticker]) for ticker in tickers)


def test_of_the_files_of_a_bulk_load_one_ticker_opens_few() -> None:
    names = [f"T{number:03}" for number in range(500)]
    files = [fingerprint(names[start : start + 20]) for start in range(0, 500, 20)]
    opened = [sum(fingerprint([name]) & bits == fingerprint([name]) for bits in files) for name in names]
    assert sum(opened) / len(opened) < 2


def test_a_row_is_read_back_as_text_with_its_provenance(raw: RawCsv, spark: SparkSession) -> None:
    land(raw, bar(adj_close=None))
    (row,) = landed(raw, spark)
    assert row == {
        "symbol": "AAPL",
        "date": "2023-09-21",
        "open": "1",
        "high": "2",
        "low": "1",
        "close": "1.5",
        "adj_close": None,
        "volume": "100",
        "dividends": None,
        "stock_splits": None,
        "line": None,
        "problem": None,
        "source": "test",
        "interval": "1d",
        "ingested_at": "2023-09-25T12:00:00.123456Z",
        "adjusted_to": None,
        "capital_gains": None,
        "file": None,
        "line_number": None,
        "session": None,
        "decimal": None,
        "basis": None,
        "adj_close_as_of": None,
        "says": None,
        "ticker": "AAPL",
        "year": "2023",
    }


def test_a_repeated_download_lands_nothing_and_touches_no_file(raw: RawCsv) -> None:
    rows = [bar(str(day), ticker=ticker) for day in DAYS for ticker in ASKED.tickers]
    assert land(raw, *rows).landed == 8
    before = bytes_of(raw.root)
    assert land(raw, *reversed(rows), now=later(1)) == Landing(delivered=8, repeated=8)
    assert bytes_of(raw.root) == before


def test_a_changed_row_lands_alone_and_is_the_newest(raw: RawCsv, spark: SparkSession) -> None:
    land(raw, bar("2023-09-20"), bar("2023-09-21"))
    assert land(raw, bar("2023-09-20"), bar("2023-09-21", "1.6"), now=later(1)) == Landing(
        delivered=2, landed=1, repeated=1, files=1
    )
    rows = landed(raw, spark)
    assert [(row["date"], row["close"]) for row in rows][-1] == ("2023-09-21", "1.6")
    assert len(rows) == 3


def test_a_value_that_changes_and_changes_back_lands_three_times(raw: RawCsv, spark: SparkSession) -> None:
    for hour, close in enumerate(["1.5", "1.6", "1.5", "1.5"]):
        land(raw, bar(close=close), now=later(hour))
    assert [row["close"] for row in landed(raw, spark)] == ["1.5", "1.6", "1.5"]


@pytest.mark.parametrize("column", ["symbol", "open", "adj_close", "volume", "dividends", "stock_splits"])
def test_every_delivered_column_counts_as_a_change(raw: RawCsv, column: str) -> None:
    land(raw, bar())
    assert land(raw, bar(**{column: "9"}), now=later(1)).landed == 1


def test_blank_text_and_no_text_are_the_same(raw: RawCsv) -> None:
    land(raw, bar(adj_close=None))
    assert land(raw, bar(adj_close=""), now=later(1)).repeated == 1


def test_the_same_row_twice_in_one_delivery_lands_once(raw: RawCsv) -> None:
    assert land(raw, bar(), bar()) == Landing(delivered=2, landed=1, repeated=1, files=1)


def test_different_rows_of_one_bar_in_one_delivery_all_land_and_the_last_is_newest(
    raw: RawCsv, spark: SparkSession
) -> None:
    assert land(raw, bar(close="1.1"), bar(close="1.2"), bar(close="1.1"), bar(close="1.9")).landed == 4
    rows = landed(raw, spark)
    assert [row["close"] for row in rows] == ["1.1", "1.2", "1.1", "1.9"]
    assert len({row["ingested_at"] for row in rows}) == 4


def test_a_repeated_download_that_contradicts_itself_lands_nothing(raw: RawCsv) -> None:
    contradiction = [bar(close="1.1"), bar(close="1.2"), bar("2023-09-20"), bar(close="1.1"), bar(close="1.3")]
    assert land(raw, *contradiction).landed == 5
    told = (Contradiction("AAPL", "2023-09-21", 3, ()),)
    assert land(raw, *contradiction, now=later(1)) == Landing(delivered=5, repeated=5, contradictions=told)
    assert land(raw, *contradiction[:2], now=later(2)).landed == 2, "what is newest changed"


def test_a_download_that_contradicts_itself_becomes_final_with_its_last_row(raw: RawCsv, spark: SparkSession) -> None:
    contradiction = [bar(close="1.1"), bar(close="1.2")]
    land(raw, *contradiction, now=CLOSE - timedelta(hours=1), final_at=lambda day: CLOSE)
    assert land(raw, *contradiction, now=CLOSE, final_at=lambda day: CLOSE).landed == 1
    assert landed(raw, spark)[-1]["close"] == "1.2"


def test_rows_that_nobody_asked_for_are_counted_and_do_not_land(raw: RawCsv) -> None:
    outside = [
        bar("2023-09-15"),
        bar("2023-09-22"),
        bar("1999-01-04"),
        bar(ticker="MSFT"),
        bar("2023-09-22", ticker=None),
    ]
    assert land(raw, *outside, bar()) == Landing(delivered=6, landed=1, outside=5, files=1)
    (text,) = [Path(str(raw.root)).parents[1].joinpath(file.path).read_text() for file in raw.files()]
    assert [line.split(",")[:2] for line in text.splitlines()[1:]] == [['"AAPL"', '"2023"']]


def test_days_between_the_sessions_asked_land_so_that_the_quarantine_gets_them(raw: RawCsv) -> None:
    assert land(raw, bar("2023-07-04"), asked=Rectangle((date(2023, 7, 3), date(2023, 7, 5)), ("AAPL",))).landed == 1


def test_no_rows_land_as_nothing(raw: RawCsv) -> None:
    assert land(raw) == Landing()
    assert not raw.root.exists()


UNREADABLES = [
    pytest.param(bar("31.12.2023"), "AAPL", UNREADABLE, id="a date of another form"),
    pytest.param(bar("2023-02-30"), "AAPL", UNREADABLE, id="a day that does not exist"),
    pytest.param(bar("\uff12\uff10\uff12\uff13-09-21"), "AAPL", UNREADABLE, id="other digits"),
    pytest.param(bar(None), "AAPL", UNREADABLE, id="no date"),
    pytest.param(broken("a,b,c"), "AAPL", UNREADABLE, id="a line that could not be split"),
    pytest.param(broken("a,b,c", ticker=None), UNREADABLE, UNREADABLE, id="such a line of nobody knows whom"),
    pytest.param(bar(ticker=None), UNREADABLE, "2023", id="no ticker"),
]


@pytest.mark.parametrize(("row", "ticker", "year"), UNREADABLES)
def test_a_row_without_readable_ticker_or_date_lands_once_however_often_it_comes(
    raw: RawCsv, spark: SparkSession, row: Row, ticker: str, year: str
) -> None:
    around_close = [CLOSE - timedelta(hours=1), CLOSE + timedelta(hours=1), CLOSE + timedelta(days=1)]
    landings = [land(raw, row, row, now=now, final_at=lambda day: CLOSE).landed for now in around_close]
    assert landings == [1, 0, 0]
    (found,) = landed(raw, spark)
    assert (found["ticker"], found["year"]) == (ticker, year)
    assert {name: found[name] for name in row if name != "ticker"} == {k: v for k, v in row.items() if k != "ticker"}


def test_unreadable_rows_are_told_apart_by_what_was_delivered_not_by_their_line_number(raw: RawCsv) -> None:
    assert land(raw, broken("a,b"), broken("a,c"), broken("a,b", "AAPL.csv line 9: 2 fields")).landed == 2
    assert land(raw, broken("a,b", "AAPL.csv line 77: 2 fields"), now=later(1)).landed == 0
    assert land(raw, bar("?", close="1"), bar("?", close="2"), now=later(2)).landed == 2


def test_a_provisional_bar_lands_once_more_when_it_is_final_though_its_text_is_the_same(
    raw: RawCsv, spark: SparkSession
) -> None:
    hours = [-6, -1, 0, 1, 24]
    times = [CLOSE + timedelta(hours=hour) for hour in hours]
    assert [land(raw, bar(), now=now, final_at=lambda day: CLOSE).landed for now in times] == [1, 0, 1, 0, 0]
    assert [row["ingested_at"] for row in landed(raw, spark)] == [
        "2023-09-21T14:30:00.000000Z",
        "2023-09-21T20:30:00.000000Z",
    ]


def test_a_day_that_is_no_session_is_never_final(raw: RawCsv) -> None:
    assert land(raw, bar(), now=CLOSE, final_at=lambda day: None).landed == 1
    assert land(raw, bar(), now=later(1000), final_at=lambda day: None).landed == 0


def test_a_clock_that_goes_backwards_leaves_the_newest_delivery_newest(raw: RawCsv, spark: SparkSession) -> None:
    land(raw, bar(close="1.1"), now=later(5))
    land(raw, bar(close="1.2"), now=later(0))
    land(raw, bar(close="1.3"), now=later(1))
    assert [row["close"] for row in landed(raw, spark)] == ["1.1", "1.2", "1.3"]
    assert land(raw, bar(close="1.3"), now=later(0)).landed == 0


def test_two_landings_in_the_same_microsecond_overwrite_nothing(raw: RawCsv, spark: SparkSession) -> None:
    for close in ("1.1", "1.2", "1.3"):
        assert land(raw, bar(close=close), now=NOW).landed == 1
    assert len(list(raw.files())) == 3
    assert [row["close"] for row in landed(raw, spark)] == ["1.1", "1.2", "1.3"]


@pytest.mark.parametrize("run_id", ["", "x", "nightly run/7", "RUN-ÄÖ", "0A1B2C3D", "../../x"])
def test_whatever_a_run_is_called_its_rows_are_read(raw: RawCsv, spark: SparkSession, run_id: str) -> None:
    assert land(raw, bar(), run_id=run_id).landed == 1
    assert raw.strangers() == []
    assert len(landed(raw, spark)) == 1


def test_landing_never_changes_or_removes_a_landed_file(raw: RawCsv) -> None:
    land(raw, bar("2023-09-20"))
    before = bytes_of(raw.root)
    land(raw, bar("2023-09-20", "9"), bar(), now=later(1))
    after = bytes_of(raw.root)
    assert before.items() <= after.items()
    assert len(after) == 2


def test_a_reader_never_sees_part_of_a_file(raw: RawCsv, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[Path]] = []
    write = Path.write_bytes

    def watched(target: Path, content: bytes) -> None:
        write(target, content[: len(content) // 2])  # half of it is there
        seen.append([path for path in raw.root.rglob("*.csv") if path.is_file()])
        write(target, content)

    monkeypatch.setattr(Path, "write_bytes", watched)
    land(raw, bar("2023-09-20"), bar("2023-09-21"))
    assert seen == [[]]
    assert len(list(raw.files())) == 1


LANDED = f"bars_2023-09-21_2023-09-21_20230925T120000123456Z_0a1b2c3d_{bits_of('AAPL')}_{'0' * 28}"


def test_what_a_killed_landing_left_is_never_read_and_a_landing_of_a_day_later_removes_it(
    raw: RawCsv, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    def killed(*paths: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as at_the_rename:
        at_the_rename.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            land(raw, bar(close="6.6"))
    (left,) = raw.strangers()
    assert Path(left).name.startswith(".bars_")
    assert landed(raw, spark) == []
    assert land(raw, bar(close="1.1"), now=later(1), run_id="b" * 32).landed == 1
    assert raw.strangers() == [left], "another writer may be at it"
    assert raw.strangers(in_flight=False) == []
    then = Path(left).stat().st_mtime - 25 * 3600
    os.utime(left, (then, then))
    assert raw.strangers(in_flight=False) == [left]
    assert land(raw, bar(close="1.2"), now=later(2), run_id="c" * 32).landed == 1
    assert raw.strangers() == []
    assert [row["close"] for row in landed(raw, spark)] == ["1.1", "1.2"]


@pytest.mark.parametrize(
    "name",
    [
        "ticker=AAPL/year=2023/bars.csv",
        "ticker=AAPL/year=2023/AAPL.csv",
        "ticker=AAPL/year=2023/bars_2023-09-21_2023-09-21_20230925T120000123456Z_0a1b2c3d.csv.gz",
        "ticker=AAPL/year=2023/bars_2023-09-21_2023-09-21_20230925T120000Z_0a1b2c3d.csv",
        f"ticker=AAPL/year=2023/{LANDED}.csv",
        "year=2023/AAPL.csv",
        "year=2023/bars_2023-09-21_2023-09-21_20230925T120000123456Z_0a1b2c3d.csv",
        f"year=2023/{LANDED}.csv.gz",
        f"year=2023/{LANDED} (copy).csv",
        f"year=2023/{LANDED.upper()}.csv",
        f"year=2023/.{LANDED}.csv.tmp",
        f"year=2023/more/{LANDED}.csv",
    ],
)
def test_a_file_of_another_name_is_never_read_and_is_reported(raw: RawCsv, spark: SparkSession, name: str) -> None:
    land(raw, bar("2023-09-20"))
    stranger = Path(str(raw.root)) / name
    stranger.parent.mkdir(parents=True, exist_ok=True)
    stranger.write_text("symbol,date\nAAPL,2023-09-21\n")
    assert [row["date"] for row in landed(raw, spark)] == ["2023-09-20"]
    assert stranger.name not in [file.name for file in raw.files()]
    assert raw.strangers() == [str(stranger)]
    assert land(raw, bar("2023-09-20"), now=later(1)).repeated == 1


def test_files_in_other_folders_are_reported(raw: RawCsv) -> None:
    land(raw, bar())
    (good,) = raw.files()
    root = Path(str(raw.root))
    for place in (root / good.name, root / "ticker=AAPL" / good.name, root / "year=2023" / "b" / good.name):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"x")
        assert raw.strangers() == [str(place)]
        place.unlink()


NASTY = [
    'a "quoted" word',
    '"',
    '""',
    "a,b",
    "line one\nline two",
    "line one\r\nline two",
    "back\\slash",
    'end\\"',
    "\\",
    "=1+1",
    "@SUM(A1)",
    "é ١ 漢字 🚀",
    "\u2028 separator",
    "  spaces around  ",
    "\ttab\t",
    "null",
    "NULL",
    "NaN",
    "\\N",
    "-",
    "#",
    "{}[]|;'`$%",
    "x" * 100_000,
]


@pytest.mark.parametrize("column", ["open", "line"])
def test_nasty_text_survives_the_file_and_sparks_reader(raw: RawCsv, spark: SparkSession, column: str) -> None:
    rows = [bar(None, close=str(place), **{column: text}) for place, text in enumerate(NASTY)]
    assert land(raw, *rows).landed == len(NASTY)
    found = {int(row["close"]): row[column] for row in landed(raw, spark)}
    assert [found[place] for place in range(len(NASTY))] == NASTY
    assert land(raw, *rows, now=later(1)).landed == 0, "the same text is known again"


def test_a_row_of_megabytes_is_known_again(raw: RawCsv) -> None:
    row = bar(open="9" * 3_000_000)  # pyarrow reads blocks of 1 MB if nothing is said, and no row that is longer
    assert land(raw, row).landed == 1
    assert land(raw, row, now=later(1)).repeated == 1
    assert raw.damaged() == []


TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=1, max_size=30
)


@settings(max_examples=25, deadline=None)
@given(TEXTS)
def test_any_text_survives_the_file_and_sparks_reader(
    tmp_path_factory: pytest.TempPathFactory, spark: SparkSession, texts: list[str]
) -> None:
    raw = RawCsv(tmp_path_factory.mktemp("lake"))
    rows = [bar(None, close=f"row {place}", line=text) for place, text in enumerate(texts)]
    land(raw, *rows)
    found = {row["close"]: row["line"] for row in landed(raw, spark)}
    assert found == {f"row {place}": text for place, text in enumerate(texts)}
    assert land(raw, *rows, now=later(1)).landed == 0


@pytest.mark.parametrize("ticker", ["BRK-B", "GC=F", "RDS.A", "007", "1E5", "TRUE", "NAN", "NULL", "A..", "2023-01-02"])
def test_every_ticker_that_settings_allow_reads_back(raw: RawCsv, spark: SparkSession, ticker: str) -> None:
    land(raw, bar(ticker=ticker), asked=Rectangle(DAYS, (ticker,)))
    (row,) = raw.read(spark, [ticker], [2023]).toArrow().to_pylist()
    assert (row["ticker"], row["symbol"], row["year"]) == (ticker, ticker, "2023")
    assert land(raw, bar(ticker=ticker), asked=Rectangle(DAYS, (ticker,)), now=later(1)).repeated == 1


@pytest.mark.parametrize(
    "evil", ["../../../x", "/tmp/x", "AAPL/../../x", "..", ".", "", "AAPL/year=2023", "a\nb", "C:\\x"]
)
def test_a_ticker_that_is_a_path_lands_nowhere(raw: RawCsv, tmp_path: Path, evil: str) -> None:
    assert land(raw, bar(ticker=evil), bar("?", ticker=evil)) == Landing(delivered=2, outside=2)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and ".locks" not in path.parts] == []


def test_reading_is_by_ticker_and_year_and_brings_what_could_not_be_read(raw: RawCsv, spark: SparkSession) -> None:
    asked = Rectangle((date(2022, 9, 21), *DAYS), ("AAPL", "NVDA"))
    land(raw, bar(), bar(ticker="NVDA"), bar("2022-09-21"), bar("?"), bar(ticker=None), asked=asked)
    rows = raw.read(spark, ["AAPL"], [2023]).toArrow().to_pylist()
    assert sorted((row["ticker"], row["year"]) for row in rows) == [
        ("AAPL", "2023"),
        ("AAPL", UNREADABLE),
        (UNREADABLE, "2023"),
    ]


def test_an_empty_lake_reads_as_no_rows(raw: RawCsv, spark: SparkSession) -> None:
    assert landed(raw, spark) == []
    assert raw.files() == raw.strangers() == []


def test_writers_at_the_same_time_land_each_row_once(raw: RawCsv, spark: SparkSession) -> None:
    rows = [bar(str(day), ticker=ticker) for day in DAYS for ticker in ASKED.tickers]
    totals: list[Landing] = []
    writers = [threading.Thread(target=lambda: totals.append(land(raw, *rows))) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert sum((total for total in totals), Landing()) == Landing(delivered=32, landed=8, repeated=24, files=1)
    assert len(landed(raw, spark)) == 8


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda name: name.replace("2023-09-21", "2023-09-20", 1), id="another session"),
        pytest.param(lambda name: name.replace(bits_of("AAPL"), bits_of("NVDA")), id="another ticker"),
        pytest.param(lambda name: name.replace("20230925T", "20230926T"), id="another landing time"),
        pytest.param(lambda name: f"../year=2022/{name}", id="another year"),
    ],
)
def test_a_file_under_a_name_that_is_not_its_own_is_damaged(raw: RawCsv, change: Callable[[str], str]) -> None:
    land(raw, bar())
    path = Path(str(raw.root)).parents[1] / raw.files()[0].path
    other = path.parent / change(path.name)
    other.parent.mkdir(exist_ok=True)
    path.rename(other)
    (told,) = raw.damaged()
    assert told == f"{other.resolve()} (content or name differs from what landed)"


def test_a_landing_over_two_years_that_is_killed_between_its_files_is_completed_by_the_next(
    raw: RawCsv, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    years = Rectangle((date(2022, 12, 30), *DAYS), ASKED.tickers)
    rows = [bar(day, ticker=ticker) for day in ("2022-12-30", "2023-09-21") for ticker in ASKED.tickers]
    create = Folder.create

    def killed_at_the_second(storage: Folder, path: str, content: bytes) -> None:
        if "year=2023" in path:
            raise KeyboardInterrupt
        create(storage, path, content)

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "create", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            land(raw, *rows, asked=years)
    assert len(raw.files()) == 1
    assert land(raw, *rows, asked=years, now=later(1)) == Landing(delivered=4, landed=2, repeated=2, files=1)
    found = raw.read(spark).toArrow().to_pylist()
    assert sorted((row["ticker"], row["date"]) for row in found) == sorted((row["ticker"], row["date"]) for row in rows)
