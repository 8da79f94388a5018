"""Own indicators: a Python file of the user's that adds lines to the registry.

Here: reading the file, checking its indicators, and the errors, which name file and line. Not here: the indicators of the package
(registry.py), and the setting that names the file (lake_options.py).
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from stock_lakehouse.indicators.registry import BARS, INDICATORS, Indicator, compute

if TYPE_CHECKING:
    from stock_lakehouse.indicators.kernel import Array, Columns

NAME = re.compile("[a-z][a-z0-9_]*")
TYPES = ("double", "boolean")
# The columns of curated bars and of features that are no indicators. An indicator of such a name could not be stored, or would
# stand twice in a table of bars and their features.
TAKEN = (
    *("ticker", "date", "year", "tradable_from", "indicator_spec", "price_basis", "ingested_at", "bar_status"),
    *("split_ratio", "split_factor", "basis_factor", "adj_close_deviation"),
)
PACKAGE = "stock_lakehouse"  # its source may lie beside the file; workers have it installed
TRIAL_BARS = 260  # more than the longest warm-up of the registry


class IndicatorError(Exception):
    """An own indicator cannot be used. The message names the file and the line, and says what to do."""


@dataclass(frozen=True)
class OwnIndicator(Indicator):
    """An indicator of the user's file.

    - file, line: where it is defined, for errors
    - digest: of the file's text, so that its spec changes with every edit of the file
    """

    file: str = ""
    line: int = 0
    digest: str = ""

    @property
    def spec(self) -> str:
        return f"{super().spec}@{self.digest}"

    def values(self, columns: Columns) -> Array:
        """Its values, checked. Its function gets the columns that it names alone, and cannot write to them."""
        import numpy as np

        try:
            found = np.asarray(
                self.function({name: _read_only(columns[name]) for name in self.reads}, **self.parameters)
            )
        except Exception as error:  # whatever the user's function raises is one named error
            if isinstance(error, KeyError) and error.args[0] in columns:
                raise self._error(
                    f'reads {error.args[0]}: add inputs=("{error.args[0]}",) to its line', error
                ) from None
            sessions = len(columns["close"])
            raise self._error(
                f"raised {_in_words(error)}, for a history of {sessions:,} sessions; correct its function", error
            ) from error
        length = len(columns["close"])
        if found.shape != (length,):
            raise self._error(f"returned an array of shape {found.shape}; return one value a session, here {length:,}")
        if self.type == "boolean" and found.dtype != bool:
            raise self._error(f'returned {found.dtype} values; return bool values, or leave out type="boolean"')
        if self.type == "double" and found.dtype.kind not in "fiu":
            raise self._error(f'returned {found.dtype} values; return numbers, or add type="boolean" for bool values')
        return found if self.type == "boolean" else found.astype(np.float64)

    def _error(self, what: str, error: Exception | None = None) -> IndicatorError:
        line = _line_in(self.file, error) or self.line
        return IndicatorError(f"{self.file}:{line}: the indicator {self.name} {what}")


def read_source(path: Path) -> str:
    """The text of the user's file. Raises IndicatorError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise IndicatorError(
            f"{path}: cannot be read ({_in_words(error)}); set `indicators` to a Python file"
        ) from None


@lru_cache(maxsize=8)
def own_indicators(file: str, text: str) -> tuple[OwnIndicator, ...]:
    """The indicators of the user's file, checked, and tried on made-up bars: a history of one session, and a long one.

    `file`: its path, for errors. `text`: its source. Raises IndicatorError.
    """
    tree, module = _executed(file, text)
    lines = _Lines(file, tree)
    listed = getattr(module, "INDICATORS", None)
    if not isinstance(listed, list | tuple) or not all(isinstance(each, Indicator) for each in listed):
        raise lines.error(
            "INDICATORS",
            "INDICATORS has to be a list of Indicator(…); import it from stock_lakehouse.indicators.registry",
        )
    digest = hashlib.sha256(text.encode()).hexdigest()
    found: list[OwnIndicator] = []
    for indicator in listed:
        _check(indicator, {each.name for each in (*INDICATORS, *found)}, lines)
        values = {field.name: getattr(indicator, field.name) for field in fields(Indicator)}
        line = _line_of_function(indicator.function, file) or lines.of(indicator.name)
        found.append(OwnIndicator(**values, file=file, line=line, digest=digest))
    for sessions in (1, TRIAL_BARS + max((indicator.warm_up for indicator in found), default=0)):
        compute(_trial_bars(sessions), (*INDICATORS, *found))
    return tuple(found)


