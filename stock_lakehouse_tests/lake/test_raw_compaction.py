"""Reading and landing cost the same in December as in January, and a compaction changes no row, whatever becomes of it."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from pyspark.sql import SparkSession
from pyspark.sql.connect.readwriter import DataFrameReader

from stock_lakehouse.lake import raw_compaction
from stock_lakehouse.lake.raw_compaction import LOOSE
from stock_lakehouse.lake.raw_csv import CorruptRawFileError, RawCsv
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.lake.storage import Bucket, Folder
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.sources import Landing, delivered_table
from stock_lakehouse.tables import RAW, UNREADABLE
from stock_lakehouse_tests.lake.raw_by_ticker import into_layout_by_ticker

TICKERS = ("AAA", "A^B", "BBB", "BRK-B", "CCC")
YEAR = market_calendar(date(2019, 1, 2)).between(date(2019, 1, 2), date(2019, 12, 31))
MOST_OPENED = 2 * LOOSE  # by a landing or a read; a source delivers ten sessions, and a compaction is in a few parts
Rows = list[dict[str, Any]]
Row = dict[str, str | None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture
def raw(root: Path) -> RawCsv:
    return RawCsv(root)


def bar(ticker: str, day: date, close: str = "1.5", **more: str | None) -> Row:
    prices = {"open": "1", "high": "2", "low": "1", "close": close, "volume": "100"}
    return {"ticker": ticker, "symbol": ticker, "date": str(day), **prices, **more}


def land(raw: RawCsv, rows: Sequence[Row], asked: Sequence[date], now: datetime | None = None) -> Landing:
    names = sorted({name for row in rows for name in row})
    at = now or evening(asked[-1])
    return raw.land(
        delivered_table({name: [row.get(name) for row in rows] for name in names}),
        Rectangle(tuple(asked), TICKERS), source="test", interval="1d", run_id=f"{at:%d%H%M%S}", now=at,
        final_at=lambda day: datetime(day.year, day.month, day.day, tzinfo=UTC),
    )  # fmt: skip


def evening(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 22, tzinfo=UTC)


def land_daily(raw: RawCsv, days: Sequence[date]) -> None:
    """A landing a day, in which the source delivers the ten sessions before too, as sources do."""
    for day in days:
        ten = YEAR[max(0, YEAR.index(day) - 9) : YEAR.index(day) + 1]
        landing = land(raw, [bar(ticker, one) for one in ten for ticker in TICKERS], [day])
        assert landing.landed == len(TICKERS)


def in_files(root: Path) -> Rows:
    """The landed rows without the product's readers."""
    import csv

    rows: Rows = []
    for path in (root / RAW.path).rglob("bars_*.csv"):
        folders = dict(part.split("=") for part in path.parts if "=" in part)
        folders["ticker"] = folders.get("ticker", "").replace("%5E", "^")
        with path.open(encoding="utf-8", newline="") as file:
            rows += [{**folders, **{name: text or None for name, text in row.items()}} for row in csv.DictReader(file)]
    return in_order(rows)


def in_order(rows: Rows) -> Rows:
    kept = [{name: text for name, text in row.items() if text is not None} for row in rows]
    return sorted(kept, key=lambda row: sorted(row.items()))


def by_engine(raw: RawCsv, spark: SparkSession, tickers: Sequence[str] | None = None) -> Rows:
    return in_order(raw.read(spark, tickers, None if tickers is None else [2019]).toArrow().to_pylist())


def by_arrow(root: Path) -> Rows:
    return in_order(read_table(RAW.name, lake_root=root).to_pylist())


