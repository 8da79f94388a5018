"""Which partitions of a run Dagster records: assets without an engine, in instances on disk.

Here: the rule of `io_managers/records.py` and the records of many keys. Not here: runs of the real graph (assets/test_graph.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.event_log import SqliteEventLogStorage

from stock_lakehouse.instance.event_log import FEW_KEYS, BatchedSqliteEventLogStorage, bulk_run_environment
from stock_lakehouse.io_managers.records import NO_ROWS, record
from stock_lakehouse_tests.test_event_storage import QUIET, entry, instance_on

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")

DAYS = [f"2024-01-{day:02}" for day in range(1, 31)]
TICKERS = ("AAPL", "MSFT", "NVDA")
KEYS = [f"{day}|{ticker}" for day in DAYS for ticker in TICKERS]
PRICES = dg.AssetKey("prices")
MATERIALIZED = dg.DagsterEventType.ASSET_MATERIALIZATION
assert len(KEYS) > FEW_KEYS


class Records(dg.IOManager):
    """Stores nothing; records the partitions that hold `rows`."""

    def __init__(self, rows: Mapping[str, int] | None, changed: bool) -> None:
        self.rows, self.changed = rows, changed

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        record(context, {"dagster/row_count": 7, "preview": dg.MetadataValue.md("| day |")}, self.rows, self.changed)

    def load_input(self, context: dg.InputContext) -> None:
        """Nothing is ever loaded."""


def run(
    instance: dg.DagsterInstance,
    rows: Mapping[str, int] | None,
    changed: bool = True,
    last: str = KEYS[-1],
    one_by_one: bool = False,
) -> str:
    """Run an asset over the keys from the first to `last`; `one_by_one`: Dagster plans each key. Return the run's id."""
    partitions = dg.MultiPartitionsDefinition(
        {
            "date": dg.DailyPartitionsDefinition(DAYS[0], end_date="2024-01-31"),
            "ticker": dg.StaticPartitionsDefinition(list(TICKERS)),
        }
    )

    @dg.asset(partitions_def=partitions, backfill_policy=dg.BackfillPolicy.single_run())
    def prices() -> int:
        return 1

    definitions = dg.Definitions([prices], resources={"io_manager": Records(rows, changed)})
    with nullcontext() if one_by_one else bulk_run_environment():
        result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            run_config=QUIET,
            tags={"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": last},
        )
    assert result.success
    return result.run_id


