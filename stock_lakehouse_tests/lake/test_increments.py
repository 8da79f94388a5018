"""Publishing only what changed: increments in any order end where one run ends, and a correction changes what it must.

The oracle of features is the indicator kernel over plain arrays; no engine, no publish.
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import deltalake
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession

from stock_lakehouse.indicators.registry import INDICATORS, compute
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.lake.publish import PublishError
from stock_lakehouse.layers import features as layer
from stock_lakehouse.layers.features import Span
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.tables import CURATED, FEATURES, PROCESSED, RAW
from stock_lakehouse.transforms.features import ALL_YEARS
from stock_lakehouse_tests.conftest import bytes_of
from stock_lakehouse_tests.graph import (
    NOW,
    TICKERS,
    Bars,
    Clocked,
    Key,
    clocked,
    contents,
    edited,
    history,
    layers,
    ledger,
    raw_contents,
    rectangle,
    run,
    sessions_of,
    step,
    year_boundary,
)

VOLUME_FEATURES = {"volume_sma_20", "volume_sma_50"}
RETURN_FEATURES = {"return_1d", "volatility_20"}
PRICE_FEATURES = {one.name for one in INDICATORS} - VOLUME_FEATURES - RETURN_FEATURES
DEPENDS_ON = {"close": PRICE_FEATURES, "volume": VOLUME_FEATURES, "adj_close": RETURN_FEATURES, "open": set()}
LATER = NOW + timedelta(days=1)


def bounded(examples: int) -> Any:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],  # an example takes seconds: a smaller one is not worth the wait
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    )


def everything(bars: Bars) -> Rectangle:
    return rectangle({day for _, day in bars}, {ticker for ticker, _ in bars})


def inside(bars: Bars, asked: Rectangle) -> list[dict[str, str | None]]:
    return [row for (ticker, day), row in bars.items() if ticker in asked.tickers and day in asked.sessions]


def versions(house: Clocked) -> dict[str, int | None]:
    tables = (house.lake.curated, house.lake.features)
    return {table.table.name: table.version() for table in tables}


# Splits of a history


@st.composite
def histories(draw: st.DrawFn) -> Bars:
    tickers = TICKERS[: draw(st.integers(1, 3))]
    before, after = draw(st.integers(20, 210)), draw(st.integers(10, 50))
    return history(tickers, year_boundary(before, after), draw(st.integers(0, 10**6)))


@st.composite
def splits(draw: st.DrawFn, bars: Bars, most: int) -> list[Rectangle]:
    """Rectangles that together cover `bars`, in any order; sessions may interleave, and rectangles may overlap."""
    whole = everything(bars)
    sessions, tickers = whole.sessions, whole.tickers
    cuts = sorted(draw(st.sets(st.integers(1, len(sessions) - 1), min_size=1, max_size=most - 1)))
    parts = [sessions[start:end] for start, end in zip([0, *cuts], [*cuts, len(sessions)], strict=True)]
    found = [rectangle(part, tickers) for part in parts]
    if len(found) < most and len(tickers) > 1:
        asked = found.pop(draw(st.integers(0, len(found) - 1)))
        at = draw(st.integers(1, len(tickers) - 1))
        found += [rectangle(asked.sessions, tickers[:at]), rectangle(asked.sessions, tickers[at:])]
    if len(found) < most and draw(st.booleans()):
        asked = found.pop(draw(st.integers(0, len(found) - 1)))
        found += [rectangle(half, asked.tickers) for half in (asked.sessions[::2], asked.sessions[1::2]) if half]
    if draw(st.booleans()):
        wider = draw(st.integers(0, len(found) - 1))
        start = max(0, sessions.index(found[wider].first) - 3)
        found[wider] = rectangle(sessions[start : sessions.index(found[wider].last) + 1], found[wider].tickers)
    return draw(st.permutations(found))


def check_split(spark: SparkSession, bars: Bars, parts: list[Rectangle], whole_deliveries: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        one, many = (clocked(Path(folder, name), spark) for name in ("one", "many"))
        run(one, everything(bars), bars.values())
        published: set[Key] = set()
        for asked in parts:
            # A source may bring more than it was asked for.
            run(many, asked, bars.values() if whole_deliveries else inside(bars, asked))
            published |= {(ticker, day) for ticker in asked.tickers for day in asked.sessions}
            for name in ("processed", "curated", "features"):
                there = {(row["ticker"], row["date"]) for row in layers(many)[name]}
                assert there == published, f"{name} after {asked}"
        assert layers(many) == layers(one)
        assert {line["table_name"] for line in ledger(many)} <= {FEATURES.name}
        assert ledger(one) == []

        files, before = bytes_of(many.lake.root), versions(many)
        for asked in (parts[0], everything(bars)):
            run(many, asked, bars.values())
        assert bytes_of(many.lake.root) == files
        assert versions(many) == before


@pytest.mark.slow
@bounded(2)
@given(data=st.data())
def test_increments_in_any_order_end_in_the_tables_of_one_run(spark: SparkSession, data: st.DataObject) -> None:
    bars = data.draw(histories())
    check_split(spark, bars, data.draw(splits(bars, 3)), data.draw(st.booleans()))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@bounded(40)
@given(data=st.data())
def test_many_increments_in_any_order_end_in_the_tables_of_one_run(spark: SparkSession, data: st.DataObject) -> None:
    bars = data.draw(histories())
    check_split(spark, bars, data.draw(splits(bars, 7)), data.draw(st.booleans()))


# Corrections


@pytest.fixture(scope="module")
def loaded(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bars]:
    """A lake of two tickers, 230 sessions before and 30 after a year's end. Tests copy it."""
    root = tmp_path_factory.mktemp("loaded") / "lake"
    bars = history(("AAA", "BBB"), year_boundary(230, 30))
    run(clocked(root, spark), everything(bars), bars.values())
    return root, bars


