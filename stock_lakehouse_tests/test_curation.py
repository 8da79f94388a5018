"""Splits and dividends: whatever a vendor knew when it delivered a bar, curated bars and features come out the same."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from stock_lakehouse.checks import restated_share
from stock_lakehouse.indicators import registry as indicators
from stock_lakehouse.lake import ledger as ledger_module
from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.layers import curated as curation
from stock_lakehouse.settings import Settings
from stock_lakehouse.tables import CORPORATE_ACTIONS, CURATED, FEATURES, PROCESSED, RAW, Table
from stock_lakehouse_tests.graph import (
    Clocked,
    clocked,
    history,
    layers,
    ledger,
    rectangle,
    run,
    sessions_of,
)
from stock_lakehouse_tests.vendor import PRICES, Vendor, apple, sample_of

TICKER = "AAA"
SESSIONS = sessions_of(date(2019, 10, 1), date(2020, 12, 31))
SPLIT = date(2020, 8, 31)
RATIO = 4.0
LATER = datetime(2021, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    """A random walk with a split and five dividends."""
    bars = {}
    for (_, day), bar in history((TICKER,), SESSIONS).items():
        opened, high, low, close = (float(str(bar[name])) / (1 if day < SPLIT else RATIO) for name in PRICES)
        bars[day] = (opened, high, low, close, 1000.0)
    return Vendor(TICKER, bars, {SPLIT: RATIO}, {SESSIONS[at]: 0.25 for at in range(20, len(SESSIONS), 63)})


def at(day: date) -> datetime:
    return datetime.combine(day, time(22), UTC)


def delivered(house: Clocked, vendor: Vendor, on: date, first: date, number: int = 1, actions: bool = True) -> None:
    """A run for the sessions from `first` to `on`, on the evening of `on`."""
    house._at = at(on)
    asked = rectangle([day for day in SESSIONS if first <= day <= on], [TICKER])
    run(house, asked, vendor.deliver(on, first, actions), f"{number:08d}-run")


def without_provenance(house: Clocked) -> dict[str, list[dict[str, object]]]:
    """Curated bars and features, but for when they landed and what the vendor's adj_close was like."""
    found = layers(house)
    provenance = ("ingested_at", "adj_close_deviation", "basis_factor")
    return {
        name: [{key: value for key, value in row.items() if key not in provenance} for row in found[name]]
        for name in ("curated", "features")
    }


def actions(house: Clocked) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = house.lake.corporate_actions.open().to_pyarrow_table().sort_by("ex_date").to_pylist()
    return found


@pytest.fixture(scope="module")
def in_a_piece(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, vendor: Vendor) -> Clocked:
    house = clocked(tmp_path_factory.mktemp("piece") / "lake", spark)
    delivered(house, vendor, SESSIONS[-1], SESSIONS[0])
    return house


@pytest.mark.soak
def test_bars_delivered_before_and_after_a_split_and_dividends_are_as_if_delivered_in_a_piece(
    spark: SparkSession, tmp_path: Path, vendor: Vendor, in_a_piece: Clocked
) -> None:
    house = clocked(tmp_path / "lake", spark)
    before = max(day for day in SESSIONS if day < SPLIT)
    steps = [SESSIONS[50], before, SPLIT, SESSIONS[-60], SESSIONS[-1]]
    for number, (last, on) in enumerate(itertools.pairwise([date(2019, 9, 30), *steps]), start=1):
        delivered(house, vendor, on, last + timedelta(days=1), number)
    assert without_provenance(house) == without_provenance(in_a_piece)


def test_the_actions_stand_in_their_table_with_when_they_were_first_seen(in_a_piece: Clocked, vendor: Vendor) -> None:
    rows = actions(in_a_piece)
    assert {row["ticker"] for row in rows} == {TICKER}
    assert {row["first_seen"] for row in rows} == {at(SESSIONS[-1])}
    assert not any(row["late"] for row in rows)
    splits = [(row["ex_date"], row["value"], row["price_factor"]) for row in rows if row["kind"] == "split"]
    assert splits == [(SPLIT, 4.0, 0.25)]
    for row in rows:
        if row["kind"] == "dividend":
            day = row["ex_date"]
            before = SESSIONS[SESSIONS.index(day) - 1]
            assert row["value"] == vendor.dividends[day] / (4 if day < SPLIT else 1)
            expected = 1 - vendor.dividends[day] * (4 if day == SPLIT else 1) / vendor.close(before)
            assert row["price_factor"] == pytest.approx(expected, rel=1e-12)
    assert {row["ex_date"] for row in rows if row["kind"] == "dividend"} == set(vendor.dividends)


