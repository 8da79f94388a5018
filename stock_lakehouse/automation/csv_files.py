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

from stock_lakehouse.automation.decisions import Plan, due_session, rectangles_of
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
RUNS_LOOKED_AT = 50
RUN_KEY = "dagster/run_key"


@dataclass(frozen=True)
class Seen:
    """A file as last seen: `size` and `changed` (ns), so `since`; and the `digest` of its first `read` bytes, asked for already.

    `settled` once its present state has been asked for, or found to be what was asked for before. `asked` is the key of the
    runs that were asked for it, `retries` how often they failed and were asked for anew.
    """

    size: int
    changed: int
    since: datetime
    settled: bool = False
    read: int = 0
    digest: str = ""
    asked: str = ""
    retries: int = 0


@dataclass(frozen=True)
class Contents:
    """What a file holds that is new: the first and last session of each ticker, rows of no use, problems and the first."""

    spans: Mapping[str, tuple[date, date]]
    others: int = 0
    problem: str = ""
    problems: int = 0


def look_at(
    now: datetime, files: Mapping[str, tuple[int, int]], seen: Mapping[str, Seen], stable: timedelta
) -> tuple[dict[str, Seen], list[str], list[str]]:
    """What to remember of `files` (name: size and time of change), which of them are to be read now, and which later.

    A file is read once it has stayed the same for `stable` since it was first seen so. Files that are gone are forgotten.
    """
    memory: dict[str, Seen] = {}
    ready: list[str] = []
    later: list[str] = []
    for name, (size, changed) in sorted(files.items()):
        before = seen.get(name)
        if before is None:
            before = Seen(size, changed, now)
        elif (before.size, before.changed) != (size, changed):
            before = replace(before, size=size, changed=changed, since=now, settled=False, asked="", retries=0)
        memory[name] = before
        if not before.settled:
            (ready if now - before.since >= stable else later).append(name)
    return memory, ready, later


def again(
    now: datetime, seen: Mapping[str, Seen], failed: Collection[str], plan: Plan, stable: timedelta
) -> dict[str, Seen]:
    """`seen`, where the files of `failed` runs are to be read anew after a pause, as often as a session is asked for."""
    memory = dict(seen)
    for name, one in seen.items():
        if one.asked and one.asked in failed and one.retries + 1 < plan.session_attempts:
            due = now + plan.session_pause * (1 << one.retries)
            memory[name] = replace(
                one, since=due - stable, settled=False, read=0, digest="", asked="", retries=one.retries + 1
            )
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


def contents_of(source: CsvFolderSource, path: Path, tickers: tuple[str, ...], skip: int = 0) -> Contents:
    """What a file holds, after its first `skip` bytes; a file that cannot be read has a problem, not an error."""
    import pyarrow.compute as pc

    spans: dict[str, tuple[date, date]] = {}
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
        found = right.group_by("ticker").aggregate([("session", "min"), ("session", "max"), ([], "count_all")])
        for row in found.to_pylist():
            if row["ticker"] not in tickers:
                others += row["count_all"]
                continue
            first, last = (date.fromisoformat(row[f"session_{name}"]) for name in ("min", "max"))
            before = spans.get(row["ticker"], (first, last))
            spans[row["ticker"]] = (min(first, before[0]), max(last, before[1]))
    return Contents(spans, others, problem, problems)


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
    seen = again(now, seen_from(context.cursor), _failed(context.instance), eyes.plan, stable)
    files = {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}
    memory, ready, later = look_at(now, files, seen, stable)
    found: dict[str, Contents] = {}
    budget = BYTES_A_LOOK
    for name in ready:
        before = memory[name]
        if budget <= 0:
            later.append(name)
            continue
        budget -= before.size
        digest, grown = fingerprint(paths[name], before.size, before)
        if digest != before.digest:
            found[name] = contents_of(source, paths[name], settings.tickers, before.read if grown else 0)
        memory[name] = replace(before, settled=True, read=before.size, digest=digest)
    return _result(context, eyes, found, memory, later)


