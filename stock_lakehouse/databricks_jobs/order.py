"""The order of a job, as plain values that reach Databricks in the extras of Dagster Pipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Any

from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.tables import BY_NAME, Table


@dataclass(frozen=True)
class Order:
    """An order to publish one table for sessions × tickers.

    `name`: the table.
    `sessions`: ISO dates.
    `tickers`: tickers of the rectangle.
    `run_id`: the Dagster run.
    `now`: ISO time of the order.
    `options`: the lake's options, in the form of `LakeOptions.as_json`.
    `own_source`: the text of the file of own indicators, which the job does not have.
    `serves`: whether the job writes the serving copy of the table.
    """

    name: str
    sessions: list[str]
    tickers: list[str]
    run_id: str
    now: str
    options: dict[str, Any]
    own_source: str | None = None
    serves: bool = True

    def extras(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, extras: Mapping[str, Any]) -> Order:
        return cls(**extras)

    @cached_property
    def lake_options(self) -> LakeOptions:
        return LakeOptions.model_validate(self.options)

    @property
    def table(self) -> Table:
        return BY_NAME[self.name]

    @property
    def rectangle(self) -> Rectangle:
        return Rectangle(tuple(map(date.fromisoformat, self.sessions)), tuple(self.tickers), self.lake_options.exchange)

    @property
    def ordered_at(self) -> datetime:
        """The time of Dagster's clock when the job was ordered; the ledger records it as the time of a restatement."""
        return datetime.fromisoformat(self.now)
