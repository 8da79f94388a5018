"""A folder of price files through the whole pipeline, as its owner would run it, and what came out as plain values.

Belongs here: the run, reading its tables and findings, and comparing them with right values. Not here: the right values.
"""

from __future__ import annotations

import csv
import math
import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from stock_lakehouse.cli.context import asked_rectangle
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.runs.run import RunReport, run_rectangle
from stock_lakehouse.settings import Settings, load_settings
from stock_lakehouse.tables import TABLES

CASES = Path(__file__).parent / "cases"
PRICES = ("open", "high", "low", "close")
Row = dict[str, Any]
# What a curated bar must be: its open, high, low, close and volume. None is "not known".
Bars = Mapping[str, tuple[float | None, ...]]


def red(report: RunReport) -> dict[str, list[Row]]:
    """The checks of a run that did not pass, by name, each with the first rows of its finding; values as text.

    The only place that knows the form of `RunReport.red`.
    """
    found: dict[str, list[Row]] = {}
    for check in report.red:
        rows = [{name: str(value) for name, value in row.items()} for row in check.rows]
        found.setdefault(check.check, []).extend(rows)
    return found


@dataclass(frozen=True)
class Outcome:
    """A run, and what the lake says after it."""

    settings: Settings
    report: RunReport

    @cached_property
    def red(self) -> dict[str, list[Row]]:
        return red(self.report)

    @cached_property
    def curated(self) -> list[Row]:
        return self._rows("curated_stocks_daily")

    @cached_property
    def features(self) -> list[Row]:
        return self._rows("stocks_features")

    @cached_property
    def corporate_actions(self) -> list[Row]:
        return self._rows("corporate_actions")

    @cached_property
    def quarantine(self) -> list[Row]:
        return self._rows("processed_quarantine")

    def read(self) -> Outcome:
        """Itself, with every table read: a later run does not change what this one gave."""
        assert all(rows is not None for rows in (self.curated, self.features, self.corporate_actions, self.quarantine))
        return self

    def _rows(self, table: str) -> list[Row]:
        return read_table(table, lake_root=self.settings.lake_root).to_pylist()

    def bars(self, ticker: str) -> dict[str, Row]:
        """The curated bars of `ticker` by session."""
        return {str(row["date"]): row for row in self.curated if row["ticker"] == ticker}

    def closes(self, ticker: str, column: str = "close") -> dict[str, float]:
        return {session: row[column] for session, row in self.bars(ticker).items()}

    def actions(self, ticker: str) -> list[tuple[str, str, float]]:
        """ex_date, kind and value of each action of `ticker`."""
        rows = [row for row in self.corporate_actions if row["ticker"] == ticker]
        return [(str(row["ex_date"]), row["kind"], row["value"]) for row in rows]


@dataclass(frozen=True)
class House:
    """A folder with lakehouse.toml and price files. Houses may share a Dagster instance: making one takes a while."""

    folder: Path
    instance: Path

    def run(self, first: str | None = None, last: str | None = None, **overrides: Any) -> Outcome:
        """`stock-lakehouse materialize --from first --to last` of the lake's tables and their checks in this process, with its
        settings and `overrides`."""
        with pytest.MonkeyPatch.context() as surroundings:
            for name in [name for name in os.environ if name.startswith(("STOCK_LAKEHOUSE_", "DAGSTER_"))]:
                surroundings.delenv(name)
            surroundings.setenv("DAGSTER_HOME", str(self.instance))
            surroundings.chdir(self.folder)
            settings = load_settings(**overrides)
            days = [None if day is None else datetime.fromisoformat(day) for day in (first, last)]
            report = run_rectangle(settings, asked_rectangle(settings, None, *days), [table.name for table in TABLES])
        assert report.success, report.failures
        return Outcome(settings, report).read()

    def put(self, **files: str) -> None:
        """Write price files: name (without .csv) and text."""
        for name, text in files.items():
            self.put_file(f"{name}.csv", text)

    def put_file(self, name: str, content: str | bytes) -> None:
        path = self.folder / "prices" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def house_of(case: str, folder: Path, instance: Path) -> House:
    """A copy of the case's folder."""
    shutil.copytree(CASES / case, folder, dirs_exist_ok=True)
    return House(folder, instance)


def new_house(folder: Path, instance: Path, tickers: Iterable[str], **settings: str) -> House:
    """A house without files: the cases' half year unless `settings` say otherwise; dates and text as TOML."""
    written = {
        "tickers": str(list(tickers)),
        "first_date": "2024-01-02",
        "last_date": "2024-06-28",
        "source": '"csv"',
        "csv_folder": '"prices"',
        **settings,
    }
    folder.mkdir(parents=True, exist_ok=True)
    toml = "".join(f"{name} = {value}\n" for name, value in written.items())
    (folder / "lakehouse.toml").write_text(toml, encoding="utf-8")
    return House(folder, instance)


def bars_in(path: Path, session: str = "Date") -> dict[str, tuple[float, ...]]:
    """The bars of a plain file Date,Open,High,Low,Close,Volume."""
    with path.open(encoding="utf-8", newline="") as file:
        return {
            row[session]: tuple(float(row[name.title()]) for name in (*PRICES, "volume"))
            for row in csv.DictReader(file)
        }


