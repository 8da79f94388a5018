"""Upkeep of a lake: every table is maintained, and compared with its files, its schema and the values computed now.

Here: the checks, and the advice of each finding. Not here: the maintenance of a table (lake/maintenance.py), and when upkeep
runs (automation/).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from stock_lakehouse.exchanges import XNYS
from stock_lakehouse.lake import Lake, bi_database
from stock_lakehouse.lake.delta_table import adds_of
from stock_lakehouse.lake.history import LOG
from stock_lakehouse.lake.lock import TableBusyError
from stock_lakehouse.lake.maintenance import Maintained, drop, maintain_table
from stock_lakehouse.lake.markers import Marker, Markers
from stock_lakehouse.lake.publish import PublishError, partition_of
from stock_lakehouse.lake.serving import SERVED, ServingCopy, UnservedError
from stock_lakehouse.lake.staging import clear_abandoned
from stock_lakehouse.lake.storage import File, LakeError, StorageError
from stock_lakehouse.lake.stored import Damage, TickerYear
from stock_lakehouse.layers.curated import COMPUTE_ANEW, is_outdated, mark_rewrites, pending_rewrites
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.schemas.audit import failures
from stock_lakehouse.tables import (
    BY_NAME,
    CORPORATE_ACTIONS,
    CURATED,
    FEATURES,
    LAYERS,
    MINUTE_BARS,
    PROCESSED,
    PROCESSED_ACTIONS,
    RAW,
    RAW_TICKS,
    RESTATEMENTS,
    TABLES,
    UNREADABLE,
    Table,
    adjacent_layers,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

    from stock_lakehouse.warehouse.load import Warehouse

SAMPLE = 10
# A run between its publishes of curated and features shows as a difference for a moment, so a difference is compared again.
LOOKS, PAUSE_SECONDS = 3, 20.0
NAMED = 5  # files or ticker-years that a message names
REPAIR = "`stock-lakehouse upkeep --repair` removes the damaged files from the table and computes their rows again"
Removed = Mapping[str, frozenset[TickerYear]]  # the ticker-years that a repair removed, by table
# Crash markers of repairs: the ticker-years that were removed from each table and are not yet computed again.
REPAIRS = ".repairs"
REPAIRED = tuple(table for table in TABLES if table.made_from)


class DamageError(Exception):
    """So many files of a table are damaged that the disk, not the table, needs repair."""


@dataclass(frozen=True)
class Finding:
    """A defect of a table.

    - what: the defect
    - todo: what to do about it
    """

    table: str
    what: str
    todo: str


@dataclass
class TableUpkeep:
    """The upkeep of one table.

    - maintained: what the maintenance did
    - rows_checked: rows that were audited against the schema
    - findings: the defects that were found
    """

    table: str
    maintained: Maintained = field(default_factory=Maintained)
    rows_checked: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)


@dataclass
class Upkeep:
    """The result of an upkeep.

    - recomputed: the tickers whose curated bars, corporate actions and features were computed again and compared
    - staging_removed: abandoned staged frames that were removed
    - served, serving_removed: files of the serving copy that were written, and that were removed
    """

    tables: list[TableUpkeep]
    recomputed: tuple[str, ...] = ()
    staging_removed: int = 0
    served: int = 0
    serving_removed: int = 0

    @property
    def findings(self) -> list[Finding]:
        return [finding for table_upkeep in self.tables for finding in table_upkeep.findings]


def keep_up(
    lake: Lake,
    spark: SparkSession,
    sessions: DataFrame,
    *,
    check_only: bool = False,
    sample: int = SAMPLE,
    progress: Callable[[str], None] = lambda line: None,
    now: datetime | None = None,
    pause_seconds: float = PAUSE_SECONDS,
    warehouse: Warehouse | None = None,
    stream_hours: int | None = None,
) -> Upkeep:
    """Maintain every table of `lake` unless `check_only`, and check every table.

    - sessions: as the transforms take it, with the columns date, final_at, next_session
    - sample: how many tickers are computed again from the upstream layer and compared bit for bit; each week it is the turn of
      others
    - warehouse: of which all rows are compared with the lake's; None: there is none
    - stream_hours: how long versions of the stream's tables stay; None: the stream is off, and its tables are left alone

    Raises StorageError. A defect of a table is a finding, not an error.
    """
    moment = now or utc_now()
    found, damaged = {table.name: TableUpkeep(table.name) for table in TABLES}, set[Table]()
    for table in TABLES:
        began, table_upkeep = time.monotonic(), found[table.name]
        damages = damages_of(lake, table)
        if damages:
            damaged.add(table)
            table_upkeep.findings.append(_damaged(table, damages))
        else:
            if not check_only:
                _maintain(lake, table_upkeep, moment)
            _audit(lake, spark, table, table_upkeep)
        table_upkeep.seconds = time.monotonic() - began
        progress(
            f"{table.name}: {table_upkeep.rows_checked:,} rows checked"
            + (f", {len(damages)} files damaged" if damages else "")
        )
    served, serving_removed = _keep_serving(lake, found, damaged, check_only, progress)
    if strangers := lake.raw.strangers(in_flight=False):
        found[RAW.name].findings.append(_never_read(strangers))
    for name, pairs in lacking(lake).items():
        if name != RAW.name or not found[name].findings:  # nobody knows which rows a damaged raw file had
            found[name].findings.append(_lacks(name, pairs))
    for name, pairs in removed_by_repairs(lake).items():
        found[name].findings.append(_removed(name, pairs))
    tickers = sampled(_tickers(lake), sample, moment.date())
    readable = not any(
        found[name].findings for name in (PROCESSED.name, CURATED.name, CORPORATE_ACTIONS.name, FEATURES.name)
    )
    if readable and is_outdated(lake.processed.read(spark)):
        found[PROCESSED.name].findings.append(
            Finding(PROCESSED.name, "it was written by an earlier version of this program", COMPUTE_ANEW)
        )
        readable = False
    if tickers and readable:
        for name, differing in differences(lake, spark, sessions, tickers, pause_seconds).items():
            if differing:
                found[name].findings.append(_differs(name, differing))
        progress(f"{len(tickers)} tickers computed again: {', '.join(tickers)}")
    return Upkeep(
        [
            *found.values(),
            *(() if warehouse is None else _compared(warehouse, progress)),
            *(() if stream_hours is None else _streamed(lake, stream_hours, moment, check_only, progress)),
        ],
        tuple(tickers) if readable else (),
        0 if check_only else clear_abandoned(lake.storage),
        served,
        serving_removed,
    )


def _compared(warehouse: Warehouse, progress: Callable[[str], None]) -> list[TableUpkeep]:
    """Each native table of the warehouse, all rows of which are compared with the lake's."""
    from stock_lakehouse.warehouse.agreement import TO_DO

    began = time.monotonic()
    tables = {table.name: TableUpkeep(table.asset) for table in warehouse.tables}
    try:
        for comparison in warehouse.compare(full=True):
            upkeep = tables[comparison.table.name]
            upkeep.rows_checked = comparison.rows
            if comparison.drifts:
                what = f"{len(comparison.drifts)} ticker-years differ from the lake, the first: {comparison.drifts[0]}"
                upkeep.findings.append(Finding(upkeep.table, what, TO_DO))
            progress(f"{upkeep.table}: {comparison.rows:,} rows compared with the lake's")
    except LakeError as error:
        for upkeep in tables.values():
            what = f"it was not compared with the lake: {error}"
            upkeep.findings.append(Finding(upkeep.table, what, "`stock-lakehouse doctor` looks at the warehouse"))
    for upkeep in tables.values():
        upkeep.seconds = time.monotonic() - began
    return list(tables.values())


