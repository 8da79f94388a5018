"""Fuzzed CSV files through the whole pipeline: no row is lost, nothing outside the lake is touched, memory is bounded."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.layers.raw import land
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.sources import Delivery, Landing, Source
from stock_lakehouse.sources.csv_folder import CsvFolderSource
from stock_lakehouse.sources.download import Download
from stock_lakehouse.tables import CURATED, FEATURES, PROCESSED, UNREADABLE
from stock_lakehouse_tests.faults import Faults
from stock_lakehouse_tests.graph import (
    TICKERS,
    clocked,
    layers,
    raw_contents,
    rectangle,
    run,
    year_boundary,
)
from stock_lakehouse_tests.sources.fuzzed import write_files

DAYS = year_boundary(25, 20)
ASKED = rectangle(DAYS, TICKERS)
FOLDERS = {"raw", "processed", "curated", ".locks", ".staging"}
VALUES = (
    *(
        "symbol",
        "date",
        "open",
        "high",
        "low",
        "close",
        "adj_close",
        "volume",
        "dividends",
        "stock_splits",
        "capital_gains",
    ),
    "line",
)
Row = tuple[Any, ...]
RUN = "11111111-run"


@dataclass
class Tapped:
    """A CSV folder as a source, and the rows that it delivered, each with its day, and how many of each file."""

    folder: CsvFolderSource
    counts: Counter[str] = field(default_factory=Counter)
    rows: set[tuple[Row, date | None]] = field(default_factory=set)
    name: str = "csv"
    interval: str = "1d"

    def deliver(self, tickers: Sequence[str], first: date, last: date) -> Iterator[Delivery]:
        for path in self.folder.files():
            for delivery in self.folder.read(path, tickers):
                self.counts[path.name] += delivery.rows.num_rows
                self.rows |= {(content(row), day_of(row)) for row in delivery.rows.to_pylist()}
                yield delivery


def content(row: dict[str, Any]) -> Row:
    """What makes a row itself, wherever it lies; no NUL is written (`raw_csv._readable`)."""
    return (
        row["ticker"] or UNREADABLE,
        *((row[name] or "").replace("\0", "\ufffd") or None for name in VALUES),
    )


def day_of(row: dict[str, Any]) -> date | None:
    """The day that a delivered row is of, as its source read it; where that could not, the one that its date begins with."""
    text = row["session"] or ("" if row["problem"] else row["date"] or "")
    found = re.fullmatch(r"\s*([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ].*)?\s*", text, re.DOTALL)
    try:
        return date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None


def is_inside(row: Row, day: date | None, asked: Rectangle) -> bool:
    """Whether a delivered row is of the tickers and days asked, or cannot be read well enough to say."""
    return row[0] in (*asked.tickers, UNREADABLE) and (day is None or asked.first <= day <= asked.last)


def one_batch(house: LakehouseResource, source: Source, asked: Rectangle = ASKED) -> Landing:
    """The files of a folder through the whole pipeline, in one run."""
    download = Download(source, asked.tickers, asked.first, asked.last)
    land(download, house.lake.raw, asked, run_id=RUN, now=house.now(), final_at=house.final_at, say=lambda line: None)
    run(house, asked, run_id=RUN, steps=(PROCESSED.name, CURATED.name, FEATURES.name))
    return download.landing


def listing(place: Path, but: Path) -> dict[str, tuple[int, int, str]]:
    """Everything below `place` but `but`: inode, time of change, and contents or where a link leads."""
    found = {}
    for top, folders, files in os.walk(place):
        folders[:] = [name for name in folders if Path(top, name) != but]
        for path in (Path(top, name) for name in (*folders, *files)):
            stat = path.lstat()
            what = (
                os.readlink(path)
                if path.is_symlink()
                else hashlib.sha256(path.read_bytes()).hexdigest()
                if path.is_file()
                else ""
            )
            found[str(path)] = (stat.st_ino, stat.st_mtime_ns, what)
    return found


def lost_rows(house: LakehouseResource, delivered: set[tuple[Row, date | None]], landed: int) -> int:
    """Rows that a layer should hold and does not: delivered ones in raw; landed ones in processed, quarantine, or superseded.

    As the files hold them, without the engine.
    """
    raw = raw_contents(house.lake)
    held = layers(house)
    there = {content(row) for row in raw}
    never_landed = {row for row, day in delivered if is_inside(row, day, ASKED)} - there
    assert landed == len(raw)
    quarantine = Counter((content(row), row["ingested_at"]) for row in held["quarantine"])
    rest = Counter((content(row), row["ingested_at"]) for row in raw)
    invented = quarantine - rest
    assert not invented, f"in quarantine and never landed: {list(invented)[:3]}"
    rest -= quarantine
    newest: dict[tuple[str, str], str] = {}
    sessions = {(content(row), row["ingested_at"]): row["session"] for row in raw}
    for row, stamp in rest:
        key = row[0], sessions[row, stamp]
        newest[key] = max(newest.get(key, ""), stamp)
    processed = {(row["ticker"], str(row["date"])): row["ingested_at"] for row in held["processed"]}
    assert len(processed) == len(held["processed"])
    stamps = {key: f"{stamp:%Y-%m-%dT%H:%M:%S.%f}Z" for key, stamp in processed.items()}
    wrong = {key for key in newest.keys() | stamps.keys() if newest.get(key) != stamps.get(key)}
    for layer in ("curated", "features"):
        published = {(row["ticker"], str(row["date"])) for row in held[layer]}
        wrong |= published ^ stamps.keys()
    return len(never_landed) + len(wrong)


def push(tmp_path: Path, spark: SparkSession, seed: int, batches: int, files: int) -> tuple[int, int, int]:
    """Files tried, rows delivered and rows lost of `batches` folders through one lake."""
    work = tmp_path / "work"
    outside = work / "outside"
    (outside / "below").mkdir(parents=True)
    (outside / "secret.csv").write_text("Date,Open,High,Low,Close,Volume\n2019-12-30,1,2,1,2,100\n")
    house = clocked(work / "lake", spark)
    delivered: set[tuple[Row, date | None]] = set()
    total = Landing()
    for batch in range(batches):
        folder = work / "prices"
        fuzzed = write_files(folder, files, seed * 1_000_003 + batch, TICKERS, DAYS, outside)
        before = listing(work, house.lake.root)
        where = f"seed {seed}, batch {batch}"
        source = Tapped(CsvFolderSource(folder))
        landing = one_batch(house, source)
        assert listing(work, house.lake.root) == before, f"{where}: something outside the lake was touched"
        wrong = {name: (n, source.counts[name]) for name, n in fuzzed.rows.items() if source.counts[name] != n}
        assert not wrong, f"{where}: rows expected and delivered by file {wrong}"
        assert landing.delivered == sum(source.counts.values()), where
        assert landing.delivered == landing.landed + landing.repeated + landing.outside, where
        delivered |= source.rows
        total += landing
        shutil.rmtree(folder)
    assert house.lake.raw.strangers() == []
    assert {path.name for path in Path(house.lake.root).iterdir()} <= FOLDERS
    tickers = {path.name.removeprefix("ticker=") for path in Path(house.lake.root).glob("*/stocks_daily/ticker=*")}
    assert tickers <= {*TICKERS, UNREADABLE}
    return files * batches, total.delivered, lost_rows(house, delivered, total.landed)


@pytest.mark.slow
def test_fuzzed_files_lose_no_row_and_touch_nothing_outside_the_lake(
    tmp_path: Path, spark: SparkSession, faults: Faults
) -> None:
    tried, delivered, lost = push(tmp_path, spark, seed=1, batches=2, files=60)
    assert delivered > tried
    faults.tried("fuzzed CSV file", tried, lost)


CHILD = """
import json, resource, sys
from pathlib import Path
from stock_lakehouse.resources.spark import SparkResource
from stock_lakehouse.sources.csv_folder import CsvFolderSource
from stock_lakehouse_tests.graph import TICKERS, clocked
from stock_lakehouse_tests.sources.test_fuzzed_files import one_batch