@dataclass(frozen=True)
class Right:
    """What must hold of one ticker. Numbers as text are right to the decimals they have.

    `bars`: how many. `rows`: every curated bar, prices and volume. `values`: (session, column) of curated bars. `features`: the
    same of features. `actions`: every corporate action, by date. `green`: checks that do not name the ticker.
    """

    ticker: str = "AAPL"
    bars: int | None = None
    rows: Bars | None = None
    values: Mapping[tuple[str, str], str] = field(default_factory=dict)
    features: Mapping[tuple[str, str], str] = field(default_factory=dict)
    actions: Sequence[tuple[str, str, str]] | None = None
    green: Collection[str] = ()

    def of(self, ticker: str) -> Right:
        return replace(self, ticker=ticker)

    def misses(self, outcome: Outcome) -> list[str]:
        """Everything that is not right, a sentence each."""
        bars = outcome.bars(self.ticker)
        found = [] if self.bars in (None, len(bars)) else [f"{len(bars)} bars, not {self.bars}"]
        if self.rows is not None:
            found += wrong_bars(bars, self.rows)
            found += [f"no bar of {session}" for session in sorted(set(self.rows) - set(bars))[:5]]
        features = {str(row["date"]): row for row in outcome.features if row["ticker"] == self.ticker}
        for rows, values in ((bars, self.values), (features, self.features)):
            for (session, column), right in values.items():
                value = rows.get(session, {}).get(column)
                if not is_right(value, right):
                    found.append(f"{column} of {session} is {value}, not {right}")
        if self.actions is not None:
            actions = outcome.actions(self.ticker)
            pairs = zip(actions, sorted(self.actions), strict=False)
            same = all(a[:2] == b[:2] and is_right(a[2], b[2]) for a, b in pairs)
            if len(actions) != len(self.actions) or not same:
                found.append(f"actions are {actions}, not {self.actions}")
        for check in self.green:
            rows = outcome.red.get(check)
            if rows is not None and (not rows or any(row.get("ticker") == self.ticker for row in rows)):
                found.append(f"{check} is red: {rows}")
        return found


def wrong_bars(bars: Mapping[str, Row], right: Bars) -> list[str]:
    """The first bars of `bars` that are not those of `right`."""
    found = []
    for session, bar in bars.items():
        values = right.get(session)
        if values is None:
            found.append(f"a bar of {session}, where there is none")
            continue
        for name, value in zip((*PRICES, "volume"), values, strict=True):
            if not is_close(bar[name], value):
                found.append(f"{name} of {session} is {bar[name]}, not {value}")
    return found[:5]


def is_close(value: float | None, right: float | None) -> bool:
    if value is None or right is None:
        return value is right
    return math.isclose(value, right, rel_tol=1e-9, abs_tol=1e-9)


def is_right(value: Any, right: str) -> bool:
    """Whether the number, or day, is that of the text, to the decimals that the text has."""
    if not isinstance(value, int | float):
        return str(value) == right
    decimals = len(right.partition(".")[2])
    return abs(value - float(right)) <= 0.5 * 10**-decimals * (1 + 1e-9) + 1e-12


@dataclass(frozen=True)
class Told:
    """A finding that must name what it is about.

    One of `checks` is red with a row of the ticker or file, with one of `sessions` and one of `words` (any case) in it if these
    are given; or, where `says` has words, a row of the ticker or file is in quarantine with a reason that has one of them:
    what to change.
    """

    checks: Collection[str]
    ticker: str | None = "AAPL"
    file: str | None = None
    sessions: Collection[str] = ()
    words: Collection[str] = ()
    says: Collection[str] = ()

    def of(self, ticker: str, file: str) -> Told:
        return replace(self, ticker=self.ticker and ticker, file=file)

    def is_in(self, outcome: Outcome) -> bool:
        return any(
            self._names(row) and has_one(str(row), self.sessions) and has_one(str(row), self.words)
            for check in self.checks
            for row in outcome.red.get(check, [])
        ) or any(
            self._names(row) and any(has_one(reason, self.says) for reason in row["reasons"])
            for row in outcome.quarantine
            if self.says
        )

    def _names(self, row: Row) -> bool:
        """Whether the row is of the file, or of the ticker."""
        text = str([value for name, value in row.items() if name not in ("line", "symbol")])
        return (self.file is not None and self.file in text) or (
            self.ticker is not None and self.ticker == row.get("ticker")
        )


def has_one(text: str, words: Collection[str]) -> bool:
    """Whether one of `words` is in `text`, in any case; True if there are none."""
    return not words or any(word.lower() in text.lower() for word in words)


def assert_right(outcome: Outcome, right: Sequence[Right], told: Told | None = None, *, both: bool = False) -> None:
    """Everything is right, or `told` is; never silence. With `both` everything is right and told."""
    misses = [f"{one.ticker}: {miss}" for one in right for miss in one.misses(outcome)]
    is_told = told is not None and told.is_in(outcome)
    silent = f"not told, as {told}; red: {outcome.red}; quarantine: {outcome.quarantine[:2]}"
    if both:
        assert not misses, misses
        assert is_told, silent
    elif right and told is None:
        assert not misses, (misses, outcome.red, outcome.quarantine[:2])
    elif not right or misses:
        assert is_told, (misses, silent)
