"""The check that the engine's workers can run this package's functions: same Python, TA-Lib, the package itself.

It runs a function on one row, once, at the start of a session on a remote engine. The embedded engine needs no check: its
worker is this process.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from stock_lakehouse import __version__
from stock_lakehouse.engines.errors import EngineError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

# The messages of Spark (PYTHON_VERSION_MISMATCH in Spark 4, and its older wording) and of Sail.
MISMATCH = (
    re.compile(r"Python in worker has different version:? \(?(?P<major>\d+)[., ]+(?P<minor>\d+)"),
    re.compile(r"does not match the Python version at runtime \((?P<major>\d+)\.(?P<minor>\d+)"),
)
PYTHON_ERROR = re.compile(r"[\w.]*(Error|Exception): ")


class WorkerError(EngineError):
    """The engine's workers cannot run this package's functions. The message says what to install."""


def check_workers(spark: SparkSession, advice: str) -> None:
    """Raise WorkerError if a worker lacks TA-Lib or this package, has another version of it, or another minor version of Python.

    `advice`: how to install the package on this engine; part of the message.
    """
    from pyspark.errors import PySparkException

    probe = _probe()  # type: ignore[no-untyped-call]
    probed = spark.range(1).groupBy("id").applyInArrow(probe, "python string, package string, error string")
    try:
        [worker] = probed.collect()
    except PySparkException as error:
        worker_python = workers_python(str(error))
        if worker_python is None:
            raise WorkerError(
                f"the engine's workers cannot run functions of this package ({_python_error(str(error))}); {advice}"
            ) from None
        raise _other_python(worker_python) from None
    if worker["python"] != client_python():
        raise _other_python(worker["python"])
    if worker["error"]:
        raise WorkerError(f"the engine's workers cannot compute indicators ({worker['error']}); {advice}")
    if worker["package"] != __version__:
        raise WorkerError(
            f"the engine's workers have stock_lakehouse {worker['package']}, this program is {__version__}; {advice}"
        )


def client_python() -> str:
    """This process's minor version of Python, like `3.11`. Pickled functions run only under the same one."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def workers_python(message: str) -> str | None:
    """The workers' version of Python in an engine's message about a mismatch; None if `message` is about something else."""
    for pattern in MISMATCH:
        if match := pattern.search(message):
            return f"{match['major']}.{match['minor']}"
    return None


def _python_error(message: str) -> str:
    """The line of a traceback that names the error."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if PYTHON_ERROR.match(line)]
    return (errors or lines or ["no reason given"])[-1]


def _other_python(version: str) -> WorkerError:
    return WorkerError(
        f"the engine's workers run Python {version}, this program Python {client_python()}, and functions can be sent only "
        f"between equal minor versions: run this program with Python {version} (make PYTHON=python{version} .venv/installed)"
    )


def _probe():  # type: ignore[no-untyped-def]  # PySpark inspects the signature
    """A function that reports what a worker has installed.

    It is local, so it is pickled by value: the worker does not need this package to run it.
    """

    def probe(rows: pa.Table) -> pa.Table:
        import sys

        import pyarrow as pa

        found: dict[str, str | None] = dict.fromkeys(("python", "package", "error"))
        found["python"] = f"{sys.version_info[0]}.{sys.version_info[1]}"
        try:
            import talib  # noqa: F401

            import stock_lakehouse.transforms.features

            found["package"] = stock_lakehouse.__version__
        except ImportError as error:
            found["error"] = str(error)
        return pa.table({name: pa.array([value], pa.string()) for name, value in found.items()})

    return probe
