"""Layout "year": the same tables as by ticker and year, from every run and every mishap, and the move between the two."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import dagster as dg
import deltalake
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.coverage import read_coverage
from stock_lakehouse.lake.layout import move
from stock_lakehouse.lake.maintenance import maintain_table
from stock_lakehouse.lake.parquet_table import ParquetTable
from stock_lakehouse.lake.publish import LayoutError, PublishError
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.lake.status import status
from stock_lakehouse.lake.storage import Bucket
from stock_lakehouse.lake.stored import groups_with
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.market_calendar import market_calendar, utc_now
from stock_lakehouse.tables import CURATED, FEATURES, LAYOUTS, PROCESSED, QUARANTINE, RAW, RESTATEMENTS, TABLES
from stock_lakehouse.upkeep import end_repairs, keep_up, pending_repairs, rectangle_to_heal, repair
from stock_lakehouse_tests.conftest import bytes_of
from stock_lakehouse_tests.faults import Faults
from stock_lakehouse_tests.graph import (
    FIRST,
    TICKERS,
    Clocked,
    clocked,
    edited,
    history,
    layers,
    ledger,
    plain,
    rectangle,
    run,
    step,
    year_boundary,
)
from stock_lakehouse_tests.lake.killed_upkeep import Program
from stock_lakehouse_tests.lake.test_concurrent_writers import at_once
from stock_lakehouse_tests.lake.test_upkeep import damaged_files, kept_up, truncate

DAYS = year_boundary(30, 30)
BARS = history(TICKERS, DAYS)
ALL = rectangle(DAYS, TICKERS)
BAD = {"ticker": None, "problem": "file.csv, line 7: 3 fields", "line": "a,b,c"}
EDITED = {
    **edited(edited(BARS, ("AAA", DAYS[2]), close=BARS["AAA", DAYS[2]]["open"]), ("BBB", DAYS[40]), volume="-1"),
    ("CCC", DAYS[7]): {**BARS["CCC", DAYS[7]], "dividends": "0.5"},
}
BOTH = tuple(LAYOUTS)


def story(root: Path | str, spark: SparkSession, layout: str) -> Clocked:
    """Two tickers; then all with a bar added, corrected, withdrawn and rejected each, and a line without a ticker."""
    house = clocked(root, spark, layout=layout)
    run(house, rectangle(DAYS[:45], ("AAA", "BBB")), BARS.values(), "00000000-run")
    run(house, ALL, [*EDITED.values(), BAD], "11111111-run")
    return house


def told(house: Clocked) -> list[dict[str, Any]]:
    """The ledger without what differs between two lakes."""
    return [{name: value for name, value in line.items() if name != "table_id"} for line in ledger(house)]


@pytest.fixture(scope="module")
def lakes(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The story in each layout."""
    roots = {layout: tmp_path_factory.mktemp(layout) / "lake" for layout in BOTH}
    for layout, root in roots.items():
        story(root, spark, layout)
    return roots


@pytest.fixture
def houses(lakes: dict[str, Path], spark: SparkSession, tmp_path: Path) -> dict[str, Clocked]:
    """Lakes of the test's own with the story in them, by layout."""
    for layout, root in lakes.items():
        shutil.copytree(root, tmp_path / layout, copy_function=shutil.copy2)
    return {layout: clocked(tmp_path / layout, spark, layout=layout) for layout in BOTH}


def rows_in(house: Clocked) -> dict[str, list[dict[str, Any]]]:
    """Every table but the ledger, read without an engine and without a layout in the options."""
    names = [table.name for table in TABLES if table != RESTATEMENTS]
    return {name: plain(read_table(name, lake_root=house.lake.root)) for name in names}


def other(layout: str) -> str:
    return next(name for name in LAYOUTS if name != layout)


def at_other(house: Clocked) -> Clocked:
    """The same lake with the other layout in its settings."""
    layout = other(house.lake.options.layout)
    return clocked(house.lake.root, house.session, layout=layout)


def folders(lake: Lake, name: str) -> set[str]:
    """The folders of partitions in which the files of a table are."""
    stored = lake.stored(name)
    return {path.removeprefix(f"{stored.table.path}/").rpartition("/")[0] for path in stored.paths()}


