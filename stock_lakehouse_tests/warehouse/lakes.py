"""Lakes on moto's S3 whose published tables are written by deltalake itself, and the warehouse of each.

Here: rows, changes of them, and what the warehouse holds. Not here: what a test expects.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

import deltalake
import pyarrow as pa

from stock_lakehouse.catalog.glue import GlueCatalog, register_lake
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.settings import Redshift
from stock_lakehouse.sql.data_api import DataApi
from stock_lakehouse.tables import CURATED, FEATURES, Table
from stock_lakehouse.warehouse.load import LoadOutcome, Warehouse
from stock_lakehouse.warehouse.tables import NativeTable
from stock_lakehouse_tests import s3
from stock_lakehouse_tests.redshift_server import RedshiftServer

# Names that folders escape, an index, a future, a class of shares.
ODD = ("^GSPC", "BRK-B", "C=F", "BAC^B")
Pair = tuple[str, int]
NATIVE = {"stock_prices": CURATED, "stock_features": FEATURES}
# Columns of every type. Most tests have these alone: the server parses each statement, and a checksum of all columns has 12 KB.
FEW = (
    "ticker", "date", "close", "adj_close", "volume", "bar_status", "ingested_at", "year",
    "rsi_14", "golden_cross", "tradable_from", "indicator_spec",
)  # fmt: skip


def rows(table: Table, pair: Pair, count: int, seed: object = 0) -> pa.Table:
    """`count` sessions of a ticker-year, all columns filled, some nulls."""
    ticker, year = pair
    random = Random(f"{table.name} {pair} {seed}")
    made = []
    for number in range(count):
        row: dict[str, Any] = {}
        for column in table.columns:
            values = {
                "ticker": ticker, "year": year, "date": date(year, 1, 2) + timedelta(days=number),
                "ingested_at": datetime(year, 6, 1, 21, 30, 0, random.randrange(1_000_000), tzinfo=UTC),
                "tradable_from": date(year, 1, 3) + timedelta(days=number),
            }  # fmt: skip
            if column.name in values:
                row[column.name] = values[column.name]
            elif column.nullable and random.random() < 0.1:
                row[column.name] = None
            elif column.type == "double":
                row[column.name] = random.choice((random.random(), 1e-7, 1e9)) * random.choice((1, -1))
            elif column.type == "bigint":
                row[column.name] = random.randrange(10**12)
            elif column.type == "boolean":
                row[column.name] = random.random() < 0.5
            else:
                row[column.name] = random.choice(column.one_of or ("abc", "d e"))
        made.append(row)
    return pa.Table.from_pylist(made, table.arrow_schema)


def narrowed(table: NativeTable) -> NativeTable:
    """`table` with the columns of FEW, and others that a test has added."""
    known = NATIVE[table.name].column_names
    columns = tuple(column for column in table.columns if column.name in FEW or column.name not in known)
    return replace(table, source=replace(table.source, columns=columns))


@dataclass
class WarehouseLake:
    """A lake, its Glue database, and its warehouse on the server.

    `has_all`: whether the warehouse has all columns, and not only FEW.
    """

    lake: Lake
    database: str
    server: RedshiftServer
    redshift: Redshift
    client: Any
    has_all: bool
    held: dict[str, dict[Pair, pa.Table]] = field(default_factory=dict)

    @classmethod
    def new(
        cls, endpoint: str, server: RedshiftServer, layout: str = "ticker_year", has_all: bool = False, **settings: Any
    ) -> WarehouseLake:
        bucket = f"bucket-{uuid.uuid4().hex[:12]}"
        s3.make_bucket(endpoint, bucket)
        lake = Lake(LakeOptions(lake_root=f"s3://{bucket}/lake", tickers=ODD, layout=layout))
        for name in NATIVE.values():
            lake.delta[name.name].prepare()
        redshift = Redshift(**{"workgroup": "stocks", **settings})
        held = {name: {} for name in NATIVE}
        return cls(lake, f"db_{uuid.uuid4().hex[:8]}", server, redshift, s3.client(endpoint, "glue"), has_all, held)

    def warehouse(self, **settings: Any) -> Warehouse:
        """The warehouse as a new process sees it."""
        redshift = self.redshift.model_copy(update=settings)
        catalog = GlueCatalog(self.database, str(self.lake.root), self.client)
        found = Warehouse(Lake(self.lake.options), DataApi(redshift, 1.0), catalog)
        found.pause_seconds = 0.05
        if not self.has_all:
            found.tables = tuple(map(narrowed, found.tables))  # type: ignore[misc]
        return found

    def register(self) -> None:
        register_lake(Lake(self.lake.options), GlueCatalog(self.database, str(self.lake.root), self.client))

    def load(self, **settings: Any) -> LoadOutcome:
        self.register()
        return self.warehouse(**settings).load()

    def put(self, pairs: Iterable[Pair], count: int = 3, seed: object = 0, native: Iterable[str] = NATIVE) -> None:
        """Publish `count` sessions of each ticker-year, in one commit a table; none: withdraw it."""
        chosen = list(pairs)
        for name in native:
            table = NATIVE[name]
            new = {pair: rows(table, pair, count, seed) for pair in chosen}
            self._write(self.lake.delta[table.name], chosen, new)
            for pair in chosen:
                self.held[name].pop(pair, None)
            self.held[name] |= {pair: found for pair, found in new.items() if count}

    def _write(self, stored: DeltaTable, pairs: list[Pair], new: Mapping[Pair, pa.Table]) -> None:
        opened = stored.open()
        predicate = " OR ".join(f"(ticker = '{ticker}' AND year = {year})" for ticker, year in pairs)
        whole = pa.concat_tables(new.values())
        if whole.num_rows == 0:
            opened.delete(predicate)
            return
        deltalake.write_deltalake(opened, whole, mode="overwrite", predicate=predicate)

    # What the warehouse holds.

    def native(self, name: str) -> list[dict[str, Any]]:
        """The rows of a native table, in order."""
        found = self.server.database.cursor().execute(
            " ".join(("SELECT * FROM", f"{self.redshift.schema_name}.{name}", "ORDER BY ticker, date"))
        )
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def expected(self, name: str, first_year: int = 0) -> list[dict[str, Any]]:
        """The rows that were published, in the same order; times are without a zone, as Redshift has them."""
        tables = [table for (_, year), table in self.held[name].items() if year >= first_year]
        names = [name for name in NATIVE[name].column_names if self.has_all or name in FEW]
        found = [row for table in tables for row in table.select(names).to_pylist()]
        for row in found:
            if "ingested_at" in row:
                row["ingested_at"] = row["ingested_at"].replace(tzinfo=None)
        return sorted(found, key=lambda row: (row["ticker"], row["date"]))

    def assert_equal(self, first_year: int = 0) -> None:
        for name in NATIVE:
            assert self.native(name) == self.expected(name, first_year)


class KilledError(BaseException):
    """The process was killed; nothing catches it."""


def kill_at(api: DataApi, call: int, *, answered: bool) -> None:
    """Kill the caller at its n-th call (from 1): before Redshift has it, or, if `answered`, once it has; no call follows."""
    seen = 0
    events = api._api.meta.events

    def before(**_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen > call or (seen == call and not answered):
            raise KilledError

    def after(**_: Any) -> None:
        if seen == call and answered:
            raise KilledError

    events.register("before-call.redshift-data", before)
    events.register("after-call.redshift-data", after)