@pytest.fixture
def house(loaded: tuple[Path, Bars], spark: SparkSession, tmp_path: Path) -> Clocked:
    """A copy of the loaded lake, a day later."""
    shutil.copytree(loaded[0], tmp_path / "lake", copy_function=shutil.copy2)
    house = clocked(tmp_path / "lake", spark)
    house._at = LATER
    return house


@pytest.fixture
def bars(loaded: tuple[Path, Bars]) -> Bars:
    return loaded[1]


def expected_features(bars: Bars, ticker: str) -> dict[Key, dict[str, Any]]:
    """The kernel's values of `ticker`, hexadecimal, nan as None."""
    days = sorted(day for name, day in bars if name == ticker)
    columns: dict[str, Any] = {
        name: np.array([float(bars[ticker, day][name]) for day in days])  # type: ignore[arg-type]
        for name in ("close", "adj_close", "volume")
    }
    columns["dividend"] = np.full(len(days), np.nan)
    columns["total_return"] = np.ones(len(days), dtype=bool)
    values = compute(columns)

    def exact(value: Any) -> Any:
        return bool(value) if isinstance(value, np.bool_) else None if np.isnan(value) else float(value).hex()

    return {(ticker, day): {name: exact(values[name][at]) for name in values} for at, day in enumerate(days)}


Difference = dict[Key, set[str]]


