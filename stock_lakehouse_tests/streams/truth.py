"""What the tables of a stream must hold, in plain Python from the bytes of its files alone, apart from the product's code.

From raw_ticks come only the facts that nobody else knows: when a message was read, and in which batch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
FIRST_DATE = date(2013, 1, 2)
TICKER = re.compile(r"\^?[A-Z0-9][A-Z0-9.^=-]{0,14}")
INSTANT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)", re.ASCII)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Rules:
    late_seconds: int = 120
    ahead_seconds: int = 60
    tolerance: float = 1e-4


def messages_of(folder: Path) -> dict[tuple[str, str], bytes]:
    """The whole lines of all files, by partition and offset."""
    found = {}
    for path in sorted(folder.glob("*.jsonl")):
        content = path.read_bytes()
        if b"\n" not in content:
            continue
        digest = hashlib.sha256(content[: content.index(b"\n") + 1][:4096]).hexdigest()[:12]
        position = 0
        for line in content.split(b"\n")[:-1]:
            if line.strip():
                found[f"{path.name}@{digest}", f"{position:020}"] = line
            position += len(line) + 1
    return found


class Number(str):
    """A number as it is written in JSON."""


def refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def text_of(value: Any) -> str:
    """A JSON value as text: a text or number as it is written, anything else as JSON."""
    return str(value) if isinstance(value, str) else json.dumps(value)


def number(value: Any) -> Decimal | None:
    """A JSON value as a decimal with six places; None if it is none."""
    if not isinstance(value, str) or not NUMBER.fullmatch(value.strip(" ")):
        return None
    found = Decimal(value.strip(" "))
    return found.quantize(Decimal("0.000001"), ROUND_HALF_UP) if abs(found) < 10**18 else None


def instant_of(text: str) -> datetime | None:
    """An instant with an offset of at most 18 hours, in UTC; None if it is none."""
    if not INSTANT.fullmatch(text):
        return None
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if abs(found.utcoffset() or timedelta(0)) <= timedelta(hours=18) else None
    except (ValueError, OverflowError):
        return None


def day_of(value: Any) -> date | None:
    """A JSON value as a session; None if it is none."""
    if not isinstance(value, str) or not re.fullmatch(r"(19|2\d)\d\d-\d\d-\d\d", value, re.ASCII):
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None


def typed(line: bytes, arrived: datetime, rules: Rules) -> dict[str, Any]:  # noqa: PLR0911 - one a reason
    """A message without its place, `late` and `batch`."""
    tick: dict[str, Any] = dict.fromkeys(
        ("ticker", "event_time", "quote_date", "open", "high", "low", "close", "volume", "minute")
    )
    tick |= {"value": line, "event_id": hashlib.sha256(line).hexdigest(), "is_replay": False}
    tick["trade_date"] = arrived.astimezone(NEW_YORK).date()
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return tick | {"reason": "not UTF-8"}
    try:
        message = json.loads(text, parse_int=Number, parse_float=Number, parse_constant=refuse)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        return tick | {"reason": "not JSON"}
    if message.get("event_id") is not None:
        tick["event_id"] = text_of(message["event_id"])
    tick["is_replay"] = message.get("replay") in (True, "true")
    if not TICKER.fullmatch(text_of(message.get("ticker"))):
        return tick | {"reason": "bad ticker"}
    event = instant_of(text_of(message.get("timestamp")))
    if event is None:
        return tick | {"reason": "bad timestamp"}
    if event > arrived + timedelta(seconds=rules.ahead_seconds):
        return tick | {"reason": "from the future"}
    if event.date() < FIRST_DATE - timedelta(days=1):  # Python has no day before its first year
        return tick | {"reason": "before the first day"}
    day = event.astimezone(NEW_YORK).date()
    if day < FIRST_DATE:
        return tick | {"reason": "before the first day"}
    close = number(message["close"] if message.get("close") is not None else message.get("price"))
    prices = [close if message.get(name) is None else number(message[name]) for name in ("open", "high", "low")]
    if any(price is None or not 0 < price < 10**9 for price in (*prices, close)):
        return tick | {"reason": "bad price"}
    open_, high, low = map(float, prices)
    slack = float(close) * rules.tolerance
    if high + slack < max(open_, float(close)) or low - slack > min(open_, float(close)):
        return tick | {"reason": "impossible prices"}
    volume = next((message[name] for name in ("volume", "size") if message.get(name) is not None), "0")
    shares = number(volume)
    if shares is None or shares < 0 or shares != int(shares):
        return tick | {"reason": "bad volume"}
    named = day_of(message.get("date"))
    return tick | {
        "ticker": text_of(message["ticker"]),
        "event_time": event,
        "quote_date": named,
        **dict(zip(("open", "high", "low"), prices, strict=True)),
        "close": close,
        "volume": int(shares),
        "minute": event.replace(second=0, microsecond=0),
        "trade_date": day,
        "reason": None,
    }


def ticks_of(
    messages: dict[tuple[str, str], bytes],
    arrivals: dict[tuple[str, str], datetime],
    rules: Rules,
    parents: dict[str, list[str]] | None = None,
) -> dict[tuple[str, str], dict[str, Any]]:
    """The tick of each message, by partition and offset. `late` is by the partition alone: no minute is final by idleness.

    `parents`: of a partition that begins where others ended: it begins with their newest event.
    """
    newest: dict[str, datetime] = {}
    found = {}
    for (partition, offset), line in sorted(messages.items()):
        tick = typed(line, arrivals[partition, offset], rules)
        high, event = newest_of(partition, newest, parents or {}), tick["event_time"]
        tick["late"] = event is not None and high is not None and event < high - timedelta(seconds=rules.late_seconds)
        if event is not None:
            newest[partition] = max(event, high or event)
        found[partition, offset] = tick
    return found


def newest_of(partition: str, newest: dict[str, datetime], parents: dict[str, list[str]]) -> datetime | None:
    """The newest event of `partition`; if it has none, of its parents."""
    if partition in newest:
        return newest[partition]
    found = [high for parent in parents.get(partition, ()) if (high := newest_of(parent, newest, parents))]
    return max(found, default=None)


def bars_of(
    ticks: dict[tuple[str, str], dict[str, Any]],
    arrivals: dict[tuple[str, str], datetime],
    watermark: datetime,
) -> dict[tuple[str, datetime], dict[str, Any]]:
    """The bar of each ticker and minute."""
    minutes: dict[tuple[str, datetime], list[tuple[tuple[str, str], dict[str, Any]]]] = defaultdict(list)
    for place, tick in sorted(ticks.items()):
        if tick["reason"] is None:
            minutes[tick["ticker"], tick["minute"]].append((place, tick))
    return {key: _bar(key, of_minute, arrivals, watermark) for key, of_minute in minutes.items()}


def _bar(
    key: tuple[str, datetime],
    of_minute: list[tuple[tuple[str, str], dict[str, Any]]],
    arrivals: dict[tuple[str, str], datetime],
    watermark: datetime,
) -> dict[str, Any]:
    events: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {}
    for place, tick in of_minute:
        events.setdefault(tick["event_id"], (place, tick))
    ordered = sorted((tick for _, tick in events.values()), key=lambda tick: (tick["event_time"], tick["event_id"]))
    _, newest = max(events.values(), key=lambda entry: (arrivals[entry[0]], entry[0]))
    volume = sum(tick["volume"] for tick in ordered)
    late = sum(tick["late"] for tick in ordered)
    is_final = key[1] + MINUTE <= watermark
    return {
        "trade_date": ordered[0]["trade_date"],
        "hour": key[1].hour,
        "open": ordered[0]["open"],
        "high": max(tick["high"] for tick in ordered),
        "low": min(tick["low"] for tick in ordered),
        "close": ordered[-1]["close"],
        "latest_close": newest["close"],
        "volume": volume,
        "vwap": float(sum(tick["close"] * tick["volume"] for tick in ordered)) / volume if volume else None,
        "avg_close": float(sum(tick["close"] for tick in ordered)) / len(ordered),
        "events": len(ordered),
        "duplicates": len(of_minute) - len(ordered),
        "late_events": late,
        "first_event": ordered[0]["event_time"],
        "last_event": ordered[-1]["event_time"],
        "quote_date": ordered[-1]["quote_date"],
        "is_replay": any(tick["is_replay"] for _, tick in of_minute),
        "state": ("amended" if late else "final") if is_final else "open",
    }
