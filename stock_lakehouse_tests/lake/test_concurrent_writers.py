"""Several processes at one lake: what they publish at once is what one run would have published."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.engines import spark_session
from stock_lakehouse.lake.lock import TableBusyError, one_writer
from stock_lakehouse.lake.storage import LakeRoot
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.tables import CURATED, FEATURES, PROCESSED, RAW
from stock_lakehouse_tests.graph import (
    TICKERS,
    clocked,
    edited,
    history,
    layers,
    ledger,
    rectangle,
    run,
    step,
    year_boundary,
)

DAYS = year_boundary(30, 30)
BARS = history(TICKERS, DAYS)
EDITED = edited(edited(BARS, ("AAA", DAYS[2]), close=BARS["AAA", DAYS[2]]["open"]), ("BBB", DAYS[40]), volume="7")
ALL = rectangle(DAYS, TICKERS)
# What each process asks for: overlapping in sessions and in tickers, over the year's end.
ASKED = (
    (rectangle(DAYS[:40], ("AAA", "BBB")), rectangle(DAYS[20:], ("AAA",)), rectangle(DAYS[5:], ("CCC",))),
    (rectangle(DAYS[20:], ("BBB", "CCC")), rectangle(DAYS[:50:3], TICKERS), rectangle(DAYS[:30], ("CCC",))),
)
ABOVE = {PROCESSED.name: RAW.name, CURATED.name: PROCESSED.name, FEATURES.name: CURATED.name}


def publish_at_once(root: str, asked: tuple[Rectangle, ...], run_id: str, together: Any, layout: str) -> None:
    """In a process of its own: a layer after the other, each begun when every process has ended the one above."""
    with spark_session("embedded") as spark:
        house = clocked(root, spark, layout=layout)
        for layer in ABOVE:
            together.wait(120)
            for one in asked:
                run(house, one, run_id=run_id, steps=[layer])


@contextmanager
def at_once(root: LakeRoot, *asked: tuple[Rectangle, ...], layout: str = "ticker_year") -> Iterator[None]:
    spawn = multiprocessing.get_context("spawn")
    together = spawn.Barrier(len(asked))
    processes = [
        spawn.Process(target=publish_at_once, args=(str(root), one, f"{number}" * 8 + "-run", together, layout))
        for number, one in enumerate(asked, start=1)
    ]
    for process in processes:
        process.start()
    try:
        yield
        for process in processes:
            process.join(timeout=150)
        assert [process.exitcode for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
def test_overlapping_publishes_at_once_end_in_the_tables_of_one_run(spark: SparkSession, tmp_path: Path) -> None:
    many, one = clocked(tmp_path / "many", spark), clocked(tmp_path / "one", spark)
    # Part of the lake is there and will be corrected, so that both processes write the ledger.
    first = rectangle(DAYS[:45], ("AAA", "BBB"))
    for house in (many, one):
        run(house, first, BARS.values(), "00000000-run")
    run(many, ALL, EDITED.values(), "99999999-run", steps=[RAW.name])
    with at_once(many.lake.root, *ASKED):
        run(one, ALL, EDITED.values(), "99999999-run")
    assert layers(many) == layers(one)

    def curated(lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        told = ("ticker", "date", "columns", "old", "new", "rows")
        return sorted(tuple(line[name] for name in told) for line in lines if line["table_name"] == CURATED.name)

    assert curated(ledger(many)) == curated(ledger(one))
    assert {line["ticker"] for line in ledger(many) if line["table_name"] == FEATURES.name} >= {"AAA", "BBB"}


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_many_overlapping_publishes_at_once_end_in_the_tables_of_one_run(spark: SparkSession, tmp_path: Path) -> None:
    one = clocked(tmp_path / "one", spark)
    run(one, ALL, EDITED.values())
    for attempt in range(8):
        many = clocked(tmp_path / f"many{attempt}", spark)
        run(many, ALL, EDITED.values(), steps=[RAW.name])
        with at_once(many.lake.root, *ASKED, *ASKED):
            pass
        assert layers(many) == layers(one)


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [pytest.param(name, marks=[] if name == PROCESSED.name else [pytest.mark.soak]) for name in ABOVE],
)
def test_a_run_that_read_before_another_published_loses_nothing_of_it(
    spark: SparkSession, tmp_path: Path, layer: str
) -> None:
    early, late = rectangle(DAYS[25:28], ("AAA",)), rectangle(DAYS[28:32], ("AAA",))
    slow, quick, one = (clocked(tmp_path / name, spark) for name in ("many", "many", "one"))
    layers_above = [name for name in (RAW.name, *ABOVE) if name not in (layer, *below(layer))]
    run(slow, early, BARS.values(), "11111111-run", steps=layers_above)
    publish = step(slow, layer, early, "11111111-run")
    other = threading.Thread(target=run, args=(quick, late, BARS.values(), "22222222-run"), daemon=True)
    other.start()
    other.join(timeout=90)
    assert not other.is_alive(), "nothing that the first run holds makes it wait"
    with pytest.raises(dg.RetryRequested):
        publish()
    run(slow, early, run_id="11111111-run", steps=[layer, *below(layer)])
    run(one, early, BARS.values(), "11111111-run")
    run(one, late, BARS.values(), "22222222-run")
    assert layers(slow) == layers(one)


def below(layer: str) -> list[str]:
    names = list(ABOVE)
    return names[names.index(layer) + 1 :]


HOLDER = """
import sys, time
from pathlib import Path
from stock_lakehouse.lake.lock import one_writer
with one_writer(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def held_elsewhere(root: Path, table: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that is writing `table`."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root), table],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.slow
@pytest.mark.slice(1)
@pytest.mark.parametrize("table", [RAW.name, PROCESSED.name, CURATED.name])
def test_a_table_that_another_process_writes_is_busy_but_readable(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    house = clocked(tmp_path / "lake", spark)
    run(house, ALL, BARS.values())
    before = layers(house)
    monkeypatch.setattr(one_writer.__wrapped__, "__defaults__", (0.2,))  # type: ignore[attr-defined]
    with held_elsewhere(house.lake.root, table) as holder:
        with pytest.raises(TableBusyError, match=f"^{table}: another process has been writing it for 0 s"):
            run(house, ALL, EDITED.values(), "22222222-run")
        assert house.lake.processed.read(spark).count() == len(BARS)
        assert house.lake.curated.read(spark).count() == len(BARS)
        assert layers(house)["curated"] == before["curated"]
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        # The lock died with its process.
        run(house, ALL, EDITED.values(), "22222222-run")
    assert layers(house) != before
