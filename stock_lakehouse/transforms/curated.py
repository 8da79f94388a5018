"""From processed to curated bars: one named price basis, and whether the bar is final.

Pure Spark. Not here: which of the rows a run may publish.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stock_lakehouse.schemas import curated as schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def curated_bars(processed: DataFrame, sessions: DataFrame) -> DataFrame:
    """One curated bar for each processed bar, with the columns of the curated schema.

    `sessions` has `date` and `final_at`: a bar that landed before then is provisional. A bar delivered without adj_close
    gets its close, and the price basis says so.
    """
    from pyspark.sql import functions as F

    final_at = sessions.select("date", "final_at")
    return (
        processed.join(F.broadcast(final_at), "date", "left")
        .withColumn(
            "price_basis",
            F.when(F.col("adj_close").isNotNull(), "total_return").otherwise("price_return"),
        )
        .withColumn("adj_close", F.coalesce("adj_close", "close"))
        .withColumn(
            "bar_status",
            F.when(F.col("ingested_at") < F.col("final_at"), "provisional").otherwise("final"),
        )
        .select(*(one.name for one in schema.COLUMNS))
    )
