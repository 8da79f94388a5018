"""csv_folder_sensor: files that appear or change in the watched folder start a run for what they hold.

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

from stock_lakehouse.automation.decisions import DAY, MOST_GAPS, Plan, due_session, rectangles_of
from stock_lakehouse.automation.jobs import lakehouse_job
from stock_lakehouse.automation.sensors import Eyes
from stock_lakehouse.instance.run_tags import ASKED_BY
from stock_lakehouse.settings import Settings
from stock_lakehouse.sources import printable
from stock_lakehouse.sources.choose import csv_source
from stock_lakehouse.sources.csv_folder import CsvFolderSource
from stock_lakehouse.tables import RAW

NAME = "csv_folder_sensor"
BYTES_A_LOOK = 64_000_000  # a look must end within Dagster's minute; what is left over is read by the next one
LISTED = 20
KEYS_A_QUERY = 100
RUN_KEY = "dagster/run_key"


@dataclass(frozen=True)
class Seen:
    """A file as the sensor last saw it.

    - `size`, `changed`: its size in bytes and its time of change in ns.
    - `since`: when this state was first seen.
    - `settled`: True once this state has been read, or found to be what was read before.
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
        """Whether the file holds a session that was not due when it was read, and is due now."""
        return self.coming is not None and self.coming <= due


@dataclass(frozen=True)
class Contents:
    """What is new in a file.

    - `spans`: the first and last due session of each ticker.
    - `others`: the number of rows of tickers that the settings lack.
    - `problem`, `problems`: the first problem in words, and how many there are.
    - `coming`: the first session that is not due yet; None if all are.
    """

    spans: Mapping[str, tuple[date, date]]
    others: int = 0
    problem: str = ""
    problems: int = 0
    coming: date | None = None


@dataclass(frozen=True)
class Look:
    """What to do with the files of the folder.

    - `memory`: what to remember of each file.
    - `ready`: the files to read now, the one that has waited longest first.
    - `unstable`: the files that changed a moment ago and may still be written.
    - `retried`: the files that wait to be read again because their run failed.
    """

    memory: dict[str, Seen]
    ready: list[str]
    unstable: list[str]
    retried: list[str]


