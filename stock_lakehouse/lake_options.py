"""The settings that decide what the lake holds and how it is written.

Here: what `Lake`, Dagster's resource and a Databricks job share of the settings. `Settings` inherits it, so a new setting of the
lake is a field here, and the place that acts on it. Not here: the other settings, lakehouse.toml and variables (settings.py).
A Databricks job imports this module, and there is no pydantic-settings on its cluster.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stock_lakehouse.exchanges import XNYS, exchange_of

if TYPE_CHECKING:
    from stock_lakehouse.market_calendar import MarketCalendar

S3_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()=-]+)*")
TICKER = re.compile(r"\^?[A-Z0-9][A-Z0-9.^=-]{0,14}")


class LakeOptions(BaseModel):
    """Where the lake is, what it holds, and how it is written and checked. Immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tickers: tuple[str, ...] = ("AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA")
    exchange: str = Field(
        default=XNYS, description="whose sessions the lake has: a MIC, 24/7 (crypto) or 24/5 (currencies)"
    )
    first_date: date = date(2013, 1, 2)
    last_date: date | None = None
    lake_root: Path | str = Path("lakehouse")
    bars_per_chunk: int = Field(
        default=750_000, ge=1, description="bars computed or compared at a time: 1 GB of memory a million"
    )
    partitions_per_write: int = Field(
        default=250, ge=1, description="ticker-years written to Parquet at a time: 2 MB each"
    )
    retention_days: int = Field(
        default=365, ge=1, description="versions of Delta tables that are so old may be removed"
    )
    close_grace_minutes: int = Field(
        default=30, ge=0, description="a bar delivered before close plus this is provisional"
    )
    price_tolerance: float = Field(
        default=1e-4, ge=0, lt=1, description="how far, relative, open or close may leave low…high"
    )
    jump_deviations: float = Field(default=25.0, gt=0, description="a larger daily move is reported")
    adj_close_tolerance: float = Field(
        default=1e-3,
        gt=0,
        description="how far, relative, the delivered adj_close may be from the derived one before it is reported",
    )
    restated_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="share of a ticker's bars that its vendor may change in 30 days before it is reported",
    )
    simulated_clock: Path | None = Field(
        default=None, json_schema_extra={"variable_only": "is for one process and its children"}
    )

    @classmethod
    def of(cls, lake: LakeOptions | Path | str) -> LakeOptions:
        """`lake` as it is, or the defaults for a lake at that root: a folder, or s3://bucket/prefix."""
        return lake if isinstance(lake, LakeOptions) else cls(lake_root=lake)

    def as_json(self) -> dict[str, Any]:
        """As JSON holds them, for Dagster's config and a job's order. Without None, which Dagster's config refuses."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def calendar(self) -> MarketCalendar:
        """The sessions of the exchange, from `first_date` on or earlier."""
        from stock_lakehouse.market_calendar import market_calendar

        return market_calendar(self.first_date, self.exchange)

    @property
    def grace(self) -> timedelta:
        """How long after its session's close a bar becomes final."""
        return timedelta(minutes=self.close_grace_minutes)

    @field_validator("tickers", mode="before")
    @classmethod
    def _split_tickers(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("tickers")
    @classmethod
    def _check_tickers(cls, tickers: tuple[str, ...]) -> tuple[str, ...]:
        if not tickers:
            raise ValueError("at least one ticker is needed, like AAPL,NVDA")
        return check_tickers(tickers)

    @field_validator("exchange")
    @classmethod
    def _check_exchange(cls, name: str) -> str:
        return exchange_of(name)

    @field_validator("lake_root", mode="before")
    @classmethod
    def _check_lake_root(cls, value: Any) -> Any:
        if not isinstance(value, str) or "://" not in value:
            return Path(value)
        uri = value.rstrip("/")
        if not S3_URI.fullmatch(uri):
            raise ValueError(f"{value!r} is no place for a lake; allowed: a folder, or s3://bucket/prefix")
        return uri


def check_tickers(tickers: tuple[str, ...]) -> tuple[str, ...]:
    """`tickers` as they are. Raises ValueError for one that is not of the form `TICKER`, or given twice."""
    for ticker in tickers:
        if not TICKER.fullmatch(ticker):
            raise ValueError(f"{ticker!r} is not a ticker; allowed: ^{TICKER.pattern}$, like BRK-B")
    if len(set(tickers)) != len(tickers):
        raise ValueError("a ticker stands there twice")
    return tickers
