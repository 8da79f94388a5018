"""Curated bars: the one bar of a ticker and session, on one named price basis."""

from stock_lakehouse.schemas import PRICE_BASIS, SESSION_DATE, TICKER, YEAR, Column

COLUMNS = (
    TICKER,
    SESSION_DATE,
    Column("open", "double", "First price of the session, adjusted for splits; null where not known", above=0),
    Column("high", "double", "Highest price, adjusted for splits; null where not known", above=0),
    Column("low", "double", "Lowest price, adjusted for splits; null where not known", above=0),
    Column("close", "double", "Last price, adjusted for splits", nullable=False, above=0),
    Column("adj_close", "double", "Close adjusted for splits and dividends; see price_basis", nullable=False, above=0),
    Column("volume", "bigint", "Shares traded, adjusted for splits; null where not known", minimum=0),
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
        "Product of the ratios of all later splits known now: prices times it are as traded, volume by it too",
        nullable=False,
        above=0,
    ),
    Column(
        "basis_factor",
        "double",
        "Product of the ratios of the splits that the delivery did not know: the delivered prices were divided by it",
        above=0,
    ),
    PRICE_BASIS,
    Column(
        "adj_close_deviation",
        "double",
        "Delivered adj_close over the one derived from the actions that the delivery knew, minus 1; null without either",
    ),
    Column(
        "bar_status",
        "string",
        "final, or provisional: delivered before the session's close plus a grace",
        nullable=False,
        one_of=("final", "provisional"),
    ),
    Column("ingested_at", "timestamp", "When the bar landed in raw, UTC", nullable=False),
    YEAR,
)