@pytest.fixture(
    params=[BatchedSqliteEventLogStorage, pytest.param(SqliteEventLogStorage, marks=pytest.mark.slow)],
    ids=["batched", "stock"],
)
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with instance_on(request.param, tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def batched(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with instance_on(BatchedSqliteEventLogStorage, tmp_path / "batched") as opened:
        yield opened


def records_of(instance: dg.DagsterInstance) -> list[dg.EventLogRecord]:
    """All materializations of the asset, the newest first."""
    return list(instance.fetch_materializations(PRICES, limit=10_000).records)


ALL = dict.fromkeys(KEYS, 1)


def test_a_bulk_run_records_the_partitions_that_hold_rows_and_no_others(instance: dg.DagsterInstance) -> None:
    held = {key: 1 for key in KEYS if not key.endswith("NVDA")}
    run(instance, held)
    assert instance.get_materialized_partitions(PRICES) == set(held)
    assert len(records_of(instance)) == len(held)


def test_the_latest_materialization_of_a_bulk_run_has_the_figures_and_no_other_one(
    instance: dg.DagsterInstance,
) -> None:
    run(instance, ALL)
    latest = instance.get_latest_materialization_event(PRICES)
    assert latest is not None
    assert latest.asset_materialization is not None
    assert latest.asset_materialization.partition == KEYS[-1]
    figures = {name: value.value for name, value in latest.asset_materialization.metadata.items()}
    assert figures == {"dagster/row_count": 7, "dagster/partition_row_count": 1, "preview": "| day |"}
    others = [one.asset_materialization for one in records_of(instance)[1:]]
    assert len(others) == len(KEYS) - 1
    assert not any(one.metadata for one in others if one)


def test_a_bulk_run_that_changes_nothing_adds_one_record(instance: dg.DagsterInstance) -> None:
    run(instance, ALL)
    run(instance, ALL, changed=False)
    assert len(records_of(instance)) == len(KEYS) + 1
    assert instance.get_materialized_partitions(PRICES) == set(KEYS)


def test_a_bulk_run_that_changes_the_table_records_every_partition_again(instance: dg.DagsterInstance) -> None:
    run(instance, ALL)
    again = run(instance, ALL)
    assert {one.run_id for one in records_of(instance)[: len(KEYS)]} == {again}


def test_what_a_killed_run_published_and_did_not_record_is_recorded_by_the_next_run(
    instance: dg.DagsterInstance,
) -> None:
    run(instance, dict.fromkeys(KEYS[:70], 1))
    run(instance, ALL, changed=False)
    assert instance.get_materialized_partitions(PRICES) == set(KEYS)


@pytest.mark.slow
def test_a_partition_that_dagster_planned_and_that_holds_no_rows_says_why(instance: dg.DagsterInstance) -> None:
    run(instance, {key: 1 for key in KEYS if key != KEYS[3]}, one_by_one=True)
    assert instance.get_materialized_partitions(PRICES) == set(KEYS)
    [empty] = instance.fetch_materializations(dg.AssetRecordsFilter(PRICES, asset_partitions=[KEYS[3]]), 9).records
    assert empty.asset_materialization is not None
    why = empty.asset_materialization.metadata.get("why")
    assert NO_ROWS in {empty.asset_materialization.description, why and why.value}


@pytest.mark.slow
def test_a_planned_partition_is_recorded_also_if_nothing_changed(instance: dg.DagsterInstance) -> None:
    run(instance, ALL)
    again = run(instance, ALL, changed=False, one_by_one=True)
    assert {one.run_id for one in records_of(instance)[: len(KEYS)]} == {again}


def test_a_bulk_run_without_any_row_records_no_partition_and_an_observation(instance: dg.DagsterInstance) -> None:
    run(instance, {})
    assert records_of(instance) == []
    [observation] = instance.fetch_observations(PRICES, limit=9).records
    assert observation.event_log_entry.asset_observation.metadata["dagster/row_count"].value == 7


def test_each_of_few_partitions_has_the_figures_and_one_without_rows_says_why(instance: dg.DagsterInstance) -> None:
    run(instance, {KEYS[0]: 1, KEYS[1]: 1}, last=KEYS[2])
    found = {}
    for one in records_of(instance):
        assert one.asset_materialization is not None
        figures = {name: value.value for name, value in one.asset_materialization.metadata.items()}
        assert figures["dagster/row_count"] == 7
        found[one.partition_key] = (figures["dagster/partition_row_count"], figures.get("why"))
    assert found == {KEYS[0]: (1, None), KEYS[1]: (1, None), KEYS[2]: (0, NO_ROWS)}


def test_partitions_of_unknown_contents_are_all_recorded(instance: dg.DagsterInstance) -> None:
    run(instance, None)
    assert instance.get_materialized_partitions(PRICES) == set(KEYS)


# --- how many keys are stored at once ----------------------------------------------------------------------


def test_the_log_of_a_bulk_run_has_one_materialization_and_the_asset_has_all(batched: dg.DagsterInstance) -> None:
    run_id = run(batched, ALL)
    logged = batched.get_records_for_run(run_id, of_type=MATERIALIZED).records
    assert [one.partition_key for one in logged] == [KEYS[-1]]
    assert len(batched.get_records_for_run(run_id).records) < 20
    assert batched.get_asset_partitions_for_run(run_id, MATERIALIZED) == {PRICES: set(KEYS)}


@pytest.mark.slow
def test_many_keys_answer_as_in_the_stock_storage(tmp_path: Path) -> None:
    answers: list[dict[str, Any]] = []
    for storage in (SqliteEventLogStorage, BatchedSqliteEventLogStorage):
        with instance_on(storage, tmp_path / storage.__name__) as opened:
            run(opened, ALL)
            events = opened.event_log_storage
            of_key = opened.fetch_materializations(dg.AssetRecordsFilter(PRICES, asset_partitions=[KEYS[4]]), 9).records
            tags = opened.get_event_tags_for_asset(PRICES)
            of_bar = opened.get_event_tags_for_asset(
                PRICES, {"dagster/partition/date": DAYS[4], "dagster/partition/ticker": "MSFT"}
            )
            versions = events.get_latest_tags_by_partition(PRICES, MATERIALIZED, ["dagster/data_version"])
            answers.append(
                {
                    "materialized": opened.get_materialized_partitions(PRICES),
                    "ids": set(events.get_latest_storage_id_by_partition(PRICES, MATERIALIZED)),
                    "attempts": events.get_latest_asset_partition_materialization_attempts_without_materializations(
                        PRICES
                    ),
                    "of a key": [(one.partition_key, one.event_log_entry.step_key) for one in of_key],
                    "keys of the tags": sorted(
                        (one["dagster/partition/date"], one["dagster/partition/ticker"]) for one in tags
                    ),
                    "of a bar": [one["dagster/partition/date"] for one in of_bar],
                    "partitions with a data version": set(versions),
                }
            )
    assert answers[0] == answers[1]
    assert answers[0]["of a bar"] == [DAYS[4]]


def test_a_key_of_many_takes_less_than_one_and_a_half_kilobytes(tmp_path: Path) -> None:
    keys, storage = 3_000, BatchedSqliteEventLogStorage(str(tmp_path))
    storage.dispose()
    empty = (tmp_path / "index.db").stat().st_size
    names = [dg.MultiPartitionKey({"date": f"{number // 6:010}", "ticker": f"T{number % 6}"}) for number in range(keys)]
    event = entry(MATERIALIZED, 1, "curated_stocks_daily", "2024-01-02|AAPL", "11111111-2222-3333-4444-555555555555")
    data = event.get_dagster_event().step_materialization_data.materialization
    version = dg.AssetMaterialization(
        data.asset_key, partition=data.partition, tags={**data.tags, "dagster/data_version": 64 * "a"}
    )
    stored = event._replace(
        dagster_event=event.get_dagster_event()._replace(
            event_specific_data=event.get_dagster_event().event_specific_data._replace(materialization=version)
        )
    )
    assert storage.with_keys(event.run_id, data.asset_key, "2024-01-02|AAPL", dict.fromkeys(names))
    storage.store_event(stored)
    storage.dispose()
    size = sum(path.stat().st_size for path in tmp_path.glob("index.db*"))
    assert (size - empty) / keys < 1_500
    with sqlite3.connect(tmp_path / "index.db") as connection:
        [(count,)] = connection.execute("SELECT count(DISTINCT partition) FROM event_logs")
    connection.close()
    assert count == keys + 1


def test_keys_are_stored_with_their_event_or_not_at_all(
    batched: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = batched.event_log_storage
    copy = storage._copy_to_shard

    def fail(*arguments: Any) -> None:
        if len(arguments[1]) == 1:  # the event of the step, not the planned ones
            monkeypatch.setattr(storage, "_copy_to_shard", copy)
            raise OSError("the disk is full")
        copy(*arguments)

    run(batched, dict.fromkeys(KEYS[:60], 1))
    monkeypatch.setattr(storage, "_copy_to_shard", fail)
    with pytest.raises(OSError, match="the disk is full"):
        run(batched, ALL)
    assert batched.get_materialized_partitions(PRICES) == set(KEYS[:60])
    run(batched, ALL, changed=False)
    assert batched.get_materialized_partitions(PRICES) == set(KEYS)


def test_deleting_a_run_removes_its_file_and_gives_its_space_back(batched: dg.DagsterInstance) -> None:
    run_id = run(batched, ALL)
    storage = batched.event_log_storage
    assert isinstance(storage, BatchedSqliteEventLogStorage)
    path = Path(storage.path_for_shard(run_id))
    assert path.exists()
    before = Path(storage.path_for_shard("index")).stat().st_size
    batched.delete_run(run_id)
    storage.give_back_space()
    storage.dispose()
    assert not path.exists()
    assert Path(storage.path_for_shard("index")).stat().st_size < before
    assert batched.get_materialized_partitions(PRICES) == set()
