"""Upkeep of a lake: every table tended, and held against its files, its schema and what would be computed now.

Here: what is looked at, what a finding says to do. Not here: what is done to a table (lake/maintenance.py), when (automation/).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from stock_lakehouse.exchanges import XNYS
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.lock import TableBusyError
from stock_lakehouse.lake.maintenance import Tended, drop, tend
from stock_lakehouse.lake.markers import Marker, Markers
from stock_lakehouse.lake.publish import PublishError, partition_of
from stock_lakehouse.lake.staging import clear_abandoned
from stock_lakehouse.lake.stored import Damage, TickerYear
from stock_lakehouse.layers.curated import COMPUTE_ANEW, is_outdated, moving, note_moving
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.schemas.audit import failures
from stock_lakehouse.tables import (
    BY_NAME,
    CORPORATE_ACTIONS,
    CURATED,
    FEATURES,
    LAYERS,
    PROCESSED,
    PROCESSED_ACTIONS,
    RAW,
    RESTATEMENTS,
    TABLES,
    UNREADABLE,
    Table,
    adjacent_layers,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

SAMPLE = 10
LOOKS, PAUSE_SECONDS = 3, 20.0  # a run between publishing curated and features looks like a difference, for a moment
NAMED = 5
REPAIR = "`stock-lakehouse upkeep --repair` takes what is damaged out of the table and computes it anew"
Removed = Mapping[str, frozenset[TickerYear]]  # what a repair took out of the tables, by table
# Crash markers of repairs: what was taken out of which table, until it is computed anew.
REPAIRS = ".repairs"
REPAIRED = tuple(table for table in TABLES if table.made_from)


class DamageError(Exception):
    """So much of a table is damaged that its disk, and not the table, is what has to be mended."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be, and what to do about it."""

    table: str
    what: str
    todo: str


@dataclass
class TableUpkeep:
    """One table: what was done to it, the rows held against its schema, and what was found."""

    table: str
    tended: Tended = field(default_factory=Tended)
    rows_checked: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)


@dataclass
class Upkeep:
    """What an upkeep did. `recomputed` are the tickers whose curated bars and features were computed anew and compared."""

    tables: list[TableUpkeep]
    recomputed: tuple[str, ...] = ()
    staging_removed: int = 0

    @property
    def findings(self) -> list[Finding]:
        return [finding for one in self.tables for finding in one.findings]


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
) -> Upkeep:
    """Tend every table of `lake` unless `check_only`, and look at every table.

    `sessions` as the transforms take it: date, final_at, next_session. `sample` tickers are computed anew from the layer
    above and compared bit for bit, others each week. Raises StorageError; what is wrong with a table is a finding.
    """
    moment = now or utc_now()
    found = {table.name: TableUpkeep(table.name) for table in TABLES}
    for table in TABLES:
        began, one = time.monotonic(), found[table.name]
        damages = damages_of(lake, table)
        if damages:
            one.findings.append(_damaged(table, damages))
        else:
            if not check_only:
                _tend(lake, one, moment)
            _audit(lake, spark, table, one)
        one.seconds = time.monotonic() - began
        progress(
            f"{table.name}: {one.rows_checked:,} rows checked" + (f", {len(damages)} files damaged" if damages else "")
        )
    if strangers := lake.raw.strangers(in_flight=False):
        found[RAW.name].findings.append(_never_read(strangers))
    for name, pairs in lacking(lake).items():
        if name != RAW.name or not found[name].findings:  # whose rows a damaged file has is not known
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
        progress(f"{len(tickers)} tickers computed anew: {', '.join(tickers)}")
    return Upkeep(
        list(found.values()),
        tuple(tickers) if readable else (),
        0 if check_only else clear_abandoned(lake.storage),
    )


def repair(lake: Lake) -> dict[TickerYear, set[str]]:
    """Take damaged files out of the tables that are computed; the ticker-years to be computed anew, with their tables.

    What is taken out is written to a marker first, which stays until `end_repairs`. So the answer has also what earlier repairs
    took out that were stopped before their run ended, and ticker-years that a table lacks though one computed from it has them.
    Raises DamageError, and changes nothing, where more than half of a table is damaged.
    """
    damaged = {table: damages for table in REPAIRED if (damages := damages_of(lake, table))}
    for table, damages in damaged.items():
        files = len(lake.stored(table.name).paths())
        if len(damages) * 2 > files > NAMED:
            raise DamageError(
                f"{table.name}: {len(damages)} of {files} files are damaged, the first {damages[0].path} "
                f"{damages[0].reason}; nothing was done. See whether its disk or bucket is all there, or move the table away and "
                "run `stock-lakehouse backfill`"
            )
    if damaged:
        removed = {table.name: sorted(_concerned(lake, table, damages)) for table, damages in damaged.items()}
        _repairs(lake).write(removed)
    if damaged.keys() & {CORPORATE_ACTIONS, PROCESSED_ACTIONS}:
        # An action changes all bars of its ticker: the next run of each looks at all of them.
        note_moving(lake, _tickers(lake))
    for table, damages in damaged.items():
        drop(lake, table, damages)
    todo: dict[TickerYear, set[str]] = {}
    for name, pairs in (*removed_by_repairs(lake).items(), *lacking(lake).items()):
        for pair in pairs if name != RAW.name else ():
            todo.setdefault(pair, set()).add(name)
    newest = dict(sorted(_ticker_years(lake, CURATED)))
    for ticker in moving(lake, newest):
        todo.setdefault((ticker, newest[ticker]), set()).add(CORPORATE_ACTIONS.name)
    return todo


