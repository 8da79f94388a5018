"""Loads on a Redshift that executes them: what is loaded, what is not sent, what a failure and a kill leave."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import deltalake
import pytest

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.sql.data_api import StatementError
from stock_lakehouse.tables import CURATED, FEATURES
from stock_lakehouse.warehouse import load as load_module
from stock_lakehouse.warehouse import redshift as statements
from stock_lakehouse.warehouse.changes import Change
from stock_lakehouse.warehouse.load import CatalogBehindError
from stock_lakehouse.warehouse.redshift import TickerNameError, in_statements, stage
from stock_lakehouse.warehouse.tables import STOCK_PRICES, Names
from stock_lakehouse_tests import redshift_lint
from stock_lakehouse_tests.warehouse.lakes import NATIVE, ODD, KilledError, WarehouseLake, kill_at

Made = Callable[..., WarehouseLake]
TWO_YEARS = [(ticker, year) for ticker in ODD for year in (2022, 2023)]
# Of a load of four ticker-years: 2 × (2 temporary tables, rows, ticker-years), the lock, 2 × 4 that replace.
STATEMENTS = 8 + 9


def sent_since(place: WarehouseLake, start: int) -> list[str]:
    """The statements that the server was sent after its first `start` calls."""
    found = []
    for _, body in place.server.requests[start:]:
        found += body.get("Sqls", []) + ([body["Sql"]] if "Sql" in body else [])
    return found


def test_a_load_brings_the_published_rows_and_a_second_one_writes_nothing(made: Made) -> None:
    place = made(readers=("group analysts", "bob"))
    place.put(TWO_YEARS)
    first = place.load()
    place.assert_equal()
    assert [(of.ticker_years, of.rows, of.withdrawn) for of in first.tables] == [(8, 24, 0), (8, 24, 0)]

    before = len(place.server.requests)
    again = place.warehouse()
    outcome = again.load()
    assert not outcome.has_loaded
    assert again.api.writes == 0
    sent = sent_since(place, before)
    assert sent
    assert all(sql.startswith("SELECT") for sql in sent)
    assert {operation for operation, _ in place.server.requests[before:]} == {
        "ExecuteStatement", "DescribeStatement", "GetStatementResult",
    }  # fmt: skip
    found = place.warehouse().compare(full=True)
    assert [(one.counted, one.compared, one.drifts) for one in found] == [(8, 8, []), (8, 8, [])]


def test_all_columns_are_loaded_and_described_and_every_statement_is_redshifts_and_short(made: Made) -> None:
    place = made(has_all=True, hot_years=1, readers=("group analysts", "role readers", "bob"))
    place.put(TWO_YEARS)
    place.load()
    place.assert_equal(first_year=2023)
    assert not [drift for found in place.warehouse().compare(full=True) for drift in found.drifts]
    comments = place.server.comments
    for name, table in NATIVE.items():
        assert comments["table", f"stocks.{name}"] == table.description
        for column in table.columns:
            assert comments["column", f"stocks.{name}.{column.name}"] == column.documentation
    assert ("view", "stocks.dashboard_daily") in comments
    [place.warehouse().duplicates(table) for table in place.warehouse().tables]
    sent = sent_since(place, 0)
    assert not [fault for sql in sent for fault in redshift_lint.faults(sql)]
    assert max(len(sql.encode()) for sql in sent) < 90_000
    assert any(sql.startswith("CREATE EXTERNAL SCHEMA") for sql in sent)


def test_only_what_has_changed_is_loaded_and_what_was_withdrawn_goes(made: Made) -> None:
    place = made()
    place.put(TWO_YEARS)
    place.load()
    place.put([("C=F", 2023)], count=5, seed="corrected")
    place.put([("BRK-B", 2022)], count=0)
    place.put([("^GSPC", 2022)], seed="features alone", native=["stock_features"])
    before = len(place.server.requests)
    outcome = place.load()
    assert [(of.ticker_years, of.rows, of.withdrawn) for of in outcome.tables] == [(1, 5, 1), (2, 8, 1)]
    assert outcome.statements == STATEMENTS
    staged = [sql for sql in sent_since(place, before) if sql.startswith("INSERT INTO new_stock_prices")]
    assert staged[0].endswith("WHERE (ticker IN ('C=F') AND year IN (2023))")
    place.assert_equal()


@pytest.mark.parametrize("numbers", [(1, 8, 17), pytest.param(range(1, STATEMENTS + 1), marks=pytest.mark.soak)])
def test_a_failure_at_any_statement_leaves_the_old_rows(made: Made, numbers: Sequence[int]) -> None:
    place = made()
    place.put(TWO_YEARS)
    place.load()
    before = {name: place.native(name) for name in NATIVE}
    place.put([("C=F", 2023)], count=5, seed="corrected")
    place.put([("BRK-B", 2022)], count=0)
    place.register()
    for number in numbers:
        place.server.faults.fails_at = number
        with pytest.raises(
            StatementError, match=f"statement {number} of {STATEMENTS}, and nothing was changed: .*Disk Full"
        ):
            place.warehouse().load()
        assert {name: place.native(name) for name in NATIVE} == before
    place.server.faults.fails_at = None
    place.load()
    place.assert_equal()


def killed(place: WarehouseLake, call: int, answered: bool) -> bool:
    """Whether a load was killed at its n-th call; else it had fewer calls."""
    warehouse = place.warehouse()
    kill_at(warehouse.api, call, answered=answered)
    try:
        warehouse.load()
    except KilledError:
        return True
    return False


EVERY = pytest.param(1, marks=pytest.mark.soak)


@pytest.mark.parametrize("step", [9, EVERY])
def test_a_load_that_is_killed_at_any_call_is_completed_by_the_next(made: Made, step: int) -> None:
    place = made()
    place.put(TWO_YEARS)
    place.load()
    for call in itertools.count(step, step):
        place.put([("C=F", 2023)], count=3 + call % 3, seed=call)
        place.put([("BRK-B", 2022)], count=call % 2)
        place.register()
        if not killed(place, call, answered=call % 2 == 0) and not killed(place, call, answered=call % 2 == 1):
            break
        place.load()
        place.assert_equal()
    assert call > 15
    assert not [drift for found in place.warehouse().compare(full=True) for drift in found.drifts]


@pytest.mark.parametrize("step", [11, EVERY])
def test_a_first_load_that_is_killed_at_any_call_is_completed_by_the_next(made: Made, step: int) -> None:
    place = made()
    place.put(TWO_YEARS)
    place.register()
    for call in itertools.count(step, step):
        place.redshift = place.redshift.model_copy(
            update={"schema_name": f"s{call}", "external_schema": f"x{call}", "readers": ("group analysts",)}
        )
        if not killed(place, call, answered=call % 2 == 0):
            break
        place.warehouse().load()
        place.assert_equal()
        assert not place.warehouse().load().defined
        assert sum(name.startswith(f"s{call}.") for name in place.server.views) == 4
        assert ("select", f"table s{call}.dashboard_daily", "group analysts") in place.server.grants
    assert call > 20


def at_once(places: list[Any]) -> list[Any]:
    """Loads of all warehouses in threads; the outcomes."""
    found: list[Any] = [None] * len(places)

    def run(number: int) -> None:
        found[number] = places[number].load()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(places))]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    return found


def test_of_two_loads_at_once_one_does_it(made: Made) -> None:
    place = made()
    place.put(TWO_YEARS)
    place.register()
    outcomes = at_once([place.warehouse(), place.warehouse()])
    assert sorted(outcome.has_loaded for outcome in outcomes) == [False, True]
    place.assert_equal()


def test_two_loads_at_once_without_a_lease_wait_for_the_lock_and_leave_each_row_once(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = made()
    place.put([("BRK-B", 2021)])
    place.load()
    place.put(TWO_YEARS)
    place.register()
    monkeypatch.setattr(load_module, "one_writer", lambda root, name: nullcontext())
    place.server.faults.step = 0.02
    outcomes = at_once([place.warehouse(), place.warehouse()])
    assert [outcome.has_loaded for outcome in outcomes] == [True, True]
    place.assert_equal()


def test_more_than_forty_statements_are_staged_in_a_session(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    place = made()
    place.put(TWO_YEARS)
    monkeypatch.setattr(statements, "LONGEST", 1)
    place.register()
    # A failure of the last part, after the others have committed, changes nothing.
    place.server.faults.fails = ("LOCK TABLE", "ERROR: Disk Full")
    with pytest.raises(StatementError, match="statement 1 of"):
        place.warehouse().load()
    assert {name: place.native(name) for name in NATIVE} == {name: [] for name in NATIVE}
    place.server.faults.fails = None
    start = len(place.server.requests)
    outcome = place.warehouse().load()
    batches = [body for operation, body in place.server.requests[start:] if operation == "BatchExecuteStatement"]
    assert outcome.statements > 40
    assert [len(body["Sqls"]) <= 40 for body in batches] == [True, True]
    assert "SessionKeepAliveSeconds" in batches[0]
    assert "SessionId" in batches[1]
    assert batches[1]["Sqls"][0].startswith("LOCK TABLE")
    place.assert_equal()


def test_items_are_split_into_statements_that_are_short_enough_and_have_each_once() -> None:
    changed = [Change("BRK-B", year, "f" * 32) for year in range(20_000)]
    texts = in_statements(changed, lambda some: "INSERT " + ", ".join(f"('{one.ticker}', {one.year})" for one in some))
    assert len(texts) > 1
    assert max(len(text) for text in texts) < 90_000
    years = [int(year) for text in texts for year in re.findall(r", (\d+)\)", text)]
    assert years == list(range(20_000))
    assert in_statements([], str) == []


def test_a_name_that_is_no_ticker_is_never_sent() -> None:
    with pytest.raises(TickerNameError, match="cannot be one"):
        stage(Names("stocks", "stocks_lake"), STOCK_PRICES, [Change("A'; DROP TABLE x --", 2023, "f")])


@pytest.mark.soak
def test_a_compacted_a_restored_and_a_rebuilt_table_are_loaded_again(made: Made) -> None:
    place = made()
    place.put(TWO_YEARS)
    place.load()
    stored = place.lake.delta[CURATED.name]
    old, version = dict(place.held["stock_prices"]), stored.version()
    place.put([("C=F", 2023)], seed="corrected", native=["stock_prices"])
    place.load()
    place.assert_equal()

    stored.open().restore(version)
    place.held["stock_prices"] = old
    place.load()
    place.assert_equal()

    # Two files of a ticker-year become one, with the same rows.
    extra = place.held["stock_prices"]["^GSPC", 2022].slice(0, 1)
    deltalake.write_deltalake(stored.open(), extra, mode="append")
    stored.open().delete("ticker = '^GSPC' AND year = 2022")
    parts = [place.held["stock_prices"]["^GSPC", 2022].slice(start, 1) for start in range(3)]
    for part in parts:
        deltalake.write_deltalake(stored.open(), part, mode="append")
    place.load()
    stored.open().optimize.compact()
    outcome = place.load()
    assert [(of.ticker_years, of.rows) for of in outcome.tables] == [(1, 3), (0, 0)]
    place.assert_equal()

    place.lake.storage.delete([file.path for file in place.lake.storage.walk(stored.table.path)])
    stored.prepare()
    for pair, rows in place.held["stock_prices"].items():
        deltalake.write_deltalake(stored.open(), rows, mode="append")
        assert pair in TWO_YEARS
    outcome = place.load()
    assert outcome.tables[0].ticker_years == len(place.held["stock_prices"])
    place.assert_equal()


@pytest.mark.soak
def test_a_lake_with_files_by_year_loads_a_year_together(made: Made) -> None:
    place = made(layout="year")
    place.put(TWO_YEARS)
    place.load()
    place.assert_equal()
    place.put([("C=F", 2023)], count=4, seed="corrected")
    place.put([("BRK-B", 2023)], count=0)
    outcome = place.load()
    assert [(of.ticker_years, of.withdrawn) for of in outcome.tables] == [(3, 1), (3, 1)]
    place.assert_equal()
    assert not place.load().has_loaded
    assert not [drift for found in place.warehouse().compare(full=True) for drift in found.drifts]


def test_a_new_column_is_added_and_all_rows_are_loaded_again(made: Made, tmp_path: Path) -> None:
    place = made(readers=("group analysts",))
    place.put(TWO_YEARS)
    place.load()
    own = tmp_path / "own.py"
    own.write_text(
        "from stock_lakehouse.indicators.registry import Indicator\n"
        "INDICATORS = [Indicator('twice_close', lambda c: c['close'] * 2, {}, 0, 'Twice the close', inputs=('close',))]\n",
        encoding="utf-8",
    )
    options = LakeOptions(**{**place.lake.options.model_dump(), "indicators": own})
    place.lake = Lake(options)
    place.lake.delta[FEATURES.name].prepare()
    outcome = place.load()
    assert [of.ticker_years for of in outcome.tables] == [0, 8]
    assert {row["twice_close"] for row in place.native("stock_features")} == {None}
    assert "twice_close" in place.server.views["stocks.prices_with_features"]
    assert place.server.comments["column", "stocks.stock_features.twice_close"].startswith("Twice the close")
    assert ("select", "table stocks.prices_with_features", "group analysts") in place.server.grants
    assert not place.load().has_loaded


@pytest.mark.soak
def test_a_dropped_table_is_made_and_loaded_again(made: Made) -> None:
    place = made()
    place.put(TWO_YEARS)
    place.load()
    place.server.database.cursor().execute("DROP TABLE stocks.stock_features")
    outcome = place.load()
    assert [of.ticker_years for of in outcome.tables] == [0, 8]
    place.assert_equal()


def selected(place: WarehouseLake, sql: str) -> list[tuple[Any, ...]]:
    return place.warehouse().api.run(sql).values


def test_years_that_grow_cold_move_to_the_lake_in_the_transaction_of_the_load(made: Made) -> None:
    place = made(hot_years=2)
    place.put([(ticker, year) for ticker in ODD[:2] for year in (2020, 2021, 2022)])
    place.load()
    place.assert_equal(first_year=2021)
    counts = "SELECT year, COUNT(*) FROM stocks.all_prices GROUP BY year ORDER BY year"
    assert selected(place, counts) == [(2020, 6), (2021, 6), (2022, 6)]
    assert not place.load().has_loaded

    place.put([(ticker, 2023) for ticker in ODD[:2]])
    place.register()
    start = len(place.server.requests)
    outcome = place.warehouse().load()
    assert selected(place, counts) == [(year, 6) for year in (2020, 2021, 2022, 2023)]
    [batch] = [body["Sqls"] for operation, body in place.server.requests[start:] if operation.startswith("Batch")]
    assert any(sql.startswith('CREATE VIEW "stocks"."all_prices"') and '"year" < 2022' in sql for sql in batch)
    assert any(sql.startswith('DELETE FROM "stocks"."stock_prices" USING') for sql in batch)
    assert [(of.ticker_years, of.withdrawn) for of in outcome.tables] == [(2, 2), (2, 2)]
    place.assert_equal(first_year=2022)
    assert not [drift for found in place.warehouse().compare(full=True) for drift in found.drifts]
    # All years again: the older ones are loaded, and the view reads the native table alone.
    place.redshift = place.redshift.model_copy(update={"hot_years": None})
    place.load()
    place.assert_equal()
    assert "stocks_lake" not in place.server.views["stocks.all_prices"]


def test_the_views_join_both_tables_and_name_the_newest_session(made: Made) -> None:
    place = made()
    place.put(TWO_YEARS)
    place.put([("C=F", 2023)], count=0, native=["stock_features"])
    place.load()
    rows = selected(place, "SELECT ticker, date, close, rsi_14 FROM stocks.prices_with_features")
    prices, features = place.expected("stock_prices"), place.expected("stock_features")
    by_key = {(row["ticker"], row["date"]): row["rsi_14"] for row in features}
    assert sorted(rows, key=str) == sorted(
        ((row["ticker"], row["date"].isoformat(), row["close"], by_key.get((row["ticker"], row["date"]))) for row in prices),
        key=str,
    )  # fmt: skip
    newest = selected(place, "SELECT ticker, date FROM stocks.dashboard_daily WHERE is_newest ORDER BY ticker")
    assert newest == [(ticker, "2023-01-04") for ticker in sorted(ODD)]


def test_readers_have_the_listed_rights_and_lose_them_when_they_are_no_longer_listed(made: Made) -> None:
    place = made(readers=("group analysts", "role readers", "bob"))
    place.put(TWO_YEARS[:2])
    place.load()

    def rights(reader: str) -> set[tuple[str, str, str]]:
        readable = (
            "stock_prices",
            "stock_features",
            "all_prices",
            "all_features",
            "prices_with_features",
            "dashboard_daily",
        )
        return {
            *(("usage", f"schema {name}", reader) for name in ("stocks", "stocks_lake")),
            *(("select", f"table stocks.{name}", reader) for name in readable),
        }

    assert place.server.grants == rights("group analysts") | rights("role readers") | rights("bob")
    place.redshift = place.redshift.model_copy(update={"readers": ("bob",)})
    assert place.load().defined == ["views"]
    assert place.server.grants == rights("bob")
    # A reader who was dropped has no rights that could be taken.
    place.redshift = place.redshift.model_copy(update={"readers": ()})
    place.server.faults.fails = ("REVOKE", 'ERROR: user "bob" does not exist')
    assert place.load().defined == ["views"]
    place.server.faults.fails = None
    assert not place.load().defined


def test_nothing_is_loaded_from_a_catalog_that_has_other_files(made: Made) -> None:
    place = made()
    place.put(TWO_YEARS)
    place.load()
    before = {name: place.native(name) for name in NATIVE}
    place.put([("C=F", 2023)], seed="corrected")
    with pytest.raises(CatalogBehindError, match=r"other files of 2023.*--select catalog"):
        place.warehouse().load()
    assert {name: place.native(name) for name in NATIVE} == before
    place.load()
    place.assert_equal()


@pytest.mark.soak
def test_another_glue_database_replaces_the_external_schema(made: Made) -> None:
    place = made()
    place.put(TWO_YEARS[:2])
    place.load()
    place.database += "_moved"
    place.load()
    assert place.server.external == {"stocks_lake": place.database}
    place.put(TWO_YEARS[:2], seed="corrected")
    place.load()
    place.assert_equal()
