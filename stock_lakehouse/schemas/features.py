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
                unit=indicator.unit,
                null="" if indicator.type == "boolean" else _null_of(indicator),
            )
            for indicator in indicators
        ),
        Column(
            "tradable_from",
            "date",
            "First session on which a signal of this session can be traded",
            null="the calendar ends with this session",
        ),
        PRICE_BASIS,
        Column("indicator_spec", "string", "Version of the formulas and parameters", nullable=False),
        YEAR,
    )


def _null_of(indicator: Indicator) -> str:
    unknown = "a price, volume or action that it is computed from is unknown"
    return f"the first {indicator.warm_up} sessions of a ticker; or {unknown}" if indicator.warm_up else unknown


COLUMNS = columns_of(INDICATORS)