def pending_repairs(lake: Lake) -> list[Marker[Removed]]:
    """The markers of repairs whose run has not ended: to be read before the run, and given to `end_repairs` after it."""
    return _repairs(lake).read()


def end_repairs(lake: Lake, markers: Sequence[Marker[Removed]], computed: Rectangle) -> None:
    """Take out of `markers` what a run for `computed` has computed anew; what is left stays marked."""
    years = set(computed.years)
    left: dict[str, set[TickerYear]] = {}
    for name, pairs in _by_table(lake, markers).items():
        if rest := {pair for pair in pairs if pair[0] not in computed.tickers or pair[1] not in years}:
            left[name] = rest
    if left:
        _repairs(lake).write({name: sorted(pairs) for name, pairs in left.items()})
    _repairs(lake).remove(markers)


def removed_by_repairs(lake: Lake) -> dict[str, list[TickerYear]]:
    """The ticker-years that repairs took out of each table and that no run has computed anew yet."""
    return {name: sorted(pairs) for name, pairs in _by_table(lake, pending_repairs(lake)).items()}


def _by_table(lake: Lake, markers: Iterable[Marker[Removed]]) -> dict[str, set[TickerYear]]:
    """What `markers` name; every ticker-year of the tables that are by ticker and year if one of them cannot be read."""
    found: dict[str, set[TickerYear]] = {}
    for marker in markers:
        content = marker.content
        if content is None:
            content = {table.name: frozenset(_landed(lake)) for table in REPAIRED if table.partition_by}
        for name, pairs in content.items():
            found.setdefault(name, set()).update(pairs)
    return found


def _concerned(lake: Lake, table: Table, damages: Sequence[Damage]) -> set[TickerYear]:
    """The ticker-years to be computed so that the rows of the damaged files of `table` are there again."""
    if not table.partition_by:
        # Any ticker's rows may be in the file. Delivered actions are read anew from all of raw; what counts of them follows
        # from a run of any year, since it looks at the whole history.
        return _landed(lake) if table == PROCESSED_ACTIONS else _newest(_ticker_years(lake, CURATED))
    concerned: set[TickerYear] = set()
    for damage in damages:
        *named, year = partition_of(damage.path)
        # Which tickers a file of a whole year had is not known any more: they are among all that there are.
        tickers = set(named) if named and named != [UNREADABLE] else {name for name, _ in _landed(lake)}
        # A run reads the rows without a readable ticker or year beside those of its own tickers and years.
        if year.isdigit():
            concerned |= {(name, int(year)) for name in tickers}
        else:
            concerned |= {pair for pair in _newest(_landed(lake)) if pair[0] in tickers}
    return concerned


def _newest(pairs: Iterable[TickerYear]) -> set[TickerYear]:
    """The newest year of each ticker."""
    return set(dict(sorted(pairs)).items())


def _landed(lake: Lake) -> set[TickerYear]:
    """Every ticker-year that can be computed from raw, or is computed already."""
    pairs = _ticker_years(lake, RAW) | _ticker_years(lake, PROCESSED) | _ticker_years(lake, CURATED)
    return {pair for pair in pairs if pair[0] != UNREADABLE}


def _repairs(lake: Lake) -> Markers[Removed]:
    return Markers(lake.storage, REPAIRS, _removed_in)


def _removed_in(content: object) -> Removed:
    """What a marker of a repair says. Raises ValueError where it says something else."""
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
    """The keys of the run that computes `todo` anew; None if no ticker of it is among `tickers`, the settings'.

    `sessions` are those of `exchange`.
    """
    pairs = [pair for pair in todo if pair[0] in tickers]
    years = {year for _, year in pairs}
    days = tuple(day for day in sessions if day.year in years)
    names = {ticker for ticker, _ in pairs}
    if not pairs or not days:
        return None
    return Rectangle(days, tuple(one for one in tickers if one in names), exchange)


