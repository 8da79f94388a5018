"""The job `check` of the Databricks bundle: whether the wheel works in the environment that it was installed in.

Here: versions, imports and a computation, without data and without PySpark. Not here: the check of a session's workers
(engines/workers.py).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence

from stock_lakehouse import __version__

DISTRIBUTION = "stock-lakehouse"
PIN = re.compile(r"([\w.-]+)==([\w.]+)")
# What computes and publishes a layer; the last one needs PySpark, which the wheel does not bring.
MODULES = ("stock_lakehouse.indicators.kernel", "stock_lakehouse.lake", "stock_lakehouse.catalog.entries")
OF_PYSPARK = "stock_lakehouse.databricks_jobs.main"


class CheckError(Exception):
    """The environment cannot run the program's jobs. The message names all that is wrong, and what to do."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what is installed; raise CheckError if a job would fail here. `arguments`: None for those of the process."""
    parser = argparse.ArgumentParser(prog="check", description=__doc__)
    parser.add_argument("--program", required=True, help="version of the program that Dagster runs")
    parser.add_argument("--python", required=True, help="minor version of Python that it runs on, like 3.12")
    given = parser.parse_args(arguments)
    wrong = []
    for what, problem in findings(given.program, given.python):
        print(f"{'broken' if problem else 'ok':<8}{what}{': ' + problem if problem else ''}", flush=True)  # noqa: T201  # the job's log
        if problem:
            wrong.append(f"{what}: {problem}")
    if wrong:
        raise CheckError("; ".join(wrong))


def findings(program: str, python: str) -> Iterator[tuple[str, str]]:
    """What was checked, and what is wrong with it; empty text for nothing.

    - program: the version that the package should have
    - python: the minor version of Python that the program runs on
    """
    other = f"the program is {program}; build and deploy the bundle again with the program's sources"
    yield f"stock_lakehouse {__version__}", "" if __version__ == program else other
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    yield (
        f"Python {here}",
        "" if here == python else f"the program runs on Python {python}, so sessions would be refused",
    )
    for requirement in importlib.metadata.requires(DISTRIBUTION) or ():
        if (pin := PIN.fullmatch(requirement)) is not None:
            yield _pinned(pin[1], pin[2])
    yield "TA-Lib computes", _ta_lib()
    for module in MODULES:
        yield f"import {module}", _imported(module)
    if importlib.util.find_spec("pyspark") is not None:
        yield f"import {OF_PYSPARK}", _imported(OF_PYSPARK)
    elif "DATABRICKS_RUNTIME_VERSION" in os.environ:
        yield "PySpark", "it is not installed, and Databricks brings it; remove what replaces it"


def _pinned(name: str, version: str) -> tuple[str, str]:
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return name, f"it is not installed; the wheel needs {version}"
    return f"{name} {found}", "" if found == version else f"the wheel needs {version}; remove what pins another version"


def _ta_lib() -> str:
    try:
        import numpy as np
        import talib

        found = talib.SMA(np.array([1.0, 2.0, 3.0, 6.0]), timeperiod=2)[1:].tolist()
    except ImportError as error:
        return f"{error}; install the wheel with its dependencies"
    return "" if found == [1.5, 2.5, 4.5] else f"averages of two of 1, 2, 3, 6 are {found}"


def _imported(module: str) -> str:
    try:
        importlib.import_module(module)
    except ImportError as error:
        return f"{error}; install the wheel with its dependencies"
    return ""
