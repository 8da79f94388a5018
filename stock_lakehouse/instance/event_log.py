"""A faster SQLite event log for Dagster's bulk runs over `date|ticker` keys, and the process settings of such runs.

Here: how asset events are written to the SQLite files, and what a bulk run changes in its process. Not here: the meaning of the
events, who emits them, and reading them; Dagster does all of that.
"""

import gc
import inspect
import logging
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Self

from dagster import Field, StringSource
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.errors import DagsterHomeNotSetError
from dagster._core.events import ASSET_EVENTS, DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.event import listen

_log = logging.getLogger(__name__)
_opened_home: ContextVar[str | None] = ContextVar("opened_home", default=None)

# Dagster reads both variables at each call, not at import. It reads the second one where the run is created: there is then one
# planned event for each asset instead of one for each key, so the UI shows no key of the run as in progress or as failed.
BULK_ENVIRONMENT: Final[Mapping[str, str]] = {
    "DAGSTER_EVENT_BATCH_SIZE": "1000",
    "DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS": "1",
}
LOCK_SECONDS = 30  # how long a write waits for the lock of another process, as in the stock storage
KEPT_ENGINES = 8  # one for the index and one for each of the last runs, with three open files each
_RUN_ENDED_EARLY = (DagsterEventType.RUN_FAILURE, DagsterEventType.RUN_CANCELED)
_EVENT_COLUMNS = ("run_id", "event", "dagster_event_type", "timestamp", "step_key", "asset_key", "partition")
_TAG_COLUMNS = ("event_id", "asset_key", "key", "value", "event_timestamp")

# The methods that this module calls or overrides, and the tables that it writes. None of them is a public API of Dagster.
_METHODS: Final[Mapping[str, tuple[str, ...]]] = {
    "_event_to_row": ("self", "event"),
    "_tags_for_asset_event": ("self", "event"),
    "_store_asset_event": ("self", "conn", "event", "event_id"),
    "_connect": ("self", "shard"),
    "_initdb": ("self", "engine", "for_index_shard"),
    "conn_string_for_shard": ("self", "shard_name"),
    "delete_events_for_run": ("self", "conn", "run_id"),
    "has_table": ("self", "table_name"),
    "index_connection": ("self",),
    "path_for_shard": ("self", "run_id"),
    "run_connection": ("self", "run_id"),
    "store_asset_check_event": ("self", "event", "event_id"),
    "store_event": ("self", "event"),
    "store_event_batch": ("self", "events"),
}
_TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "event_logs": ("id", *_EVENT_COLUMNS),
    "asset_event_tags": ("id", *_TAG_COLUMNS),
}


# No external text enters a statement: the names are the constants above, and values are bound.
_NAMES = ", ".join(_EVENT_COLUMNS)
_INSERT_EVENTS = f"INSERT INTO main.event_logs (id, {_NAMES}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_INSERT_TAGS = f"INSERT INTO main.asset_event_tags ({', '.join(_TAG_COLUMNS)}) VALUES (?, ?, ?, ?, ?)"  # noqa: S608
_NEXT_ID = "SELECT coalesce(max(id), 0) + 1 FROM main.event_logs"
# The JSON alone identifies an event: it holds a timestamp in microseconds and the process id. The other conditions are for speed.
_FIND_EVENT = (
    "SELECT id FROM main.event_logs WHERE asset_key = :asset_key AND dagster_event_type = :dagster_event_type"
    " AND partition IS :partition AND event = :event"
)
_DELETE_TAGS = "DELETE FROM asset_event_tags WHERE event_id IN (SELECT id FROM event_logs WHERE run_id = ?)"
_DELETE_EVENTS = "DELETE FROM event_logs WHERE run_id = ?"
_COPY_TO_SHARD = (
    f"INSERT INTO shard.event_logs ({_NAMES}) SELECT {_NAMES} FROM main.event_logs AS i"  # noqa: S608
    " WHERE i.id BETWEEN :first AND :last AND i.run_id = :run_id AND i.asset_key IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM shard.event_logs AS s WHERE s.asset_key = i.asset_key"
    " AND s.dagster_event_type = i.dagster_event_type AND s.partition IS i.partition AND s.event = i.event)"
    " ORDER BY i.id"
)


