"""Features: the indicators of a ticker and session, from the registry, and the columns that identify them."""

from stock_lakehouse.indicators.registry import INDICATORS, Indicator
from stock_lakehouse.schemas import PRICE_BASIS, SESSION_DATE, TICKER, YEAR, Column


def columns_of(indicators: tuple[Indicator, ...]) -> tuple[Column, ...]:
    """The columns of features with `indicators`."""
    return (
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
            for indicator in indicators
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


COLUMNS = columns_of(INDICATORS)