def difference(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Difference:
    """The columns that differ of each (ticker, date); all columns of a row that only one side has."""
    left, right = ({(row["ticker"], row["date"]): row for row in rows} for rows in (old, new))
    found: Difference = {}
    for key in left.keys() | right.keys():
        one, other = left.get(key, {}), right.get(key, {})
        changed = {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}
        if changed:
            found[key] = changed
    return found


def files_of(table: DeltaTable) -> dict[str, tuple[int, int]]:
    """The files of the present version, with inode and time of change."""
    uris = [Path(uri.removeprefix("file://")) for uri in table.open().file_uris()]
    return {str(path.relative_to(table.path)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in uris}


def bars_of(lake: Lake) -> dict[str, tuple[int, int]]:
    """The files of processed bars, with inode and time of change."""
    return {path: stat for path, stat in bytes_of(lake.processed.root).items() if path.endswith("/data.parquet")}


def check_correction(house: Clocked, old: Bars, new: Bars, asked: Rectangle, run_id: str = "22222222-run") -> None:
    """Run for `asked` after the vendor edited `old` to `new`, and hold every layer and the ledger against the edit."""
    lake = house.lake
    edits = {
        key: {name for name in new[key] if new[key][name] != old[key][name]} for key in new if new[key] != old[key]
    }
    before, raw_before, lines_before = layers(house), raw_contents(lake), ledger(house)
    files = {"processed": bars_of(lake)}
    delta = {"curated": lake.curated, "features": lake.features}
    files |= {name: files_of(table) for name, table in delta.items()}
    delivered = inside(new, asked)
    run(house, asked, delivered, run_id)
    after = layers(house)

    assert [row for row in raw_contents(lake) if row in raw_before] == raw_before  # append-only
    assert len(raw_contents(lake)) - len(raw_before) == len(edits)
    changed = {name: difference(before[name], after[name]) for name in ("processed", "curated", "features")}
    for name in ("processed", "curated"):
        assert changed[name] == {key: {*columns, "ingested_at"} for key, columns in edits.items()}

    wanted: Difference = {}
    for ticker in {ticker for ticker, _ in edits}:
        was, becomes = expected_features(old, ticker), expected_features(new, ticker)
        wanted |= {
            key: {name for name in becomes[key] if becomes[key][name] != was[key][name]}
            for key in becomes
            if becomes[key] != was[key]
        }
        held = {(row["ticker"], row["date"]): row for row in after["features"]}
        assert {key: {name: held[key][name] for name in becomes[key]} for key in becomes} == becomes
    assert changed["features"] == wanted
    for ticker, day in wanted:
        causes = [columns for (name, edit), columns in edits.items() if name == ticker and edit <= day]
        assert causes, "a feature changed before the session of the edit"
        assert wanted[ticker, day] <= set().union(*(DEPENDS_ON[column] for columns in causes for column in columns))

    # Only ticker-years with a difference are rewritten; the files of the others are the same files.
    now = {"processed": bars_of(lake), **{name: files_of(table) for name, table in delta.items()}}
    for name, rows in changed.items():
        touched = tuple(f"ticker={ticker}/year={day.year}/" for ticker, day in rows)
        kept = {path: stat for path, stat in files[name].items() if not path.startswith(touched)}
        assert {path: stat for path, stat in now[name].items() if path in kept} == kept
        assert all(path.startswith(touched) for path in now[name].keys() - kept.keys())

    lines = [line for line in ledger(house) if line not in lines_before]
    assert {(line["run_id"], line["restated_at"]) for line in lines} <= {(run_id, house.now())}
    assert sorted(
        (line["ticker"], line["date"], line["columns"], line["old"], line["new"], line["rows"])
        for line in lines
        if line["table_name"] == "curated_stocks_daily"
    ) == sorted(
        (*key, column, as_text(old[key][column], column), as_text(new[key][column], column), 1)
        for key, columns in edits.items()
        for column in columns
    )
    assert sorted(
        (line["ticker"], line["date"], line["columns"], line["old"], line["new"], line["rows"])
        for line in lines
        if line["table_name"] == "stocks_features"
    ) == sorted(
        (
            ticker,
            min(day for name, day in wanted if name == ticker),
            ",".join(sorted(set().union(*(columns for (name, _), columns in wanted.items() if name == ticker)))),
            None,
            None,
            sum(name == ticker for name, _ in wanted),
        )
        for ticker in {ticker for ticker, _ in wanted}
    )


def as_text(text: str | None, column: str) -> str:
    """How the ledger writes a delivered number."""
    assert text is not None
    return str(int(text)) if column == "volume" else repr(float(text))


@pytest.mark.slow
@pytest.mark.slice(2)
@pytest.mark.parametrize("column", ["close", "volume", "adj_close", "open"])
def test_a_corrected_bar_changes_exactly_what_depends_on_it(house: Clocked, bars: Bars, column: str) -> None:
    day = year_boundary(230, 30)[100]
    key = ("BBB", day)
    text = "12345" if column == "volume" else repr(float(bars[key][column] or 0) * 1.001)
    check_correction(house, bars, edited(bars, key, **{column: text}), rectangle([day], ["BBB"]))


@st.composite
def edits(draw: st.DrawFn, bars: Bars) -> Bars:
    new = bars
    for _ in range(draw(st.integers(1, 4))):
        key = draw(st.sampled_from(sorted(bars)))
        column = draw(st.sampled_from(sorted(DEPENDS_ON)))
        if column == "volume":
            text = str(draw(st.integers(0, 2**40)))
        else:
            text = repr(float(bars[key][column] or 0) * draw(st.floats(0.995, 1.005)))
        new = edited(new, key, **{column: text})
    return new


@pytest.mark.slow
@bounded(2)
@given(data=st.data())
def test_any_corrections_change_exactly_what_depends_on_them(
    loaded: tuple[Path, Bars], spark: SparkSession, data: st.DataObject
) -> None:
    check_any_corrections(loaded, spark, data)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@bounded(40)
@given(data=st.data())
def test_many_corrections_change_exactly_what_depends_on_them(
    loaded: tuple[Path, Bars], spark: SparkSession, data: st.DataObject
) -> None:
    check_any_corrections(loaded, spark, data)


def check_any_corrections(loaded: tuple[Path, Bars], spark: SparkSession, data: st.DataObject) -> None:
    root, bars = loaded
    new = data.draw(edits(bars))
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(root, Path(folder, "lake"), copy_function=shutil.copy2)
        house = clocked(Path(folder, "lake"), spark)
        house._at = LATER
        check_correction(house, bars, new, everything(bars))


@pytest.mark.slow
def test_a_value_that_changes_back_leaves_two_lines_in_the_ledger(house: Clocked, bars: Bars) -> None:
    day = year_boundary(230, 30)[-1]
    key = ("AAA", day)
    before = layers(house)
    new = edited(bars, key, volume="7")
    check_correction(house, bars, new, rectangle([day], ["AAA"]), "22222222-run")
    house._at = LATER + timedelta(days=1)
    check_correction(house, new, bars, rectangle([day], ["AAA"]), "33333333-run")
    assert difference(before["curated"], layers(house)["curated"]) == {key: {"ingested_at"}}
    assert layers(house)["features"] == before["features"]


def test_a_bar_delivered_again_in_other_words_restates_nothing(house: Clocked, bars: Bars) -> None:
    day = year_boundary(230, 30)[50]
    key = ("AAA", day)
    before = layers(house)
    run(house, rectangle([day], ["AAA"]), [edited(bars, key, close=f"{bars[key]['close']}0")[key]])
    after = layers(house)
    assert difference(before["curated"], after["curated"]) == {key: {"ingested_at"}}
    assert after["features"] == before["features"]
    assert ledger(house) == []


def test_a_run_corrects_published_rows_outside_its_keys_and_adds_none(house: Clocked, bars: Bars) -> None:
    sessions = year_boundary(230, 31)
    old, key_of_run, new = sessions[235], sessions[240], sessions[-1]
    assert {day.year for day in (old, key_of_run, new)} == {2020}  # a run reads the years of its sessions
    more = history(("AAA", "BBB"), sessions)
    key = ("AAA", old)
    text = repr(float(bars[key]["close"] or 0) * 1.001)
    before = layers(house)
    # The edit and the new sessions are landed, but published by a run whose keys are another session alone.
    rows = [edited(bars, key, close=text)[key], more["AAA", new], more["BBB", new]]
    run(house, rectangle(sessions, ("AAA", "BBB")), rows, steps=["raw_stocks_daily"])
    run(house, rectangle([key_of_run], ["AAA"]))
    after = layers(house)
    assert difference(before["curated"], after["curated"]) == {key: {"close", "ingested_at"}}
    assert {day for _, day in difference(before["features"], after["features"])} == set(sessions[235:-1])
    run(house, rectangle([new], ["AAA"]))
    assert {("AAA", new)} == difference(after["curated"], layers(house)["curated"]).keys()


def test_a_run_for_one_ticker_leaves_another_as_it_is(house: Clocked, bars: Bars) -> None:
    day = year_boundary(230, 30)[10]
    both = edited(edited(bars, ("AAA", day), volume="1"), ("BBB", day), volume="2")
    before = layers(house)
    run(house, rectangle([day], ["AAA", "BBB"]), [both["AAA", day], both["BBB", day]], steps=["raw_stocks_daily"])
    run(house, rectangle([day], ["AAA"]))
    assert difference(before["processed"], layers(house)["processed"]).keys() == {("AAA", day)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "sessions",
    [pytest.param(1, id="one session", marks=pytest.mark.soak), pytest.param(30, id="a whole ticker-year")],
)
def test_a_bar_that_raw_no_longer_holds_is_withdrawn(spark: SparkSession, tmp_path: Path, sessions: int) -> None:
    days = year_boundary(60, 30)
    gone = set(days[len(days) - sessions :])
    bars = history(("AAA", "BBB"), days)
    kept = {key: row for key, row in bars.items() if key[0] == "BBB" or key[1] not in gone}
    house, other = clocked(tmp_path / "lake", spark), clocked(tmp_path / "other", spark)
    run(other, everything(bars), kept.values())
    run(house, everything(bars), kept.values())
    run(house, everything(bars), bars.values(), "22222222-run")
    house.lake.storage.delete(file.path for file in house.lake.raw.files() if "_22222222_" in file.name)
    full = layers(house)["features"]
    house._at = LATER
    run(house, rectangle(sorted(gone)[:1], ["AAA"]), run_id="33333333-run")
    assert layers(house) == layers(other)
    lines = ledger(house)
    curated = [line for line in lines if line["table_name"] == "curated_stocks_daily"]
    assert {(line["ticker"], line["date"]) for line in curated} == {("AAA", day) for day in gone}
    assert {line["new"] for line in curated} == {None}
    values = {
        "open",
        "high",
        "low",
        "close",
        "adj_close",
        "volume",
        "dividend",
        "split_ratio",
        "price_basis",
        "bar_status",
    }
    assert {line["columns"] for line in curated} == values
    (features,) = [line for line in lines if line["table_name"] == "stocks_features"]
    lost = difference(full, layers(other)["features"])
    assert (features["date"], features["rows"]) == (min(day for _, day in lost), len(lost))
    files = bytes_of(house.lake.root)
    run(house, everything(bars), kept.values(), "44444444-run")
    assert bytes_of(house.lake.root) == files


def test_a_session_before_all_others_restates_every_feature_that_follows(house: Clocked, bars: Bars) -> None:
    sessions = year_boundary(231, 30)
    first = sessions[0]
    assert isinstance(first, date)
    early = history(("AAA",), [first], seed=1)["AAA", first]
    before = layers(house)
    run(house, rectangle([first], ["AAA"]), [early], run_id="22222222-run")
    after = layers(house)
    assert difference(before["curated"], after["curated"]).keys() == {("AAA", first)}
    assert ledger(house)[0]["columns"].split(",") == sorted(
        set().union(
            *(columns for key, columns in difference(before["features"], after["features"]).items() if key[1] != first)
        )
    )
    expected = expected_features({**bars, ("AAA", first): early}, "AAA")
    held = {(row["ticker"], row["date"]): row for row in after["features"] if row["ticker"] == "AAA"}
    assert {key: {name: held[key][name] for name in expected[key]} for key in held} == expected


def test_a_commit_that_lost_rows_is_taken_back_and_restates_nothing(
    house: Clocked, bars: Bars, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = year_boundary(230, 30)[-1]
    new = edited(bars, ("AAA", day), close=bars["AAA", day]["open"])
    before = layers(house)
    whole = DeltaTable.overwrite

    def loses_a_row(self: DeltaTable, wanted: DataFrame, *more: Any) -> bool:
        return whole(self, wanted.where(f"date <> '{day}'"), *more)

    monkeypatch.setattr(DeltaTable, "overwrite", loses_a_row)
    with pytest.raises(
        PublishError, match=r"version 2 holds 29 rows of ticker=AAA/year=2020, not 30; .* restored to version 1"
    ):
        run(house, rectangle([day], ["AAA"]), [new["AAA", day]], "22222222-run")
    assert layers(house)["curated"] == before["curated"]
    assert ledger(house) == []
    monkeypatch.undo()
    run(house, rectangle([day], ["AAA"]), run_id="33333333-run")
    assert difference(before["curated"], layers(house)["curated"]) == {("AAA", day): {"close", "ingested_at"}}
    assert {line["run_id"] for line in ledger(house)} == {"33333333-run"}


def test_a_run_that_ends_after_it_took_a_commit_back_leaves_no_line_of_it(
    house: Clocked, bars: Bars, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = year_boundary(230, 30)[-1]
    new = edited(bars, ("AAA", day), close=bars["AAA", day]["open"])
    before = layers(house)
    whole, restore = DeltaTable.overwrite, deltalake.DeltaTable.restore

    def loses_a_row(self: DeltaTable, wanted: DataFrame, *more: Any) -> bool:
        return whole(self, wanted.where(f"date <> '{day}'"), *more)

    def restores_and_ends(self: deltalake.DeltaTable, version: int) -> None:
        restore(self, version)
        raise KeyboardInterrupt

    monkeypatch.setattr(DeltaTable, "overwrite", loses_a_row)
    monkeypatch.setattr(deltalake.DeltaTable, "restore", restores_and_ends)
    with pytest.raises(KeyboardInterrupt):
        run(house, rectangle([day], ["AAA"]), [new["AAA", day]], "22222222-run")
    assert layers(house)["curated"] == before["curated"]
    assert ledger(house) == []


# The years that features compares


def compared(
    house: Clocked, bars: Bars, days: tuple[date, ...], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, set[str]]:
    """What a run for `days` compares, in which `bars` are delivered: from which year on, and of which tickers all years."""
    seen: list[Span] = []
    real = layer.span_of

    def spied(step: Any) -> Span:
        seen.append(real(step))
        return seen[-1]

    monkeypatch.setattr(layer, "span_of", spied)
    asked = rectangle(days, {ticker for ticker, _ in bars})
    run(house, asked, inside(bars, asked))
    monkeypatch.setattr(layer, "span_of", real)
    return seen[-1].since, set(seen[-1].whole)


THREE_YEARS = sessions_of(date(2019, 11, 1), date(2021, 1, 8))


@pytest.fixture
def grown(tmp_path: Path, spark: SparkSession) -> tuple[Clocked, Bars]:
    """A lake of two tickers over three calendar years, and its bars; the last session is still to come."""
    bars = history(TICKERS[:2], THREE_YEARS, 3)
    house = clocked(tmp_path / "lake", spark)
    asked = rectangle(THREE_YEARS[:-1], TICKERS[:2])
    run(house, asked, inside(bars, asked))
    return house, bars


def rebuilt(bars: Bars, folder: Path, spark: SparkSession) -> list[dict[str, Any]]:
    house = clocked(folder, spark)
    run(house, everything(bars), bars.values())
    return contents(house.lake.features)


@pytest.mark.soak
def test_features_compare_only_years_from_the_first_that_changed(
    grown: tuple[Clocked, Bars], tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    house, bars = grown
    last = THREE_YEARS[-1:]
    assert compared(house, bars, last, monkeypatch) == (2021, set())
    assert contents(house.lake.features) == rebuilt(bars, tmp_path / "first", spark)
    # A correction in 2019 changes averages of 2020, so that all years from 2019 on are compared.
    house._at = LATER
    key = (TICKERS[0], date(2019, 12, 20))
    bars = edited(bars, key, close="61.5", high="99")
    assert compared(house, bars, (key[1],), monkeypatch) == (2019, set())
    changed = {row["date"].year for row in contents(house.lake.features) if row["ticker"] == TICKERS[0]}
    assert changed == {2019, 2020, 2021}
    assert contents(house.lake.features) == rebuilt(bars, tmp_path / "second", spark)
    # A vendor corrects one of the two on a later day: of the other only the run's year is compared.
    house._at = LATER + timedelta(days=1)
    asked = rectangle([key[1]], [TICKERS[0]])
    run(
        house,
        asked,
        inside(bars := edited(bars, key, close="61.6", high="99"), asked),
        steps=(RAW.name, PROCESSED.name, CURATED.name),
    )
    assert compared(house, bars, last, monkeypatch) == (2021, {TICKERS[0]})
    assert contents(house.lake.features) == rebuilt(bars, tmp_path / "third", spark)
    # Nothing changed: the run's own year is enough, and nothing is committed.
    before = versions(house)
    assert compared(house, bars, last, monkeypatch) == (2021, set())
    assert versions(house) == before


@pytest.mark.soak
def test_features_compare_all_years_where_the_newest_commit_does_not_say_what_it_was_computed_from(
    grown: tuple[Clocked, Bars], tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    house, bars = grown
    right = rebuilt(bars, tmp_path / "right", spark)

    def damage(features: deltalake.DeltaTable) -> None:
        features.update(updates={"rsi_14": "1.0"}, predicate="year = 2020")

    damage(house.lake.features.open())
    assert compared(house, bars, THREE_YEARS[-1:], monkeypatch) == (ALL_YEARS, set())
    assert contents(house.lake.features) == right
    # Other tickers than those of the commit, another formula, and a version of curated that is gone.
    of_one = {key: bar for key, bar in bars.items() if key[0] == TICKERS[0]}
    assert compared(house, of_one, THREE_YEARS[-1:], monkeypatch) == (ALL_YEARS, set())
    with monkeypatch.context() as patched:
        patched.setattr(layer, "__version__", "another")
        assert compared(house, bars, THREE_YEARS[-1:], monkeypatch) == (ALL_YEARS, set())
    monkeypatch.setattr(layer, "first_changed_years", partial(changed_since_a_lost_version, layer.first_changed_years))
    house._at = LATER
    bars = edited(bars, (TICKERS[0], THREE_YEARS[-2]), volume="17")
    assert compared(house, bars, THREE_YEARS[-2:], monkeypatch) == (ALL_YEARS, set())


def changed_since_a_lost_version(real: Any, upstream: DeltaTable, version: int, tickers: Any) -> Any:
    """`first_changed_years` where upkeep removed `version` from the log."""
    upstream.open().create_checkpoint()
    for file in Path(str(upstream.path), "_delta_log").glob("*.json"):
        if int(file.name[:20]) <= version:
            file.unlink()
    return real(upstream, version, tickers)


@pytest.mark.slow
def test_a_table_that_another_writer_moved_since_the_years_were_chosen_is_computed_anew(
    grown: tuple[Clocked, Bars], tmp_path: Path, spark: SparkSession
) -> None:
    house, bars = grown
    asked = rectangle(THREE_YEARS[-1:], TICKERS[:2])
    run(house, asked, inside(bars, asked), steps=("raw_stocks_daily", "processed_stocks_daily", "curated_stocks_daily"))
    publish = step(house, FEATURES.name, asked, "22222222-run")
    house.lake.features.open().update(updates={"rsi_14": "1.0"}, predicate="year = 2019")
    with pytest.raises(dg.RetryRequested):
        publish()
    step(house, FEATURES.name, asked, "22222222-run")()
    assert contents(house.lake.features) == rebuilt(bars, tmp_path / "right", spark)