def _failed(instance: dg.DagsterInstance) -> set[str]:
    """The keys of this sensor's newest runs that failed."""
    runs = instance.get_runs(
        dg.RunsFilter(tags={ASKED_BY: NAME}, statuses=[dg.DagsterRunStatus.FAILURE]), limit=RUNS_LOOKED_AT
    )
    return {run.tags.get(RUN_KEY, "").partition("-")[0] for run in runs}


def _result(
    context: dg.SensorEvaluationContext,
    eyes: Eyes,
    found: Mapping[str, Contents],
    memory: dict[str, Seen],
    later: list[str],
) -> dg.SensorResult:
    """The run for what was found, and a word about each file that is bad or of no use."""
    spans = _within(eyes, found)
    rectangles = rectangles_of(spans, eyes.calendar, eyes.plan) if spans else ()
    notes = {name: note for name, one in found.items() if (note := _note(name, one))}
    for note in notes.values():
        context.log.warning(note)
    events = [
        dg.AssetObservation(RAW.name, metadata={"file": printable(name), "problem": note}, description=note)
        for name, note in list(notes.items())[:LISTED]
    ]
    read = [(name, memory[name].digest, memory[name].changed, memory[name].retries) for name in sorted(found)]
    key = hashlib.sha256(repr(read).encode()).hexdigest()[:16]
    memory |= {name: replace(memory[name], asked=key) for name, one in found.items() if one.spans}
    requests = [eyes.request(one, NAME, f"{key}-{number}") for number, one in enumerate(rectangles)]
    parts = list(notes.values())
    if later:
        parts.append(f"{len(later)} files may still be written: {', '.join(map(printable, later[:3]))}")
    reason = "; ".join(parts) or f"{len(memory)} files, none new or changed"
    return dg.SensorResult(
        run_requests=requests or None,
        skip_reason=None if requests else reason,
        cursor=seen_text(memory),
        asset_events=events,
    )


def _within(eyes: Eyes, found: Mapping[str, Contents]) -> dict[str, tuple[date, date]]:
    """The sessions of each ticker in all files, cut to the lake's days and to sessions that have closed."""
    due = due_session(eyes.now(), eyes.calendar, eyes.plan)
    spans: dict[str, tuple[date, date]] = {}
    for one in found.values():
        for ticker, (first, last) in one.spans.items():
            before = spans.get(ticker, (first, last))
            spans[ticker] = (min(first, before[0]), max(last, before[1]))
    cut = {}
    for ticker, (first, last) in spans.items():
        sessions = eyes.calendar.between(max(first, eyes.plan.first), min(last, due)) if due else ()
        if sessions:
            cut[ticker] = (sessions[0], sessions[-1])
    return cut


def _note(name: str, contents: Contents) -> str:
    """What is wrong with a file, from its name on; empty if nothing is."""
    if contents.problem:
        return contents.problem + (f", and {contents.problems - 1} more lines" if contents.problems > 1 else "")
    return "" if contents.spans or not contents.others else f"{printable(name)}: no row of a ticker of the settings"


def seen_text(memory: Mapping[str, Seen]) -> str:
    """`memory` as a cursor."""
    return json.dumps(
        {
            name: [
                one.size,
                one.changed,
                one.since.isoformat(),
                int(one.settled),
                one.read,
                one.digest,
                one.asked,
                one.retries,
            ]
            for name, one in memory.items()
        }
    )


def seen_from(cursor: str | None) -> dict[str, Seen]:
    """What `seen_text` wrote; nothing from an empty cursor. Raises ValueError for any other text."""
    if not cursor:
        return {}
    try:
        return {
            name: Seen(size, changed, datetime.fromisoformat(since), bool(settled), *more)
            for name, (size, changed, since, settled, *more) in json.loads(cursor).items()
        }
    except (AttributeError, TypeError) as error:
        raise ValueError(f"the cursor is not this sensor's: {error}; reset it in the UI") from None
