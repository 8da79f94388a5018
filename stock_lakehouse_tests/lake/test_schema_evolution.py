"""A published features table meets a registry of indicators with one more, or one fewer."""

from __future__ import annotations

import dataclasses
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.indicators.registry import INDICATORS, Indicator, indicator_spec, moving_average
from stock_lakehouse.lake.delta_publish import publish as publish_delta
from stock_lakehouse.lake.delta_table import DeltaTable, SchemaEvolutionError
from stock_lakehouse.lake.publish import Published
from stock_lakehouse.layers.curated import OutdatedTableError
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.schemas import Column
from stock_lakehouse.tables import CURATED, FEATURES, PROCESSED, Table
from stock_lakehouse.transforms.features import features
from stock_lakehouse_tests.conftest import bytes_of
from stock_lakehouse_tests.graph import NOW, Clocked, clocked, contents, history, ledger, rectangle, run, year_boundary

DAYS = year_boundary(40, 20)
ONE_DAY = rectangle([DAYS[5]], ["AAA"])
SMA_10 = Indicator("sma_10", moving_average, {"source": "close", "window": 10}, 9, "Average close of 10 sessions", 0)
MORE = (*INDICATORS[:3], SMA_10, *INDICATORS[3:])


def table_of(indicators: tuple[Indicator, ...]) -> Table:
    """The features table that a registry of `indicators` describes."""
    kept = [one for one in FEATURES.columns if one.name not in {known.name for known in INDICATORS}]
    columns = [Column(one.name, one.type, one.description) for one in indicators]
    return dataclasses.replace(FEATURES, columns=(*kept[:2], *columns, *kept[2:]))


@pytest.fixture(scope="module")
def loaded(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("loaded") / "lake"
    bars = history(("AAA", "BBB"), DAYS)
    run(clocked(root, spark), rectangle(DAYS, ("AAA", "BBB")), bars.values())
    return root


@pytest.fixture
def house(loaded: Path, spark: SparkSession, tmp_path: Path) -> Clocked:
    shutil.copytree(loaded, tmp_path / "lake", copy_function=shutil.copy2)
    return clocked(tmp_path / "lake", spark)


def publish(
    house: Clocked, indicators: tuple[Indicator, ...], asked: Rectangle = ONE_DAY, run_id: str = "22222222-run"
) -> tuple[DeltaTable, Published]:
    """What a run for `asked` does to features when the registry is `indicators`."""
    lake = house.lake
    delta = DeltaTable(lake.root, table_of(indicators))
    bars = lake.curated.read(house.session, asked.tickers)
    computed = house.staging.stage(features(bars, house.sessions, indicators))
    return delta, publish_delta(
        delta, computed, asked, house.staging, lake.ledger, run_id=run_id, now=NOW + timedelta(days=1)
    )


def without(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in names} for row in rows]


def of(rows: list[dict[str, Any]], ticker: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["ticker"] == ticker]


def test_a_new_indicator_is_filled_for_all_history_by_a_run_for_one_session(house: Clocked, tmp_path: Path) -> None:
    before = contents(house.lake.features)
    delta, published = publish(house, MORE)
    after = contents(delta)

    fresh = clocked(tmp_path / "fresh", house.session)
    shutil.copytree(house.lake.root / CURATED.path, fresh.lake.root / CURATED.path)
    whole, _ = publish(fresh, MORE, rectangle(DAYS, ("AAA", "BBB")))
    assert of(after, "AAA") == of(contents(whole), "AAA")
    assert sum(row["sma_10"] is not None for row in of(after, "AAA")) == len(DAYS) - SMA_10.warm_up
    assert without(after, "sma_10", "indicator_spec") == without(before, "indicator_spec")
    assert {row["indicator_spec"] for row in of(after, "AAA")} == {indicator_spec(MORE)}
    # A ticker that no run has met since keeps its rows, in its old files: the new column is null there.
    assert without(of(after, "BBB"), "sma_10") == of(before, "BBB")
    assert {row["sma_10"] for row in of(after, "BBB")} == {None}
    assert (published.corrected, published.added, published.partitions) == (len(DAYS), 0, 2)
    assert {(line["ticker"], line["columns"], line["rows"]) for line in ledger(house)} == {
        ("AAA", "indicator_spec,sma_10", len(DAYS))
    }


