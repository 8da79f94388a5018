"""What a job is asked to do, as plain values that cross to Databricks in Pipes' extras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any

from stock_lakehouse.market_calendar import MarketCalendar, market_calendar
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.tables import BY_NAME, Table


@dataclass(frozen=True)
class Order:
    """Publish the table `name` of the lake at `root` for `sessions` (ISO dates) × `tickers`. The rest are settings."""

    name: str
    root: str
    sessions: list[str]
    tickers: list[str]
    exchange: str
    first_date: str
    close_grace_minutes: int
    price_tolerance: float
    bars_per_chunk: int
    partitions_per_write: int
    retention_days: int
    run_id: str
    now: str

    def extras(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, extras: Mapping[str, Any]) -> Order:
        return cls(**extras)

    @property
    def table(self) -> Table:
        return BY_NAME[self.name]

    @property
    def rectangle(self) -> Rectangle:
        return Rectangle(tuple(map(date.fromisoformat, self.sessions)), tuple(self.tickers), self.exchange)

    @property
    def calendar(self) -> MarketCalendar:
        return market_calendar(date.fromisoformat(self.first_date), self.exchange)

    @property
    def ordered_at(self) -> datetime:
        """The time of Dagster's clock when the job was ordered: what it restates, it restates then."""
        return datetime.fromisoformat(self.now)

    @property
    def grace(self) -> timedelta:
        return timedelta(minutes=self.close_grace_minutes)
