"""Errors that can happen to anyone, as a line: a full or unwritable disk, a failing store, a database that does not answer.

Not here: wrong input, which the commands report themselves. Any other error is a defect of the program and keeps its traceback.
"""

from __future__ import annotations

import errno
import sys

UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR)


def explainable() -> tuple[type[Exception], ...]:
    """The classes of errors that `explanation` may have a line for. Only libraries that are loaded can have raised one."""
    from stock_lakehouse.lake.storage import error_types

    return (*error_types(), *_postgres_errors())


def explanation(error: Exception) -> str | None:
    """What happened and what to do; None for an error that is a defect."""
    from stock_lakehouse.lake.storage import storage_error

    if failure := storage_error("the lake or Dagster's records", error):
        return str(failure)
    if isinstance(error, OSError) and error.errno in UNWRITABLE and error.filename is not None:
        return (
            f"{error.filename}: {error.strerror}; nothing is half-published. Change its owner or permissions, or set another "
            "folder, then run the same again; `stock-lakehouse doctor` checks all folders"
        )
    cause = getattr(error.__cause__ or error, "orig", None) or error
    if isinstance(error, _postgres_errors()) or type(cause).__module__.startswith("psycopg2"):
        reason = str(cause).strip().split("\n", 1)[0]
        return (
            f"the database of Dagster's records does not answer ({reason}); nothing is half-published. Run the same again when "
            "it does; `stock-lakehouse doctor` checks it"
        )
    return None


def _postgres_errors() -> tuple[type[Exception], ...]:
    module = sys.modules.get("dagster_postgres.utils")
    return (module.DagsterPostgresException,) if module else ()
