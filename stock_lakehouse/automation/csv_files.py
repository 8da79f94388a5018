"""csv_folder_sensor: files that appear or change in the watched folder start runs for the sessions that they hold.

Here: when a file is stable, what is new in it, and the sensor. Not here: how a file is read (sources/csv_folder.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import dagster as dg

from stock_lakehouse.automation.decisions import MOST_GAPS, Plan, due_session, rectangles_of
from stock_lakehouse.automation.jobs import lakehouse_job
from stock_lakehouse.automation.sensors import Situation
from stock_lakehouse.instance.run_tags import ASKED_BY
from stock_lakehouse.market_calendar import ONE_DAY
from stock_lakehouse.settings import Settings
from stock_lakehouse.sources import printable
from stock_lakehouse.sources.choose import csv_source
from stock_lakehouse.sources.csv_folder import CsvFolderSource
from stock_lakehouse.tables import RAW

NAME = "csv_folder_sensor"
BYTES_A_LOOK = 64_000_000  # a tick must end within Dagster's limit of a minute; the next tick reads the remaining files
LISTED = 20
KEYS_A_QUERY = 100
RUN_KEY = "dagster/run_key"


@dataclass(frozen=True)
class Seen:
    """A file as the sensor last saw it.

    - `size`, `changed`: its size in bytes and its modification time in ns.
    - `since`: when this state was first seen.
    - `settled`: True once this state has been read, or found equal to what was read before.
    - `read`, `digest`: the number of bytes that were read, and their SHA-256.
    - `asked`: the keys of the runs that were requested for the file and have not succeeded yet.
    - `retries`: how often such runs failed and were requested again.
    - `through`: the newest session that was due when the file was read; later sessions have not been requested.
    - `coming`: the first session of the file after `through`; None if it has no later session.
    """

    size: int
    changed: int
    since: datetime
    settled: bool = False
    read: int = 0
    digest: str = ""
    asked: tuple[str, ...] = ()
    retries: int = 0
    through: date | None = None
    coming: date | None = None

    def has_come_due(self, due: date) -> bool:
        """True if the file holds a session that was not due when it was read and is due now."""
        return self.coming is not None and self.coming <= due


@dataclass(frozen=True)
class Contents:
    """What is new in a file.

    - `spans`: the first and last due session of each ticker.
    - `others`: the number of rows of tickers that the settings do not have.
    - `problem`, `problems`: the text of the first problem, and the number of problems.
    - `coming`: the first session that is not due yet; None if all sessions are due.
    """

    spans: Mapping[str, tuple[date, date]]
    others: int = 0
    problem: str = ""
    problems: int = 0
    coming: date | None = None


@dataclass(frozen=True)
class Look:
    """What to do with the files of the folder.

    - `memory`: the state of each file, for the next tick.
    - `ready`: the files to read now, the longest unchanged first.
    - `unstable`: the files that changed a moment ago, so they may still be being written.
    - `retried`: the files whose run failed and that wait to be read again.
    """

    memory: dict[str, Seen]
    ready: list[str]
    unstable: list[str]
    retried: list[str]


def look_at(
    now: datetime, files: Mapping[str, tuple[int, int]], seen: Mapping[str, Seen], stable: timedelta, due: date
) -> Look:
    """What to do with `files` (name: size and time of change) when `due` is the newest session that the lake should hold.

    A file is read once it has not changed for `stable` since it was first seen in this state, and again when a session that it
    holds becomes due. Files that are gone are forgotten.
    """
    look = Look({}, [], [], [])
    for name, (size, changed) in sorted(files.items()):
        state = seen.get(name)
        if state is None:
            state = Seen(size, changed, now)
        elif (state.size, state.changed) != (size, changed):
            state = replace(state, size=size, changed=changed, since=now, settled=False, retries=0)
        look.memory[name] = state
        if state.settled and not state.has_come_due(due):
            continue
        if now - state.since >= stable:
            look.ready.append(name)
        else:
            (look.retried if state.retries else look.unstable).append(name)
    # By age: if many files changed before each tick, an alphabetical order would leave the last of them unread for ever.
    look.ready.sort(key=lambda name: look.memory[name].since)
    return look


def again(
    now: datetime,
    seen: Mapping[str, Seen],
    succeeded: Collection[str],
    failed: Collection[str],
    plan: Plan,
    stable: timedelta,
) -> dict[str, Seen]:
    """`seen` without the `succeeded` runs, and with the files of `failed` runs scheduled to be read again after a pause.

    A file is read again `session_attempts` - 1 times at most, and the pause doubles each time, as for a session.
    """
    memory = dict(seen)
    for name, state in seen.items():
        pending = tuple(key for key in state.asked if key not in succeeded)
        memory[name] = replace(state, asked=pending)
        if any(key in failed for key in pending) and state.retries + 1 < plan.session_attempts:
            retry_at = now + plan.session_pause * (1 << state.retries)
            memory[name] = Seen(state.size, state.changed, retry_at - stable, retries=state.retries + 1)
    return memory


def fingerprint(path: Path, size: int, before: Seen) -> tuple[str, bool]:
    """The SHA-256 of the first `size` bytes of `path`, and True if the file has only grown since `before`.

    It has grown if the bytes read before are unchanged and end with a whole line. A compressed file never counts as grown.
    """
    digest = hashlib.sha256()
    grown = False
    with path.open("rb") as file:
        if 0 < before.read < size:
            last = _feed(digest, file, before.read)
            grown = digest.hexdigest() == before.digest and last == b"\n" and path.suffix.lower() != ".gz"
        _feed(digest, file, size - file.tell())
    return digest.hexdigest(), grown


def _feed(digest: Any, file: BinaryIO, size: int) -> bytes:
    """Add the next `size` bytes of `file` to `digest`; return the last one."""
    last = b""
    while size > 0 and (block := file.read(min(size, 1 << 20))):
        digest.update(block)
        size -= len(block)
        last = block[-1:]
    return last


def contents_of(
    source: CsvFolderSource,
    path: Path,
    tickers: tuple[str, ...],
    skip: int = 0,
    after: date = date.min,
    due: date = date.max,
) -> Contents:
    """What a file holds beyond its first `skip` bytes, of the sessions after `after`. Sessions up to `due` are due.

    A file that cannot be read gives a problem and raises nothing.
    """
    import pyarrow.compute as pc

    spans: dict[str, tuple[date, date]] = {}
    coming: date | None = None
    problem = ""
    problems = others = 0
    for delivery in source.read(path, tickers, skip):
        rejected = delivery.rows.filter(pc.is_valid(delivery.rows["problem"]))
        problems += rejected.num_rows
        if rejected.num_rows and not problem:
            number = rejected["line_number"][0].as_py()
            problem = f"{printable(path.name)}{f' line {number}' if number else ''}: {rejected['problem'][0]}"
        usable = delivery.rows.filter(pc.is_null(delivery.rows["problem"])).select(["ticker", "session"])
        usable = usable.filter(pc.is_valid(usable["session"]))
        usable = usable.filter(pc.greater(usable["session"], after.isoformat()))  # ISO dates sort correctly as text
        usable = usable.append_column("is_due", pc.less_equal(usable["session"], due.isoformat()))
        extents = usable.group_by(["ticker", "is_due"]).aggregate(
            [("session", "min"), ("session", "max"), ([], "count_all")]
        )
        for row in extents.to_pylist():
            if row["ticker"] not in tickers:
                others += row["count_all"]
                continue
            first, last = (date.fromisoformat(row[f"session_{name}"]) for name in ("min", "max"))
            if row["is_due"]:
                spans[row["ticker"]] = _joined(spans.get(row["ticker"]), (first, last))
            else:
                coming = min(coming or first, first)
    return Contents(spans, others, problem, problems, coming)


def _joined(span: tuple[date, date] | None, other: tuple[date, date]) -> tuple[date, date]:
    """The smallest span that contains both."""
    return (min(span[0], other[0]), max(span[1], other[1])) if span else other


def csv_folder_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor that watches `csv_folder`."""

    @dg.sensor(
        name=NAME,
        job=lakehouse_job,
        minimum_interval_seconds=settings.sensor_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"New or changed files in {settings.csv_folder} start a run for the tickers and sessions that they hold, "
        f"once they have not changed for {settings.csv_stable_seconds} s. Reset the cursor to read every file again.",
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _evaluate(context, settings)

    return tick


def _evaluate(context: dg.SensorEvaluationContext, settings: Settings) -> dg.SensorResult:
    situation = Situation(settings)
    source = csv_source(settings)
    paths = {path.name: path for path in source.files()}
    stats = {name: path.stat() for name, path in paths.items()}
    now, stable = situation.now(), timedelta(seconds=settings.csv_stable_seconds)
    due = due_session(now, situation.calendar, situation.plan) or situation.plan.first - ONE_DAY
    remembered = seen_from(context.cursor)
    succeeded, failed = _ended(context.instance, {key for state in remembered.values() for key in state.asked})
    seen = again(now, remembered, succeeded, failed, situation.plan, stable)
    files = {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}
    look = look_at(now, files, seen, stable, due)
    found: dict[str, Contents] = {}
    budget, left_over = BYTES_A_LOOK, list[str]()
    for name in look.ready:
        before = look.memory[name]
        if budget <= 0:
            left_over.append(name)
            continue
        budget -= before.size
        digest, grown = fingerprint(paths[name], before.size, before)
        contents = new_in(source, paths[name], settings.tickers, before, digest, grown, due)
        if contents is not None:
            found[name] = contents
        coming = before.coming if contents is None else contents.coming
        look.memory[name] = replace(before, settled=True, read=before.size, digest=digest, through=due, coming=coming)
    return _result(context, situation, found, look, left_over)


def new_in(
    source: CsvFolderSource,
    path: Path,
    tickers: tuple[str, ...],
    before: Seen,
    digest: str,
    grown: bool,
    due: date,
) -> Contents | None:
    """What a file holds that has not been requested: what is new since `before`, and sessions that have become due.

    `digest` and `grown` are the result of `fingerprint`. None if there is nothing to request.
    """
    changed = digest != before.digest
    if changed and not grown:
        return contents_of(source, path, tickers, due=due)
    contents = contents_of(source, path, tickers, before.read, due=due) if changed else None
    if not before.has_come_due(due):
        if contents is None or before.coming is None:
            return contents
        return replace(contents, coming=min(before.coming, contents.coming or before.coming))
    newly_due = contents_of(source, path, tickers, after=before.through or date.min, due=due)
    if contents is None:
        return Contents(newly_due.spans, coming=newly_due.coming)  # its problems were reported at the first reading
    spans = dict(newly_due.spans)
    for ticker, span in contents.spans.items():
        spans[ticker] = _joined(spans.get(ticker), span)
    return replace(contents, spans=spans, coming=newly_due.coming)


def _ended(instance: dg.DagsterInstance, asked: Collection[str]) -> tuple[set[str], set[str]]:
    """The keys of `asked` whose runs have all ended without a failure, and the keys with a run that failed."""
    statuses: dict[str, set[dg.DagsterRunStatus]] = {}
    keys = sorted(asked)
    for start in range(0, len(keys), KEYS_A_QUERY):
        run_keys = [f"{key}-{number}" for key in keys[start : start + KEYS_A_QUERY] for number in range(MOST_GAPS)]
        for run in instance.get_runs(dg.RunsFilter(tags={ASKED_BY: NAME, RUN_KEY: run_keys})):
            statuses.setdefault(run.tags[RUN_KEY].partition("-")[0], set()).add(run.status)
    failed = {key for key, found in statuses.items() if dg.DagsterRunStatus.FAILURE in found}
    ended = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED}
    return {key for key, found in statuses.items() if found <= ended}, failed