def test_the_setting_has_a_value_for_each_layout() -> None:
    assert set(get_args(LakeOptions.model_fields["layout"].annotation)) == set(LAYOUTS)


@pytest.mark.slow
def test_both_layouts_hold_the_same_tables_and_ledger_bit_for_bit(
    houses: dict[str, Clocked], spark: SparkSession
) -> None:
    by_ticker, by_year = houses["ticker_year"], houses["year"]
    assert layers(by_year) == layers(by_ticker)
    assert told(by_year) == told(by_ticker) != []
    assert rows_in(by_year) == rows_in(by_ticker)
    for name in (PROCESSED.name, QUARANTINE.name, CURATED.name, FEATURES.name):
        years = {f"year={year}" for year in (2019, 2020)}
        assert folders(by_year.lake, name) <= {*years, "year=__unreadable__"}
        if name != QUARANTINE.name:
            assert folders(by_year.lake, name) == years
        assert plain(by_year.lake.read(name, spark).toArrow()) == rows_in(by_year)[name]
        assert by_year.lake.stored(name).ticker_years() == by_ticker.lake.stored(name).ticker_years()
        assert plain(read_table(name, tickers=["BBB"], lake_root=by_year.lake.root)) == [
            row for row in rows_in(by_ticker)[name] if row["ticker"] == "BBB"
        ]


def test_what_is_told_of_a_lake_does_not_depend_on_its_layout(houses: dict[str, Clocked], spark: SparkSession) -> None:
    calendar = market_calendar(FIRST)
    for house in houses.values():
        house.lake.features.open().delete(f"ticker = 'CCC' AND date = '{DAYS[35]}'")
    held = {
        layout: read_coverage(house.lake.features, house.lake.curated, calendar) for layout, house in houses.items()
    }
    assert held["year"] == held["ticker_year"]
    assert held["year"]["CCC"].missing == (DAYS[35],)
    assert held["year"] == read_coverage(houses["year"].lake.features, houses["year"].lake.curated, calendar)
    of_tables = {
        layout: [(one.table, one.tickers, one.absent) for one in status(house.lake, spark, calendar, TICKERS)]
        for layout, house in houses.items()
    }
    assert of_tables["year"] == of_tables["ticker_year"]