def private_api_differences() -> list[str]:
    """The private methods and columns used here that are different or missing in the installed Dagster; empty if none is."""
    differences = []
    for name, expected in _METHODS.items():
        method = getattr(SqliteEventLogStorage, name, None)
        parameters = tuple(inspect.signature(method).parameters) if method is not None else None
        if parameters != expected:
            differences.append(f"method {name}: expected {expected}, found {parameters}")
    for name, expected in _TABLES.items():
        table = SqlEventLogStorageMetadata.tables.get(name)
        columns = tuple(table.columns.keys()) if table is not None else None
        if columns != expected:
            differences.append(f"table {name}: expected {expected}, found {columns}")
    return differences


class BatchedSqliteEventLogStorage(SqliteEventLogStorage):
    """A SQLite event log that writes a batch of asset events in one transaction over the index and the run's shard.

    Files, rows and ids are the same as those of the stock storage, so Dagster's reads are unchanged and either class can open
    what the other wrote. A key costs 0.2 ms here and 10 ms in the stock storage. Events of other kinds are written as by the
    stock storage.

    SQLite commits the index, then the shard (seen in a trace; in WAL mode a transaction over both files is not atomic). A kill
    between the two leaves rows in the index that the shard lacks. Storing the same events again, or the event that ends the
    broken run, completes the shard and duplicates nothing.

    If Dagster's private API differs from the one this class was written for, it warns once and writes as the stock storage does.
    Raises `sqlalchemy.exc.OperationalError` when another process keeps a write lock for 30 seconds.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: OrderedDict[str, Engine] = OrderedDict()  # by shard, the last used one last
        self._known_tables: set[str] = set()
        self._batching = False  # the stock storage opens its files in __init__
        super().__init__(base_dir=base_dir, inst_data=inst_data)
        differences = private_api_differences()
        differences += [
            f"attribute {name}: missing" for name in ("_initialized_dbs", "_db_lock") if not hasattr(self, name)
        ]
        self._batching = not differences
        if differences:
            _log.warning(
                "Dagster's private event log API has changed: events are written as by the stock SQLite"
                " storage, at about 10 ms for each partition instead of 0.2 ms. %s",
                "; ".join(differences),
            )

    @classmethod
    def config_type(cls) -> Any:
        """The config: `base_dir`, the folder of the SQLite files.

        The default is `history/runs`, as in the stock storage, in the home that `events_below` sets, else in DAGSTER_HOME.
        """
        return {"base_dir": Field(StringSource, is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        base_dir = config_value.get("base_dir") or os.path.join(_home(), "history", "runs")
        return cls(base_dir=base_dir, inst_data=inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        # The stock method opens and closes the file for each statement: 10 ms, since SQLite checkpoints at the last close.
        if not self._batching:
            with super()._connect(shard) as conn:
                yield conn
            return
        with self._db_lock:
            engine = self._engine_of(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.connect() as conn, conn.begin():
                yield conn

    def _engine_of(self, shard: str) -> Engine:
        """The engine of a shard, which keeps its connection open. The caller must hold the lock."""
        if shard not in self._engines:
            self._engines[shard] = create_engine(
                self.conn_string_for_shard(shard),
                pool_size=1,
                max_overflow=-1,  # a connection inside another one is closed after its use
                connect_args={"timeout": LOCK_SECONDS, "check_same_thread": False},
            )
            listen(self._engines[shard], "connect", _on_connect)
        self._engines.move_to_end(shard)
        while len(self._engines) > KEPT_ENGINES:
            self._engines.popitem(last=False)[1].dispose()
        return self._engines[shard]

    def _close_files(self) -> None:
        with self._db_lock:
            while self._engines:
                self._engines.popitem()[1].dispose()

    def wipe(self) -> None:
        self._close_files()
        super().wipe()

    def dispose(self) -> None:
        self._close_files()
        super().dispose()

    def has_table(self, table_name: str) -> bool:
        # Dagster asks before each event. A table that is there stays.
        if table_name not in self._known_tables and super().has_table(table_name):
            self._known_tables.add(table_name)
        return table_name in self._known_tables

    def store_event(self, event: EventLogEntry) -> None:
        # Dagster stores the events of a failed batch again, one by one. They take the same path, so none is duplicated.
        self.store_event_batch([event])

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        # A batch of planned events contains asset checks too, which have a separate table.
        for (batched, run_id), group in groupby(events, key=lambda e: (self._is_batched(e), e.run_id)):
            if batched:
                self._store_asset_events(run_id, list(group))
                continue
            for event in group:
                if self._batching and event.dagster_event_type in _RUN_ENDED_EARLY:
                    with self._index_and_shard(run_id) as conn:
                        self._copy_to_shard(conn, run_id, 0, 2**63 - 1)
                super().store_event(event)

    def store_asset_check_event(self, event: EventLogEntry, event_id: int | None) -> None:
        # If partitions are days, Dagster plans an unpartitioned check once for each day of the run: 12 checks × 5,040 days took
        # minutes and 1 GB, and no evaluation ever completes those rows. The checks of this package have no partitions: one row.
        super().store_asset_check_event(_planned_once(event) if self._batching else event, event_id)

    def delete_events_for_run(self, conn: Connection, run_id: str) -> None:
        # The stock method puts the id of every event into one statement: after a bulk run those are more than SQLite accepts.
        if self._batching:
            conn.exec_driver_sql(_DELETE_TAGS, (run_id,))
            conn.exec_driver_sql(_DELETE_EVENTS, (run_id,))
        else:
            super().delete_events_for_run(conn, run_id)

    def _is_batched(self, event: EventLogEntry) -> bool:
        return self._batching and event.dagster_event_type in ASSET_EVENTS

    def _store_asset_events(self, run_id: str, events: Sequence[EventLogEntry]) -> None:
        rows = [
            self._event_to_row(event) for event in events
        ]  # half of the cost, so it is done before any lock is taken
        for row in rows:
            row["timestamp"] = row["timestamp"].isoformat(" ", "microseconds")  # as SQLAlchemy writes it to SQLite
        with self._index_and_shard(run_id) as conn:
            ids = self._store_in_index(conn, events, rows)
            self._copy_to_shard(conn, run_id, min(ids), max(ids))

    def _store_in_index(
        self, conn: Connection, events: Sequence[EventLogEntry], rows: Sequence[Mapping[str, Any]]
    ) -> list[int]:
        """Store the events that the index does not hold yet; return the ids of all `events`."""
        # A batch is committed to the index whole or not at all, so its first event shows whether this is a retry.
        retry = _id_in_index(conn, rows[0]) is not None
        known = [_id_in_index(conn, row) for row in rows] if retry else [None] * len(rows)
        # Under the write lock no other process can take these ids. They are the ones that SQLite itself would assign.
        next_id: int = conn.exec_driver_sql(_NEXT_ID).scalar_one()
        new = [(events[i], rows[i]) for i, event_id in enumerate(known) if event_id is None]
        new_events, new_tags, latest = [], [], {}
        for event_id, (event, row) in enumerate(new, start=next_id):
            new_events.append((event_id, *(row[column] for column in _EVENT_COLUMNS)))
            for key, value in self._tags_for_asset_event(event).items():
                new_tags.append((event_id, row["asset_key"], key, value, row["timestamp"]))
            latest[row["asset_key"], row["dagster_event_type"]] = (event_id, event)
        # Raw statements, because SQLAlchemy's table objects spend 0.05 ms for each key on the parameters.
        if new_events:
            conn.exec_driver_sql(_INSERT_EVENTS, new_events)
        if new_tags and self.has_table("asset_event_tags"):
            conn.exec_driver_sql(_INSERT_TAGS, new_tags)
        for event_id, event in sorted(latest.values(), key=lambda pair: pair[0]):
            self._store_asset_event(conn, event, event_id)
        return [event_id for event_id in known if event_id is not None] + [row[0] for row in new_events]

    def _copy_to_shard(self, conn: Connection, run_id: str, first: int, last: int) -> None:
        conn.exec_driver_sql(_COPY_TO_SHARD, {"run_id": run_id, "first": first, "last": last})

    @contextmanager
    def _index_and_shard(self, run_id: str) -> Iterator[Connection]:
        """Open one transaction over the index (`main`) and the run's `shard`; both write locks are taken first."""
        if run_id not in self._initialized_dbs:
            with self.run_connection(run_id):
                pass  # creates the shard's tables
        with self.index_connection() as conn:
            conn.detach()  # it is closed afterwards, since the next user must not see the shard
            conn.exec_driver_sql("ATTACH DATABASE ? AS shard", (self.path_for_shard(run_id),))
            conn.exec_driver_sql("BEGIN IMMEDIATE")
            yield conn


