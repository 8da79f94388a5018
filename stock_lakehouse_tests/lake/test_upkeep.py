"""Upkeep changes what a lake is made of and nothing that it says; versions within retention stay, damage is named and heals."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import EXACT_IN_JSON, DeltaTable
from stock_lakehouse.lake.history import NoVersionError, commits, files_of
from stock_lakehouse.lake.maintenance import UNCOMMITTED, maintain_table
from stock_lakehouse.lake.publish import partition_of
from stock_lakehouse.lake.reading import moment, read_table
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.tables import (
    BY_NAME,
    CORPORATE_ACTIONS,
    CURATED,
    FEATURES,
    PROCESSED,
    PROCESSED_ACTIONS,
    QUARANTINE,
    RAW,
    RESTATEMENTS,
)
from stock_lakehouse.upkeep import (
    REPAIRS,
    DamageError,
    damages_of,
    end_repairs,
    keep_up,
    lacking,
    pending_repairs,
    rectangle_to_heal,
    repair,
    sampled,
)
from stock_lakehouse_tests.conftest import bytes_of
from stock_lakehouse_tests.faults import Faults
from stock_lakehouse_tests.graph import (
    TICKERS,
    Clocked,
    clocked,
    contents,
    history,
    layers,
    ledger,
    plain,
    raw_contents,
    rectangle,
    run,
)
from stock_lakehouse_tests.lake.histories import (
    DELTA,
    SESSIONS,
    adds_of,
    correction,
    deliver,
    first_delivery,
    said,
    scattered,
    time_passes,
)

MONTH = timedelta(days=30)


@pytest.fixture(scope="module")
def template(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four deliveries, three of them corrections."""
    root = tmp_path_factory.mktemp("filled") / "lake"
    house = clocked(root, spark)
    deliver(house, first_delivery())
    for number in range(1, 4):
        deliver(house, correction(number))
    return root


@pytest.fixture
def filled(spark: SparkSession, template: Path, tmp_path: Path) -> Clocked:
    """A lake of its own like `template`."""
    shutil.copytree(template, tmp_path / "lake", copy_function=shutil.copy2)
    return clocked(tmp_path / "lake", spark)


def tend_all(lake: Lake) -> None:
    for name in DELTA:
        maintain_table(lake.stored(name), None if name == RESTATEMENTS.name else lake.ledger)  # type: ignore[arg-type]


def kept_up(house: Clocked, **values: object) -> dict[str, str]:
    """What an upkeep finds, by table."""
    done = keep_up(house.lake, house.session, house.sessions, pause_seconds=0.0, **values)  # type: ignore[arg-type]
    return {one.table: f"{one.what}. {one.todo}" for one in done.findings}


# What is done


@pytest.mark.soak
def test_small_files_are_joined_bit_for_bit_with_statistics_that_json_holds_exactly(filled: Clocked) -> None:
    lake = filled.lake
    scattered(lake.curated, 4)
    scattered(lake.features, 3)
    before, told = said(lake), layers(filled)
    scatter = {name: len(lake.stored(name).sizes()) for name in DELTA}
    tend_all(lake)
    assert said(lake) == before
    assert layers(filled) == told
    for name in (CURATED.name, FEATURES.name):
        assert len(lake.stored(name).sizes()) == 2 * len(TICKERS) < scatter[name]
        assert plain(lake.read(name, filled.session).toArrow()) == before[name]
    assert len(lake.stored(RESTATEMENTS.name).sizes()) == 2 < scatter[RESTATEMENTS.name]
    for name in DELTA:
        exact = {one.name for one in BY_NAME[name].columns if one.type in EXACT_IN_JSON}
        for add in adds_of(lake.stored(name)):  # type: ignore[arg-type]
            with_statistics = {key[4:] for key, value in add.items() if key.startswith("min.") and value is not None}
            assert with_statistics
            assert with_statistics <= exact