def _streamed(
    lake: Lake, stream_hours: int, now: datetime, check_only: bool, progress: Callable[[str], None]
) -> list[TableUpkeep]:
    """Each table of the stream. Beside a runner, which joins and removes files itself, they are only looked at."""
    from stock_lakehouse.streams.keeping import damages_of_stream, tend_stream

    began, damaged = time.monotonic(), damages_of_stream(lake)
    tables = [TableUpkeep(name) for name in damaged]
    for upkeep in tables:
        if damages := damaged[upkeep.table]:
            named = "; ".join(f"{damage.path} {damage.reason}" for damage in damages[:NAMED])
            todo = (
                "`stock-lakehouse upkeep --repair` computes the bars again from their ticks"
                if upkeep.table == MINUTE_BARS.name
                else "bring the file back from a backup; or `stock-lakehouse stream refill` reads its messages again, as far as "
                "the stream still has them"
                if upkeep.table == RAW_TICKS.name
                else "bring the file back from a backup"
            )
            upkeep.findings.append(Finding(upkeep.table, f"{len(damages)} files: {named}", todo))
    if tables and not any(damaged.values()):
        before = [_files_of_stream(lake, upkeep.table) for upkeep in tables]
        if not check_only:
            done = tend_stream(lake, stream_hours, now)
            progress("stream: files joined, old versions removed" if done else "stream: its runner does its upkeep")
        for upkeep, (active, files) in zip(tables, before, strict=True):
            active_now, files_now = _files_of_stream(lake, upkeep.table)
            gone = [file for path, file in files.items() if path not in files_now]
            upkeep.maintained = Maintained(
                active,
                active_now,
                sum(file.name.endswith(".parquet") and f"/{LOG}/" not in file.path for file in gone),
                sum(file.size for file in gone),
                sum(file.name.endswith(".json") for file in gone),
            )
    for upkeep in tables:
        upkeep.seconds = time.monotonic() - began
    return tables


