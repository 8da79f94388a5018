"""The picture of a ticker: what is drawn, read back from the paths of the SVG, is what was given."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET
from datetime import date, timedelta
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from stock_lakehouse.dashboards.picture import (
    BASE,
    HEIGHT,
    INLINE_CHARACTERS,
    PRICE_HEIGHT,
    SESSIONS,
    SMALL_HEIGHT,
    SMALL_SESSIONS,
    SMALL_VOLUME,
    SMALL_WIDTH,
    STEP,
    TOP,
    VOLUME_HEIGHT,
    picture,
    small_picture,
)

COUNT = 300
Segment = tuple[int, int, int]  # x, y above, y below


def sessions(seed: int = 0, step: float = 0.02) -> dict[str, list[Any]]:
    """A random walk of COUNT days, with averages and a band; nothing here is computed by the package."""
    dice = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(dice.normal(0, step, COUNT)))
    opened = close * np.exp(dice.normal(0, step / 2, COUNT))
    middle = np.convolve(close, np.ones(20) / 20)[:COUNT]
    return {
        "date": [date(2022, 11, 1) + timedelta(days=day) for day in range(COUNT)],
        "open": opened.tolist(),
        "high": (np.maximum(opened, close) * 1.01).tolist(),
        "low": (np.minimum(opened, close) * 0.99).tolist(),
        "close": close.tolist(),
        "volume": dice.integers(1, 10**9, COUNT).tolist(),
        "sma_50": [None] * 250 + middle[250:].tolist(),
        "bb_upper": (middle * 1.1).tolist(),
        "bb_lower": (middle * 0.9).tolist(),
    }


def svg_in(markdown: str | None) -> ET.Element:
    found = re.search(r"!\[[^]]*\]\(data:image/svg\+xml,([^() ]*)\)", markdown or "")
    assert found is not None
    return ET.fromstring(unquote(found[1]))


def texts(svg: ET.Element) -> list[str]:
    return [element.text or "" for element in svg.iter() if element.tag.endswith("text")]


def path(svg: ET.Element, name: str) -> str:
    [found] = [element for element in svg.iter() if element.get("class") == name]
    return str(found.get("d"))


def points(drawn: str) -> list[tuple[int, int]]:
    """The points of a path of M and l."""
    at, found = (0, 0), []
    for command, x, y in re.findall(r"([Ml])(-?\d+),?(-?\d+)", drawn):
        at = (int(x), int(y)) if command == "M" else (at[0] + int(x), at[1] + int(y))
        found.append(at)
    return found


def segments(drawn: str) -> list[Segment]:
    """The vertical lines of a path of m and v."""
    at, found = (0, 0), []
    for x, y, length in re.findall(r"m(-?\d+),?(-?\d+)v(-?\d+)", drawn):
        begin = (at[0] + int(x), at[1] + int(y))
        at = (begin[0], begin[1] + int(length))
        found.append((begin[0], min(begin[1], at[1]), max(begin[1], at[1])))
    return found


def test_candles_volume_averages_and_band_are_at_the_places_of_their_values() -> None:
    given = sessions()
    svg = svg_in(picture("NVDA", given))
    shown = {name: values[-SESSIONS:] for name, values in given.items()}
    prices = [value for name, values in shown.items() if name not in ("date", "volume") for value in values if value]
    low, high = min(prices), max(prices)
    unit = (high - low) / PRICE_HEIGHT  # the value of a unit of the picture

    def price(y: int) -> float:
        return high - (y - TOP) * unit

    wicks = sorted(segments(path(svg, "up")) + segments(path(svg, "down")))
    bodies = sorted(segments(path(svg, "up b")) + segments(path(svg, "down b")))
    assert [x for x, _, _ in wicks] == [x for x, _, _ in bodies] == [STEP * at + STEP // 2 for at in range(SESSIONS)]
    for at, ((x, above, below), (_, top, bottom)) in enumerate(zip(wicks, bodies, strict=True)):
        assert price(above) == pytest.approx(shown["high"][at], abs=0.51 * unit)
        assert price(below) == pytest.approx(shown["low"][at], abs=0.51 * unit)
        ends = sorted((shown["open"][at], shown["close"][at]))
        assert price(bottom) == pytest.approx(ends[0], abs=1.51 * unit)  # a body is at least a unit high
        assert price(top) == pytest.approx(ends[1], abs=0.51 * unit)
        rose = shown["close"][at] >= shown["open"][at]
        assert ((x, above, below) in segments(path(svg, "up"))) is rose
    bars = sorted(segments(path(svg, "up b v")) + segments(path(svg, "down b v")))
    heights = dict.fromkeys((STEP * at + STEP // 2 for at in range(SESSIONS)), 0)
    heights |= {x: below - above for x, above, below in bars}
    assert {below for _, _, below in bars} == {BASE}
    for at, height in enumerate(heights.values()):
        assert height == pytest.approx(VOLUME_HEIGHT * shown["volume"][at] / max(shown["volume"]), abs=0.51)
    average = points(path(svg, "l sma_50"))
    known = [at for at in range(SESSIONS - 1, -1, -3) if shown["sma_50"][at] is not None][::-1]
    assert [x for x, _ in average] == [STEP * at + STEP // 2 for at in known]
    for at, (_, y) in zip(known, average, strict=True):
        assert price(y) == pytest.approx(shown["sma_50"][at], abs=0.51 * unit)
    outline = points(path(svg, "band"))
    assert price(outline[0][1]) == pytest.approx(
        shown["bb_upper"][(outline[0][0] - STEP // 2) // STEP], abs=0.51 * unit
    )
    assert price(outline[-1][1]) == pytest.approx(
        shown["bb_lower"][(outline[-1][0] - STEP // 2) // STEP], abs=0.51 * unit
    )
    said = texts(svg)
    close = shown["close"]
    assert said[0] == f"NVDA {close[-1]:.2f}"
    change = f"{100 * (close[-1] / close[-2] - 1):+.2f}%".replace("-", "\N{MINUS SIGN}")
    assert said[1] == f"{change}, 2023-05-10 to 2023-08-27"
    assert f"SMA 50 {shown['sma_50'][-1]:.2f}" in said
    assert [name for name in said if name in ("May", "Jun", "Jul", "Aug")] == ["Jun", "Jul", "Aug"]


def test_a_line_of_a_price_is_beside_its_label() -> None:
    svg = svg_in(picture("A", sessions()))
    lines = [
        int(re.match(r"M0,(\d+)h", element.get("d", ""))[1]) for element in svg.iter() if element.get("class") == "g"
    ]  # type: ignore[index]
    labels = [float(text) for text in texts(svg)[3:] if re.fullmatch(r"[\d.]+", text)]
    assert 3 <= len(labels) == len(lines) <= 6
    steps = [
        (lower - upper) / (two - one)
        for (one, two, upper, lower) in zip(labels, labels[1:], lines[1:], lines, strict=False)
    ]
    assert max(steps) == pytest.approx(min(steps), rel=0.1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("step", [0.001, 0.02, 0.3])
def test_a_picture_is_small_and_the_small_one_is_shown_in_its_place(seed: int, step: float) -> None:
    given = sessions(seed, step)
    assert len(picture("BRK-B", given) or "") <= 6 * 1024
    small = small_picture("BRK-B", given) or ""
    assert len(small) <= INLINE_CHARACTERS == 999
    svg_in(small)


def test_the_small_picture_has_closes_average_and_volume_of_a_year_and_says_its_extremes() -> None:
    given = sessions()
    small = small_picture("^GSPC", given) or ""
    close, average, volume = (str(element.get("d")) for element in svg_in(small))
    shown = given["close"][-SMALL_SESSIONS:]
    drawn = points(close)
    assert (drawn[0][0], drawn[-1][0]) == (0, SMALL_WIDTH)
    low, high = min(shown + given["sma_50"][250:]), max(shown + given["sma_50"][250:])
    height = SMALL_HEIGHT - SMALL_VOLUME - 4
    for x, y in drawn:
        value = shown[round(x * (SMALL_SESSIONS - 1) / SMALL_WIDTH)]
        assert high - (y - 2) * (high - low) / height == pytest.approx(value, abs=0.51 * (high - low) / height)
    assert [x for x, _ in points(average)] == [251, 263, 275, 288, 300]  # of 25 places those where it is known
    assert volume.endswith(f"V{SMALL_HEIGHT}H0z")
    assert small.endswith(f"low {min(shown):.2f}, high {max(shown):.2f}")
    assert "**^GSPC" in small


def test_unknown_values_leave_gaps_and_a_bar_of_a_close_alone_is_drawn_at_it() -> None:
    days = [date(2023, 9, day) for day in (18, 19, 20)]
    given = {"date": days, "close": [10.0, 12.0, 11.0], "open": [None] * 3, "high": [None, float("nan"), 13.0]}
    svg = svg_in(picture("A", given))
    wicks = segments(path(svg, "up"))
    assert len(wicks) == 3  # without an open it is not known that a bar fell
    assert wicks[0] == (3, TOP + PRICE_HEIGHT, TOP + PRICE_HEIGHT + 1)
    assert wicks[2] == (15, TOP, round(TOP + PRICE_HEIGHT * 2 / 3))
    assert not [element for element in svg.iter() if element.get("class") in ("band", "up b v", "l sma_50")]
    assert picture("A", {"date": days, "close": [None, None, 1.0]}) is None
    assert small_picture("A", {"date": days[:1], "close": [1.0]}) is None
    flat = {"date": days, "close": [5.0, 5.0, 5.0]}
    assert svg_in(picture("A", flat)).get("viewBox") == f"0 0 722 {HEIGHT}"
    svg_in(small_picture("A", flat))


def test_a_ticker_is_text_and_nothing_else() -> None:
    drawn = picture("<a>&'\"](x)*", sessions()) or ""
    assert texts(svg_in(drawn.replace("![&#", "![x&#")))[0].startswith("<a>&'\"](x)* ")
    alternative = drawn[2 : drawn.index("](data:")]
    assert html.unescape(alternative).startswith("<a>&'\"](x)* from 2023")
    assert not re.search(r"[<>\[\]()*'\"]", alternative)
