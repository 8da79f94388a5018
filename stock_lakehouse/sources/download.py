"""A download: all deliveries of one request, with its failures, a report of each file and what happened to the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

from stock_lakehouse.sources import Delivery, DeliveryFailure, Landing, Source, SourceError
from stock_lakehouse.sources.file_report import FileReport, collect


class Download:
    """All deliveries of one request, to be iterated once.

    - `known`: the tickers of the settings. A run may request only some of them; a file of the others is not useless.
    - `failed`: the failure of each ticker that could not be delivered.
    - `files`: the report of each file, by name.
    - `landing`: what the raw layer did with the rows.

    Iterating raises SourceError at the end if every ticker failed.
    """

    def __init__(
        self, source: Source, tickers: Sequence[str], first: date, last: date, known: Sequence[str] = ()
    ) -> None:
        self.source = source
        self.tickers = tuple(tickers)
        self.first = first
        self.last = last
        self.known = tuple(dict.fromkeys((*tickers, *known)))
        self.failed: dict[str, DeliveryFailure] = {}
        self.files: dict[str, FileReport] = {}
        self.landing = Landing()

    def __iter__(self) -> Iterator[Delivery]:
        requested, known = set(self.tickers), set(self.known)
        for delivery in self.source.deliver(self.tickers, self.first, self.last):
            self.failed.update(delivery.failed)
            collect(self.files, delivery, requested, known)
            yield delivery
        if self.failed and self.failed.keys() >= set(self.tickers):
            reasons = "; ".join(f"{ticker}: {self.failed[ticker].reason}" for ticker in sorted(self.failed)[:5])
            raise SourceError(f"{self.source.name} delivered none of {len(self.tickers)} tickers: {reasons}")
