"""Whether the engine's workers can run this package's functions: same Python, TA-Lib, the package itself.

A remote engine is asked once, at session start, by a function of one row. Not here: the embedded engine, whose worker is
this process.
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

# What Spark (PYTHON_VERSION_MISMATCH, from Spark 4 on and before) and Sail say.
MISMATCH = (
    re.compile(r"Python in worker has different version:? \(?(?P<major>\d+)[., ]+(?P<minor>\d+)"),
    re.compile(r"does not match the Python version at runtime \((?P<major>\d+)\.(?P<minor>\d+)"),
)
PYTHON_ERROR = re.compile(r"[\w.]*(Error|Exception): ")


class WorkerError(EngineError):
    """The engine's workers cannot run this package's functions; the message says what to install."""


def check_workers(spark: SparkSession, advice: str) -> None:
    """Raise WorkerError, with `advice` on how to install, when a worker lacks TA-Lib or this package, or holds another version
    of it, or runs another minor version of Python."""
    from pyspark.errors import PySparkException

    probe = _probe()  # type: ignore[no-untyped-call]
    asked = spark.range(1).groupBy("id").applyInArrow(probe, "python string, package string, error string")
    try:
        [found] = asked.collect()
    except PySparkException as error:
        theirs = workers_python(str(error))
        if theirs is None:
            raise WorkerError(
                f"the engine's workers run no function of this package ({_python_error(str(error))}); {advice}"
            ) from None
        raise _other_python(theirs) from None
    if found["python"] != client_python():
        raise _other_python(found["python"])
    if found["error"]:
        raise WorkerError(f"the engine's workers cannot compute indicators ({found['error']}); {advice}")
    if found["package"] != __version__:
        raise WorkerError(
            f"the engine's workers hold stock_lakehouse {found['package']}, this is {__version__}; {advice}"
        )


def client_python() -> str:
    """The minor version that pickled functions are bound to, like `3.11`."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def workers_python(message: str) -> str | None:
    """The Python version of the workers in an engine's complaint about it; None if `message` is about something else."""
    for pattern in MISMATCH:
        if match := pattern.search(message):
            return f"{match['major']}.{match['minor']}"
    return None


def _python_error(message: str) -> str:
    """The line of a traceback that names the error."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    named = [line for line in lines if PYTHON_ERROR.match(line)]
    return (named or lines or ["no reason given"])[-1]


def _other_python(theirs: str) -> WorkerError:
    return WorkerError(
        f"the engine's workers run Python {theirs}, this program Python {client_python()}, and functions cross only between "
        f"equal minor versions: run this program with Python {theirs} (make PYTHON=python{theirs} .venv/installed)"
    )


def _probe():  # type: ignore[no-untyped-def]  # PySpark inspects the signature
    """A function that says what a worker has. It crosses by value, being local, so it needs nothing of what it looks for."""

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
