"""The definition of the dashboard, made of the same panes as the local page (charts.py).

Here: sheets, visuals, filters, parameters and controls, as the request of CreateDashboard has them. Not here: the columns
(data_sets.py), and what becomes of a definition (provisioning.py).

QuickSight has no candles, so a pane with candles shows the close. A mark is a series without a line, drawn at the sessions where
its column has a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from stock_lakehouse.dashboards.charts import PANES, Pane, Series
from stock_lakehouse.dashboards.quicksight.data_sets import (
    DAILY,
    DRAWDOWN,
    HAS_SIGNAL,
    NEWEST,
    QUALITY,
    SIGNAL,
    mark_column,
)

Json = dict[str, Any]
Sort = tuple[str, Literal["ASC", "DESC"]]

# The light colours of page/style.css, in the only form that QuickSight takes.
COLORS = {
    "up": "#047857",
    "down": "#D1403F",
    "blue": "#2563EB",
    "orange": "#B45309",
    "purple": "#7C3AED",
    "grey": "#64748B",
}
SHAPES = {"arrowUp": "TRIANGLE", "arrowDown": "DIAMOND", "circle": "CIRCLE", "square": "SQUARE"}
TICKER, TICKERS, SINCE = "Ticker", "Tickers", "Since"  # parameters
# Fields that QuickSight computes of the sessions of the chosen period. Aggregates before the grouping (PRE_AGG) see what the
# filters leave, so the first and last session are those of the period.
INDEX, TOTAL_RETURN, VOLATILITY = "total_return_index", "total_return", "volatility"
TRADING_DAYS = 252
_AT = "sum(ifelse({{date}} = {0}({{date}}, [{{ticker}}], PRE_AGG), {{adj_close}}, 0))"
CALCULATED = {
    INDEX: "100 * max({adj_close}) / firstValue(max({adj_close}), [{date} ASC], [{ticker}])",
    TOTAL_RETURN: f"{_AT.format('maxOver')} / {_AT.format('minOver')} - 1",
    VOLATILITY: f"stdev({{return_1d}}) * sqrt({TRADING_DAYS})",
}
OVERSOLD, OVERBOUGHT = sorted(next(pane.lines for pane in PANES if pane.name == "rsi"))
# The most points of a line chart; its default is 200, and the rest becomes one point "Other".
POINTS = 10_000
GRID_COLUMNS = 36
PANE_ROWS = 40  # of all panes together, which pane.share divides
LEAST_ROWS, MOST_ROWS = 6, 21
SHEETS = {"ticker": "Ticker", "compare": "Compare", "signals": "Signals", "data": "Data"}


@dataclass(frozen=True)
class Placed:
    """A visual, how much of the grid it takes, and the filters of it alone: columns of its data set with the wanted value."""

    visual: Json
    rows: int
    columns: int = GRID_COLUMNS
    only: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return str(next(iter(self.visual.values()))["VisualId"])


def definition(
    arns: Mapping[str, str], tickers: Sequence[str], since: datetime, kinds: Sequence[str] = ("bars",)
) -> Json:
    """The member Definition of CreateDashboard.

    - arns: of the data sets, by their names
    - tickers: those that Compare shows at first; Ticker shows the first of them
    - since: the first session that is shown at first
    - kinds: what `quality` counts
    """
    signals = [
        Placed(_newest_signals(), 14, only={NEWEST: 1}),
        Placed(_signals_of_the_period(), 14, only={HAS_SIGNAL: 1}),
    ]
    placed = {
        "ticker": [Placed(_pane(pane), _rows(pane)) for pane in PANES],
        "compare": [Placed(_index(), 20), Placed(_performance(), 12)],
        "signals": signals,
        "data": list(_state_of_the_data(kinds)),
    }
    controls = {
        "ticker": [_dropdown(TICKER, "ticker", "SINGLE_SELECT"), _date_picker("ticker")],
        "compare": [_dropdown(TICKERS, "compare", "MULTI_SELECT"), _date_picker("compare")],
        "signals": [_date_picker("signals")],
        "data": [],
    }
    filters = [
        _filter_group("ticker-one", _equals(DAILY, "ticker", TICKER), "ticker"),
        _filter_group("ticker-since", _at_least("date", SINCE), "ticker"),
        _filter_group("compare-some", _equals(DAILY, "ticker", TICKERS), "compare"),
        _filter_group("compare-since", _at_least("date", SINCE), "compare"),
        _filter_group("signals-since", _at_least("date", SINCE), "signals", signals[1].id),
        *_filters_of_visuals(placed),
    ]
    return {
        "DataSetIdentifierDeclarations": [{"Identifier": name, "DataSetArn": arn} for name, arn in arns.items()],
        "CalculatedFields": [
            {"DataSetIdentifier": DAILY, "Name": name, "Expression": expression}
            for name, expression in CALCULATED.items()
        ],
        "ParameterDeclarations": [
            _text_parameter(TICKER, tickers[:1], "SINGLE_VALUED"),
            _text_parameter(TICKERS, tickers, "MULTI_VALUED"),
            {
                "DateTimeParameterDeclaration": {
                    "Name": SINCE,
                    "TimeGranularity": "DAY",
                    "DefaultValues": {"StaticValues": [since]},
                }
            },
        ],
        "FilterGroups": filters,
        "Sheets": [_sheet(sheet, placed[sheet], controls[sheet]) for sheet in SHEETS],
    }


def _sheet(sheet: str, placed: Sequence[Placed], controls: Sequence[Json]) -> Json:
    bound = [
        {
            "ElementId": next(iter(control.values()))["ParameterControlId"],
            "ElementType": "PARAMETER_CONTROL",
            "ColumnSpan": 2,
            "RowSpan": 1,
        }
        for control in controls
    ]
    described = {
        "SheetId": sheet,
        "Name": SHEETS[sheet],
        "ContentType": "INTERACTIVE",
        "Visuals": [each.visual for each in placed],
        "Layouts": [{"Configuration": {"GridLayout": {"Elements": list(_elements(placed))}}}],
    }
    if controls:
        described["ParameterControls"] = list(controls)
        described["SheetControlLayouts"] = [{"Configuration": {"GridLayout": {"Elements": bound}}}]
    return described


def _elements(placed: Iterable[Placed]) -> Iterator[Json]:
    """The places of visuals in the grid, from left to right and from top to bottom."""
    row = column = height = 0
    for each in placed:
        if column + each.columns > GRID_COLUMNS:
            row, column, height = row + height, 0, 0
        yield {
            "ElementId": each.id,
            "ElementType": "VISUAL",
            "ColumnIndex": column,
            "ColumnSpan": each.columns,
            "RowIndex": row,
            "RowSpan": each.rows,
        }
        column, height = column + each.columns, max(height, each.rows)


# Fields


def _column(name: str, data_set: str = DAILY) -> Json:
    return {"DataSetIdentifier": data_set, "ColumnName": name}


def _number(
    visual: str, name: str, function: str | None = "MAX", data_set: str = DAILY, form: Json | None = None
) -> Json:
    """A measure of numbers. `function`: None for a calculated field, whose expression aggregates."""
    measure: Json = {"FieldId": f"{visual}.{name}", "Column": _column(name, data_set)}
    if function:
        measure["AggregationFunction"] = {"SimpleNumericalAggregation": function}
    if form:
        measure["FormatConfiguration"] = {"FormatConfiguration": form}
    return {"NumericalMeasureField": measure}


def _day(visual: str, name: str = "date", data_set: str = DAILY) -> Json:
    # As text, days would be sorted descending.
    return {
        "DateDimensionField": {
            "FieldId": f"{visual}.{name}",
            "Column": _column(name, data_set),
            "DateGranularity": "DAY",
            "FormatConfiguration": {"DateTimeFormat": "YYYY-MM-DD"},
        }
    }


def _text(visual: str, name: str, data_set: str = DAILY) -> Json:
    return {"CategoricalDimensionField": {"FieldId": f"{visual}.{name}", "Column": _column(name, data_set)}}


def _percent(places: int) -> Json:
    return {"PercentageDisplayFormatConfiguration": {"DecimalPlacesConfiguration": {"DecimalPlaces": places}}}


def _decimal(places: int) -> Json:
    return {
        "NumberDisplayFormatConfiguration": {
            "DecimalPlacesConfiguration": {"DecimalPlaces": places},
            "SeparatorConfiguration": {"ThousandsSeparator": {"Visibility": "VISIBLE"}},
        }
    }


FORMS = {"price": _decimal(2), "shares": _decimal(0), "percent": _decimal(1)}


# Ticker


def _rows(pane: Pane) -> int:
    return min(max(round(PANE_ROWS * pane.share / 100), LEAST_ROWS), MOST_ROWS)


def _value_of(series: Series) -> str:
    """The column that is drawn of a series: of candles the close, which is the last."""
    return series.columns[-1]


def _pane(pane: Pane) -> Json:
    """A pane as a line chart, or as a combo chart if it has bars."""

    def measure(name: str) -> Json:
        return _number(pane.name, name, form=FORMS[pane.unit])

    bars = [series for series in pane.series if "bars" in series.kind]
    lines = [series for series in pane.series if "bars" not in series.kind]
    marks = [measure(mark_column(mark)) for mark in pane.marks]
    bar_values = [measure(_value_of(series)) for series in bars]
    line_values = [measure(_value_of(series)) for series in lines] + marks
    days = [_day(pane.name)]
    limit = {"ItemsLimit": POINTS, "OtherCategories": "EXCLUDE"}
    sort: Json = {"CategorySort": [{"FieldSort": {"FieldId": f"{pane.name}.date", "Direction": "ASC"}}]}
    series = {"FieldComboSeriesItem": {}} if bars else {"FieldSeriesItem": {"AxisBinding": "PRIMARY_YAXIS"}}
    [(item, axis)] = series.items()
    colors, settings = _styles(pane)
    common: Json = {
        "Legend": {"Visibility": "VISIBLE", "Position": "TOP", "Title": {"Visibility": "HIDDEN"}},
        "ReferenceLines": [_reference_line(at) for at in pane.lines],
        "Series": [
            {item: {"FieldId": f"{pane.name}.{column}", **axis, "Settings": style}}
            for column, style in settings.items()
        ],
        "VisualPalette": {
            "ColorMap": [
                {"Element": {"FieldId": f"{pane.name}.{column}", "FieldValue": column}, "Color": color}
                for column, color in colors.items()
            ]
        },
    }
    if bars:
        wells = {"Category": days, "BarValues": bar_values, "LineValues": line_values}
        chart = {
            "FieldWells": {"ComboChartAggregatedFieldWells": wells},
            "SortConfiguration": {**sort, "CategoryItemsLimit": limit},
            "SingleAxisOptions": {"YAxisOptions": {"YAxis": "PRIMARY_Y_AXIS"}},
            **common,
        }
        return {"ComboChartVisual": {**_titled(pane.name, pane.title), "ChartConfiguration": chart}}
    chart = {
        "FieldWells": {"LineChartAggregatedFieldWells": {"Category": days, "Values": line_values}},
        "SortConfiguration": {**sort, "CategoryItemsLimitConfiguration": limit},
        "Type": "LINE",
        # The first sessions of a ticker have no averages yet.
        "PrimaryYAxisDisplayOptions": {"MissingDataConfigurations": [{"TreatmentOption": "SHOW_AS_BLANK"}]},
        **common,
    }
    return {"LineChartVisual": {**_titled(pane.name, pane.title), "ChartConfiguration": chart}}


def _styles(pane: Pane) -> tuple[dict[str, str], dict[str, Json]]:
    """The colour of each drawn column of `pane`, and the line and marker of each."""
    colors: dict[str, str] = {}
    settings: dict[str, Json] = {}
    for series in pane.series:
        column = _value_of(series)
        # The colours of candles and of signed bars tell a direction, which one colour would contradict.
        colors[column] = COLORS["grey" if series.kind in ("candles", "signed_bars") else series.color]
        style = "DASHED" if series.kind == "dashed" else "SOLID"
        settings[column] = {
            "LineStyleSettings": {"LineVisibility": "VISIBLE", "LineStyle": style, "LineWidth": "1px"},
            "MarkerStyleSettings": {"MarkerVisibility": "HIDDEN"},
        }
    for mark in pane.marks:
        column = mark_column(mark)
        colors[column] = COLORS[mark.color]
        settings[column] = {
            "LineStyleSettings": {"LineVisibility": "HIDDEN"},
            "MarkerStyleSettings": {
                "MarkerVisibility": "VISIBLE",
                "MarkerShape": SHAPES[mark.shape],
                "MarkerSize": "7px",
                "MarkerColor": COLORS[mark.color],
            },
        }
    return colors, settings


def _titled(visual: str, title: str, subtitle: str | None = None) -> Json:
    titled: Json = {
        "VisualId": visual,
        "Title": {"Visibility": "VISIBLE", "FormatText": {"PlainText": title}},
        "Subtitle": {"Visibility": "HIDDEN"},
    }
    if subtitle:
        titled["Subtitle"] = {"Visibility": "VISIBLE", "FormatText": {"PlainText": subtitle}}
    return titled


def _reference_line(at: float) -> Json:
    return {
        "DataConfiguration": {"StaticConfiguration": {"Value": float(at)}, "AxisBinding": "PRIMARY_YAXIS"},
        "StyleConfiguration": {"Pattern": "DASHED", "Color": COLORS["grey"]},
        "LabelConfiguration": {"ValueLabelConfiguration": {"FormatConfiguration": _decimal(0)}},
    }


# Compare


def _index() -> Json:
    name = "index"
    chart = {
        "FieldWells": {
            "LineChartAggregatedFieldWells": {
                "Category": [_day(name)],
                "Values": [_number(name, INDEX, None, form=_decimal(1))],
                "Colors": [_text(name, "ticker")],
            }
        },
        "SortConfiguration": {
            "CategorySort": [{"FieldSort": {"FieldId": f"{name}.date", "Direction": "ASC"}}],
            "CategoryItemsLimitConfiguration": {"ItemsLimit": POINTS, "OtherCategories": "EXCLUDE"},
        },
        "Type": "LINE",
        "PrimaryYAxisDisplayOptions": {"MissingDataConfigurations": [{"TreatmentOption": "SHOW_AS_BLANK"}]},
        "ReferenceLines": [_reference_line(100)],
        "Legend": {"Visibility": "VISIBLE", "Position": "TOP", "Title": {"Visibility": "HIDDEN"}},
    }
    subtitle = "adj_close; 100 at each ticker's first session of the period"
    return {"LineChartVisual": {**_titled(name, "Total return", subtitle), "ChartConfiguration": chart}}


def _performance() -> Json:
    name = "performance"
    columns = {
        "ticker": ("Ticker", _text(name, "ticker")),
        TOTAL_RETURN: ("Total return", _number(name, TOTAL_RETURN, None, form=_percent(1))),
        VOLATILITY: ("Volatility a year", _number(name, VOLATILITY, None, form=_percent(1))),
        DRAWDOWN: ("Deepest drawdown", _number(name, DRAWDOWN, "MIN", form=_percent(1))),
        "close": ("Highest close", _number(name, "close", form=FORMS["price"])),
        "sessions": ("Sessions", _number(name, "sessions", "COUNT", form=_decimal(0))),
    }
    # COUNT is of a column; the close is never null.
    columns["sessions"][1]["NumericalMeasureField"]["Column"] = _column("close")
    subtitle = (
        "Of the sessions of the period; the drawdown is from the highest adj_close until then, also before the period"
    )
    return _table(
        name, "Return, volatility and drawdown", columns, ["ticker"], (TOTAL_RETURN, "DESC"), subtitle=subtitle
    )


# Signals


def _newest_signals() -> Json:
    name = "newest"
    columns = {
        "ticker": ("Ticker", _text(name, "ticker")),
        "date": ("Session", _day(name)),
        "signal": ("Signal", _text(name, SIGNAL)),
        "close": ("Close", _number(name, "close", form=FORMS["price"])),
        "return_1d": ("Change", _number(name, "return_1d", form=_percent(2))),
        "rsi_14": ("RSI 14", _number(name, "rsi_14", form=FORMS["percent"])),
        "macd_hist": ("MACD histogram", _number(name, "macd_hist", form=FORMS["price"])),
        "volatility_20": ("Volatility 20", _number(name, "volatility_20", form=_percent(1))),
        DRAWDOWN: ("From the highest", _number(name, DRAWDOWN, form=_percent(1))),
    }
    cells = [
        *_coloured(f"{name}.rsi_14", f"MAX({{rsi_14}}) >= {OVERBOUGHT:g}", "down", "CARET_UP"),
        *_coloured(f"{name}.rsi_14", f"MAX({{rsi_14}}) <= {OVERSOLD:g}", "up", "CARET_DOWN"),
        *_coloured(f"{name}.return_1d", "MAX({return_1d}) > 0", "up", "ARROW_UP"),
        *_coloured(f"{name}.return_1d", "MAX({return_1d}) < 0", "down", "ARROW_DOWN"),
    ]
    subtitle = f"RSI from {OVERBOUGHT:g} on is overbought, to {OVERSOLD:g} oversold"
    return _table(
        name, "Newest session of each ticker", columns, ["ticker", "date", "signal"], ("ticker", "ASC"), cells, subtitle
    )


def _signals_of_the_period() -> Json:
    name = "past"
    columns = {
        "date": ("Session", _day(name)),
        "ticker": ("Ticker", _text(name, "ticker")),
        "signal": ("Signal", _text(name, SIGNAL)),
        "close": ("Close", _number(name, "close", form=FORMS["price"])),
        "rsi_14": ("RSI 14", _number(name, "rsi_14", form=FORMS["percent"])),
    }
    return _table(name, "Crosses and signals of the period", columns, ["date", "ticker", "signal"], ("date", "DESC"))


def _coloured(field_id: str, expression: str, color: str, icon: str) -> Iterator[Json]:
    """Cells in a colour where `expression` holds, with an icon, so that nobody needs to tell red from green."""
    solid = {"Solid": {"Expression": expression, "Color": COLORS[color]}}
    yield {"Cell": {"FieldId": field_id, "TextFormat": {"TextColor": solid}}}
    condition = {"Expression": expression, "Color": COLORS[color], "IconOptions": {"Icon": icon}}
    yield {"Cell": {"FieldId": field_id, "TextFormat": {"Icon": {"CustomCondition": condition}}}}


# Data


def _state_of_the_data(kinds: Sequence[str]) -> Iterator[Placed]:
    """Figures in a row, and below them a table of each kind that `quality` counts."""
    width = GRID_COLUMNS // (1 + len(kinds))
    counts = {"bars": "Rows of bars and features", "quarantine": "Rows in quarantine", "restatement": "Restated rows"}
    last = {
        "DateMeasureField": {
            "FieldId": "last-session.day",
            "Column": _column("day", QUALITY),
            "AggregationFunction": "MAX",
            "FormatConfiguration": {"DateTimeFormat": "YYYY-MM-DD"},
        }
    }
    yield Placed(_figure("last-session", "Last session", last), 6, width, {"kind": "bars"})
    for kind in kinds:
        rows = _number(f"{kind}-rows", "row_count", "SUM", QUALITY, _decimal(0))
        yield Placed(_figure(f"{kind}-rows", counts[kind], rows), 6, width, {"kind": kind})
    titles = {
        "bars": ("Rows of each ticker", "Price basis", "Last session"),
        "quarantine": ("Quarantine by reason", "Reason", None),
        "restatement": ("Restatements", "Cause", "Changed on"),
    }
    for kind in kinds:
        title, detail, day = titles[kind]
        columns = {
            "ticker": ("Ticker", _text(kind, "ticker", QUALITY)),
            "table_name": ("Table", _text(kind, "table_name", QUALITY)),
            "detail": (detail, _text(kind, "detail", QUALITY)),
        }
        if day:
            columns["day"] = (day, _day(kind, "day", QUALITY))
        columns["row_count"] = ("Rows", _number(kind, "row_count", "SUM", QUALITY, _decimal(0)))
        by: Sort = (
            ("day", "DESC")
            if kind == "restatement"
            else ("row_count", "DESC")
            if kind == "quarantine"
            else ("ticker", "ASC")
        )
        dimensions = [name for name in columns if name != "row_count"]
        yield Placed(_table(kind, title, columns, dimensions, by), 12, only={"kind": kind})


def _figure(visual: str, title: str, value: Json) -> Json:
    return {"KPIVisual": {**_titled(visual, title), "ChartConfiguration": {"FieldWells": {"Values": [value]}}}}


# Tables


def _table(
    visual: str,
    title: str,
    columns: Mapping[str, tuple[str, Json]],
    dimensions: Sequence[str],
    by: Sort,
    cells: Sequence[Json] = (),
    subtitle: str | None = None,
) -> Json:
    """A table.

    - columns: the heading and the field of each, by name, from left to right
    - dimensions: the names of those that are not aggregated
    - by: the column by which it is sorted, and how
    """
    fields = {name: next(iter(column.values()))["FieldId"] for name, (_, column) in columns.items()}
    wells = {
        "GroupBy": [columns[name][1] for name in dimensions],
        "Values": [column for name, (_, column) in columns.items() if name not in dimensions],
    }
    chart: Json = {
        "FieldWells": {"TableAggregatedFieldWells": wells},
        "SortConfiguration": {"RowSort": [{"FieldSort": {"FieldId": fields[by[0]], "Direction": by[1]}}]},
        "FieldOptions": {
            "SelectedFieldOptions": [
                {"FieldId": fields[name], "CustomLabel": heading, "Visibility": "VISIBLE"}
                for name, (heading, _) in columns.items()
            ],
            "Order": list(fields.values()),
        },
    }
    table: Json = {**_titled(visual, title, subtitle), "ChartConfiguration": chart}
    if cells:
        table["ConditionalFormatting"] = {"ConditionalFormattingOptions": list(cells)}
    return {"TableVisual": table}


# Parameters, controls and filters


def _text_parameter(name: str, values: Sequence[str], kind: Literal["SINGLE_VALUED", "MULTI_VALUED"]) -> Json:
    return {
        "StringParameterDeclaration": {
            "Name": name,
            "ParameterValueType": kind,
            "DefaultValues": {"StaticValues": list(values)},
        }
    }


def _dropdown(parameter: str, sheet: str, kind: Literal["SINGLE_SELECT", "MULTI_SELECT"]) -> Json:
    return {
        "Dropdown": {
            "ParameterControlId": f"{sheet}-{parameter}",
            "Title": parameter,
            "SourceParameterName": parameter,
            "Type": kind,
            "SelectableValues": {"LinkToDataSetColumn": _column("ticker")},
        }
    }


def _date_picker(sheet: str) -> Json:
    return {
        "DateTimePicker": {
            "ParameterControlId": f"{sheet}-{SINCE}",
            "Title": SINCE,
            "SourceParameterName": SINCE,
            "DisplayOptions": {"DateTimeFormat": "YYYY-MM-DD"},
        }
    }


def _equals(data_set: str, column: str, parameter: str) -> Json:
    # This form also takes the values of a parameter with several.
    custom = {"MatchOperator": "EQUALS", "ParameterName": parameter, "NullOption": "NON_NULLS_ONLY"}
    return {
        "CategoryFilter": {"Column": _column(column, data_set), "Configuration": {"CustomFilterConfiguration": custom}}
    }


def _at_least(column: str, parameter: str) -> Json:
    return {
        "TimeRangeFilter": {
            "Column": _column(column),
            "RangeMinimumValue": {"Parameter": parameter},
            "IncludeMinimum": True,
            "NullOption": "NON_NULLS_ONLY",
            "TimeGranularity": "DAY",
        }
    }


def _filters_of_visuals(placed: Mapping[str, Sequence[Placed]]) -> Iterator[Json]:
    for sheet, visuals in placed.items():
        for each in visuals:
            for column, value in each.only.items():
                yield _filter_group(f"{each.id}-{column}", _is(column, value), sheet, each.id)


def _is(column: str, value: str | int) -> Json:
    if isinstance(value, str):
        chosen = {"FilterListConfiguration": {"MatchOperator": "CONTAINS", "CategoryValues": [value]}}
        return {"CategoryFilter": {"Column": _column(column, QUALITY), "Configuration": chosen}}
    equality = {"Value": float(value), "MatchOperator": "EQUALS", "NullOption": "NON_NULLS_ONLY"}
    return {"NumericEqualityFilter": {"Column": _column(column), **equality}}


def _filter_group(name: str, condition: Json, sheet: str, visual: str | None = None) -> Json:
    """A group of one filter: QuickSight joins the filters of a group by OR, and groups by AND.

    `visual`: the only visual that it filters; None: all of the sheet.
    """
    [(kind, members)] = condition.items()
    scope: Json = {"SheetId": sheet, "Scope": "ALL_VISUALS"}
    if visual is not None:
        scope = {"SheetId": sheet, "Scope": "SELECTED_VISUALS", "VisualIds": [visual]}
    return {
        "FilterGroupId": f"{name}-group",
        "CrossDataset": "SINGLE_DATASET",
        "Status": "ENABLED",
        "Filters": [{kind: {"FilterId": f"{name}-filter", **members}}],
        "ScopeConfiguration": {"SelectedSheets": {"SheetVisualScopingConfigurations": [scope]}},
    }
