"""Processed bars (typed, valid, the newest of their key), the actions delivered with them, and the quarantine of invalid rows."""

from stock_lakehouse.schemas import SESSION_DATE, TICKER, YEAR, Column, raw

COLUMNS = (
    TICKER,
    SESSION_DATE,
    Column(
        "open",
        "double",
        "First price of the session, adjusted as `basis` says",
        above=0,
        unit="currency per share",
        null="unknown",
    ),
    Column("high", "double", "Highest price", above=0, unit="currency per share", null="unknown"),
    Column("low", "double", "Lowest price", above=0, unit="currency per share", null="unknown"),
    Column("close", "double", "Last price", nullable=False, above=0, unit="currency per share"),
    Column(
        "adj_close",
        "double",
        "Close adjusted for splits and dividends",
        above=0,
        unit="currency per share",
        null="not delivered",
    ),
    Column("volume", "bigint", "Shares traded", minimum=0, unit="shares", null="unknown"),
    Column(
        "dividends_delivered", "boolean", "Whether the delivery says which dividend the session has", nullable=False
    ),
    Column("basis", "string", "What the prices are adjusted for", nullable=False),
    Column("source", "string", "Which source delivered the bar", nullable=False),
    Column("ingested_at", "timestamp", "When the bar landed in raw", nullable=False, unit="UTC"),
    Column(
        "adjusted_to",
        "date",
        "Day up to whose splits the delivery's prices are adjusted",
        null="the day on which it landed",
    ),
    Column(
        "adj_close_as_of",
        "date",
        "Day up to whose splits and dividends the delivery's adj_close is adjusted",
        null="the day in adjusted_to",
    ),
    YEAR,
)

DIVIDEND, CAPITAL_GAIN, SPLIT = "dividend", "capital gain", "split"
KINDS = (DIVIDEND, CAPITAL_GAIN, SPLIT)

ACTION_COLUMNS = (
    TICKER,
    Column("date", "date", "Day of the delivered row that names the action", nullable=False),
    Column(
        "session",
        "date",
        "Session from which the action counts: that day, or the next session if the day is not a session",
        nullable=False,
    ),
    Column("kind", "string", "dividend, capital gain or split", nullable=False, one_of=KINDS),
    Column(
        "value",
        "double",
        "Split: new shares for one old share, or 1 if the delivery says that there is none. Otherwise: currency a share, or 0",
        nullable=False,
        minimum=0,
        unit="ratio, or currency per share",
    ),
    Column(
        "first_seen",
        "timestamp",
        "When the first delivery with this value landed; it holds until the next line of the action",
        nullable=False,
        unit="UTC",
    ),
    Column(
        "adjusted_to",
        "date",
        "Day up to whose splits the delivery's dividend is adjusted",
        null="the day on which it landed",
    ),
    YEAR,
)

QUARANTINE_COLUMNS = (
    Column(
        "ticker",
        "string",
        "Requested ticker, or the file's; __unreadable__ where none could be read",
        nullable=False,
    ),
    *raw.DELIVERED,
    *raw.PROVENANCE,
    raw.CAPITAL_GAINS,
    *raw.READING,
    Column("reasons", "array<string>", "All reasons why the row is invalid", nullable=False),
    Column("year", "string", "Year of the date; __unreadable__ where no date could be read", nullable=False),
)
