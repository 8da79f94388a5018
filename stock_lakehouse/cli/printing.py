"""Printing for all commands: lines, grids of rows, progress, error messages.

Not here: what is printed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

LINE_WIDTH = 80
LONGEST_VALUE = 300


def progress_printer() -> Callable[[str], None]:
    """A function that prints a line on stderr, with the seconds since this call."""
    from rich.markup import escape

    console = error_console()
    started = time.monotonic()

    def progress(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.1f} s[/]  {escape(line)}")

    return progress


def error_console() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def print_rows(rows: list[dict[str, str]]) -> None:
    """Print rows in grids of as many columns as fit the terminal, each grid with the key columns first."""
    terminal_width = output_console().width
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) + 2 for name in rows[0]}
    key: list[str] = [name for name in ("ticker", "date") if name in widths]
    groups = [list(key)]
    for name, width in widths.items():
        if name in key:
            continue
        if sum(widths[column] for column in groups[-1]) + width > terminal_width and len(groups[-1]) > len(key):
            groups.append(list(key))
        groups[-1].append(name)
    for group in groups:
        grid = new_grid(*group)
        for row in rows:
            grid.add_row(*(row[name] for name in group))
        print_grid(grid)


def as_text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100_000 else f"{value:,.5g}"
    from stock_lakehouse.sources import printable

    return printable("; ".join(map(str, value)) if isinstance(value, list) else str(value))


def new_grid(*columns: str) -> RichTable:
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, justify="left" if column in ("table", "ticker") else "right", overflow="fold")
    return grid


def output_console(markup: bool = True) -> Console:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=False, markup=markup, emoji=False)
    # Output to a file or a pipe is not cut to the width of a terminal.
    return console if console.is_terminal else Console(highlight=False, width=200, markup=markup, emoji=False)


def print_grid(grid: RichTable) -> None:
    console = output_console(markup=False)  # markup in delivered text is printed, not interpreted
    console.print(grid)
    console.print()


def say(line: str) -> None:
    output_console().print(line, soft_wrap=True)


def aside(line: str) -> None:
    """Print a line about the progress on stderr."""
    typer.echo(line, err=True)


def fail(message: str) -> NoReturn:
    """Print one line on stderr and exit with code 2."""
    typer.echo(f"stock-lakehouse: {message}", err=True)
    raise typer.Exit(2)


def wrapped(text: str, indent: str = "") -> list[str]:
    import textwrap

    from stock_lakehouse.sources import printable

    first = f"    {indent}"
    return textwrap.wrap(
        printable(text), LINE_WIDTH, initial_indent=first, subsequent_indent=f"{first}  ", break_on_hyphens=False
    )


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def cut(value: Any) -> str:
    text = as_text(value)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"
