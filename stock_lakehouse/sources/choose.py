"""Building the source that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stock_lakehouse.clock import clock_of
from stock_lakehouse.exchanges import XNYS
from stock_lakehouse.settings import Settings
from stock_lakehouse.sources import Source

if TYPE_CHECKING:
    from stock_lakehouse.sources.csv_folder import CsvFolderSource


def source_of(settings: Settings) -> Source:
    """The source that `settings.source` names."""
    if settings.source == "csv":
        watched = settings.automation == "sensor"
        return csv_source(settings, settings.csv_stable_seconds if watched else 0)
    if settings.source == "yfinance":
        from stock_lakehouse.sources.yahoo import YahooSource

        return YahooSource(
            batch_size=settings.tickers_per_batch,
            requests_per_second=settings.requests_per_second,
            attempts=settings.request_attempts,
        )
    from stock_lakehouse.sources.sample import SampleSource

    return SampleSource()


def csv_source(settings: Settings, settle_seconds: int = 0) -> CsvFolderSource:
    """The folder of CSV files that the settings name, with the settings' rules for reading them."""
    from stock_lakehouse.sources.csv_folder import CsvFolderSource
    from stock_lakehouse.sources.csv_rows import CsvRules
    from stock_lakehouse.sources.dates import DateRules

    assert settings.csv_folder is not None  # the settings reject source = "csv" without a folder
    calendar = settings.calendar
    rules = CsvRules(
        prices=settings.csv_prices,
        adjusted_to=settings.csv_adjusted_to,
        decimal=settings.csv_decimal,
        dates=DateRules(settings.csv_dates, calendar.time_zone, settings.csv_time_zone, calendar.weekdays),
        price_tolerance=settings.price_tolerance,
        country="US" if settings.exchange == XNYS else None,
        calendar=calendar,
        now=clock_of(settings.simulated_clock),
    )
    return CsvFolderSource(settings.csv_folder, settle_seconds, known=settings.tickers, rules=rules)
