"""Corporate actions: the splits and dividends that deliveries name, and what each multiplies earlier prices by."""

from stock_lakehouse.schemas import TICKER, Column
from stock_lakehouse.schemas.processed import KINDS

COLUMNS = (
    TICKER,
    Column("ex_date", "date", "First session that trades without the dividend, or split", nullable=False),
    Column("kind", "string", "split, dividend or capital gain", nullable=False, one_of=KINDS),
    Column(
        "value",
        "double",
        "Of a split: new shares for one old share. Of a dividend: currency a share, adjusted for the splits known now",
        nullable=False,
        above=0,
    ),
    Column(
        "price_factor",
        "double",
        "What it multiplies earlier prices by: 1/value of a split, 1 - value/close of the bar before of a dividend; null "
        "where there is no earlier bar, or the dividend is not below that close",
        above=0,
    ),
    Column("first_seen", "timestamp", "When it first landed in raw with this value, UTC", nullable=False),
    Column(
        "late",
        "boolean",
        "Whether a delivery had said before that there is none, or another: those until then did not know it",
        nullable=False,
    ),
)