def _files_of_stream(lake: Lake, name: str) -> tuple[int, dict[str, File]]:
    """How many data files a table of the stream has in its present version, and all its files by their paths."""
    stored = lake.stream[name]
    return len(adds_of(stored.open())), {file.path: file for file in lake.storage.walk(stored.table.path)}


def repair(lake: Lake) -> dict[TickerYear, set[str]]:
    """Remove damaged files from the computed tables; return the ticker-years to compute again, each with its tables.

    The removed ticker-years are written to a marker first, which stays until `end_repairs`. So the result also has those that
    earlier repairs removed and whose run never ended, and those that a table lacks although a downstream table has them.
    Raises DamageError, and changes nothing, if more than half of a table is damaged.
    """
    damaged = {table: damages for table in REPAIRED if (damages := damages_of(lake, table))}
    for table, damages in damaged.items():
        files = len(lake.stored(table.name).paths())
        if len(damages) * 2 > files > NAMED:
            raise DamageError(
                f"{table.name}: {len(damages)} of {files} files are damaged, the first {damages[0].path} "
                f"{damages[0].reason}; nothing was changed. Check that its disk or bucket is complete, or move the table "
                "away and run `stock-lakehouse backfill`"
            )
    if damaged:
        removed = {table.name: sorted(_concerned(lake, table, damages)) for table, damages in damaged.items()}
        _repairs(lake).write(removed)
    if damaged.keys() & {CORPORATE_ACTIONS, PROCESSED_ACTIONS}:
        # An action changes all bars of its ticker, so the next run of each ticker computes its whole history.
        mark_rewrites(lake, _tickers(lake))
    for table, damages in damaged.items():
        drop(lake, table, damages)
    todo: dict[TickerYear, set[str]] = {}
    for name, pairs in (*removed_by_repairs(lake).items(), *lacking(lake).items()):
        for pair in pairs if name != RAW.name else ():
            todo.setdefault(pair, set()).add(name)
    newest = dict(sorted(_ticker_years(lake, CURATED)))
    for ticker in pending_rewrites(lake, newest):
        todo.setdefault((ticker, newest[ticker]), set()).add(CORPORATE_ACTIONS.name)
    return todo