def damages_of(lake: Lake, table: Table) -> list[Damage]:
    """The files of a table that are not as its log, or its schema, says."""
    return lake.stored(table.name).damages()


def lacking(lake: Lake) -> dict[str, list[TickerYear]]:
    """Ticker-years that a layer lacks though the layer computed from it has them, by table.

    By logs and folders; of raw by its rows.
    """
    held = {table.name: _ticker_years(lake, table) for table in LAYERS}
    return {
        source.name: missing
        for source, layer in adjacent_layers()
        if (missing := sorted(held[layer.name] - held[source.name]))
    }


def sampled(tickers: Sequence[str], size: int, day: date) -> list[str]:
    """`size` of `tickers`, the next ones each week, so that every ticker has its turn."""
    if not tickers or size <= 0:
        return []
    ordered, week = sorted(tickers), day.toordinal() // 7
    start = week * size % len(ordered)
    return sorted((ordered[start:] + ordered[:start])[:size])


def differences(
    lake: Lake, spark: SparkSession, sessions: DataFrame, tickers: Sequence[str], pause_seconds: float
) -> dict[str, list[str]]:
    """The tickers of which stored curated bars, corporate actions or features are not, bit for bit, what is computed now.

    A difference is looked at LOOKS times: a run on its way has published one of two tables already.
    """
    computed = {CURATED: curated_now, CORPORATE_ACTIONS: actions_now, FEATURES: features_now}
    found = {table.name: list(tickers) for table in computed}
    for look in range(LOOKS):
        if look:
            time.sleep(pause_seconds)
        for table, compute in computed.items():
            if names := found[table.name]:
                stored = _present(lake.read(table.name, spark), table)
                own = stored.where(stored["ticker"].isin(names)).toArrow()
                found[table.name] = differing_tickers(own, compute(lake, spark, sessions, names).toArrow(), table.key)
        if not any(found.values()):
            break
    return found


def curated_now(lake: Lake, spark: SparkSession, sessions: DataFrame, tickers: Sequence[str]) -> DataFrame:
    """The curated bars of `tickers` as they would be computed now."""
    from stock_lakehouse.transforms.curated import bars_in

    return bars_in(_adjusted_now(lake, spark, sessions, tickers))


def actions_now(lake: Lake, spark: SparkSession, sessions: DataFrame, tickers: Sequence[str]) -> DataFrame:
    """The corporate actions of `tickers` as they would be computed now."""
    from stock_lakehouse.transforms.curated import actions_in

    return actions_in(_adjusted_now(lake, spark, sessions, tickers))


def _adjusted_now(lake: Lake, spark: SparkSession, sessions: DataFrame, tickers: Sequence[str]) -> DataFrame:
    from stock_lakehouse.transforms.curated import adjusted

    known, delivered = (table.read(spark, tickers) for table in (lake.corporate_actions, lake.processed_actions))
    return adjusted(lake.processed.read(spark, tickers), delivered, known, sessions)


def features_now(lake: Lake, spark: SparkSession, sessions: DataFrame, tickers: Sequence[str]) -> DataFrame:
    """The features of `tickers` as they would be computed now."""
    from stock_lakehouse.transforms.features import features

    return features(lake.curated.read(spark, tickers), sessions)


