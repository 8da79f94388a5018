"""Which places of the lake each step and each process touches, derived from the tables.

A place beside the tables is a constant of the module that writes it. Here: reading, writing and deleting by place. Not here:
which steps are one process, and what is touched outside of the lake (rights.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from stock_lakehouse.dashboards.reports import FOLDER as REPORTS
from stock_lakehouse.deployment.production import LOGS as COMPUTE_LOGS
from stock_lakehouse.lake import raw_compaction
from stock_lakehouse.lake.history import LOG
from stock_lakehouse.lake.lease import SUFFIX, TRIAL, lease_path
from stock_lakehouse.lake.maintenance import DAMAGED
from stock_lakehouse.lake.serving import FOLDER as SERVING
from stock_lakehouse.lake.serving import SERVED
from stock_lakehouse.lake.staging import FOLDER as STAGING
from stock_lakehouse.lake.stream_table import LOCK as STREAM_LOCK
from stock_lakehouse.lake.stream_table import WRITING as STREAM_BATCH
from stock_lakehouse.layers.curated import REWRITE_MARKERS
from stock_lakehouse.settings import Settings
from stock_lakehouse.streams.order import CHECKPOINTS
from stock_lakehouse.tables import (
    CURATED,
    FEATURES,
    LAYERS,
    LAYOUTS,
    LIVE_FEATURES,
    MINUTE_BARS,
    PROCESSED,
    QUARANTINE,
    RAW,
    RAW_TICKS,
    RESTATEMENTS,
    STREAM_TABLES,
    TABLES,
    Table,
    laid_out,
    written_in_step,
)
from stock_lakehouse.upkeep import REPAIRS
from stock_lakehouse.warehouse.load import LEASE as WAREHOUSE_LEASE

DELTA = tuple(table for table in TABLES if table.format == "delta")
PARQUET = tuple(table for table in TABLES if table.format == "parquet")
PLAIN = tuple(table for table in TABLES if table.format != "delta")
# The stream's tables whose old versions the stream removes itself. Of the others every version stays.
TRIMMED = (RAW_TICKS, MINUTE_BARS, LIVE_FEATURES)


@dataclass(frozen=True)
class Places:
    """Places below the lake's root: a folder (`raw/stocks_daily`), a pattern of keys (`.locks/doctor-*`), which has a `*`, or the
    key of a lease (`.locks/stream.lease`).

    Every place may also be listed: without that, S3 answers 403 for a key that does not exist.

    - read: objects are read
    - write: objects are written and replaced
    - create: objects are written once and never replaced; they may also be read
    - delete: objects are deleted
    """

    read: frozenset[str] = frozenset()
    write: frozenset[str] = frozenset()
    create: frozenset[str] = frozenset()
    delete: frozenset[str] = frozenset()

    def __or__(self, other: Places) -> Places:
        return Places(*(getattr(self, kind.name) | getattr(other, kind.name) for kind in fields(self)))


def _all(*places: str) -> Places:
    """Places that are read, written and deleted."""
    return Places(read=frozenset(places), write=frozenset(places), delete=frozenset(places))


TRIED = _all(f"{TRIAL}*")  # by `doctor`
LOGS = Places(read=frozenset({COMPUTE_LOGS}), write=frozenset({COMPUTE_LOGS}))


def read(*tables: Table) -> Places:
    """The folders of `tables`, to be read."""
    return Places(read=_paths(*tables))


def written_in(layer: Table, settings: Settings) -> Places:
    """What the step of `layer` writes: the tables of the step, their leases, and what stands beside them."""
    tables = written_in_step(layer)
    leased = [table.name for table in tables]
    found = Places(
        read=_paths(*tables),
        create=_paths(*(table for table in tables if table.format == "csv")),
        write=_paths(*(table for table in tables if table.format != "csv")),
        # The file of a ticker-year that ends is removed. A Delta table's files stay until upkeep.
        delete=_paths(*(table for table in tables if table.format == "parquet")),
    )
    if layer == RAW:
        found |= _made(raw_compaction.PATH)
    else:
        leased.append(f"{layer.name}.step")
    if layer == PROCESSED:
        found |= _made(raw_compaction.PATH)  # of a lake whose raw has the layout by ticker
    if layer == CURATED:
        found |= _all(REWRITE_MARKERS)
    if layer in SERVED:
        found |= Places(create=frozenset({SERVING}))
    if layer != RAW and settings.engine != "embedded":
        found |= _all(STAGING)
    return found | _leases(*leased)


def left_behind(settings: Settings) -> Places:
    """Where every run looks at its end for what it has staged; the embedded engine stages on its machine."""
    return Places() if settings.engine == "embedded" else Places(read=frozenset({STAGING}))


def written_by_stream(table: Table, settings: Settings) -> Places:
    """What the step of a stream's table writes; nothing if another step writes it, as that of the ticks does the losses."""
    if not table.has_step:
        return Places()
    tables = (table, *(other for other in STREAM_TABLES if table.name in other.written_by))
    lease = STREAM_LOCK if table in (RAW_TICKS, MINUTE_BARS) else table.name
    trimmed = _paths(*(other for other in tables if other in TRIMMED))
    found = Places(read=_paths(*tables), write=_paths(*tables), delete=trimmed) | _leases(lease)
    if table in (RAW_TICKS, MINUTE_BARS) and settings.stream.runner == "structured_streaming":
        found |= _all(CHECKPOINTS) | _leases(STREAM_BATCH)
    return found