def pending_repairs(lake: Lake) -> list[Marker[Removed]]:
    """The markers of repairs whose run has not ended. Read them before the run and pass them to `end_repairs` after it."""
    return _repairs(lake).read()


def end_repairs(lake: Lake, markers: Sequence[Marker[Removed]], computed: Rectangle) -> None:
    """Remove from `markers` the ticker-years that a run for `computed` has computed again; the others stay marked."""
    years = set(computed.years)
    left: dict[str, set[TickerYear]] = {}
    for name, pairs in _by_table(lake, markers).items():
        if rest := {pair for pair in pairs if pair[0] not in computed.tickers or pair[1] not in years}:
            left[name] = rest
    if left:
        _repairs(lake).write({name: sorted(pairs) for name, pairs in left.items()})
    _repairs(lake).remove(markers)


def removed_by_repairs(lake: Lake) -> dict[str, list[TickerYear]]:
    """The ticker-years that repairs removed from each table and that no run has computed again yet."""
    return {name: sorted(pairs) for name, pairs in _by_table(lake, pending_repairs(lake)).items()}


def _by_table(lake: Lake, markers: Iterable[Marker[Removed]]) -> dict[str, set[TickerYear]]:
    """The ticker-years that `markers` name, by table.

    If a marker cannot be read: every ticker-year of the tables that are partitioned by ticker and year.
    """
    found: dict[str, set[TickerYear]] = {}
    for marker in markers:
        content = marker.content
        if content is None:
            content = {table.name: frozenset(_landed(lake)) for table in REPAIRED if table.partition_by}
        for name, pairs in content.items():
            found.setdefault(name, set()).update(pairs)
    return found


def _concerned(lake: Lake, table: Table, damages: Sequence[Damage]) -> set[TickerYear]:
    """The ticker-years to compute so that `table` has the rows of its damaged files again."""
    if not table.partition_by:
        # The file may have rows of any ticker. Delivered actions are read again from all of raw. Corporate actions follow from
        # a run of any year, because it computes the whole history.
        return _landed(lake) if table == PROCESSED_ACTIONS else _newest(_ticker_years(lake, CURATED))
    concerned: set[TickerYear] = set()
    for damage in damages:
        *named, year = partition_of(damage.path)
        # Nobody knows any more which tickers a file of a whole year had, so all tickers are taken.
        tickers = set(named) if named and named != [UNREADABLE] else {name for name, _ in _landed(lake)}
        # Every run reads the rows without a readable ticker or year, beside the rows of its tickers and years.
        if year.isdigit():
            concerned |= {(name, int(year)) for name in tickers}
        else:
            concerned |= {pair for pair in _newest(_landed(lake)) if pair[0] in tickers}
    return concerned


def _newest(pairs: Iterable[TickerYear]) -> set[TickerYear]:
    """The newest year of each ticker."""
    return set(dict(sorted(pairs)).items())


def _landed(lake: Lake) -> set[TickerYear]:
    """Every ticker-year that can be computed from raw, or was computed before."""
    pairs = _ticker_years(lake, RAW) | _ticker_years(lake, PROCESSED) | _ticker_years(lake, CURATED)
    return {pair for pair in pairs if pair[0] != UNREADABLE}


def _repairs(lake: Lake) -> Markers[Removed]:
    return Markers(lake.storage, REPAIRS, _removed_in)


def _removed_in(content: object) -> Removed:
    """The content of a repair's marker. Raises ValueError if it is something else."""
    if not isinstance(content, dict) or not content.keys() <= BY_NAME.keys():
        raise ValueError("no tables")
    try:
        return {
            str(name): frozenset((str(ticker), int(year)) for ticker, year in pairs) for name, pairs in content.items()
        }
    except TypeError as error:
        raise ValueError("no ticker-years") from error


