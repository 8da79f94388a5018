"""A download: all deliveries of one request, with what failed, what each file gave and what became of the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

from stock_lakehouse.sources import Delivery, DeliveryFailure, Landing, Source, SourceError
from stock_lakehouse.sources.file_report import FileReport, collect


class Download:
    """All deliveries of one request, once; it remembers what failed, what each file gave, and what the raw layer made of them.

    `known` are the tickers of the settings, of which a run may ask for some: a file of the others is no useless one. Iterating
    raises SourceError at the end if every ticker failed.
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
        asked, known = set(self.tickers), set(self.known)
        for delivery in self.source.deliver(self.tickers, self.first, self.last):
            self.failed.update(delivery.failed)
            collect(self.files, delivery, asked, known)
            yield delivery
        if self.failed and self.failed.keys() >= set(self.tickers):
            reasons = "; ".join(f"{ticker}: {self.failed[ticker].reason}" for ticker in sorted(self.failed)[:5])
            raise SourceError(f"{self.source.name} delivered none of {len(self.tickers)} tickers: {reasons}")
