"""The stream from a real Kafka (needs Java 17): a drain of many messages, live messages until their bars, and a thousand batches.

Belongs here: the messages, and seconds beside a floor of the same run: the same messages read by confluent-kafka and json.loads
alone. Every part is a process of its own. Not here: what a crash leaves (stock_lakehouse_tests/streams).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import market
from benchmarks.figures import Figure, print_figures
from benchmarks.process import cpu_seconds, measure, module

if TYPE_CHECKING:
    from stock_lakehouse.streams.runner import Runner
    from stock_lakehouse_tests.kafka_server import Kafka

A_SECOND, PEAK_GB, LIVE_P95, LIVE_MOST, FLAT = 15_000.0, 1.2, 2.0, 4.0, 1.5
DRAIN, FLOOR, LIVE, STEPS = (
    "--drain",
    "--floor",
    "--live",
    "--steps",
)  # how this module starts itself: SERVERS TOPIC FOLDER
PARTITIONS, RATE, BATCH = 4, 200, 200
OPEN = datetime(2024, 12, 30, 14, 30, tzinfo=UTC)
SPAN = timedelta(minutes=70)  # of the events of a drain
DUPLICATES, DEAD = 0.01, 0.002  # shares of the messages


def messages(count: int, tickers: int) -> Iterator[tuple[int, bytes]]:
    """`count` messages with their partitions, in the order of their times; some are sent twice and some are broken."""
    dice = random.Random(16)
    names = market.ticker_names(tickers)
    for number in range(count):
        at = OPEN + number * SPAN / count
        yield from copies(dice, names[number % tickers], number % tickers % PARTITIONS, at, number)


def copies(dice: random.Random, ticker: str, partition: int, at: datetime, number: int) -> Iterator[tuple[int, bytes]]:
    close = f"{100 + dice.random():.4f}" if dice.random() >= DEAD else "none"
    event = {"ticker": ticker, "timestamp": at.isoformat(), "close": close, "volume": dice.randrange(1000)}
    message = json.dumps({**event, "event_id": f"{ticker}-{number}", "exchange": "XNYS", "conditions": ["@", "T"]})
    yield partition, message.encode()
    if dice.random() < DUPLICATES:
        yield partition, message.encode()


def fill(kafka: Kafka, topic: str, count: int, tickers: int) -> int:
    """Make the topic and send exactly `count` messages; return that number."""
    kafka.topic(topic, PARTITIONS)
    by_partition: dict[int, list[bytes]] = {number: [] for number in range(PARTITIONS)}
    for _, (partition, message) in zip(range(count), messages(count, tickers), strict=False):
        by_partition[partition].append(message)
    kafka.produce(topic, by_partition)
    return sum(map(len, by_partition.values()))


class Started:
    """A runner of `topic` on a lake in `folder`, for a `with` block."""

    def __init__(self, servers: str, topic: str, folder: Path, **settings: Any) -> None:
        from contextlib import ExitStack

        self.stack, self.servers, self.topic, self.folder, self.settings = ExitStack(), servers, topic, folder, settings

    def __enter__(self) -> Runner:
        from stock_lakehouse.engines import spark_session
        from stock_lakehouse.lake_options import LakeOptions
        from stock_lakehouse.market_calendar import utc_now
        from stock_lakehouse.settings import Stream
        from stock_lakehouse.streams.runner import runner
        from stock_lakehouse.streams.sources import source_of

        given = Stream(source="kafka", name=self.topic, servers=self.servers, **self.settings)
        options = LakeOptions(lake_root=self.folder / self.topic)
        spark = self.stack.enter_context(spark_session("embedded"))
        source = source_of(given, utc_now)
        return self.stack.enter_context(runner(options, given, source, spark, utc_now))

    def __exit__(self, *error: Any) -> None:
        self.stack.close()


def drain(servers: str, topic: str, folder: Path) -> dict[str, Any]:
    """Read `topic` to its end; seconds without the start of the engine, and what became of the messages."""
    with Started(servers, topic, folder) as started:
        began, used = time.perf_counter(), cpu_seconds()
        started.drain(10)
        seconds, used = time.perf_counter() - began, cpu_seconds() - used
        return {"seconds": seconds, "cpu": used, **conserved(started)}


def conserved(started: Runner) -> dict[str, int]:
    """Messages, and what the tables have of them, counted in the tables."""
    import pyarrow.compute as pc

    counts = started.counts
    ticks = started.ticks.open().to_pyarrow_dataset().to_table(["minute", "partition", "offset"])
    bars = started.bars.open().to_pyarrow_dataset().to_table(["events", "duplicates"])
    places = ticks.group_by(["partition", "offset"]).aggregate([]).num_rows
    dead = pc.sum(pc.is_null(ticks["minute"])).as_py()
    events, duplicates = (pc.sum(bars[name]).as_py() for name in ("events", "duplicates"))
    if not counts.messages == ticks.num_rows == places == events + duplicates + dead:
        raise RuntimeError(
            f"{counts.messages:,} messages, {ticks.num_rows:,} ticks at {places:,} positions, {events:,} events, "
            f"{duplicates:,} duplicates, {dead:,} dead letters"
        )
    return {
        "messages": counts.messages, "events": events, "duplicates": duplicates, "dead": dead, "bars": bars.num_rows,
        "batches": counts.batch,
    }  # fmt: skip


def floor(servers: str, topic: str) -> dict[str, Any]:
    """The same messages, read and parsed, and nothing else."""
    from confluent_kafka import Consumer, TopicPartition

    settings = {"bootstrap.servers": servers, "group.id": "floor", "enable.partition.eof": True}
    consumer = Consumer({**settings, "enable.auto.commit": False, "fetch.wait.max.ms": 100})
    began, used = time.perf_counter(), cpu_seconds()
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    count, ended = 0, 0
    while ended < PARTITIONS:
        for message in consumer.consume(10_000, 0.1):
            if message.error() is None:
                json.loads(message.value())
                count += 1
            else:
                ended += 1
    seconds, used = time.perf_counter() - began, cpu_seconds() - used
    consumer.close()
    return {"seconds": seconds, "cpu": used, "messages": count}


def live(servers: str, topic: str, folder: Path, expected: int) -> dict[str, Any]:
    """Follow `topic` until `expected` messages came; seconds from each message's time at the broker to its committed bar."""
    import pyarrow as pa

    with Started(servers, topic, folder) as started:
        print("started", flush=True)
        waited: list[float] = []
        trigger, used = started.settings.trigger_seconds, cpu_seconds()
        until = time.monotonic() + 60 + 2 * expected / RATE
        while len(waited) < expected and time.monotonic() < until:
            arrivals = started.step(trigger).rows["arrival_time"]
            now = time.time_ns() // 1000
            waited += [(now - at) / 1e6 for at in arrivals.cast(pa.int64()).to_pylist()]
        found = conserved(started)
        used = (cpu_seconds() - used) / max(1, found["batches"])
    waited.sort()
    return {
        "p50": waited[len(waited) // 2], "p95": waited[int(len(waited) * 0.95)], "most": waited[-1],
        "cpu": used, **found,
    }  # fmt: skip


def steps(servers: str, topic: str, folder: Path, count: int, tickers: int) -> dict[str, Any]:
    """`count` batches of BATCH messages, each sent when the one before is done, as when a runner follows a stream.

    Files are joined as ever. Processor seconds and seconds of each batch, without those of sending.
    """
    from confluent_kafka import Producer

    producer, sent = Producer({"bootstrap.servers": servers, "linger.ms": 1}), messages(count * BATCH, tickers)
    with Started(servers, topic, folder, batch_messages=BATCH) as started:
        used, wall = [], []
        for _ in range(count):
            for _, (partition, message) in zip(range(BATCH), sent, strict=False):
                producer.produce(topic, message, partition=partition)
            producer.flush(30)
            began, before = time.perf_counter(), cpu_seconds()
            read, until = 0, time.monotonic() + 60
            while read < BATCH:  # a fetch of one partition may come later than the others
                if time.monotonic() > until:
                    raise RuntimeError(f"{read} of {BATCH} messages came in 60 s")
                read += started.step(10).rows.num_rows
            wall.append(time.perf_counter() - began)
            used.append(cpu_seconds() - before)
        found = conserved(started)
    tenth = max(1, len(used) // 10)

    def ratio(values: Sequence[float]) -> float:
        return statistics.median(values[-tenth:]) / statistics.median(values[:tenth])

    return {
        "cpu_ratio": ratio(used), "ratio": ratio(wall), "cpu": statistics.median(used), "seconds": statistics.median(wall),
        "last_cpu": statistics.median(used[-tenth:]), "first_cpu": statistics.median(used[:tenth]), **found,
    }  # fmt: skip


def follow(kafka: Kafka, folder: Path, seconds: int, tickers: int) -> dict[str, Any]:
    """A runner in a process of its own, and RATE messages a second beside it for `seconds`."""
    from confluent_kafka import Producer

    kafka.topic("live", PARTITIONS, message_timestamp_type="LogAppendTime")
    dice, names, count = random.Random(1), market.ticker_names(tickers), RATE * seconds
    command = module("stream", LIVE, kafka.servers, "live", folder, "--messages", count)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        producer = Producer({"bootstrap.servers": kafka.servers, "linger.ms": 5})
        began = time.monotonic()
        for number in range(count):
            if (ahead := number / RATE - (time.monotonic() - began)) > 0:
                time.sleep(ahead)
            partition = number % tickers % PARTITIONS
            _, message = next(copies(dice, names[number % tickers], partition, datetime.now(UTC), number))
            producer.produce("live", message, partition=partition)
            producer.poll(0)
        producer.flush(30)
        out, _ = process.communicate(timeout=120 + 2 * seconds)
        if process.returncode:
            raise RuntimeError(f"the runner ended with {process.returncode}")
        answer: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        return answer
    finally:
        process.kill()
        process.wait()


def measure_all(folder: Path, count: int, tickers: int, seconds: int, batches: int) -> dict[str, Any]:
    """All figures. Raises RuntimeError if a message was lost or counted twice."""
    from stock_lakehouse_tests.kafka_server import kafka_server

    found: dict[str, Any] = {}
    with kafka_server(folder / "kafka", heap="512m") as kafka:
        if count:
            sent = fill(kafka, "drain", count, tickers)
            floor_ = measure(module("stream", FLOOR, kafka.servers, "drain", folder)).answer
            drained = measure(module("stream", DRAIN, kafka.servers, "drain", folder))
            found |= {"floor": floor_, "drain": drained.answer, "peak_gb": drained.peak_gb}
            if not sent == floor_["messages"] == drained.answer["messages"]:
                raise RuntimeError(f"{sent:,} sent, {floor_['messages']:,} and {drained.answer['messages']:,} read")
        if seconds:
            found["live"] = follow(kafka, folder, seconds, tickers)
        if batches:
            kafka.topic("steps", PARTITIONS)
            command = module(
                "stream", STEPS, kafka.servers, "steps", folder, "--batches", batches, "--tickers", tickers
            )
            found["steps"] = measure(command).answer
            if found["steps"]["messages"] != batches * BATCH:
                raise RuntimeError(f"{batches * BATCH:,} sent, {found['steps']['messages']:,} read")
    return found


def figures(found: dict[str, Any]) -> list[Figure]:
    """The figures of `measure_all` beside their targets."""
    listed: list[Figure] = []
    if "drain" in found:
        ours, least = found["drain"], found["floor"]
        listed += [
            Figure("drain, messages a second", ours["messages"] / ours["seconds"], "/s", A_SECOND, at_least=True),
            Figure("drain, processor seconds", ours["cpu"], "s"),
            Figure("floor: read and json.loads alone, processor seconds", least["cpu"], "s"),
            Figure("drain, times the floor's processor seconds", ours["cpu"] / least["cpu"], "x"),
            Figure("drain, peak memory", found["peak_gb"], "GB", PEAK_GB),
        ]
    if "live" in found:
        live_ = found["live"]
        listed += [
            Figure(f"{RATE} messages a second, broker to bar, median", live_["p50"], "s"),
            Figure("broker to bar, 95 %", live_["p95"], "s", LIVE_P95),
            Figure("broker to bar, longest", live_["most"], "s", LIVE_MOST),
            Figure("processor seconds a batch", live_["cpu"], "s"),
        ]
    if "steps" in found:
        last = found["steps"]
        listed += [
            Figure(f"{last['batches']:,} batches: last tenth ÷ first, processor seconds", last["cpu_ratio"], "x", FLAT),
            Figure("the same, seconds", last["ratio"], "x"),
            Figure("median of a batch, processor seconds", last["cpu"], "s"),
        ]
    return listed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=200_000, help="of a drain; 0: none")
    parser.add_argument("--tickers", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=60, help="of live messages; 0: none")
    parser.add_argument("--batches", type=int, default=1000, help="of 200 messages; 0: none")
    parser.add_argument("--json", action="store_true")
    place = ("SERVERS", "TOPIC", "FOLDER")
    for name in (DRAIN, FLOOR, LIVE, STEPS):
        parser.add_argument(name, nargs=3, metavar=place, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.floor:
        print(json.dumps(floor(*options.floor[:2])))
        return
    if options.drain:
        print(json.dumps(drain(options.drain[0], options.drain[1], Path(options.drain[2]))))
        return
    if options.steps:
        servers, topic, place_ = options.steps
        print(json.dumps(steps(servers, topic, Path(place_), options.batches, options.tickers)))
        return
    if options.live:
        print(json.dumps(live(options.live[0], options.live[1], Path(options.live[2]), options.messages)))
        return
    from stock_lakehouse_tests.engines.servers import java

    if java() is None:
        print("There is no Java 17 on PATH or in JAVA_HOME, so there is no Kafka.", file=sys.stderr)
        found: dict[str, Any] = {}
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = measure_all(Path(folder), options.messages, options.tickers, options.seconds, options.batches)
    listed = figures(found) if found else []
    if options.json:
        print(json.dumps({"figures": [figure.as_json() for figure in listed], **found}))
        return
    print_figures(listed)


if __name__ == "__main__":
    main()