def test_a_file_of_a_year_is_sorted_by_ticker_so_that_a_reader_of_one_skips_the_others(
    houses: dict[str, Clocked], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = houses["year"]
    root = Path(str(house.lake.root))
    for path in house.lake.processed.paths():
        tickers = pq.read_table(root / path, partitioning=None)["ticker"].to_pylist()
        assert tickers == sorted(tickers)
    monkeypatch.setattr("stock_lakehouse.lake.stored.GROUP_ROWS", 40)
    monkeypatch.setattr("stock_lakehouse.lake.delta_table.GROUP_ROWS", 40)
    maintain_table(house.lake.curated, house.lake.ledger)
    (of_2020,) = (path for path in house.lake.curated.paths() if "year=2020" in path)
    metadata = pq.read_metadata(root / of_2020)
    assert metadata.num_row_groups == 3  # of 90 rows
    assert groups_with(metadata, ["AAA"]) == [0]
    assert groups_with(metadata, ["CCC"]) == [1, 2]
    assert groups_with(metadata, ["ZZZ"]) == []
    version = house.lake.curated.version()
    maintain_table(house.lake.curated, house.lake.ledger)
    assert house.lake.curated.version() == version


@pytest.mark.slow
def test_a_run_repeated_writes_nothing_and_a_correction_writes_its_year_and_keeps_the_other_rows(
    houses: dict[str, Clocked],
) -> None:
    house = houses["year"]
    root = Path(str(house.lake.root))
    house.lake.processed.row_count()  # a move counts nothing, so the next run would
    before, files = layers(house), bytes_of(root)
    run(house, ALL, [*EDITED.values(), BAD], "22222222-run")
    assert bytes_of(root) == files
    again = edited(EDITED, ("BBB", DAYS[45]), volume="77")
    run(house, rectangle(DAYS[45:46], ["BBB"]), [again["BBB", DAYS[45]]], "33333333-run")
    after = layers(house)
    for name in ("processed", "curated", "features"):
        changed = {(row["ticker"], row["year"]) for row in before[name] if row not in after[name]}
        assert changed == {("BBB", "2020" if name == "processed" else 2020)}
        assert len(after[name]) == len(before[name])
    now = bytes_of(root)
    assert {path for path in files if now[path] != files[path]} == {
        "processed/stocks_daily_by_year/year=2020/data.parquet",
        "processed/stocks_daily_by_year/_row_counts",
    }
    assert not any("year=2019" in path for path in now.keys() - files.keys() if "_delta_log" not in path)


def test_a_run_with_another_layout_than_the_lake_s_is_refused_and_writes_no_table(houses: dict[str, Clocked]) -> None:
    for layout, house in houses.items():
        wrong = at_other(house)
        before, told_before = rows_in(house), told(house)
        refused = (
            rf'has layout "{layout}" on disk and the settings say layout = "{other(layout)}": run `stock-lakehouse layout` to '
            rf'move the lake, or set layout = "{layout}"$'
        )
        with pytest.raises(LayoutError, match=refused):
            wrong.lake.check_layout()
        with pytest.raises(LayoutError, match=refused):
            wrong.setup_for_execution(dg.build_init_resource_context())
        house.lake.check_layout()
        changed = edited(EDITED, ("AAA", DAYS[9]), volume="7")
        for name in (PROCESSED.name, CURATED.name, FEATURES.name):
            with pytest.raises(LayoutError, match=refused):
                run(wrong, ALL, changed.values(), "22222222-run", steps=[name])
        assert rows_in(house) == rows_in(wrong) == before
        assert told(house) == told_before


@pytest.mark.slow
@pytest.mark.slice(1)
@pytest.mark.parametrize("layout", BOTH)
def test_a_lake_moves_there_and_back_with_its_history(
    houses: dict[str, Clocked], layout: str, spark: SparkSession
) -> None:
    house = houses[layout]
    lines, before, then = told(house), layers(house), utc_now()
    said: list[str] = []
    moved = at_other(house)
    move(moved.lake, said.append)
    assert [line.partition(":")[0] for line in said] == [PROCESSED.name, QUARANTINE.name, CURATED.name, FEATURES.name]
    assert all("rows moved, from" in line for line in said)
    moved.lake.check_layout()
    assert layers(moved) == before
    assert told(moved) == lines
    untouched = houses[other(layout)].lake
    for name in (PROCESSED.name, CURATED.name, FEATURES.name):
        assert folders(moved.lake, name) == folders(untouched, name)
        assert plain(moved.lake.read(name, spark).toArrow()) == rows_in(house)[name]
    # Of before the move: by versions that have the other partition columns.
    for name in (CURATED.name, FEATURES.name):
        assert plain(read_table(name, as_of=then, lake_root=moved.lake.root)) == rows_in(house)[name]
    files = bytes_of(Path(str(moved.lake.root)))
    move(moved.lake, said.append)
    assert bytes_of(Path(str(moved.lake.root))) == files
    # Both go on alike.
    for one in (moved, houses[other(layout)]):
        run(one, ALL, edited(EDITED, ("CCC", DAYS[50]), volume="7").values(), "22222222-run")
    assert layers(moved) == layers(houses[other(layout)])
    changed = layers(moved)
    move(house.lake)
    assert layers(house) == changed
    assert folders(house.lake, FEATURES.name) == folders(houses[layout].lake, FEATURES.name)
    keep = keep_up(house.lake, house.session, house.sessions, pause_seconds=0.0)
    assert keep.findings == []
    assert layers(house) == changed


def test_lines_announced_in_vain_do_not_count_after_a_move(houses: dict[str, Clocked]) -> None:
    house = houses["ticker_year"]
    lake, lines = house.lake, ledger(house)
    rows = lake.ledger.stored.open().to_pyarrow_table()
    of_curated = rows.filter(pc.equal(rows["table_name"], CURATED.name)).slice(0, 1)
    at = of_curated.column_names.index("from_version")
    orphan = of_curated.set_column(at, "from_version", pa.array([lake.curated.version()], pa.int64()))
    deltalake.write_deltalake(str(lake.ledger.stored.path), orphan, mode="append")
    assert ledger(house) == lines
    move(at_other(house).lake)
    assert ledger(house) == lines


def test_what_a_move_replaced_goes_a_day_after_it(houses: dict[str, Clocked]) -> None:
    house = at_other(houses["ticker_year"])
    root = Path(str(house.lake.root))
    move(house.lake)
    old = list((root / PROCESSED.path).rglob("data.parquet"))
    assert len(old) == 6
    assert keep_up(house.lake, house.session, house.sessions, pause_seconds=0.0).findings == []
    assert all(path.exists() for path in old)
    for path in old:
        os.utime(path, (path.stat().st_mtime - 25 * 3600,) * 2)
    before = layers(house)
    keep_up(house.lake, house.session, house.sessions, pause_seconds=0.0)
    assert not any(path.exists() for path in old)
    assert layers(house) == before


def test_a_move_that_lost_rows_is_not_made(houses: dict[str, Clocked], monkeypatch: pytest.MonkeyPatch) -> None:
    house = houses["ticker_year"]
    before = rows_in(house)
    whole = ParquetTable._rows_at
    monkeypatch.setattr(ParquetTable, "_rows_at", lambda table, path: whole(table, path) - 1)
    with pytest.raises(PublishError, match=r"180 rows were read and 178 written; nothing was moved"):
        move(at_other(house).lake)
    assert rows_in(house) == before


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    program = Program(tmp_path_factory.mktemp("killed") / "points.json")
    yield program
    program.close()


class Mover:
    """Moves of the story's lake to `layout` that are killed."""

    def __init__(self, folder: Path, program: Program, origin: Path, layout: str, spark: SparkSession) -> None:
        self.folder, self.program, self.origin, self.layout, self.spark = folder, program, origin, layout, spark
        self.before = rows_in(clocked(origin, spark))
        assert program.do(layout, self.copy("undisturbed"), "none") == 0
        self.points = program.points
        self.files = self.files_of("undisturbed")

    def copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.origin, self.folder / name, copy_function=shutil.copy2))

    def files_of(self, name: str) -> dict[str, int]:
        lake = Lake(LakeOptions(lake_root=self.folder / name, layout=self.layout))  # type: ignore[arg-type]
        lake.check_layout()
        return {table.name: len(lake.stored(table.name).paths()) for table in TABLES}

    def check(self, points: list[int], faults: Faults) -> None:
        """Kill a move at each of `points`, look at the lake, move it again, and compare with the undisturbed move."""
        lost, seconds = 0, 0.0
        for point in points:
            root = self.copy(str(point))
            assert os.WTERMSIG(self.program.do(self.layout, root, str(point))) == signal.SIGKILL
            seen = rows_in(clocked(root, self.spark))
            lost += sum(row not in seen[name] for name, rows in self.before.items() for row in rows)
            assert seen == self.before, self.points[point]
            began = time.monotonic()
            assert self.program.do(self.layout, root, "none") == 0
            seconds = max(seconds, time.monotonic() - began)
            assert self.files_of(str(point)) == self.files
            assert rows_in(clocked(root, self.spark)) == self.before
            shutil.rmtree(root)
        faults.tried("a move to another layout killed at a write", len(points), lost, seconds)