def test_adj_close_is_the_vendors_to_rounding_whenever_that_was_delivered(
    spark: SparkSession, tmp_path: Path, vendor: Vendor
) -> None:
    house = clocked(tmp_path / "lake", spark)
    for number, (first, on) in enumerate([(SESSIONS[0], SESSIONS[100]), (SESSIONS[101], SESSIONS[-1])]):
        delivered(house, vendor, on, first, number)
    rows = {row["date"]: row for row in house.lake.curated.open().to_pyarrow_table().to_pylist()}
    for bar in vendor.deliver(SESSIONS[-1]):  # as the vendor says now
        row = rows[date.fromisoformat(str(bar["date"]))]
        assert row["adj_close"] == pytest.approx(float(str(bar["adj_close"])), rel=1e-12)
        assert row["price_basis"] == "total_return"
        # Held against what the vendor had told until the delivery, though later dividends changed it.
        assert abs(row["adj_close_deviation"]) < 1e-12
        assert row["close"] * row["split_factor"] == vendor.close(row["date"])


@pytest.mark.slow
@pytest.mark.parametrize("late", [1, pytest.param(3, marks=pytest.mark.soak)])
def test_a_vendor_that_learns_of_a_split_days_after_it_ends_in_the_same_tables(
    spark: SparkSession, tmp_path: Path, vendor: Vendor, in_a_piece: Clocked, late: int
) -> None:
    tardy = Vendor(TICKER, vendor.bars, vendor.splits, vendor.dividends, late)
    house = clocked(tmp_path / "lake", spark)
    place = SESSIONS.index(SPLIT)
    first = SESSIONS[0]
    for number, on in enumerate(dict.fromkeys(SESSIONS[place + step] for step in (-1, 0, late - 1, late))):
        # It is asked again for the days since before the split, as for a correction, once it knows.
        delivered(house, tardy, on, SPLIT if on == SESSIONS[place + late] else first, number)
        first = SESSIONS[SESSIONS.index(on) + 1]
    # The vendor knows all by the end, and is asked for what is left and for the bars with an action it did not have yet.
    delivered(house, vendor, SESSIONS[-1], SPLIT, 9)
    for day in vendor.dividends:
        delivered(house, vendor, SESSIONS[-1], day, 10)
    assert without_provenance(house) == without_provenance(in_a_piece)
    (split,) = [row for row in actions(house) if row["kind"] == "split"]
    assert split["late"]
    assert split["first_seen"] == at(SESSIONS[place + late])


@pytest.mark.slow
def test_old_chunks_that_land_first_are_not_adjusted_twice(
    spark: SparkSession, tmp_path: Path, vendor: Vendor, in_a_piece: Clocked
) -> None:
    """A backfill in pieces, each adjusted by the vendor for a split that the lake does not hold yet."""
    house = clocked(tmp_path / "lake", spark)
    house._at = LATER
    everything = vendor.deliver(SESSIONS[-1])
    for number, (start, end) in enumerate([(0, 100), (200, len(SESSIONS)), (100, 200)]):
        days = {str(day) for day in SESSIONS[start:end]}
        run(
            house,
            rectangle(SESSIONS[start:end], [TICKER]),
            [bar for bar in everything if bar["date"] in days],
            f"{number:08d}-run",
        )
    assert without_provenance(house) == without_provenance(in_a_piece)


def test_prices_as_traded_are_adjusted_for_every_split(
    spark: SparkSession, tmp_path: Path, vendor: Vendor, in_a_piece: Clocked
) -> None:
    house = clocked(tmp_path / "lake", spark)
    bars = [bar for on in SESSIONS for bar in vendor.deliver(on, on)]  # each as on its own evening
    house._at = LATER
    run(house, rectangle(SESSIONS, [TICKER]), bars)
    assert without_provenance(house) == without_provenance(in_a_piece)


