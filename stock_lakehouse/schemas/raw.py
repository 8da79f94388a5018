"""Raw bars: every column text, as delivered, plus where and when it came."""

from stock_lakehouse.schemas import Column

# The text that a source delivered; two deliveries of a bar are the same if all of these are.
DELIVERED = (
    Column("symbol", "string", "Ticker as the row itself gives it"),
    Column("date", "string", "Session, exchange-local"),
    Column("open", "string", "First price of the session, as delivered"),
    Column("high", "string", "Highest price, as delivered"),
    Column("low", "string", "Lowest price, as delivered"),
    Column("close", "string", "Last price, as delivered"),
    Column("adj_close", "string", "Close adjusted for splits and dividends, as delivered"),
    Column("volume", "string", "Shares traded, as delivered"),
    Column("dividends", "string", "Dividend a share that goes ex on the day, as delivered"),
    Column("stock_splits", "string", "Split ratio on the day (4.0: four for one), as delivered"),
    Column("line", "string", "The whole line, where it could not be split into columns"),
)
PROVENANCE = (
    Column("problem", "string", "Why the line could not be split, with file and line number"),
    Column("source", "string", "Which source delivered the row", nullable=False),
    Column("interval", "string", "Length of the bar, like 1d", nullable=False),
    Column("ingested_at", "string", "When it landed, UTC; later for a newer delivery of the same bar", nullable=False),
    Column(
        "adjusted_to",
        "string",
        "Day up to whose splits the delivered prices are adjusted: the newest that the delivery has of the ticker",
    ),
)
PARTITION = (
    Column(
        "ticker", "string", "Ticker asked for, or the file's; __unreadable__ where none could be read", nullable=False
    ),
    Column("year", "string", "Year of the date; __unreadable__ where no date could be read", nullable=False),
)
COLUMNS = (*DELIVERED, *PROVENANCE, *PARTITION)
