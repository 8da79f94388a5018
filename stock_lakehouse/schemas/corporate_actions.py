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
        unit="ratio, or currency per share",
    ),
    Column(
        "price_factor",
        "double",
        "Factor of earlier prices. Split: 1/value. Dividend: 1 - value/close of the bar before",
        above=0,
        unit="ratio",
        null="there is no earlier bar, or the dividend is not below its close",
    ),
    Column(
        "first_seen", "timestamp", "When the action first landed in raw with this value", nullable=False, unit="UTC"
    ),
    Column(
        "late",
        "boolean",
        "Whether an earlier delivery said that there is no such action, or gave another value: deliveries until then did not "
        "know the action",
        nullable=False,
    ),
)
