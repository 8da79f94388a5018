"""Tables as Arrow: as they are they equal what the engine reads, as of a moment what was read at that moment."""

from __future__ import annotations

import random
import re
import rlcompleter
import subprocess
import sys
import time
import tomllib
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, get_args

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner

import stock_lakehouse
from stock_lakehouse.cli import app
from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.lake.history import EPOCH, Commit, NoVersionError, believed, commits, version_at
from stock_lakehouse.lake.reading import WITH_HISTORY, TableName, moment, read_table
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.schemas import Column
from stock_lakehouse.tables import (
    CORPORATE_ACTIONS,
    CURATED,
    FEATURES,
    PROCESSED,
    QUARANTINE,
    RAW,
    RESTATEMENTS,
    STREAM_TABLES,
    TABLES,
    Table,
)
from stock_lakehouse_tests.graph import (
    TICKERS,
    Bars,
    Clocked,
    Key,
    clocked,
    edited,
    history,
    plain,
    rectangle,
    run,
    year_boundary,
)

SESSIONS = year_boundary(25, 12)
A_MOMENT = 0.003  # seconds: a commit's time is cut to milliseconds


def said(house: Clocked, name: str, as_of: datetime | None = None) -> list[dict[str, Any]]:
    return plain(read_table(name, as_of=as_of, lake_root=house.lake.root))


def deliver(house: Clocked, bars: Bars, tickers: tuple[str, ...] = TICKERS) -> None:
    house._at = utc_now()
    run(house, rectangle({day for _, day in bars}, tickers), bars.values())


def now_and_never_again() -> datetime:
    time.sleep(A_MOMENT)
    now = utc_now()
    time.sleep(A_MOMENT)
    return now


def corrected(bars: Bars, dice: random.Random) -> Bars:
    """A few bars of `bars`, most with another close, one perhaps impossible."""
    keys = dice.sample(sorted(bars), dice.randint(1, 4))
    changed = {}
    for key in keys:
        close = repr(float(bars[key]["close"] or 1) * dice.uniform(0.995, 1.005))
        changed |= {key: edited(bars, key, close=close, volume=dice.choice(("7", "-1", "1000")))[key]}
    return changed


def near(bars: Bars, key: Key) -> Bars:
    """`bars` with a close in one of them that is a little higher."""
    return edited(bars, key, close=repr(float(bars[key]["close"] or 1) * 1.002))


def tampered(table: DeltaTable, dice: random.Random) -> None:
    """What others than a publish do to a table, after which it says what it said."""
    what = dice.choice(("checkpoint", "take back", "compact"))
    opened = table.open()
    if what == "checkpoint":
        opened.create_checkpoint()
    elif what == "take back":
        opened.delete("year = 2020")
        table.open().restore(opened.version() - 1)
    else:
        opened.optimize.compact()


def remembered_is_read_back(house: Clocked, deliveries: int, seed: int) -> None:
    dice, bars = random.Random(seed), history(TICKERS, SESSIONS)
    bars["AAA", SESSIONS[20]]["dividends"] = "0.5"
    deliver(house, bars)
    memories = []
    for _ in range(deliveries):
        memories.append((now_and_never_again(), {name: said(house, name) for name in WITH_HISTORY}))
        deliver(house, corrected(bars, dice))
        time.sleep(A_MOMENT)
        tampered(dice.choice((house.lake.curated, house.lake.features)), dice)
    assert memories[-1][1][RESTATEMENTS.name]
    for at, what in memories:
        for name, rows in what.items():
            assert said(house, name, at) == rows, (name, at)


@pytest.mark.slow
def test_every_remembered_moment_is_read_back_exactly(spark: SparkSession, tmp_path: Path) -> None:
    remembered_is_read_back(clocked(tmp_path / "lake", spark), deliveries=4, seed=1)


@pytest.mark.soak
def test_on_s3_every_remembered_moment_is_read_back_exactly(spark: SparkSession, s3_root: str) -> None:
    remembered_is_read_back(clocked(s3_root, spark), deliveries=2, seed=2)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(3, 8))
def test_every_remembered_moment_of_a_long_history_is_read_back_exactly(
    spark: SparkSession, tmp_path: Path, seed: int
) -> None:
    remembered_is_read_back(clocked(tmp_path / "lake", spark), deliveries=30, seed=seed)


