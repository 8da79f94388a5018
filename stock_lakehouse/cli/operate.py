"""Commands for operating a lake: init, doctor, upkeep, layout, ui."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from stock_lakehouse.cli.context import (
    asked_rectangle,
    check_instance,
    check_lake_root,
    check_layout,
    check_partitions,
    engine,
    existing_lake,
    settings_of_process,
    why_unwritable,
)
from stock_lakehouse.cli.interrupt import ctrl_c
from stock_lakehouse.cli.outcome import run_and_print
from stock_lakehouse.cli.printing import aside, fail, print_table, progress_printer, say, say_diagnosis, size
from stock_lakehouse.cli.program import app

if TYPE_CHECKING:
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.settings import Settings
    from stock_lakehouse.upkeep import Upkeep
    from stock_lakehouse.warehouse.load import Warehouse

SERVICES_END_SECONDS = 10.0  # Dagster's services take 3 to 6 s
RUNS_END_SECONDS = 5.0


@app.command()
def upkeep(
    check_only: Annotated[bool, typer.Option("--check-only", help="Look, and change nothing.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="First take damaged files out of their tables and recompute their bars.")
    ] = False,
    sample: Annotated[
        int, typer.Option(min=0, metavar="TICKERS", help="How many tickers are recomputed and compared.")
    ] = 10,
) -> None:
    """Compact small files, remove versions older than `retention_days`, and check each table's files, schema and computation.

    It can run beside everything else: it waits for the lock of a table, and readers never wait. Exits with 1 if it finds
    something; each finding says what to do.
    """
    from stock_lakehouse.lake.storage import StorageError
    from stock_lakehouse.upkeep import keep_up

    if repair and check_only:
        fail("--repair, --check-only: give one of them")
    settings = settings_of_process()
    lake = existing_lake(settings)
    if not check_only:
        check_lake_root(settings)
    try:
        if repair:
            check_instance(settings)
            check_layout(settings)
            _repair(settings)
            if settings.stream.source != "off":
                from stock_lakehouse.cli.stream import repair_bars

                repair_bars(settings)
        with engine(settings) as spark:
            calendar = settings.calendar
            sessions = spark.createDataFrame(calendar.table(settings.grace))
            done = keep_up(
                lake,
                spark,
                sessions,
                check_only=check_only,
                sample=sample,
                progress=progress_printer(),
                stream_hours=None if settings.stream.source == "off" else settings.stream.versions_hours,
                warehouse=_warehouse(settings, lake),
            )
    except StorageError as error:
        fail(str(error))
    _print_upkeep(done)
    if done.findings:
        raise typer.Exit(1)


def _warehouse(settings: Settings, lake: Lake) -> Warehouse | None:
    if settings.warehouse == "off":
        return None
    from stock_lakehouse.warehouse.load import warehouse_of

    return warehouse_of(lake, settings.redshift, settings.aws.glue_database)


def _repair(settings: Settings) -> None:
    """Take damaged files out of their tables, and run the layers after raw for their ticker-years."""
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.tables import RAW, TABLES
    from stock_lakehouse.upkeep import DamageError, end_repairs, pending_repairs, rectangle_to_heal
    from stock_lakehouse.upkeep import repair as take_out

    lake = Lake(settings.lake_options)
    try:
        todo = take_out(lake)
    except DamageError as error:
        fail(str(error))
    if not todo:
        say("Nothing to repair.")
        return
    everything = asked_rectangle(settings, None, None, None)
    rectangle = rectangle_to_heal(todo, everything.sessions, settings.tickers, settings.exchange)
    say("To be recomputed: " + ", ".join(f"{ticker} {year}" for ticker, year in sorted(todo)))
    removed = sorted({ticker for ticker, _ in todo} - set(settings.tickers))
    if removed:
        say(
            f"Not in the settings, so not computed: {', '.join(removed)}; put them back into `tickers` and repair again."
        )
    if rectangle is not None:
        markers = pending_repairs(lake)
        run_and_print(settings, rectangle, [table.name for table in TABLES if table != RAW])
        end_repairs(lake, markers, rectangle)


def _print_upkeep(done: Upkeep) -> None:
    from rich.markup import escape

    from stock_lakehouse.upkeep import facts

    figures = [facts(table) for table in done.tables]
    rows = [
        (table.table, *(size(value) if "bytes" in name else f"{value:,}" for name, value in of_table.items()))
        for table, of_table in zip(done.tables, figures, strict=True)
    ]
    print_table(("table", *(name.replace("bytes", "space") for name in figures[0])), rows)
    if done.recomputed:
        say(f"Recomputed and compared: {', '.join(done.recomputed)}")
    if done.staging_removed:
        say(f"Folders of killed runs removed from .staging: {done.staging_removed}")
    if done.served or done.serving_removed:
        say(f"Serving copy: files written: {done.served}, old files removed: {done.serving_removed}")
    for finding in done.findings:
        say(f"[red]{finding.table}[/]: {escape(finding.what)}")
        say(f"  to do: {escape(finding.todo)}")
    if not done.findings:
        say("Every table agrees with its log, its schema and its computation.")


@app.command()
def layout() -> None:
    """Move the lake's tables to the setting `layout`: files of a ticker and year, or of a year. No value changes.

    It can be stopped or killed at any point and started again. Readers never wait; runs are refused until all tables are moved.
    Earlier versions of Delta tables stay readable for `--as-of`. Until upkeep removes what was replaced, the tables need twice
    their space.
    """
    from stock_lakehouse.lake.layout import move
    from stock_lakehouse.lake.lock import TableBusyError
    from stock_lakehouse.lake.publish import PublishError
    from stock_lakehouse.lake.storage import StorageError

    settings = settings_of_process()
    lake = existing_lake(settings)
    check_lake_root(settings)
    try:
        move(lake, progress_printer())
    except (PublishError, StorageError, TableBusyError) as error:
        fail(str(error))
    say(f'Every table has layout "{settings.layout}".')


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 3000,
) -> None:
    """Open Dagster on 127.0.0.1, on this lake and its instance."""
    from rich.markup import escape

    from stock_lakehouse.instance.home import ensure_dagster_home

    settings = settings_of_process()
    check_partitions(settings)
    check_lake_root(settings)
    check_instance(settings)
    _check_port(port)
    ctrl_c.grace = SERVICES_END_SECONDS + 2 * RUNS_END_SECONDS
    home = ensure_dagster_home(settings)
    say(f"Dagster on http://127.0.0.1:{port} (instance in {escape(str(home))}); stop it with Ctrl-C")
    program = os.path.join(os.path.dirname(sys.executable), "dagster")
    arguments = ["dev", "-w", str(home / "workspace.yaml"), "--host", "127.0.0.1", "--port", str(port)]
    with _stopped_at_the_end([program, *arguments], {**os.environ, "DAGSTER_HOME": str(home)}) as dagster:
        raise typer.Exit(dagster.wait())


def _check_port(port: int) -> None:
    """Exit with a line if another process listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was closed a moment ago is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            fail(
                f"--port: {port} cannot be used ({error.strerror}): perhaps Dagster is open already on "
                f"http://127.0.0.1:{port}; stop it, or use another port: `stock-lakehouse ui --port {port % 65535 + 1}`"
            )