def beside_tables(settings: Settings) -> Mapping[str, Places]:
    """What the steps of assets without a table touch beyond the tables upstream of them, by the asset's name."""
    from stock_lakehouse.assets.dashboards import RUN_REPORT
    from stock_lakehouse.assets.quicksight import NAME as QUICKSIGHT
    from stock_lakehouse.automation.jobs import CATALOG
    from stock_lakehouse.sql.reports import reports
    from stock_lakehouse.warehouse.tables import NATIVE_TABLES

    served, written = Places(read=frozenset({SERVING})), frozenset({REPORTS})
    return {
        # It also describes tables of the stream, which may exist though the stream is off now.
        CATALOG: served | read(*STREAM_TABLES) | (_registered() if settings.catalog == "glue" else Places()),
        RUN_REPORT: read(*TABLES) | served | Places(read=written, write=written, delete=written),
        QUICKSIGHT: read(*TABLES) | served,
        **{table.asset: served | _leases(WAREHOUSE_LEASE) for table in NATIVE_TABLES},
        **{name: served | results(settings) for name in reports()},
    }


def upkeep(settings: Settings) -> Places:
    """Upkeep reads every table, maintains the Delta tables, and removes what is replaced or was left by a killed run."""
    found = read(*TABLES) | Places(write=_paths(*DELTA), delete=_paths(*DELTA, *PARQUET))
    found |= _made(raw_compaction.PATH) | _made(SERVING) | _leases(*(table.name for table in TABLES))
    found |= Places(read=frozenset({REPAIRS, STAGING}), delete=frozenset({STAGING}))
    if settings.stream.source != "off":
        tended = _paths(RAW_TICKS, MINUTE_BARS)
        found |= read(*STREAM_TABLES) | Places(write=tended, delete=tended) | _leases(STREAM_LOCK)
    return found


def repair(settings: Settings) -> Places:
    """What `upkeep --repair` does beyond a run and upkeep: it sets damaged files aside, and marks what to compute again."""
    found = Places(create=frozenset({DAMAGED})) | _all(REPAIRS, REWRITE_MARKERS)
    return found if settings.stream.source == "off" else found | written_by_stream(MINUTE_BARS, settings)