@pytest.mark.slow
def test_every_table_reads_as_the_engine_reads_it(spark: SparkSession, tmp_path: Path) -> None:
    house = clocked(tmp_path / "lake", spark)
    bars = history(TICKERS, SESSIONS)
    bars["BBB", SESSIONS[3]]["volume"] = "-1"
    bars["CCC", SESSIONS[4]]["open"] = 'a "quoted",\nbroken, é line'
    bars["CCC", SESSIONS[5]]["open"] = "NULL"
    bars["BBB", SESSIONS[6]]["dividends"] = "0.5"
    deliver(house, bars)
    deliver(house, near(near(bars, ("AAA", SESSIONS[2])), ("BBB", SESSIONS[2])))
    for table in TABLES:
        rows = read_table(table.name, lake_root=house.lake.root)
        assert rows.schema == table.arrow_schema
        assert rows.num_rows > 0
        assert plain(rows) == plain(house.lake.read(table.name, spark).toArrow()), table.name
        some = read_table(table.name, tickers=["bbb"], lake_root=house.lake.root)
        assert plain(some) == [row for row in plain(rows) if row["ticker"] == "BBB"]


def test_a_table_never_published_is_empty_and_had_nothing_to_say(spark: SparkSession, tmp_path: Path) -> None:
    run(
        clocked(tmp_path, spark),
        rectangle(SESSIONS[:1], ("AAA",)),
        history(("AAA",), SESSIONS[:1]).values(),
        steps=[RAW.name],
    )
    for table in TABLES:
        assert read_table(table.name, lake_root=tmp_path).num_rows == (table == RAW)
    with pytest.raises(NoVersionError, match="there is no table yet"):
        read_table(CURATED.name, as_of="2024-05-03", lake_root=tmp_path)
    with pytest.raises(NoVersionError, match="none of the requested rows had landed by"):
        read_table(RAW.name, as_of="2024-05-03", lake_root=tmp_path)


def test_before_the_first_version_is_an_error_that_gives_a_time_which_can_be_asked_for(
    spark: SparkSession, tmp_path: Path
) -> None:
    house = clocked(tmp_path / "lake", spark)
    deliver(house, history(TICKERS, SESSIONS[:3]))
    for name in WITH_HISTORY:
        if name in (RESTATEMENTS.name, CORPORATE_ACTIONS.name):
            continue
        with pytest.raises(NoVersionError, match=r"\d{4}-\d{2}-\d{2}T") as error:
            said(house, name, utc_now() - timedelta(hours=1))
        earliest = str(error.value).split()[-1].removeprefix("of ").rstrip(",")
        assert said(house, name, moment(earliest)) == ([] if name != RAW.name else said(house, name))
    with pytest.raises(
        ValueError, match=f"{PROCESSED.name} keeps no history; these tables do: {', '.join(WITH_HISTORY)}"
    ):
        said(house, PROCESSED.name, utc_now())
    with pytest.raises(ValueError, match=f"{QUARANTINE.name} keeps no history"):
        said(house, QUARANTINE.name, utc_now())


def test_a_column_that_came_later_is_null_before(tmp_path: Path) -> None:
    old = Table(CURATED.name, "curated", "delta", CURATED.path, CURATED.columns[:-2] + CURATED.columns[-1:], "Older")
    DeltaTable(tmp_path, old).prepare()
    path = str(tmp_path / CURATED.path)
    row = {"ticker": ["A"], "date": [date(2020, 1, 2)], "close": [1.5], "year": pa.array([2020], pa.int32())}
    deltalake.write_deltalake(path, pa.table(row), mode="append", schema_mode="merge")
    at = now_and_never_again()
    DeltaTable(tmp_path, CURATED).prepare()
    assert "ingested_at" in deltalake.DeltaTable(path).to_pyarrow_table().column_names
    (found,) = read_table(CURATED.name, as_of=at, lake_root=tmp_path).to_pylist()
    assert (found["close"], found["ingested_at"]) == (1.5, None)
    assert list(found) == list(CURATED.column_names)


