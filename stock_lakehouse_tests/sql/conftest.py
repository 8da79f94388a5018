"""Lakes that SQL is asked about: of odd tickers over three runs, each with a change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.lake import Lake
from stock_lakehouse.sql.choose import local_engine
from stock_lakehouse.sql.engine import QueryEngine
from stock_lakehouse_tests.graph import clocked, edited, history, rectangle, run, sessions_of

# Names of folders that differ from the ticker in some engine, and a point, a hyphen.
ODD = ("BAC^B", "BF.B", "BRK-B", "C=F")
OLD = sessions_of(date(2019, 1, 2), date(2019, 12, 31))
NEW = sessions_of(date(2020, 1, 1), date(2020, 3, 31))
RESTATED = ("BF.B", OLD[100])
SPIKES = (("BRK-B", OLD[60]), ("C=F", NEW[5]))
REFUSED = ("BRK-B", OLD[70])  # its high is below its low


@dataclass(frozen=True)
class OddLake:
    """The lake, and the moment between its first and its second run."""

    root: Path
    before: datetime

    @property
    def lake(self) -> Lake:
        return Lake(self.root)

    @property
    def engine(self) -> QueryEngine:
        return local_engine(self.lake)


@pytest.fixture(scope="session")
def odd(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> OddLake:
    """A year of four tickers; then a restated bar; then a new year."""
    root = tmp_path_factory.mktemp("sql") / "lake"
    house = clocked(root, spark, ODD)
    bars = history(ODD, (*OLD, *NEW))
    for key in SPIKES:
        bars = edited(bars, key, volume="90000000000")
    bars = edited(bars, REFUSED, high="1", low="2")
    old = {key: bar for key, bar in bars.items() if key[1] <= OLD[-1]}
    run(house, rectangle(OLD, ODD), old.values(), "11111111-run")
    before = datetime.now(UTC)
    restated = edited(bars, RESTATED, close=bars[RESTATED]["open"])
    run(house, rectangle((RESTATED[1],), ODD), [restated[RESTATED]], "22222222-run")
    run(house, rectangle(NEW, ODD), [bar for key, bar in bars.items() if key[1] >= NEW[0]], "33333333-run")
    return OddLake(root, before)
