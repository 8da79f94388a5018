"""Minute bars: a bar for each ticker and minute in which a tick came."""

from stock_lakehouse.schemas import TICKER, Column
from stock_lakehouse.schemas.ticks import PRICE

STATES = ("open", "final", "amended")


def price(name: str, description: str) -> Column:
    """A column with a price as it was traded."""
    return Column(name, PRICE, description, nullable=False, above=0, unit="currency per share")


def count(name: str, description: str, minimum: int = 0) -> Column:
    """A column with a number of ticks."""
    return Column(name, "bigint", description, nullable=False, minimum=minimum, unit="ticks")


COLUMNS = (
    TICKER,
    Column("trade_date", "date", "Day of the minute in the time of the exchange; partition", nullable=False),
    Column("hour", "int", "Hour of the minute, UTC; partition", nullable=False, minimum=0, maximum=23),
    Column("minute", "timestamp", "Start of the minute", nullable=False, unit="UTC"),
    price("open", "Open of the minute's first event, by event time, then event_id"),
    price("high", "Highest price of the minute's events"),
    price("low", "Lowest price of the minute's events"),
    price("close", "Close of the minute's last event, by event time, then event_id"),
    price("latest_close", "Close of the event that arrived last"),
    Column("volume", "bigint", "Shares traded in the minute", nullable=False, minimum=0, unit="shares"),
    Column(
        "vwap",
        "double",
        "Mean of the closes, weighted by volume",
        above=0,
        unit="currency per share",
        null="no event of the minute has a volume",
    ),
    Column("avg_close", "double", "Mean of the events' closes", nullable=False, above=0, unit="currency per share"),
    count("events", "Events of the minute, each counted once", 1),
    count("duplicates", "Ticks that repeat an event of the minute"),
    count("late_events", "Events that came late"),
    Column("first_event", "timestamp", "Time of the first event", nullable=False, unit="UTC"),
    Column("last_event", "timestamp", "Time of the last event", nullable=False, unit="UTC"),
    Column("quote_date", "date", "Session that the last event names", null="it names none"),
    Column("is_replay", "boolean", "Whether any of the ticks repeats the past", nullable=False),
    Column(
        "state",
        "string",
        "open: more events may come. final: every partition that is not idle has been seen past the minute's end by "
        "`late_seconds`. amended: final, with late events in it",
        nullable=False,
        one_of=STATES,
    ),
)