@contextmanager
def _stopped_at_the_end(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its children, in a process group of its own: Ctrl-C and a stop of this program end all of them."""

    def stop(*_: object) -> None:
        raise typer.Exit(128 + signal.SIGTERM)

    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, stop)
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a process group, then what is left of the group: runs in progress, which record their end."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(SERVICES_END_SECONDS)
    with contextlib.suppress(ProcessLookupError):  # none is left
        for name in (signal.SIGTERM, signal.SIGKILL):
            os.killpg(process.pid, name)
            until = time.monotonic() + RUNS_END_SECONDS
            while time.monotonic() < until:
                time.sleep(0.1)
                os.killpg(process.pid, 0)


@app.command()
def init(
    production: Annotated[
        bool, typer.Option("--production", help="Dagster on Postgres, for a server; else on SQLite, for a laptop.")
    ] = False,
    on_aws: Annotated[
        bool, typer.Option("--aws", help="Write a lakehouse.toml for a deployment on AWS, and say what comes next.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing dagster.yaml.")] = False,
) -> None:
    """Write lakehouse.toml if there is none, and the dagster.yaml of a laptop or of production.

    With --aws no dagster.yaml: `stock-lakehouse deploy render` makes that of the deployment.
    """
    from stock_lakehouse.deployment.first_settings import AWS_TOML
    from stock_lakehouse.instance.home import (
        LAKEHOUSE_TOML,
        LAPTOP,
        POSTGRES_VARIABLE,
        PRODUCTION,
        WORKSPACE,
        dagster_folder,
        write_new,
    )
    from stock_lakehouse.settings import config_file

    toml = config_file()
    if not toml.exists() and (reason := why_unwritable(toml.parent)):
        fail(f"{reason}; call this in a folder that you may write")
    if on_aws and production:
        fail("--aws, --production: give one of them; on AWS `stock-lakehouse deploy render` makes the dagster.yaml")
    # A clone has the sample's settings. As long as nobody has changed them, they are nobody's.
    untouched = on_aws and toml.is_file() and toml.read_text(encoding="utf-8") == LAKEHOUSE_TOML
    toml_written = write_new(toml, AWS_TOML if on_aws else LAKEHOUSE_TOML, force=untouched)
    say(f"{'written' if toml_written else 'kept, because it exists'}: {toml}")
    settings = settings_of_process()
    if on_aws:
        _say_next_on_aws(settings)
        return
    check_lake_root(settings)
    path = dagster_folder(settings) / "dagster.yaml"
    if reason := why_unwritable(path.parent):
        fail(f"DAGSTER_HOME: {reason}; set DAGSTER_HOME to a folder that you may write")
    wanted = PRODUCTION if production else LAPTOP
    if path.is_file() and path.read_text(encoding="utf-8") == wanted:
        say(f"kept, because it has this content already: {path}")
    elif write_new(path, wanted, force):
        say(f"written: {path}")
    else:
        fail(f"{path} exists with other content; --force overwrites it")
    write_new(path.with_name("workspace.yaml"), WORKSPACE, force=False)
    if production:
        say(
            f"Dagster needs DAGSTER_HOME={path.parent} and {POSTGRES_VARIABLE} in its environment; docs/deployment.md "
            "has units for systemd. If the lake has data already, `stock-lakehouse record` marks it in the new instance."
        )
    else:
        say("Next: `stock-lakehouse doctor`, then `stock-lakehouse demo`.")


def _say_next_on_aws(settings: Settings) -> None:
    """The commands up to the stack of the lake. Exit with a line if the settings are not those of a lake on S3."""
    from stock_lakehouse.lake_options import EXAMPLE_BUCKET

    if not isinstance(settings.lake_root, str):
        fail(
            f"lake_root: {settings.lake_root} is a folder, and a deployment needs a lake on S3; call this in another folder, or "
            f"set lake_root to {EXAMPLE_BUCKET}bucket/lake until the stack names the bucket"
        )
    say("Next, each safe to repeat; docs/deployment.md has all steps:")
    say("  stock-lakehouse deploy render")
    say("  stock-lakehouse deploy check")
    say("  aws cloudformation deploy --template-file deploy/lakehouse.yaml --stack-name stock-lakehouse \\")
    say("    --capabilities CAPABILITY_IAM")
    if settings.lake_root.startswith(EXAMPLE_BUCKET):
        say("Then fill in the stack's output LakeRoot in lakehouse.toml.")


@app.command()
def doctor() -> None:
    """Check everything that a run needs; each line says how to repair what is broken."""
    from stock_lakehouse.cli.doctor import examine

    if sum(say_diagnosis(found) for found in examine(aside)):
        raise typer.Exit(1)