@pytest.mark.slow
def test_a_line_announced_in_vain_was_never_said(spark: SparkSession, tmp_path: Path) -> None:
    """A line counts at a moment if its table was past the version that it names by then."""
    house = clocked(tmp_path / "lake", spark)
    bars = history(TICKERS, SESSIONS[:3])
    deliver(house, bars)
    version = house.lake.curated.version()
    deliver(house, near(bars, ("AAA", SESSIONS[0])))
    lines = house.lake.ledger.stored.open().to_pyarrow_table()
    assert set(lines["from_version"].to_pylist()) >= {version}
    after = now_and_never_again()
    assert said(house, RESTATEMENTS.name, after) == plain(lines.select(RESTATEMENTS.column_names))
    house.lake.curated.open().restore(1)  # past the version, and so is every line of it
    killed = lines.set_column(
        lines.column_names.index("from_version"),
        "from_version",
        pa.array([house.lake.curated.version()] * lines.num_rows, pa.int64()),
    )
    of_curated = killed.filter(pa.compute.equal(killed["table_name"], CURATED.name))
    deltalake.write_deltalake(str(house.lake.ledger.stored.path), of_curated, mode="append")
    at = now_and_never_again()
    assert said(house, RESTATEMENTS.name, at) == said(house, RESTATEMENTS.name, after)
    assert said(house, RESTATEMENTS.name) == said(house, RESTATEMENTS.name, after)


def at_hours(*hours: float | None) -> list[int | None]:
    return [None if hour is None else int(hour * 3_600_000) for hour in hours]


@pytest.mark.parametrize(
    ("what", "said_by_commits", "now", "believed_to_be"),
    [
        ("clocks in order", (1, 2, 2, 3), 4, (1, 2, 2, 3)),
        ("one jumped ahead", (1, 2, 90, 3, 4), 100, (1, 2, 2, 3, 4)),
        ("one fell behind", (10, 11, 2, 12, 13), 100, (10, 11, 11, 12, 13)),
        ("the newest are of the future", (1, 2, 90, 91, 92, 3), 4, (1, 2, 2, 2, 2, 3)),
        ("all are of the future", (90, 91), 4, (0, 0)),
        ("the first fell behind by a lot", (50, 2, 3), 100, (2, 2, 3)),
        ("one says nothing", (1, None, 3), 4, (1, 1, 3)),
    ],
)
def test_a_clock_that_jumped_between_commits_misplaces_no_other_commit(
    what: str, said_by_commits: tuple[float | None, ...], now: float, believed_to_be: tuple[float, ...]
) -> None:
    assert believed(at_hours(*said_by_commits), int(now * 3_600_000)) == at_hours(*believed_to_be), what


@pytest.mark.parametrize("seed", range(20))
def test_times_of_commits_never_fall_and_most_are_as_said(seed: int) -> None:
    dice = random.Random(seed)
    true = sorted(dice.randint(0, 1000) for _ in range(40))
    wrong = dice.sample(range(40), 5)
    found = believed([one + dice.choice((-500, 500)) * (at in wrong) for at, one in enumerate(true)], 1000)
    assert found == sorted(found)
    assert sum(one != other for one, other in zip(found, true, strict=True)) <= 10


def test_the_newest_version_at_or_before_a_moment_counts() -> None:
    known = [Commit(4, EPOCH + timedelta(hours=1)), Commit(5, EPOCH + timedelta(hours=2))]
    asked = [version_at(known, EPOCH + timedelta(hours=hours)) for hours in (0.99, 1, 1.99, 2, 3)]
    assert asked == [None, 4, 4, 5, 5]


