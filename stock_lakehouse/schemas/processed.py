"""Processed bars (typed, possible, the newest of their key) and the quarantine of the rest."""

from stock_lakehouse.schemas import SESSION_DATE, TICKER, YEAR, Column, raw

COLUMNS = (
    TICKER,
    SESSION_DATE,
    Column(
        "open",
        "double",
        "First price of the session, in the ticker's currency, adjusted for the splits up to adjusted_to",
        nullable=False,
        above=0,
    ),
    Column("high", "double", "Highest price", nullable=False, above=0),
    Column("low", "double", "Lowest price", nullable=False, above=0),
    Column("close", "double", "Last price", nullable=False, above=0),
    Column("adj_close", "double", "Close adjusted for splits and dividends; null where not delivered", above=0),
    Column("volume", "bigint", "Shares traded, adjusted for splits", nullable=False, minimum=0),
    Column("dividend", "double", "Dividend a share that goes ex on the session, 0 if none was delivered", False, 0),
    Column(
        "split_ratio",
        "double",
        "New shares for one old share on the session, 1 if no split was delivered",
        False,
        above=0,
    ),
    Column("actions_delivered", "boolean", "Whether the delivery said which dividend and split the session has", False),
    Column("source", "string", "Which source delivered the bar", nullable=False),
    Column("ingested_at", "timestamp", "When the bar landed in raw, UTC", nullable=False),
    Column("adjusted_to", "date", "Day up to whose splits the delivery's prices and dividend are adjusted"),
    Column(
        "first_delivered_at",
        "timestamp",
        "When a valid delivery of the bar first landed, UTC; like the next two, null without a dividend or split",
    ),
    Column("dividend_first_seen", "timestamp", "When one with this dividend first landed, UTC"),
    Column("split_first_seen", "timestamp", "When one with this split first landed, UTC"),
    YEAR,
)

QUARANTINE_COLUMNS = (
    Column(
        "ticker", "string", "Ticker asked for, or the file's; __unreadable__ where none could be read", nullable=False
    ),
    *raw.DELIVERED,
    *raw.PROVENANCE,
    raw.CAPITAL_GAINS,
    *raw.READING,
    Column("reasons", "array<string>", "Everything that is wrong with the row", nullable=False),
    Column("year", "string", "Year of the date; __unreadable__ where no date could be read", nullable=False),
)