@pytest.mark.slow
def test_an_upkeep_repeated_writes_nothing_and_one_that_only_looks_never(filled: Clocked) -> None:
    scattered(filled.lake.curated, 2)
    root = Path(str(filled.lake.root))
    before = bytes_of(root)
    assert kept_up(filled, check_only=True) == {}
    assert bytes_of(root) == before
    assert kept_up(filled) == {}
    after = bytes_of(root)
    assert after != before
    assert kept_up(filled) == {}
    assert bytes_of(root) == after


def test_a_line_announced_in_vain_does_not_count_after_a_compaction(filled: Clocked) -> None:
    """A killed run's line names the present version; a compaction makes another without changing a row."""
    lake = filled.lake
    scattered(lake.curated, 2)
    before = ledger(filled)
    lines = lake.ledger.stored.open().to_pyarrow_table().slice(0, 1)
    fields = {"table_name": CURATED.name, "run_id": "killed", "from_version": lake.curated.version()}
    for name, value in fields.items():
        at = lines.column_names.index(name)
        lines = lines.set_column(at, name, pa.array([value], lines.schema.field(name).type))
    lines = lines.set_column(
        lines.column_names.index("table_id"), "table_id", pa.array([str(lake.curated.open().metadata().id)])
    )
    deltalake.write_deltalake(str(lake.ledger.stored.path), lines, mode="append")
    assert ledger(filled) == before
    tend_all(lake)
    assert ledger(filled) == before
    deliver(filled, correction(9))
    assert {line["run_id"] for line in ledger(filled)} == {"11111111-run"}


def test_what_a_killed_run_staged_goes_after_a_day(filled: Clocked) -> None:
    root = Path(str(filled.lake.root))
    for name, age in (("old", 25), ("young", 23)):
        (root / ".staging" / name).mkdir(parents=True)
        (root / ".staging" / name / "part.parquet").write_bytes(b"x")
        time_passes(root / ".staging" / name, timedelta(hours=age))
    kept_up(filled)
    assert [path.name for path in (root / ".staging").iterdir()] == ["young"]


# What is removed


def months(house: Clocked, count: int, retention_days: int) -> list[tuple[int, dict[str, list[dict[str, object]]]]]:
    """Deliver, keep up and let a month pass, `count` times; the moments of each, as months ago, with what was said."""
    deliver(house, first_delivery())
    memories = []
    root = Path(str(house.lake.root))
    for number in range(1, count + 1):
        deliver(house, correction(number))
        time_passes(root, timedelta(hours=1))
        memories.append(said(house.lake))
        tend_all(Lake(LakeOptions(lake_root=house.lake.root, retention_days=retention_days)))
        assert said(house.lake) == memories[-1]
        time_passes(root, MONTH)
    return [(count - at, what) for at, what in enumerate(memories)]


@pytest.mark.soak
def test_versions_within_retention_are_read_back_exactly_and_before_them_an_error_gives_the_earliest(
    spark: SparkSession, tmp_path: Path
) -> None:
    house = clocked(tmp_path / "lake", spark)
    memories = months(house, 6, retention_days=100)
    now, files = utc_now(), {file.path for file in house.lake.storage.walk("")}
    errors = 0
    for ago, what in memories:
        at = now - ago * MONTH - timedelta(minutes=30) * ago
        for name in DELTA:
            try:
                rows = plain(read_table(name, as_of=at, lake_root=house.lake.root))
            except NoVersionError as error:
                assert ago > 4, "within retention, and what was the newest at its end"
                earliest = str(error).split("available is of ")[1].split(",")[0]
                assert moment(earliest) > at
                assert read_table(name, as_of=earliest, lake_root=house.lake.root).num_rows
                errors += 1
            else:
                assert rows == what[name], (name, ago)
    assert errors >= 3
    named = set()
    for name in (CURATED.name, FEATURES.name):
        table = house.lake.delta[name]
        first = commits(table)[0].version
        assert first > 0
        log = [path for path in files if path.startswith(f"{table.table.path}/_delta_log/0")]
        assert all(int(path.split("/")[-1][:20]) >= first for path in log)
        named |= files_of(table.open(), table.table.path)
    assert named <= files


