"""What a message means: good ticks, dead letters with their reasons, lateness, and the bars of minutes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse_tests.streams.house import NOON, StreamHouse, event

ODD = [
    (event(0), None),
    (event(1, close=410.25, volume=100), None),
    (event(2, close="1e2", size=5), None),
    (event(3, close=None, price=7), None),
    (event(4, volume=100.0), None),
    (event(5, open=410, high=411, low="409.5"), None),
    (event(6, ticker="BRK-B"), None),
    (event(7, ticker="^GSPC"), None),
    (event(8, close="410.5000004"), None),  # decimals beyond the sixth
    (json.dumps({"ticker": "NVDA", "timestamp": "2023-09-21T12:00:09-04:00", "close": 1}).encode(), None),
    (json.dumps({"ticker": "NVDA", "timestamp": "2023-09-21 16:00Z", "close": 1}).encode(), "bad timestamp"),
    (json.dumps({"ticker": "NVDA", "timestamp": "2023-09-21 21:30:10+0530", "close": 1}).encode(), None),
    (json.dumps({"ticker": "NVDA", "timestamp": "2023-09-21T16:00:10.123456789Z", "close": 1}).encode(), None),
    (
        json.dumps({"ticker": "NVDA", "timestamp": "2023-09-21T16:00:09.123456Z", "close": 1, "new": [1, {}]}).encode(),
        None,
    ),
    (event(9, date="2023-09-20", replay=True), None),
    (event(9, date="0000-01-01"), None),  # no reader of the table knows that year, so it is as if there was no date
    (b"  " + event(10) + b"\r", None),
    (b"\xff\xfe", "not UTF-8"),
    (b"[1, 2]", "not JSON"),
    (b"7", "not JSON"),
    (b'{"ticker": "NVDA"', "not JSON"),
    (b"null", "not JSON"),
    (event(10) + event(11), "not JSON"),  # two messages on a line: none may be lost without a word
    (event(10) + b"}", "not JSON"),
    (event(10) + b", " + event(11), "not JSON"),
    (b"\xef\xbb\xbf" + event(10), "not JSON"),
    (event(11, ticker="nvda"), "bad ticker"),
    (event(11, ticker=""), "bad ticker"),
    (event(11, ticker="NVDA\n"), "bad ticker"),
    (b'{"close": 1}', "bad ticker"),
    (json.dumps({"ticker": "NVDA", "timestamp": "2023-09-21T12:00:09", "close": 1}).encode(), "bad timestamp"),
    (json.dumps({"ticker": "NVDA", "timestamp": 1695312000, "close": 1}).encode(), "bad timestamp"),
    (event(86400 + 61), "from the future"),
    (event(86400 + 59, ticker="AAPL"), None),
    (event(-86400 * 365 * 20), "before the first day"),
    (event(12, close=0), "bad price"),
    (event(12, close=-3), "bad price"),
    (event(12, close="NaN"), "bad price"),
    (event(12, close=2e9), "bad price"),
    (event(12, close=None), "bad price"),
    (event(12, open=-1), "bad price"),
    (event(12, high=400), "impossible prices"),
    (event(12, low=411), "impossible prices"),
    (event(12, volume=1.5), "bad volume"),
    (event(12, volume=-1), "bad volume"),
    (event(12, volume="many"), "bad volume"),
]


def test_every_message_becomes_a_tick_or_a_dead_letter_with_its_reason(house: StreamHouse) -> None:
    house.write(*(message for message, _ in ODD), b"", b"   ")
    counts = house.drain()
    assert [tick["reason"] for tick in house.ticks()] == [reason for _, reason in ODD]
    house.check()
    assert (counts.messages, counts.dead) == (len(ODD), sum(reason is not None for _, reason in ODD))
    assert counts.messages == counts.events + counts.duplicates + counts.dead


# JSON values of each key, the usual one first.
NUMBERS = [
    "1",
    "1.5",
    '"2.5"',
    "1e2",
    "1E-5",
    "-0",
    "0",
    "-1",
    "1e400",
    '"abc"',
    '""',
    "true",
    "false",
    "null",
    "[1]",
    '{"a":1}',
    '"1,000"',
    "0.1234567",
    "0.0000004",
    "0.0000005",
    "999999999.999999",
    "1e9",
    '"+5"',
    '"0x10"',
    '"5."',
    '".5"',
    '"NaN"',
    '"Infinity"',
    "100.0",
    '"1_000"',
    "12345678901234567890",
    '"1e2"',
    '"-0"',
    "2.0000015",
]
TICKERS = [
    '"NVDA"',
    '"nvda"',
    '"^GSPC"',
    '"BRK-B"',
    '"NV\\u0044A"',
    '""',
    "null",
    "1",
    '"ABCDEFGHIJKLMNOP"',
    '"É"',
    "true",
    '"EURUSD=X"',
    '["NVDA"]',
    '"NVDA\\n"',
]
TIMES = [
    '"2023-09-21T16:00:00Z"',
    '"2023-09-21T16:00:00+00:00"',
    '"2023-09-21T12:00:00.5-04:00"',
    '"2023-09-21T16:00:00.1234567Z"',
    '"2023-02-30T16:00:00Z"',
    '"2023-09-21T16:60:00Z"',
    '"2023-09-21T16:00:00"',
    "1695312000",
    "null",
    '"2023-09-21T21:30:00+0530"',
    '"2023-9-21T16:00:00Z"',
    '"2023-09-21T16:00:00+18:30"',
    '"0001-01-01T00:00:00Z"',
    '"9999-12-31T00:00:00Z"',
    '"2023-09-21t16:00:00z"',
    '"1969-12-31T23:59:59Z"',
]
DATES = [
    '"2023-09-21"',
    '"2023-02-30"',
    '"20230921"',
    "null",
    "1",
    '"2023-09-21T00:00:00"',
    '"0000-01-01"',
    '"9999-12-31"',
]
OTHER = {
    "replay": ["true", '"true"', "1", "false", "null"],
    "event_id": ['"a"', "1", "null", "true", '""', '"\\u00e9"', "[1]"],
}
BROKEN: list[Callable[[str], str]] = [
    lambda text: text[:-1],
    lambda text: f"{text}x",
    lambda text: f"{text}}}",
    lambda text: f"[{text}]",
    lambda text: text.replace('"', "'"),
    lambda text: f"{text} ",
    lambda text: text.replace(",", ",,", 1),
    lambda text: f"{text[:-1]},}}",
    lambda text: text + text,
]


def odd_message(dice: random.Random) -> bytes:
    """A message most of whose values are usual and some are odd, and which is broken now and then."""
    pairs = []
    for name, values, share in (
        ("ticker", TICKERS, 0.98),
        ("timestamp", TIMES, 0.98),
        ("close", NUMBERS, 0.9),
        ("price", NUMBERS, 0.2),
        *((name, NUMBERS, 0.25) for name in ("open", "high", "low")),
        ("volume", NUMBERS, 0.6),
        ("size", NUMBERS, 0.2),
        ("date", DATES, 0.3),
        *((name, values, 0.3) for name, values in OTHER.items()),
    ):
        if dice.random() < share:
            pairs.append(f'"{name}": {dice.choice(values) if dice.random() < 0.3 else values[0]}')
    dice.shuffle(pairs)
    text = f"{{{', '.join(pairs)}}}"
    return (dice.choice(BROKEN)(text) if dice.random() < 0.05 else text).encode()


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 12))])
def test_odd_messages_mean_what_a_reader_in_plain_python_says(house: StreamHouse, seed: int) -> None:
    dice = random.Random(seed)
    house.write(*(odd_message(dice) for _ in range(1500)))
    house.drain()
    house.check()


def test_a_bar_by_hand(house: StreamHouse) -> None:
    house.write(
        event(20, close=12, volume=10, event_id="c"),
        event(5, close=10, volume=30, event_id="b"),
        event(5, close=11, volume=0, event_id="a"),
        event(20, close=99, volume=99, event_id="c"),  # the producer's retry, with another price: the first counts
        event(50, close=13, high=14, low=9, volume=60, event_id="d"),
    )
    house.drain()
    (bar,) = house.bars()
    # By event time, then event_id: a, b, c, d. By arrival, d was last.
    wanted = {"open": 11, "high": 14, "low": 9, "close": 13, "latest_close": 13, "volume": 100}
    assert {name: bar[name] for name in wanted} == wanted
    assert bar["vwap"] == pytest.approx((12 * 10 + 10 * 30 + 13 * 60) / 100)
    assert bar["avg_close"] == pytest.approx((12 + 10 + 11 + 13) / 4)
    assert (bar["events"], bar["duplicates"], bar["late_events"], bar["state"]) == (4, 1, 0, "open")
    assert (bar["minute"], bar["first_event"], bar["last_event"]) == (
        NOON,
        NOON + timedelta(seconds=5),
        NOON + timedelta(seconds=50),
    )


def test_without_an_event_id_the_bytes_of_a_message_are_its_identity(house: StreamHouse) -> None:
    house.write(event(1, volume=5), event(1, volume=5), event(1, volume=6))
    house.drain()
    (bar,) = house.bars()
    assert (bar["events"], bar["duplicates"], bar["volume"]) == (2, 1, 11)


def test_an_event_is_repeated_within_its_ticker_and_minute_alone(house: StreamHouse) -> None:
    """Across minutes the answer would depend on which minutes are computed together."""
    again = {"event_id": "one", "volume": 3}
    house.write(event(0, **again), event(61, **again), event(2, ticker="AAPL", **again), event(3, **again))
    house.drain()
    assert [(bar["ticker"], bar["minute"] - NOON, bar["events"], bar["duplicates"]) for bar in house.bars()] == [
        ("AAPL", timedelta(0), 1, 0),
        ("NVDA", timedelta(0), 1, 1),
        ("NVDA", timedelta(minutes=1), 1, 0),
    ]
    house.check()


def test_a_clock_of_the_future_makes_no_other_tick_late(house: StreamHouse) -> None:
    house.write(event(0), event(86400 * 30), event(1), event(2))
    house.drain()
    assert [(tick["reason"], tick["late"]) for tick in house.ticks()] == [
        (None, False),
        ("from the future", False),
        (None, False),
        (None, False),
    ]


@pytest.mark.parametrize("batch_messages", [100, 1])
def test_a_tick_that_comes_late_is_in_its_minute_which_is_amended(
    tmp_path: Path, spark: SparkSession, batch_messages: int
) -> None:
    house = StreamHouse.made(tmp_path, spark, batch_messages=batch_messages)
    house.write(
        event(0, volume=1), event(180, volume=1), event(59, volume=1), event(61, volume=1), event(600, volume=1)
    )
    counts = house.drain()
    # 59 is 121 s older than 180, and late; 61 is 119 s older, and not.
    assert [tick["late"] for tick in house.ticks()] == [False, False, True, False, False]
    assert counts.late == 1
    states = {bar["minute"]: (bar["state"], bar["volume"]) for bar in house.bars()}
    assert states == {
        NOON: ("amended", 2),
        NOON + timedelta(minutes=1): ("final", 1),
        NOON + timedelta(minutes=3): ("final", 1),
        NOON + timedelta(minutes=10): ("open", 1),
    }
    house.check()


def test_a_tick_of_a_past_day_amends_its_bar(house: StreamHouse) -> None:
    house.write(event(0), event(86400))
    house.drain()
    assert [bar["state"] for bar in house.bars()] == ["final", "open"]
    house.write(event(30, close=500))
    house.drain()
    first = house.bars()[0]
    assert (first["state"], first["close"], first["events"], first["late_events"]) == ("amended", Decimal(500), 2, 1)
    house.check()


def test_a_minute_is_final_when_all_partitions_have_been_seen_past_it(house: StreamHouse) -> None:
    house.write(event(0), event(600), file="a.jsonl")
    house.write(event(30, ticker="AAPL"), file="b.jsonl")
    house.drain()
    assert {bar["state"] for bar in house.bars()} == {"open"}  # b may still have events of noon
    house.write(event(180, ticker="AAPL"), file="b.jsonl")
    house.drain()
    states = {(bar["ticker"], bar["minute"]): bar["state"] for bar in house.bars()}
    assert states == {
        ("NVDA", NOON): "final",
        ("AAPL", NOON): "final",
        ("NVDA", NOON + timedelta(minutes=10)): "open",
        ("AAPL", NOON + timedelta(minutes=3)): "open",
    }
    house.check()


def test_a_partition_that_is_idle_holds_back_no_minute(tmp_path: Path, spark: SparkSession) -> None:
    house = StreamHouse.made(tmp_path, spark, idle_seconds=60)
    house.write(event(0), event(600), file="a.jsonl")
    house.write(event(30, ticker="AAPL"), file="b.jsonl")
    house.drain()
    house.now += timedelta(seconds=61)
    house.write(event(630), file="a.jsonl")
    house.drain()
    assert [bar["state"] for bar in house.bars()] == ["final", "final", "open"]
    # Nothing came for a minute: also the minute of the newest event ends.
    house.now += timedelta(seconds=61)
    before = house.table("raw_ticks").num_rows
    house.drain()
    assert [bar["state"] for bar in house.bars()] == ["final", "final", "final"]
    assert house.table("raw_ticks").num_rows == before
    # What comes after all is late, though its partition had seen nothing newer.
    house.write(event(40, ticker="AAPL"), file="b.jsonl")
    house.drain()
    assert [(bar["ticker"], bar["state"], bar["events"]) for bar in house.bars()] == [
        ("AAPL", "amended", 2),
        ("NVDA", "final", 1),
        ("NVDA", "final", 2),
    ]


def test_a_file_that_appears_later_is_read_from_its_start_and_its_old_events_are_late(house: StreamHouse) -> None:
    house.write(event(0), event(600), file="b.jsonl")
    house.drain()
    house.write(event(10), event(601), file="a.jsonl")
    house.drain()
    late = {tick["event_time"]: tick["late"] for tick in house.ticks() if tick["partition"].startswith("a.jsonl")}
    assert late == {NOON + timedelta(seconds=10): True, NOON + timedelta(seconds=601): False}
    assert [(bar["state"], bar["events"]) for bar in house.bars()] == [("amended", 2), ("open", 2)]