def _on_connect(connection: Any, _: Any) -> None:
    # With a write-ahead log this survives a kill. A power cut may take the last records, which `record` writes again.
    connection.execute("PRAGMA synchronous = NORMAL")


def _home() -> str:
    """The folder of the instance that is being opened. Dagster does not pass it to a custom storage class."""
    home = _opened_home.get() or os.environ.get("DAGSTER_HOME")
    if not home:
        raise DagsterHomeNotSetError(
            "DAGSTER_HOME is not set, so the event log has no folder. Set it to the folder of dagster.yaml"
        )
    return home


@contextmanager
def events_below(home: Path) -> Iterator[None]:
    """Keep the events of an instance that this thread opens in this block in `home`, whatever DAGSTER_HOME is."""
    token = _opened_home.set(str(home))
    try:
        yield
    finally:
        _opened_home.reset(token)


def _planned_once(event: EventLogEntry) -> EventLogEntry:
    """A planned check evaluation without its partitions; any other event unchanged."""
    if event.dagster_event is None or event.dagster_event_type != DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
        return event
    planned = event.dagster_event.asset_check_planned_data
    once = AssetCheckEvaluationPlanned(asset_key=planned.asset_key, check_name=planned.check_name)
    return event._replace(dagster_event=event.dagster_event._replace(event_specific_data=once))


def _id_in_index(conn: Connection, row: Mapping[str, Any]) -> int | None:
    found: int | None = conn.exec_driver_sql(_FIND_EVENT, dict(row)).scalar()
    return found


def batch_events() -> None:
    """Let every run of this process write its events in batches, unless DAGSTER_EVENT_BATCH_SIZE is set.

    For runs that Dagster launches: there is still one planned event for each key, so the UI shows the progress of each.
    """
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", BULK_ENVIRONMENT["DAGSTER_EVENT_BATCH_SIZE"])


@contextmanager
def bulk_run_environment() -> Iterator[None]:
    """Prepare this process for a bulk run, and restore the previous state afterwards, also if the run raises.

    Sets `BULK_ENVIRONMENT` and turns garbage collection off. Enter it before the run is created, and give the run a single quiet
    logger: every event passes through each logger. It changes the whole process, so two threads cannot use it at the same time.
    """
    before = {name: os.environ.get(name) for name in BULK_ENVIRONMENT}
    collecting = gc.isenabled()
    os.environ.update(BULK_ENVIRONMENT)
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({name: value} if value is not None else {})
