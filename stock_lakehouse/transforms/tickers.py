"""Groups of tickers: how a kernel in Python gets the rows of several tickers at once.

A call of a kernel, and each of its operations on Arrow tables, costs milliseconds, however few the rows. With a call per ticker,
500 tickers cost more than all arithmetic on their bars. Not here: the kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, GroupedData

GROUPS = 16  # a power of two


def in_groups(frame: DataFrame) -> GroupedData:
    """The rows of `frame` in at most GROUPS groups; all rows of a ticker are in one of them."""
    from pyspark.sql import functions as F

    # Not xxhash64: Sail panics where it hashes a partition column of a Delta table, which is an array of one value.
    return frame.groupBy(F.hash("ticker").bitwiseAND(GROUPS - 1).alias("group_of_tickers"))


def by_ticker_and_date(rows: pa.Table) -> tuple[pa.Table, list[int]]:
    """`rows` in the order of ticker and date, each column in one piece, and where the rows of each ticker begin, and the end.

    Rows of the same ticker and date keep their order.
    """
    import numpy as np
    import pyarrow as pa

    codes = rows["ticker"].combine_chunks().dictionary_encode().indices.to_numpy()
    day = rows["date"].cast(pa.int32()).to_numpy()
    order = np.lexsort((day, codes))
    in_order = bool((order[1:] > order[:-1]).all())
    ordered = (rows if in_order else rows.take(order)).combine_chunks()
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    return ordered, [*starts.tolist(), len(order)]
