"""The Dagster instance of a lake: its folder, and the dagster.yaml of a laptop and of production.

Not here: the runs that it records (runs/).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stock_lakehouse.settings import Settings, config_file

if TYPE_CHECKING:
    import dagster as dg
    from filelock import BaseFileLock

POSTGRES_VARIABLE = "DAGSTER_POSTGRES_URL"
# On ECS: a JSON object of the ARN of each role that the runs of some jobs have in place of the role of all others.
ROLES_VARIABLE = "DAGSTER_ECS_ROLES"

# The part of dagster.yaml that is the same everywhere, but for its figures.
QUEUE: Final = """\
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config:
    dequeue_interval_seconds: {dequeue_seconds}           # {dequeue_why}
concurrency:
  runs:
    max_concurrent_runs: {runs}              # each needs up to 2.5 GB; runs take turns at a table whatever this is
  pools:
    granularity: run                    # a run waits in the queue, not in the middle
    default_limit: 1                    # a pool a table, and "source": one run at a time writes it or asks it
run_monitoring:
  enabled: true
  start_timeout_seconds: 300
  max_runtime_seconds: 21600            # a run whose process died with the machine fails after this
  free_slots_after_run_end_seconds: 60
retention:                              # ticks; `stock-lakehouse prune` is for runs
  sensor:
    purge_after_days: {{skipped: 2, success: 90, failure: 90, started: 90}}
  schedule:
    purge_after_days: {{skipped: 2, success: 90, failure: 90, started: 90}}
  auto_materialize:
    purge_after_days: {{skipped: 2, success: 90, failure: 90, started: 90}}
telemetry:
  enabled: false
nux:
  enabled: false
"""

LAPTOP: Final = """\
# The Dagster instance of this lake. Written once by stock-lakehouse; yours to edit.
event_log_storage:
  module: stock_lakehouse.event_storage   # the stock SQLite log, 20 times faster for date|ticker keys
  class: BatchedSqliteEventLogStorage
  config: {}
""" + QUEUE.format(dequeue_seconds=1, dequeue_why="a click starts within two seconds", runs=2)

PRODUCTION: Final = f"""\
# The Dagster instance of this lake, for production. Written by `stock-lakehouse init --production`; yours to edit.
# {POSTGRES_VARIABLE} is postgresql://user:password@host:5432/database; runs write their events in batches.
storage:
  postgres:
    postgres_url:
      env: {POSTGRES_VARIABLE}
""" + QUEUE.format(dequeue_seconds=5, dequeue_why="seconds between looks at the queue", runs=2)

# The name of the code location is what the UI and the records of sensors and runs know it by. Without it, it is the module's.
CODE_LOCATION = "stock_lakehouse"
CODE_MODULE = "stock_lakehouse.definitions"
WORKSPACE: Final = f"""\
# What Dagster loads for this lake. Written once by stock-lakehouse.
load_from:
  - python_module:
      module_name: {CODE_MODULE}
      location_name: {CODE_LOCATION}
"""

LAKEHOUSE_TOML: Final = """\
# What this lake holds. Every line can be overridden by a variable: STOCK_LAKEHOUSE_TICKERS=AAPL,NVDA, and so on.
# `stock-lakehouse doctor` checks whether these settings work. Secrets come from variables only.

tickers = ["AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA"]
exchange = "XNYS"                 # whose sessions: a MIC like XLON, XTKS | 24/7 (crypto) | 24/5 (currencies)
first_date = 2013-01-02
last_date = 2023-09-21            # without it, the lake grows with every session

source = "sample"                 # sample | csv | yfinance
# csv_folder = "prices"           # with source = "csv"

lake_root = "lakehouse"
engine = "embedded"               # embedded | spark_connect (address in STOCK_LAKEHOUSE_SPARK_REMOTE) | databricks
partition_by = "date_ticker"      # date_ticker: one key per bar, up to 100,000 | session: one key per session, any number
automation = "off"                # off | sensor | schedule | declarative: what starts runs (docs/automation.md)
"""


def dagster_folder(settings: Settings) -> Path:
    """The folder of the lake's Dagster instance.

    DAGSTER_HOME if it is set; else `.dagster` in the lake, or for a lake in a bucket `.dagster/<bucket>/<prefix>` beside
    lakehouse.toml.
    """
    if home := os.environ.get("DAGSTER_HOME"):
        return Path(home)
    root = settings.lake_root
    if isinstance(root, str):
        return config_file().parent / ".dagster" / root.removeprefix("s3://")
    return root / ".dagster"


def ensure_dagster_home(settings: Settings) -> Path:
    """`dagster_folder`, created with a laptop's dagster.yaml and a workspace.yaml if it does not exist.

    DAGSTER_HOME is not changed: a process may work on several lakes, and each has its own instance.
    """
    home = dagster_folder(settings)
    home.mkdir(parents=True, exist_ok=True)
    with _opening(home):
        write_new(home / "dagster.yaml", LAPTOP, force=False)
        write_new(home / "workspace.yaml", WORKSPACE, force=False)
    return home


@contextmanager
def open_instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance in the folder `home`, which one process opens at a time.

    If the instance is new, two processes would both create its SQLite files, and Dagster fails when a table already exists.
    """
    import dagster as dg

    from stock_lakehouse.instance.event_log import events_below

    with _opening(home), events_below(home):
        instance = dg.DagsterInstance.from_config(str(home))
    with instance:
        yield instance


def _opening(home: Path) -> BaseFileLock:
    from filelock import FileLock

    return FileLock(home / "opening.lock")


def write_new(path: Path, text: str, force: bool) -> bool:
    """Write `text` to `path` and create its folder. False, and nothing is written, if the file exists and `force` is not set."""
    if path.exists() and not force:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when complete, so a kill leaves no half file. The name is unique: the containers of a task start together.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return True
