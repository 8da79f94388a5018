"""What a job is asked to do, as plain values that cross to Databricks in Pipes' extras."""

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
    """Publish the table `name` for `sessions` (ISO dates) × `tickers`, in the Dagster run `run_id`, ordered at `now` (ISO time).

    `options`: the lake's, as `LakeOptions.as_json` gives them.
    """

    name: str
    sessions: list[str]
    tickers: list[str]
    run_id: str
    now: str
    options: dict[str, Any]

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
        """The time of Dagster's clock when the job was ordered: what it restates, it restates then."""
        return datetime.fromisoformat(self.now)
