"""Curated bars: one bar for each ticker and session, on one named price basis."""

from stock_lakehouse.schemas import PRICE_BASIS, SESSION_DATE, TICKER, YEAR, Column

COLUMNS = (
    TICKER,
    SESSION_DATE,
    Column("open", "double", "First price of the session, adjusted for splits; null where unknown", above=0),
    Column("high", "double", "Highest price, adjusted for splits; null where unknown", above=0),
    Column("low", "double", "Lowest price, adjusted for splits; null where unknown", above=0),
    Column("close", "double", "Last price, adjusted for splits", nullable=False, above=0),
    Column("adj_close", "double", "Close adjusted for splits and dividends; see price_basis", nullable=False, above=0),
    Column("volume", "bigint", "Shares traded, adjusted for splits; null where unknown", minimum=0),
    Column(
        "dividend",
        "double",
        "Dividends and capital gains a share that went ex since the bar before, adjusted for splits",
        nullable=False,
        minimum=0,
    ),
    Column(
        "split_ratio",
        "double",
        "New shares for one old share since the bar before, 1 without a split",
        nullable=False,
        above=0,
    ),
    Column(
        "split_factor",
        "double",
        "Product of the ratios of all later splits known now. Prices times this factor, and volume divided by it, are as traded",
        nullable=False,
        above=0,
    ),
    Column(
        "basis_factor",
        "double",
        "Product of the ratios of the splits that the delivery did not know. The delivered prices were divided by this factor",
        above=0,
    ),
    PRICE_BASIS,
    Column(
        "adj_close_deviation",
        "double",
        "Delivered adj_close divided by the one derived from the actions that the delivery knew, minus 1; null without either",
    ),
    Column(
        "bar_status",
        "string",
        "provisional: delivered before the session's close plus the grace period; else final",
        nullable=False,
        one_of=("final", "provisional"),
    ),
    Column("ingested_at", "timestamp", "When the bar landed in raw, UTC", nullable=False),
    YEAR,
)
