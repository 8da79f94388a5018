"""Processed bars (typed, possible, the newest of their key) and the quarantine of the rest."""

from stock_lakehouse.schemas import SESSION_DATE, TICKER, YEAR, Column, raw

COLUMNS = (
    TICKER,
    SESSION_DATE,
    Column("open", "double", "First price of the session, in the ticker's currency", nullable=False, above=0),
    Column("high", "double", "Highest price", nullable=False, above=0),
    Column("low", "double", "Lowest price", nullable=False, above=0),
    Column("close", "double", "Last price, adjusted for splits", nullable=False, above=0),
    Column("adj_close", "double", "Close adjusted for splits and dividends; null where not delivered", above=0),
    Column("volume", "bigint", "Shares traded", nullable=False, minimum=0),
    Column("dividend", "double", "Dividend a share that goes ex on the session, 0 if none was delivered", False, 0),
    Column(
        "split_ratio",
        "double",
        "New shares for one old share on the session, 1 if no split was delivered",
        False,
        above=0,
    ),
    Column("source", "string", "Which source delivered the bar", nullable=False),
    Column("ingested_at", "timestamp", "When the bar landed in raw, UTC", nullable=False),
    YEAR,
)

QUARANTINE_COLUMNS = (
    Column(
        "ticker", "string", "Ticker asked for, or the file's; __unreadable__ where none could be read", nullable=False
    ),
    *raw.DELIVERED,
    *raw.PROVENANCE,
    Column("reasons", "array<string>", "Everything that is wrong with the row", nullable=False),
    Column("year", "string", "Year of the date; __unreadable__ where no date could be read", nullable=False),
)