def looked_at_by_sensors(settings: Settings) -> Places:
    """The logs that decide whether a run is due; of a stream its positions, and who reads it."""
    found = read(CURATED, FEATURES)
    if settings.stream.source != "off":
        found |= read(*STREAM_TABLES) | Places(read=_keys_of_leases(STREAM_LOCK))
    return found


def readers(settings: Settings) -> Places:
    """What readers read: curated tables, features, ledger, their serving copy and reports; and the tables of the stream."""
    shown = (CURATED.layer, FEATURES.layer, RESTATEMENTS.layer)
    # The dashboard shows what was refused, too.
    tables = (table for table in TABLES if table.layer in shown or table == QUARANTINE)
    # A list of the lake's tables asks for those of the stream whether there is a stream or not.
    return read(*tables, *STREAM_TABLES) | Places(read=frozenset({SERVING, REPORTS})) | results(settings)


def plain_files() -> Places:
    """What engines read that know no Delta log: the tables of plain files, and the serving copy."""
    return read(*PLAIN) | Places(read=frozenset({SERVING}))


def published_by_job(settings: Settings) -> Places:
    """What a Databricks cluster touches: the steps of all layers but raw's, whose rows it reads, and of the stream there."""
    # Delta on the JVM writes a table's checksum under another name and renames it, of which S3 makes a copy and a deletion.
    renamed = frozenset(f"{path}/{LOG}/.*.tmp" for path in _paths(*DELTA))
    found = read(RAW) | _all(STAGING) | Places(delete=renamed)
    for layer in LAYERS:
        if layer != RAW:
            found |= written_in(layer, settings)
    if is_streamed_by_job(settings):
        found |= written_by_stream(RAW_TICKS, settings) | written_by_stream(MINUTE_BARS, settings)
    return found


def is_streamed_by_job(settings: Settings) -> bool:
    """Whether a Databricks job reads the stream."""
    return settings.stream.source != "off" and settings.stream.runner == "structured_streaming"


def results(settings: Settings) -> Places:
    """Where Athena puts results, in the name of who asks."""
    folder = results_folder(settings)
    return Places(read=frozenset({folder}), write=frozenset({folder})) if folder else Places()


def results_folder(settings: Settings) -> str | None:
    """The folder below the lake's root where Athena puts results; None if the settings do not use it."""
    if settings.query_engine != "athena":
        return None
    return str(settings.aws.athena_results).removeprefix(f"{settings.lake_root}/").rstrip("/")


def _registered() -> Places:
    """What registration in Glue writes: tables that no run has created yet, the ledger's lines, and missing files of the copy."""
    created = frozenset(f"{path}/{LOG}/*" for path in _paths(*DELTA))
    ledger = Places(write=_paths(RESTATEMENTS), create=frozenset({SERVING}))
    return Places(write=created) | ledger | _leases(*(table.name for table in DELTA))


def _paths(*tables: Table) -> frozenset[str]:
    """The folders of `tables`, in every layout: a lake may be moved to another one."""
    return frozenset(laid_out(table, layout).path for table in tables for layout in LAYOUTS)


def outermost(places: Iterable[str]) -> list[str]:
    """`places`, sorted, without those that lie in a folder among them."""
    given = set(places)
    return [place for place in sorted(given) if not any(place.startswith(f"{folder}/") for folder in given)]


def is_folder(place: str) -> bool:
    """Whether a place is a folder, and not one key or a pattern of keys."""
    return "*" not in place and not place.endswith(SUFFIX)


def _made(place: str) -> Places:
    """A place whose files are written once, and removed when they are replaced."""
    return Places(create=frozenset({place}), delete=frozenset({place}))


def _leases(*names: str) -> Places:
    """The leases of these names, which are taken, renewed and given back, and never removed."""
    return Places(read=_keys_of_leases(*names), write=_keys_of_leases(*names))


def _keys_of_leases(*names: str) -> frozenset[str]:
    return frozenset(map(lease_path, names))
