"""Backfills: what is missing becomes runs, killed ones go on, and Dagster knows of what the lake holds."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from typer.testing import CliRunner, Result

from stock_lakehouse import tables
from stock_lakehouse.cli import app
from stock_lakehouse.instance.home import dagster_folder, open_instance
from stock_lakehouse.lake import Lake
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.partitions import PartitionScheme, Rectangle
from stock_lakehouse.runs import backfill
from stock_lakehouse.runs.backfill import (
    BACKFILL_TAG,
    FEATURES_ALONE,
    SERVE_LATER_TAG,
    BackfillPlan,
    Chunk,
    cut,
    plan_backfill,
    run_backfill,
)
from stock_lakehouse.runs.record import record_held
from stock_lakehouse.runs.run import (
    PROGRAM_TAG,
    RunReport,
    check_select,
    end_dead_runs,
    prune_runs,
    record_rectangle,
    run_rectangle,
)
from stock_lakehouse.settings import Settings
from stock_lakehouse_tests.conftest import bytes_of
from stock_lakehouse_tests.graph import LANDINGS, contents

SESSIONS = market_calendar(date(2023, 1, 1)).between(date(2023, 1, 1), date(2023, 12, 31))
TICKERS = ("AAA", "BBB", "CCC", "DDD")
ASKED = Rectangle(SESSIONS, TICKERS)
LAYERS = [table.name for table in tables.LAYERS]
CONFIG = """
tickers = ["AAPL", "AMZN", "NVDA"]
first_date = 2023-08-01
last_date = 2023-09-21
"""
BARS = 37  # sessions of CONFIG


def cells(**missing: range | list[int]) -> np.ndarray:
    grid = np.zeros((len(TICKERS), len(SESSIONS)), dtype=bool)
    for ticker, places in missing.items():
        grid[TICKERS.index(ticker), list(places)] = True
    return grid


def shapes(chunks: Iterator[Chunk]) -> list[tuple[tuple[str, ...], date, date, int]]:
    return [(one.rectangle.tickers, one.rectangle.first, one.rectangle.last, one.missing) for one in chunks]


def test_what_reads_all_tables_is_made_by_the_last_run_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three runs of all assets and two of features alone: the serving copy of each table, catalog and reports once."""
    ran: list[tuple[tuple[str, ...] | None, bool]] = []

    def remember(
        settings: Settings, rectangle: Rectangle, select: tuple[str, ...] | None, progress: object, tags: dict[str, str]
    ) -> RunReport:
        ran.append((None if select is None else tuple(select), SERVE_LATER_TAG in tags))
        assert BACKFILL_TAG in tags
        return RunReport("a-run", True, (), (), {})

    monkeypatch.setattr(backfill, "run_rectangle", remember)
    one = Rectangle(SESSIONS[:2], TICKERS[:1])
    chunks = (*(Chunk(one, None, 2) for _ in range(3)), *(Chunk(one, FEATURES_ALONE, 2) for _ in range(2)))
    assert len(list(run_backfill(Settings(), BackfillPlan(10, chunks), lambda line: None))) == 5
    every_table = tuple(table.name for table in tables.TABLES)
    assert ran == [
        (every_table, True),
        (every_table, True),
        (None, False),
        (FEATURES_ALONE, True),
        (FEATURES_ALONE, False),
    ]


def test_nothing_missing_is_no_run() -> None:
    assert not list(cut(ASKED, cells(), 1000, None))


def test_everything_missing_is_whole_tickers_up_to_the_bars_of_a_chunk() -> None:
    days = range(len(SESSIONS))
    everything = cells(AAA=days, BBB=days, CCC=days, DDD=days)
    whole = (SESSIONS[0], SESSIONS[-1])
    assert shapes(cut(ASKED, everything, 10**6, None)) == [(TICKERS, *whole, 1000)]
    assert shapes(cut(ASKED, everything, 500, None)) == [(TICKERS[:2], *whole, 500), (TICKERS[2:], *whole, 500)]
    assert [one.rectangle.tickers for one in cut(ASKED, everything, 1, None)] == [(ticker,) for ticker in TICKERS]


def test_a_new_ticker_is_a_run_of_its_own_beside_the_days_that_the_others_lack() -> None:
    missing = cells(AAA=[248, 249], BBB=range(250), CCC=[248, 249], DDD=[249])
    assert shapes(cut(ASKED, missing, 10**6, None)) == [
        (("BBB",), SESSIONS[0], SESSIONS[-1], 250),
        (("AAA", "CCC", "DDD"), SESSIONS[248], SESSIONS[249], 5),
    ]


