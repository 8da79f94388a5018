"""The sample that ships with the package: six tickers, 2013-01-02 to 2023-09-21 (see sample_data/ATTRIBUTION.md)."""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from stock_lakehouse.sources import SPLIT_ADJUSTED, Delivery, DeliveryFailure, FailureKind, delivered_table
from stock_lakehouse.sources.csv_folder import deliveries_of
from stock_lakehouse.sources.csv_rows import CsvRules
from stock_lakehouse.sources.sample_data import SAMPLE_LAST
from stock_lakehouse.sources.tickers import Tickers

if TYPE_CHECKING:
    import pyarrow as pa

TICKERS = ("AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA")
FILE = "stocks_daily.csv.gz"
ACTIONS = "actions.csv"
LAST_SESSIONS = "last_sessions.csv"
RULES = CsvRules(prices=SPLIT_ADJUSTED, adjusted_to=SAMPLE_LAST)
CORRECTED = ("NVDA", date(2023, 9, 20))


@dataclass(frozen=True)
class SampleSource:
    """Real bars with their splits and dividends, offline. Tickers other than TICKERS fail, with that reason.

    `before_correction`: the sample as a careless vendor might have delivered it first: its last two sessions
    are those of the file LAST_SESSIONS, in which the close of CORRECTED is mistyped and some rows cannot be.
    """

    before_correction: bool = False
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
        if self.before_correction:
            careless = io.TextIOWrapper(io.BytesIO(_text_of(LAST_SESSIONS).encode()), "utf-8", newline="")
            for delivery in deliveries_of(careless, LAST_SESSIONS, RULES, Tickers(tickers)):
                yield Delivery(_with_actions(delivery.rows))
            last = min(last, CORRECTED[1] - timedelta(days=1))
        packed = resources.files("stock_lakehouse.sources") / "sample_data" / FILE
        with packed.open("rb") as file, gzip.GzipFile(fileobj=file) as unpacked:
            text = io.TextIOWrapper(unpacked, "utf-8", newline="")
            for delivery in deliveries_of(text, FILE, RULES, Tickers(tickers)):
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
                yield Delivery(_with_actions(inside))
        yield Delivery(delivered_table({}), failed)


def _with_actions(rows: pa.Table) -> pa.Table:
    """`rows` with the dividend and the split of each, as a vendor of split-adjusted prices names them."""
    import pyarrow as pa

    keys = list(zip(rows["ticker"].to_pylist(), rows["date"].to_pylist(), strict=True))
    columns = {
        "dividends": [_amounts().get(key, "0.0") for key in keys],
        "stock_splits": [_ratios().get(key, "0.0") for key in keys],
        "says": ["dividends,splits"] * len(keys),
    }
    for name, texts in columns.items():
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(texts, pa.string()))
    return rows


@cache
def _actions() -> list[dict[str, str]]:
    return list(csv.DictReader(_text_of(ACTIONS).splitlines()))


def _text_of(name: str) -> str:
    return (resources.files("stock_lakehouse.sources") / "sample_data" / name).read_text("utf-8")


@cache
def _ratios() -> dict[tuple[str, str], str]:
    """New shares for one, by ticker and ex-date."""
    return {(line["ticker"], line["ex_date"]): line["value"] for line in _actions() if line["kind"] == "split"}


@cache
def _amounts() -> dict[tuple[str, str], str]:
    """Dividends by ticker and ex-date, for a share of today: divided by the splits since then."""
    amounts = {}
    for line in _actions():
        if line["kind"] == "dividend":
            key = (line["ticker"], line["ex_date"])
            later = [float(ratio) for (name, day), ratio in _ratios().items() if name == key[0] and day > key[1]]
            amounts[key] = repr(float(line["value"]) / math.prod(later))
    return amounts
