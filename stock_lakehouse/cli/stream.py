"""The commands of the stream: produce, run, drain, status, bars, dead, retry, refill, live, reconcile.

Not here: the work itself (streams/).
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stock_lakehouse.cli.context import check_lake_root, day_of, settings_of_process, tickers_in
from stock_lakehouse.cli.printing import (
    NAME,
    as_text,
    aside,
    duration,
    fail,
    print_data,
    print_table,
    progress_printer,
    say,
)
from stock_lakehouse.cli.program import DATE_OPTION, app

if TYPE_CHECKING:
    from stock_lakehouse.settings import Settings
    from stock_lakehouse.streams import StreamSource
    from stock_lakehouse.streams.runner import Runner
    from stock_lakehouse.streams.status import DayStatus, StreamStatus

MAY_PASS, REFUSED = 1, 3  # exit codes: run the same again; somebody has to decide
SAMPLE_TICKERS = "NVDA,AAPL"
LEAST_SECONDS = 60  # between two events for Dagster, whose database keeps them
LONGEST_LETTER = 200  # characters of a dead letter in a line
PROGRESS_SECONDS = 2.0  # between two lines about a drain
LIVE_LINES = 5  # tickers of the running session in a status

stream_app = typer.Typer(
    no_args_is_help=True,
    help="Live prices as minute bars: read a stream, and see how it stands. `stream demo` shows all of it in a minute.",
)
app.add_typer(stream_app, name="stream")


def _share(what: str) -> Any:
    return typer.Option(min=0, max=1, metavar="SHARE", help=f"Share of messages that are {what}.")


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AcceptLoss = Annotated[
    str | None,
    typer.Option(metavar="WHY", help="Go on although messages were lost; the reason is kept in stream_losses."),
]
TakeOver = Annotated[bool, typer.Option("--take-over", help="Take the tables over from another kind of runner.")]
Rebuild = Annotated[
    bool,
    typer.Option(
        "--rebuild-checkpoint", help="Structured Streaming: begin a new checkpoint at the positions in the tables."
    ),
]
Late = Annotated[float, _share("late: they come after three times `late_seconds`")]
Duplicate = Annotated[float, _share("sent twice")]
Poison = Annotated[float, _share("followed by a broken one")]


@stream_app.command()
def produce(
    shape: Annotated[
        Literal["walk", "day"],
        typer.Option(
            help="walk: events from a session's open to its close; day: a message a daily bar, with the time of now."
        ),
    ] = "walk",
    tickers: Annotated[str, typer.Option(metavar="A,B", help="Tickers of the sample.")] = SAMPLE_TICKERS,
    first: Annotated[
        datetime | None, typer.Option("--from", **DATE_OPTION, help="First session; default: the sample's last.")
    ] = None,
    last: Annotated[
        datetime | None,
        typer.Option("--to", **DATE_OPTION, help="Last session; default: the first one."),
    ] = None,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two events of a ticker.")] = 10.0,
    rate: Annotated[float | None, typer.Option(min=0.1, help="Messages a second; default: all at once.")] = None,
    late: Late = 0.0,
    duplicate: Duplicate = 0.0,
    poison: Poison = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the faults.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write the sample's bars as messages of the stream, with faults on request; default: its last session."""
    from stock_lakehouse.clock import clock_of
    from stock_lakehouse.market_calendar import market_calendar
    from stock_lakehouse.sources.sample_data import SAMPLE_LAST
    from stock_lakehouse.streams import replay

    settings = _settings()
    since = day_of(first) or day_of(last) or SAMPLE_LAST
    until = day_of(last) or (since if first is not None else SAMPLE_LAST)
    try:
        bars = replay.sample_bars(tickers_in(tickers), since, until)
    except ValueError as error:
        fail(str(error))
    if not bars:
        fail(
            f"the sample has no bars of {tickers} from {since} to {until}; it has AAPL, AMZN, GOOG, META, NFLX and NVDA from "
            f"2013-01-02 to {SAMPLE_LAST}"
        )
    faults = replay.Faults(late, duplicate, poison, settings.stream.late_seconds, seed)
    messages = (
        replay.day_messages(bars, clock_of(settings.simulated_clock))
        if shape == "day"
        else replay.walk_messages(bars, market_calendar(since), every, faults)
    )
    progress = progress_printer()
    with _named_errors(settings):
        place, count = _sent(settings, replay.paced(messages, rate, lambda number: progress(f"{number:,} messages")))
    sessions = len({bar.session for bar in bars})
    if as_json:
        print_data(json.dumps({**place, "messages": count, "sessions": sessions, "bars": len(bars)}))
        return
    where = next(iter(place.values()))
    say(f"{where}: {count:,} messages of {len(bars):,} bars, {sessions:,} session{'' if sessions == 1 else 's'}")