def _result(
    context: dg.SensorEvaluationContext,
    situation: Situation,
    found: Mapping[str, Contents],
    look: Look,
    left_over: list[str],
) -> dg.SensorResult:
    """The run requests for what was found, and a note on each file that is broken, unusable or not read yet."""
    memory = look.memory
    spans = _due_spans(situation, found)
    rectangles = rectangles_of(spans, situation.calendar, situation.plan) if spans else ()
    notes = {name: note for name, contents in found.items() if (note := _note(name, contents))}
    for note in notes.values():
        context.log.warning(note)
    events = [
        dg.AssetObservation(RAW.name, metadata={"file": printable(name), "problem": note}, description=note)
        for name, note in list(notes.items())[:LISTED]
    ]
    states = [(name, memory[name]) for name in sorted(found)]
    # `through` is a part of the key because an unchanged file is requested again when a later session of it becomes due.
    read = [(name, state.digest, state.changed, state.retries, state.through) for name, state in states]
    key = hashlib.sha256(repr(read).encode()).hexdigest()[:16]
    if rectangles:
        memory |= {name: replace(state, asked=(*state.asked, key)) for name, state in states if found[name].spans}
    requests = [situation.request(rectangle, NAME, f"{key}-{number}") for number, rectangle in enumerate(rectangles)]
    waiting = _waiting(look, left_over, situation.plan.last or date.max)
    if requests:
        for sentence in waiting:
            context.log.info(sentence)
    reason = "; ".join([*notes.values(), *waiting]) or f"{len(memory)} files, none new or changed"
    return dg.SensorResult(
        run_requests=requests or None,
        skip_reason=None if requests else reason,
        cursor=seen_text(memory),
        asset_events=events,
    )


