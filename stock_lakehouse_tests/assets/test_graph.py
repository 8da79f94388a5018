"""The asset graph in real Dagster runs: what is materialized, what checks say, what a failure leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pyspark.sql import SparkSession

from stock_lakehouse import tables
from stock_lakehouse.assets.curated import curated_stocks_daily
from stock_lakehouse.assets.dashboards import RUN_REPORT
from stock_lakehouse.automation.jobs import CATALOG
from stock_lakehouse.definitions import build_definitions
from stock_lakehouse.instance.event_log import FEW_KEYS
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.partitions import PartitionScheme
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.settings import Settings
from stock_lakehouse.sources import Delivery, DeliveryFailure, FailureKind, delivered_table
from stock_lakehouse.sources.sample import SampleSource
from stock_lakehouse.sql.reports import reports
from stock_lakehouse_tests.conftest import bytes_of, rows_of
from stock_lakehouse_tests.graph import OutputContext, output_of

LAYERS = [table.name for table in tables.LAYERS]
Run = Callable[..., dg.ExecuteInProcessResult]


class FailingSource(SampleSource):
    """The sample, but some tickers do not come."""

    failing: tuple[str, ...] = ()

    def deliver(self, tickers: Sequence[str], first: date, last: date) -> Iterator[Delivery]:
        yield from super().deliver([ticker for ticker in tickers if ticker not in self.failing], first, last)
        yield Delivery(
            delivered_table({}),
            {
                ticker: DeliveryFailure(FailureKind.UNAVAILABLE, "HTTP 503, 4 times")
                for ticker in tickers
                if ticker in self.failing
            },
        )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def run(spark: SparkSession, settings: Settings, instance: dg.DagsterInstance) -> Run:
    """Run the job for tickers × days on the sample's lake."""

    def run_job(
        tickers: tuple[str, ...],
        first: str,
        last: str,
        of: Settings = settings,
        select: Sequence[str] | None = None,
        **resources: Any,
    ) -> dg.ExecuteInProcessResult:
        scheme = PartitionScheme(of, market_calendar(of.first_date, of.exchange))
        asked = None if of.partition_by == "session" else tickers
        rectangle = scheme.request(asked, date.fromisoformat(first), date.fromisoformat(last), date(2023, 9, 21))
        definitions = build_definitions(of, scheme.ticker_order(rectangle))
        return definitions.resolve_job_def("stock_lakehouse").execute_in_process(
            instance=instance,
            resources=resources or None,
            tags=scheme.range_tags(rectangle),
            asset_selection=[dg.AssetKey(name) for name in select] if select else None,
            run_config={"loggers": {"progress": {}}},
            raise_on_error=False,
        )

    return run_job