@stream_app.command()
def drain(
    minutes: Annotated[float, typer.Option(min=0.01, help="How long it may take.")] = 10.0,
    accept_loss: AcceptLoss = None,
    take_over: TakeOver = False,
    rebuild_checkpoint: Rebuild = False,
    as_json: AsJson = False,
) -> None:
    """Read the stream to its ends as they are now, bring bars and live features up to date, and end.

    Exits with 1 if the same may work later, and with 3 if somebody has to decide; the message says what.
    """
    from stock_lakehouse.streams.runner import summary_of

    began, progress, settings = time.monotonic(), _now_and_then(progress_printer()), _settings()
    if _is_job(settings):
        asked = {"accept_loss": accept_loss, "take_over": take_over, "rebuild": rebuild_checkpoint}
        summary = _by_job(settings, **asked, minutes=minutes, live=settings.stream.live_seconds > 0)
    else:
        with _running(accept_loss, take_over, rebuild_checkpoint) as started:
            started.drain(
                minutes, lambda: progress(f"batch {started.ticks.batch:,}: {started.counts.messages:,} messages")
            )
            _update_live(started)
            summary = summary_of(started, time.monotonic() - began)
    if summary["messages"]:
        _tell_dagster(settings, summary)
    if as_json:
        print_data(json.dumps(summary))
    else:
        say(_sentence(summary))


@stream_app.command()
def run(
    accept_loss: AcceptLoss = None,
    take_over: TakeOver = False,
    rebuild_checkpoint: Rebuild = False,
    as_json: AsJson = False,
) -> None:
    """Read the stream and keep its bars up to date until Ctrl-C or SIGTERM, which end it after the batch.

    Each `report_seconds` it prints a line and tells Dagster of new bars, each `live_seconds` it computes live features. It may be
    killed at any time: the next start goes on. Exits with 1 and 3 as `stream drain` does.
    """
    from stock_lakehouse.streams import runner

    if _is_job(settings := _settings()):
        asked = {"accept_loss": accept_loss, "take_over": take_over, "rebuild": rebuild_checkpoint}
        _by_job(settings, **asked, follows=True)
        return
    stopped, began, progress = threading.Event(), time.monotonic(), progress_printer()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with _running(accept_loss, take_over, rebuild_checkpoint) as started:
        stream = settings.stream
        next_line = began + stream.report_seconds
        next_event, told = began + max(stream.report_seconds, LEAST_SECONDS), 0
        next_live = began + stream.live_seconds

        def report() -> None:
            nonlocal next_line, next_event, next_live, told
            if stream.live_seconds and time.monotonic() >= next_live:
                next_live = time.monotonic() + stream.live_seconds
                _update_live(started)
            if time.monotonic() >= next_event and started.counts.messages > told:
                next_event = time.monotonic() + max(stream.report_seconds, LEAST_SECONDS)
                told = started.counts.messages
                _tell_dagster(settings, runner.summary_of(started, time.monotonic() - began))
            if time.monotonic() >= next_line:
                next_line += stream.report_seconds
                summary = runner.summary_of(started, time.monotonic() - began)
                print_data(json.dumps(summary)) if as_json else progress(_sentence(summary))

        runner.run(started, stream.trigger_seconds, stopped.is_set, report)
        summary = runner.summary_of(started, time.monotonic() - began)
    print_data(json.dumps(summary)) if as_json else say(_sentence(summary))


