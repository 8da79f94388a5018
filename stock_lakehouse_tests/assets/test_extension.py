"""The graph as its users extend it: assets of their own beside the layers, and a step whose input moves while it computes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from pyspark.errors.exceptions.connect import SparkRuntimeException
from pyspark.sql import DataFrame, SparkSession

from stock_lakehouse.definitions import build_definitions
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.layers import COMPUTED
from stock_lakehouse.layers.step import INPUT_ATTEMPTS, Computed, InputMovedError, Inputs, Step
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.partitions import PartitionScheme
from stock_lakehouse.schemas import Column
from stock_lakehouse.settings import Settings
from stock_lakehouse.tables import BY_NAME, CURATED, FEATURES, PROCESSED, TABLES, Table

FIRST, BEFORE_LAST, LAST = date(2023, 9, 18), date(2023, 9, 20), date(2023, 9, 21)
TICKERS = ("AAPL", "AMZN")  # neighbours in the settings


@dg.asset(partitions_def=None, group_name="research")
def hottest(stocks_features: DataFrame) -> str:
    """An asset without partitions: it takes all of features."""
    (row,) = stocks_features.orderBy(stocks_features["return_1d"].desc_nulls_last()).limit(1).collect()
    return f"{row['ticker']} {row['date']}"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def scheme_of(settings: Settings) -> PartitionScheme:
    return PartitionScheme(settings, market_calendar(settings.first_date, settings.exchange))


def run(
    definitions: dg.Definitions,
    job: str,
    settings: Settings,
    instance: dg.DagsterInstance,
    days: tuple[date, date] | None = (FIRST, LAST),
) -> dg.ExecuteInProcessResult:
    """A run of `job` for TICKERS from the first to the last of `days`; None for a job without partitions."""
    scheme = scheme_of(settings)
    tags = scheme.range_tags(scheme.request(TICKERS, *days, LAST)) if days else None
    return definitions.resolve_job_def(job).execute_in_process(instance=instance, tags=tags, raise_on_error=False)


@pytest.mark.slow
def test_assets_of_a_user_take_frames_of_the_layers(
    spark: SparkSession, settings: Settings, instance: dg.DagsterInstance
) -> None:
    partitions, counted = scheme_of(settings).definition(), list[int]()

    @dg.asset(partitions_def=partitions, backfill_policy=dg.BackfillPolicy.single_run(), group_name="research")
    def spans(stocks_features: DataFrame, curated_stocks_daily: DataFrame, raw_stocks_daily: DataFrame) -> None:
        counted.extend(frame.count() for frame in (stocks_features, curated_stocks_daily, raw_stocks_daily))

    own = dg.Definitions(
        assets=[spans, hottest],
        jobs=[
            dg.define_asset_job("spans_job", selection=[spans]),
            dg.define_asset_job("hottest_job", selection=[hottest]),
        ],
        executor=dg.in_process_executor,
    )
    definitions = dg.Definitions.merge(build_definitions(settings), own)
    assert run(definitions, "stock_lakehouse", settings, instance).success
    # The lake's job is of the lake's own groups.
    assert instance.get_latest_materialization_event(dg.AssetKey("hottest")) is None
    result = run(definitions, "spans_job", settings, instance)
    assert result.success
    assert counted == [8, 8, 8]
    result = run(definitions, "hottest_job", settings, instance, days=None)
    assert result.success
    # Of the sample's closes of these days one alone is above the one before it: 179.07 after 177.97.
    assert result.output_for_node("hottest") == "AAPL 2023-09-19"


MOMENTUM = Table(
    "momentum",
    "research",
    "delta",
    "curated/momentum",
    (
        Column("ticker", "string", "Ticker"),
        Column("date", "date", "Session"),
        Column("above_average", "double", "Close over its average of 20 sessions"),
        Column("year", "int", "Year of the session"),
    ),
    "How far a close is above its average.",
    made_from=(FEATURES.name,),
)


@pytest.mark.slow
def test_a_user_adds_a_table_and_the_asset_that_returns_its_frame(
    spark: SparkSession, settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stock_lakehouse.lake.TABLES", (*TABLES, MOMENTUM))
    monkeypatch.setitem(BY_NAME, MOMENTUM.name, MOMENTUM)

    @dg.asset(
        partitions_def=scheme_of(settings).definition(),
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key="delta",
        group_name="research",
    )
    def momentum(stocks_features: DataFrame, curated_stocks_daily: DataFrame) -> DataFrame:
        both = curated_stocks_daily.join(stocks_features.select("ticker", "date", "sma_20"), ["ticker", "date"])
        above = (both["close"] / both["sma_20"]).alias("above_average")
        return both.select("ticker", "date", above, "year")

    own = dg.Definitions(
        assets=[momentum], jobs=[dg.define_asset_job("own", selection=[momentum])], executor=dg.in_process_executor
    )
    definitions = dg.Definitions.merge(build_definitions(settings), own)
    assert run(definitions, "stock_lakehouse", settings, instance, (date(2023, 8, 21), LAST)).success
    for days, added in (((FIRST, BEFORE_LAST), 6), ((FIRST, LAST), 2), ((FIRST, LAST), 0)):
        result = run(definitions, "own", settings, instance, days)
        assert result.success
        (*_, event) = result.asset_materializations_for_node("momentum")
        assert event.metadata["added"].value == added
    rows = Lake(settings.lake_root).delta[MOMENTUM.name].read(spark, ["AAPL"]).orderBy("date").collect()
    # By hand from the sample: the average of the 20 closes until the 18th, and the close of that day.
    sample = [
        row["close"] for row in read_table(CURATED.name, tickers=["AAPL"], lake_root=settings.lake_root).to_pylist()
    ]
    assert len(sample) == 23
    assert [row["above_average"] for row in rows] == pytest.approx(
        [sample[day] / (sum(sample[day - 19 : day + 1]) / 20) for day in range(19, 23)], rel=1e-12
    )


@pytest.mark.slow
@pytest.mark.slice(1)
@pytest.mark.parametrize("layer", [PROCESSED, CURATED, FEATURES], ids=lambda table: table.name)
def test_a_step_whose_input_moves_while_it_computes_is_computed_anew(
    spark: SparkSession,
    settings: Settings,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    layer: Table,
) -> None:
    """Another run brings the last session between the reading and the publish: published over it, that row would be gone."""
    real, others = Step.publishing, [LAST]

    def publishing(step: Step, table: Table, inputs: Inputs) -> AbstractContextManager[None]:
        if others and table == layer:
            others.clear()
            assert run(build_definitions(settings), "stock_lakehouse", settings, instance, (LAST, LAST)).success
        return real(step, table, inputs)

    monkeypatch.setattr(Step, "publishing", publishing)
    result = run(build_definitions(settings), "stock_lakehouse", settings, instance, (FIRST, BEFORE_LAST))
    assert result.success
    assert others == []
    retried = [
        event.step_key for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY
    ]
    assert retried == [layer.name]
    rows = read_table(layer.name, lake_root=settings.lake_root)
    assert sorted(set(map(str, rows["date"].to_pylist()))) == [f"2023-09-{day}" for day in (18, 19, 20, 21)]
    assert rows.num_rows == 4 * len(TICKERS)


@pytest.mark.parametrize("is_replaced", [True, False])
def test_an_engine_that_fails_on_a_file_that_was_replaced_meanwhile_is_tried_again(
    spark: SparkSession,
    settings: Settings,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    is_replaced: bool,
) -> None:
    """Another run may replace a Parquet file between the engine's listing and its reading. Any other error fails the step."""
    layer, failures = COMPUTED[CURATED.name], [SparkRuntimeException("Src size is incorrect")]

    def failing_once(step: Step, frame: DataFrame) -> Computed:
        if failures:
            if is_replaced:
                file = Path(str(settings.lake_root)) / step.lake.processed.paths()[0]
                shutil.copy(file, file.with_name("copy"))
                file.with_name("copy").rename(file)
            raise failures.pop()
        return layer.compute(step, frame)

    monkeypatch.setitem(COMPUTED, CURATED.name, replace(layer, compute=failing_once))
    result = run(build_definitions(settings), "stock_lakehouse", settings, instance)
    assert result.success == is_replaced
    assert failures == []


@pytest.mark.soak
def test_a_step_whose_input_never_rests_fails_after_some_attempts_and_publishes_nothing(
    spark: SparkSession, settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(step: Step, inputs: Inputs) -> None:
        raise InputMovedError("a table: it moved")

    assert run(build_definitions(settings), "stock_lakehouse", settings, instance, (FIRST, BEFORE_LAST)).success
    before = read_table(FEATURES.name, lake_root=settings.lake_root)
    monkeypatch.setattr(Step, "confirm", moved)
    result = run(build_definitions(settings), "stock_lakehouse", settings, instance)
    assert not result.success
    tried = [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_RESTARTED]
    assert len(tried) == INPUT_ATTEMPTS - 1
    assert read_table(FEATURES.name, lake_root=settings.lake_root) == before
