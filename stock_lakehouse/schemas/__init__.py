"""One schema a table, in plain Python: everything that depends on a column is derived from it.

Here: what a column is. Not here: how a frame is validated against its schema (audit.py) and where a table is stored (tables.py).
"""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_COMMENT = 255  # characters of a column's comment in AWS Glue


@dataclass(frozen=True)
class Column:
    """A column of a table.

    - `type`: the Spark SQL type.
    - `description`: what the values mean.
    - `minimum`, `maximum`: inclusive bounds.
    - `above`: an exclusive lower bound.
    - `one_of`: the allowed values.
    - `unit`: the unit of the values; empty for values without one.
    - `null`: what a null means; empty for a column without nulls.
    """

    name: str
    type: str
    description: str
    nullable: bool = True
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    one_of: tuple[str, ...] | None = None
    unit: str = ""
    null: str = ""

    @property
    def documentation(self) -> str:
        """The description with the unit and the meaning of a null, as text."""
        unit = f"; {self.unit}" if self.unit else ""
        return f"{self.description}{unit}" + (f". Null: {self.null}" if self.null else "")

    @property
    def comment(self) -> str:
        """The documentation as a catalog has it: cut between words to LONGEST_COMMENT characters."""
        text = self.documentation
        return text if len(text) <= LONGEST_COMMENT else text[: LONGEST_COMMENT - 1].rpartition(" ")[0] + "…"


TICKER = Column("ticker", "string", "Ticker symbol, as the exchange writes it", nullable=False)
SESSION_DATE = Column("date", "date", "Session of the exchange", nullable=False)
YEAR = Column("year", "int", "Year of the session; partition", nullable=False)
PRICE_BASES = ("total_return", "total_return_delivered", "price_return")
PRICE_BASIS = Column(
    "price_basis",
    "string",
    "total_return: adj_close is derived from the splits and dividends. total_return_delivered: the delivery says nothing about "
    "dividends, so adj_close is the delivered one. price_return: the delivery has no adj_close either, so adj_close is close "
    "adjusted for the dividends that other deliveries name, often none. The other prices are always adjusted for splits",
    nullable=False,
    one_of=PRICE_BASES,
)
