"""One schema a table, in plain Python: everything that needs to know a column derives from these.

Here: what a column is. Not here: how a frame is held against its schema (audit.py) and where a table lies (tables.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column: its Spark SQL type, what it means, and what its values must satisfy.

    `minimum` and `maximum` are included bounds, `above` an excluded one; `one_of` lists the values allowed.
    """

    name: str
    type: str
    description: str
    nullable: bool = True
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    one_of: tuple[str, ...] | None = None


TICKER = Column("ticker", "string", "Ticker symbol, as the exchange writes it", nullable=False)
SESSION_DATE = Column("date", "date", "Session of the exchange", nullable=False)
YEAR = Column("year", "int", "Year of the session; partition", nullable=False)
PRICE_BASES = ("total_return", "total_return_delivered", "price_return")
PRICE_BASIS = Column(
    "price_basis",
    "string",
    "total_return: adj_close is derived from the splits and dividends. total_return_delivered: the delivery said nothing of "
    "dividends, so adj_close is the delivered one. price_return: nor did it give adj_close, so that is close adjusted for the "
    "dividends that are known of the ticker otherwise, often none. The other prices are always adjusted for splits",
    nullable=False,
    one_of=PRICE_BASES,
)