def _waiting(look: Look, left_over: list[str], last: date) -> list[str]:
    """Why files, or sessions of files up to the lake's `last` day, have not been requested yet."""
    sentences = []
    if look.unstable:
        sentences.append(f"{len(look.unstable)} files may still be written: {_first(look.unstable)}")
    if look.retried:
        sentences.append(
            f"{len(look.retried)} files will be read again because their run failed: {_first(look.retried)}"
        )
    if left_over:
        sentences.append(
            f"{len(left_over)} files are left for the next tick because a tick stops after {BYTES_A_LOOK // 1_000_000} MB: "
            f"{_first(left_over)}"
        )
    coming = {name: day for name, state in look.memory.items() if (day := state.coming) is not None and day <= last}
    if coming:
        sentences.append(
            f"{len(coming)} files hold sessions that are not due yet, the next {min(coming.values())}: {_first(coming)}"
        )
    return sentences


def _first(names: Collection[str]) -> str:
    return ", ".join(map(printable, list(names)[:3]))


def _due_spans(situation: Situation, found: Mapping[str, Contents]) -> dict[str, tuple[date, date]]:
    """The first and last due session of each ticker in all files, within the lake's days."""
    spans: dict[str, tuple[date, date]] = {}
    for contents in found.values():
        for ticker, span in contents.spans.items():
            spans[ticker] = _joined(spans.get(ticker), span)
    cut = {}
    for ticker, (first, last) in spans.items():
        if sessions := situation.calendar.between(max(first, situation.plan.first), last):
            cut[ticker] = (sessions[0], sessions[-1])
    return cut


