"""A faster SQLite event log for Dagster's bulk runs over `date|ticker` keys, and the process settings of such runs.

Here: how asset events are written to the SQLite files, and what a bulk run changes in its process. Not here: the meaning of the
events, who emits them, and reading them; Dagster does all of that.
"""

import gc
import inspect
import json
import logging
import os
import sqlite3
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Self

from dagster import AssetKey, AssetMaterialization, Field, MultiPartitionKey, StringSource
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.errors import DagsterHomeNotSetError
from dagster._core.events import ASSET_EVENTS, DagsterEventType, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata
from dagster._core.storage.tags import MULTIDIMENSIONAL_PARTITION_PREFIX
from dagster._serdes import ConfigurableClassData, serialize_value
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
# Of more keys than this, a run's own log has the last one alone: the UI streams a log whole, 65,000 events take it minutes.
FEW_KEYS = 50
DATA_VERSION_LENGTH = 16  # of Dagster's 64 hexadecimal digits, for each of many keys
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
    "delete_events": ("self", "run_id"),
    "delete_events_for_run": ("self", "conn", "run_id"),
    "get_asset_partitions_for_run": ("self", "run_id", "of_type"),
    "get_event_tags_for_asset": ("self", "asset_key", "filter_tags", "filter_event_id"),
    "_get_assets_details": ("self", "asset_keys"),
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
_FIND_KEYS_OF_RUN = (
    "SELECT DISTINCT asset_key, partition FROM main.event_logs WHERE run_id = ? AND asset_key IS NOT NULL"
)
_EVENTS_OF_RUN = (
    "SELECT id, asset_key, dagster_event_type, partition FROM main.event_logs"
    " WHERE run_id = ? AND asset_key IS NOT NULL ORDER BY id"
)
# Whether an asset has an event of a key whose tags are in its JSON alone.
_UNTAGGED = """
SELECT 1 FROM event_logs AS e WHERE asset_key = ? AND dagster_event_type = 'ASSET_MATERIALIZATION'
AND json_extract(event, '$.dagster_event.event_specific_data.materialization.tags') LIKE '%dagster/partition/%'
AND NOT EXISTS (SELECT 1 FROM asset_event_tags AS t WHERE t.event_id = e.id AND t.key LIKE 'dagster/partition/%') LIMIT 1
"""
_TAGS_OF_EVENTS = """
SELECT id, coalesce(json_extract(event, '$.dagster_event.event_specific_data.materialization.tags'),
  json_extract(event, '$.dagster_event.event_specific_data.asset_observation.tags'))
FROM event_logs WHERE asset_key = ? AND dagster_event_type IN ('ASSET_MATERIALIZATION', 'ASSET_OBSERVATION') AND timestamp > ?
ORDER BY id
"""
_DELETE_TAGS = "DELETE FROM asset_event_tags WHERE event_id IN (SELECT id FROM event_logs WHERE run_id = ?)"
_DELETE_EVENTS = "DELETE FROM event_logs WHERE run_id = ?"
_COPY_TO_SHARD = (
    f"INSERT INTO shard.event_logs ({_NAMES}) SELECT {_NAMES} FROM main.event_logs AS i"  # noqa: S608
    " WHERE i.id IN (SELECT value FROM json_each(:ids))"
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

    Files and tables are those of the stock storage, so Dagster's reads are unchanged and either class can open what the other
    wrote. Events of other kinds are written as by the stock storage. Rows are the same too, except for many keys:

    - Of a batch with more than FEW_KEYS keys of an asset, the run's shard, which is the run's own log, has the last event alone.
      The index, which answers every question about assets, has all of them.
    - `with_keys` stores many keys with one event, and their rows are short: 1.4 KB with all indexes, instead of 9 KB. They have
      no metadata and no provenance, and of their tags only the data version is indexed.
    - A planned event does not list more than FEW_KEYS keys. Nothing in Dagster reads that list.

    SQLite commits the index, then the shard (seen in a trace; in WAL mode a transaction over both files is not atomic). A kill
    between the two leaves rows in the index that the shard lacks. Storing the same events again, or the event that ends the
    broken run, completes the shard and duplicates nothing.

    If Dagster's private API differs from the one this class was written for, it warns once and writes as the stock storage does.
    Raises `sqlalchemy.exc.OperationalError` when another process keeps a write lock for 30 seconds.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: OrderedDict[str, Engine] = OrderedDict()  # by shard, the last used one last
        self._known_tables: set[str] = set()
        self._with_keys: dict[tuple[str, str, str], Mapping[str, str | None]] = {}
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

    def with_keys(self, run_id: str, asset_key: AssetKey, last: str, keys: Mapping[str, str | None]) -> bool:
        """Store the materialization of partition `last`, which the run reports next, for `keys` too, in the same transaction.

        `keys`: the other partitions, each with the description of its event (None: that of `last`). They are stored before
        `last`, so `last` remains the asset's latest materialization. False, and nothing is done, if this storage writes as the
        stock storage does: the caller must then report the keys one by one.
        """
        if self._batching:
            self._with_keys[run_id, asset_key.to_string(), last] = keys
        return self._batching

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        if self._batching:
            events = [_without_many_keys(event) for event in events]
        # A batch of planned events contains asset checks too, which have a separate table.
        for (batched, run_id), group in groupby(events, key=lambda e: (self._is_batched(e), e.run_id)):
            if batched:
                self._store_asset_events(run_id, list(group))
                continue
            for event in group:
                if self._batching and event.dagster_event_type in _RUN_ENDED_EARLY:
                    with self._index_and_shard(run_id) as conn:
                        found = conn.exec_driver_sql(_EVENTS_OF_RUN, (run_id,)).fetchall()
                        self._copy_to_shard(conn, _logged([(event_id, tuple(of)) for event_id, *of in found]))
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

    def delete_events(self, run_id: str) -> None:
        # The stock method empties the run's shard and leaves the file, of 0.2 MB.
        super().delete_events(run_id)
        if not self._batching:
            return
        with self._db_lock:
            if run_id in self._engines:
                self._engines.pop(run_id).dispose()
            self._initialized_dbs.discard(run_id)
        for suffix in ("", "-wal", "-shm"):
            Path(self.path_for_shard(run_id) + suffix).unlink(missing_ok=True)

    def give_back_space(self) -> None:
        """Return the space of deleted events to the file system. Raises sqlite3.OperationalError if the index is in use."""
        if not self._batching:
            return
        with closing(sqlite3.connect(self.path_for_shard("index"), timeout=LOCK_SECONDS)) as connection:
            connection.execute("VACUUM")

    def get_asset_partitions_for_run(
        self, run_id: str, of_type: DagsterEventType | set[DagsterEventType] | None = None
    ) -> Mapping[AssetKey, Set[str | None]]:
        # The stock method reads the run's shard, which lacks most of many keys.
        if not self._batching:
            return super().get_asset_partitions_for_run(run_id, of_type)
        types = {of_type} if isinstance(of_type, DagsterEventType) else of_type
        found: dict[AssetKey, set[str | None]] = defaultdict(set)
        with self.index_connection() as conn:
            for _, asset_key, event_type, partition in conn.exec_driver_sql(_EVENTS_OF_RUN, (run_id,)):
                key = AssetKey.from_db_string(asset_key)
                if key and (not types or DagsterEventType(event_type) in types):
                    found[key].add(partition)
        return found

    def get_event_tags_for_asset(
        self, asset_key: AssetKey, filter_tags: Mapping[str, str] | None = None, filter_event_id: int | None = None
    ) -> Sequence[Mapping[str, str]]:
        # Of many keys, the table of tags has the data version alone, so tags are read from the events.
        if not self._batching or not self._has_untagged(asset_key):
            return super().get_event_tags_for_asset(asset_key, filter_tags, filter_event_id)
        [details] = self._get_assets_details([asset_key])
        wiped = details.last_wipe_timestamp if details else None
        since = datetime.fromtimestamp(wiped or 0, UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
        with self.index_connection() as conn:
            found = conn.exec_driver_sql(_TAGS_OF_EVENTS, (asset_key.to_string(), since)).fetchall()
        tags = ((event_id, json.loads(text or "{}")) for event_id, text in found)
        indexed = (
            (
                event_id,
                {key: event_tags[key] for key in self.get_asset_tags_to_index(set(event_tags)) if key in event_tags},
            )
            for event_id, event_tags in tags
        )
        return [
            event_tags
            for event_id, event_tags in indexed
            if event_tags
            and filter_event_id in {None, event_id}
            and all(event_tags.get(key) == value for key, value in (filter_tags or {}).items())
        ]

    def _has_untagged(self, asset_key: AssetKey) -> bool:
        with self.index_connection() as conn:
            return conn.exec_driver_sql(_UNTAGGED, (asset_key.to_string(),)).first() is not None

    def _is_batched(self, event: EventLogEntry) -> bool:
        return self._batching and event.dagster_event_type in ASSET_EVENTS

    def _store_asset_events(self, run_id: str, events: Sequence[EventLogEntry]) -> None:
        # Half of the cost is here, so it is done before any lock is taken.
        rows = [self._row(event) for event in events]
        identities = [(run_id, str(row["asset_key"]), str(row["partition"])) for row in rows]
        with_keys = {
            number: [*_rows_of_keys(event, row, self._with_keys[identity])]
            for number, (event, row, identity) in enumerate(zip(events, rows, identities, strict=True))
            if event.dagster_event_type == DagsterEventType.ASSET_MATERIALIZATION and identity in self._with_keys
        }
        with self._index_and_shard(run_id) as conn:
            ids = self._store_in_index(conn, events, rows, with_keys)
            of = [(row["asset_key"], row["dagster_event_type"], row["partition"]) for row in rows]
            self._copy_to_shard(conn, _logged([*zip(ids, of, strict=True)]))
        for number in with_keys:
            del self._with_keys[identities[number]]

    def _row(self, event: EventLogEntry) -> dict[str, Any]:
        row = self._event_to_row(event)
        return {
            **row,
            "timestamp": row["timestamp"].isoformat(" ", "microseconds"),
        }  # as SQLAlchemy writes it to SQLite

    def _store_in_index(
        self,
        conn: Connection,
        events: Sequence[EventLogEntry],
        rows: Sequence[Mapping[str, Any]],
        with_keys: Mapping[int, Sequence[tuple[Mapping[str, Any], str | None]]],
    ) -> list[int]:
        """Store the events that the index does not hold yet; return the ids of all `events`.

        `with_keys`: by the number of an event, the rows that are stored before it, each with its data version.
        """
        # A batch is committed to the index whole or not at all, so its first event shows whether this is a retry.
        retry = _id_in_index(conn, rows[0]) is not None
        ids: list[int | None] = [_id_in_index(conn, row) if retry else None for row in rows]
        # Under the write lock no other process can take these ids. They are the ones that SQLite itself would assign.
        next_id: int = conn.exec_driver_sql(_NEXT_ID).scalar_one()
        new_events: list[tuple[Any, ...]] = []
        new_tags: list[tuple[Any, ...]] = []
        latest = {}

        def add(row: Mapping[str, Any], tags: Mapping[str, str]) -> int:
            event_id = next_id + len(new_events)
            new_events.append((event_id, *(row[column] for column in _EVENT_COLUMNS)))
            for key, value in tags.items():
                new_tags.append((event_id, row["asset_key"], key, value, row["timestamp"]))
            return event_id

        for number, (event, row) in enumerate(zip(events, rows, strict=True)):
            if ids[number] is not None:
                continue
            for key_row, data_version in with_keys.get(number, ()):
                add(key_row, {DATA_VERSION_TAG: data_version} if data_version else {})
            ids[number] = event_id = add(row, self._tags_for_asset_event(event))
            latest[row["asset_key"], row["dagster_event_type"]] = (event_id, event)
        # Raw statements, because SQLAlchemy's table objects spend 0.05 ms for each key on the parameters.
        if new_events:
            conn.exec_driver_sql(_INSERT_EVENTS, new_events)
        if new_tags and self.has_table("asset_event_tags"):
            conn.exec_driver_sql(_INSERT_TAGS, new_tags)
        for event_id, event in sorted(latest.values(), key=lambda pair: pair[0]):
            self._store_asset_event(conn, event, event_id)
        return [event_id for event_id in ids if event_id is not None]

    def _copy_to_shard(self, conn: Connection, ids: Sequence[int]) -> None:
        conn.exec_driver_sql(_COPY_TO_SHARD, {"ids": json.dumps(ids)})

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


def _logged(events: Sequence[tuple[int, tuple[Any, ...]]]) -> list[int]:
    """The ids of the events that the run's own log has, in ascending order.

    Of an asset's events with more than FEW_KEYS keys, that is the last one. `events`: ids with asset key, type and partition.
    """
    of_asset: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    logged = []
    for event_id, (asset_key, event_type, partition) in events:
        if partition is None:
            logged.append(event_id)
        else:
            of_asset[asset_key, event_type].append(event_id)
    return sorted(
        [*logged, *(event_id for ids in of_asset.values() for event_id in (ids if len(ids) <= FEW_KEYS else ids[-1:]))]
    )


def _rows_of_keys(
    event: EventLogEntry, row: Mapping[str, Any], keys: Mapping[str, str | None]
) -> Iterator[tuple[Mapping[str, Any], str | None]]:
    """For each of `keys`, the row of a materialization like `event`, whose row is `row`, and its data version.

    The rows have no metadata, and of the tags those of the partition and the beginning of the data version. So they do not have
    the provenance from which Dagster tells that a partition is older than its upstream one: a run of this package corrects all
    rows of its tickers, also those of other partitions, and Dagster would show these as outdated.
    """
    dagster_event = event.get_dagster_event()
    materialization = dagster_event.step_materialization_data.materialization
    tags = materialization.tags or {}
    version = tags[DATA_VERSION_TAG][:DATA_VERSION_LENGTH] if DATA_VERSION_TAG in tags else None
    has_dimensions = any(tag.startswith(MULTIDIMENSIONAL_PARTITION_PREFIX) for tag in tags)
    short = AssetMaterialization(materialization.asset_key, materialization.description, partition=row["partition"])
    short_event = dagster_event._replace(
        step_handle=None,
        node_handle=None,
        step_kind_value=None,
        pid=None,
        message=None,
        logging_tags={},
        event_specific_data=StepMaterializationData(short),
    )
    entry = json.loads(serialize_value(event._replace(user_message="", dagster_event=short_event)))
    data = entry["dagster_event"]["event_specific_data"]
    # Without what Dagster fills in when it reads an event that lacks it.
    entry["dagster_event"] = {name: value for name, value in entry["dagster_event"].items() if value not in (None, {})}
    del data["asset_lineage"]
    own = data["materialization"]
    for key, description in keys.items():
        own["partition"] = key
        own.pop("description", None)
        if why := description or materialization.description:
            own["description"] = why
        own["tags"] = {} if version is None else {DATA_VERSION_TAG: version}
        if has_dimensions and isinstance(key, MultiPartitionKey):
            own["tags"] |= {
                MULTIDIMENSIONAL_PARTITION_PREFIX + of.dimension_name: of.partition_key for of in key.dimension_keys
            }
        yield {**row, "event": json.dumps(entry, separators=(",", ":")), "partition": key}, version


def _without_many_keys(event: EventLogEntry) -> EventLogEntry:
    """A planned materialization without its list of keys if it has more than FEW_KEYS; any other event unchanged."""
    dagster_event = event.dagster_event
    if dagster_event is None or not dagster_event.partitions_subset or len(dagster_event.partitions_subset) <= FEW_KEYS:
        return event
    planned = dagster_event.asset_materialization_planned_data._replace(partitions_subset=None)
    return event._replace(dagster_event=dagster_event._replace(event_specific_data=planned))


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
