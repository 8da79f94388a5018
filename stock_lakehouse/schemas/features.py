"""Features: the indicators of a ticker and session, from the registry, and the columns that identify them."""

from stock_lakehouse.indicators.registry import INDICATORS
from stock_lakehouse.schemas import PRICE_BASIS, SESSION_DATE, TICKER, YEAR, Column

COLUMNS = (
    TICKER,
    SESSION_DATE,
    *(
        Column(
            indicator.name,
            indicator.type,
            indicator.description,
            indicator.type != "boolean",
            indicator.minimum,
            indicator.maximum,
        )
        for indicator in INDICATORS
    ),
    Column(
        "tradable_from",
        "date",
        "First session on which a signal of this session can be traded; null at the calendar's end",
    ),
    PRICE_BASIS,
    Column("indicator_spec", "string", "Version of the formulas and parameters", nullable=False),
    YEAR,
)
