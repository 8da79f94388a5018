"""Backfills through the doors of the UI: the real webserver and daemon, asked as the browser asks them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from stock_lakehouse import tables
from stock_lakehouse.automation.jobs import LAKEHOUSE_JOB
from stock_lakehouse.instance.home import ensure_dagster_home, open_instance
from stock_lakehouse.lake import Lake
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.partitions import RANGE_END, RANGE_START, PartitionScheme, Rectangle
from stock_lakehouse.runs.run import run_rectangle
from stock_lakehouse.settings import Settings
from stock_lakehouse_tests.graph import LANDINGS, contents, keys_of
from stock_lakehouse_tests.live import live_dagster

LAYERS = [table.name for table in tables.LAYERS]
EVERY = [table.name for table in tables.TABLES]


def project_of(folder: Path, tickers: Iterable[str], first: date) -> Settings:
    """A project in `folder`, with a laptop's instance."""
    names = ", ".join(f'"{ticker}"' for ticker in tickers)
    (folder / "lakehouse.toml").write_text(f"tickers = [{names}]\nfirst_date = {first}\nlast_date = 2023-09-21\n")
    return Settings(
        lake_root=folder / "lakehouse", tickers=tuple(tickers), first_date=first, last_date=date(2023, 9, 21)
    )


def whole(of: Settings) -> Rectangle:
    scheme = PartitionScheme(of, market_calendar(of.first_date))
    return scheme.request(None, None, None, date(2024, 1, 2))


def tables_of(lake: Lake) -> dict[str, list[dict[str, Any]]]:
    """What the published tables hold, but for the time of landing."""
    return {
        name: [
            {key: value for key, value in row.items() if key not in LANDINGS} for row in contents(getattr(lake, name))
        ]
        for name in ("processed", "curated", "features")
    }


def assert_as_in_one_run(settings: Settings, home: Path) -> None:
    """The lake holds what one undisturbed run over everything would have left, and Dagster knows of every key."""
    undisturbed = settings.model_copy(update={"lake_root": settings.lake_root.with_name("undisturbed")})
    assert run_rectangle(undisturbed, whole(undisturbed)).success
    assert tables_of(Lake(settings.lake_root)) == tables_of(Lake(undisturbed.lake_root))
    with open_instance(home) as instance:
        for name in LAYERS:
            assert instance.get_materialized_partitions(dg.AssetKey(name)) == set(keys_of(whole(settings)))


def keys_by_run(home: Path) -> dict[str, list[str]]:
    """The keys of features that each run materialized, ascending."""
    found: dict[str, list[str]] = {}
    with open_instance(home) as instance:
        for record in instance.fetch_materializations(dg.AssetKey("stocks_features"), limit=10_000).records:
            found.setdefault(record.run_id, []).append(str(record.partition_key))
    return {run: sorted(keys) for run, keys in found.items()}


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_overlapping_backfills_of_assets_and_of_the_job_and_a_run_over_graphql_end_in_the_right_tables(
    tmp_path: Path,
) -> None:
    settings = project_of(tmp_path, ("AAPL", "NVDA"), date(2023, 9, 19))
    home = ensure_dagster_home(settings)
    config = home / "dagster.yaml"
    without_pool = config.read_text().replace("default_limit: 1 ", "# no limit ")
    assert without_pool != config.read_text()
    config.write_text(without_pool.replace("max_concurrent_runs: 2", "max_concurrent_runs: 4"))
    with live_dagster(tmp_path, home) as dagster:
        some = dagster.backfill(LAYERS, ["2023-09-19|AAPL", "2023-09-20|NVDA"])  # no rectangle: a failed subset
        whole_job = dagster.backfill_job(LAKEHOUSE_JOB)
        dagster.launch_run(LAKEHOUSE_JOB, {RANGE_START: "2023-09-20|AAPL", RANGE_END: "2023-09-21|NVDA"})
        runs = dagster.wait([some, whole_job], seconds=500)
    assert {run["status"] for run in runs} == {"SUCCESS"}
    spans = sorted((run["startTime"], run["endTime"]) for run in runs)
    assert any(later[0] < earlier[1] for earlier, later in pairwise(spans))  # two were in progress at once
    keys = keys_by_run(home)
    expected = {
        ("2023-09-19|AAPL", "2023-09-19|AAPL"): ["2023-09-19|AAPL"],
        ("2023-09-20|NVDA", "2023-09-20|NVDA"): ["2023-09-20|NVDA"],
        ("2023-09-19|AAPL", "2023-09-21|AAPL"): [f"2023-09-{day}|AAPL" for day in (19, 20, 21)],
        ("2023-09-19|NVDA", "2023-09-21|NVDA"): [f"2023-09-{day}|NVDA" for day in (19, 20, 21)],
        ("2023-09-20|AAPL", "2023-09-21|NVDA"): [
            f"2023-09-{day}|{ticker}" for day in (20, 21) for ticker in ("AAPL", "NVDA")
        ],
    }
    assert {(run["tags"][RANGE_START], run["tags"][RANGE_END]): keys[run["runId"]] for run in runs} == expected
    assert_as_in_one_run(settings, home)
