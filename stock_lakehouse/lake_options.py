"""The settings that decide what the lake holds and how it is written.

Here: the settings that `Lake`, Dagster's resource and a Databricks job share. `Settings` inherits them, so a new setting of the
lake needs only a field here and the code that acts on it. Not here: the other settings, lakehouse.toml and variables
(settings.py). A Databricks job imports this module, and its cluster does not have pydantic-settings.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stock_lakehouse.exchanges import XNYS, exchange_of

if TYPE_CHECKING:
    from stock_lakehouse.market_calendar import MarketCalendar

S3_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()=-]+)*")
# AWS keeps names with this prefix for examples, so no bucket has one.
EXAMPLE_BUCKET = "s3://amzn-s3-demo-"
TICKER = re.compile(r"\^?[A-Z0-9][A-Z0-9.^=-]{0,14}")


class LakeOptions(BaseModel):
    """The place of the lake, what it holds, and how it is written and checked. Immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tickers: tuple[str, ...] = Field(
        default=("AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA"),
        description=f"Tickers of the lake. Each matches `^{TICKER.pattern}$`, in any case. A ticker with the suffix of another "
        "exchange is refused. As a variable: separated by commas.",
    )
    exchange: str = Field(
        default=XNYS,
        description="Exchange whose sessions the lake has: a MIC, `24/7` (crypto) or `24/5` (currencies); "
        "see docs/settings.md#the-exchange.",
    )
    first_date: date = Field(default=date(2013, 1, 2), description="First day of the lake.")
    last_date: date | None = Field(
        default=None,
        description="Last day of the lake. None: the newest finished session, so the lake grows with every session; with the "
        "sample its last session.",
    )
    lake_root: Path | str = Field(default=Path("lakehouse"), description="Folder of the lake, or `s3://bucket/prefix`.")
    layout: Literal["ticker_year", "year"] = Field(
        default="ticker_year",
        description="How the tables after raw are stored: `ticker_year`, files of one ticker and year; or `year`, files of all "
        "tickers of a year, sorted by ticker, for lakes of thousands of tickers. `stock-lakehouse layout` moves a lake to "
        "another value; see docs/operations.md#layout.",
    )
    indicators: Path | None = Field(
        default=None,
        description="Python file with indicators of your own, which become columns of `stocks_features`; see "
        "docs/python.md#indicators-of-your-own.",
    )
    bars_per_chunk: int = Field(
        default=750_000,
        ge=1,
        description="Bars that are computed or compared at a time, however many tickers there are. A million bars need about "
        "1 GB of memory.",
    )
    retention_days: int = Field(
        default=365,
        ge=1,
        description="Days for which replaced versions of Delta tables are kept at least, so that `--as-of` can read them; see "
        "docs/operations.md#history-and-as-of.",
    )
    close_grace_minutes: int = Field(
        default=30,
        ge=0,
        description="Minutes after the close of a session. A bar that is delivered before they have passed is `provisional`.",
    )
    price_tolerance: float = Field(
        default=1e-4,
        ge=0,
        lt=1,
        description="How far open and close may lie outside low…high, as a share of the price: vendors round.",
    )
    jump_deviations: float = Field(
        default=25.0,
        gt=0,
        description="A daily move is reported when it is more than this number of standard deviations of the moves before it.",
    )
    adj_close_tolerance: float = Field(
        default=1e-3,
        gt=0,
        description="How far the delivered adj_close may be from the derived one, as a share of it, before it is reported.",
    )
    restated_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of a ticker's bars that its vendor may change or withdraw in 30 days before it is reported.",
    )
    simulated_clock: Path | None = Field(
        default=None,
        description='File that holds the time, for demonstrations. It is refused with `source = "yfinance"`.',
        json_schema_extra={"variable_only": "is for one process and its children"},
    )

    @classmethod
    def of(cls, lake: LakeOptions | Path | str) -> LakeOptions:
        """`lake` unchanged if it is a LakeOptions; else the default options for the lake root `lake`, a folder or an S3 URI."""
        return lake if isinstance(lake, LakeOptions) else cls(lake_root=lake)

    def as_json(self) -> dict[str, Any]:
        """The options as JSON, for Dagster's config and a Databricks job. Without None values, which Dagster's config refuses."""
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
        parts = [part for part in map(str.strip, value.split(",")) if part] if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            return parts
        return tuple(in_upper_case(part) if isinstance(part, str) else part for part in parts)

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
            raise ValueError(f"{value!r} cannot be the root of a lake; allowed: a folder, or s3://bucket/prefix")
        return uri


def in_upper_case(ticker: str) -> str:
    """A ticker as the lake spells it. Letters beyond ASCII stay: the upper case of ß is SS, another ticker."""
    return ticker.upper() if ticker.isascii() else ticker


def check_tickers(tickers: tuple[str, ...]) -> tuple[str, ...]:
    """`tickers` unchanged. Raises ValueError for a ticker that does not match `TICKER` or is listed twice."""
    for ticker in tickers:
        if not TICKER.fullmatch(ticker):
            raise ValueError(f"{ticker!r} is not a ticker; allowed: ^{TICKER.pattern}$, like BRK-B")
    if len(set(tickers)) != len(tickers):
        raise ValueError("a ticker is listed twice")
    return tickers
