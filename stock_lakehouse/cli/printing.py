"""Printing for all commands: lines, grids of rows, progress, error messages.

Not here: what is printed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from stock_lakehouse.diagnosis import Diagnosis

NAME = "stock-lakehouse"
LINE_WIDTH = 80
PIPE_WIDTH = 200  # of grids in a file or a pipe, which are not cut to the width of a terminal
CELL_WIDTH = 32  # a longer cell, like a list of dates, continues on further lines
LONGEST_VALUE = 300
LEFT = ("table", "ticker")  # columns of names; the others are aligned to the right
COMMAND = re.compile(rf"(?<=`){NAME}(?= )")


def progress_printer() -> Callable[[str], None]:
    """A function that prints a line on stderr, with the seconds since this call."""
    from rich.markup import escape

    console = error_console()
    started = time.monotonic()

    def progress(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.1f} s[/]  {escape(as_typed(line))}")

    return progress


def say_diagnosis(found: Diagnosis) -> bool:
    """Print a line of `doctor` or `deploy check`; return whether it is broken."""
    from rich.markup import escape

    color = {"ok": "green", "note": "yellow", "broken": "red"}[found.state]
    say(f"[{color}]{found.state:<8}[/]{found.what}: {escape(found.detail)}")
    return found.state == "broken"


def error_console() -> Console:
    return _console(stderr=True)


def output_console(markup: bool = True) -> Console:
    return _console(markup=markup)


def _console(stderr: bool = False, markup: bool = True) -> Console:
    """A console that breaks lines between words at the terminal's width. In a file or a pipe each line stays whole."""
    from rich.console import Console

    console = Console(stderr=stderr, markup=markup, highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width, console.soft_wrap = PIPE_WIDTH, True
    return console


def as_typed(text: str) -> str:
    """`text` with the program's name in its commands as this user types it."""
    return COMMAND.sub(lambda _: program(), text)


def program() -> str:
    """The program as it was called, like `.venv/bin/stock-lakehouse`; its name alone if the shell finds it by that."""
    called = Path(sys.argv[0])
    found = shutil.which(NAME)
    if called.name != NAME or (found and called.exists() and called.samefile(found)):
        return NAME
    return shlex.quote(str(called))


def print_rows(rows: list[dict[str, str]]) -> None:
    """Print rows with the same columns as `print_table` does, ticker and date first."""
    key = [name for name in ("ticker", "date") if name in rows[0]]
    names = [*key, *(name for name in rows[0] if name not in key)]
    print_table(names, [[row[name] for name in names] for row in rows], len(key))


def print_table(names: Sequence[str], rows: Sequence[Sequence[str]], key: int = 1) -> None:
    """Print rows in grids of as many columns as fit the terminal, each grid with the first `key` columns.

    So no value is folded, unless it is wider than the terminal.
    """
    from rich.cells import cell_len
    from rich.table import Table

    console = output_console(markup=False)  # markup in delivered text is printed, not interpreted
    cells = [[name, *(row[place] for row in rows)] for place, name in enumerate(names)]
    widths = [max(map(_least_width, column)) for column in cells]
    groups = [list(range(key))]
    for place in range(key, len(names)):
        if len(groups[-1]) > key and sum(widths[shown] + 2 for shown in (*groups[-1], place)) - 2 > console.width:
            groups.append(list(range(key)))
        groups[-1].append(place)
    for group in groups:
        grid = Table(box=None, pad_edge=False, header_style="bold")
        for place in group:
            grid.add_column(
                names[place],
                justify="left" if names[place] in LEFT else "right",
                overflow="fold",
                no_wrap=widths[place] <= CELL_WIDTH and all(cell_len(text) <= CELL_WIDTH for text in cells[place]),
            )
        for row in rows:
            grid.add_row(*(row[place] for place in group))
        console.print(grid, soft_wrap=False)
        console.print()


def _least_width(text: str) -> int:
    from rich.cells import cell_len

    return max(min(cell_len(text), CELL_WIDTH), *map(cell_len, text.split()), 0)


def as_text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100_000 else f"{value:,.5g}"
    from stock_lakehouse.sources import printable

    return printable("; ".join(map(str, value)) if isinstance(value, list) else str(value))


def size(count: int) -> str:
    """A number of bytes, like 3.1 MB."""
    from rich.filesize import decimal

    return decimal(count)


def say(line: str) -> None:
    output_console().print(as_typed(line))


def print_data(text: str) -> None:
    """Print text for programs as it is. On a terminal, control characters in it are shown as their codes."""
    from stock_lakehouse.sources import printable

    lines = text.rstrip("\n").split("\n")
    typer.echo("\n".join(map(printable, lines) if sys.stdout.isatty() else lines))


def aside(line: str) -> None:
    """Print a line about the progress on stderr."""
    error_console().print(as_typed(line), markup=False)


def fail(message: str) -> NoReturn:
    """Print one line on stderr and exit with code 2."""
    aside(f"{NAME}: {message}")
    raise typer.Exit(2)


def wrapped(text: str, indent: str = "") -> list[str]:
    import textwrap

    from stock_lakehouse.sources import printable

    first = f"    {indent}"
    return textwrap.wrap(
        printable(as_typed(text)),
        LINE_WIDTH,
        initial_indent=first,
        subsequent_indent=f"{first}  ",
        break_on_hyphens=False,
    )


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def cut(value: Any) -> str:
    text = as_text(value)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"