@pytest.fixture(params=BOTH)
def mover(
    request: pytest.FixtureRequest, lakes: dict[str, Path], program: Program, tmp_path: Path, spark: SparkSession
) -> Mover:
    return Mover(tmp_path, program, lakes[other(request.param)], request.param, spark)


@pytest.mark.slow
def test_a_move_killed_at_a_write_leaves_what_the_lake_says_and_is_completed_by_the_next(
    mover: Mover, faults: Faults
) -> None:
    folder = PROCESSED.path if mover.layout == "ticker_year" else f"{PROCESSED.path}_by_year"
    mark = f"before unlink {PROCESSED.path}" if mover.layout == "ticker_year" else f"after replace {PROCESSED.path}"
    places = [
        f"after replace {folder}",
        mark,
        f"before write_deltalake {CURATED.path}",
        f"after write_deltalake {CURATED.path}",
    ]
    mover.check([mover.points.index(place) for place in places], faults)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_move_killed_at_any_write_leaves_what_the_lake_says_and_is_completed_by_the_next(
    mover: Mover, faults: Faults
) -> None:
    mover.check(list(range(len(mover.points))), faults)


@pytest.mark.slow
@pytest.mark.slice(1)
@pytest.mark.parametrize("harm", [truncate, Path.unlink])
@pytest.mark.parametrize("name", [PROCESSED.name, QUARANTINE.name, CURATED.name, FEATURES.name])
def test_a_damaged_file_of_a_year_is_named_and_heals_for_all_its_tickers(
    houses: dict[str, Clocked], name: str, harm: Callable[[Path], None]
) -> None:
    house = houses["year"]
    before, lines = layers(house), ledger(house)
    victim = next(path for path in damaged_files(house.lake, name) if "year=2020" in str(path))
    harm(victim)
    if name in house.lake.parquet and not victim.exists():
        return  # nothing says that there was one, as by ticker and year
    assert set(kept_up(house, check_only=True)) == {name}
    todo = repair(house.lake)
    assert set(todo) == {(ticker, 2020) for ticker in TICKERS}
    asked = rectangle_to_heal(todo, DAYS, TICKERS) or pytest.fail("nothing to compute")
    markers = pending_repairs(house.lake)
    run(house, asked, steps=(PROCESSED.name, CURATED.name, FEATURES.name))
    end_repairs(house.lake, markers, asked)
    assert layers(house) == before
    assert ledger(house) == lines
    assert kept_up(house) == {}