@settings(max_examples=150, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 249)), max_size=60), st.integers(1, 2000))
def test_chunks_hold_every_missing_bar_once(missing: set[tuple[int, int]], chunk_bars: int) -> None:
    grid = np.zeros((len(TICKERS), len(SESSIONS)), dtype=bool)
    for ticker, session in missing:
        grid[ticker, session] = True
    chunks = list(cut(ASKED, grid, chunk_bars, None))
    held = [(t, s) for one in chunks for t in one.rectangle.tickers for s in one.rectangle.sessions]
    assert len(held) == len(set(held))
    assert {(TICKERS[t], SESSIONS[s]) for t, s in missing} <= set(held)
    assert sum(one.missing for one in chunks) == len(missing)
    for one in chunks:
        assert one.rectangle.is_consecutive
        assert len(one.rectangle.tickers) == 1 or len(one.rectangle.tickers) * len(one.rectangle.sessions) <= chunk_bars


@pytest.fixture
def small(tmp_path: Path) -> Settings:
    """Three tickers of the sample over seven weeks."""
    return Settings(
        lake_root=tmp_path / "lakehouse",
        tickers=("AAPL", "AMZN", "NVDA"),
        first_date=date(2023, 8, 1),
        last_date=date(2023, 9, 21),
    )


def whole(of: Settings) -> Rectangle:
    scheme = PartitionScheme(of, market_calendar(of.first_date))
    return scheme.request(None, None, None, date(2024, 1, 2))


def quiet(_line: str) -> None:
    """No progress."""


@pytest.mark.slow
@pytest.mark.slice(1)
@pytest.mark.parametrize("by", ["date_ticker", "session"])
def test_adding_a_ticker_backfills_that_ticker_alone(spark: SparkSession, small: Settings, by: str) -> None:
    two = small.model_copy(update={"tickers": ("AAPL", "NVDA"), "partition_by": by})
    three = two.model_copy(update={"tickers": small.tickers})
    lake = Lake(small.lake_root)
    run_rectangle(two, whole(two))
    before = {name: rows for name, rows in bytes_of(small.lake_root).items() if "ticker=AMZN" not in name}
    plan = plan_backfill(lake, spark, whole(three))
    assert [(one.rectangle.tickers, one.select, one.missing) for one in plan.chunks] == [(("AMZN",), None, BARS)]
    steps = list(run_backfill(three, plan, quiet))
    assert [(step.number, step.of, step.done, step.seconds_left) for step in steps] == [(1, 1, 1.0, 0.0)]
    assert steps[0].report.success
    assert {row["ticker"] for row in contents(lake.features)} == set(three.tickers)
    after = bytes_of(small.lake_root)
    kept = [name for name in before if "ticker=" in name]
    assert kept
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}  # nothing else was written
    assert not plan_backfill(lake, spark, whole(three)).chunks


@pytest.mark.slow
def test_features_by_older_formulas_are_run_again_alone(spark: SparkSession, small: Settings) -> None:
    from stock_lakehouse.indicators import registry as indicators
    from stock_lakehouse.transforms import features

    lake = Lake(small.lake_root)
    with pytest.MonkeyPatch.context() as older:
        older.setattr(features, "indicator_spec", lambda _of: "0-old")
        run_rectangle(small, whole(small))
    plan = plan_backfill(lake, spark, whole(small))
    assert [(one.select, one.missing) for one in plan.chunks] == [(FEATURES_ALONE, 3 * BARS)]
    before = {*lake.raw.files(), *lake.processed.files()}, lake.curated.version()
    assert all(step.report.success for step in run_backfill(small, plan, quiet))
    assert {row["indicator_spec"] for row in contents(lake.features)} == {indicators.indicator_spec()}
    assert ({*lake.raw.files(), *lake.processed.files()}, lake.curated.version()) == before
    assert not plan_backfill(lake, spark, whole(small)).chunks


def test_selected_layers_are_filled_and_again_runs_what_is_held(spark: SparkSession, small: Settings) -> None:
    lake = Lake(small.lake_root)
    run_rectangle(small, whole(small), ["raw_stocks_daily", "processed_stocks_daily"])
    assert not plan_backfill(lake, spark, whole(small), ["raw_stocks_daily", "processed_stocks_daily"]).chunks
    plan = plan_backfill(lake, spark, whole(small), ["curated_stocks_daily", "stocks_features"])
    assert [(one.select, one.missing) for one in plan.chunks] == [
        (("curated_stocks_daily", "stocks_features"), 3 * BARS)
    ]
    again = plan_backfill(lake, spark, whole(small), ["raw_stocks_daily"], again=True)
    assert again.missing == 3 * BARS
    with pytest.raises(ValueError, match="a backfill fills layers"):
        plan_backfill(lake, spark, whole(small), ["restatements"])
    with pytest.raises(ValueError, match="no asset nothing"):
        check_select(small, ["curated_stocks_daily", "nothing"])