def test_a_file_of_no_version_goes_when_no_commit_can_be_on_its_way_with_it(filled: Clocked) -> None:
    table = filled.lake.curated
    path = Path(str(table.path)) / "ticker=AAA" / "year=2020"
    for name, age in (("old", UNCOMMITTED + MONTH), ("young", UNCOMMITTED / 2)):
        (path / f"part-{name}.parquet").write_bytes(b"never committed")
        moved = path / f"part-{name}.parquet"
        then = moved.stat().st_mtime - age.total_seconds()
        os.utime(moved, (then, then))
    before = len(list(path.iterdir()))
    done = maintain_table(table, filled.lake.ledger)
    assert (done.files_removed, done.bytes_freed, done.versions_removed) == (1, len(b"never committed"), 0)
    assert len(list(path.iterdir())) == before - 1
    assert not (path / "part-old.parquet").exists()


def test_a_clock_that_jumped_ahead_removes_nothing(filled: Clocked) -> None:
    before = [file.path for file in filled.lake.storage.walk(CURATED.path) if "_delta_log" not in file.path]
    done = maintain_table(filled.lake.curated, filled.lake.ledger, utc_now() + timedelta(days=3650))
    assert (done.files_removed, done.versions_removed) == (0, 0)
    assert set(before) <= {file.path for file in filled.lake.storage.walk(CURATED.path)}


@pytest.mark.slow
def test_a_table_of_before_gets_the_properties_in_one_commit_and_no_more(filled: Clocked) -> None:
    table = filled.lake.features
    table.open().alter.set_table_properties(
        {"delta.logRetentionDuration": "interval 1 days", "delta.enableExpiredLogCleanup": "true"}
    )
    before = table.version() or 0
    deliver(filled, correction(5))
    assert table.open().metadata().configuration == table.properties
    assert table.version() == before + 2
    deliver(filled, correction(6))
    assert table.version() == before + 3


@pytest.mark.soak
def test_on_s3_versions_beyond_retention_stay_within_it_and_files_are_joined(spark: SparkSession, s3_root: str) -> None:
    house = clocked(s3_root, spark)
    deliver(house, first_delivery())
    deliver(house, correction(2))
    time.sleep(0.01)
    at, before = utc_now(), said(house.lake)
    scattered(house.lake.curated, 2)
    assert kept_up(house) == {}
    assert said(house.lake) == said(house.lake, at) == before


# What is found


def everything(house: Clocked) -> dict[str, list[dict[str, object]]]:
    """What all tables hold that are computed from raw, by name."""
    names = (PROCESSED, QUARANTINE, PROCESSED_ACTIONS, CURATED, CORPORATE_ACTIONS, FEATURES)
    return {table.name: contents(house.lake.stored(table.name)) for table in names}  # type: ignore[arg-type]


def damaged_files(lake: Lake, name: str) -> list[Path]:
    root = Path(str(lake.root))
    table = lake.stored(name)
    if isinstance(table, DeltaTable):
        return sorted(root / path for path in files_of(table.open(), table.table.path))
    return sorted(root / file.path for file in lake.stored(name).files())  # type: ignore[union-attr]


def heal(house: Clocked) -> set[tuple[str, int]]:
    """What `upkeep --repair` does; the ticker-years that its run computed anew."""
    todo = repair(house.lake)
    asked = rectangle_to_heal(todo, SESSIONS, TICKERS) or pytest.fail("nothing to compute")
    markers = pending_repairs(house.lake)
    run(house, asked, steps=(PROCESSED.name, CURATED.name, FEATURES.name))
    end_repairs(house.lake, markers, asked)
    return set(todo)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path: Path) -> None:
    """Of the same size, but no Parquet."""
    path.write_bytes(b"x" * path.stat().st_size)


