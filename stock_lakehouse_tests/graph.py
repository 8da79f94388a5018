"""Deliveries pushed through the four layers without a Dagster run: the assets as plain functions, the real IO managers.

Here: generated histories, a lakehouse whose clock stands still, the driver, and what a lake holds as plain values. Not here:
anything a test expects of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import PrivateAttr
from pyspark.sql import SparkSession

from stock_lakehouse.assets.curated import curated_stocks_daily
from stock_lakehouse.assets.features import stocks_features
from stock_lakehouse.assets.processed import processed_stocks_daily
from stock_lakehouse.io_managers.raw_csv import RawCsvIOManager
from stock_lakehouse.io_managers.table import TableIOManager
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.lake.parquet_table import ParquetTable
from stock_lakehouse.lake.raw_files import FILE_COLUMNS
from stock_lakehouse.lake.storage import File, storage_at
from stock_lakehouse.layers.raw import land
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.settings import Settings
from stock_lakehouse.sources import Delivery, delivered_table
from stock_lakehouse.sources.download import Download
from stock_lakehouse.tables import CURATED, FEATURES, PROCESSED, RAW

FIRST = date(2019, 1, 2)
NOW = datetime(2024, 6, 3, 12, 0, 0, 123457, tzinfo=UTC)
TICKERS = ("AAA", "BBB", "CCC")

# Columns that say when deliveries landed: of two lakes filled at different times they differ.
LANDINGS = ("ingested_at", "first_delivered_at", "dividend_first_seen", "split_first_seen", "first_seen")

Key = tuple[str, date]
Bar = dict[str, str | None]
Bars = dict[Key, Bar]


class Clocked(LakehouseResource):
    """A lakehouse whose clock stands at `at`."""

    _at: datetime = PrivateAttr(default=NOW)

    def now(self) -> datetime:
        return self._at


def clocked(
    root: Path | str,
    spark: SparkSession,
    tickers: Sequence[str] = TICKERS,
    layout: str = "ticker_year",
    indicators: Path | None = None,
) -> Clocked:
    """A lakehouse at `root` on the engine of `spark`."""
    settings = Settings(
        lake_root=root,
        layout=layout,
        indicators=indicators,
        tickers=tuple(tickers),
        first_date=FIRST,
        last_date=date(2021, 12, 31),
        bars_per_chunk=3 * 252 * 2,  # two tickers at a time, so that small lakes are cut too
    )
    house = Clocked.of(settings)
    house.spark._session = spark
    return house


def sessions_of(first: date, last: date) -> tuple[date, ...]:
    return market_calendar(FIRST).between(first, last)


def history(tickers: Sequence[str], sessions: Sequence[date], seed: int = 0) -> Bars:
    """A random walk a ticker, as a vendor that says nothing of dividends and splits would deliver it; all text."""
    bars: Bars = {}
    for ticker in tickers:
        dice = np.random.default_rng([seed, *ticker.encode()])
        close = 50 * np.exp(np.cumsum(dice.normal(0, 0.02, len(sessions))))
        opened = close * np.exp(dice.normal(0, 0.01, len(sessions)))
        volume = dice.integers(0, 10**9, len(sessions))
        for at, session in enumerate(sessions):
            bars[ticker, session] = bar(ticker, session, opened[at], close[at], int(volume[at]))
    return bars


def bar(ticker: str, session: date, opened: float, close: float, volume: int) -> Bar:
    return {
        "ticker": ticker,
        "symbol": ticker,
        "date": session.isoformat(),
        "open": repr(float(opened)),
        "high": repr(float(max(opened, close) * 1.01)),
        "low": repr(float(min(opened, close) * 0.99)),
        "close": repr(float(close)),
        "adj_close": repr(float(close * 0.97)),
        "volume": str(volume),
    }


def edited(bars: Bars, key: Key, **values: str | None) -> Bars:
    """`bars` with other text in one of them."""
    return {**bars, key: {**bars[key], **values}}


def delivery(rows: Iterable[Mapping[str, str | None]]) -> pa.Table:
    rows = list(rows)
    names = sorted({name for row in rows for name in row})
    return delivered_table({name: [row.get(name) for row in rows] for name in names})


@dataclass
class Given:
    """A source that delivers what it was given, whatever is asked."""

    rows: pa.Table
    name: str = "given"
    interval: str = "1d"

    def deliver(self, tickers: Sequence[str], first: date, last: date) -> Iterator[Delivery]:
        yield Delivery(self.rows)


@dataclass
class OutputContext:
    """What the IO managers use of Dagster's context of an output, and assets of their own."""

    asset: str
    asset_partition_keys: Sequence[str]
    run_id: str
    has_asset_partitions: bool = True
    op_def: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("stock_lakehouse_tests"))

    @property
    def asset_key(self) -> dg.AssetKey:
        return dg.AssetKey(self.asset)

    @property
    def partition_keys(self) -> Sequence[str]:
        return self.asset_partition_keys

    def add_output_metadata(self, metadata: Mapping[str, Any]) -> None:
        self.metadata.update(metadata)

    def log_event(self, event: Any) -> None:
        pass

    @property
    def step_context(self) -> Any:
        """A step in an instance without records; metadata of one partition is kept as that of the output."""
        storage = SimpleNamespace(
            get_latest_asset_partition_materialization_attempts_without_materializations=lambda key: {}
        )
        return SimpleNamespace(
            instance=SimpleNamespace(event_log_storage=storage, get_materialized_partitions=lambda key: set()),
            add_asset_metadata=lambda metadata, asset_key, partition_key: self.metadata.update(metadata),
        )