@pytest.mark.soak
def test_writers_of_tickers_of_the_same_year_at_once_lose_nothing(
    lakes: dict[str, Path], spark: SparkSession, tmp_path: Path
) -> None:
    house = clocked(tmp_path / "lake", spark, layout="year")
    run(house, rectangle(DAYS[:45], ("AAA", "BBB")), BARS.values(), "00000000-run")
    run(house, ALL, [*EDITED.values(), BAD], "11111111-run", steps=[RAW.name])
    with at_once(house.lake.root, (rectangle(DAYS, ("AAA",)),), (rectangle(DAYS, ("BBB", "CCC")),), layout="year"):
        pass
    assert layers(house) == layers(clocked(lakes["ticker_year"], spark))


@pytest.mark.soak
def test_on_s3_a_lake_runs_by_year_moves_and_moves_back(
    houses: dict[str, Clocked], spark: SparkSession, s3_root: str
) -> None:
    there = story(s3_root, spark, "year")
    assert layers(there) == layers(houses["year"])
    assert told(there) == told(houses["year"])
    assert there.lake.stored(PROCESSED.name).ticker_years() == houses["year"].lake.stored(PROCESSED.name).ticker_years()
    assert plain(read_table(PROCESSED.name, tickers=["BBB"], lake_root=s3_root)) == plain(
        read_table(PROCESSED.name, tickers=["BBB"], lake_root=houses["year"].lake.root)
    )
    tags = there.lake.version_tags()
    run(there, ALL, [*EDITED.values(), BAD], "22222222-run")
    assert there.lake.version_tags() == tags
    back = at_other(there)
    move(back.lake)
    assert layers(back) == layers(there) == layers(houses["ticker_year"])
    with pytest.raises(LayoutError):
        there.lake.check_layout()
    maintain_table(back.lake.curated, back.lake.ledger)
    move(there.lake)
    maintain_table(there.lake.curated, there.lake.ledger)
    assert layers(there) == layers(houses["year"])


@pytest.mark.soak
def test_a_file_of_a_year_that_another_writer_replaced_since_the_comparison_is_not_overwritten(
    spark: SparkSession, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = story(s3_root, spark, "year")
    (file,) = (file for file in house.lake.processed.files() if "year=2019" in file.path)
    changed = edited(EDITED, ("AAA", DAYS[9]), volume="7")
    run(house, ALL, changed.values(), "22222222-run", steps=[RAW.name])
    publish = step(house, PROCESSED.name, rectangle(DAYS, ["AAA"]), "22222222-run")
    replace = Bucket.replace

    def after_another(bucket: Bucket, path: str, content: bytes, there: Any, draft: str) -> None:
        if path == file.path:
            bucket.put(path, b"another writer's", file.version_tag)
        replace(bucket, path, content, there, draft)

    monkeypatch.setattr(Bucket, "replace", after_another)
    with pytest.raises(PublishError, match=r"another writer changed .*/year=2019/data\.parquet while this run"):
        publish()
    assert Bucket(s3_root).read(file.path) == b"another writer's"
    house.teardown_after_execution(None)  # type: ignore[arg-type]