def test_versions_are_told_from_the_oldest_that_a_reader_can_start_from(tmp_path: Path) -> None:
    table = DeltaTable(
        tmp_path, Table("t", "curated", "delta", "t", (Column("year", "int", "A year"),), "T", partition_by=())
    )
    table.prepare()
    for year in range(6):
        deltalake.write_deltalake(str(table.path), pa.table({"year": pa.array([year], pa.int32())}), mode="append")
        if year in (1, 3):
            table.open().create_checkpoint()
    assert [one.version for one in commits(table)] == [0, 1, 2, 3, 4, 5, 6]
    for version in (0, 1):  # as a killed clean-up leaves it: version 2 is a checkpoint's
        (tmp_path / "t" / "_delta_log" / f"{version:020d}.json").unlink()
    assert [one.version for one in commits(table)] == [2, 3, 4, 5, 6]
    (tmp_path / "t" / "_delta_log" / f"{3:020d}.json").unlink()
    assert [one.version for one in commits(table)] == [4, 5, 6]


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2024-05-03", datetime(2024, 5, 3, 23, 59, 59, 999999, UTC)),
        (date(2024, 5, 3), datetime(2024, 5, 3, 23, 59, 59, 999999, UTC)),
        ("2024-05-03T20:30", datetime(2024, 5, 3, 20, 30, tzinfo=UTC)),
        ("2024-05-03 20:30:01.5", datetime(2024, 5, 3, 20, 30, 1, 500_000, UTC)),
        ("2024-05-03T20:30:00.123Z", datetime(2024, 5, 3, 20, 30, 0, 123_000, UTC)),
        ("2024-05-03T16:30-04:00", datetime(2024, 5, 3, 20, 30, tzinfo=UTC)),
        (datetime(2024, 5, 3, 16, 30, tzinfo=timezone(timedelta(hours=-4))), datetime(2024, 5, 3, 20, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_is_iso_and_utc_where_no_zone_is_given(text: str | date, instant: datetime) -> None:
    assert moment(text) == instant


@pytest.mark.parametrize("text", ["", "yesterday", "2024-02-30", "2024-05-03T25:00", "03.05.2024"])
def test_what_is_no_moment_is_refused_by_name(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no moment; allowed"):
        read_table(CURATED.name, as_of=text, lake_root=tmp_path)


@pytest.mark.slow
def test_show_as_of_prints_what_was_said_then(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = clocked(tmp_path / "lake", spark)
    bars = history(TICKERS, SESSIONS[:3])
    deliver(house, edited(bars, ("AAA", SESSIONS[2]), volume="123454321"))
    at = now_and_never_again()
    deliver(house, edited(bars, ("AAA", SESSIONS[2]), volume="777767777"))
    monkeypatch.setenv("STOCK_LAKEHOUSE_LAKE_ROOT", str(house.lake.root))

    def show(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["show", *arguments])

    then = show(CURATED.name, "aaa", "--as-of", at.isoformat())
    assert "123454321" in then.output, then.output
    assert "777767777" not in then.output
    assert "777767777" in show(CURATED.name, "AAA").output
    wrong = show(CURATED.name, "AAA", "--as-of", "2001-01-01")
    assert wrong.exit_code == 2
    assert "its first version is of" in wrong.output
    assert show(PROCESSED.name, "AAA", "--as-of", "2024-05-03").exit_code == 2
    assert show(FEATURES.name, "AAA", "--as-of", "soon").exit_code == 2


@pytest.fixture(scope="module")
def loaded(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of three tickers, with a dividend, a restatement and a row that cannot be."""
    root = tmp_path_factory.mktemp("reading") / "lake"
    house, bars = clocked(root, spark), history(TICKERS, SESSIONS)
    bars["BBB", SESSIONS[3]]["volume"] = "-1"
    bars["BBB", SESSIONS[6]]["dividends"] = "0.5"
    deliver(house, bars)
    deliver(house, near(bars, ("AAA", SESSIONS[2])))
    return root


def sessions_read(rows: pa.Table) -> list[date]:
    return sorted(set(rows["date"].to_pylist()))


@pytest.mark.parametrize("name", [CURATED.name, FEATURES.name, PROCESSED.name, "bars_with_features"])
def test_tickers_dates_and_columns_are_selected(name: str, loaded: Path) -> None:
    whole = read_table(name, lake_root=str(loaded))
    assert whole.num_rows == 3 * len(SESSIONS) - 1
    one = read_table(name, tickers="aaa", lake_root=loaded)
    assert one == whole.filter(pa.compute.equal(whole["ticker"], "AAA"))
    two = read_table(name, tickers=(t for t in ("AAA", "Ccc")), lake_root=loaded)
    assert set(two["ticker"].to_pylist()) == {"AAA", "CCC"}
    first, last = SESSIONS[4], SESSIONS[20]
    for days in ((first, last), (str(first), str(last)), (datetime(*first.timetuple()[:3], 15), last)):
        found = read_table(name, first=days[0], last=days[1], lake_root=loaded)
        assert sessions_read(found) == list(SESSIONS[4:21])
    assert sessions_read(read_table(name, first=SESSIONS[-1], lake_root=loaded)) == [SESSIONS[-1]]
    assert sessions_read(read_table(name, last=SESSIONS[0], lake_root=loaded)) == [SESSIONS[0]]
    some = read_table(name, columns=["year", "ticker"], tickers="AAA", lake_root=loaded)
    assert some.column_names == ["year", "ticker"]
    assert some["year"].to_pylist() == one["year"].to_pylist()
    assert read_table(name, columns="ticker", lake_root=loaded).column_names == ["ticker"]


def test_of_the_other_tables_too_the_session_decides(loaded: Path) -> None:
    assert sessions_read(read_table(RAW.name, first=SESSIONS[30], last=SESSIONS[31], lake_root=loaded)) == [
        str(day) for day in SESSIONS[30:32]
    ]
    bad, dividend, restated = SESSIONS[3], SESSIONS[6], SESSIONS[2]
    for name, day in (
        (QUARANTINE.name, bad),
        (CORPORATE_ACTIONS.name, dividend),
        ("processed_actions", dividend),
        (RESTATEMENTS.name, restated),
    ):
        rows = read_table(name, first=day, last=day, lake_root=loaded)
        assert rows.num_rows >= 1, name
        assert read_table(name, last=day - timedelta(days=1), lake_root=loaded).num_rows == 0, name
    assert read_table(RESTATEMENTS.name, columns="cause", tickers="AAA", lake_root=loaded).num_rows >= 2


def test_a_row_without_a_day_is_in_no_selection_of_days(spark: SparkSession, tmp_path: Path) -> None:
    house = clocked(tmp_path / "lake", spark)
    bars = history(("AAA",), SESSIONS[:2])
    bars["AAA", SESSIONS[0]]["date"] = "Monday"
    run(house, rectangle(SESSIONS[:2], ("AAA",)), bars.values(), steps=[RAW.name])
    assert read_table(RAW.name, lake_root=house.lake.root)["date"].to_pylist() == [str(SESSIONS[1]), "Monday"]
    assert read_table(RAW.name, first="1900-01-01", lake_root=house.lake.root)["date"].to_pylist() == [str(SESSIONS[1])]


@pytest.mark.parametrize(
    ("name", "arguments", "error", "words"),
    [
        (
            "curated_stock_daily",
            {},
            "UnknownTableError",
            r"no table curated_stock_daily \(did you mean curated_stocks_daily\?\); .*features",
        ),
        (
            CURATED.name,
            {"tickers": "AAB"},
            "UnknownTickerError",
            r"no ticker AAB \(did you mean AAA\?\) in the lake; it has AAA, BBB, CCC",
        ),
        (FEATURES.name, {"tickers": ["AAA", ""]}, "UnknownTickerError", "it has AAA, BBB, CCC$"),
        (QUARANTINE.name, {"tickers": "ZZZ"}, "UnknownTickerError", "no ticker ZZZ in the lake; it has AAA, BBB, CCC$"),
        (
            CURATED.name,
            {"columns": ["close", "hihg"]},
            "UnknownColumnError",
            r"has no column hihg \(did you mean high\?\); allowed: ticker, ",
        ),
        ("bars_with_features", {"columns": "sma_30"}, "UnknownColumnError", r"did you mean sma_\d0\?.*close.*rsi_14"),
        (
            CURATED.name,
            {"first": "yesterday"},
            "InvalidDateError",
            "first: 'yesterday' is no date; allowed: .*2024-05-03",
        ),
        (CURATED.name, {"last": 20230103}, "InvalidDateError", "last: 20230103 is no date"),
        (
            CURATED.name,
            {"first": "2020-01-02", "last": "2020-01-01"},
            "InvalidDateError",
            "last: 2020-01-01 is before first: 2020-01-02",
        ),
        (CURATED.name, {"as_of": "soon"}, "InvalidDateError", "'soon' is no moment"),
        (PROCESSED.name, {"as_of": "2024-05-03"}, "NoHistoryError", f"these tables do: {RAW.name}"),
        (CURATED.name, {"as_of": "2001-01-01"}, "NoVersionError", "its first version is of"),
        ("bars_with_features", {"as_of": "2001-01-01"}, "NoVersionError", "its first version is of"),
    ],
)
def test_what_does_not_exist_is_an_error_that_names_what_does(
    name: str, arguments: dict[str, Any], error: str, words: str, loaded: Path
) -> None:
    with pytest.raises(stock_lakehouse.LakeError, match=words) as raised:
        read_table(name, lake_root=loaded, **arguments)
    assert type(raised.value) is getattr(stock_lakehouse, error)


def test_a_known_ticker_without_a_row_is_no_error(loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_table(QUARANTINE.name, tickers="AAA", lake_root=loaded).num_rows == 0
    assert read_table(CURATED.name, tickers="AAA", first="2030-01-01", lake_root=loaded).num_rows == 0
    monkeypatch.setenv("STOCK_LAKEHOUSE_LAKE_ROOT", str(loaded))
    monkeypatch.setenv("STOCK_LAKEHOUSE_TICKERS", "AAA,NEW")
    assert read_table(CURATED.name, tickers="new").num_rows == 0
    with pytest.raises(stock_lakehouse.UnknownTickerError):
        read_table(CURATED.name, tickers="new", lake_root=loaded)


def test_a_folder_without_a_lake_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root, words in (
        (tmp_path, "it has none of the lake's tables"),
        (tmp_path / "none", "none, which does not exist; .*stock-lakehouse materialize"),
        (tmp_path / "file", "file, which is a file"),
        ("gs://bucket/lake", "'gs://bucket/lake' cannot be the root of a lake; allowed: a folder, or s3://"),
    ):
        for name in (CURATED.name, PROCESSED.name, "bars_with_features"):
            with pytest.raises(stock_lakehouse.NoLakeError, match=words):
                read_table(name, lake_root=root)


def test_each_column_has_its_description_in_arrow_and_in_parquet_written_from_it(loaded: Path, tmp_path: Path) -> None:
    for table in TABLES:
        rows = read_table(table.name, lake_root=loaded)
        for column in table.columns:
            metadata = rows.schema.field(column.name).metadata
            assert metadata[b"description"].decode() == column.description
            assert metadata.get(b"unit", b"").decode() == column.unit
    rows = read_table("bars_with_features", columns=["date", "rsi_14"], lake_root=loaded)
    pq.write_table(rows, tmp_path / "rows.parquet")
    field = pq.read_table(tmp_path / "rows.parquet").schema.field("rsi_14")
    assert field.metadata[b"description"] == b"Wilder's relative strength index"
    assert field.metadata[b"unit"] == b"0 to 100"
    assert b"the bar has no features yet; or the first 14 sessions" in field.metadata[b"null"]


def test_dates_compare_with_text_in_pandas_as_the_documentation_says(loaded: Path) -> None:
    frame = read_table(CURATED.name, tickers="AAA", lake_root=loaded).to_pandas(date_as_object=False)
    assert str(frame["date"].dtype).startswith("datetime64")
    assert len(frame[frame["date"] >= str(SESSIONS[10])]) == len(SESSIONS) - 10
    assert len(frame[frame["date"] == str(SESSIONS[10])]) == 1
    assert frame.set_index("date").loc[str(SESSIONS[3]) : str(SESSIONS[5])]["close"].count() == 3


def test_the_view_has_each_bar_beside_its_features(loaded: Path) -> None:
    rows = {(row["ticker"], row["date"]): row for row in read_table("bars_with_features", lake_root=loaded).to_pylist()}
    bars, features = (
        {(row["ticker"], row["date"]): row for row in read_table(name, lake_root=loaded).to_pylist()}
        for name in (CURATED.name, FEATURES.name)
    )
    assert rows == {key: {**features[key], **bars[key]} for key in bars}
    assert list(next(iter(rows.values())))[:6] == ["ticker", "date", "open", "high", "low", "close"]


def test_the_view_as_of_a_moment_joins_both_tables_of_that_moment(spark: SparkSession, tmp_path: Path) -> None:
    house, bars = clocked(tmp_path / "lake", spark), history(("AAA",), SESSIONS[:25])
    deliver(house, bars, ("AAA",))
    before = now_and_never_again()
    deliver(house, near(bars, ("AAA", SESSIONS[20])), ("AAA",))

    def joined(at: datetime | None) -> tuple[float, float]:
        rows = read_table("bars_with_features", tickers="AAA", first=SESSIONS[20], as_of=at, lake_root=house.lake.root)
        row = rows.slice(0, 1).to_pylist()[0]
        return row["close"], row["sma_20"]

    (close, average), (new_close, new_average) = joined(before), joined(None)
    assert close == float(bars["AAA", SESSIONS[20]]["close"] or 0)
    assert new_close == pytest.approx(close * 1.002)
    assert new_average - average == pytest.approx(close * 0.002 / 20)  # by hand: one of 20 closes is 0.2 % higher


def test_a_bar_without_features_has_nulls_beside_it(spark: SparkSession, tmp_path: Path) -> None:
    house = clocked(tmp_path / "lake", spark)
    steps = (RAW.name, PROCESSED.name, CURATED.name)
    run(house, rectangle(SESSIONS[:2], ("AAA",)), history(("AAA",), SESSIONS[:2]).values(), steps=steps)
    rows = read_table("bars_with_features", lake_root=house.lake.root).to_pylist()
    assert [(row["date"], row["close"] > 0, row["buy_signal"]) for row in rows] == [
        (day, True, None) for day in SESSIONS[:2]
    ]


def test_tables_and_columns_are_listed(loaded: Path) -> None:
    tables = stock_lakehouse.list_tables(str(loaded))
    of_every_lake = [*(table.name for table in TABLES), "bars_with_features"]
    assert list(tables.index) == of_every_lake  # this one has no stream
    assert list(get_args(TableName)) == [*of_every_lake, *(table.name for table in STREAM_TABLES)]
    assert tables.loc[CURATED.name, "rows"] == tables.loc["bars_with_features", "rows"] == 3 * len(SESSIONS) - 1
    assert tables["rows"].isna()[RAW.name]
    assert tables.loc[CORPORATE_ACTIONS.name, "key"] == "ticker, ex_date, kind"
    assert tables.loc[FEATURES.name, "columns"].startswith("ticker, date, sma_20, ")
    columns = stock_lakehouse.describe(FEATURES.name, loaded)
    assert list(columns.index) == list(FEATURES.column_names)
    assert columns.loc["rsi_14"].to_dict() == {
        "type": "double",
        "unit": "0 to 100",
        "null": "the first 14 sessions of a ticker; or a price, volume or action that it is computed from is unknown",
        "description": "Wilder's relative strength index",
    }
    assert (
        list(stock_lakehouse.describe("bars_with_features", loaded).index)
        == read_table("bars_with_features", lake_root=loaded).column_names
    )
    with pytest.raises(stock_lakehouse.UnknownTableError, match="allowed: raw_stocks_daily, "):
        stock_lakehouse.describe("nothing", loaded)


def test_the_package_offers_its_public_names_alone_and_imports_nothing_for_them() -> None:
    assert stock_lakehouse.read_table is read_table
    assert dir(stock_lakehouse) == sorted(stock_lakehouse.__all__)
    completed = set()
    completer = rlcompleter.Completer({"stock_lakehouse": stock_lakehouse})
    while (match := completer.complete("stock_lakehouse.", len(completed))) is not None:
        completed.add(match.removeprefix("stock_lakehouse.").rstrip("()"))
    assert completed == set(stock_lakehouse.__all__)
    assert all(hasattr(stock_lakehouse, name) for name in stock_lakehouse.__all__)
    with pytest.raises(AttributeError):
        _ = stock_lakehouse.read_tables
    program = "import sys, stock_lakehouse; sys.exit('pyarrow' in sys.modules or 'deltalake' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_plain_install_reads_a_lake_and_says_what_the_settings_need(loaded: Path) -> None:
    """Every package of the extra `platform` is hidden from a process, with what only they bring."""
    with (Path(__file__).parents[1] / "pyproject.toml").open("rb") as file:
        extra = tomllib.load(file)["project"]["optional-dependencies"]["platform"]
    hidden = {re.split(r"[\[=<>]", each)[0].replace("-", "_") for each in extra} | {"grpc", "databricks", "boto3"}
    program = f"""
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
import stock_lakehouse
for name in stock_lakehouse.list_tables({str(loaded)!r}).index:
    assert stock_lakehouse.read_table(name, lake_root={str(loaded)!r}).num_rows, name
    stock_lakehouse.describe(name, {str(loaded)!r})
try:
    stock_lakehouse.read_table("curated_stocks_daily")
except stock_lakehouse.LakeError as error:
    print(type(error).__name__, error)
"""
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert answer == (
        "MissingPackageError reading lakehouse.toml needs pydantic_settings: pip install 'stock-lakehouse[platform]', or pass "
        "lake_root=…\n"
    )
