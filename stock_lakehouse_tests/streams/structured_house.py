"""A topic of a real Kafka that Structured Streaming reads, and batches that kill their process at a step.

Here: how it is started and killed. Not here: what a test expects. The engine's Python imports this module too.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from stock_lakehouse.lake.bar_table import BarTable
from stock_lakehouse.lake.tick_table import BATCH, SPARK, TickTable
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.streams import structured
from stock_lakehouse.streams.batches import Batches
from stock_lakehouse.streams.order import StreamOrder
from stock_lakehouse.streams.structured import StructuredRunner, structured_runner
from stock_lakehouse_tests.streams import killed
from stock_lakehouse_tests.streams.kafka_house import KafkaHouse

# The steps of a batch, beside those of `killed`.
STEPS: dict[str, tuple[type, str, bool]] = {
    "before ticks": (Batches, "append", False),
    "after ticks": (Batches, "append", True),
    "after positions": (TickTable, "finish_batch", True),
    "before bars": (BarTable, "_merge", False),
    "after bars": (BarTable, "_merge", True),
}


@dataclass
class StructuredHouse(KafkaHouse):
    """A KafkaHouse whose runner is a query on `spark`."""

    @contextmanager
    def running(
        self, accept_loss: str | None = None, take_over: bool = False, rebuild: bool = False
    ) -> Iterator[StructuredRunner]:
        settings, source = self.settings, self.source()
        asked = (accept_loss, take_over, rebuild)
        with structured_runner(self.options, settings, source, self.spark, self.clock, *asked) as started:
            yield started

    def embedded(self, sail: SparkSession, lake: str = "lake") -> KafkaHouse:
        """The same topic and lake, or another `lake`, with the embedded runner."""
        settings = self.settings.model_copy(update={"runner": "embedded"})
        return KafkaHouse(self.tmp, sail, self.tmp / lake, settings, self.now, kafka=self.kafka)

    def again(self, settings: dict[str, Any]) -> StructuredHouse:
        """The same with other settings."""
        return replace(self, settings=self.settings.model_copy(update=settings))


class ActingBatches(Batches):
    """Batches whose process acts at a step, once."""

    def __init__(
        self, order: StreamOrder, as_of: datetime | None, step: str, number: int, act: Callable[[], None]
    ) -> None:
        super().__init__(order, as_of)
        self.step, self.number, self.act = step, number, act

    def __call__(self, frame: DataFrame, number: int) -> None:
        if self.step:
            killed.STEPS |= STEPS
            killed.at_step(self.step, self.number, self.act)
            self.step = ""
        super().__call__(frame, number)


def kill_worker() -> None:
    """End the engine's Python process."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_engine() -> None:
    """End the engine, whose Python process this is: it goes on until it needs the engine."""
    os.kill(os.getppid(), signal.SIGKILL)


def claim(options: LakeOptions, checkpoint: str, number: int) -> None:
    """Say in raw_ticks that Spark's batch `number` of `checkpoint` is there."""
    ticks = TickTable(options, 2)
    ticks.begin()
    ticks.commit(ticks.append_to(ticks.no_rows()), {BATCH: ticks.batch, f"{SPARK}/{checkpoint}": number})


@contextmanager
def acting(step: str, act: Callable[[], None], number: int = 1) -> Iterator[None]:
    """Within the block, batches of this process's queries `act` at `step`, the `number`th time that it is reached."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structured, "Batches", lambda order, as_of: ActingBatches(order, as_of, step, number, act))
        yield