engine = SparkResource(engine="embedded")
try:
    landing = one_batch(clocked(Path(sys.argv[2]), engine.session), CsvFolderSource(Path(sys.argv[1])))
finally:
    engine.teardown_after_execution(None)
print(json.dumps([landing.delivered, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""
MEMORY = 400_000_000  # bytes that files of any contents may take beyond as many well-formed ones


def peak_memory(folder: Path, lake: Path) -> tuple[int, int]:
    """Rows delivered, and the most bytes resident, of a process of its own that takes `folder` through the pipeline."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), str(lake)], check=False, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    delivered, peak = json.loads(done.stdout.splitlines()[-1])
    return delivered, peak


def assert_memory_bounded(tmp_path: Path, files: int, bomb: int) -> None:
    folder, outside = tmp_path / "prices", tmp_path / "outside"
    folder.mkdir()
    for number in range(files):
        (folder / f"{number}.csv").write_text("Symbol,Date,Open,High,Low,Close,Volume\nAAA,2019-12-30,1,2,1,2,100\n")
    rows, plain = peak_memory(folder, tmp_path / "plain_lake")
    assert rows == files
    shutil.rmtree(folder)
    write_files(folder, files, 7, TICKERS, DAYS, outside)
    header = b"Symbol,Date,Open,High,Low,Close,Volume\n"
    lines = {
        "one line": b"x",
        "blank": b"\n",
        "quotes": b'"',
        "the same bar": b"AAA,2019-12-30,1,2,1,2,100\n",
        "broad": b"AAA,2019-12-30,1,2,1,2," + b"9" * 90_000 + b"\n",
        "ragged": b"a,b\n",
    }
    for name, line in lines.items():
        with gzip.GzipFile(folder / f"bomb of {name}.csv.gz", "wb", compresslevel=1) as file:
            file.write(header)
            for _ in range(bomb // (1 if len(set(line)) == 1 and line != b"\n" else 50) // 1_000_000):
                file.write(line * (1_000_000 // len(line)))
    _, fuzzed = peak_memory(folder, tmp_path / "fuzzed_lake")
    figures = f"{plain / 1e6:.0f} MB of well-formed files, {fuzzed / 1e6:.0f} MB of fuzzed ones"
    logging.getLogger(__name__).warning("peak memory: %s", figures)
    assert fuzzed < plain + MEMORY, figures


@pytest.mark.soak
def test_memory_is_bounded_whatever_files_hold_or_unpack_to(tmp_path: Path) -> None:
    assert_memory_bounded(tmp_path, files=60, bomb=100_000_000)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_memory_is_bounded_whatever_large_files_unpack_to(tmp_path: Path) -> None:
    assert_memory_bounded(tmp_path, files=250, bomb=1_000_000_000)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_thousand_fuzzed_files_lose_no_row_and_touch_nothing_outside_the_lake(
    tmp_path: Path, spark: SparkSession, faults: Faults
) -> None:
    tried, delivered, lost = push(tmp_path, spark, seed=int.from_bytes(os.urandom(4)), batches=40, files=250)
    assert delivered > tried
    faults.tried("fuzzed CSV file", tried, lost)