def _note(name: str, contents: Contents) -> str:
    """What is wrong with a file, beginning with its name; empty if nothing is."""
    if contents.problem:
        return contents.problem + (f", and {contents.problems - 1} more lines" if contents.problems > 1 else "")
    return (
        ""
        if contents.spans or contents.coming or not contents.others
        else f"{printable(name)}: no row is of a ticker of the settings"
    )


def seen_text(memory: Mapping[str, Seen]) -> str:
    """`memory` as a cursor."""
    return json.dumps(
        {
            name: [
                state.size,
                state.changed,
                state.since.isoformat(),
                int(state.settled),
                state.read,
                state.digest,
                ",".join(state.asked),
                state.retries,
                state.through and state.through.isoformat(),
                state.coming and state.coming.isoformat(),
            ]
            for name, state in memory.items()
        }
    )


def seen_from(cursor: str | None) -> dict[str, Seen]:
    """The files in a cursor that `seen_text` wrote; none if it is empty. Raises ValueError for any other text."""
    if not cursor:
        return {}
    try:
        return {name: _seen(*fields) for name, fields in json.loads(cursor).items()}
    except (AttributeError, TypeError) as error:
        raise ValueError(f"the cursor is not this sensor's: {error}; reset it in the UI") from None


def _seen(
    size: int,
    changed: int,
    since_text: str,
    settled: int,
    read: int,
    digest: str,
    asked: str,
    retries: int,
    *days: str | None,
) -> Seen:
    """A file from its fields in a cursor.

    Older cursors have neither `through` nor `coming`, and their sensor may have dropped sessions that were not due.
    """
    since = datetime.fromisoformat(since_text)
    if days:
        through, coming = (date.fromisoformat(day) if day else None for day in days)
    else:
        # So the file is read once more. A week exceeds the time zones and the grace that lie between its sessions and `since`.
        through, coming = since.date() - 8 * ONE_DAY, since.date() - 7 * ONE_DAY
    keys = tuple(asked.split(",")) if asked else ()
    return Seen(size, changed, since, bool(settled), read, digest, keys, retries, through, coming)