@pytest.mark.slow
@pytest.mark.slice(1)
@pytest.mark.parametrize("harm", [Path.unlink, truncate, overwrite])
@pytest.mark.parametrize("name", [PROCESSED.name, CURATED.name, FEATURES.name])
def test_a_damaged_file_is_named_and_heals(
    filled: Clocked, name: str, harm: Callable[[Path], None], faults: Faults
) -> None:
    lake, before, lines = filled.lake, layers(filled), ledger(filled)
    victim = damaged_files(lake, name)[1]
    harm(victim)
    told = kept_up(filled, check_only=True)
    assert set(told) == {name}
    assert "`stock-lakehouse upkeep --repair`" in told[name]
    began = time.monotonic()
    ticker, year = partition_of(str(victim))
    assert heal(filled) == {(ticker, int(year))}
    healed = time.monotonic() - began
    there = layers(filled)
    assert there == before
    assert ledger(filled) == lines
    assert kept_up(filled) == {}
    missing = sum(row not in there[layer] for layer, rows in before.items() for row in rows)
    faults.tried("damaged data file", 1, missing, healed)


@pytest.mark.slow
def test_a_repair_killed_before_its_run_is_found_again(filled: Clocked) -> None:
    lake, before = filled.lake, layers(filled)
    for name in (CURATED.name, PROCESSED.name):
        damaged_files(lake, name)[0].unlink()
    assert set(repair(lake)) == {("AAA", 2019)}
    assert set(lacking(lake)) == {CURATED.name}
    assert "AAA 2019" in kept_up(filled)[CURATED.name]
    assert set(repair(lake)) == {("AAA", 2019)}
    assert heal(filled) == {("AAA", 2019)}
    assert layers(filled) == before
    assert lacking(lake) == {}
    assert kept_up(filled) == {}


@pytest.mark.slow
@pytest.mark.slice(1)
@pytest.mark.parametrize("name", [QUARANTINE.name, PROCESSED_ACTIONS.name, FEATURES.name])
def test_what_a_killed_repair_took_out_is_named_until_a_repair_ends(filled: Clocked, name: str) -> None:
    """Nothing is computed from these tables by ticker and year, so no other table says that they lack something."""
    deliver(filled, {key: {**bar, "volume": "-3"} for key, bar in correction(4).items()})
    deliver(filled, correction(5))
    lake, before, lines = filled.lake, everything(filled), ledger(filled)
    taken_out = damaged_files(lake, name)[0]
    truncate(taken_out)
    repair(lake)  # and killed before its run
    assert everything(filled)[name] != before[name]
    assert "a repair removed rows of" in kept_up(filled)[name]
    asked = rectangle_to_heal(repair(lake), SESSIONS, TICKERS) or pytest.fail("nothing to compute")
    run(filled, asked, steps=(PROCESSED.name,))  # killed in its run
    assert "a repair removed rows of" in kept_up(filled, sample=0)[name]
    heal(filled)
    assert everything(filled) == before
    assert ledger(filled) == lines
    assert kept_up(filled) == {}
    assert list(lake.storage.walk(REPAIRS)) == []


@pytest.mark.slow
@pytest.mark.slice(1)
@pytest.mark.parametrize("partition", ["ticker=__unreadable__/year=__unreadable__", "ticker=BBB/year=__unreadable__"])
def test_quarantined_rows_without_a_ticker_or_a_year_come_back(filled: Clocked, partition: str) -> None:
    rows = [
        {"ticker": "BBB", "symbol": "BBB", "date": "some day", "close": "1"},
        {"ticker": None, "problem": "file.csv, line 7: 3 fields", "line": "a,b,c"},
    ]
    run(filled, rectangle(SESSIONS, TICKERS), rows, "22222222-run")
    before = layers(filled)
    (victim,) = (path for path in damaged_files(filled.lake, QUARANTINE.name) if partition in str(path))
    truncate(victim)
    assert heal(filled)
    assert layers(filled) == before
    assert kept_up(filled) == {}


