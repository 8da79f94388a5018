"""Which source the settings name."""

from __future__ import annotations

from stock_lakehouse.settings import Settings
from stock_lakehouse.sources import Source


def source_of(settings: Settings) -> Source:
    """The source of `settings.source`."""
    if settings.source == "csv":
        from stock_lakehouse.sources.csv_folder import CsvFolderSource

        assert settings.csv_folder is not None  # settings refuse source = "csv" without it
        watched = settings.automation == "sensor"
        return CsvFolderSource(
            settings.csv_folder,
            settings.csv_stable_seconds if watched else 0,
            as_traded=settings.csv_prices == "as_traded",
            known=settings.tickers,
        )
    if settings.source == "yfinance":
        from stock_lakehouse.sources.yahoo import YahooSource

        return YahooSource(
            batch_size=settings.tickers_per_batch,
            requests_per_second=settings.requests_per_second,
            attempts=settings.request_attempts,
        )
    from stock_lakehouse.sources.sample import SampleSource

    return SampleSource()
