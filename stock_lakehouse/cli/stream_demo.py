"""`stream demo`: a trading day of the sample as live messages, from the messages to the comparison with the official bar.

Here: the script of the demonstration, which types the program's own commands, and its lake and broker. Not here: what a command
does (stream.py, run.py).
"""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from stock_lakehouse.cli.context import check_lake_root, settings_of_process
from stock_lakehouse.cli.printing import NAME, aside, program, say
from stock_lakehouse.cli.program import app
from stock_lakehouse.cli.stream import stream_app

FOLDER = ".stream_demo"  # below the lake's root, recreated each time
TOPIC, PARTITIONS = "stock_ticks", 2
FIRST = "2022-11-01"  # at least 200 sessions before the day: every indicator has values
EVE, DAY = "2023-09-20", "2023-09-21"  # the last two sessions of the sample
LAYERS = "raw_stocks_daily,processed_stocks_daily,curated_stocks_daily,stocks_features"
CONFIG = f"""\
# The lake of `stock-lakehouse stream demo`; recreated each time.
tickers = ["NVDA", "AAPL"]
first_date = {FIRST}
last_date = {{last}}
lake_root = "lake"
automation = "sensor"

[stream]
"""
FILES = 'source = "files"\nfolder = "ticks"\n'
KAFKA = f'source = "kafka"\nname = "{TOPIC}"\nservers = "{{servers}}"\n'


@stream_app.command("demo")
def stream_demo(
    source: Annotated[
        Literal["auto", "files", "kafka"],
        typer.Option(
            help="Where the messages go; auto: a Kafka broker of its own if this machine can run one, else files."
        ),
    ] = "auto",
) -> None:
    """Show the stream on a day of the sample: messages with faults, minute bars, live indicators, the official bar.

    It takes less than a minute, in a lake of its own. A broker that it starts is reached from this machine alone, and is stopped
    at the end.
    """
    from stock_lakehouse.cli.live_demo import LiveDemoError, emptied, live_folder, own_environment

    settings = settings_of_process()
    check_lake_root(settings)
    try:
        folder = emptied(live_folder(settings, FOLDER))
    except LiveDemoError as error:
        aside(f"{NAME}: {error}")
        raise typer.Exit(1) from None
    with _stream(source, folder) as stream:
        config = CONFIG + stream
        with own_environment(folder, config.format(last=EVE), {}):
            _play(folder / "lakehouse.toml", config.format(last=DAY))
    _say_what_next(folder / "lakehouse.toml", "kafka" in stream)


@contextmanager
def _stream(source: str, folder: Path) -> Iterator[str]:
    """The lines of the table [stream]; a broker lives as long as the `with` block. Exits with 1 if `source` cannot run here."""
    from stock_lakehouse.streams.local_kafka import Broker, BrokerError, NotRunError, local_kafka

    with ExitStack() as running:
        stream, reason = FILES, "--source files"
        if source != "files":
            try:
                if importlib.util.find_spec("confluent_kafka") is None:
                    raise NotRunError("its client is not installed: pip install 'stock-lakehouse[stream]'")
                aside("A Kafka broker starts on 127.0.0.1. The first time, Maven fetches it (43 MB).")
                broker = running.enter_context(local_kafka(folder / "kafka", Broker))
                broker.topic(TOPIC, PARTITIONS)
                stream, reason = KAFKA.format(servers=broker.servers), ""
                say(f"Source: a Kafka broker on {broker.servers}, topic {TOPIC}, {PARTITIONS} partitions.")
            except (NotRunError, BrokerError) as error:
                reason = str(error)
                if source == "kafka":
                    aside(f"{NAME}: Kafka cannot run here: {reason}. `{NAME} stream demo` takes files instead")
                    raise typer.Exit(1) from None
        if reason:
            why = "" if source == "files" else f" No Kafka: {reason}."
            say(f"Source: files that grow, in {folder / 'ticks'}.{why}")
        yield stream


def _play(file: Path, config_with_day: str) -> None:
    """Type the commands. `config_with_day`: the settings once the official bar of the day is there."""
    say(f"\n[bold]Before the day[/]: the daily history until {EVE}, through every layer.")
    _type("materialize", "--select", LAYERS)
    say(f"\n[bold]The day[/], {DAY}: a message for each price, some of them late, sent twice or broken.")
    _type("stream", "produce", "--every", "5", "--late", ".01", "--duplicate", ".01", "--poison", ".002")
    say("\n[bold]What came becomes minute bars[/], each message once.")
    _type("stream", "drain")
    _type("stream", "bars", "NVDA", "--last", "5")
    say("[bold]Messages that could not be used[/] are kept, with the reason.")
    _type("stream", "dead", "--last", "3")
    say("\n[bold]How far it is, and where the indicators stand[/], by the daily history and the running day.")
    _type("stream", "status")
    say("\n[bold]In the evening[/] the official bar of the day is delivered, and the minutes are compared with it.")
    file.write_text(config_with_day, encoding="utf-8")
    _type("materialize", "--from", DAY, "--select", LAYERS)
    _type("stream", "reconcile")


def _type(*arguments: str) -> None:
    """Run a command of this program as if it was typed. Exits with its exit code if it fails."""
    say(f"[bold green]$[/] [bold]{NAME} {shlex.join(arguments)}[/]")
    code = typer.main.get_command(app).main(list(arguments), prog_name=NAME, standalone_mode=False)
    if code:
        raise typer.Exit(code)


def _say_what_next(file: Path, is_kafka: bool) -> None:
    question = "SELECT window_start, avg_close, last_close FROM avg_1min WHERE ticker = 'NVDA' ORDER BY 1 DESC LIMIT 5"
    say("Everything is stopped; the lake stays until the next demonstration. Next:")
    commands = [
        (f"export STOCK_LAKEHOUSE_CONFIG={shlex.quote(str(file))}", "the program then reads this lake"),
        (f'{program()} query "{question}"', "minutes in SQL"),
        (f"{program()} ui", "assets, checks and sensors of the stream in Dagster, on http://127.0.0.1:3000"),
    ]
    if not is_kafka:
        commands += [
            (f"{program()} stream run", "follows the files until Ctrl-C; in another terminal, with the same variable:"),
            (f"{program()} stream produce --from {EVE} --to {EVE} --rate 50", "another day, 50 messages a second"),
        ]
    commands.append(("unset STOCK_LAKEHOUSE_CONFIG", "back to your own lake; docs/streaming.md: your own feed"))
    for command, shows in commands:
        say(f"  [bold]{command}[/]")
        say(f"      {shows}")
