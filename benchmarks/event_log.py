"""Measure what a `date|ticker` asset-partition costs in Dagster, with our event log and with the stock one.

Belongs here: whole runs of assets that do nothing, timed around `materialize`. That both storages answer
alike is for the tests.
"""

import argparse
import contextlib
import json
import tempfile
import time
import warnings
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.storage.event_log import SqliteEventLogStorage

from benchmarks.figures import Figure, print_figures, print_table
from stock_lakehouse.automation.jobs import PROGRESS, progress_logger
from stock_lakehouse.instance.event_log import (
    BatchedSqliteEventLogStorage,
    bulk_run_environment,
)
from stock_lakehouse.io_managers.records import record

FIRST_DAY = date(2000, 1, 3)
MAX_MS, MIN_RATIO, MAX_KB = 0.45, 60.0, 1.5
TICKERS = ("AAPL", "AMZN", "GOOG", "META", "MSFT", "NVDA")


class _NoIO(dg.IOManager):
    """Writes nothing: only the cost of the records is measured. `bulk`: as a step of this package records its partitions."""

    def __init__(self, bulk: bool) -> None:
        self.bulk = bulk

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        if self.bulk:
            record(context, {}, None, changed=True)

    def load_input(self, context: dg.InputContext) -> None:
        """Read nothing."""


def _chain(count: int) -> list[dg.AssetsDefinition]:
    partitions = dg.MultiPartitionsDefinition(
        {
            "date": dg.DailyPartitionsDefinition(FIRST_DAY.isoformat()),
            "ticker": dg.StaticPartitionsDefinition(list(TICKERS)),
        }
    )
    chain: list[dg.AssetsDefinition] = []
    for number in range(count):

        @dg.asset(
            name=f"layer_{number}",
            partitions_def=partitions,
            deps=chain[-1:],
            backfill_policy=dg.BackfillPolicy.single_run(),
        )
        def layer() -> int:
            return 0  # of an output of type None, Dagster does not call the IO manager

        chain.append(layer)
    return chain


def measure(storage: type[SqliteEventLogStorage] | str, keys: int, assets: int, bulk: bool) -> dict[str, Any]:
    """Run `assets` assets over a rectangle of `keys` keys (rounded up to whole days) in an empty instance.

    `storage` is a class of SQLite storage, or the URL of an empty PostgreSQL database.
    Times are in seconds and in milliseconds a materialized asset-partition.
    Raises `RuntimeError` when the log does not hold every key afterwards.
    """
    days = -(-keys // len(TICKERS))
    last_day = FIRST_DAY + timedelta(days=days - 1)
    tags = {
        "dagster/asset_partition_range_start": f"{FIRST_DAY}|{TICKERS[0]}",
        "dagster/asset_partition_range_end": f"{last_day}|{TICKERS[-1]}",
    }
    chain = _chain(assets)
    definitions = dg.Definitions(
        assets=chain, resources={"io_manager": _NoIO(bulk)}, loggers={"progress": progress_logger}
    )
    with tempfile.TemporaryDirectory() as home:
        of_storage: dict[str, Any] = (
            {"storage": {"postgres": {"postgres_url": storage}}}
            if isinstance(storage, str)
            else {
                "event_log_storage": {
                    "module": storage.__module__,
                    "class": storage.__name__,
                    "config": {"base_dir": f"{home}/events"},
                }
            }
        )
        Path(home, "dagster.yaml").write_text(json.dumps({**of_storage, "telemetry": {"enabled": False}}))
        with contextlib.ExitStack() as stack:
            instance = stack.enter_context(dg.DagsterInstance.from_config(home))
            if bulk:
                stack.enter_context(bulk_run_environment())
            started = time.perf_counter()
            job = definitions.resolve_implicit_global_asset_job_def()
            job.execute_in_process(instance=instance, run_config={"loggers": {PROGRESS: {}}}, tags=tags)
            seconds = time.perf_counter() - started
            for asset in chain:
                stored = len(instance.get_materialized_partitions(asset.key))
                if stored != days * len(TICKERS):
                    raise RuntimeError(f"{asset.key.to_user_string()}: {stored} keys stored")
        size = sum(path.stat().st_size for path in Path(home).glob("events/*"))
    partitions = days * len(TICKERS) * assets
    return {
        "storage": "PostgreSQL" if isinstance(storage, str) else storage.__name__,
        "asset_partitions": partitions,
        "seconds": round(seconds, 2),
        "ms_per_asset_partition": round(1000 * seconds / partitions, 3),
        "kb_per_asset_partition": round(size / 1024 / partitions, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=16_194, help="date|ticker keys an asset, our storage")
    parser.add_argument("--stock-keys", type=int, default=1_000, help="date|ticker keys an asset, stock storage")
    parser.add_argument("--assets", type=int, default=4)
    parser.add_argument("--postgres", metavar="URL", help="measure this empty PostgreSQL database too")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=dg.BetaWarning)

    # The console is quiet in both, so that the ratio is the event log's and not the terminal's.
    stock = measure(SqliteEventLogStorage, options.stock_keys, options.assets, bulk=False)
    ours = measure(BatchedSqliteEventLogStorage, options.keys, options.assets, bulk=True)
    ratio = stock["ms_per_asset_partition"] / ours["ms_per_asset_partition"]
    figures = [
        Figure("event log, an asset-partition", ours["ms_per_asset_partition"], "ms", MAX_MS),
        Figure("event log, stock SQLite takes", ratio, "×", MIN_RATIO, at_least=True),
        Figure("event log, an asset-partition on disk", ours["kb_per_asset_partition"], "KB", MAX_KB),
    ]
    if options.json:
        print(json.dumps({"figures": [one.as_json() for one in figures], "stock": stock, "ours": ours}))
        return
    names = ("asset_partitions", "seconds", "ms_per_asset_partition", "kb_per_asset_partition")
    measured = [stock, ours]
    if options.postgres:
        measured.append(measure(options.postgres, options.keys, options.assets, bulk=True))
    rows = [(one["storage"], one[names[0]], one[names[1]], f"{one[names[2]]:.3f}", one[names[3]]) for one in measured]
    print_table(("storage", "asset-partitions", "seconds", "ms each", "KB each"), rows)
    print_figures(figures)


if __name__ == "__main__":
    main()