def checks_of(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {
        f"{one.asset_key.to_user_string()}.{one.check_name}": one.passed for one in result.get_asset_check_evaluations()
    }


def test_a_run_fills_every_layer_and_marks_its_own_partitions_only(run: Run, instance: dg.DagsterInstance) -> None:
    result = run(("AAPL", "NVDA"), "2023-09-18", "2023-09-21")
    assert result.success
    expected = {f"2023-09-{day}|{ticker}" for day in (18, 19, 20, 21) for ticker in ("AAPL", "NVDA")}
    for name in LAYERS:
        assert set(instance.get_materialized_partitions(dg.AssetKey(name))) == expected
    for name in ("processed_quarantine", "restatements", "catalog"):
        assert instance.get_latest_materialization_event(dg.AssetKey(name)) is not None
    checks = checks_of(result)
    red = {name for name, passed in checks.items() if not passed}
    assert red == {"curated_stocks_daily.stale_tickers"}  # the settings' other four tickers have no bar yet
    assert len(checks) == 30


@pytest.mark.slow
def test_tickers_that_are_no_neighbours_are_still_one_run(
    run: Run, instance: dg.DagsterInstance, settings: Settings
) -> None:
    assert settings.tickers.index("NVDA") - settings.tickers.index("AAPL") > 2
    assert run(("AAPL", "GOOG", "NVDA"), "2023-09-20", "2023-09-21").success
    keys = instance.get_materialized_partitions(dg.AssetKey("stocks_features"))
    assert {key.split("|")[1] for key in keys} == {"AAPL", "GOOG", "NVDA"}


@pytest.mark.slow
def test_a_run_that_is_executed_again_by_dagster_is_for_its_own_tickers_alone(
    run: Run, instance: dg.DagsterInstance, settings: Settings
) -> None:
    first = run(("AAPL", "NVDA"), "2023-09-20", "2023-09-21")
    tags = {name: value for name, value in first.dagster_run.tags.items() if not name.startswith("dagster/grpc")}
    expected = {f"2023-09-{day}|{ticker}" for day in (20, 21) for ticker in ("AAPL", "NVDA")}
    with dg.DagsterInstance.ephemeral() as other:
        # "Re-execute" takes the tags of the run, and the code location, whose tickers are in the settings' order.
        job = build_definitions(settings).resolve_job_def("stock_lakehouse")
        again = job.execute_in_process(instance=other, tags=tags, run_config={"loggers": {"progress": {}}})
        for name in LAYERS:
            assert set(other.get_materialized_partitions(dg.AssetKey(name))) == expected
    [complete] = [one for one in again.get_asset_check_evaluations() if one.check_name == "source_complete"]
    assert complete.metadata["tickers"].value == 2
    whole = {f"2023-09-21|{ticker}" for ticker in settings.tickers}
    assert run(settings.tickers, "2023-09-21", "2023-09-21").success  # the next run of the process is not narrowed
    assert whole <= set(instance.get_materialized_partitions(dg.AssetKey("stocks_features")))


@pytest.mark.slow
def test_a_second_run_writes_no_file_and_says_so_in_its_metadata(run: Run, settings: Settings) -> None:
    run(("AAPL",), "2023-09-18", "2023-09-21")
    before = bytes_of(settings.lake_root)
    result = run(("AAPL",), "2023-09-18", "2023-09-21")
    assert bytes_of(settings.lake_root) == before
    [*_, last] = result.asset_materializations_for_node("stocks_features")
    values = {name: value.value for name, value in last.metadata.items()}
    assert (values["added"], values["corrected"], values["withdrawn"]) == (0, 0, 0)
    assert (values["dagster/row_count"], values["table version"]) == (4, 1)
    assert values["location"].endswith("curated/stocks_features")
    assert "| AAPL | 2023-09-21 |" in values["preview"]
    assert values["bytes"] > 0


@pytest.mark.soak
def test_the_newest_partition_of_a_bulk_run_alone_has_the_figures_and_the_preview(run: Run) -> None:
    result = run(("AAPL", "AMZN"), "2023-08-01", "2023-09-21")
    *others, last = result.asset_materializations_for_node("curated_stocks_daily")
    assert len(others) > FEW_KEYS
    assert all(not event.metadata for event in others)
    assert last.partition == "2023-09-21|AMZN"
    assert "2023-09-21" in str(last.metadata["preview"].value)
    assert last.metadata["dagster/row_count"].value == 2 * 37
    assert last.metadata["dagster/partition_row_count"].value == 1


def test_the_session_scheme_fills_the_same_tables(
    run: Run, settings: Settings, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    by_session = settings.model_copy(update={"partition_by": "session", "lake_root": tmp_path / "other"})
    result = run((), "2023-09-20", "2023-09-21", of=by_session)
    assert result.success
    assert set(instance.get_materialized_partitions(dg.AssetKey("stocks_features"))) == {"2023-09-20", "2023-09-21"}
    [*_, last] = result.asset_materializations_for_node("stocks_features")
    assert last.metadata["dagster/row_count"].value == 2 * len(settings.tickers)


@pytest.mark.slow
def test_tickers_that_fail_are_listed_and_the_others_go_on(run: Run, settings: Settings) -> None:
    source = FailingSource()
    object.__setattr__(source, "failing", ("AMZN",))
    result = run(("AAPL", "AMZN"), "2023-09-20", "2023-09-21", source=source)
    assert result.success
    [check] = [one for one in result.get_asset_check_evaluations() if one.check_name == "source_complete"]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert "HTTP 503, 4 times" in str(check.metadata["failed"].value)
    [*_, last] = result.asset_materializations_for_node("curated_stocks_daily")
    assert last.metadata["dagster/row_count"].value == 2


@pytest.mark.soak
def test_a_ticker_that_the_source_failed_for_is_diagnosed_as_throttled(run: Run) -> None:
    assert run(("AAPL", "AMZN"), "2023-09-18", "2023-09-19").success
    source = FailingSource()
    object.__setattr__(source, "failing", ("AMZN",))
    result = run(("AAPL", "AMZN"), "2023-09-20", "2023-09-21", source=source)
    [check] = [one for one in result.get_asset_check_evaluations() if one.check_name == "gap_diagnosis"]
    assert not check.passed
    [row] = [one.data for one in check.metadata["rows"].records]
    assert (row["ticker"], row["first"], row["looks"]) == ("AMZN", "2023-09-20", "throttled")
    assert "HTTP 503, 4 times" in row["evidence"]
    listed = {one.data["ticker"] for one in check.metadata["before listing"].records}
    assert listed == {"AAPL", "AMZN"}  # the settings' first day is long before these tests' first bar


def test_the_step_fails_when_no_ticker_is_delivered(run: Run, instance: dg.DagsterInstance) -> None:
    source = FailingSource()
    object.__setattr__(source, "failing", ("AAPL", "AMZN"))
    result = run(("AAPL", "AMZN"), "2023-09-20", "2023-09-21", source=source)
    assert not result.success
    assert {event.step_key for event in result.all_events if event.is_step_failure} == {"raw_stocks_daily"}
    assert instance.get_materialized_partitions(dg.AssetKey("raw_stocks_daily")) == set()


@pytest.mark.slow
def test_a_frame_that_fails_its_audit_is_not_published_and_stops_what_comes_after(
    run: Run, settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stock_lakehouse.layers import curated as curation

    real = curation.adjusted
    monkeypatch.setattr(curation, "adjusted", lambda *given: real(*given).union(real(*given)))
    result = run(("AAPL",), "2023-09-20", "2023-09-21")
    assert not result.success
    assert checks_of(result)["curated_stocks_daily.schema"] is False
    assert not (settings.lake_root / tables.CURATED.path).exists()
    assert instance.get_materialized_partitions(dg.AssetKey("curated_stocks_daily")) == set()
    assert "stocks_features" not in {event.step_key for event in result.all_events if event.is_step_start}
    monkeypatch.undo()
    assert run(("AAPL",), "2023-09-20", "2023-09-21").success  # the next run heals


def test_rows_lost_on_the_way_fail_the_conservation_check(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from stock_lakehouse.layers import processed

    real = processed.classify
    monkeypatch.setattr(processed, "classify", lambda *given: real(*given).where("date <> '2023-09-20'"))
    result = run(("AAPL",), "2023-09-20", "2023-09-21")
    assert not result.success
    assert checks_of(result)["processed_stocks_daily.conservation"] is False


def test_an_asset_can_be_called_as_a_plain_function(house: LakehouseResource) -> None:
    bars = house.lake.processed.read(house.session)
    context = OutputContext(tables.CURATED.name, ["2023-09-20|AAPL"], "a-run")
    curation = output_of(curated_stocks_daily, context, bars, house)
    assert curation.bars.columns == list(tables.CURATED.column_names)


def test_every_asset_says_what_it_is(settings: Settings) -> None:
    graph = build_definitions(settings).resolve_asset_graph()
    names = {table.name for table in tables.TABLES}
    keys = {key.to_user_string(): key for key in graph.get_all_asset_keys()}
    assert keys.keys() == {*names, CATALOG, RUN_REPORT, *reports()}
    # One group: the UI's graph then shows all assets, not a closed box for each group.
    assert {graph.get(key).group_name for key in keys.values()} == {"lake"}
    for name in keys.keys() - names:
        node = graph.get(keys[name])
        assert node.tags["layer"] == "serving"
        assert node.description
        assert node.owners
        assert not node.is_partitioned
    for name in names:
        node, table = graph.get(keys[name]), tables.BY_NAME[name]
        assert node.tags["layer"] == table.layer
        assert node.description == table.description
        assert node.owners
        assert node.kinds
        schema = node.metadata["dagster/column_schema"].value
        assert [column.name for column in schema.columns] == list(table.column_names)
        assert all(column.description for column in schema.columns)
        assert node.is_partitioned == (table in tables.LAYERS)


def test_column_lineage_names_columns_that_exist_and_covers_every_indicator() -> None:
    from stock_lakehouse.schemas.lineage import column_lineage

    for table in (tables.PROCESSED, tables.QUARANTINE, tables.CURATED, tables.FEATURES):
        for column, sources in column_lineage(table).items():
            assert column in table.column_names
            for source, name in sources:
                assert source in table.made_from
                assert name in tables.BY_NAME[source].column_names
    deps = column_lineage(tables.FEATURES)
    assert {name for _, name in deps["golden_cross"]} == {"close"}
    assert {name for _, name in deps["volatility_20"]} == {"adj_close", "close", "dividend", "price_basis"}
    assert {name for _, name in deps["buy_signal"]} == {"close"}
    assert {name for _, name in deps["volume_sma_50"]} == {"volume"}
    assert set(deps) == set(tables.FEATURES.column_names) - {"indicator_spec"}


def test_runs_of_the_ui_use_one_process(settings: Settings) -> None:
    definitions = build_definitions(settings)
    assert definitions.executor is dg.in_process_executor
    assert definitions.resolve_job_def("stock_lakehouse").executor_def is dg.in_process_executor


@pytest.mark.soak
def test_files_that_contradict_each_other_land_once(run: Run, settings: Settings, tmp_path: Path) -> None:
    (folder := tmp_path / "prices").mkdir()
    header = "Symbol,Date,Open,High,Low,Close,Adj Close,Volume\n"
    (folder / "2022.csv").write_text(header + "AAPL,2023-09-20,1,3,1,2,1.9,7\n")
    (folder / "2023.csv").write_text(header + "AAPL,2023-09-20,1,3,1,2,1.8,7\nAAPL,2023-09-21,1,3,1,2,2,7\n")
    of = settings.model_copy(update={"source": "csv", "csv_folder": folder})
    assert run(("AAPL",), "2023-09-20", "2023-09-21", of=of).success
    before = bytes_of(settings.lake_root)
    assert run(("AAPL",), "2023-09-20", "2023-09-21", of=of).success
    assert bytes_of(settings.lake_root) == before


def prices_of(folder: Path, ticker: str, days: Sequence[str]) -> Path:
    folder.mkdir()
    rows = [f"{day},10,11,9,{10 + at / 10:.1f},1000\n" for at, day in enumerate(days)]
    (folder / f"{ticker}.csv").write_text("Date,Open,High,Low,Close,Volume\n" + "".join(rows))
    return folder


@pytest.mark.soak
@pytest.mark.parametrize("by", ["date_ticker", "session"])
def test_a_lake_of_crypto_has_the_weekend(
    run: Run, settings: Settings, spark: SparkSession, instance: dg.DagsterInstance, tmp_path: Path, by: str
) -> None:
    days = ["2023-09-15", "2023-09-16", "2023-09-17", "2023-09-18"]  # Friday to Monday
    folder = prices_of(tmp_path / "prices", "BTC-USD", days)
    given = {"tickers": ("BTC-USD",), "exchange": "24/7", "first_date": date(2023, 9, 15), "partition_by": by}
    of = settings.model_copy(update={**given, "source": "csv", "csv_folder": folder})
    result = run(("BTC-USD",), days[0], days[-1], of=of)
    assert result.success
    checks = checks_of(result)
    assert checks["curated_stocks_daily.missing_sessions"]
    assert checks["curated_stocks_daily.gap_diagnosis"]
    keys = {day if by == "session" else f"{day}|BTC-USD" for day in days}
    assert set(instance.get_materialized_partitions(dg.AssetKey("stocks_features"))) == keys
    house = LakehouseResource.of(of)
    assert house.lake.quarantine.read(spark).count() == 0
    features = rows_of(house.lake.features.read(spark).select("ticker", "date", "tradable_from"))
    assert [str(row["date"]) for row in features] == days
    assert [str(row["tradable_from"]) for row in features] == [*days[1:], "2023-09-19"]
    before = bytes_of(settings.lake_root)
    assert run(("BTC-USD",), "2023-09-16", "2023-09-16", of=of).success
    assert bytes_of(settings.lake_root) == before


@pytest.mark.soak
def test_christmas_is_no_session_in_1964_and_a_saturday_is_one_in_1950(
    run: Run, settings: Settings, spark: SparkSession, tmp_path: Path
) -> None:
    for year, days, following in (
        (1964, ["1964-12-23", "1964-12-24", "1964-12-28"], "1964-12-29"),
        (1950, ["1950-01-06", "1950-01-07", "1950-01-09"], "1950-01-10"),
    ):
        folder = prices_of(tmp_path / str(year), "IBM", days)
        given = {
            "tickers": ("IBM",),
            "first_date": date.fromisoformat(days[0]),
            "last_date": date.fromisoformat(days[-1]),
        }
        place = {"source": "csv", "csv_folder": folder, "lake_root": tmp_path / f"lake{year}"}
        of = settings.model_copy(update={**given, **place})
        result = run(("IBM",), days[0], days[-1], of=of)
        assert result.success
        assert checks_of(result)["curated_stocks_daily.missing_sessions"]
        features = rows_of(LakehouseResource.of(of).lake.features.read(spark).select("ticker", "date", "tradable_from"))
        assert [str(row["tradable_from"]) for row in features] == [*days[1:], following]


@pytest.mark.soak
def test_an_index_can_be_named(run: Run, settings: Settings, spark: SparkSession, tmp_path: Path) -> None:
    days = ["2023-09-20", "2023-09-21"]
    folder = prices_of(tmp_path / "prices", "^GSPC", days)
    of = settings.model_copy(update={"tickers": ("^GSPC", "AAPL"), "source": "csv", "csv_folder": folder})
    assert run(("^GSPC",), *days, of=of).success
    lake = LakehouseResource.of(of).lake
    raw = lake.raw.read(spark, ["^GSPC"], [2023])
    assert (raw.count(), {row.ticker for row in raw.select("ticker").collect()}) == (2, {"^GSPC"})
    for table in (lake.processed, lake.curated, lake.features):
        assert {(row["ticker"], str(row["date"])) for row in rows_of(table.read(spark))} == {
            ("^GSPC", day) for day in days
        }
    assert (of.lake_root / "processed/stocks_daily/ticker=%5EGSPC/year=2023").is_dir()
    before = bytes_of(settings.lake_root)
    assert run(("^GSPC",), *days, of=of).success
    assert bytes_of(settings.lake_root) == before
    read = read_table("curated_stocks_daily", tickers=["^GSPC"], lake_root=of.lake_root)
    assert read.num_rows == 2