def rectangle_to_heal(
    todo: Iterable[TickerYear], sessions: Sequence[date], tickers: Sequence[str], exchange: str = XNYS
) -> Rectangle | None:
    """The keys of the run that computes `todo` again; None if no ticker of `todo` is among `tickers`.

    - sessions: the sessions of `exchange`
    - tickers: the tickers of the settings
    """
    pairs = [pair for pair in todo if pair[0] in tickers]
    years = {year for _, year in pairs}
    days = tuple(day for day in sessions if day.year in years)
    names = {ticker for ticker, _ in pairs}
    if not pairs or not days:
        return None
    return Rectangle(days, tuple(ticker for ticker in tickers if ticker in names), exchange)


def damages_of(lake: Lake, table: Table) -> list[Damage]:
    """The files of a table that are missing, or that differ from its log or its schema."""
    return lake.stored(table.name).damages()


def lacking(lake: Lake) -> dict[str, list[TickerYear]]:
    """Ticker-years that a layer lacks although the downstream layer has them, by table.

    They are found by logs and folders; those of raw by its rows.
    """
    present = {table.name: _ticker_years(lake, table) for table in LAYERS}
    return {
        upstream.name: missing
        for upstream, downstream in adjacent_layers()
        if (missing := sorted(present[downstream.name] - present[upstream.name]))
    }


def sampled(tickers: Sequence[str], size: int, day: date) -> list[str]:
    """`size` of `tickers`. Each week it is the next ones, so that every ticker is sampled in turn."""
    if not tickers or size <= 0:
        return []
    ordered, week = sorted(tickers), day.toordinal() // 7
    start = week * size % len(ordered)
    return sorted((ordered[start:] + ordered[:start])[:size])


def differences(
    lake: Lake, spark: SparkSession, sessions: DataFrame, tickers: Sequence[str], pause_seconds: float
) -> dict[str, list[str]]:
    """The tickers whose stored rows differ from the rows computed now, in any bit, by table.

    The tables are curated bars, corporate actions and features. A difference is compared LOOKS times, because a run in flight
    may have published one table and not yet the next.
    """
    computed = {CURATED: curated_now, CORPORATE_ACTIONS: actions_now, FEATURES: features_now}
    found = {table.name: list(tickers) for table in computed}
    for attempt in range(LOOKS):
        if attempt:
            time.sleep(pause_seconds)
        for table, compute in computed.items():
            if names := found[table.name]:
                stored = _present(lake, spark, table)
                rows = stored.where(stored["ticker"].isin(names)).toArrow()
                found[table.name] = differing_tickers(rows, compute(lake, spark, sessions, names).toArrow(), table.key)
        if not any(found.values()):
            break
    return found


def curated_now(lake: Lake, spark: SparkSession, sessions: DataFrame, tickers: Sequence[str]) -> DataFrame:
    """The curated bars of `tickers`, computed now."""
    from stock_lakehouse.transforms.curated import bars_in

    return bars_in(_adjusted_now(lake, spark, sessions, tickers))


def actions_now(lake: Lake, spark: SparkSession, sessions: DataFrame, tickers: Sequence[str]) -> DataFrame:
    """The corporate actions of `tickers`, computed now."""
    from stock_lakehouse.transforms.curated import actions_in

    return actions_in(_adjusted_now(lake, spark, sessions, tickers))


def _adjusted_now(lake: Lake, spark: SparkSession, sessions: DataFrame, tickers: Sequence[str]) -> DataFrame:
    from stock_lakehouse.transforms.curated import adjusted

    known, delivered = (table.read(spark, tickers) for table in (lake.corporate_actions, lake.processed_actions))
    return adjusted(lake.processed.read(spark, tickers), delivered, known, sessions)


def features_now(lake: Lake, spark: SparkSession, sessions: DataFrame, tickers: Sequence[str]) -> DataFrame:
    """The features of `tickers`, computed now."""
    from stock_lakehouse.transforms.features import features

    return features(lake.curated.read(spark, tickers), sessions, lake.indicators)