def test_a_backfill_stops_after_two_runs_that_failed_in_a_row(spark: SparkSession, small: Settings) -> None:
    broken = small.model_copy(update={"source": "csv", "csv_folder": small.lake_root / "nowhere"})
    plan = plan_backfill(Lake(small.lake_root), spark, whole(broken), chunk_bars=1)
    assert len(plan.chunks) == 3
    assert [step.report.success for step in run_backfill(broken, plan, quiet)] == [False, False]


def known(instance: dg.DagsterInstance, scheme: PartitionScheme, asset: str) -> set[str]:
    """The keys that Dagster's UI shows as materialized."""
    from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

    definition = scheme.definition()
    value = get_and_update_asset_status_cache_value(instance, dg.AssetKey(asset), definition)
    assert value is not None
    return set(value.deserialize_materialized_partition_subsets(definition).get_partition_keys())


@pytest.mark.slow
def test_a_lake_moves_to_another_scheme_and_back_as_it_is(spark: SparkSession, small: Settings) -> None:
    run_rectangle(small, Rectangle(whole(small).sessions[3:5], ("AAPL", "NVDA")))
    lake, before = Lake(small.lake_root), bytes_of(small.lake_root / "curated")
    bars = {f"2023-08-0{day}|{ticker}" for day in (4, 7) for ticker in ("AAPL", "NVDA")}
    with open_instance(dagster_folder(small)) as instance:
        for by, expected, new in (
            ("date_ticker", bars, 0),
            ("session", {"2023-08-04", "2023-08-07"}, 2),
            ("date_ticker", bars, 0),
        ):
            of = small.model_copy(update={"partition_by": by})
            scheme = PartitionScheme(of, market_calendar(of.first_date))
            assert record_held(instance, scheme, lake, spark, whole(of)) == dict.fromkeys(LAYERS, new)
            assert record_held(instance, scheme, lake, spark, whole(of)) == dict.fromkeys(LAYERS, 0)
            for name in LAYERS:
                assert known(instance, scheme, name) == expected
    assert bytes_of(small.lake_root / "curated") == before


@pytest.mark.slow
def test_recording_that_was_killed_goes_on(
    spark: SparkSession, small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_rectangle(small, whole(small))
    lake, scheme = Lake(small.lake_root), PartitionScheme(small, market_calendar(small.first_date))
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "10")
    with dg.DagsterInstance.ephemeral() as instance:
        storage = instance.event_log_storage
        stock, batches = type(storage).store_event_batch, []

        def killed(events: list[dg.EventLogEntry]) -> None:
            batches.append(events)
            if len(batches) == 15:  # in the midst of the second layer
                raise KeyboardInterrupt
            stock(storage, events)

        with pytest.MonkeyPatch.context() as kill:
            kill.setattr(storage, "store_event_batch", killed)
            with pytest.raises(KeyboardInterrupt):
                record_held(instance, scheme, lake, spark, whole(small))
        counts = record_held(instance, scheme, lake, spark, whole(small))
        assert list(counts.values()) == [0, 3 * BARS - 30, 3 * BARS, 3 * BARS]  # three batches of ten got there
        for name in LAYERS:
            assert len(known(instance, scheme, name)) == 3 * BARS


@pytest.mark.soak
def test_sessions_that_the_source_lacks_are_not_recorded_and_a_repetition_adds_one_record_a_layer(
    spark: SparkSession, small: Settings
) -> None:
    longer = small.model_copy(update={"last_date": date(2023, 9, 29)})  # the sample ends on 2023-09-21
    assert len(whole(longer).sessions) == BARS + 6
    for repetition in range(3):
        assert run_rectangle(longer, whole(longer)).success
        with open_instance(dagster_folder(longer)) as instance:
            for name in LAYERS:
                key = dg.AssetKey(name)
                assert len(instance.get_materialized_partitions(key)) == 3 * BARS
                records = instance.fetch_materializations(key, limit=10_000).records
                assert len(records) == 3 * BARS + repetition
                assert records[0].partition_key == "2023-09-21|NVDA"
    with open_instance(dagster_folder(longer)) as instance:
        latest = instance.get_latest_materialization_event(dg.AssetKey("stocks_features"))
        assert latest is not None
        assert latest.asset_materialization is not None
        metadata = latest.asset_materialization.metadata
        assert metadata["dagster/row_count"].value == 3 * BARS
        assert {"preview", "dagster/column_lineage", "dagster/partition_row_count"} <= set(metadata)


