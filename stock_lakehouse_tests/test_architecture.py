"""Which room of the package may import which, read from the code: also inside functions, but not for type checkers alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "stock_lakehouse"
# A room imports only rooms on lines above its own, and itself.
ORDER = (
    ("exchanges", "indicators", "aws", "diagnosis", "provisioning", "sources.sample_data"),
    ("schemas", "market_calendar"),
    ("tables", "partitions", "clock", "lake_options"),
    ("settings",),
    ("schemas.lineage", "transforms", "sources", "instance"),
    ("lake", "event_storage"),
    ("sql",),
    ("layers", "engines", "package"),
    ("streams",),
    ("databricks_jobs", "catalog"),
    ("warehouse",),
    ("upkeep", "dashboards"),
    ("resources",),
    ("io_managers",),
    ("automation",),
    ("checks",),
    ("assets",),
    ("definitions",),
    ("runs", "deployment"),
    ("cli",),
    ("__main__",),
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
# partitions.py imports Dagster where it writes its partitions definition, and nowhere else.
WITHOUT_DAGSTER = {room for room, rank in RANK.items() if rank < RANK["resources"]} - {
    "instance", "event_storage", "partitions",
}  # fmt: skip


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below it; "" is the package itself."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix("__init__").rstrip(".")] = path
    return found


MODULES = modules()


def room_of(module: str) -> str:
    if module in RANK:
        return module
    return module.partition(".")[0] or "package"


def imports_of(path: Path) -> Iterator[str]:
    """The dotted names that a module imports when it runs; of `from a import b` a.b where that is a module of ours, else a."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if below_package(name) in MODULES else node.module


def below_package(name: str) -> str:
    return name.removeprefix("stock_lakehouse").lstrip(".")


def own_imports(module: str) -> set[str]:
    """The modules of the package that `module` imports."""
    names = {below_package(name) for name in imports_of(MODULES[module]) if is_own(name)}
    return {name for name in names if name in MODULES and name not in ("", module)}


def is_own(name: str) -> bool:
    return name.partition(".")[0] == "stock_lakehouse"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_rooms_below_its_own(module: str) -> None:
    own = room_of(module)
    wrong = {name for name in own_imports(module) if room_of(name) != own and RANK[room_of(name)] >= RANK[own]}
    assert not wrong, f"{module or 'the package'} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("module", sorted(name for name in MODULES if room_of(name) in WITHOUT_DAGSTER))
def test_dagster_is_not_imported_below_the_resources(module: str) -> None:
    dagster = {name for name in imports_of(MODULES[module]) if name.partition(".")[0] == "dagster"}
    assert not dagster


def test_no_modules_import_each_other_in_a_circle() -> None:
    # A package's __init__ imports its modules; a module that names the package means what __init__ defines.
    graph = {module: own_imports(module) for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' → '.join(error.args[1])}")


def test_every_room_has_its_place() -> None:
    assert {room_of(module) for module in MODULES} == RANK.keys()