@stream_app.command()
def retry(as_json: AsJson = False) -> None:
    """Read all dead letters again by the present rules; those that are good ticks now join their bars.

    The rules are those of the settings and of this version of the program: after `ahead_seconds` was raised, for example.
    """
    progress = _now_and_then(progress_printer())
    with _embedded() as started:
        letters, changed = started.retry(lambda count: progress(f"{count:,} dead letters read again"))
    if as_json:
        print_data(json.dumps({"dead_letters": letters, "changed": changed}))
    else:
        say(f"{letters:,} dead letters read again, {changed:,} changed")


@stream_app.command()
def refill(
    minutes: Annotated[float, typer.Option(min=0.01, help="How long it may take.")] = 60.0, as_json: AsJson = False
) -> None:
    """Bring back ticks that raw_ticks lost (a restored table, a lost file): read their messages again.

    What the stream no longer has becomes lines of stream_losses. May be killed and run again.
    """
    from stock_lakehouse.streams.refill import refill as bring_back

    began = time.monotonic()
    with _embedded(is_started=False) as runner:
        done = bring_back(runner, minutes, progress_printer())
    seconds = round(time.monotonic() - began, 1)
    if as_json:
        print_data(json.dumps({**asdict(done), "seconds": seconds}))
    elif done.found == done.expected:
        say(f"raw_ticks has the {done.expected:,} rows that its positions stand for: nothing is missing")
    else:
        files = f" ({done.damaged_files:,} damaged files taken out)" if done.damaged_files else ""
        lost = f", {done.lost:,} are lost, see `{NAME} stream status`" if done.lost else ""
        say(
            f"raw_ticks had {done.found:,} of {done.expected:,} rows{files}: {done.read_again:,} were read again{lost}. "
            f"{done.bars:,} bars computed. {seconds:,} s"
        )


@stream_app.command()
def status(
    days: Annotated[int, typer.Option(min=1, help="Days to count, the newest ones.")] = 2, as_json: AsJson = False
) -> None:
    """Say how the stream stands: positions and what was not read yet, what came, who runs it, and the running session.

    It starts no engine. Exits with 3 if a runner would refuse to go on; the last line says why.
    """
    from stock_lakehouse.streams.status import status_of

    settings = _settings()
    with _named_errors(settings):
        stream = settings.stream
        found = status_of(settings.lake_options, stream.versions_hours, _source(settings), days, stream.runner)
        running = _live_rows(settings, None)
    if as_json:
        print_data(json.dumps({**asdict(found), "live": running}, default=_json))
    else:
        _print_status(found)
        for row in running[:LIVE_LINES]:
            say(_live_line(row))
        if len(running) > LIVE_LINES:
            say(f"{len(running) - LIVE_LINES:,} more: `{NAME} stream live`")
    if found.refusal:
        if not as_json:
            aside(f"{NAME}: {found.refusal}")
        raise typer.Exit(REFUSED)


@stream_app.command()
def dead(
    last: Annotated[int, typer.Option(min=1, help="How many, the newest ones.")] = 20, as_json: AsJson = False
) -> None:
    """Show messages that could not be used, each with its reason."""
    from stock_lakehouse.streams.status import dead_letters

    settings = _settings()
    with _named_errors(settings):
        letters = dead_letters(settings.lake_options, settings.stream.versions_hours, last).to_pylist()
    shown = [
        {
            **{name: letter[name] for name in ("arrival_time", "partition", "offset", "reason")},
            "value": letter["value"].decode(errors="backslashreplace"),
        }
        for letter in letters
    ]
    if as_json:
        print_data(json.dumps(shown, default=_json))
        return
    if not shown:
        say("No dead letters.")
        return
    for letter in shown:
        value = letter["value"]
        cut = value if len(value) <= LONGEST_LETTER else value[:LONGEST_LETTER] + "…"
        print_data(
            f"{letter['arrival_time']:%Y-%m-%d %H:%M:%S}  {letter['reason']}  {letter['partition']} {letter['offset']}"
        )
        print_data(f"    {cut}")


