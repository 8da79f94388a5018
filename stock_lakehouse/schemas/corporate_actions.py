"""Corporate actions: the splits and dividends that deliveries name, and the factor by which each multiplies earlier prices."""

from stock_lakehouse.schemas import TICKER, Column
from stock_lakehouse.schemas.processed import KINDS

COLUMNS = (
    TICKER,
    Column("ex_date", "date", "First session that trades without the dividend, or after the split", nullable=False),
    Column("kind", "string", "split, dividend or capital gain", nullable=False, one_of=KINDS),
    Column(
        "value",
        "double",
        "Split: new shares for one old share. Dividend: currency a share, adjusted for the splits known now",
        nullable=False,
        above=0,
    ),
    Column(
        "price_factor",
        "double",
        "Factor of earlier prices. Split: 1/value. Dividend: 1 - value/close of the bar before; null where there is no earlier "
        "bar, or where the dividend is not below that close",
        above=0,
    ),
    Column("first_seen", "timestamp", "When the action first landed in raw with this value, UTC", nullable=False),
    Column(
        "late",
        "boolean",
        "Whether an earlier delivery said that there is no such action, or gave another value: deliveries until then did not "
        "know the action",
        nullable=False,
    ),
)
