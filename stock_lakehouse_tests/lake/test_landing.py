"""Which delivered rows land, and what is known of the basis of their prices, over several runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.lake.raw_csv import Arrivals, RawCsv
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.schemas import raw as schema
from stock_lakehouse.sources import Contradiction, Landing, delivered_table
from stock_lakehouse_tests.graph import Clocked, clocked, rectangle, run
from stock_lakehouse_tests.lake.raw_by_ticker import into_layout_by_ticker

TICKER = "AAA"
DAYS = market_calendar(date(2020, 6, 1)).between(date(2020, 6, 1), date(2020, 6, 12))
SPLIT = date(2020, 6, 8)
NOW = datetime(2020, 6, 13, 12, tzinfo=UTC)
Row = dict[str, str | None]


@pytest.fixture
def raw(tmp_path: Path) -> RawCsv:
    return RawCsv(tmp_path / "lake")


def bar(day: date, close: float | None, **more: str | None) -> Row:
    price = None if close is None else repr(float(close))
    return {
        "ticker": TICKER,
        "symbol": TICKER,
        "date": str(day),
        "session": str(day),
        **dict.fromkeys(("open", "high", "low", "close"), price),
        "volume": "1000",
        "dividends": "0.0",
        "stock_splits": "0.0",
        "adjusted_to": str(DAYS[-1]),
        "basis": "split_adjusted",
        "says": "dividends,splits",
        **more,
    }


def table(rows: Sequence[Row]) -> Any:
    names = {name for row in rows for name in row}
    return delivered_table({name: [row.get(name) for row in rows] for name in names})


def land(raw: RawCsv, *batches: Sequence[Row], now: datetime = NOW, days: Sequence[date] = DAYS) -> Landing:
    arrivals = Arrivals(
        raw, Rectangle(tuple(days), (TICKER,)), source="test", interval="1d", run_id="11111111", now=now,
        final_at=lambda day: datetime(day.year, day.month, day.day, tzinfo=UTC),
    )  # fmt: skip
    return sum((arrivals.add(table(rows)) for rows in batches), Landing()) + arrivals.finish()


def closes(house: Clocked) -> list[float]:
    rows = house.lake.curated.open().to_pyarrow_table().sort_by("date").to_pylist()
    return [round(row["close"], 6) for row in rows]


def deliver(house: Clocked, rows: Sequence[Row], on: date, days: Sequence[date] = DAYS) -> None:
    house._at = datetime(on.year, on.month, on.day, 22, tzinfo=UTC)
    run(house, rectangle(days, [TICKER]), rows, f"{on:%Y%m%d}-run")


@pytest.fixture
def house(spark: SparkSession, tmp_path: Path) -> Clocked:
    return clocked(tmp_path / "lake", spark, (TICKER,))


# --- a delivery of the same text that proves a newer basis ------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("says", [None, "dividends,splits"], ids=["no column of splits at first", "a column of zeros"])
def test_prices_that_had_been_adjusted_before_the_split_was_named_come_out_right(
    house: Clocked, says: str | None
) -> None:
    told = {} if says else {"dividends": None, "stock_splits": None, "says": None}
    deliver(house, [bar(day, 100, **told) for day in DAYS], date(2020, 6, 13))
    named = [bar(day, 100, stock_splits="10" if day == SPLIT else "0.0") for day in DAYS]
    deliver(house, named, date(2020, 6, 14))
    assert closes(house) == [100.0] * len(DAYS)


def test_a_split_that_is_named_while_the_history_is_not_adjusted_yet_does_not_count_as_adjusted(house: Clocked) -> None:
    before = [day for day in DAYS if day < SPLIT]
    since = [day for day in DAYS if day >= SPLIT]
    unadjusted = [bar(day, 1000, adjusted_to=str(before[-1])) for day in before]
    deliver(house, unadjusted, before[-1], before)
    # The vendor names the split and delivers the same text of the days before, adjusted by nothing, as of the new day.
    named = [bar(day, 1000) for day in before] + [
        bar(day, 100, stock_splits="10" if day == SPLIT else "0.0") for day in since
    ]
    deliver(house, named, date(2020, 6, 13))
    assert closes(house) == [100.0] * len(DAYS)


def test_a_delivery_that_proves_a_newer_basis_lands_once(raw: RawCsv) -> None:
    first = [bar(day, 100, adjusted_to=str(DAYS[-1])) for day in DAYS]
    land(raw, first)
    named = [bar(day, 100, stock_splits="10" if day == SPLIT else "0.0") for day in DAYS]
    before = sum(day < SPLIT for day in DAYS)
    assert land(raw, named, now=NOW + timedelta(days=1)).landed == before + 1
    assert land(raw, named, now=NOW + timedelta(days=2)).landed == 0


def test_parts_of_a_history_that_land_one_after_another_land_once(raw: RawCsv) -> None:
    """The older part, adjusted already, landed before the split was known here: a repeated run writes nothing."""
    named = [bar(day, 100, stock_splits="10" if day == SPLIT else "0.0") for day in DAYS]
    land(raw, named[:3])
    land(raw, named[3:], now=NOW + timedelta(days=1))
    assert land(raw, named, now=NOW + timedelta(days=2)).landed == 0


# --- on the morning of an ex-date ---------------------------------------------------------------------------------


@pytest.mark.soak
def test_prices_adjusted_before_the_ex_date_has_a_bar_are_known_by_what_is_landed(house: Clocked) -> None:
    before = [day for day in DAYS if day < SPLIT]
    split = bar(SPLIT, None, stock_splits="10", volume=None, adjusted_to=str(before[-1]))
    deliver(house, [bar(day, 1000, adjusted_to=str(before[-2])) for day in before[:-1]], before[-2], before[:-1])
    # In the morning of the ex-date: the days before, adjusted already, and the split, whose day has no bar yet.
    morning = [bar(day, 100, adjusted_to=str(before[-1])) for day in before]
    deliver(house, [*morning, split], SPLIT - timedelta(days=1), before[-1:])
    since = [day for day in DAYS if day >= SPLIT]
    evening = [bar(day, 100, stock_splits="10" if day == SPLIT else "0.0") for day in since]
    deliver(house, evening, date(2020, 6, 13), since)
    assert closes(house) == [100.0] * len(DAYS)


@pytest.mark.slow
def test_prices_not_adjusted_yet_in_that_morning_are_known_too(house: Clocked) -> None:
    before = [day for day in DAYS if day < SPLIT]
    split = bar(SPLIT, None, stock_splits="10", volume=None, adjusted_to=str(before[-1]))
    deliver(house, [bar(day, 1000, adjusted_to=str(before[-2])) for day in before[:-1]], before[-2], before[:-1])
    morning = [bar(day, 1000, adjusted_to=str(before[-1])) for day in before]
    deliver(house, [*morning, split], SPLIT - timedelta(days=1), before[-1:])
    since = [day for day in DAYS if day >= SPLIT]
    deliver(
        house, [bar(day, 100, stock_splits="10" if day == SPLIT else "0.0") for day in since], date(2020, 6, 13), since
    )
    assert closes(house) == [100.0] * len(DAYS)


def test_a_first_answer_before_the_ex_date_has_a_bar_does_not_land(raw: RawCsv) -> None:
    before = [day for day in DAYS if day < SPLIT]
    split = bar(SPLIT, None, stock_splits="10", volume=None, adjusted_to=str(before[-1]))
    landing = land(raw, [*(bar(day, 100, adjusted_to=str(before[-1])) for day in before), split], days=before)
    assert (landing.landed, landing.withheld, landing.outside) == (1, len(before), 0)  # the split itself is known
    assert "it is unknown whether earlier prices are adjusted" in landing.unknown[TICKER]
    # From a file they land: it may be from before the split.
    in_file = [{**bar(day, 100, adjusted_to=str(before[-1])), "file": "AAA.csv"} for day in before]
    assert land(raw, [*in_file, {**split, "file": "AAA.csv"}], days=before).landed == len(before)


def test_prices_on_another_basis_that_nothing_explains_do_not_land_beside_the_old_ones(raw: RawCsv) -> None:
    land(raw, [bar(day, 1000) for day in DAYS[:-1]], days=DAYS[:-1])
    landing = land(raw, [bar(day, 100) for day in DAYS], days=DAYS[-1:], now=NOW + timedelta(days=1))
    assert (landing.landed, landing.withheld) == (0, 1)
    assert "0.1 times the landed prices" in landing.unknown[TICKER]
    # The whole history on the new basis lands.
    assert land(raw, [bar(day, 100) for day in DAYS], now=NOW + timedelta(days=2)).landed == len(DAYS)


def test_a_single_corrected_bar_is_no_change_of_basis(raw: RawCsv) -> None:
    land(raw, [bar(day, 1000) for day in DAYS[:-1]], days=DAYS[:-1])
    corrected = [bar(day, 1050 if day == DAYS[0] else 1000) for day in DAYS]
    assert land(raw, corrected, days=DAYS[-1:], now=NOW + timedelta(days=1)).landed == 1


def test_a_vendor_that_adjusts_days_after_the_ex_date_does_not_stop_the_daily_run(raw: RawCsv) -> None:
    """The split is named on its day while the history is not adjusted; the vendor adjusts it the night after."""
    named = [bar(day, 400, stock_splits="4" if day == SPLIT else "0.0", adjusted_to=str(SPLIT)) for day in DAYS[:5]]
    on_the_day = [*named, bar(SPLIT, 100, stock_splits="4", adjusted_to=str(SPLIT))]
    land(raw, on_the_day, days=DAYS[:6])
    next_day = [bar(day, 100, stock_splits="4" if day == SPLIT else "0.0") for day in DAYS[:7]]
    landing = land(raw, next_day, days=DAYS[6:7], now=NOW + timedelta(days=1))
    assert (landing.landed, landing.unknown) == (1, {})


def test_an_older_download_that_lands_after_a_newer_one_is_explained_by_the_splits_landed(raw: RawCsv) -> None:
    newer = [bar(day, 100, stock_splits="4" if day == SPLIT else "0.0") for day in DAYS[2:]]
    land(raw, newer, days=DAYS[2:])
    older = [bar(day, 400, adjusted_to=str(DAYS[4])) for day in DAYS[:5]]
    landing = land(raw, older, days=DAYS[:2], now=NOW + timedelta(days=1))
    assert (landing.landed, landing.unknown) == (2, {})


@pytest.mark.parametrize("form", ["split_adjusted", "total_return"])
def test_older_prices_adjusted_anew_for_a_dividend_that_nobody_names_are_told(raw: RawCsv, form: str) -> None:
    silent = {"dividends": None, "stock_splits": None, "says": None, "basis": form}

    def prices(before: float) -> list[Row]:
        return [
            bar(day, before if form == "total_return" else 100, adj_close=repr(before), **silent)
            if day < DAYS[5]
            else bar(day, 100, adj_close="100", **silent)
            for day in DAYS[:6]
        ]

    land(raw, prices(100)[:5], days=DAYS[:5])
    assert land(raw, prices(100), days=DAYS[5:6], now=NOW + timedelta(days=1)).readjusted == {}
    again = land(raw, prices(98), days=DAYS[5:6], now=NOW + timedelta(days=2))
    assert again.readjusted == {TICKER: pytest.approx(0.98)}
    # The whole history lands on the new basis, and nothing is left to tell.
    assert land(raw, prices(98), days=DAYS[:6], now=NOW + timedelta(days=3)).readjusted == {}


# --- what else lands, or does not ---------------------------------------------------------------------------------


def test_actions_of_the_two_weeks_before_the_first_session_land(raw: RawCsv) -> None:
    asked = DAYS[-2:]
    rows = [bar(day, 100, dividends="0.5" if day == DAYS[2] else "0.0") for day in DAYS]
    long_ago = bar(date(2020, 5, 15), 100, dividends="0.5")
    landing = land(raw, [long_ago, *rows], days=asked)
    assert (landing.landed, landing.outside) == (3, len(DAYS) - 2)


def test_two_files_that_contradict_each_other_land_once_however_far_apart_they_come(raw: RawCsv) -> None:
    first = [{**bar(day, 100), "file": "a.csv"} for day in DAYS]
    last = [{**bar(day, 101), "file": "z.csv"} for day in DAYS]
    landing = land(raw, first, last)
    assert landing.landed == 2 * len(DAYS)
    named = tuple(Contradiction(TICKER, str(day), 2, ("a.csv", "z.csv")) for day in DAYS)
    assert landing.contradictions == named
    for days in (1, 2):
        again = land(raw, first, last, now=NOW + timedelta(days=days))
        assert (again.landed, again.repeated) == (0, 2 * len(DAYS))
        assert again.contradictions == named


def test_a_correction_that_is_taken_back_lands(raw: RawCsv) -> None:
    land(raw, [bar(DAYS[0], 100)])
    land(raw, [bar(DAYS[0], 101)], now=NOW + timedelta(days=1))
    landing = land(raw, [bar(DAYS[0], 100)], [bar(DAYS[1], 100)], now=NOW + timedelta(days=2))
    assert (landing.landed, landing.contradictions) == (2, ())


def test_a_row_given_twice_is_no_contradiction(raw: RawCsv) -> None:
    assert land(raw, [bar(DAYS[0], 100), bar(DAYS[0], 100)]).contradictions == ()


def test_the_same_text_under_another_form_of_prices_lands(raw: RawCsv) -> None:
    land(raw, [bar(day, 100) for day in DAYS])
    landing = land(raw, [bar(day, 100, basis="as_traded") for day in DAYS], now=NOW + timedelta(days=1))
    assert landing.landed == len(DAYS)


def test_rows_of_an_earlier_version_of_the_files_are_known_again(raw: RawCsv) -> None:
    land(raw, [bar(day, 100) for day in DAYS])
    later_columns = {"capital_gains", *(column.name for column in schema.READING)}
    into_layout_by_ticker(Path(str(raw.root)).parents[1], without=later_columns, sealed=False)
    assert land(raw, [bar(day, 100) for day in DAYS], now=NOW + timedelta(days=1)).landed == 0
    assert land(raw, [bar(DAYS[0], 101)], now=NOW + timedelta(days=2)).landed == 1


def test_what_becomes_of_the_rows_is_counted_by_file(raw: RawCsv) -> None:
    rows = [{**bar(day, 100), "file": "a.csv"} for day in DAYS] + [{**bar(date(2019, 1, 2), 5), "file": "b.csv"}]
    land(raw, rows[:1])
    by_file = land(raw, rows, now=NOW + timedelta(days=1)).by_file
    assert by_file == {
        "a.csv": Landing(delivered=len(DAYS), landed=len(DAYS) - 1, repeated=1),
        "b.csv": Landing(delivered=1, outside=1),
    }
