"""Indicators of a user's own file: what is refused and how, and their columns in a lake, on every engine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import numpy as np
import pytest
import talib
from pyspark.sql import SparkSession

import stock_lakehouse
from stock_lakehouse.databricks_jobs.main import publish
from stock_lakehouse.databricks_jobs.order import Order
from stock_lakehouse.definitions import build_definitions
from stock_lakehouse.engines import spark_session
from stock_lakehouse.indicators.own import TAKEN, IndicatorError, own_indicators
from stock_lakehouse.indicators.registry import BARS, INDICATORS, compute, indicator_spec
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import SchemaEvolutionError
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.lake.status import outdated_rows
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.runs.record import held_cells
from stock_lakehouse.schemas.lineage import column_lineage
from stock_lakehouse.settings import Settings, SettingsError, load_settings
from stock_lakehouse.tables import CURATED, FEATURES
from stock_lakehouse.upkeep import differences
from stock_lakehouse_tests.engines.servers import sail_server
from stock_lakehouse_tests.graph import clocked, contents, history, ledger, rectangle, run, year_boundary

DAYS = year_boundary(18, 6)
BARS_OF = history(("AAA", "BBB"), DAYS)
HEAD = """\
from stock_lakehouse.indicators.kernel import moving_average
from stock_lakehouse.indicators.registry import Indicator
"""
FILE = Path(__file__).parent / "my_indicators.py"
GOOD = FILE.read_text(encoding="utf-8")


def one(function: str, arguments: str = "") -> str:
    """A file with one indicator on line 5, computed by the lambda `function` on line 6."""
    return (
        f'{HEAD}\nINDICATORS = [\n    Indicator("mine",\n        {function},\n        {{}}, 0, "Mine", {arguments})]\n'
    )


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("INDICATORS = [\n  1,\n  2", 1, "is not Python"),
        ("x = 1\ny = x / 0\n", 2, "ZeroDivisionError: division by zero when it was read"),
        ("\nimport no_such_package\n", 2, "No module named 'no_such_package' when it was read; install it"),
        ("x = 1\n", 1, "INDICATORS has to be a list of Indicator"),
        ("x = 1\nINDICATORS = ['sma_10']\n", 2, "INDICATORS has to be a list of Indicator"),
        (one('lambda c: c["close"]').replace('"mine"', '"Mine"'), 5, "'Mine' cannot be the name of a column"),
        (one('lambda c: c["close"]').replace('"mine"', '"sma_20"'), 5, "sma_20 has a name that is taken"),
        (one('lambda c: c["close"]').replace('"mine"', '"close"'), 5, "close has a name that is taken"),
        (
            one('lambda c: c["close"]', 'inputs=("closing",)'),
            5,
            "reads closing, which there is not; inputs.*open, high",
        ),
        (one('lambda c: c["close"]'), 6, r'reads close: add inputs=\("close",\)'),
        (one('lambda c: c["close"]', 'type="int"'), 5, "has the type 'int'; allowed: double, boolean"),
        (one('lambda c: c["close"][1:]', 'inputs=("close",)'), 6, r"shape \(0,\); return one value a session, here 1"),
        (one('lambda c: c["close"] > 1', 'inputs=("close",)'), 6, 'bool values; return numbers, or add type="boolean"'),
        (one('lambda c: c["close"]', 'inputs=("close",), type="boolean"'), 6, "float64 values; return bool values"),
        (one("lambda c: 1 / 0"), 6, "raised ZeroDivisionError: division by zero, for a history of 1 sessions"),
        (one('lambda c: c["close"].sort()', 'inputs=("close",)'), 6, "raised ValueError: .*read-only"),
        (one("lambda c, window: None"), 6, "raised TypeError: .*window"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_line_by_the_settings(
    text: str, line: int, words: str, tmp_path: Path
) -> None:
    (tmp_path / "my_indicators.py").write_text(text)
    (tmp_path / "lakehouse.toml").write_text('indicators = "my_indicators.py"\n')
    with pytest.raises(SettingsError, match=words) as error:
        load_settings()
    assert str(error.value).startswith(f"indicators: {tmp_path}/my_indicators.py:{line}: "), error.value
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "lakehouse.toml").write_text('indicators = "no_such.py"\n')
    with pytest.raises(SettingsError, match=r"no_such\.py: cannot be read .*; set `indicators` to a Python file"):
        load_settings()


def test_a_module_beside_the_file_is_refused_because_workers_lack_it(tmp_path: Path) -> None:
    (tmp_path / "helpers.py").write_text("")
    for statement in ("import helpers", "from helpers import anything", "from .helpers import anything"):
        with pytest.raises(IndicatorError, match=r"my_indicators\.py:2: imports helpers, which lies beside it"):
            own_indicators(str(tmp_path / "my_indicators.py"), f"x = 1\n{statement}\n")


def test_the_names_that_are_taken_are_all_columns_of_bars_and_features() -> None:
    names = {indicator.name for indicator in INDICATORS}
    assert {*BARS, *TAKEN, *names} >= {*CURATED.column_names, *FEATURES.column_names}


def test_values_are_those_of_the_functions() -> None:
    bars = {
        name: np.arange(1.0, 9.0) * factor
        for name, factor in zip(BARS, (3.5, 5, 2, 4, 4, 100, 0, 0), strict=True)  # open, high, low, close, …
    }
    bars["total_return"] = np.zeros(8, dtype=bool)
    found = compute(bars, (*INDICATORS, *own_indicators("my_indicators.py", GOOD)))
    assert found["day_range"].tolist() == [75.0] * 8  # 100 × (5 - 2) / 4
    assert found["day_range_5"][:4].tolist() == pytest.approx([np.nan] * 4, nan_ok=True)
    assert found["day_range_5"][4:].tolist() == [75.0] * 4
    assert found["up_day"].tolist() == [True] * 8
    ranges = talib.ATR(bars["high"], bars["low"], bars["close"], 3)
    assert np.array_equal(found["atr_3"], ranges, equal_nan=True)


def test_every_edit_of_the_file_is_another_spec_and_the_package_alone_has_its_own() -> None:
    def spec(text: str) -> str:
        return indicator_spec((*INDICATORS, *own_indicators("my_indicators.py", text)))

    texts = (GOOD, GOOD.replace("Scale(100.0)", "Scale(1.0)"), f"# a comment\n{GOOD}")
    assert len({indicator_spec(), *map(spec, texts)}) == 3 + 1
    assert spec(GOOD) == indicator_spec((*INDICATORS, *own_indicators("elsewhere.py", GOOD)))


def without_own(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    own = {"day_range", "day_range_5", "atr_3", "up_day", "indicator_spec"}
    return [{name: value for name, value in row.items() if name not in own} for row in rows]


def day_ranges(factor: float = 100.0) -> dict[tuple[str, str], float]:
    return {
        (ticker, session.isoformat()): factor * (float(bar["high"]) - float(bar["low"])) / float(bar["close"])  # type: ignore[arg-type]
        for (ticker, session), bar in BARS_OF.items()
    }


def stored_ranges(rows: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    return {(row["ticker"], str(row["date"])): float.fromhex(row["day_range"]) for row in rows}


@pytest.mark.slow
def test_a_file_adds_its_columns_to_a_lake_a_changed_formula_is_computed_again_and_a_lost_file_is_named(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, file, asked = tmp_path / "lake", tmp_path / "my_indicators.py", rectangle(DAYS, ("AAA", "BBB"))
    plain = clocked(root, spark)
    run(plain, asked, BARS_OF.values())
    before = contents(plain.lake.features)

    file.write_text(GOOD)
    house = clocked(root, spark, indicators=file)
    run(house, asked, steps=[FEATURES.name], run_id="22222222-run")
    after = contents(house.lake.features)
    assert without_own(after) == without_own(before)
    assert stored_ranges(after) == pytest.approx(day_ranges())
    assert {row["indicator_spec"] for row in after} == {house.lake.indicator_spec}
    assert (
        differences(house.lake, spark, house.sessions, ["AAA", "BBB"], 0)[FEATURES.name] == []
    )  # what upkeep compares

    # Read back: without the settings the column is known, and what it means is not.
    found = read_table("bars_with_features", columns=["day_range", "high"], lake_root=root)
    assert found["day_range"].to_pylist() == read_table(FEATURES.name, lake_root=root)["day_range"].to_pylist()
    assert stock_lakehouse.describe(FEATURES.name, root).loc["up_day", "type"] == "boolean"
    monkeypatch.setenv("STOCK_LAKEHOUSE_LAKE_ROOT", str(root))
    monkeypatch.setenv("STOCK_LAKEHOUSE_INDICATORS", str(file))
    assert "High minus low" in stock_lakehouse.describe(FEATURES.name).loc["day_range", "description"]
    described = read_table("bars_with_features", columns="day_range").schema.field("day_range").metadata
    assert described[b"description"] == b"High minus low, percent of close"

    file.write_text(GOOD.replace("Scale(100.0)", "Scale(1.0)"))
    edited = clocked(root, spark, indicators=file)
    outdated = outdated_rows(edited.lake.features.read(spark), edited.lake.indicator_spec)
    assert outdated == {"AAA": len(DAYS), "BBB": len(DAYS)}
    assert not held_cells(edited.lake, spark, asked, FEATURES).any()  # so a backfill computes them again
    run(edited, rectangle(DAYS[:1], ("AAA", "BBB")), steps=[FEATURES.name], run_id="33333333-run")
    assert stored_ranges(contents(edited.lake.features)) == pytest.approx(day_ranges(1.0))
    assert [line["columns"] for line in ledger(edited) if line["run_id"] == "33333333-run"] == [
        "day_range,day_range_5,indicator_spec"
    ] * 2
    with pytest.raises(SchemaEvolutionError, match=r"has day_range, .*file that the setting `indicators` names"):
        run(plain, asked, steps=[FEATURES.name])


@pytest.mark.slow
def test_a_run_in_dagster_has_the_columns_and_a_function_that_fails_on_real_bars_blocks_it(
    tmp_path: Path, spark: SparkSession
) -> None:
    file = tmp_path / "my_indicators.py"
    settings = Settings(
        lake_root=tmp_path / "lake", tickers=("AAPL",), first_date="2023-09-18", last_date="2023-09-21", indicators=file
    )
    file.write_text(one('lambda c: 1 / 0 if c["volume"].max() > 5e6 else c["volume"]', 'inputs=("volume",)'))

    def materialize(*assets: str) -> dg.ExecuteInProcessResult:
        job = build_definitions(settings).resolve_job_def("stock_lakehouse")
        tags = {
            "dagster/asset_partition_range_start": "2023-09-18|AAPL",
            "dagster/asset_partition_range_end": "2023-09-21|AAPL",
        }
        selection = [dg.AssetKey(name) for name in assets] or None
        return job.execute_in_process(tags=tags, asset_selection=selection, raise_on_error=False)

    failed = materialize()
    assert not failed.success
    [failure] = [event for event in failed.all_events if event.is_step_failure]
    said = f"{file}:6: the indicator mine raised ZeroDivisionError: division by zero, for a history of 4 sessions"
    assert said in str(failure.step_failure_data.error)
    red = [check for check in failed.get_asset_check_evaluations() if not check.passed]
    assert [(check.asset_key.path[-1], check.check_name) for check in red] == [(FEATURES.name, "schema")]
    assert said in str(red[0].metadata["own indicator"].value)
    assert not Lake(settings.lake_options).features.exists()

    file.write_text(one('lambda c: c["volume"] / 2', 'inputs=("volume",)'))
    assert materialize(FEATURES.name).success
    lake = Lake(settings.lake_options)
    volumes = lake.curated.open().to_pyarrow_table().sort_by("date")["volume"].to_pylist()
    assert lake.features.open().to_pyarrow_table().sort_by("date")["mine"].to_pylist() == [v / 2 for v in volumes]


def test_the_asset_and_the_lineage_have_the_columns(tmp_path: Path) -> None:
    settings = Settings(lake_root=tmp_path / "lake", indicators=FILE)
    asset = build_definitions(settings).resolve_asset_graph().get(dg.AssetKey(FEATURES.name))
    columns = {column.name: column for column in asset.metadata["dagster/column_schema"].value.columns}
    assert columns["day_range"].description.startswith("High minus low, percent of close")
    lake = Lake(settings.lake_options)
    of_range = {(CURATED.name, name) for name in ("high", "low", "close")}
    assert set(column_lineage(lake.features.table, lake.indicators)["day_range_5"]) == of_range


def test_a_job_computes_them_without_the_file(spark: SparkSession, tmp_path: Path) -> None:
    root, file = tmp_path / "lake", tmp_path / "gone.py"
    run(clocked(root, spark), rectangle(DAYS, ("AAA", "BBB")), BARS_OF.values())
    options = LakeOptions(lake_root=root, tickers=("AAA", "BBB"), first_date=DAYS[0], indicators=file)
    sessions = [day.isoformat() for day in DAYS]
    ordered = Order(
        FEATURES.name, sessions, ["AAA", "BBB"], "44444444-run", "2024-06-03T12:00:00+00:00", options.as_json(), GOOD
    )
    publish(Order.of(dataclasses.asdict(ordered)), spark, lambda _: None)
    assert stored_ranges(contents(Lake(root).features)) == pytest.approx(day_ranges())


def test_the_order_of_a_job_has_the_text_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = "stock_lakehouse.resources.databricks_jobs.publish_by_job"
    monkeypatch.setattr(place, lambda context, order, databricks: iter([order]))
    house = LakehouseResource.of(Settings(lake_root=tmp_path / "lake", indicators=FILE))
    context = SimpleNamespace(partition_keys=["2023-09-21|AAPL"], run_id="a-run")
    [order] = house.publish_by_job(context, FEATURES)  # type: ignore[arg-type]
    assert order.own_source == GOOD


def workers_cannot_import_the_file(session: SparkSession, tmp_path: Path) -> None:
    """What an engine computes whose workers are other processes, and how a function that fails there is told."""
    file, asked = tmp_path / "my_indicators.py", rectangle(DAYS, ("AAA", "BBB"))
    house = clocked(tmp_path / "lake", session, indicators=file)
    file.write_text(GOOD)
    run(house, asked, BARS_OF.values())
    assert stored_ranges(contents(house.lake.features)) == pytest.approx(day_ranges())
    file.write_text(one('lambda c: 1 / 0 if c["volume"].max() > 5e6 else c["volume"]', 'inputs=("volume",)'))
    with pytest.raises(dg.Failure, match=f"{file}:6: .* ZeroDivisionError"):
        run(house, asked, steps=[FEATURES.name])

    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "of_this_process.py").write_text("def doubled(values): return 2 * values\n")
    text = one('lambda c: of_this_process.doubled(c["volume"])', 'inputs=("volume",)')
    file.write_text(text.replace("from ", "import of_this_process\nfrom ", 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path / "packages")
        with pytest.raises(
            dg.Failure, match=f"{file}: the engine's workers have no module of_this_process; install it"
        ):
            run(house, asked, steps=[FEATURES.name])


@pytest.mark.slow
def test_workers_in_another_process_compute_them(tmp_path: Path) -> None:
    with sail_server() as server, spark_session("spark_connect", server.address) as session:
        workers_cannot_import_the_file(session, tmp_path)