def test_without_actions_the_delivered_adj_close_is_used_and_the_basis_says_so(
    spark: SparkSession, tmp_path: Path, vendor: Vendor
) -> None:
    house = clocked(tmp_path / "lake", spark)
    delivered(house, vendor, SESSIONS[80], SESSIONS[0], 1, actions=False)
    rows = house.lake.curated.open().to_pyarrow_table().sort_by("date").to_pylist()
    assert {row["price_basis"] for row in rows} == {"total_return_delivered"}
    assert [row["adj_close"] for row in rows] == [float(str(bar["adj_close"])) for bar in vendor.deliver(SESSIONS[80])]
    # Later deliveries name their actions: the old ones are brought to them, by the dividends since and the split.
    delivered(house, vendor, SESSIONS[-1], SESSIONS[81], 2)
    rows = house.lake.curated.open().to_pyarrow_table().sort_by("date").to_pylist()
    right = [float(str(bar["adj_close"])) for bar in vendor.deliver(SESSIONS[-1])]
    assert [row["adj_close"] for row in rows] == pytest.approx(right, rel=1e-12)
    assert {row["price_basis"] for row in rows[81:]} == {"total_return"}


def test_a_dividend_restates_adj_close_and_no_feature_but_those_that_are_new(
    spark: SparkSession, tmp_path: Path, vendor: Vendor
) -> None:
    house = clocked(tmp_path / "lake", spark)
    day = SESSIONS[20 + 63]
    delivered(house, vendor, SESSIONS[20 + 62], SESSIONS[0], 1)
    before = layers(house)
    delivered(house, vendor, day, day, 2)
    after = layers(house)
    assert after["features"][:-1] == before["features"]
    changed = [
        {name for name in old if old[name] != new[name]}
        for old, new in zip(before["curated"], after["curated"], strict=False)
    ]
    assert set().union(*changed) == {"adj_close"}
    assert all(changed)


