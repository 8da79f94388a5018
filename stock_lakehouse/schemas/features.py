"""Features: the indicators of a ticker and session, from the registry, and what identifies them."""

from stock_lakehouse.indicators.registry import INDICATORS
from stock_lakehouse.schemas import PRICE_BASIS, SESSION_DATE, TICKER, YEAR, Column

COLUMNS = (
    TICKER,
    SESSION_DATE,
    *(
        Column(one.name, one.type, one.description, one.type != "boolean", one.minimum, one.maximum)
        for one in INDICATORS
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
