"""The same runs on embedded Sail and on JVM Spark, each alone and by turns on one lake, leave the same tables.

Equal is: every value bit for bit, every quarantined row and its reasons, every line of the ledger, every version of a table, what
each run says it did. Only the bytes of files differ.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.tables import CORPORATE_ACTIONS, CURATED, FEATURES, RESTATEMENTS, TABLES
from stock_lakehouse_tests.graph import (
    NOW,
    TICKERS,
    Bar,
    Clocked,
    clocked,
    contents,
    edited,
    history,
    layers,
    ledger,
    plain,
    raw_contents,
    rectangle,
    run,
    year_boundary,
)
from stock_lakehouse_tests.lake.test_schema_evolution import MORE, SMA_10, publish
from stock_lakehouse_tests.test_own_indicators import workers_cannot_import_the_file

pytestmark = pytest.mark.engines

Rows = list[dict[str, Any]]
DAYS = year_boundary(206, 6)
SPLIT, EX_DATE = DAYS[-3], DAYS[-2]
BARS = history(TICKERS, DAYS)
for ticker, session in BARS:
    if ticker == "CCC":  # whose vendor names what happens, and has adjusted nothing in advance
        BARS[ticker, session] |= {
            "dividends": "0.5" if session == EX_DATE else "0.0",
            "stock_splits": "3.0" if session == SPLIT else "0.0",
            "adjusted_to": session.isoformat(),
        }


@dataclass(frozen=True)
class Visit:
    """One run of the story: what the source delivers, and for which keys."""

    asked: Rectangle
    rows: tuple[Bar, ...]


def of_day(day: int) -> list[Bar]:
    return [BARS[ticker, DAYS[day]] for ticker in TICKERS]


def restated(ticker: str, day: int, **factors: float) -> Bar:
    """A bar again, its values times `factors`."""
    key = (ticker, DAYS[day])
    values: dict[str, str | None] = {}
    for name, factor in factors.items():
        value = float(BARS[key][name] or 0) * factor
        values[name] = str(int(value)) if name == "volume" else repr(value)
    return edited(BARS, key, **values)[key]


BAD: tuple[Bar, ...] = (
    {**BARS["AAA", DAYS[20]], "close": None, "volume": "1.5"},
    {**BARS["AAA", DAYS[29]], "high": "0.01"},
    {**BARS["BBB", DAYS[5]], "open": "n/a", "adj_close": 'a "quoted", word'},
    {**BARS["BBB", DAYS[6]], "open": "Infinity", "low": "-0", "symbol": "CCC"},
    {**BARS["CCC", DAYS[7]], "date": "2019-02-30", "close": "  "},
    {"ticker": None, "problem": "file.csv, line 7: 3 fields", "line": 'a,"b\nc\\'},
)

# A load, a day, a day with restatements and rows that cannot be, and a day that takes one of them back.
STORY = (
    Visit(rectangle(DAYS[:-3], TICKERS), (*(row for (_, day), row in BARS.items() if day in DAYS[:-3]), *BAD[:3])),
    Visit(rectangle([DAYS[-3]], TICKERS), tuple(of_day(-3))),
    Visit(
        rectangle([*DAYS[:30], *DAYS[-3:-1]], TICKERS),
        (
            *of_day(-2),
            restated("AAA", 7, close=1.002, high=1.01),
            restated("BBB", -3, volume=2, adj_close=0.99),
            *BAD,
        ),
    ),
    Visit(rectangle([DAYS[7], DAYS[-1]], TICKERS), (*of_day(-1), restated("AAA", 7))),
)


@dataclass
class Told:
    """A lake after the story: its tables, the versions of each, and what the runs said."""

    house: Clocked
    tables: dict[str, Rows]
    versions: dict[str, list[Rows]]
    said: list[dict[str, dict[str, Any]]]


def at(visit: int) -> datetime:
    return NOW + timedelta(days=visit)


def tell(root: Path, engines: Sequence[SparkSession]) -> Told:
    """The story on a lake at `root`, the runs taking turns on `engines`."""
    said = []
    for number, visit in enumerate(STORY):
        house = clocked(root, engines[number % len(engines)])
        house._at = at(number)
        said.append(run(house, visit.asked, visit.rows, f"{number:08}-run"))
    lake = house.lake
    tables = {
        **layers(house),
        "raw": raw_contents(lake),
        "ledger": without(ledger(house), "table_id"),
    }
    versions = {table.table.name: versions_of(table) for table in (lake.curated, lake.corporate_actions, lake.features)}
    return Told(house, tables, versions, said)


def versions_of(table: DeltaTable) -> list[Rows]:
    found = []
    for version in range((table.version() or 0) + 1):
        opened = table.open()
        opened.load_as_version(version)
        found.append(plain(opened.to_pyarrow_table()))
    return found


def without(rows: Iterable[dict[str, Any]], *names: str) -> Rows:
    return [{name: value for name, value in row.items() if name not in names} for row in rows]


def values_of(frame: DataFrame) -> Rows:
    return plain(frame.toArrow())


@pytest.fixture(scope="module")
def sail_lake(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Told:
    return tell(tmp_path_factory.mktemp("sail"), [spark])


@pytest.fixture(scope="module")
def jvm_lake(jvm: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Told:
    return tell(tmp_path_factory.mktemp("jvm_alone"), [jvm])


@pytest.fixture(scope="module")
def sail_first(spark: SparkSession, jvm: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Told:
    return tell(tmp_path_factory.mktemp("sail_first"), [spark, jvm])


@pytest.fixture(scope="module")
def jvm_first(spark: SparkSession, jvm: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Told:
    return tell(tmp_path_factory.mktemp("jvm_first"), [jvm, spark])


def check_equal(one: Told, other: Told) -> None:
    for name in one.tables:
        assert other.tables[name] == one.tables[name], name
    assert other.versions == one.versions
    for mine, theirs in zip(one.said, other.said, strict=True):
        for asset, facts in mine.items():
            assert comparable(theirs[asset]) == comparable(facts), asset


def comparable(facts: dict[str, Any]) -> dict[str, Any]:
    """What a step says, but where files lie and how big they are."""
    return {name: getattr(value, "md_str", value) for name, value in facts.items() if name not in ("bytes", "location")}


def test_the_story_fills_every_table(sail_lake: Told) -> None:
    tables = sail_lake.tables
    assert {line["table_name"] for line in tables["ledger"]} == {CURATED.name, FEATURES.name}
    assert {line["columns"] for line in tables["ledger"]} >= {"close", "high", "volume", "adj_close"}
    assert {line["cause"] for line in tables["ledger"]} >= {"split", "dividend", "vendor edit"}
    assert {row["kind"] for row in tables["corporate_actions"]} == {"split", "dividend"}
    assert len(tables["quarantine"]) == len(BAD)
    assert len(tables["features"]) == len(BARS)
    assert sum(row["sma_200"] is not None for row in tables["features"]) == 3 * (len(DAYS) - 199)
    assert len(sail_lake.versions[FEATURES.name]) == len(STORY) + 1


@pytest.mark.soak
def test_jvm_spark_leaves_the_same_lake_as_sail(sail_lake: Told, jvm_lake: Told) -> None:
    check_equal(sail_lake, jvm_lake)


@pytest.mark.parametrize("first", ["jvm_first", pytest.param("sail_first", marks=pytest.mark.soak)])
def test_a_lake_written_by_turns_is_the_same_lake(sail_lake: Told, first: str, request: pytest.FixtureRequest) -> None:
    check_equal(sail_lake, request.getfixturevalue(first))


def test_both_engines_read_the_same_rows_of_every_table(
    spark: SparkSession, jvm: SparkSession, jvm_first: Told
) -> None:
    lake = jvm_first.house.lake
    for table in TABLES:
        assert values_of(lake.read(table.name, jvm)) == values_of(lake.read(table.name, spark)), table.name


@pytest.mark.parametrize("table", [CURATED, CORPORATE_ACTIONS, FEATURES, RESTATEMENTS], ids=lambda table: table.name)
def test_both_engines_read_the_same_rows_of_every_version(
    spark: SparkSession, jvm: SparkSession, jvm_first: Told, table: Any
) -> None:
    stored = DeltaTable(jvm_first.house.lake.root, table)
    for version, rows in enumerate(versions_of(stored)):
        for engine in (spark, jvm):
            read = engine.read.format("delta").option("versionAsOf", version).load(str(stored.path))
            assert values_of(read) == rows


def test_a_new_indicator_fills_the_same_column_on_both_engines(
    spark: SparkSession, jvm: SparkSession, jvm_first: Told, tmp_path: Path
) -> None:
    held = []
    for name, engine, other in (("sail", spark, jvm), ("jvm", jvm, spark)):
        shutil.copytree(jvm_first.house.lake.root, tmp_path / name)
        house = clocked(tmp_path / name, engine)
        delta, published = publish(house, MORE, rectangle([DAYS[-1]], ["AAA"]))
        rows = contents(delta)
        assert sum(row["sma_10"] is not None for row in rows) == len(DAYS) - SMA_10.warm_up
        assert values_of(delta.read(other)) == rows
        held.append((rows, without(ledger(house), "table_id"), published))
    assert held[0] == held[1]


@pytest.mark.soak
def test_jvm_spark_leaves_the_same_files_as_sail(jvm_lake: Told) -> None:
    """One a ticker and year, nothing beside them, and statistics of nothing that JSON cannot hold exactly."""
    lake = jvm_lake.house.lake
    for parquet in (lake.processed, lake.quarantine):
        assert {path.name for path in parquet.root.rglob("*") if path.is_file()} == {"data.parquet"}
    for delta in (lake.curated, lake.features):
        adds = pa.table(delta.open().get_add_actions(flatten=True)).to_pylist()
        places = [(add["partition.ticker"], add["partition.year"]) for add in adds]
        assert sorted(places) == sorted((ticker, year) for ticker in TICKERS for year in (2019, 2020))
        assert {name for add in adds for name, value in add.items() if name.startswith("min.") and value is not None} <= {
            "min.date", "min.volume", "min.tradable_from"
        }  # fmt: skip


def test_a_run_repeated_on_the_other_engine_writes_nothing(jvm: SparkSession, sail_lake: Told) -> None:
    house = clocked(sail_lake.house.lake.root, jvm)
    house._at = at(len(STORY))
    versions = [table.version() for table in (house.lake.curated, house.lake.features, house.lake.ledger.stored)]
    said = run(house, rectangle(DAYS, TICKERS), run_id="99999999-run")
    assert {facts.get("ticker-years written", 0) for facts in said.values()} == {0}
    assert [
        table.version() for table in (house.lake.curated, house.lake.features, house.lake.ledger.stored)
    ] == versions


def test_own_indicators_are_computed_by_workers_that_lack_their_file(jvm: SparkSession, tmp_path: Path) -> None:
    workers_cannot_import_the_file(jvm, tmp_path)