@pytest.mark.slow
@pytest.mark.slice(1)
@pytest.mark.parametrize("before", ["replace", "_clear_rewrites"])
def test_a_run_that_ends_amid_an_action_is_made_good_by_the_next_of_any_year(
    spark: SparkSession, tmp_path: Path, vendor: Vendor, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    house, right = clocked(tmp_path / "lake", spark), clocked(tmp_path / "right", spark)
    for one in (house, right):
        delivered(one, vendor, SESSIONS[SESSIONS.index(SPLIT) - 1], SESSIONS[0], 1)
    delivered(right, vendor, SPLIT, SPLIT, 2)

    real = curation.replace

    def ends(first: object, *rest: Any) -> bool:
        if isinstance(first, DeltaTable) and first.table != CORPORATE_ACTIONS:
            return real(first, *rest)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(*((curation, "replace") if before == "replace" else (curation, "_clear_rewrites")), ends)
        with pytest.raises(KeyboardInterrupt):
            delivered(house, vendor, SPLIT, SPLIT, 2)
    # Of a year that has nothing to do with it.
    run(house, rectangle(SESSIONS[:3], [TICKER]), (), "00000003-run", steps=[CURATED.name, FEATURES.name])
    found, expected = without_provenance(house), without_provenance(right)
    assert found["curated"] == expected["curated"]
    assert found["features"] == [
        row for row in expected["features"] if row["date"] != SPLIT
    ]  # which no run asked of features
    assert list(house.lake.storage.walk(curation.REWRITE_MARKERS)) == []
    assert actions(house) == actions(right)


@pytest.mark.slow
@pytest.mark.slice(2)
@pytest.mark.parametrize("content", [b"", b'["AA', b'{"AAA": 1}', b"[1]", b"\xff\xfe"])
def test_a_cut_marker_may_be_of_any_ticker_and_goes_when_all_were_looked_at(
    spark: SparkSession, tmp_path: Path, content: bytes
) -> None:
    tickers = ("AAA", "BBB")
    house = clocked(tmp_path / "lake", spark, tickers)
    days = SESSIONS[:5]
    run(house, rectangle(days, tickers), history(tickers, days).values())
    lake, before = house.lake, layers(house)
    lake.storage.create(f"{curation.REWRITE_MARKERS}/cut.json", content)
    lake.storage.create(f"{curation.REWRITE_MARKERS}/.never-renamed.json.tmp", content)
    assert curation.pending_rewrites(lake, ("AAA", "BBB", "ZZZ")) == {"AAA", "BBB", "ZZZ"}
    run(house, rectangle(days, ("AAA",)), steps=[CURATED.name])
    assert curation.pending_rewrites(lake, ("AAA", "BBB")) == {"BBB"}
    run(house, rectangle(days, ("BBB",)), steps=[CURATED.name])
    assert curation.pending_rewrites(lake, ("AAA", "BBB")) == set()
    assert [file.name for file in lake.storage.walk(curation.REWRITE_MARKERS)] == [".never-renamed.json.tmp"]
    assert layers(house) == before


@pytest.mark.slow
def test_an_action_that_the_vendor_takes_back_is_taken_back_everywhere(
    spark: SparkSession, tmp_path: Path, vendor: Vendor
) -> None:
    house, right = clocked(tmp_path / "lake", spark), clocked(tmp_path / "right", spark)
    wrong = Vendor(TICKER, vendor.bars, {}, {**vendor.dividends, SESSIONS[60]: 1.5})
    plain = Vendor(TICKER, vendor.bars, {}, vendor.dividends)
    on = SESSIONS[100]
    delivered(house, wrong, on, SESSIONS[0], 1)
    delivered(house, plain, on, SESSIONS[60], 2)
    delivered(right, plain, on, SESSIONS[0], 1)
    assert without_provenance(house) == without_provenance(right)
    assert {row["ex_date"] for row in actions(house)} == {day for day in vendor.dividends if day <= on}


def causes(house: Clocked, run_id: str) -> dict[str, set[str]]:
    """The causes of a run's lines, by table."""
    found: dict[str, set[str]] = {}
    for line in ledger(house):
        if line["run_id"] == run_id:
            found.setdefault(line["table_name"], set()).add(line["cause"])
    return found


@pytest.mark.soak
def test_the_ledger_names_a_split_with_a_line_a_column_and_not_one_a_value(
    spark: SparkSession, tmp_path: Path, vendor: Vendor
) -> None:
    house = clocked(tmp_path / "lake", spark)
    place = SESSIONS.index(SPLIT)
    delivered(house, vendor, SESSIONS[place - 1], SESSIONS[0], 1)
    delivered(house, vendor, SPLIT, SPLIT, 2)
    assert causes(house, "00000002-run") == {CURATED.name: {"split"}, FEATURES.name: {"split"}}
    lines = {line["columns"]: line for line in ledger(house) if line["table_name"] == CURATED.name}
    paid = [day for day in vendor.dividends if day < SPLIT]
    assert {name: line["rows"] for name, line in lines.items()} == {
        **dict.fromkeys(("open", "high", "low", "close", "adj_close", "volume"), place),
        "dividend": len(paid),
    }
    close = lines["close"]
    assert (close["date"], float(close["old"])) == (SESSIONS[0], vendor.close(SESSIONS[0]))
    assert float(close["new"]) == vendor.close(SESSIONS[0]) / 4
    # Delivered once more, now adjusted by the vendor: nothing that was published changes.
    delivered(house, vendor, SESSIONS[place + 1], SESSIONS[0], 3)
    assert causes(house, "00000003-run") == {}


@pytest.mark.slow
def test_a_split_that_comes_with_the_bars_adjusted_for_it_is_a_split_and_no_edit(
    spark: SparkSession, tmp_path: Path, vendor: Vendor
) -> None:
    house = clocked(tmp_path / "lake", spark)
    delivered(house, vendor, SESSIONS[SESSIONS.index(SPLIT) - 1], SESSIONS[0], 1)
    delivered(house, vendor, SPLIT, SESSIONS[0], 2)
    assert causes(house, "00000002-run") == {CURATED.name: {"split"}, FEATURES.name: {"split"}}


@pytest.mark.slow
def test_the_ledger_names_a_dividend_an_edit_a_late_bar_and_a_withdrawn_one(
    spark: SparkSession, tmp_path: Path, vendor: Vendor
) -> None:
    house = clocked(tmp_path / "lake", spark)
    day = SESSIONS[20 + 63]
    before, gap = SESSIONS[20 + 62], SESSIONS[50]
    bars = {date.fromisoformat(str(bar["date"])): bar for bar in vendor.deliver(before)}
    asked = rectangle([one for one in SESSIONS if one <= before], [TICKER])
    house._at = at(before)
    run(house, asked, [bar for one, bar in bars.items() if one != gap], "00000001-run")
    delivered(house, vendor, day, day, 2)
    assert causes(house, "00000002-run") == {CURATED.name: {"dividend"}}
    house._at += timedelta(days=1)
    run(house, asked, [bars[gap]], "00000003-run")
    # Earlier bars' adj_close is as before; of features all that follow are others.
    assert causes(house, "00000003-run") == {FEATURES.name: {"late bar"}}
    house._at += timedelta(days=1)
    run(house, asked, [{**bars[gap], "close": repr(float(str(bars[gap]["close"])) * 1.002)}], "00000004-run")
    assert causes(house, "00000004-run") == {CURATED.name: {"vendor edit"}, FEATURES.name: {"vendor edit"}}
    house._at += timedelta(days=1)
    files = [file.path for file in house.lake.raw.files() if "_00000003" in file.name or "_00000004" in file.name]
    house.lake.storage.delete(files)
    run(house, asked, (), "00000005-run")
    assert causes(house, "00000005-run") == {CURATED.name: {"withdrawn"}, FEATURES.name: {"withdrawn"}}


@pytest.mark.slow
def test_a_final_bar_in_place_of_a_provisional_one_is_a_late_bar(
    spark: SparkSession, tmp_path: Path, vendor: Vendor
) -> None:
    house = clocked(tmp_path / "lake", spark)
    day = SESSIONS[70]
    delivered(house, vendor, SESSIONS[69], SESSIONS[0], 1)
    asked = rectangle([day], [TICKER])
    (final,) = vendor.deliver(day, day)
    house._at = datetime.combine(day, time(15), UTC)  # 11 in the morning in New York
    run(house, asked, [{**final, "close": final["open"], "volume": "7"}], "00000002-run")
    house._at = at(day)
    run(house, asked, [final], "00000003-run")
    assert causes(house, "00000003-run") == {CURATED.name: {"late bar"}, FEATURES.name: {"late bar"}}


@pytest.mark.slow
def test_features_of_a_run_killed_after_its_bars_still_have_their_cause(
    spark: SparkSession, tmp_path: Path, vendor: Vendor
) -> None:
    house = clocked(tmp_path / "lake", spark)
    delivered(house, vendor, SESSIONS[60], SESSIONS[0], 1)
    bar = vendor.deliver(SESSIONS[60])[40]
    asked = rectangle([SESSIONS[40]], [TICKER])
    house._at += timedelta(days=1)
    edited = {**bar, "close": repr(float(str(bar["close"])) * 1.002)}
    run(house, asked, [edited], "00000002-run", steps=[RAW.name, PROCESSED.name, CURATED.name])
    house._at += timedelta(days=1)
    run(house, asked, (), "00000003-run")
    assert causes(house, "00000003-run") == {FEATURES.name: {"vendor edit"}}


def test_other_formulas_are_the_cause_of_features_that_they_changed(
    spark: SparkSession, tmp_path: Path, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = clocked(tmp_path / "lake", spark)
    delivered(house, vendor, SESSIONS[60], SESSIONS[0], 1)
    monkeypatch.setattr(indicators, "FORMULA_VERSION", 99)
    run(house, rectangle([SESSIONS[40]], [TICKER]), (), "00000002-run")
    assert causes(house, "00000002-run") == {FEATURES.name: {"formula change"}}


@pytest.mark.slow
def test_a_vendor_that_changes_much_is_reported_and_one_whose_shares_split_is_not(
    spark: SparkSession, tmp_path: Path, vendor: Vendor
) -> None:
    house = clocked(tmp_path / "lake", spark)
    delivered(house, vendor, SESSIONS[SESSIONS.index(SPLIT) - 1], SESSIONS[0], 1)
    delivered(house, vendor, SPLIT, SPLIT, 2)

    def check(allowed: float = 0.01, later: timedelta = timedelta(days=1)) -> bool:
        lines, bars = house.lake.restatements(spark), house.lake.curated.read(spark)
        return bool(restated_share(lines, bars, house._at + later, allowed).passed)

    assert check()
    edits = [{**bar, "open": bar["close"]} for bar in vendor.deliver(SPLIT)[10:14]]
    house._at += timedelta(days=1)
    run(house, rectangle(SESSIONS[10:14], [TICKER]), edits, "00000003-run")
    assert not check()
    assert check(allowed=0.05)
    assert check(later=timedelta(days=31))


@pytest.mark.slow
@pytest.mark.parametrize("deliveries", [3, pytest.param(12, marks=pytest.mark.soak)])
def test_a_real_history_delivered_in_parts_is_as_if_delivered_in_a_piece_and_has_yahoos_adjusted_close(
    spark: SparkSession, tmp_path: Path, deliveries: int
) -> None:
    """Apple, 2013 to 2023: splits of 7 and 4 for 1, 43 dividends; each part as Yahoo would have delivered it on its last day."""
    vendor = apple()
    days = list(vendor.bars)

    def lakehouse(name: str) -> Clocked:
        house = Clocked.of(
            Settings(lake_root=tmp_path / name, tickers=("AAPL",), first_date=days[0], last_date=days[-1])
        )
        house.spark._session = spark
        return house

    parts, piece = lakehouse("parts"), lakehouse("piece")
    size = -(-len(days) // deliveries)
    for number, start in enumerate(range(0, len(days), size), start=1):
        part = days[start : start + size]
        parts._at = at(part[-1])
        run(parts, rectangle(part, ["AAPL"]), vendor.deliver(part[-1], part[0]), f"{number:08d}-run")
    piece._at = at(days[-1])
    run(piece, rectangle(days, ["AAPL"]), vendor.deliver(days[-1]), "00000001-run")
    assert without_provenance(parts) == without_provenance(piece)
    yahoos = {date.fromisoformat(row["date"]): float(row["adjusted"]) for row in sample_of("AAPL")}
    rows = parts.lake.curated.open().to_pyarrow_table().to_pylist()
    assert len(rows) == len(yahoos) == 2699
    assert max(abs(row["adj_close"] / yahoos[row["date"]] - 1) for row in rows) < 1e-6
    kinds = [row["kind"] for row in actions(parts)]
    assert (kinds.count("split"), kinds.count("dividend")) == (2, 43)


def test_actions_that_break_their_schema_are_not_published_nor_the_bars_adjusted_by_them(
    spark: SparkSession, tmp_path: Path, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = clocked(tmp_path / "lake", spark)
    delivered(house, vendor, SESSIONS[SESSIONS.index(SPLIT) - 1], SESSIONS[0], 1)
    before, lines = layers(house), ledger(house)
    actions_in = curation.actions_in

    def with_negative_values(bars: DataFrame) -> DataFrame:
        return actions_in(bars).withColumn("value", -F.col("value"))

    monkeypatch.setattr(curation, "actions_in", with_negative_values)
    with pytest.raises(
        dg.Failure, match=r"corporate_actions: \d+ failures of its schema, the first in value: .*"
    ) as failed:
        delivered(house, vendor, SPLIT, SPLIT, 2)
    assert failed.value.allow_retries is False
    assert {name: rows for name, rows in layers(house).items() if name != "processed"} == {
        name: rows for name, rows in before.items() if name != "processed"
    }
    assert ledger(house) == lines


@pytest.mark.slow
@pytest.mark.parametrize(("table", "computes"), [(CURATED, "_lines_of_values"), (FEATURES, "Ledger._lines_of_tickers")])
def test_lines_that_break_the_ledgers_schema_are_not_written_nor_what_they_are_about(
    spark: SparkSession, tmp_path: Path, vendor: Vendor, monkeypatch: pytest.MonkeyPatch, table: Table, computes: str
) -> None:
    house = clocked(tmp_path / "lake", spark)
    delivered(house, vendor, SESSIONS[60], SESSIONS[0], 1)
    edited = {**vendor.deliver(SESSIONS[60])[40], "volume": "7"}
    steps = [RAW.name, PROCESSED.name, CURATED.name, FEATURES.name]
    house._at += timedelta(days=1)
    asked = rectangle([SESSIONS[40]], [TICKER])
    run(house, asked, [edited], "00000002-run", steps=steps[: steps.index(table.name)])
    before, lines = layers(house), ledger(house)
    owner, _, name = computes.rpartition(".")
    holder = getattr(ledger_module, owner) if owner else ledger_module
    compute = getattr(holder, name)

    def with_no_rows(*arguments: Any) -> DataFrame:
        return compute(*arguments).withColumn("rows", F.lit(0).cast("bigint"))

    with monkeypatch.context() as patched:
        patched.setattr(holder, name, with_no_rows)
        with pytest.raises(dg.Failure, match="restatements: 1 failures of its schema, the first in rows"):
            run(house, asked, (), "00000002-run", steps=[table.name])
    assert layers(house) == before
    assert ledger(house) == lines
    run(house, asked, (), "00000003-run", steps=[table.name])
    assert "00000003-run" in {line["run_id"] for line in ledger(house)}
