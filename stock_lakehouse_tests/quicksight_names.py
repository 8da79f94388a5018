"""Whether the names in a definition of a QuickSight dashboard exist and go together, which the API's model does not say.

Here: columns and their types, parameters, identifiers, the places of a grid. Not here: the form of a request (aws_model.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

NUMBERS = ("INTEGER", "DECIMAL")
# What a field or a filter may be made of.
TYPES = {
    "NumericalMeasureField": NUMBERS,
    "DateMeasureField": ("DATETIME",),
    "DateDimensionField": ("DATETIME",),
    "CategoricalDimensionField": ("STRING",),
    "CategoryFilter": ("STRING",),
    "NumericEqualityFilter": NUMBERS,
    "TimeRangeFilter": ("DATETIME",),
}
FUNCTIONS = {"max", "min", "sum", "stdev", "sqrt", "firstValue", "maxOver", "minOver", "ifelse"}
GRID_COLUMNS = 36

Columns = Mapping[str, Mapping[str, str]]  # the type of each column, by data set and name


def unknown(definition: Mapping[str, Any], columns: Columns) -> list[str]:
    """What is wrong with the names of `definition`; empty if nothing is. `columns`: of the data sets, by their identifiers."""
    declared = {each["Identifier"] for each in definition["DataSetIdentifierDeclarations"]}
    found = [f"data set {name} is not declared" for name in columns.keys() - declared]
    calculated = {each["Name"]: each for each in definition.get("CalculatedFields", [])}
    typed: dict[str, dict[str, str]] = {name: dict(of_set) for name, of_set in columns.items()}
    for each in calculated.values():
        if each["Name"] in typed[each["DataSetIdentifier"]]:
            found.append(f"calculated field {each['Name']} has the name of a column")
        typed[each["DataSetIdentifier"]][each["Name"]] = "DECIMAL"
    return [
        *found,
        *_columns(definition, typed, calculated),
        *_expressions(definition, typed),
        *_parameters(definition),
        *_identifiers(definition),
        *_scopes(definition),
        *(fault for sheet in definition["Sheets"] for fault in _sheet(sheet)),
    ]


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value below `value` with its path."""
    yield path, value
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from walk(inner, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from walk(inner, f"{path}[{place}]")


def _columns(definition: Mapping[str, Any], typed: Columns, calculated: Mapping[str, Any]) -> Iterator[str]:
    for path, value in walk(definition):
        if not isinstance(value, Mapping):
            continue
        if "ColumnName" in value and value["ColumnName"] not in typed.get(value["DataSetIdentifier"], {}):
            yield f"{path}: no column {value['ColumnName']} in {value['DataSetIdentifier']}"
        if "Column" not in value:
            continue
        kind, name = path.rpartition(".")[2], value["Column"]["ColumnName"]
        found = typed.get(value["Column"]["DataSetIdentifier"], {}).get(name)
        if kind in TYPES and found not in TYPES[kind]:
            yield f"{path}: {name} is {found}, which {kind} does not take"
        if kind == "NumericalMeasureField" and ("AggregationFunction" in value) == (name in calculated):
            yield f"{path}: {name} is aggregated twice, or not at all"


def _expressions(definition: Mapping[str, Any], typed: Columns) -> Iterator[str]:
    names = {name for of_set in typed.values() for name in of_set}
    for path, value in walk(definition):
        if not path.endswith(".Expression") or not isinstance(value, str):
            continue
        for name in re.findall(r"\{([^}]*)\}", value):
            if name not in names:
                yield f"{path}: no column {name}"
        for function in re.findall(r"([A-Za-z]+)\(", value):
            if function.lower() not in {known.lower() for known in FUNCTIONS}:
                yield f"{path}: no function {function}"
        if value.count("(") != value.count(")") or value.count("[") != value.count("]"):
            yield f"{path}: brackets that do not match"


def _parameters(definition: Mapping[str, Any]) -> Iterator[str]:
    declared = {
        next(iter(each.values()))["Name"]: next(iter(each.values())) for each in definition["ParameterDeclarations"]
    }
    used = {value for path, value in walk(definition) if re.search(r"\.(ParameterName|Parameter)$", path)}
    bound = Counter()
    for sheet in definition["Sheets"]:
        for control in sheet.get("ParameterControls", []):
            [(kind, members)] = control.items()
            name = members["SourceParameterName"]
            bound[name] += 1
            is_multiple = declared.get(name, {}).get("ParameterValueType") == "MULTI_VALUED"
            if kind == "Dropdown" and (members["Type"] == "MULTI_SELECT") != is_multiple:
                yield f"control {members['ParameterControlId']}: {members['Type']} on a parameter that is not so"
            if kind == "DateTimePicker" and "TimeGranularity" not in declared.get(name, {}):
                yield f"control {members['ParameterControlId']}: {name} is no date"
    yield from (f"parameter {name} is not declared" for name in (used | bound.keys()) - declared.keys())
    yield from (f"parameter {name} has no control" for name in declared.keys() - bound.keys())
    yield from (f"parameter {name} is in no filter" for name in declared.keys() - used)
    for name, members in declared.items():
        if members.get("ParameterValueType") == "SINGLE_VALUED" and len(members["DefaultValues"]["StaticValues"]) != 1:
            yield f"parameter {name} has not one default"


def _identifiers(definition: Mapping[str, Any]) -> Iterator[str]:
    kinds = ("SheetId", "VisualId", "FilterId", "FilterGroupId", "ParameterControlId")
    for kind in kinds:
        values = [
            value
            for path, value in walk(definition)
            if path.endswith(f".{kind}") and "ScopingConfigurations" not in path
        ]
        yield from (f"{kind} {value} is there {count} times" for value, count in Counter(values).items() if count > 1)
    declared: Counter[str] = Counter()
    for sheet in definition["Sheets"]:
        for visual in sheet["Visuals"]:
            own = set(_fields(visual))
            declared.update(_fields(visual))
            for path, value in walk(visual):
                if path.endswith(".FieldId") and value not in own:
                    yield f"{path}: the visual has no field {value}"
                if re.search(r"\.Order\[\d+\]$", path) and value not in own:
                    yield f"{path}: the visual has no field {value}"
    yield from (f"FieldId {value} is there {count} times" for value, count in declared.items() if count > 1)


def _fields(visual: Mapping[str, Any]) -> list[str]:
    """The identifiers of the fields in the wells of a visual."""
    wells = next(iter(visual.values()))["ChartConfiguration"]["FieldWells"]
    return [value for path, value in walk(wells) if path.endswith(".FieldId")]


def _scopes(definition: Mapping[str, Any]) -> Iterator[str]:
    sets: dict[tuple[str, str], set[str]] = {}
    for sheet in definition["Sheets"]:
        for visual in sheet["Visuals"]:
            members = next(iter(visual.values()))
            wells = members["ChartConfiguration"]["FieldWells"]
            sets[sheet["SheetId"], members["VisualId"]] = {
                value for path, value in walk(wells) if path.endswith(".DataSetIdentifier")
            }
    for group in definition["FilterGroups"]:
        # QuickSight joins the filters of a group by OR.
        if len(group["Filters"]) != 1:
            yield f"{group['FilterGroupId']}: {len(group['Filters'])} filters"
        data_set = next(iter(group["Filters"][0].values()))["Column"]["DataSetIdentifier"]
        for scope in group["ScopeConfiguration"]["SelectedSheets"]["SheetVisualScopingConfigurations"]:
            of_sheet = [visual for sheet, visual in sets if sheet == scope["SheetId"]]
            chosen = of_sheet if scope["Scope"] == "ALL_VISUALS" else scope["VisualIds"]
            if not chosen:
                yield f"{group['FilterGroupId']}: filters nothing"
            for visual in chosen:
                if sets.get((scope["SheetId"], visual)) != {data_set}:
                    yield f"{group['FilterGroupId']}: {scope['SheetId']} has no visual {visual} of {data_set} alone"


def _sheet(sheet: Mapping[str, Any]) -> Iterator[str]:
    visuals = [next(iter(visual.values()))["VisualId"] for visual in sheet["Visuals"]]
    controls = [next(iter(control.values()))["ParameterControlId"] for control in sheet.get("ParameterControls", [])]
    yield from _placed(sheet, "Layouts", "VISUAL", visuals)
    yield from _placed(sheet, "SheetControlLayouts", "PARAMETER_CONTROL", controls)
    taken: set[tuple[int, int]] = set()
    for element in sheet["Layouts"][0]["Configuration"]["GridLayout"]["Elements"]:
        columns = range(element["ColumnIndex"], element["ColumnIndex"] + element["ColumnSpan"])
        rows = range(element["RowIndex"], element["RowIndex"] + element["RowSpan"])
        if columns.stop > GRID_COLUMNS:
            yield f"{element['ElementId']}: beyond the grid"
        cells = {(row, column) for row in rows for column in columns}
        if cells & taken:
            yield f"{element['ElementId']}: upon another element"
        taken |= cells


def _placed(sheet: Mapping[str, Any], layouts: str, kind: str, wanted: Iterable[str]) -> Iterator[str]:
    elements = [
        element for layout in sheet.get(layouts, []) for element in layout["Configuration"]["GridLayout"]["Elements"]
    ]
    there, wanted = Counter(element["ElementId"] for element in elements), set(wanted)
    yield from (f"{sheet['SheetId']}: {name} has {there[name]} places" for name in wanted if there[name] != 1)
    yield from (f"{sheet['SheetId']}: a place for {name}, which does not exist" for name in there.keys() - wanted)
    yield from (f"{element['ElementId']}: is no {kind}" for element in elements if element["ElementType"] != kind)
