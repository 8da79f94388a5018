"""Which rows SPICE must read again: nothing, the newest ones, or all.

Here: digests of what the lake holds, and the decision. Not here: starting a refresh and waiting for it (provisioning.py).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Literal

from stock_lakehouse.dashboards.quicksight.data_sets import report_columns
from stock_lakehouse.lake.serving import SERVED
from stock_lakehouse.tables import BY_NAME, QUARANTINE, RESTATEMENTS, Table

if TYPE_CHECKING:
    from stock_lakehouse.dashboards.view import View

RefreshType = Literal["FULL_REFRESH", "INCREMENTAL_REFRESH"]
DIGEST_LENGTH = 24
KEY = ("ticker", "date")
TAG = re.compile(r"([0-9a-f]+) (\d{4}-\d{2}-\d{2}) ([0-9a-f]+)")


@dataclass(frozen=True)
class Loaded:
    """What a data set has in SPICE.

    - content: digest of all that it was loaded from
    - settled: a day inside the lookback window of that refresh
    - before: digest of the rows before that day
    """

    content: str
    settled: date
    before: str

    @property
    def tag(self) -> str:
        """As the value of a tag of the data set."""
        return f"{self.content} {self.settled} {self.before}"

    @classmethod
    def of_tag(cls, text: str | None) -> Loaded | None:
        """What a tag says; None if there is none that can be read."""
        found = TAG.fullmatch(text or "")
        return cls(found[1], date.fromisoformat(found[2]), found[3]) if found else None


@dataclass(frozen=True)
class Refresh:
    """A refresh that is needed, and the reason of its type."""

    type: RefreshType
    reason: str


class LakeState:
    """What the data sets are loaded from, at one moment. `view`: the present one."""

    def __init__(self, view: View) -> None:
        self.view = view

    @cached_property
    def bars(self) -> str:
        """A digest that changes when bars or features change; also when their files are only compacted."""
        return _digest([[name, sorted(years.items())] for name, years in sorted(self._years.items())])

    @cached_property
    def quality(self) -> str:
        """A digest that changes when bars, features, the quarantine or the ledger change."""
        lake = self.view.lake
        files = sorted(file.identity for file in lake.parquet[QUARANTINE.name].files())
        ledger = lake.delta[RESTATEMENTS.name]
        version = ledger.snapshot().version() if ledger.exists() else None
        return _digest([self.bars, files, version])

    def before(self, day: date) -> str:
        """A digest of all rows before `day`: of whole years their files, of the year of `day` the rows."""
        years = {
            name: {year: path for year, path in of_table.items() if year < day.year}
            for name, of_table in self._years.items()
        }
        rows = [self._rows_before(table, day) for table in SERVED]
        return _digest([sorted((name, sorted(of_table.items())) for name, of_table in years.items()), rows])

    @cached_property
    def _years(self) -> dict[str, dict[int, str]]:
        """By table and year, the path of the file of the serving copy, which names its content. It need not be there."""
        return {
            name: {}
            if opened is None
            else {year.year: year.path for year in self.view.serving.served(BY_NAME[name], opened)}
            for name, opened in self.view.opened.items()
        }

    def _rows_before(self, table: Table, day: date) -> str:
        import pyarrow.compute as pc
        from pyarrow import csv

        rows = self.view.rows(table, _columns()[table.name], [day.year]).filter(pc.field("date") < day)
        sink = _Hash()
        csv.write_csv(rows.sort_by([(name, "ascending") for name in KEY]), sink)
        return sink.digest.hexdigest()


def needed(loaded: Loaded | None, content: str, state: LakeState, now: datetime, lookback_days: int) -> Refresh | None:
    """The refresh that brings SPICE to `content`; None if it has that.

    An incremental refresh reads the rows of the lookback window again, which ends now. It is enough if no row before
    `loaded.settled` has changed and that day lies in the window.
    """
    if loaded is None:
        return Refresh("FULL_REFRESH", "nothing is known to be loaded")
    if loaded.content == content:
        return None
    if loaded.settled < window_start(now, lookback_days):
        return Refresh("FULL_REFRESH", f"the last refresh was more than {lookback_days // 2} days ago")
    if state.before(loaded.settled) != loaded.before:
        return Refresh("FULL_REFRESH", f"rows before {loaded.settled} have changed")
    return Refresh("INCREMENTAL_REFRESH", f"only rows from {loaded.settled} on have changed")


def window_start(now: datetime, lookback_days: int) -> date:
    """The first whole day in the lookback window of a refresh that starts at `now`, UTC."""
    return (now - timedelta(days=lookback_days)).date() + timedelta(days=1)


def loaded_now(content: str, state: LakeState, now: datetime, lookback_days: int) -> Loaded:
    """What a refresh that starts at `now` loads.

    The settled day is in the middle of the window, so that it is still in that of the next refresh.
    """
    settled = now.date() - timedelta(days=lookback_days // 2)
    return Loaded(content, settled, state.before(settled))


@cache
def _columns() -> dict[str, list[str]]:
    """The columns of bars and of features that the data set `daily` is made of."""
    origins = {origin for column in report_columns() for origin in column.origin}
    found = {table.name: {*KEY} for table in SERVED}
    for table, name in origins:
        found[table].add(name)
    return {name: sorted(columns) for name, columns in found.items()}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()[:DIGEST_LENGTH]


class _Hash(io.RawIOBase):
    """A file that keeps nothing of what is written but its SHA-256."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return len(data)
