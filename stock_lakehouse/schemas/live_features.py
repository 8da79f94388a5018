"""Live features: the columns of features for the running session, beside the bar that they are computed from."""

from dataclasses import replace

from stock_lakehouse.indicators.registry import INDICATORS, Indicator
from stock_lakehouse.schemas import Column, features

STATES = ("running", "closed", "doubtful")
UNKNOWN = "the bar is doubtful, or the indicator reads the volume of a session that still runs"


def columns_of(indicators: tuple[Indicator, ...]) -> tuple[Column, ...]:
    """The columns of live_features with `indicators`."""
    names = {indicator.name for indicator in indicators}
    of_features = tuple(
        replace(column, nullable=True, null=f"{column.null}; or {UNKNOWN}" if column.null else UNKNOWN)
        if column.name in names
        else column
        for column in features.columns_of(indicators)
    )
    return (*of_features, *BAR)


def price(name: str, description: str) -> Column:
    """A column with a price of the running day."""
    return Column(name, "double", description, nullable=False, above=0, unit="currency per share")


BAR = (
    price("open", "Open of the session's first minute"),
    price("high", "Highest price of its minutes so far"),
    price("low", "Lowest price of its minutes so far"),
    price("close", "Close of its newest minute"),
    Column("volume", "bigint", "Shares traded in its minutes so far", nullable=False, minimum=0, unit="shares"),
    Column("as_of", "timestamp", "Time of the newest event in it", nullable=False, unit="UTC"),
    Column(
        "bar_state",
        "string",
        "running: more minutes may come. closed: all minutes of the session are final. doubtful: the price is far from the close "
        "before, as after a split that was not delivered yet, or the history does not end with the session before; see `doubt`",
        nullable=False,
        one_of=STATES,
    ),
    Column("doubt", "string", "Why the bar is doubtful", null="it is not"),
)
COLUMNS = columns_of(INDICATORS)