@pytest.mark.slow
def test_the_mark_of_a_repair_that_is_cut_stands_for_every_ticker_year(filled: Clocked) -> None:
    lake, before = filled.lake, layers(filled)
    truncate(damaged_files(lake, FEATURES.name)[2])
    repair(lake)
    (marker,) = lake.storage.walk(REPAIRS)
    (Path(str(lake.root)) / marker.path).write_bytes(b'{"stocks_fea')
    assert "6 ticker-years" in kept_up(filled)[FEATURES.name]
    heal(filled)
    assert layers(filled) == before
    assert kept_up(filled) == {}


def test_a_repair_ends_for_what_its_run_computed_and_stays_marked_for_the_rest(filled: Clocked) -> None:
    for path in damaged_files(filled.lake, FEATURES.name)[1:4:2]:
        truncate(path)
    assert set(repair(filled.lake)) == {("AAA", 2020), ("BBB", 2020)}
    end_repairs(filled.lake, pending_repairs(filled.lake), rectangle(SESSIONS, ["AAA"]))
    assert set(repair(filled.lake)) == {("BBB", 2020)}


def test_a_disk_that_is_gone_is_not_repaired(filled: Clocked, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in damaged_files(filled.lake, FEATURES.name)[:5]:
        path.unlink()
    version = filled.lake.features.version()
    monkeypatch.setattr("stock_lakehouse.upkeep.NAMED", 4)
    with pytest.raises(DamageError, match="5 of 6 files are damaged"):
        repair(filled.lake)
    assert filled.lake.features.version() == version


def test_a_ticker_that_left_the_settings_is_not_computed_anew() -> None:
    assert rectangle_to_heal([("ZZZ", 2019)], SESSIONS, TICKERS) is None
    asked = rectangle_to_heal([("ZZZ", 2020), ("BBB", 2019)], SESSIONS, TICKERS)
    assert asked is not None
    assert asked.tickers == ("BBB",)


def test_raw_and_the_ledger_are_not_made_anew_and_the_finding_says_what_to_do(filled: Clocked) -> None:
    lake = filled.lake
    raw = raw_contents(lake)
    root = Path(str(lake.root))
    csv = root / lake.raw.files()[0].path
    content = csv.read_bytes()
    csv.write_bytes(content[:200] + b'\n"a","b"')
    line = root / sorted(files_of(lake.ledger.stored.open(), RESTATEMENTS.path))[0]
    truncate(line)
    told = kept_up(filled)
    assert set(told) == {RAW.name, RESTATEMENTS.name}
    assert "bring the file back from a backup" in told[RAW.name]
    assert line.name in told[RESTATEMENTS.name]
    assert repair(lake) == {}
    csv.write_bytes(content)
    assert raw_contents(lake) == raw
    for file in csv.parent.iterdir():
        file.unlink()
    assert "AAA 2019, BBB 2019, CCC 2019. bring its files back" in kept_up(filled)[RAW.name]


@pytest.mark.soak
def test_a_value_that_nothing_computes_and_one_that_breaks_its_rule_are_found(filled: Clocked) -> None:
    features, curated = filled.lake.features, filled.lake.curated
    features.open().update(
        {"sma_20": "sma_20 + 1e-13"}, predicate="ticker = 'BBB' AND year = 2020 AND sma_20 IS NOT NULL"
    )
    assert set(kept_up(filled)) == {FEATURES.name}
    assert "of BBB differ from the rows computed now" in kept_up(filled)[FEATURES.name]
    assert kept_up(filled, sample=0) == {}
    curated.open().update({"close": "-1.0"}, predicate="ticker = 'AAA' AND year = 2019")
    told = kept_up(filled)
    assert "close" in told[CURATED.name]
    assert "rules of its schema do not hold" in told[CURATED.name]
    run(
        filled,
        rectangle_to_heal([("BBB", 2020), ("AAA", 2019)], SESSIONS, TICKERS) or pytest.fail("none"),
        steps=(CURATED.name, FEATURES.name),
    )
    assert kept_up(filled) == {}


@pytest.mark.soak
def test_the_quarantine_is_looked_at_too(filled: Clocked) -> None:
    bars = {key: {**bar, "volume": "-3"} for key, bar in correction(4).items()}
    deliver(filled, bars)
    (first, *_) = damaged_files(filled.lake, QUARANTINE.name)
    assert kept_up(filled) == {}
    truncate(first)
    assert set(kept_up(filled)) == {QUARANTINE.name}
    assert damages_of(filled.lake, QUARANTINE)[0].path == str(first.relative_to(str(filled.lake.root)))


def test_files_that_no_landing_names_are_listed_and_one_that_may_be_on_its_way_is_not(filled: Clocked) -> None:
    folder = Path(str(filled.lake.raw.root)) / "year=2020"
    (folder / "mine.csv").write_bytes(b"x")
    for name, age in (("old", timedelta(hours=25)), ("young", timedelta(hours=1))):
        (folder / f".{name}.tmp").write_bytes(b"x")
        then = time.time() - age.total_seconds()
        os.utime(folder / f".{name}.tmp", (then, then))
    told = kept_up(filled, check_only=True, sample=0)[RAW.name]
    assert "2 files do not have the name of a landing" in told
    assert "mine.csv" in told
    assert ".old.tmp" in told


def test_every_ticker_has_its_turn_in_the_sample() -> None:
    dice, tickers = random.Random(1), [f"T{number}" for number in range(23)]
    start = date(2026, 1, 4) + timedelta(weeks=dice.randint(0, 1000))
    weeks = [sampled(tickers, 10, start + timedelta(weeks=number)) for number in range(4)]
    assert all(len(one) == 10 for one in weeks)
    assert {ticker for one in weeks for ticker in one} == set(tickers)
    assert sampled(["A", "B"], 10, start) == ["A", "B"]
    assert sampled([], 10, start) == sampled(tickers, 0, start) == []


@pytest.mark.slow
def test_a_lost_file_of_corporate_actions_heals_and_no_bar_is_ever_adjusted_without_it(
    spark: SparkSession, tmp_path: Path
) -> None:
    """Its actions are those of every ticker, and each changes all earlier bars of its ticker."""
    house = clocked(tmp_path / "lake", spark)
    bars = history(TICKERS, SESSIONS)
    for ticker in TICKERS[:2]:
        bars[ticker, SESSIONS[30]]["dividends"] = "0.5"
    deliver(house, bars)
    lake, before, lines = house.lake, layers(house), ledger(house)
    actions = plain(read_table(CORPORATE_ACTIONS.name, lake_root=lake.root))
    assert {row["ticker"] for row in actions} == set(TICKERS[:2])
    for path in files_of(lake.corporate_actions.open(), CORPORATE_ACTIONS.path):
        (Path(str(lake.root)) / path).unlink()
    assert set(kept_up(house)) == {CORPORATE_ACTIONS.name}
    todo = repair(lake)
    assert {ticker for ticker, _ in todo} == set(TICKERS)
    # A run of the year before the dividends: it knows by the note that it must look further.
    run(house, rectangle_to_heal([("AAA", 2019)], SESSIONS, TICKERS) or pytest.fail("none"), steps=(CURATED.name,))
    assert layers(house)["curated"] == before["curated"]
    heal(house)
    assert layers(house) == before
    assert ledger(house) == lines
    assert plain(read_table(CORPORATE_ACTIONS.name, lake_root=lake.root)) == actions
    assert repair(lake) == {}
    assert kept_up(house) == {}