@stream_app.command()
def bars(
    tickers: Annotated[str | None, typer.Argument(metavar="A,B", help="Tickers; default: all.")] = None,
    day: Annotated[
        datetime | None, typer.Option(**DATE_OPTION, help="Day of the exchange; default: the newest.")
    ] = None,
    last: Annotated[int, typer.Option(min=1, help="How many, the newest ones.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show minute bars. Starts no engine."""
    from stock_lakehouse.streams.status import newest_bars

    settings = _settings()
    try:
        wanted = None if tickers is None else tickers_in(tickers)
    except ValueError as error:
        fail(str(error))
    with _named_errors(settings):
        rows = newest_bars(settings.lake_options, settings.stream.versions_hours, wanted, day_of(day), last).to_pylist()
    if as_json:
        print_data(json.dumps(rows, default=_json))
    elif not rows:
        say("No minute bars.")
    else:
        shown = ("open", "high", "low", "close", "volume", "vwap", "events", "duplicates", "late_events", "state")
        cells = [
            [row["ticker"], f"{row['minute']:%Y-%m-%d %H:%M}", *(_cell(row[name]) for name in shown)] for row in rows
        ]
        print_table(["ticker", "minute, UTC", *shown], cells, 2)


@stream_app.command()
def live(
    tickers: Annotated[str | None, typer.Argument(metavar="A,B", help="Tickers; default: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the running session with its indicators, as `stream run` or a drain computed them. Starts no engine."""
    settings = _settings()
    try:
        wanted = None if tickers is None else tickers_in(tickers)
    except ValueError as error:
        fail(str(error))
    with _named_errors(settings):
        rows = _live_rows(settings, wanted)
    if as_json:
        print_data(json.dumps(rows, default=_json))
    elif not rows:
        say(
            "No live features: the newest session with minutes has its official bars, or nobody has computed them yet; "
            f"`{NAME} stream drain` does."
        )
    else:
        for row in rows:
            say(_live_line(row))


@stream_app.command()
def reconcile(
    first: Annotated[
        datetime | None, typer.Option("--from", **DATE_OPTION, help="First session; default: the first with minutes.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", **DATE_OPTION, help="Last session; default: the last with minutes.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the minutes of finished sessions with their official daily bars; default: all sessions with minutes."""
    from stock_lakehouse.cli.context import engine
    from stock_lakehouse.clock import clock_of
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.streams.reconciliation import reconcile as compare

    settings = _settings()
    check_lake_root(settings)
    with _named_errors(settings):
        lake, now = Lake(settings.lake_options), clock_of(settings.simulated_clock)()
        with engine(settings, "curated_stocks_daily") as spark:
            rows = compare(lake, settings.stream, spark, now, day_of(first), day_of(last)).to_pylist()
    if as_json:
        print_data(json.dumps(rows, default=_json))
    elif not rows:
        say("No finished session has minutes.")
    else:
        shown = [name for name in rows[0] if name not in ("ticker", "date", "compared_at")]
        cells = [[row["ticker"], str(row["date"]), *(as_text(row[name]) for name in shown)] for row in rows]
        print_table(["ticker", "date", *shown], cells, 2)


def _settings() -> Settings:
    """The settings. Exits with a line if streaming is off."""
    settings = settings_of_process()
    if settings.stream.source == "off":
        fail(
            'stream.source: is off; set source = "files" and folder = "…" in the table [stream] of lakehouse.toml, or '
            "STOCK_LAKEHOUSE_STREAM_SOURCE and STOCK_LAKEHOUSE_STREAM_FOLDER"
        )
    return settings


def _now_and_then(progress: Callable[[str], None]) -> Callable[[str], None]:
    """`progress` for lines that come often: at most one in PROGRESS_SECONDS is printed."""
    printed = time.monotonic()

    def maybe(line: str) -> None:
        nonlocal printed
        if time.monotonic() >= printed + PROGRESS_SECONDS:
            printed = time.monotonic()
            progress(line)

    return maybe


def _sent(settings: Settings, groups: Iterator[list[bytes]]) -> tuple[dict[str, str], int]:
    """Send messages to the stream: where they went, and their number."""
    stream = settings.stream
    if stream.source == "kafka":
        from stock_lakehouse.streams import kafka

        return {"topic": stream.name}, kafka.produce(stream, groups)
    if stream.source == "kinesis":
        from stock_lakehouse.streams import kinesis

        return {"stream": stream.name}, kinesis.produce(stream.name, groups)
    from stock_lakehouse.streams import replay

    assert stream.folder is not None
    file = stream.folder / f"{stream.name}.jsonl"
    return {"file": str(file)}, replay.write(groups, file)


def _source(settings: Settings) -> StreamSource:
    from stock_lakehouse.clock import clock_of
    from stock_lakehouse.streams.sources import source_of

    return source_of(settings.stream, clock_of(settings.simulated_clock))


@contextmanager
def _running(accept_loss: str | None, take_over: bool, rebuild: bool) -> Iterator[Runner]:
    """The started runner of the settings, not a job; its errors as a line and an exit code."""
    from stock_lakehouse.clock import clock_of

    settings = _settings()
    if settings.stream.runner == "embedded":
        if rebuild:
            fail("--rebuild-checkpoint: goes with stream.runner = 'structured_streaming'; the embedded runner has none")
        with _embedded(accept_loss, take_over) as embedded:
            yield embedded
        return
    from stock_lakehouse.cli.context import engine
    from stock_lakehouse.streams.structured import structured_runner

    check_lake_root(settings)
    clock = clock_of(settings.simulated_clock)
    with (
        _named_errors(settings),
        engine(settings, "raw_ticks") as spark,
        structured_runner(
            *(settings.lake_options, settings.stream, _source(settings), spark, clock, accept_loss, take_over, rebuild)
        ) as started,
    ):
        yield started


@contextmanager
def _embedded(accept_loss: str | None = None, take_over: bool = False, *, is_started: bool = True) -> Iterator[Runner]:
    """A runner of this package, started or not; its errors as a line and an exit code. It writes for that of the settings."""
    from stock_lakehouse.clock import clock_of
    from stock_lakehouse.engines import EngineError, spark_session
    from stock_lakehouse.lake.tick_table import OWNERS
    from stock_lakehouse.streams.runner import only_runner, runner

    settings = _settings()
    check_lake_root(settings)
    clock, stream = clock_of(settings.simulated_clock), settings.stream
    owner = OWNERS[stream.runner]
    try:
        # The embedded engine whatever the setting `engine`: a batch is small, and its way to a remote engine is long.
        with (
            _named_errors(settings),
            spark_session("embedded") as spark,
        ):
            given = (settings.lake_options, stream, _source(settings), spark, clock)
            with runner(*given, accept_loss, take_over, owner) if is_started else only_runner(*given, owner) as found:
                yield found
    except EngineError as error:
        fail(str(error))


def _is_job(settings: Settings) -> bool:
    return settings.stream.runner == "structured_streaming" and settings.engine == "databricks"


def _by_job(settings: Settings, **asked: Any) -> dict[str, Any]:
    """The summary of a Databricks job that reads the stream; its errors as a line and an exit code."""
    from stock_lakehouse.engines import EngineError
    from stock_lakehouse.runs.stream import stream_job_run

    check_lake_root(settings)
    try:
        with _named_errors(settings):
            return stream_job_run(settings, progress_printer(), **asked)
    except EngineError as error:
        fail(str(error))


@contextmanager
def _named_errors(settings: Settings) -> Iterator[None]:
    """Errors of the stream as one line, with exit code 3 for a refusal and 1 for a failure that may pass."""
    from stock_lakehouse.clock import ClockError
    from stock_lakehouse.lake.lease import LeaseLostError
    from stock_lakehouse.lake.lock import TableBusyError
    from stock_lakehouse.lake.publish import PublishError
    from stock_lakehouse.lake.storage import StorageError
    from stock_lakehouse.lake.stream_table import StreamRefusedError
    from stock_lakehouse.streams import SourceUnavailableError
    from stock_lakehouse.streams.runner import StreamTimeoutError
    from stock_lakehouse.streams.structured import StreamQueryError

    may_pass = (
        StorageError,
        LeaseLostError,
        PublishError,
        StreamTimeoutError,
        SourceUnavailableError,
        StreamQueryError,
    )
    try:
        yield
    except StreamRefusedError as error:
        aside(f"{NAME}: {error}")
        raise typer.Exit(REFUSED) from None
    except TableBusyError:
        aside(f"{NAME}: {_busy(settings)}")
        raise typer.Exit(MAY_PASS) from None
    except may_pass as error:
        aside(f"{NAME}: {error}")
        raise typer.Exit(MAY_PASS) from None
    except ClockError as error:
        fail(str(error))


def _busy(settings: Settings) -> str:
    from stock_lakehouse.lake.lock import holder_of
    from stock_lakehouse.lake.stream_table import LOCK

    holder = holder_of(settings.lake_root, LOCK)
    who = "" if holder is None else f" on {holder.host}, process {holder.process}"
    return f"another runner of this stream is at work{who}; there can be one. `{NAME} stream status` says how far it is"


def repair_bars(settings: Settings) -> None:
    """Take damaged files out of minute_bars, and compute all bars again from their ticks."""
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.streams.keeping import drop_damaged_bars
    from stock_lakehouse.streams.rebuild import rebuild_bars

    with _named_errors(settings):
        dropped = drop_damaged_bars(Lake(settings.lake_options))
    with _embedded(is_started=False) as runner:  # the stream itself is not asked for anything
        runner.prepare()
        runner.ticks.check()
        runner.catch_up()
        count = rebuild_bars(runner.ticks, runner.bars, runner.bars_of)
    say(f"minute_bars: {dropped:,} damaged files taken out, {count:,} bars computed again from their ticks")


def _tell_dagster(settings: Settings, summary: Mapping[str, Any]) -> None:
    """Report new minute bars to Dagster, if the project has an instance of it. The stream goes on if its database fails."""
    import dagster as dg
    from dagster_postgres.utils import DagsterPostgresException
    from sqlalchemy.exc import SQLAlchemyError

    from stock_lakehouse.instance.home import dagster_folder, open_instance
    from stock_lakehouse.streams.runner import Counts
    from stock_lakehouse.tables import MINUTE_BARS

    home = dagster_folder(settings)
    if not (home / "dagster.yaml").exists():
        return
    metadata: dict[str, Any] = {
        **Counts.of(summary).as_metadata(),
        "watermark": summary["watermark"] or "none",
    }
    try:
        with open_instance(home) as instance:
            instance.report_runless_asset_event(dg.AssetMaterialization(MINUTE_BARS.name, metadata=metadata))
    except (SQLAlchemyError, DagsterPostgresException) as error:
        reason = str(error).splitlines()[0]
        aside(
            f"{NAME}: Dagster was not told of new minute bars, which are in the lake: {reason}. `{NAME} doctor` says more"
        )


def _sentence(summary: dict[str, Any]) -> str:
    return (
        f"{summary['messages']:,} messages = {summary['events']:,} events + {summary['duplicates']:,} duplicates + "
        f"{summary['dead_letters']:,} dead letters; {summary['late']:,} late. {summary['new_bars']:,} new bars, "
        f"{summary['open_bars']:,} open. {summary['seconds']:,} s"
    )


def _print_status(found: StreamStatus) -> None:
    from stock_lakehouse.market_calendar import utc_now

    runner = "no runner"
    if found.runner is not None:
        since = found.runner.since
        age = f", for {duration((utc_now() - since).total_seconds())}" if since else ""
        runner = f"runner: {found.runner.host}, process {found.runner.process}{age}"
    say(f"{found.source}, batch {found.batch:,}, bars of batch {found.bars_batch:,}; {runner}")
    if found.partitions:
        now = utc_now()
        print_table(
            ["partition", "position", "end", f"lag ({found.unit})", "behind", "newest event, UTC"],
            [
                [
                    part.partition + (" (given up)" if part.given_up else ""),
                    f"{part.position:,}",
                    "-" if part.end is None else f"{part.end:,}",
                    "-" if part.lag is None else f"{part.lag:,}",
                    "-" if part.waiting_since is None else duration((now - part.waiting_since).total_seconds()),
                    "-" if part.newest_event is None else f"{part.newest_event:%Y-%m-%d %H:%M:%S}",
                ]
                for part in found.partitions
            ],
        )
    if found.watermark is not None:
        say(f"watermark {found.watermark:%Y-%m-%d %H:%M:%S} UTC: minutes that end until then are final")
    for day in found.days:
        say(_line_of(day))
    for loss in found.losses:
        end = "an unknown end" if loss["to_offset"] is None else f"{int(loss['to_offset']):,}"
        say(f"lost: {loss['partition']} from {int(loss['from_offset']):,} to {end}, accepted by {loss['accepted_by']}")


def _update_live(started: Runner) -> None:
    """Bring the live features up to date, unless the settings say that nobody wants them."""
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.streams.live import update_live

    stream = _settings().stream
    if stream.live_seconds:
        update_live(Lake(started.options), stream.versions_hours, started.spark, started.clock())


def _live_rows(settings: Settings, wanted: Sequence[str] | None) -> list[dict[str, Any]]:
    """The live features of the tickers `wanted` (None: all), in the order of the settings; others follow."""
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.streams.live import LiveTable

    rows = LiveTable(Lake(settings.lake_options), settings.stream.versions_hours).rows().to_pylist()
    places = {ticker: place for place, ticker in enumerate(settings.tickers)}
    chosen = [row for row in rows if wanted is None or row["ticker"] in wanted]
    return sorted(chosen, key=lambda row: (places.get(row["ticker"], len(places)), row["ticker"]))


def _live_line(row: dict[str, Any]) -> str:
    """A ticker's running session: price, indicators, and how far it is."""
    as_of = f"as of {row['as_of']:%Y-%m-%d %H:%M:%S} UTC, {row['bar_state']}"
    if row["doubt"] is not None:
        return f"{row['ticker']}  {row['close']:,.2f}; {as_of}: {row['doubt']}"
    shown = [f"{name} {row[name]:,.1f}" for name in ("rsi_14", "sma_20", "sma_50") if row[name] is not None]
    change = "" if row["return_1d"] is None else f", {row['return_1d'] * 100:+.2f} % since the close"
    return "; ".join([f"{row['ticker']}  {row['close']:,.2f}{change}", *filter(None, [", ".join(shown)]), as_of])


def _line_of(day: DayStatus) -> str:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in day.reasons.items())
    bars = ", ".join(f"{count:,} {state}" for state, count in day.bars.items())
    counts = (
        f"{day.messages:,} messages = {day.events:,} events + {day.duplicates:,} duplicates + {day.dead:,} dead letters"
    )
    return f"{day.day}  {counts}{f' ({reasons})' if reasons else ''}; {day.late_events:,} late; bars: {bars or 'none'}"


def _cell(value: object) -> str:
    """A value of a minute bar: prices with two decimals at least."""
    if isinstance(value, Decimal):
        short = value.normalize()
        exponent = short.as_tuple().exponent
        return f"{value:,.2f}" if isinstance(exponent, int) and exponent > -2 else f"{short:,f}"
    return as_text(value)


def _json(value: object) -> object:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, date | datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} in JSON")
