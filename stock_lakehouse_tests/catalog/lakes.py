"""A small lake with odd tickers, on moto's S3, and what a Glue database holds. Not here: what a test expects of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from stock_lakehouse_tests import s3
from stock_lakehouse_tests.graph import Bars, clocked, edited, history, rectangle, run, sessions_of

# The names of three folders differ from the ticker in some engine: BAC%5EB, C%3DF in Delta, a point, a hyphen.
ODD = ("BAC^B", "BF.B", "BRK-B", "C=F")
DAYS = sessions_of(date(2019, 12, 26), date(2020, 1, 8))  # 4 sessions of 2019, 5 of 2020
BARS = history(ODD, DAYS)
RESTATED = ("BF.B", DAYS[1])
REFUSED = ("BRK-B", DAYS[2])  # high below low


def delivered() -> Bars:
    return edited(BARS, REFUSED, high="1", low="2", close="1.5")


def fill(folder: Path, spark: SparkSession, **options: Any) -> Path:
    """Fill the lake in `folder`: one bar is in quarantine, and a second run restates one."""
    house = clocked(folder, spark, ODD, **options)
    run(house, rectangle(DAYS, ODD), delivered().values(), "11111111-run")
    close = BARS[RESTATED]["open"]
    run(house, rectangle(DAYS, ODD), edited(delivered(), RESTATED, close=close).values(), "22222222-run")
    return folder


def on_s3(folder: Path, endpoint: str, name: str) -> str:
    """The URI of a copy of the lake in `folder`, in a bucket `name` of its own."""
    s3.make_bucket(endpoint, name)
    s3.upload(folder, f"s3://{name}/lake")
    return f"s3://{name}/lake"


SERVICE_FIELDS = ("CreateTime", "UpdateTime", "CreationTime", "VersionId", "CatalogId", "CreatedBy", "LastAccessTime")


def contents(client: Any, database: str) -> dict[str, Any]:
    """Every table of a database with its partitions, without what the service adds."""
    held = {}
    for page in client.get_paginator("get_tables").paginate(DatabaseName=database):
        for table in page["TableList"]:
            pages = client.get_paginator("get_partitions").paginate(DatabaseName=database, TableName=table["Name"])
            partitions = sorted(
                (_plain(one) for page in pages for one in page["Partitions"]), key=lambda one: one["Values"]
            )
            held[table["Name"]] = {"table": _plain(table), "partitions": partitions}
    return held


def _plain(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in SERVICE_FIELDS}


class KilledError(BaseException):
    """The process was killed; nothing catches it."""


def kill_at(client: Any, write: int, *, answered: bool) -> None:
    """Kill the caller at its n-th write call (from 1): before Glue has it, or, if `answered`, once Glue has executed it."""
    from stock_lakehouse.catalog.glue import WRITES

    seen = 0

    def before(model: Any, **_: Any) -> None:
        nonlocal seen
        if model.name.startswith(WRITES):
            seen += 1
            if seen == write and not answered:
                raise KilledError
            if seen > write:
                raise AssertionError("wrote after it was killed")

    def after(model: Any, **_: Any) -> None:
        if model.name.startswith(WRITES) and seen == write and answered:
            raise KilledError

    client.meta.events.register("before-call.glue", before)
    client.meta.events.register("after-call.glue", after)


def rows_of_log(root: str, table: str) -> Iterator[Mapping[str, Any]]:
    """The add actions of a Delta table by deltalake itself."""
    import deltalake
    import pyarrow as pa

    yield from pa.table(deltalake.DeltaTable(f"{root}/{table}").get_add_actions(flatten=True)).to_pylist()
