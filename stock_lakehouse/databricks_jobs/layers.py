"""A layer computed, held against its schema and published, as assets/ and io_managers/ do it, without Dagster.

Not here: where the order comes from and where what is said of it goes (main.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from stock_lakehouse.databricks_jobs.order import Order
from stock_lakehouse.indicators.registry import indicator_spec
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.publish import Published
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.lake.status import new_in_quarantine, outdated_rows
from stock_lakehouse.lake.storage import lake_root
from stock_lakehouse.layers.curated import curate, publish, window_of
from stock_lakehouse.schemas.audit import failures
from stock_lakehouse.tables import CURATED, FEATURES, PROCESSED, PROCESSED_ACTIONS, QUARANTINE, UNREADABLE, Table
from stock_lakehouse.transforms.features import features
from stock_lakehouse.transforms.processed import classify, delivered_actions, processed_bars, quarantined

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Check = Callable[[str, bool, dict[str, Any], Literal["ERROR", "WARN"]], None]  # name, passed, what it found, severity
LISTED = 50


class BlockedError(Exception):
    """A check that blocks the publish failed; the message names it. Nothing was published."""


class Layers:
    """The layers of the lake that `order` names, on the engine of `spark`. `check` hears the result of every check."""

    def __init__(self, order: Order, spark: SparkSession, check: Check) -> None:
        self._order, self._spark, self._check = order, spark, check
        root = lake_root(order.root)
        self._lake = Lake(root, order.bars_per_chunk, order.partitions_per_write, order.retention_days)
        self._staging = Staging(root)
        self._asked = order.rectangle
        self._sessions = spark.createDataFrame(order.calendar.table(order.grace))
        self._days = spark.createDataFrame(order.calendar.days())

    def publish(self) -> dict[str, Any]:
        """Publish the order's table; what it holds then and what was done, by name. Raises BlockedError."""
        publish = {PROCESSED.name: self._processed, CURATED.name: self._curated, FEATURES.name: self._features}
        try:
            published = publish[self._order.name]()
        finally:
            self._staging.clear()
        return {
            "dagster/row_count": self._lake.read(self._order.name, self._spark).count(),
            "bytes": sum(self._lake.sizes(self._order.name)),
            "added": published.added,
            "corrected": published.corrected,
            "withdrawn": published.withdrawn,
            "ticker-years written": published.partitions,
            **({} if published.version is None else {"table version": published.version}),
        }

    def _processed(self) -> Published:
        asked, lake = self._asked, self._lake
        raw = lake.raw.read(self._spark, asked.tickers, asked.read_years)
        rows = self._by_ticker(
            lambda some: classify(some, self._days, self._order.price_tolerance),
            raw,
            asked.tickers,
            len(asked.read_years),
        )
        delivered = raw.count()
        fates = {row["fate"]: row["count"] for row in rows.groupBy("fate").count().collect()}
        self._conserve(delivered, fates)
        bars, rejected, actions = processed_bars(rows), quarantined(rows), delivered_actions(rows)
        self._audit(bars, PROCESSED, "schema")
        self._audit(rejected, QUARANTINE, "quarantine_schema")
        self._audit(actions, PROCESSED_ACTIONS, "actions_schema")
        new = new_in_quarantine(rejected, lake, self._spark, asked, fates.get("quarantined", 0))
        self._check("quarantine", not new.found, {**new.facts(), **({"rows": new.rows} if new.rows else {})}, "WARN")
        lake.quarantine.publish(
            rejected, [*asked.tickers, UNREADABLE], [*map(str, asked.read_years), UNREADABLE], self._staging
        )
        lake.processed_actions.replace(actions.toArrow(), asked.tickers, asked.read_years)
        return lake.processed.publish(bars, asked.tickers, asked.read_years, self._staging, asked)

    def _curated(self) -> Published:
        order, lake, asked = self._order, self._lake, self._asked
        processed = lake.processed.read(self._spark, asked.tickers, window_of(lake, asked).loaded)
        curation = curate(lake, self._spark, processed, asked, self._sessions, self._by_ticker)
        self._audit(curation.bars, CURATED, "schema")
        return publish(curation, lake, asked, self._staging, run_id=order.run_id, now=order.ordered_at)

    def _features(self) -> Published:
        bars = self._lake.curated.read(self._spark, self._asked.tickers)
        years = self._asked.last.year - self._order.calendar.sessions[0].year + 1
        rows = self._by_ticker(lambda some: features(some, self._sessions), bars, self._asked.tickers, years)
        self._audit(rows, FEATURES, "schema")
        published = self._lake.features.publish(
            rows, self._asked, self._staging, self._lake.ledger, run_id=self._order.run_id, now=self._order.ordered_at
        )
        outdated = outdated_rows(self._lake.features.read(self._spark))
        found = {"indicator_spec": indicator_spec(), "outdated rows": sum(outdated.values())}
        self._check("present_formulas", not outdated, found, "WARN")
        return published

    def _by_ticker(
        self, transform: Callable[[DataFrame], DataFrame], frame: DataFrame, tickers: Sequence[str], years: int
    ) -> DataFrame:
        return self._staging.by_ticker(transform, frame, tickers, years, self._order.bars_per_chunk)

    def _audit(self, frame: DataFrame, table: Table, name: str) -> None:
        found = failures(frame, table)
        self._check(name, not found, {"failures": found[:LISTED] if found else 0}, "ERROR")
        if found:
            first = found[0]
            raise BlockedError(
                f"{table.name}: {len(found)} failures of its schema, the first in {first['column']}: {first['error']}"
            )

    def _conserve(self, delivered: int, fates: dict[str, int]) -> None:
        figures = {fate: fates.get(fate, 0) for fate in ("processed", "quarantined", "superseded")}
        passed = delivered == sum(fates.values()) == sum(figures.values())
        self._check("conservation", passed, {"delivered": delivered, **figures}, "ERROR")
        if not passed:
            raise BlockedError(f"{delivered} rows were read from raw but {figures} came out")
