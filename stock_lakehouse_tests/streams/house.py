"""A stream of files and its tables in a temporary folder, and their comparison with the truth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
from pyspark.sql import SparkSession

from stock_lakehouse.lake.storage import LakeRoot
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.settings import Stream
from stock_lakehouse.streams import StreamSource, replay
from stock_lakehouse.streams.refill import Refilled, refill
from stock_lakehouse.streams.runner import Counts, Runner, only_runner, runner
from stock_lakehouse.streams.sources import source_of
from stock_lakehouse_tests.streams import truth

SESSION = date(2023, 9, 21)
NOON = datetime(2023, 9, 21, 16, 0, tzinfo=UTC)
NEVER = 10**7  # seconds until a partition is idle, for tests in which none is


def event(seconds: float, ticker: str = "NVDA", close: Any = "410.5", **more: Any) -> bytes:
    """A message of an event so many seconds after noon."""
    return json.dumps(
        {"ticker": ticker, "timestamp": (NOON + timedelta(seconds=seconds)).isoformat(), "close": close, **more}
    ).encode()


@dataclass
class StreamHouse:
    """A folder of messages, a lake, the settings, and a clock that the test moves."""

    tmp: Path
    spark: SparkSession
    root: LakeRoot
    settings: Stream
    now: datetime = NOON + timedelta(days=1)
    rules: truth.Rules = field(default_factory=truth.Rules)

    @classmethod
    def made(cls, tmp: Path, spark: SparkSession, root: LakeRoot | None = None, **settings: Any) -> StreamHouse:
        """A stream with `settings`, in which no partition is ever idle unless they say so."""
        given = {"source": "files", "folder": tmp / "ticks", "idle_seconds": NEVER, **settings}
        (tmp / "ticks").mkdir(parents=True, exist_ok=True)
        return cls(tmp, spark, root or tmp / "lake", Stream(**given))

    @property
    def folder(self) -> Path:
        return self.tmp / "ticks"

    @property
    def options(self) -> LakeOptions:
        return LakeOptions(lake_root=self.root)

    def clock(self) -> datetime:
        return self.now

    def source(self) -> StreamSource:
        return source_of(self.settings, self.clock)

    def messages(self) -> dict[tuple[str, str], bytes]:
        """What the stream has, by partition and offset, read apart from the product's code."""
        return truth.messages_of(self.folder)

    def parents(self) -> dict[str, list[str]]:
        """The partitions that others go on, which have ended."""
        return {}

    def write(self, *messages: bytes, file: str = "a.jsonl") -> None:
        """Append `messages` to a file."""
        with (self.folder / file).open("ab") as stream:
            stream.write(b"".join(message + b"\n" for message in messages))

    def begin(self, *files: str) -> None:
        """Write an event from before the session's open to each of `files`.

        A file that appears later is late as soon as its minutes are final, which the truth does not know.
        """
        for file in files:
            self.write(event(-3 * 3600, event_id=f"first of {file}"), file=file)

    def walk(
        self,
        tickers: Sequence[str] = ("NVDA",),
        every_seconds: float = 30,
        faults: replay.Faults | None = None,
        file: str = "a.jsonl",
        session: date = SESSION,
    ) -> int:
        """Write the walks of a session; return the number of messages."""
        bars = replay.sample_bars(tickers, session, session)
        messages = list(replay.walk_messages(bars, market_calendar(session), every_seconds, faults or replay.Faults()))
        self.write(*messages, file=file)
        return len(messages)

    @contextmanager
    def running(self, accept_loss: str | None = None, take_over: bool = False) -> Iterator[Runner]:
        """The started runner."""
        with runner(
            self.options, self.settings, self.source(), self.spark, self.clock, accept_loss, take_over
        ) as started:
            yield started

    def runner_without_lock(self) -> Runner:
        """A started runner that does not ask whether another one holds the lock."""
        started = Runner(self.options, self.settings, self.source(), self.spark, self.clock)
        started.start(None, False)
        return started

    def drain(self, accept_loss: str | None = None) -> Counts:
        with self.running(accept_loss) as started:
            started.drain(5)
            return started.counts

    def refill(self, minutes: float = 5) -> Refilled:
        with only_runner(self.options, self.settings, self.source(), self.spark, self.clock) as found:
            return refill(found, minutes, lambda _: None)

    def restore_ticks(self, rows: int) -> None:
        """Restore raw_ticks to its newest version with `rows` rows."""
        table = self.delta("raw_ticks")
        for version in range(table.version(), -1, -1):
            if deltalake.DeltaTable(table.table_uri, version=version).to_pyarrow_dataset().count_rows() == rows:
                table.restore(version)
                return
        raise AssertionError(f"no version has {rows} rows")

    def tick_files(self) -> list[Path]:
        """The files of raw_ticks that are there, the oldest first."""
        paths = (Path(uri.removeprefix("file://")) for uri in self.delta("raw_ticks").file_uris())
        return sorted((path for path in paths if path.exists()), key=lambda path: path.stat().st_mtime_ns)

    def delta(self, name: str) -> deltalake.DeltaTable:
        return deltalake.DeltaTable(f"{self.root}/stream/{name}")

    def table(self, name: str) -> pa.Table:
        return self.delta(name).to_pyarrow_table()

    def ticks(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.table("raw_ticks").to_pylist()
        return sorted(rows, key=lambda row: (row["partition"], row["offset"]))

    def bars(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.table("minute_bars").to_pylist()
        return sorted(rows, key=lambda row: (row["ticker"], row["minute"]))

    def check(self) -> None:
        """Every message is in raw_ticks once, and every cell of ticks and bars is what the truth says."""
        self.check_bars(*self.check_ticks())

    def check_ticks(
        self,
    ) -> tuple[dict[tuple[str, str], dict[str, Any]], dict[tuple[str, str], datetime]]:
        """Every message is in raw_ticks once, and every cell is what the truth says; the ticks and their arrivals."""
        ticks = self.ticks()
        places = [(tick["partition"], tick["offset"]) for tick in ticks]
        assert sorted(places) == sorted(self.messages())  # none lost, none doubled
        arrivals = {(tick["partition"], tick["offset"]): tick["arrival_time"] for tick in ticks}
        expected = truth.ticks_of(self.messages(), arrivals, self.rules, self.parents())
        for tick in ticks:
            wanted = expected[tick["partition"], tick["offset"]]
            assert {name: tick[name] for name in wanted} == wanted
        return expected, arrivals

    def check_bars(
        self,
        ticks: dict[tuple[str, str], dict[str, Any]],
        arrivals: dict[tuple[str, str], datetime],
    ) -> None:
        """Every cell of the bars is what follows from `ticks`, at the watermark that follows from them."""
        newest: dict[str, datetime] = {}
        for (partition, _), tick in ticks.items():
            if tick["event_time"] is not None:
                newest[partition] = max(tick["event_time"], newest.get(partition, tick["event_time"]))
        parents = self.parents()
        ended = {parent for of_one in parents.values() for parent in of_one}
        highs = [truth.newest_of(partition, newest, parents) for partition in {*newest, *parents} - ended]
        watermark = min(high for high in highs if high is not None) - timedelta(seconds=self.rules.late_seconds)
        bars = {(bar["ticker"], bar["minute"]): bar for bar in self.bars()}
        expected = truth.bars_of(ticks, arrivals, watermark)
        assert bars.keys() == expected.keys()
        for key, wanted in expected.items():
            assert {name: bars[key][name] for name in wanted} == wanted, key
