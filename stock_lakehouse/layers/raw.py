"""The step of raw: it lands the rows that a source delivers. It needs no engine.

Here: landing a download in batches of deliveries. Not here: which rows land (lake/landing.py), and the checks of a delivery
(checks/).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime
from typing import TYPE_CHECKING

from stock_lakehouse.lake.ahead import ahead
from stock_lakehouse.lake.raw_csv import Arrivals, RawCsv
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.sources import DeliveryFailure, FailureKind
from stock_lakehouse.sources.download import Download

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_A_LANDING = 100_000  # about 200 MB of memory
BYTES_A_LANDING = 50_000_000  # bounds the memory if rows are long


def land(
    download: Download,
    raw: RawCsv,
    asked: Rectangle,
    *,
    run_id: str,
    now: datetime,
    final_at: Callable[[date], datetime | None],
    say: Callable[[str], None],
) -> None:
    """Land the rows of `download` and record the result in it. `say` is called with a line for each landing.

    All rows get the same time `now`, because the rows of one download know the same splits. Raises SourceError if every ticker
    failed.
    """
    source = download.source
    arrivals = Arrivals(raw, asked, source.name, source.interval, run_id, now, final_at)
    total = download.landing

    def progress() -> None:
        say(f"{raw.table.name}: {total.delivered:,} rows delivered, {total.landed:,} landed")

    for rows in ahead(_in_landings(download)):  # the next one is read or downloaded while one lands
        total += arrivals.add(rows)
        progress()
    rest = arrivals.finish()
    if rest.delivered:
        total += rest
        progress()
    download.landing = total
    withheld = total.unknown.items()
    download.failed.update({ticker: DeliveryFailure(FailureKind.WITHHELD, reason) for ticker, reason in withheld})


def _in_landings(download: Download) -> Iterator[pa.Table]:
    """The delivered rows, joined into landings of about ROWS_A_LANDING rows or BYTES_A_LANDING bytes."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    rows = size = 0
    for delivery in download:
        if delivery.rows.num_rows:
            waiting.append(delivery.rows)
            rows += delivery.rows.num_rows
            size += delivery.rows.nbytes
        if rows >= ROWS_A_LANDING or size >= BYTES_A_LANDING:
            yield pa.concat_tables(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.concat_tables(waiting)
