"""The sample that ships with the package: six tickers, 2013-01-02 to 2023-09-21 (see sample_data/ATTRIBUTION.md)."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import resources

from stock_lakehouse.sources import SPLIT_ADJUSTED, Delivery, DeliveryFailure, FailureKind, delivered_table
from stock_lakehouse.sources.csv_folder import deliveries_of
from stock_lakehouse.sources.csv_rows import CsvRules
from stock_lakehouse.sources.tickers import Tickers

TICKERS = ("AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA")
FILE = "stocks_daily.csv.gz"
LAST = date(2023, 9, 21)  # the last session of every ticker


@dataclass(frozen=True)
class SampleSource:
    """Real bars, offline: what `make demo` loads. Tickers other than TICKERS fail, with that reason."""

    name: str = "sample"
    interval: str = "1d"

    def deliver(self, tickers: Sequence[str], first: date, last: date) -> Iterator[Delivery]:
        """Yield the sample's rows of the requested tickers and dates; see `Source`."""
        import pyarrow as pa
        import pyarrow.compute as pc

        reason = f"not in the sample, which has {', '.join(TICKERS)}"
        failed = {
            ticker: DeliveryFailure(FailureKind.UNKNOWN_TICKER, reason) for ticker in tickers if ticker not in TICKERS
        }
        packed = resources.files("stock_lakehouse.sources") / "sample_data" / FILE
        rules = CsvRules(prices=SPLIT_ADJUSTED, adjusted_to=LAST)
        with packed.open("rb") as file, gzip.GzipFile(fileobj=file) as unpacked:
            text = io.TextIOWrapper(unpacked, "utf-8", newline="")
            for delivery in deliveries_of(text, FILE, rules, Tickers(tickers)):
                rows = delivery.rows
                is_requested = pc.and_(
                    pc.is_in(rows["ticker"], value_set=pa.array(tickers, pa.string())),
                    pc.and_(
                        pc.greater_equal(rows["date"], first.isoformat()), pc.less_equal(rows["date"], last.isoformat())
                    ),
                )
                inside = rows.filter(is_requested)
                for name in ("file", "line_number"):  # the sample is not a file of the user
                    nulls = pa.nulls(inside.num_rows, pa.string())
                    inside = inside.set_column(inside.column_names.index(name), name, nulls)
                yield Delivery(inside)
        yield Delivery(delivered_table({}), failed)