@pytest.mark.soak
def test_pruned_runs_are_gone_and_what_the_lake_holds_stays_marked(spark: SparkSession, small: Settings) -> None:
    old = run_rectangle(small, Rectangle(whole(small).sessions, ("AAPL", "NVDA"))).run_id
    failed = run_rectangle(
        small.model_copy(update={"source": "csv", "csv_folder": Path("nowhere")}), whole(small)
    ).run_id
    with open_instance(dagster_folder(small)) as instance:
        (record,) = instance.get_run_records(dg.RunsFilter(run_ids=[failed]))
        cutoff = record.update_timestamp + timedelta(microseconds=1)
    new = run_rectangle(small, Rectangle(whole(small).sessions, ("AMZN",))).run_id
    assert prune_runs(small, cutoff) == 2
    record_rectangle(small, whole(small), spark)
    with open_instance(dagster_folder(small)) as instance:
        assert [run.run_id for run in instance.get_runs()] == [new]
        assert not instance.get_records_for_run(old).records
        for name in LAYERS:
            assert len(instance.get_materialized_partitions(dg.AssetKey(name))) == 3 * BARS
    assert prune_runs(small, cutoff) == 0


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "lakehouse.toml").write_text(CONFIG)
    return tmp_path


@pytest.mark.slow
def test_a_killed_backfill_goes_on_where_it_stopped_and_ends_in_the_same_tables(project: Path, small: Settings) -> None:
    program = [sys.executable, "-m", "stock_lakehouse.cli", "backfill", "--chunk", "1"]
    with subprocess.Popen(program, cwd=project, stderr=subprocess.PIPE, text=True, start_new_session=True) as killed:
        assert killed.stderr is not None
        for line in killed.stderr:
            if "run 1 of 3 ended" in line:
                assert "33% done, about" in line
                break
        for line in killed.stderr:
            if "processed_stocks_daily" in line:  # in the midst of the second run
                break
        os.killpg(killed.pid, signal.SIGKILL)
    planned = call("backfill", "--dry-run")
    assert "AAPL" not in planned.output
    second = call("backfill", "--chunk", "1")
    assert second.exit_code == 0, second.output
    assert "74 of 111 bars to do, in 2 run(s)" in second.output
    assert "The lake holds all of it." in second.output
    third = call("backfill")
    assert "Nothing to do: the lake holds all 111 bars" in third.output

    undisturbed = small.model_copy(update={"lake_root": project / "undisturbed"})
    run_rectangle(undisturbed, whole(undisturbed))
    one, other = Lake(small.lake_root), Lake(undisturbed.lake_root)
    for table in ("processed", "curated", "features"):
        rows = [
            [
                {name: value for name, value in row.items() if name not in LANDINGS}
                for row in contents(getattr(lake, table))
            ]
            for lake in (one, other)
        ]
        assert rows[0] == rows[1]
    with open_instance(small.lake_root / ".dagster") as instance:
        statuses = {run.status for run in instance.get_runs()}
        assert statuses == {
            dg.DagsterRunStatus.SUCCESS,
            dg.DagsterRunStatus.FAILURE,
        }  # the killed run is not in progress
        for name in LAYERS:
            assert len(instance.get_materialized_partitions(dg.AssetKey(name))) == 111


def test_a_run_of_a_living_process_is_not_ended(small: Settings) -> None:
    from stock_lakehouse.runs.run import _alive

    with dg.DagsterInstance.ephemeral() as instance:
        runs = [
            instance.create_run_for_job(
                dg.GraphDefinition(name="g").to_job(), tags={PROGRAM_TAG: platform.node()}, status=status
            )
            for status in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.SUCCESS)
        ]
        others = instance.create_run_for_job(dg.GraphDefinition(name="g").to_job(), status=dg.DagsterRunStatus.STARTED)
        with _alive(small.lake_root, runs[0].run_id):
            assert end_dead_runs(instance, small.lake_root) == [runs[1].run_id]
        assert instance.get_run_by_id(runs[1].run_id).status == dg.DagsterRunStatus.FAILURE  # type: ignore[union-attr]
        assert instance.get_run_by_id(others.run_id).status == dg.DagsterRunStatus.STARTED  # type: ignore[union-attr]
        assert end_dead_runs(instance, small.lake_root) == [runs[0].run_id]