def compactions(root: Path) -> list[Path]:
    return sorted((root / raw_compaction.PATH).rglob("*.csv"))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is opened, here and by the engine, from now on."""
    paths: list[str] = []
    read, csv = Folder.read, DataFrameReader.csv

    def reading(storage: Folder, path: str) -> bytes:
        paths.append(path)
        return read(storage, path)

    def given(reader: DataFrameReader, files: Any, *args: Any, **kwargs: Any) -> Any:
        paths.extend(files)
        return csv(reader, files, *args, **kwargs)

    monkeypatch.setattr(Folder, "read", reading)
    monkeypatch.setattr(DataFrameReader, "csv", given)
    return paths


# --- what is opened -----------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_a_landing_and_a_read_open_as_many_files_after_249_landings_as_after_few(
    raw: RawCsv, root: Path, spark: SparkSession, opened: list[str]
) -> None:
    most: dict[str, list[int]] = {"landing": [], "reading": []}
    for day in YEAR[:249]:
        opened.clear()
        land_daily(raw, [day])
        most["landing"].append(len(opened))
        opened.clear()
        raw.read(spark, TICKERS, [2019])
        most["reading"].append(len(set(opened)))
    assert len(raw.files()) == 249
    for counts in most.values():
        first, last = counts[: 2 * LOOSE], counts[-2 * LOOSE :]
        assert max(last) <= max(*first, LOOSE + 1), (max(first), max(last))
        assert max(counts) <= MOST_OPENED
    assert by_engine(raw, spark, TICKERS) == by_engine(raw, spark) == by_arrow(root) == in_files(root)
    assert len(in_files(root)) == 249 * len(TICKERS)


@pytest.mark.soak
def test_a_landing_on_s3_sends_as_many_requests_after_60_landings_as_after_20(
    s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, requests = RawCsv(s3_root), Counter[str]()
    for name in ("get", "put", "list"):
        send = getattr(obstore, name)

        def counted(*args: Any, _name: str = name, _send: Any = send, **kwargs: Any) -> Any:
            requests[_name] += 1
            return _send(*args, **kwargs)

        monkeypatch.setattr(obstore, name, counted)
    totals = []
    for day in YEAR[:64]:
        requests.clear()
        land_daily(raw, [day])
        totals.append(requests.total())
    # Over a whole round of LOOSE landings: one of them compacts.
    assert sum(totals[48:64]) <= 1.2 * sum(totals[16:32]), totals
    assert len(list(Bucket(s3_root).walk(raw_compaction.PATH))) == 4


def test_a_run_of_one_ticker_opens_the_part_of_a_compaction_that_holds_it(
    raw: RawCsv, spark: SparkSession, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_compaction, "PART_ROWS", LOOSE)  # a part a ticker
    land_daily(raw, YEAR[: LOOSE + 2])
    assert len(compactions(Path(str(raw.root)).parents[1])) == len(TICKERS)
    opened.clear()
    assert len(by_engine(raw, spark, ["BBB"])) == LOOSE + 2
    assert len({path.rpartition("/")[2] for path in opened}) == 3


# --- that no row is changed ---------------------------------------------------------------------------------------


def test_text_is_as_delivered_after_a_compaction_too(raw: RawCsv, root: Path, spark: SparkSession) -> None:
    nasty = ['a "quoted" word', "a,b", "one\ntwo", "one\r\ntwo", "\\", "é 漢字", " spaces ", "null", "NaN", "", None]
    for number, day in enumerate(YEAR[:LOOSE]):
        text = nasty[number % len(nasty)]
        land(raw, [bar("AAA", day, volume=text), {"ticker": None, "line": f"{text}{number}", "problem": "p"}], [day])
    assert len(compactions(root)) == 2, "of 2019 and of the rows without a date"
    assert by_engine(raw, spark) == by_arrow(root) == in_files(root)
    assert {row["ticker"] for row in by_engine(raw, spark, ["BBB"])} == {UNREADABLE}
    assert land(raw, [bar("AAA", YEAR[0], volume=nasty[0])], YEAR[:1], evening(YEAR[30])).repeated == 1


def lost(paths: list[Path]) -> None:
    for path in paths:
        path.unlink()


def one_part_lost(paths: list[Path]) -> None:
    paths[1].unlink()


def flipped(paths: list[Path]) -> None:
    content = bytearray(paths[0].read_bytes())
    content[-3] ^= 1
    paths[0].write_bytes(content)


def cut(paths: list[Path]) -> None:
    paths[0].write_bytes(paths[0].read_bytes()[:-20])


@pytest.mark.slow
@pytest.mark.parametrize("harm", [lost, one_part_lost, flipped, cut])
def test_a_compaction_that_is_lost_or_damaged_is_passed_over_and_upkeep_makes_it_anew(
    raw: RawCsv, root: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch, harm: Callable[[list[Path]], None]
) -> None:
    monkeypatch.setattr(raw_compaction, "PART_ROWS", 2 * LOOSE)
    land_daily(raw, YEAR[: LOOSE + 2])
    made = {path.name: path.read_bytes() for path in compactions(root)}
    assert len(made) == 3
    harm(compactions(root))
    assert by_engine(raw, spark, TICKERS) == by_arrow(root) == in_files(root)
    raw.tend_compactions()
    there = {path.name: path.read_bytes() for path in compactions(root)}
    if harm is cut or harm is lost or harm is one_part_lost:  # it stood for nothing, so all small files are compacted
        assert len(there) >= 3
    else:
        assert there == made
    assert by_engine(raw, spark, TICKERS) == by_arrow(root) == in_files(root)
    assert [path for path in compactions(root) if b"AAA" in path.read_bytes()]


def test_a_compaction_that_was_killed_between_its_parts_counts_for_nothing_until_it_is_whole(
    raw: RawCsv, root: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_compaction, "PART_ROWS", LOOSE)
    land_daily(raw, YEAR[: LOOSE - 1])
    replace = os.replace

    def killed_at_the_third(source: Any, target: Any) -> None:
        if raw_compaction.PATH in str(target) and len(compactions(root)) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            land_daily(raw, [YEAR[LOOSE - 1]])
    assert len(compactions(root)) == 2
    assert by_engine(raw, spark, TICKERS) == by_arrow(root) == in_files(root)
    land_daily(raw, [YEAR[LOOSE]])
    assert by_engine(raw, spark, TICKERS) == by_arrow(root) == in_files(root)
    assert len(in_files(root)) == (LOOSE + 1) * len(TICKERS)


def test_rows_of_a_landed_file_that_was_taken_away_are_gone_though_they_were_compacted(
    raw: RawCsv, root: Path, spark: SparkSession
) -> None:
    land_daily(raw, YEAR[: LOOSE + 1])
    (root / raw.files()[3].path).unlink()
    assert by_engine(raw, spark, TICKERS) == by_arrow(root) == in_files(root)
    assert len(in_files(root)) == LOOSE * len(TICKERS)


def test_a_landed_file_that_is_cut_is_an_error_though_it_was_compacted(raw: RawCsv, root: Path, spark: Any) -> None:
    land_daily(raw, YEAR[: LOOSE + 1])
    path = root / raw.files()[3].path
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorruptRawFileError, match=path.name):
        raw.read(spark, TICKERS, [2019])
    with pytest.raises(CorruptRawFileError, match=path.name):
        read_table(RAW.name, lake_root=root)


def test_a_clock_that_goes_backwards_leaves_no_row_out(raw: RawCsv, root: Path, spark: SparkSession) -> None:
    land_daily(raw, YEAR[: LOOSE + 1])
    back = evening(YEAR[2]) + timedelta(hours=1)  # among the files that were compacted
    assert land(raw, [bar("AAA", YEAR[40])], [YEAR[40]], back).landed == 1
    assert by_engine(raw, spark, TICKERS) == by_arrow(root) == in_files(root)
    assert len(in_files(root)) == (LOOSE + 1) * len(TICKERS) + 1


def test_writers_at_once_lose_no_row_and_leave_a_compaction_of_them(
    raw: RawCsv, root: Path, spark: SparkSession
) -> None:
    def writer(ticker: str) -> None:
        for day in YEAR[:12]:
            land(RawCsv(root), [bar(ticker, day)], [day])

    writers = [threading.Thread(target=writer, args=(ticker,)) for ticker in TICKERS]
    for one in writers:
        one.start()
    for one in writers:
        one.join(120)
    assert len(raw.files()) == 12 * len(TICKERS)
    assert compactions(root)
    assert by_engine(raw, spark, TICKERS) == by_arrow(root) == in_files(root)
    assert len(in_files(root)) == 12 * len(TICKERS)


def test_upkeep_removes_compactions_that_a_newer_one_replaced_a_day_before(raw: RawCsv, root: Path) -> None:
    land_daily(raw, YEAR[: 2 * LOOSE])
    first, second = compactions(root)
    a_day_ago = second.stat().st_mtime - timedelta(days=1, seconds=1).total_seconds()
    os.utime(first, (a_day_ago, a_day_ago))
    assert raw.tend_compactions() == (0, 0), "it was replaced just now, and a run may be reading it"
    os.utime(second, (a_day_ago, a_day_ago))
    assert raw.tend_compactions()[0] == 1
    assert compactions(root) == [second]


# --- the layout by ticker -----------------------------------------------------------------------------------------


def test_a_lake_of_the_layout_by_ticker_is_read_as_it_is_and_new_files_beside_it(
    raw: RawCsv, root: Path, spark: SparkSession
) -> None:
    land(raw, [bar(ticker, day) for day in YEAR[:9] for ticker in TICKERS] + [bar("AAA", YEAR[0], date="?")], YEAR[:9])
    into_layout_by_ticker(root)
    before = in_files(root)
    assert len(before) == 9 * len(TICKERS) + 1
    assert by_arrow(root) == by_engine(raw, spark) == before
    assert raw.strangers() == raw.damaged() == []
    assert land(raw, [bar(ticker, day) for day in YEAR[:9] for ticker in TICKERS], YEAR[:9]).landed == 0
    land_daily(raw, YEAR[9:12])
    assert by_arrow(root) == by_engine(raw, spark) == in_files(root)
    assert raw.ticker_years() == {(ticker, 2019) for ticker in TICKERS}
    assert {row["ticker"] for row in by_engine(raw, spark, ["A^B"])} == {"A^B"}
    kept = {file.path for file in raw.files() if "ticker=" in file.path}
    raw.tend_compactions()
    assert kept <= {file.path for file in raw.files()}, "what landed is never touched"
    assert by_arrow(root) == by_engine(raw, spark) == in_files(root)


def test_files_of_the_layout_by_ticker_lose_their_rows_with_them(raw: RawCsv, root: Path, spark: SparkSession) -> None:
    land(raw, [bar(ticker, day) for day in YEAR[:9] for ticker in TICKERS], YEAR[:9])
    into_layout_by_ticker(root)
    raw.read(spark)
    for path in (root / RAW.path / "ticker=BBB").rglob("*.csv"):
        path.unlink()
    assert by_arrow(root) == by_engine(raw, spark) == in_files(root)
    assert raw.ticker_years() == {(ticker, 2019) for ticker in TICKERS if ticker != "BBB"}
