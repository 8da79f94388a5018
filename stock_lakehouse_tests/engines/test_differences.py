"""Where JVM Spark and Sail differ, and where they must not: what one code for both relies on.

lake/test_engine_traps.py holds Sail's own traps; a red test here is news of the same kind.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, date, datetime
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from stock_lakehouse.engines import SESSION_SETTINGS
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.sources import DELIVERED_COLUMNS, Landing
from stock_lakehouse.tables import UNREADABLE
from stock_lakehouse_tests.graph import NOW, delivery, rectangle
from stock_lakehouse_tests.lake.test_engine_traps import ROW, delta_at, held
from stock_lakehouse_tests.transforms.test_processed import CORRUPTED, DELIVERIES, Row, bar, with_fates

pytestmark = pytest.mark.engines

DAY = date(2023, 9, 21)


def bounded(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


# What every engine is told


def test_settings_that_change_results_are_equal_whatever_a_server_starts_with(
    spark: SparkSession, jvm: SparkSession
) -> None:
    for name, value in SESSION_SETTINGS.items():
        assert (spark.conf.get(name), jvm.conf.get(name)) == (value, value)


def test_a_timestamp_is_microseconds_of_utc_in_the_files_of_both(
    spark: SparkSession, jvm: SparkSession, tmp_path: Path
) -> None:
    at = datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    for name, engine in (("spark", spark), ("jvm", jvm)):
        path = tmp_path / name
        engine.createDataFrame(pa.table({"at": pa.array([at], pa.timestamp("us", "UTC"))})).write.parquet(str(path))
        (file,) = path.glob("*.parquet")
        written = pq.read_table(file)
        assert written.schema.field("at").type == pa.timestamp("us", "UTC")
        assert written["at"].to_pylist() == [at]


def test_jvm_spark_would_write_int96_without_a_zone_by_itself(jvm: SparkSession, tmp_path: Path) -> None:
    """So SESSION_SETTINGS names the type."""
    name = "spark.sql.parquet.outputTimestampType"
    jvm.conf.set(name, "INT96")
    try:
        jvm.sql("select timestamp'2024-01-02 03:04:05 UTC' at").write.parquet(str(tmp_path / "t"))
    finally:
        jvm.conf.set(name, SESSION_SETTINGS[name])
    (file,) = (tmp_path / "t").glob("*.parquet")
    assert pq.read_table(file).schema.field("at").type == pa.timestamp("ns")


def test_days_before_the_gregorian_calendar_are_staged_as_they_are(
    spark: SparkSession, jvm: SparkSession, tmp_path: Path
) -> None:
    days = [date(1, 1, 1), date(1582, 10, 4), date(1582, 10, 15), date(9999, 12, 31)]
    for engine in (spark, jvm):
        staging = Staging(tmp_path)
        staged = staging.stage(engine.createDataFrame(pa.table({"day": pa.array(days, pa.date32())})))
        assert sorted(row["day"] for row in staged.collect()) == days
        files = [pq.ParquetFile(path).read() for path in (tmp_path / staging.folder).rglob("*.parquet")]
        assert sorted(pa.concat_tables(files)["day"].to_pylist()) == days


# Reading what was delivered

HOSTILE = st.one_of(
    CORRUPTED,
    st.sampled_from(
        ["", '"', '""', "\\", '\\"', ",", "a,b", "\r", "\n", "\r\n", "\u2028", "\x85", " padded ", "'", "#", "\0"]
    ),
    st.text(st.sampled_from('ab",\\\r\n\t \0é☃𝄞'), max_size=8),
)


def landed(folder: Path, texts: list[dict[str, str | None]]) -> tuple[Lake, Landing]:
    """A lake of one landing: a row a session, with these texts beside a good date; and what became of them."""
    lake = Lake(folder)
    sessions = market_calendar(date(2019, 1, 2)).between(date(2019, 1, 2), date(2019, 12, 31))
    rows = [
        {"ticker": "AAA", "date": session.isoformat(), **text} for session, text in zip(sessions, texts, strict=False)
    ]
    landing = lake.raw.land(
        delivery(rows),
        rectangle(sessions, ["AAA"]),
        source="s",
        interval="1d",
        run_id="0" * 8,
        now=NOW,
        final_at=lambda _: None,
    )
    return lake, landing


FREE = [name for name in DELIVERED_COLUMNS if name not in ("ticker", "date", "session")]  # which say where a row lies


@bounded(12)
@given(texts=st.lists(st.dictionaries(st.sampled_from(FREE), HOSTILE, max_size=4), min_size=1, max_size=60))
def test_both_engines_read_any_landed_text_alike(
    spark: SparkSession, jvm: SparkSession, texts: list[dict[str, str | None]]
) -> None:
    check_text(spark, jvm, texts)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@bounded(300)
@given(texts=st.lists(st.dictionaries(st.sampled_from(FREE), HOSTILE, max_size=4), min_size=1, max_size=200))
def test_both_engines_read_very_much_landed_text_alike(
    spark: SparkSession, jvm: SparkSession, texts: list[dict[str, str | None]]
) -> None:
    check_text(spark, jvm, texts)


def check_text(spark: SparkSession, jvm: SparkSession, texts: list[dict[str, str | None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake, landing = landed(Path(folder), texts)
        # Prices of an unknown basis do not land: any text may happen to be a split of which there is no bar.
        assert landing.landed + landing.withheld == len(texts)
        by_sail, by_jvm = (rows_of(lake.raw.read(engine), "date") for engine in (spark, jvm))
        assert len(by_sail) == landing.landed
        assert by_jvm == by_sail


def rows_of(frame: DataFrame, order: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = frame.toArrow().to_pylist()
    return in_order(found, order)


def in_order(rows: list[dict[str, object]], order: str) -> list[dict[str, object]]:
    return sorted(rows, key=lambda row: str(row[order]))


@pytest.fixture(scope="module")
def markets(spark: SparkSession, jvm: SparkSession) -> list[tuple[SparkSession, DataFrame]]:
    table = market_calendar(date(2012, 1, 3)).days()
    return [(engine, engine.createDataFrame(table)) for engine in (spark, jvm)]


def check_corruptions(markets: list[tuple[SparkSession, DataFrame]], rows: list[Row]) -> None:
    # A time of its own for each row: which of two deliveries of the same moment is the newest, no engine knows.
    own = [{**row, "source": str(place)} for place, row in enumerate(rows)]
    for place, row in enumerate(own):
        if row["ingested_at"] and row["ingested_at"].startswith("2023-09-22T00:00:"):
            row["ingested_at"] = f"2023-09-22T00:00:00.{place:06}Z"
    by_sail, by_jvm = (in_order(with_fates(engine, market, own), "source") for engine, market in markets)
    assert exact(by_jvm) == exact(by_sail)


def exact(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{name: value.hex() if isinstance(value, float) else value for name, value in row.items()} for row in rows]


@bounded(6)
@given(DELIVERIES)
def test_any_corruption_has_the_same_fate_and_reasons_on_both(
    markets: list[tuple[SparkSession, DataFrame]], rows: list[Row]
) -> None:
    check_corruptions(markets, rows)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@bounded(400)
@given(DELIVERIES)
def test_very_many_corruptions_have_the_same_fate_and_reasons_on_both(
    markets: list[tuple[SparkSession, DataFrame]], rows: list[Row]
) -> None:
    check_corruptions(markets, rows)


def test_numbers_are_read_to_the_same_bit(markets: list[tuple[SparkSession, DataFrame]]) -> None:
    texts = [
        "0.1",
        "1e-5",
        "123456789.123456789",
        "4.9e-324",
        "1.7976931348623157e308",
        "9007199254740993",
        "1e22",
        "0.3e-7",
    ]
    rows = [bar(ticker=f"T{at}", symbol=None, adj_close=text) for at, text in enumerate(texts)]
    check_corruptions(markets, [*rows, bar(ticker=UNREADABLE, symbol=None)])


# Writing


def test_jvm_spark_refuses_rows_outside_a_replaced_predicate(jvm: SparkSession, tmp_path: Path) -> None:
    """Sail writes them; `publish` filters by the predicate, so neither meets one."""
    path = delta_at(tmp_path / "t", ("A", 2019, 1.0), ("B", 2019, 2.0))
    stray = jvm.createDataFrame([("B", 2019, 3.0)], ROW)
    with pytest.raises(PySparkException, match="DELTA_REPLACE_WHERE_MISMATCH"):
        stray.write.format("delta").mode("overwrite").option("replaceWhere", "ticker = 'A'").save(path)
    assert held(path) == [("A", 2019, 1.0), ("B", 2019, 2.0)]


def test_jvm_spark_refuses_a_column_or_a_type_that_the_table_lacks(jvm: SparkSession, tmp_path: Path) -> None:
    """Sail drops the one and writes nulls for the other; `prepare` and the audit come first."""
    path = delta_at(tmp_path / "t", ("A", 2019, 1.0))
    for row, schema in (
        (("B", 2019, 2.0, 9.0), ROW + ", added double"),
        (("B", 2019, "two"), ROW.replace("double", "string")),
    ):
        with pytest.raises(PySparkException):
            jvm.createDataFrame([row], schema).write.format("delta").mode("append").save(path)
    assert held(path) == [("A", 2019, 1.0)]


def test_jvm_spark_reads_a_ragged_line_and_says_nothing(jvm: SparkSession, tmp_path: Path) -> None:
    """Sail fails on it. Files under raw/ are written by the lake, so neither meets one."""
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3\n1\n", encoding="utf-8")
    read = jvm.read.schema("a string, b string").options(header=True, multiLine=True).csv(str(tmp_path))
    assert sorted(map(tuple, read.collect()), key=str) == [("1", "2"), ("1", "2"), ("1", None)]


def test_jvm_spark_leaves_files_beside_those_it_writes(jvm: SparkSession, tmp_path: Path) -> None:
    """So `ParquetTable` moves *.parquet alone, which a checksum file's name does not match."""
    jvm.range(3).coalesce(1).write.parquet(str(tmp_path / "t"))
    assert len(list((tmp_path / "t").glob("*.parquet"))) == 1
    assert {path.suffix for path in (tmp_path / "t").iterdir()} == {".parquet", ".crc", ""}