def keys_of(rectangle: Rectangle) -> list[str]:
    return [f"{session}|{ticker}" for session in rectangle.sessions for ticker in rectangle.tickers]


def rectangle(sessions: Iterable[date], tickers: Iterable[str]) -> Rectangle:
    return Rectangle(tuple(sorted(sessions)), tuple(sorted(tickers)))


def run(
    house: LakehouseResource,
    asked: Rectangle,
    rows: Iterable[Mapping[str, str | None]] = (),
    run_id: str = "11111111-run",
    steps: Sequence[str] = (RAW.name, PROCESSED.name, CURATED.name, FEATURES.name),
) -> dict[str, dict[str, Any]]:
    """One run for `asked` in which the source delivers `rows`; gives each step's output metadata by asset."""
    try:
        return {name: published(house, name, asked, run_id, rows) for name in steps}
    finally:
        house.staging.clear()


def published(
    house: LakehouseResource, name: str, asked: Rectangle, run_id: str, rows: Iterable[Mapping[str, str | None]] = ()
) -> dict[str, Any]:
    """A step from reading to publishing, as often as Dagster would try it where another run moves its input."""
    tried = 0
    while True:
        try:
            return step(house, name, asked, run_id, rows)()
        except dg.RetryRequested as request:
            tried += 1
            if tried > request.max_retries:
                raise


def step(
    house: LakehouseResource,
    name: str,
    asked: Rectangle,
    run_id: str,
    rows: Iterable[Mapping[str, str | None]] = (),
) -> Callable[[], dict[str, Any]]:
    """A step of a run, read and computed; calling the result publishes, and gives the output's metadata."""
    raw, table = RawCsvIOManager(lakehouse=house), TableIOManager(lakehouse=house)
    keys = keys_of(asked)
    context = OutputContext(name, keys, run_id)
    stores: dg.ConfigurableIOManager
    if name == RAW.name:
        stores, output = raw, Download(Given(delivery(rows)), asked.tickers, asked.first, asked.last)
        land(
            output,
            house.lake.raw,
            asked,
            run_id=run_id,
            now=house.now(),
            final_at=house.final_at,
            say=context.log.info,
        )
    else:
        stores = table
        asset, upstream, loads = {
            PROCESSED.name: (processed_stocks_daily, RAW, raw),
            CURATED.name: (curated_stocks_daily, PROCESSED, table),
            FEATURES.name: (stocks_features, CURATED, table),
        }[name]
        frame = loads.load_input(OutputContext(upstream.name, keys, run_id, op_def=asset.op))  # type: ignore[arg-type]
        output = output_of(asset, context, frame, house)

    def publish() -> dict[str, Any]:
        stores.handle_output(context, output)  # type: ignore[arg-type]
        return context.metadata

    return publish