def test_old_files_stay_readable_after_a_column_came(house: Clocked, spark: SparkSession) -> None:
    before = contents(house.lake.features)
    old_files = {path: stat for path, stat in bytes_of(house.lake.features.path).items() if "BBB" in path}
    delta = DeltaTable(house.lake.root, table_of(MORE))
    assert delta.read(spark).count() == len(before)  # before the column is there: null
    assert delta.read(spark).where("sma_10 is not null").count() == 0
    publish(house, MORE)
    read = delta.read(spark).orderBy("ticker", "date").toArrow().to_pylist()
    assert [row["ticker"] for row in read if row["sma_10"] is not None] == ["AAA"] * (len(DAYS) - SMA_10.warm_up)
    assert len(read) == len(before)
    assert old_files.items() <= bytes_of(delta.path).items()
    version = delta.version()
    _, again = publish(house, MORE)
    assert not again.changed
    assert delta.version() == version


def test_a_program_that_lacks_a_published_column_is_told_what_to_do(house: Clocked) -> None:
    before, version = contents(house.lake.features), house.lake.features.version()
    fewer = tuple(one for one in INDICATORS if one.name != "ema_12")
    with pytest.raises(SchemaEvolutionError, match=r"ema_12.*move that folder away and run again") as error:
        publish(house, fewer)
    assert str(house.lake.features.path) in str(error.value)
    renamed = tuple(dataclasses.replace(one, name="ema_twelve") if one.name == "ema_12" else one for one in INDICATORS)
    with pytest.raises(SchemaEvolutionError, match="ema_12"):
        publish(house, renamed)
    retyped = tuple(dataclasses.replace(one, type="boolean") if one.name == "ema_12" else one for one in INDICATORS)
    with pytest.raises(SchemaEvolutionError, match="ema_12"):
        DeltaTable(house.lake.root, table_of(retyped)).prepare()
    assert (contents(house.lake.features), house.lake.features.version()) == (before, version)
    assert ledger(house) == []


def test_the_advice_for_a_foreign_column_works(house: Clocked) -> None:
    before = contents(house.lake.features)
    fewer = tuple(one for one in INDICATORS if one.name != "ema_12")
    shutil.move(house.lake.features.path, house.lake.root / "moved_away")
    delta, published = publish(house, fewer, rectangle(DAYS, ("AAA", "BBB")))
    assert published.added == len(before)
    assert without(contents(delta), "indicator_spec") == without(before, "ema_12", "indicator_spec")


def test_a_line_announced_in_vain_stays_unseen_when_a_column_comes(
    house: Clocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run died between its announcement and its commit; the next program has one more indicator."""
    lake = house.lake
    bars = lake.curated.read(house.session, ["AAA"])
    shifted = features(bars.withColumn("volume", bars["volume"] + 1), house.sessions)

    def dies(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(DeltaTable, "overwrite", dies)
    with pytest.raises(KeyboardInterrupt):
        publish_delta(
            lake.features,
            house.staging.stage(shifted),
            ONE_DAY,
            house.staging,
            lake.ledger,
            run_id="33333333-run",
            now=NOW,
        )
    monkeypatch.undo()
    assert [row["run_id"] for row in lake.ledger.stored.read(house.session).collect()] == ["33333333-run"]
    assert ledger(house) == []
    publish(house, MORE)
    assert {line["run_id"] for line in ledger(house)} == {"22222222-run"}


@pytest.mark.slow
def test_processed_bars_of_an_earlier_version_are_named_and_computed_anew_from_raw(
    spark: SparkSession, tmp_path: Path
) -> None:
    """Before actions were facts of their own, processed bars had neither a basis nor dividends_delivered."""
    house = clocked(tmp_path / "lake", spark)
    run(house, rectangle(DAYS, ["AAA"]), list(history(("AAA",), DAYS).values()))
    right = {name: contents(getattr(house.lake, name)) for name in ("processed", "curated", "features")}
    for file in Path(house.lake.processed.root).rglob("*.parquet"):
        pq.write_table(pq.ParquetFile(file).read().drop_columns(["basis", "dividends_delivered"]), file)
    with pytest.raises(OutdatedTableError, match="stock-lakehouse backfill --again"):
        run(house, ONE_DAY, [], "22222222-run", steps=[CURATED.name])
    computed = (PROCESSED.name, CURATED.name, FEATURES.name)
    run(house, rectangle(DAYS, ["AAA"]), [], "33333333-run", steps=computed)
    assert {name: contents(getattr(house.lake, name)) for name in right} == right
