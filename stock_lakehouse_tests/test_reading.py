"""Tables as Arrow: as they are they equal what the engine reads, as of a moment what was read at that moment."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner

import stock_lakehouse
from stock_lakehouse.cli import app
from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.lake.history import EPOCH, Commit, NoVersionError, believed, commits, version_at
from stock_lakehouse.lake.reading import WITH_HISTORY, moment, read_table
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.schemas import Column
from stock_lakehouse.tables import (
    CORPORATE_ACTIONS,
    CURATED,
    FEATURES,
    PROCESSED,
    QUARANTINE,
    RAW,
    RESTATEMENTS,
    TABLES,
    Table,
)
from stock_lakehouse_tests.graph import (
    TICKERS,
    Bars,
    Clocked,
    Key,
    clocked,
    edited,
    history,
    plain,
    rectangle,
    run,
    year_boundary,
)

SESSIONS = year_boundary(25, 12)
A_MOMENT = 0.003  # seconds: a commit's time is cut to milliseconds


def said(house: Clocked, name: str, as_of: datetime | None = None) -> list[dict[str, Any]]:
    return plain(read_table(name, as_of=as_of, lake_root=house.lake.root))


def deliver(house: Clocked, bars: Bars, tickers: tuple[str, ...] = TICKERS) -> None:
    house._at = utc_now()
    run(house, rectangle({day for _, day in bars}, tickers), bars.values())


def now_and_never_again() -> datetime:
    time.sleep(A_MOMENT)
    now = utc_now()
    time.sleep(A_MOMENT)
    return now


def corrected(bars: Bars, dice: random.Random) -> Bars:
    """A few bars of `bars`, most with another close, one perhaps impossible."""
    keys = dice.sample(sorted(bars), dice.randint(1, 4))
    changed = {}
    for key in keys:
        close = repr(float(bars[key]["close"] or 1) * dice.uniform(0.995, 1.005))
        changed |= {key: edited(bars, key, close=close, volume=dice.choice(("7", "-1", "1000")))[key]}
    return changed


def near(bars: Bars, key: Key) -> Bars:
    """`bars` with a close in one of them that is a little higher."""
    return edited(bars, key, close=repr(float(bars[key]["close"] or 1) * 1.002))


def tampered(table: DeltaTable, dice: random.Random) -> None:
    """What others than a publish do to a table, after which it says what it said."""
    what = dice.choice(("checkpoint", "take back", "compact"))
    opened = table.open()
    if what == "checkpoint":
        opened.create_checkpoint()
    elif what == "take back":
        opened.delete("year = 2020")
        table.open().restore(opened.version() - 1)
    else:
        opened.optimize.compact()


def remembered_is_read_back(house: Clocked, deliveries: int, seed: int) -> None:
    dice, bars = random.Random(seed), history(TICKERS, SESSIONS)
    bars["AAA", SESSIONS[20]]["dividends"] = "0.5"
    deliver(house, bars)
    memories = []
    for _ in range(deliveries):
        memories.append((now_and_never_again(), {name: said(house, name) for name in WITH_HISTORY}))
        deliver(house, corrected(bars, dice))
        time.sleep(A_MOMENT)
        tampered(dice.choice((house.lake.curated, house.lake.features)), dice)
    assert memories[-1][1][RESTATEMENTS.name]
    for at, what in memories:
        for name, rows in what.items():
            assert said(house, name, at) == rows, (name, at)


@pytest.mark.slow
def test_every_remembered_moment_is_read_back_exactly(spark: SparkSession, tmp_path: Path) -> None:
    remembered_is_read_back(clocked(tmp_path / "lake", spark), deliveries=4, seed=1)


@pytest.mark.soak
def test_on_s3_every_remembered_moment_is_read_back_exactly(spark: SparkSession, s3_root: str) -> None:
    remembered_is_read_back(clocked(s3_root, spark), deliveries=2, seed=2)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(3, 8))
def test_every_remembered_moment_of_a_long_history_is_read_back_exactly(
    spark: SparkSession, tmp_path: Path, seed: int
) -> None:
    remembered_is_read_back(clocked(tmp_path / "lake", spark), deliveries=30, seed=seed)


@pytest.mark.slow
def test_every_table_reads_as_the_engine_reads_it(spark: SparkSession, tmp_path: Path) -> None:
    house = clocked(tmp_path / "lake", spark)
    bars = history(TICKERS, SESSIONS)
    bars["BBB", SESSIONS[3]]["volume"] = "-1"
    bars["CCC", SESSIONS[4]]["open"] = 'a "quoted",\nbroken, é line'
    bars["CCC", SESSIONS[5]]["open"] = "NULL"
    bars["BBB", SESSIONS[6]]["dividends"] = "0.5"
    deliver(house, bars)
    deliver(house, near(near(bars, ("AAA", SESSIONS[2])), ("BBB", SESSIONS[2])))
    for table in TABLES:
        rows = read_table(table.name, lake_root=house.lake.root)
        assert rows.schema == table.arrow_schema
        assert rows.num_rows > 0
        assert plain(rows) == plain(house.lake.read(table.name, spark).toArrow()), table.name
        some = read_table(table.name, tickers=["BBB", "ZZZ"], lake_root=house.lake.root)
        assert plain(some) == [row for row in plain(rows) if row["ticker"] == "BBB"]


def test_a_table_never_published_is_empty_and_had_nothing_to_say(tmp_path: Path) -> None:
    for table in TABLES:
        assert read_table(table.name, lake_root=tmp_path).num_rows == 0
    with pytest.raises(NoVersionError, match="there is no table yet"):
        read_table(CURATED.name, as_of="2024-05-03", lake_root=tmp_path)
    with pytest.raises(NoVersionError, match="nothing has landed at all"):
        read_table(RAW.name, as_of="2024-05-03", lake_root=tmp_path)


def test_before_the_first_version_is_an_error_that_gives_a_time_which_can_be_asked_for(
    spark: SparkSession, tmp_path: Path
) -> None:
    house = clocked(tmp_path / "lake", spark)
    deliver(house, history(TICKERS, SESSIONS[:3]))
    for name in WITH_HISTORY:
        if name in (RESTATEMENTS.name, CORPORATE_ACTIONS.name):
            continue
        with pytest.raises(NoVersionError, match=r"\d{4}-\d{2}-\d{2}T") as error:
            said(house, name, utc_now() - timedelta(hours=1))
        earliest = str(error.value).split()[-1].removeprefix("of ").rstrip(",")
        assert said(house, name, moment(earliest)) == ([] if name != RAW.name else said(house, name))
    with pytest.raises(
        ValueError, match=f"{PROCESSED.name} keeps no history; these tables do: {', '.join(WITH_HISTORY)}"
    ):
        said(house, PROCESSED.name, utc_now())
    with pytest.raises(ValueError, match=f"{QUARANTINE.name} keeps no history"):
        said(house, QUARANTINE.name, utc_now())


def test_a_column_that_came_later_is_null_before(tmp_path: Path) -> None:
    old = Table(CURATED.name, "curated", "delta", CURATED.path, CURATED.columns[:-2] + CURATED.columns[-1:], "Older")
    DeltaTable(tmp_path, old).prepare()
    path = str(tmp_path / CURATED.path)
    row = {"ticker": ["A"], "date": [date(2020, 1, 2)], "close": [1.5], "year": pa.array([2020], pa.int32())}
    deltalake.write_deltalake(path, pa.table(row), mode="append", schema_mode="merge")
    at = now_and_never_again()
    DeltaTable(tmp_path, CURATED).prepare()
    assert "ingested_at" in deltalake.DeltaTable(path).to_pyarrow_table().column_names
    (found,) = read_table(CURATED.name, as_of=at, lake_root=tmp_path).to_pylist()
    assert (found["close"], found["ingested_at"]) == (1.5, None)
    assert list(found) == list(CURATED.column_names)


@pytest.mark.slow
def test_a_line_announced_in_vain_was_never_said(spark: SparkSession, tmp_path: Path) -> None:
    """A line counts at a moment if its table was past the version that it names by then."""
    house = clocked(tmp_path / "lake", spark)
    bars = history(TICKERS, SESSIONS[:3])
    deliver(house, bars)
    version = house.lake.curated.version()
    deliver(house, near(bars, ("AAA", SESSIONS[0])))
    lines = house.lake.ledger.stored.open().to_pyarrow_table()
    assert set(lines["from_version"].to_pylist()) >= {version}
    after = now_and_never_again()
    assert said(house, RESTATEMENTS.name, after) == plain(lines.select(RESTATEMENTS.column_names))
    house.lake.curated.open().restore(1)  # past the version, and so is every line of it
    killed = lines.set_column(
        lines.column_names.index("from_version"),
        "from_version",
        pa.array([house.lake.curated.version()] * lines.num_rows, pa.int64()),
    )
    of_curated = killed.filter(pa.compute.equal(killed["table_name"], CURATED.name))
    deltalake.write_deltalake(str(house.lake.ledger.stored.path), of_curated, mode="append")
    at = now_and_never_again()
    assert said(house, RESTATEMENTS.name, at) == said(house, RESTATEMENTS.name, after)
    assert said(house, RESTATEMENTS.name) == said(house, RESTATEMENTS.name, after)


def at_hours(*hours: float | None) -> list[int | None]:
    return [None if hour is None else int(hour * 3_600_000) for hour in hours]


@pytest.mark.parametrize(
    ("what", "said_by_commits", "now", "believed_to_be"),
    [
        ("clocks in order", (1, 2, 2, 3), 4, (1, 2, 2, 3)),
        ("one jumped ahead", (1, 2, 90, 3, 4), 100, (1, 2, 2, 3, 4)),
        ("one fell behind", (10, 11, 2, 12, 13), 100, (10, 11, 11, 12, 13)),
        ("the newest are of the future", (1, 2, 90, 91, 92, 3), 4, (1, 2, 2, 2, 2, 3)),
        ("all are of the future", (90, 91), 4, (0, 0)),
        ("the first fell behind by a lot", (50, 2, 3), 100, (2, 2, 3)),
        ("one says nothing", (1, None, 3), 4, (1, 1, 3)),
    ],
)
def test_a_clock_that_jumped_between_commits_misplaces_no_other_commit(
    what: str, said_by_commits: tuple[float | None, ...], now: float, believed_to_be: tuple[float, ...]
) -> None:
    assert believed(at_hours(*said_by_commits), int(now * 3_600_000)) == at_hours(*believed_to_be), what


@pytest.mark.parametrize("seed", range(20))
def test_times_of_commits_never_fall_and_most_are_as_said(seed: int) -> None:
    dice = random.Random(seed)
    true = sorted(dice.randint(0, 1000) for _ in range(40))
    wrong = dice.sample(range(40), 5)
    found = believed([one + dice.choice((-500, 500)) * (at in wrong) for at, one in enumerate(true)], 1000)
    assert found == sorted(found)
    assert sum(one != other for one, other in zip(found, true, strict=True)) <= 10


def test_the_newest_version_at_or_before_a_moment_counts() -> None:
    known = [Commit(4, EPOCH + timedelta(hours=1)), Commit(5, EPOCH + timedelta(hours=2))]
    asked = [version_at(known, EPOCH + timedelta(hours=hours)) for hours in (0.99, 1, 1.99, 2, 3)]
    assert asked == [None, 4, 4, 5, 5]


def test_versions_are_told_from_the_oldest_that_a_reader_can_start_from(tmp_path: Path) -> None:
    table = DeltaTable(
        tmp_path, Table("t", "curated", "delta", "t", (Column("year", "int", "A year"),), "T", partition_by=())
    )
    table.prepare()
    for year in range(6):
        deltalake.write_deltalake(str(table.path), pa.table({"year": pa.array([year], pa.int32())}), mode="append")
        if year in (1, 3):
            table.open().create_checkpoint()
    assert [one.version for one in commits(table)] == [0, 1, 2, 3, 4, 5, 6]
    for version in (0, 1):  # as a killed clean-up leaves it: version 2 is a checkpoint's
        (tmp_path / "t" / "_delta_log" / f"{version:020d}.json").unlink()
    assert [one.version for one in commits(table)] == [2, 3, 4, 5, 6]
    (tmp_path / "t" / "_delta_log" / f"{3:020d}.json").unlink()
    assert [one.version for one in commits(table)] == [4, 5, 6]


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2024-05-03", datetime(2024, 5, 3, 23, 59, 59, 999999, UTC)),
        (date(2024, 5, 3), datetime(2024, 5, 3, 23, 59, 59, 999999, UTC)),
        ("2024-05-03T20:30", datetime(2024, 5, 3, 20, 30, tzinfo=UTC)),
        ("2024-05-03 20:30:01.5", datetime(2024, 5, 3, 20, 30, 1, 500_000, UTC)),
        ("2024-05-03T20:30:00.123Z", datetime(2024, 5, 3, 20, 30, 0, 123_000, UTC)),
        ("2024-05-03T16:30-04:00", datetime(2024, 5, 3, 20, 30, tzinfo=UTC)),
        (datetime(2024, 5, 3, 16, 30, tzinfo=timezone(timedelta(hours=-4))), datetime(2024, 5, 3, 20, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_is_iso_and_utc_where_no_zone_is_given(text: str | date, instant: datetime) -> None:
    assert moment(text) == instant


@pytest.mark.parametrize("text", ["", "yesterday", "2024-02-30", "2024-05-03T25:00", "03.05.2024"])
def test_what_is_no_moment_is_refused_by_name(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no moment; allowed"):
        read_table(CURATED.name, as_of=text, lake_root=tmp_path)


def test_show_as_of_prints_what_was_said_then(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = clocked(tmp_path / "lake", spark)
    bars = history(TICKERS, SESSIONS[:3])
    deliver(house, edited(bars, ("AAA", SESSIONS[2]), volume="123454321"))
    at = now_and_never_again()
    deliver(house, edited(bars, ("AAA", SESSIONS[2]), volume="777767777"))
    monkeypatch.setenv("STOCK_LAKEHOUSE_LAKE_ROOT", str(house.lake.root))

    def show(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["show", *arguments])

    then = show(CURATED.name, "aaa", "--as-of", at.isoformat())
    assert "123454321" in then.output, then.output
    assert "777767777" not in then.output
    assert "777767777" in show(CURATED.name, "AAA").output
    wrong = show(CURATED.name, "AAA", "--as-of", "2001-01-01")
    assert wrong.exit_code == 2
    assert "its first version is of" in wrong.output
    assert show(PROCESSED.name, "AAA", "--as-of", "2024-05-03").exit_code == 2
    assert show(FEATURES.name, "AAA", "--as-of", "soon").exit_code == 2


def test_the_package_has_read_table_and_imports_nothing_for_it() -> None:
    assert stock_lakehouse.read_table is read_table
    with pytest.raises(AttributeError):
        _ = stock_lakehouse.read_tables
    program = "import sys, stock_lakehouse; sys.exit('pyarrow' in sys.modules or 'deltalake' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