def differing_tickers(stored: pa.Table, computed: pa.Table, key: Sequence[str]) -> list[str]:
    """The tickers with a row of `stored` that `computed` lacks or that differs in any bit. `computed` may have more rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = [name for name in stored.column_names if name not in key]
    renamed = computed.select([*key, *values]).rename_columns([*key, *(f"now {name}" for name in values)])
    both = stored.join(renamed, list(key), join_type="left outer")
    differs = pa.chunked_array([pa.array([False] * both.num_rows, pa.bool_())])
    for name in values:
        old, new = _bits(both[name]), _bits(both[f"now {name}"])
        differs = pc.or_(
            differs, pc.or_(pc.fill_null(pc.not_equal(old, new), False), pc.xor(pc.is_null(old), pc.is_null(new)))
        )
    return sorted(pc.unique(both["ticker"].filter(differs)).to_pylist())


def _bits(column: pa.ChunkedArray) -> pa.Array:
    """Doubles as integers of the same bits, so that 0 and -0 differ, and NaNs with other bits too."""
    import pyarrow as pa

    whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return whole.view(pa.int64()) if pa.types.is_float64(whole.type) else whole


def _present(lake: Lake, spark: SparkSession, table: Table) -> DataFrame:
    """The rows of `table`; of features, those by the present formulas. The check `present_formulas` reports the others."""
    stored = lake.read(table.name, spark)
    return stored.where(stored["indicator_spec"] == lake.indicator_spec) if table == FEATURES else stored


def _maintain(lake: Lake, table_upkeep: TableUpkeep, now: datetime) -> None:
    try:
        if table_upkeep.table == RAW.name:
            removed, freed = lake.raw.tend_compactions()
            table_upkeep.maintained = Maintained(files_removed=removed, bytes_freed=freed)
        elif table_upkeep.table in lake.parquet:
            replaced = lake.parquet[table_upkeep.table].remove_replaced()
            table_upkeep.maintained = Maintained(
                files_removed=len(replaced), bytes_freed=sum(file.size for file in replaced)
            )
        else:
            table_upkeep.maintained = maintain_table(
                lake.delta[table_upkeep.table], None if table_upkeep.table == RESTATEMENTS.name else lake.ledger, now
            )
    except TableBusyError as error:
        table_upkeep.findings.append(Finding(table_upkeep.table, str(error), "the next upkeep maintains this table"))
    except PublishError as error:
        table_upkeep.findings.append(Finding(table_upkeep.table, str(error), "the table has the same rows as before"))


def _keep_serving(
    lake: Lake,
    found: Mapping[str, TableUpkeep],
    damaged: Set[Table],
    check_only: bool,
    progress: Callable[[str], None],
) -> tuple[int, int]:
    """Replace damaged files of the serving copy, remove those that were replaced, and write those that are missing.

    The numbers of files that were written and removed. With `check_only` a damaged file is a finding; a missing one is none,
    because whoever misses it writes it.
    """
    copy, written, removed = ServingCopy(lake, tell=progress), 0, 0
    try:
        for table in SERVED:
            damages = copy.damages(table)
            if check_only and damages:
                what = f"{len(damages)} files of its serving copy: {damages[0].path} {damages[0].reason}"
                found[table.name].findings.append(
                    Finding(table.name, what, "`stock-lakehouse upkeep` writes them anew")
                )
            elif not check_only and table not in damaged:  # a damaged table cannot be copied
                lake.storage.delete([damage.path for damage in damages])
                written += len(copy.refresh(table))
        if not check_only:
            removed = len(copy.remove_replaced())
            if damaged.isdisjoint((*SERVED, *bi_database.COPIED)):
                bi_database.renew(lake)
    except (UnservedError, StorageError) as error:
        found[CURATED.name].findings.append(
            Finding(CURATED.name, f"the serving copy: {error}", "readers fall back to the tables until this is done")
        )
    return written, removed


def _audit(lake: Lake, spark: SparkSession, table: Table, table_upkeep: TableUpkeep) -> None:
    from pyspark.errors import PySparkException

    try:
        frame = lake.read(table.name, spark)
        broken = failures(frame, table)
        table_upkeep.rows_checked = frame.count()
    except PySparkException as error:
        what = f"cannot be read: {str(error).splitlines()[0][:300]}"
        table_upkeep.findings.append(
            Finding(table.name, what, "look at the file that it names; move it away and run `upkeep --repair`")
        )
        return
    if broken:
        columns = ", ".join(sorted({failure["column"] for failure in broken}))
        what = f"{len(broken)} rules of its schema do not hold, in {columns}: {broken[0]['error'][:200]}"
        table_upkeep.findings.append(
            Finding(table.name, what, f"`stock-lakehouse materialize --select {table.name}` computes it again")
        )


def _damaged(table: Table, damages: Sequence[Damage]) -> Finding:
    named = "; ".join(f"{damage.path} {damage.reason}" for damage in damages[:NAMED])
    more = f" and {len(damages) - NAMED} more" if len(damages) > NAMED else ""
    todo = {
        RAW: "delivered rows are stored nowhere else: bring the file back from a backup; or move it away, and "
        "`stock-lakehouse materialize` requests its sessions from the source again",
        RESTATEMENTS: "its lines are stored nowhere else: bring the file back from a backup. Without a backup, "
        "`python -c \"import deltalake; deltalake.DeltaTable('…').repair()\"` removes a missing file from the log",
    }.get(table, REPAIR)
    return Finding(table.name, f"{len(damages)} files: {named}{more}", todo)


def _never_read(paths: Sequence[str]) -> Finding:
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    what = f"{len(paths)} files do not have the name of a landing, so they are never read: {', '.join(paths[:NAMED])}{more}"
    return Finding(RAW.name, what, "move them away; remove hidden files that end in .tmp: a killed run left them")


def _removed(name: str, pairs: Sequence[TickerYear]) -> Finding:
    what = (
        f"a repair removed rows of {len(pairs)} ticker-years, and no run has computed them again yet: {_named(pairs)}"
    )
    return Finding(name, what, REPAIR)


def _named(pairs: Sequence[TickerYear]) -> str:
    more = f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else ""
    return ", ".join(f"{ticker} {year}" for ticker, year in pairs[:NAMED]) + more


def _lacks(name: str, pairs: Sequence[TickerYear]) -> Finding:
    what = f"it lacks {len(pairs)} ticker-years that the downstream layer has: {_named(pairs)}"
    if name == RAW.name:
        return Finding(
            name, what, "bring its files back from a backup before the next run, which would withdraw their bars"
        )
    return Finding(name, what, REPAIR)


def _differs(name: str, tickers: Sequence[str]) -> Finding:
    names = ",".join(tickers)
    return Finding(
        name,
        f"the stored rows of {names} differ from the rows computed now: a run is in flight or was killed, or a setting changed",
        f"`stock-lakehouse materialize --tickers {names} --select {CURATED.name},{FEATURES.name},{RESTATEMENTS.name}`",
    )


def _tickers(lake: Lake) -> list[str]:
    return sorted({ticker for ticker, _ in _ticker_years(lake, CURATED)})


def _ticker_years(lake: Lake, table: Table) -> set[TickerYear]:
    return lake.stored(table.name).ticker_years(skip_damaged=True)


def facts(table_upkeep: TableUpkeep) -> Mapping[str, Any]:
    """The figures of a table's upkeep, by name."""
    done = table_upkeep.maintained
    return {
        "files before": done.files_before,
        "files after": done.files_after,
        "old files removed": done.files_removed,
        "bytes freed": done.bytes_freed,
        "versions removed": done.versions_removed,
        "rows checked": table_upkeep.rows_checked,
        "seconds": round(table_upkeep.seconds, 1),
        "findings": len(table_upkeep.findings),
    }