def differing_tickers(stored: pa.Table, computed: pa.Table, key: Sequence[str]) -> list[str]:
    """The tickers of which a row of `stored` is not in `computed`, or not bit for bit the same; more may be computed."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = [name for name in stored.column_names if name not in key]
    renamed = computed.select([*key, *values]).rename_columns([*key, *(f"now {one}" for one in values)])
    both = stored.join(renamed, list(key), join_type="left outer")
    differs = pa.chunked_array([pa.array([False] * both.num_rows, pa.bool_())])
    for name in values:
        old, new = _bits(both[name]), _bits(both[f"now {name}"])
        differs = pc.or_(
            differs, pc.or_(pc.fill_null(pc.not_equal(old, new), False), pc.xor(pc.is_null(old), pc.is_null(new)))
        )
    return sorted(pc.unique(both["ticker"].filter(differs)).to_pylist())


def _bits(column: pa.ChunkedArray) -> pa.Array:
    """Doubles as whole numbers of the same bits, so that 0 and -0, and two kinds of nan, differ."""
    import pyarrow as pa

    whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return whole.view(pa.int64()) if pa.types.is_float64(whole.type) else whole


def _present(stored: DataFrame, table: Table) -> DataFrame:
    """Features by the present formulas; the check `present_formulas` is for others."""
    from stock_lakehouse.indicators.registry import indicator_spec

    return stored.where(stored["indicator_spec"] == indicator_spec()) if table == FEATURES else stored


def _tend(lake: Lake, one: TableUpkeep, now: datetime) -> None:
    try:
        if one.table == RAW.name:
            removed, freed = lake.raw.tend_compactions()
            one.tended = Tended(files_removed=removed, bytes_freed=freed)
        elif one.table in lake.parquet:
            replaced = lake.parquet[one.table].remove_replaced()
            one.tended = Tended(files_removed=len(replaced), bytes_freed=sum(file.size for file in replaced))
        else:
            one.tended = tend(lake.delta[one.table], None if one.table == RESTATEMENTS.name else lake.ledger, now)
    except TableBusyError as error:
        one.findings.append(Finding(one.table, str(error), "upkeep of it is done next time"))
    except PublishError as error:
        one.findings.append(Finding(one.table, str(error), "the table is as it was"))


def _audit(lake: Lake, spark: SparkSession, table: Table, one: TableUpkeep) -> None:
    from pyspark.errors import PySparkException

    try:
        frame = lake.read(table.name, spark)
        broken = failures(frame, table)
        one.rows_checked = frame.count()
    except PySparkException as error:
        what = f"cannot be read: {str(error).splitlines()[0][:300]}"
        one.findings.append(
            Finding(table.name, what, "look at the file that it names; move it away and run `upkeep --repair`")
        )
        return
    if broken:
        columns = ", ".join(sorted({failure["column"] for failure in broken}))
        what = f"{len(broken)} rules of its schema do not hold, in {columns}: {broken[0]['error'][:200]}"
        one.findings.append(
            Finding(table.name, what, f"`stock-lakehouse materialize --select {table.name}` computes it anew")
        )


def _damaged(table: Table, damages: Sequence[Damage]) -> Finding:
    named = "; ".join(f"{one.path} {one.reason}" for one in damages[:NAMED])
    more = f" and {len(damages) - NAMED} more" if len(damages) > NAMED else ""
    todo = {
        RAW: "what was delivered is nowhere else: bring the file back from a backup; or move it away, and "
        "`stock-lakehouse materialize` asks the source for its sessions again",
        RESTATEMENTS: "its lines are nowhere else: bring the file back from a backup. Without one, "
        "`python -c \"import deltalake; deltalake.DeltaTable('…').repair()\"` goes on without a missing file",
    }.get(table, REPAIR)
    return Finding(table.name, f"{len(damages)} files: {named}{more}", todo)


def _never_read(paths: Sequence[str]) -> Finding:
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    what = f"{len(paths)} files that no landing names so, and that are never read: {', '.join(paths[:NAMED])}{more}"
    return Finding(
        RAW.name, what, "move them away; a hidden file that ends in .tmp is what a killed run left: remove it"
    )


def _removed(name: str, pairs: Sequence[TickerYear]) -> Finding:
    what = (
        f"a repair took out rows of {len(pairs)} ticker-years, and no run has computed them anew yet: {_named(pairs)}"
    )
    return Finding(name, what, REPAIR)


def _named(pairs: Sequence[TickerYear]) -> str:
    more = f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else ""
    return ", ".join(f"{ticker} {year}" for ticker, year in pairs[:NAMED]) + more


def _lacks(name: str, pairs: Sequence[TickerYear]) -> Finding:
    what = f"it lacks {len(pairs)} ticker-years that the layer below has: {_named(pairs)}"
    if name == RAW.name:
        return Finding(
            name, what, "bring its files back from a backup before the next run, which would withdraw their bars"
        )
    return Finding(name, what, REPAIR)


def _differs(name: str, tickers: Sequence[str]) -> Finding:
    names = ",".join(tickers)
    return Finding(
        name,
        f"what is stored of {names} is not what is computed now: a run is on its way or was killed, or a setting changed",
        f"`stock-lakehouse materialize --tickers {names} --select {CURATED.name},{FEATURES.name},{RESTATEMENTS.name}`",
    )


def _tickers(lake: Lake) -> list[str]:
    return sorted({ticker for ticker, _ in _ticker_years(lake, CURATED)})


def _ticker_years(lake: Lake, table: Table) -> set[TickerYear]:
    return lake.stored(table.name).ticker_years(skip_damaged=True)


def facts(one: TableUpkeep) -> Mapping[str, Any]:
    """The figures of a table's upkeep, by name."""
    done = one.tended
    return {
        "files before": done.files_before,
        "files after": done.files_after,
        "old files removed": done.files_removed,
        "bytes freed": done.bytes_freed,
        "versions removed": done.versions_removed,
        "rows checked": one.rows_checked,
        "seconds": round(one.seconds, 1),
        "findings": len(one.findings),
    }