@pytest.mark.soak
def test_one_table_takes_the_commits_of_three_writers_past_their_checkpoints(
    spark: SparkSession, jvm: SparkSession, tmp_path: Path
) -> None:
    """JVM Spark writes a checkpoint every tenth commit, and checksums of its own beside the log."""
    path = delta_at(tmp_path / "t", ("A", 0, 0.0))
    for number in range(1, 13):
        if number % 3 == 2:
            schema = pa.schema([("ticker", pa.string()), ("year", pa.int32()), ("value", pa.float64())])
            rows = pa.table([["A"], [number], [float(number)]], schema=schema)
            deltalake.write_deltalake(path, rows, mode="append")
            if number == 8:
                deltalake.DeltaTable(path).create_checkpoint()
        else:
            engine = (spark, jvm)[number % 3]
            one = engine.createDataFrame([("A", number, float(number))], ROW)
            one.write.format("delta").mode("overwrite").option("replaceWhere", f"year = {number}").save(path)
    assert list((tmp_path / "t" / "_delta_log").glob("*.checkpoint*.parquet"))
    assert held(path) == sorted((("A", number, float(number)) for number in range(13)), key=str)
    for engine in (spark, jvm):
        assert engine.read.format("delta").load(path).count() == 13
        assert engine.read.format("delta").option("versionAsOf", 11).load(path).count() == 12
    assert jvm.read.format("delta").option("versionAsOf", 4).load(path).count() == 5