def _executed(file: str, text: str) -> tuple[ast.Module, ModuleType]:
    """The file, parsed and executed as a module."""
    try:
        tree = ast.parse(text, file)
    except (SyntaxError, ValueError) as error:  # ValueError: the text has null bytes
        line = getattr(error, "lineno", None) or 1
        raise IndicatorError(f"{file}:{line}: is not Python ({_in_words(error)}); correct it there") from None
    _check_imports(file, tree)
    module = ModuleType(f"stock_lakehouse_own_{hashlib.sha256(text.encode()).hexdigest()[:16]}")
    module.__file__ = file
    # Dataclasses look their module up. It does not stay in sys.modules: functions of a module that cannot be imported are
    # pickled by value, and the engine's workers, which lack the file, need them so.
    sys.modules[module.__name__] = module
    try:
        exec(compile(tree, file, "exec"), module.__dict__)
    except Exception as error:  # whatever the user's file raises is one named error
        is_import = isinstance(error, ImportError)
        to_do = "install it, also in the Python of the engine's workers" if is_import else "correct it there"
        line = _line_in(file, error) or 1
        raise IndicatorError(f"{file}:{line}: raised {_in_words(error)} when it was read; {to_do}") from error
    finally:
        del sys.modules[module.__name__]
    return tree, module


def _check_imports(file: str, tree: ast.Module) -> None:
    """Raise IndicatorError if the file imports a module that lies beside it: workers in another process do not have it."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names = [node.module or name for name in names]
        for name in names:
            top = name.partition(".")[0]
            beside = Path(file).parent / top
            if top != PACKAGE and (beside.with_suffix(".py").is_file() or (beside / "__init__.py").is_file()):
                raise IndicatorError(
                    f"{file}:{node.lineno}: imports {top}, which lies beside it, and the engine's workers do not have that file; "
                    "move its functions into this file"
                )


@dataclass(frozen=True)
class _Lines:
    """The lines of the file on which names stand."""

    file: str
    tree: ast.Module

    def of(self, name: str) -> int:
        """The line with the text or the variable `name`; else that of the list; else the first."""
        return next(self._with(name), next(self._with("INDICATORS"), 1))

    def error(self, name: str, what: str) -> IndicatorError:
        return IndicatorError(f"{self.file}:{self.of(name)}: {what}")

    def _with(self, name: str) -> Iterator[int]:
        for node in ast.walk(self.tree):
            if (isinstance(node, ast.Constant) and node.value == name) or (
                isinstance(node, ast.Name) and node.id == name
            ):
                yield node.lineno


def _check(indicator: Indicator, before: set[str], lines: _Lines) -> None:
    """Raise IndicatorError for a wrong field of `indicator`. `before`: the indicators before it."""
    name = indicator.name
    known = {*BARS, *before}
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise lines.error(name, f"{name!r} cannot be the name of a column; allowed: {NAME.pattern}")
    problem = None
    if name in {*known, *TAKEN}:
        problem = "has a name that is taken; choose another one"
    elif not callable(indicator.function):
        problem = f"needs a function, not {indicator.function!r}"
    elif not isinstance(indicator.parameters, Mapping):
        problem = f"needs its parameters as a dict, not {indicator.parameters!r}"
    elif not isinstance(indicator.warm_up, int) or indicator.warm_up < 0:
        problem = f"needs a whole number of sessions as warm_up, not {indicator.warm_up!r}"
    elif not isinstance(indicator.description, str) or not indicator.description:
        problem = "needs a description"
    elif indicator.type not in TYPES:
        problem = f"has the type {indicator.type!r}; allowed: {', '.join(TYPES)}"
    elif unknown := sorted(indicator.reads - known):
        problem = (
            f"reads {', '.join(unknown)}, which there is not; inputs, and parameters that are text, may name "
            f"{', '.join((*BARS, *sorted(before)))}"
        )
    if problem:
        raise lines.error(name, f"the indicator {name} {problem}")


def _trial_bars(sessions: int) -> dict[str, Array]:
    """Bars as a ticker may have them: prices that rise and fall, without splits and dividends."""
    import numpy as np

    days = np.arange(sessions, dtype=np.float64)
    close = 100 + 10 * np.sin(days / 7) + days / 50
    opened = close + np.cos(days)
    return {
        "open": opened,
        "high": np.maximum(opened, close) + 0.5,
        "low": np.minimum(opened, close) - 0.5,
        "close": close,
        "adj_close": close.copy(),
        "volume": 1e6 + 1e5 * np.sin(days),
        "dividend": np.zeros(sessions),
        "total_return": np.zeros(sessions, dtype=bool),
    }


def _read_only(values: Array) -> Array:
    view = values.view()
    view.flags.writeable = False
    return view


def _line_of_function(function: Callable[..., Any], file: str) -> int | None:
    """The line on which `function` is defined; None if it is not a function of `file`."""
    code = getattr(function, "__code__", None)
    return code.co_firstlineno if code is not None and code.co_filename == file else None


def _line_in(file: str, error: Exception | None) -> int | None:
    """The innermost line of `file` in the traceback of `error`."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    return next((frame.lineno for frame in reversed(frames) if frame.filename == file), None)


def _in_words(error: Exception) -> str:
    """The kind and the first line of an error."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