def look_at(
    now: datetime, files: Mapping[str, tuple[int, int]], seen: Mapping[str, Seen], stable: timedelta, due: date
) -> Look:
    """What to do with `files` (name: size and time of change) when `due` is the newest session that the lake should hold.

    A file is read once it has stayed the same for `stable` since it was first seen so, and again when a session that it holds
    becomes due. Files that are gone are forgotten.
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
    # By age: with many files that change at each look, those at the end of the alphabet would never be read.
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
    """`seen`, where `succeeded` runs are forgotten, and the files of `failed` runs are to be read again after a pause, as often
    as a session is requested."""
    memory = dict(seen)
    for name, state in seen.items():
        pending = tuple(key for key in state.asked if key not in succeeded)
        memory[name] = replace(state, asked=pending)
        if any(key in failed for key in pending) and state.retries + 1 < plan.session_attempts:
            due = now + plan.session_pause * (1 << state.retries)
            memory[name] = Seen(state.size, state.changed, due - stable, retries=state.retries + 1)
    return memory


def fingerprint(path: Path, size: int, before: Seen) -> tuple[str, bool]:
    """The SHA-256 of the first `size` bytes of `path`, and whether what was read `before` is still its beginning, whole lines."""
    digest = hashlib.sha256()
    grown = False
    with path.open("rb") as file:
        if 0 < before.read < size:
            last = _feed(digest, file, before.read)
            grown = digest.hexdigest() == before.digest and last == b"\n" and path.suffix.lower() != ".gz"
        _feed(digest, file, size - file.tell())
    return digest.hexdigest(), grown


def _feed(digest: Any, file: BinaryIO, size: int) -> bytes:
    """Put the next `size` bytes of `file` into `digest`; return the last of them."""
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
    """The sessions after `after` that a file holds behind its first `skip` bytes; those to `due` are due.

    A file that cannot be read has a problem, not an error.
    """
    import pyarrow.compute as pc

    spans: dict[str, tuple[date, date]] = {}
    coming: date | None = None
    problem = ""
    problems = others = 0
    for delivery in source.read(path, tickers, skip):
        wrong = delivery.rows.filter(pc.is_valid(delivery.rows["problem"]))
        problems += wrong.num_rows
        if wrong.num_rows and not problem:
            number = wrong["line_number"][0].as_py()
            problem = f"{printable(path.name)}{f' line {number}' if number else ''}: {wrong['problem'][0]}"
        right = delivery.rows.filter(pc.is_null(delivery.rows["problem"])).select(["ticker", "session"])
        right = right.filter(pc.is_valid(right["session"]))
        right = right.filter(pc.greater(right["session"], after.isoformat()))  # ISO dates as text are in order
        right = right.append_column("is_due", pc.less_equal(right["session"], due.isoformat()))
        found = right.group_by(["ticker", "is_due"]).aggregate(
            [("session", "min"), ("session", "max"), ([], "count_all")]
        )
        for row in found.to_pylist():
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
    """The span that holds both."""
    return (min(span[0], other[0]), max(span[1], other[1])) if span else other


def csv_folder_sensor(settings: Settings) -> dg.SensorDefinition:
    """Watches `csv_folder`; see the module."""

    @dg.sensor(
        name=NAME,
        job=lakehouse_job,
        minimum_interval_seconds=settings.sensor_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"New or changed files in {settings.csv_folder} start a run for the tickers and sessions they hold, once "
        f"they have not changed for {settings.csv_stable_seconds} s. Reset the cursor to read every file again.",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _look(context, settings)

    return look


def _look(context: dg.SensorEvaluationContext, settings: Settings) -> dg.SensorResult:
    eyes = Eyes(settings)
    source = csv_source(settings)
    paths = {path.name: path for path in source.files()}
    stats = {name: path.stat() for name, path in paths.items()}
    now, stable = eyes.now(), timedelta(seconds=settings.csv_stable_seconds)
    due = due_session(now, eyes.calendar, eyes.plan) or eyes.plan.first - DAY
    remembered = seen_from(context.cursor)
    succeeded, failed = _ended(context.instance, {key for state in remembered.values() for key in state.asked})
    seen = again(now, remembered, succeeded, failed, eyes.plan, stable)
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
    return _result(context, eyes, found, look, left_over)


def new_in(
    source: CsvFolderSource,
    path: Path,
    tickers: tuple[str, ...],
    before: Seen,
    digest: str,
    grown: bool,
    due: date,
) -> Contents | None:
    """What a file holds that has not been requested: what is new in it since `before`, and sessions that have become due.

    `digest` and `grown` are the file's fingerprint. None if there is nothing to request.
    """
    changed = digest != before.digest
    if changed and not grown:
        return contents_of(source, path, tickers, due=due)
    contents = contents_of(source, path, tickers, before.read, due=due) if changed else None
    if not before.has_come_due(due):
        if contents is None or before.coming is None:
            return contents
        return replace(contents, coming=min(before.coming, contents.coming or before.coming))
    late = contents_of(source, path, tickers, after=before.through or date.min, due=due)
    if contents is None:
        return Contents(late.spans, coming=late.coming)  # its problems were reported when it was read first
    spans = dict(late.spans)
    for ticker, span in contents.spans.items():
        spans[ticker] = _joined(spans.get(ticker), span)
    return replace(contents, spans=spans, coming=late.coming)


def _ended(instance: dg.DagsterInstance, asked: Collection[str]) -> tuple[set[str], set[str]]:
    """Of the keys `asked` those whose runs have all ended without a failure, and those of which a run failed."""
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
    eyes: Eyes,
    found: Mapping[str, Contents],
    look: Look,
    left_over: list[str],
) -> dg.SensorResult:
    """The run for what was found, and a word about each file that is bad, of no use or not read yet."""
    memory = look.memory
    spans = _within(eyes, found)
    rectangles = rectangles_of(spans, eyes.calendar, eyes.plan) if spans else ()
    notes = {name: note for name, contents in found.items() if (note := _note(name, contents))}
    for note in notes.values():
        context.log.warning(note)
    events = [
        dg.AssetObservation(RAW.name, metadata={"file": printable(name), "problem": note}, description=note)
        for name, note in list(notes.items())[:LISTED]
    ]
    states = [(name, memory[name]) for name in sorted(found)]
    # `through`: a file of the same bytes is requested again when a later session of it is due.
    read = [(name, state.digest, state.changed, state.retries, state.through) for name, state in states]
    key = hashlib.sha256(repr(read).encode()).hexdigest()[:16]
    if rectangles:
        memory |= {name: replace(state, asked=(*state.asked, key)) for name, state in states if found[name].spans}
    requests = [eyes.request(rectangle, NAME, f"{key}-{number}") for number, rectangle in enumerate(rectangles)]
    waiting = _waiting(look, left_over, eyes.plan.last or date.max)
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
    """Why files, or sessions of files to the lake's `last` day, have not been requested yet."""
    sentences = []
    if look.unstable:
        sentences.append(f"{len(look.unstable)} files may still be written: {_first(look.unstable)}")
    if look.retried:
        sentences.append(f"{len(look.retried)} files are read again later, their run failed: {_first(look.retried)}")
    if left_over:
        sentences.append(
            f"{len(left_over)} files are left for the next look, a look ends after {BYTES_A_LOOK // 1_000_000} MB: "
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


def _within(eyes: Eyes, found: Mapping[str, Contents]) -> dict[str, tuple[date, date]]:
    """The due sessions of each ticker in all files, cut to the lake's days."""
    spans: dict[str, tuple[date, date]] = {}
    for contents in found.values():
        for ticker, span in contents.spans.items():
            spans[ticker] = _joined(spans.get(ticker), span)
    cut = {}
    for ticker, (first, last) in spans.items():
        if sessions := eyes.calendar.between(max(first, eyes.plan.first), last):
            cut[ticker] = (sessions[0], sessions[-1])
    return cut


def _note(name: str, contents: Contents) -> str:
    """What is wrong with a file, from its name on; empty if nothing is."""
    if contents.problem:
        return contents.problem + (f", and {contents.problems - 1} more lines" if contents.problems > 1 else "")
    return (
        ""
        if contents.spans or contents.coming or not contents.others
        else f"{printable(name)}: no row of a ticker of the settings"
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
    """What `seen_text` wrote; nothing from an empty cursor. Raises ValueError for any other text."""
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
    """A file's fields in a cursor. Older cursors lack `through` and `coming`: sessions may have been dropped as not due."""
    since = datetime.fromisoformat(since_text)
    if days:
        through, coming = (date.fromisoformat(day) if day else None for day in days)
    else:
        # The file is read once more. A week holds the time zones and the grace between its sessions and `since`.
        through, coming = since.date() - 8 * DAY, since.date() - 7 * DAY
    keys = tuple(asked.split(",")) if asked else ()
    return Seen(size, changed, since, bool(settled), read, digest, keys, retries, through, coming)
