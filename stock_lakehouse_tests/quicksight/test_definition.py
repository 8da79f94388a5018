"""The definition of the dashboard: QuickSight takes it, its names exist, and it draws what the local page draws."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest

from stock_lakehouse.dashboards.charts import PANES
from stock_lakehouse.dashboards.quicksight.data_sets import DataSet, data_sets, quality_kinds
from stock_lakehouse.dashboards.quicksight.definition import COLORS, SHAPES, definition
from stock_lakehouse.settings import Settings
from stock_lakehouse_tests import quicksight_definition
from stock_lakehouse_tests.aws_model import faults
from stock_lakehouse_tests.quicksight_definition import ARNS, FILE, KINDS, reviewed, text_of
from stock_lakehouse_tests.quicksight_names import unknown, walk

Change = Callable[[dict[str, Any]], Any]


def settings_of(source: str) -> Settings:
    secret = "arn:aws:secretsmanager:us-east-1:123456789012:secret:redshift"
    more = {"secret": secret} if source == "redshift" else {}
    return Settings(
        lake_root="s3://bucket/lake",
        catalog="glue",
        warehouse="redshift" if source == "redshift" else "off",
        redshift={"workgroup": "stocks"} if source == "redshift" else {},
        dashboard="quicksight",
        quicksight={"source": source, "readers": ("group analysts",), **more},
    )


def sets(source: str = "athena") -> tuple[DataSet, DataSet]:
    return data_sets(settings_of(source))


def columns(source: str = "athena") -> dict[str, dict[str, str]]:
    return {data_set.name: {field.name: field.kind["Type"] for field in data_set.fields} for data_set in sets(source)}


def request_of(found: dict[str, Any]) -> dict[str, Any]:
    strict = {"Mode": "STRICT"}
    return {
        "AwsAccountId": "123456789012",
        "DashboardId": "stock-lakehouse",
        "Name": "stock-lakehouse",
        "Definition": found,
        "ValidationStrategy": strict,
    }


@pytest.mark.parametrize("source", ["athena", "redshift"])
def test_quicksight_takes_the_definition_and_every_name_in_it_exists(source: str) -> None:
    found = definition(ARNS, ["AAPL", "NVDA"], quicksight_definition.SINCE, quality_kinds(settings_of(source)))
    assert faults("quicksight", "CreateDashboard", request_of(found)) == []
    assert unknown(found, columns(source)) == []


@pytest.mark.parametrize("source", ["athena", "redshift"])
def test_quicksight_takes_the_data_sets(source: str) -> None:
    for data_set in sets(source):
        request = data_set.request("arn:aws:quicksight:us-east-1:123456789012:datasource/stock-lakehouse")
        request |= {"AwsAccountId": "123456789012", "DataSetId": data_set.name, "Name": data_set.name}
        assert faults("quicksight", "CreateDataSet", request) == []


def test_the_definition_is_the_reviewed_one() -> None:
    """`python -m stock_lakehouse_tests.quicksight_definition` writes the file anew; look at what changes."""
    assert FILE.read_text(encoding="utf-8") == text_of(reviewed())


def test_every_pane_is_a_visual_of_its_curves_lines_and_marks() -> None:
    sheet = next(sheet for sheet in reviewed()["Sheets"] if sheet["Name"] == "Ticker")
    drawn = {}
    for visual in sheet["Visuals"]:
        [(kind, members)] = visual.items()
        chart = members["ChartConfiguration"]
        [wells] = chart["FieldWells"].values()
        # The wells of a line chart or of a combo chart: bars, and lines with marks.
        fields = {
            name: [field["NumericalMeasureField"]["Column"]["ColumnName"] for field in wells.get(name, [])]
            for name in ("BarValues", "LineValues", "Values")
        }
        lines = [line["DataConfiguration"]["StaticConfiguration"]["Value"] for line in chart["ReferenceLines"]]
        drawn[members["VisualId"]] = (kind, fields, lines)
    assert drawn == {
        "price": (
            "LineChartVisual",
            {
                "BarValues": [],
                "LineValues": [],
                "Values": [
                    "close", "sma_20", "sma_50", "sma_200", "bb_upper", "bb_lower", "golden_cross_at", "death_cross_at",
                    "buy_signal_at", "sell_signal_at", "split_ratio_at", "dividend_at",
                ],
            },
            [],
        ),
        "volume": (
            "ComboChartVisual",
            {"BarValues": ["volume"], "LineValues": ["volume_sma_20", "volume_sma_50"], "Values": []},
            [],
        ),
        "rsi": ("LineChartVisual", {"BarValues": [], "LineValues": [], "Values": ["rsi_14"]}, [30.0, 70.0]),
        "macd": (
            "ComboChartVisual",
            {"BarValues": ["macd_hist"], "LineValues": ["macd", "macd_signal"], "Values": []},
            [0.0],
        ),
    }  # fmt: skip


def test_days_are_drawn_each_and_in_their_order_and_no_point_is_called_other() -> None:
    for sheet in reviewed()["Sheets"]:
        for visual in sheet["Visuals"]:
            [(kind, members)] = visual.items()
            if kind not in ("LineChartVisual", "ComboChartVisual"):
                continue
            sort = members["ChartConfiguration"]["SortConfiguration"]
            [wells] = members["ChartConfiguration"]["FieldWells"].values()
            [day] = wells["Category"]
            assert day["DateDimensionField"]["DateGranularity"] == "DAY"
            field = {"FieldId": day["DateDimensionField"]["FieldId"], "Direction": "ASC"}
            assert sort["CategorySort"] == [{"FieldSort": field}]
            limit = sort.get("CategoryItemsLimit") or sort["CategoryItemsLimitConfiguration"]
            assert limit == {"ItemsLimit": 10_000, "OtherCategories": "EXCLUDE"}


def test_the_colours_are_the_light_ones_of_the_local_page() -> None:
    css = (resources.files("stock_lakehouse.dashboards") / "page" / "style.css").read_text(encoding="utf-8")
    light = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", css.partition("}")[0]))
    assert {name: light[name].upper() for name in COLORS} == COLORS
    used = {series.color for pane in PANES for series in pane.series} | {
        mark.color for pane in PANES for mark in pane.marks
    }
    assert used <= COLORS.keys()
    assert {mark.shape for pane in PANES for mark in pane.marks} <= SHAPES.keys()


def test_red_and_green_come_with_a_sign_of_their_own() -> None:
    cells = [value for path, value in walk(reviewed()) if path.endswith(".Cell")]
    coloured = [
        (cell["FieldId"], cell["TextFormat"]["TextColor"]["Solid"]["Expression"])
        for cell in cells
        if "TextColor" in cell["TextFormat"]
    ]
    signed = [
        (cell["FieldId"], cell["TextFormat"]["Icon"]["CustomCondition"]["Expression"])
        for cell in cells
        if "Icon" in cell["TextFormat"]
    ]
    assert coloured == signed
    assert ("newest.rsi_14", "MAX({rsi_14}) >= 70") in coloured


def visual_of(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(
        members
        for sheet in found["Sheets"]
        for visual in sheet["Visuals"]
        for members in visual.values()
        if members["VisualId"] == name
    )


def line_field(found: dict[str, Any], place: int = 0) -> dict[str, Any]:
    wells = visual_of(found, "rsi")["ChartConfiguration"]["FieldWells"]["LineChartAggregatedFieldWells"]
    return wells["Values"][place]["NumericalMeasureField"]


WRONG: dict[str, tuple[Change, str]] = {
    "a column": (lambda found: line_field(found)["Column"].update(ColumnName="rsi_15"), "no column rsi_15"),
    "a data set": (
        lambda found: line_field(found)["Column"].update(DataSetIdentifier="weekly"),
        "no column rsi_14 in weekly",
    ),
    "a column of text": (lambda found: line_field(found)["Column"].update(ColumnName="ticker"), "ticker is STRING"),
    "no aggregation": (
        lambda found: line_field(found).pop("AggregationFunction"),
        "rsi_14 is aggregated twice, or not at all",
    ),
    "a field twice": (
        lambda found: line_field(found).update(FieldId="price.close"),
        "FieldId price.close is there 2 times",
    ),
    "a series": (
        lambda found: visual_of(found, "rsi")["ChartConfiguration"]["Series"][0]["FieldSeriesItem"].update(
            FieldId="rsi.x"
        ),
        "no field rsi.x",
    ),
    "a cell": (
        lambda found: visual_of(found, "newest")["ConditionalFormatting"]["ConditionalFormattingOptions"][0][
            "Cell"
        ].update(FieldId="newest.x"),
        "no field newest.x",
    ),
    "the order of a table": (
        lambda found: visual_of(found, "past")["ChartConfiguration"]["FieldOptions"]["Order"].append("past.x"),
        "no field past.x",
    ),
    "a visual twice": (lambda found: visual_of(found, "rsi").update(VisualId="macd"), "VisualId macd is there 2 times"),
    "a parameter": (lambda found: found["ParameterDeclarations"].pop(), "parameter Since is not declared"),
    "a control": (lambda found: found["Sheets"][0]["ParameterControls"].pop(0), "parameter Ticker has no control"),
    "a control of many": (
        lambda found: found["Sheets"][0]["ParameterControls"][0]["Dropdown"].update(Type="MULTI_SELECT"),
        "MULTI_SELECT on a parameter that is not so",
    ),
    "a filter of a parameter": (lambda found: found["FilterGroups"].pop(0), "parameter Ticker is in no filter"),
    "a filter twice": (
        lambda found: found["FilterGroups"].append(copy.deepcopy(found["FilterGroups"][0])),
        "FilterId ticker-one-filter is there 2 times",
    ),
    "filters joined by or": (
        lambda found: found["FilterGroups"][0]["Filters"].extend(found["FilterGroups"].pop(1)["Filters"]),
        "ticker-one-group: 2 filters",
    ),
    "a sheet of a filter": (
        lambda found: found["FilterGroups"][0]["ScopeConfiguration"]["SelectedSheets"][
            "SheetVisualScopingConfigurations"
        ][0].update(SheetId="tickers"),
        "ticker-one-group: filters nothing",
    ),
    "a filter on another data set": (
        lambda found: found["FilterGroups"][0]["Filters"][0]["CategoryFilter"]["Column"].update(
            DataSetIdentifier="quality"
        ),
        "ticker-one-group: ticker has no visual price of quality alone",
    ),
    "a place": (
        lambda found: found["Sheets"][0]["Layouts"][0]["Configuration"]["GridLayout"]["Elements"].pop(),
        "ticker: macd has 0 places",
    ),
    "a place upon another": (
        lambda found: found["Sheets"][0]["Layouts"][0]["Configuration"]["GridLayout"]["Elements"][1].update(RowIndex=0),
        "volume: upon another element",
    ),
    "an expression": (
        lambda found: found["CalculatedFields"][0].update(Expression="max({adjusted})"),
        "no column adjusted",
    ),
    "a function": (lambda found: found["CalculatedFields"][0].update(Expression="log({close})"), "no function log"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_name_is_found(wrong: str) -> None:
    found = copy.deepcopy(reviewed())
    change, finding = WRONG[wrong]
    change(found)
    assert any(finding in fault for fault in unknown(found, columns())), unknown(found, columns())


def test_the_strict_check_finds_what_botocore_lets_pass() -> None:
    found = copy.deepcopy(reviewed())
    visual_of(found, "rsi")["ChartConfiguration"]["ReferenceLines"][0]["StyleConfiguration"]["Color"] = "#64748b"
    found["Sheets"][0]["ParameterControls"][0]["Dropdown"]["Type"] = "ONE"
    found["Sheets"][0]["Visuals"][0]["TableVisual"] = {"VisualId": "more"}
    found["Sheets"][0]["ContentTyp"] = "INTERACTIVE"
    reported = " ".join(faults("quicksight", "CreateDashboard", request_of(found)))
    for finding in ("'#64748b' does not match", "'ONE' is none of", "2 members of Visual", "no member ContentTyp"):
        assert finding in reported


def test_the_definition_fits_into_a_request() -> None:
    """QuickSight takes requests of 2 MB; 100 tickers more make no difference that counts."""
    found = definition(ARNS, [f"T{number}" for number in range(6)], quicksight_definition.SINCE, KINDS)
    assert len(json.dumps(found, default=str)) < 100_000
