"""Raw bars: every column is text, as delivered, plus its source and time of landing."""

from stock_lakehouse.schemas import Column

NOT_DELIVERED = "not delivered"
# The text that a source delivered. Two deliveries of a bar are the same if all of these columns, and capital_gains, are the same.
DELIVERED = (
    Column("symbol", "string", "Ticker as the row itself gives it", null=NOT_DELIVERED),
    Column("date", "string", "Session, exchange-local", null=NOT_DELIVERED),
    Column("open", "string", "First price of the session, as delivered", null=NOT_DELIVERED),
    Column("high", "string", "Highest price, as delivered", null=NOT_DELIVERED),
    Column("low", "string", "Lowest price, as delivered", null=NOT_DELIVERED),
    Column("close", "string", "Last price, as delivered", null=NOT_DELIVERED),
    Column("adj_close", "string", "Close adjusted for splits and dividends, as delivered", null=NOT_DELIVERED),
    Column("volume", "string", "Shares traded, as delivered", null=NOT_DELIVERED),
    Column("dividends", "string", "Dividend a share that goes ex on the day, as delivered", null=NOT_DELIVERED),
    Column("stock_splits", "string", "Split ratio on the day (4.0: four for one), as delivered", null=NOT_DELIVERED),
    Column(
        "line", "string", "The whole line, where it could not be split into columns", null="the line could be split"
    ),
)
PROVENANCE = (
    Column(
        "problem", "string", "Why the row cannot be read as a whole, and what to change", null="the row can be read"
    ),
    Column("source", "string", "Which source delivered the row", nullable=False),
    Column("interval", "string", "Length of the bar, such as 1d", nullable=False),
    Column(
        "ingested_at",
        "string",
        "When the row landed, UTC; later for a newer delivery of the same bar",
        nullable=False,
    ),
    Column(
        "adjusted_to",
        "string",
        "Day up to whose splits the delivered prices are adjusted: the day of the delivery's newest bar of the ticker",
        null="unknown",
    ),
)
# Added later, and therefore last: older files of a lake have fewer columns, and CSV columns are read by position.
CAPITAL_GAINS = Column(
    "capital_gains", "string", "Distribution of capital gains a share, as delivered", null=NOT_DELIVERED
)
READING = (
    Column("file", "string", "Name of the file of the row", null="the source has no files"),
    Column("line_number", "string", "Line number of the row in its file, from 1", null="the source has no files"),
    Column(
        "session",
        "string",
        "Day (ISO) that the delivered date means, as its source read it",
        null="the date cannot be read, or the row landed before this column existed",
    ),
    Column("decimal", "string", "Decimal mark of the file's numbers where it is not a point", null="a point"),
    Column(
        "basis",
        "string",
        "What open to close are adjusted for: split_adjusted, as_traded, as_traded_adjusted_close or total_return",
        null="the row cannot be read; or it landed before this column existed, split_adjusted",
    ),
    Column(
        "adj_close_as_of",
        "string",
        "Day up to whose splits and dividends the delivered adj_close is adjusted",
        null="the day in adjusted_to",
    ),
    Column(
        "says",
        "string",
        "Actions that the delivery has a column for, separated by commas: dividends, splits. A blank cell in it means none",
        null="the delivery has no such column",
    ),
)
# The columns by which two deliveries of a bar are compared.
TEXT = (*DELIVERED, CAPITAL_GAINS)
PARTITION = (
    Column(
        "ticker",
        "string",
        "Requested ticker, or the file's; __unreadable__ where none could be read",
        nullable=False,
    ),
    Column("year", "string", "Year of the date; __unreadable__ where no date could be read", nullable=False),
)
COLUMNS = (*DELIVERED, *PROVENANCE, CAPITAL_GAINS, *READING, *PARTITION)
