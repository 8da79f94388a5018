"""Ticks: every message of a stream with its position, typed, or with the reason why it is a dead letter."""

from stock_lakehouse.schemas import Column

PRICE = "decimal(18,6)"  # sums of decimals do not depend on their order, so two engines agree to the bit
# In the order in which they are looked for: a message has the first that applies.
REASONS = (
    "not UTF-8",
    "not JSON",
    "bad ticker",
    "bad timestamp",
    "from the future",
    "before the first day",
    "too old",
    "bad price",
    "impossible prices",
    "bad volume",
)
DEAD = "the message is a dead letter"


def price(name: str, description: str) -> Column:
    """A column with a price as it was traded, null in a dead letter."""
    return Column(name, PRICE, description, above=0, unit="currency per share", null=DEAD)


COLUMNS = (
    Column("source", "string", "The stream, like files:stock_ticks", nullable=False),
    Column("partition", "string", "Partition of the stream: of files, the file and its first line", nullable=False),
    Column(
        "offset",
        "string",
        "Position in the partition, with leading zeros, so that text sorts: of files, the byte at which the line begins",
        nullable=False,
    ),
    Column("arrival_time", "timestamp", "When the message arrived: of files, when it was read", False, unit="UTC"),
    Column("value", "binary", "The message as it came", nullable=False),
    Column("ticker", "string", "Ticker symbol", null=DEAD),
    Column("event_time", "timestamp", "When the event happened, as the message says", unit="UTC", null=DEAD),
    Column(
        "event_id",
        "string",
        "Identity of the event, as the message says, or else the SHA-256 of the message: what a producer sends twice has one",
        nullable=False,
    ),
    Column(
        "quote_date",
        "date",
        "Session that the message names; in a replay it is not the day of the event",
        null="the message names none, or is a dead letter",
    ),
    price("open", "First price of the event; its close if the message says no other"),
    price("high", "Highest price of the event; its close if the message says no other"),
    price("low", "Lowest price of the event; its close if the message says no other"),
    price("close", "Price of the event, as traded"),
    Column(
        "volume",
        "bigint",
        "Shares traded in the event; 0 if the message says none",
        minimum=0,
        unit="shares",
        null=DEAD,
    ),
    Column("is_replay", "boolean", "Whether the message says that it repeats the past", nullable=False),
    Column(
        "reason",
        "string",
        "Why the message is a dead letter",
        one_of=REASONS,
        null="it is not: the message is a good tick",
    ),
    Column(
        "late",
        "boolean",
        "Whether the tick came late: its partition had been seen past it by more than `late_seconds`, or its minute was final",
        nullable=False,
    ),
    Column("minute", "timestamp", "Start of the minute of the event", unit="UTC", null=DEAD),
    Column(
        "trade_date",
        "date",
        "Day of the event, or of a dead letter's arrival, in the time of the exchange; partition",
        nullable=False,
    ),
    Column("batch", "bigint", "Batch that wrote the row: batches are numbered without gaps", nullable=False, minimum=1),
)