def output_of(asset: dg.AssetsDefinition, *arguments: Any) -> Any:
    """What an asset, called as the plain function that it is, puts out."""
    function = asset.op.compute_fn.decorated_fn  # type: ignore[union-attr]
    return next(one.value for one in function(*arguments) if isinstance(one, dg.Output))


def contents(table: ParquetTable | DeltaTable) -> list[dict[str, Any]]:
    """The rows of a published table as its files hold them, in order, doubles as hexadecimal text: no engine between."""
    if isinstance(table, DeltaTable):
        found = table.open().to_pyarrow_table() if table.exists() else None
    else:
        parts = [_with_partition(table, file) for file in table.files()]
        found = pa.concat_tables(parts) if parts else None
    return [] if found is None else plain(found)


def _with_partition(table: ParquetTable, file: File) -> pa.Table:
    values = dict(part.split("=", 1) for part in file.path.split("/")[-3:-1] if "=" in part)
    rows = pq.ParquetFile(storage_at(table.lake_root).source(file.path)).read()
    for name, value in values.items():
        rows = rows.append_column(name, pa.array([value] * rows.num_rows, pa.string()))
    return rows


def plain(found: pa.Table) -> list[dict[str, Any]]:
    """Rows as plain values that compare bit for bit, in an order of their own."""
    rows = found.select(sorted(found.column_names)).to_pylist()
    exact = [{name: value.hex() if isinstance(value, float) else value for name, value in row.items()} for row in rows]
    return sorted(exact, key=lambda row: (str(row.get("ticker")), str(row.get("date")), str(row)))


def raw_contents(lake: Lake) -> list[dict[str, Any]]:
    """The landed rows, whatever the files' names."""
    from pyarrow import csv

    rows: list[dict[str, Any]] = []
    text = csv.ConvertOptions(
        column_types={name: pa.string() for name in FILE_COLUMNS}, strings_can_be_null=True, null_values=[""]
    )
    for file in lake.raw.files():
        source = lake.storage.source(file.path)
        found = csv.read_csv(source, parse_options=csv.ParseOptions(newlines_in_values=True), convert_options=text)
        folders = dict(part.split("=", 1) for part in file.path.split("/")[:-1] if "=" in part)
        rows += [{**folders, **row} for row in found.to_pylist()]
    return sorted(rows, key=str)


def layers(house: LakehouseResource) -> dict[str, list[dict[str, Any]]]:
    """What the layers hold that a run computes from raw."""
    lake = house.lake
    return {
        "processed": contents(lake.processed),
        "quarantine": contents(lake.quarantine),
        "curated": contents(lake.curated),
        "corporate_actions": contents(lake.corporate_actions),
        "features": contents(lake.features),
    }


def ledger(house: LakehouseResource) -> list[dict[str, Any]]:
    """The ledger's lines whose commit came."""
    return plain(house.lake.restatements(house.session).toArrow())


@lru_cache(maxsize=4)
def year_boundary(before: int, after: int) -> tuple[date, ...]:
    """The last `before` sessions of 2019 and the first `after` of 2020."""
    first, second = sessions_of(FIRST, date(2019, 12, 31)), sessions_of(date(2020, 1, 1), date(2020, 12, 31))
    return (*first[len(first) - before :], *second[:after])
