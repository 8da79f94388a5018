"""A ticker's last sessions as a picture in SVG, for places that take Markdown and nothing else: Dagster's UI.

Here: what is drawn and where. Not here: reading the values (io_managers/metadata.py, run.py), the charts of the page (charts.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from html import escape
from typing import Any
from urllib.parse import quote

SESSIONS = 110  # in a picture: five months
STEP = 6  # units from session to session
TOP, PRICE_HEIGHT, VOLUME_HEIGHT, GAP, FOOT = 46, 220, 46, 8, 20
AXIS = 62  # units at the right, for the labels of prices
WIDTH = SESSIONS * STEP + AXIS
BASE = TOP + PRICE_HEIGHT + GAP + VOLUME_HEIGHT  # where the bars of volume stand
HEIGHT = BASE + FOOT
# Dagster's UI shows Markdown of up to 999 characters in its place, and longer Markdown in a dialog after a click.
INLINE_CHARACTERS = 999
SMALL_SESSIONS, SMALL_POINTS = 250, 50
SMALL_WIDTH, SMALL_HEIGHT, SMALL_VOLUME = 300, 64, 14
TICKS = 4
DRAWN_OF_SMOOTH = (
    3  # of three sessions an average and a band are drawn through one: nobody sees it, and it is a third as long
)
LINES = {"sma_20": "SMA 20", "sma_50": "SMA 50", "sma_200": "SMA 200"}
BAND = ("bb_upper", "bb_lower")
# The picture has its own background: neither theme of the UI that shows it is known. Each text has a contrast of at least 4.5.
_STYLE = (
    "text{font:11px sans-serif;fill:#475569}.t{font-size:15px;font-weight:700;fill:#0f172a}.p{fill:#fff}path{fill:none}"
    ".g{stroke:#e2e8f0}.band{fill:#2563eb;opacity:.12}.up{stroke:#047857}.down{stroke:#d1403f}.b{stroke-width:4}.v{opacity:.45}"
    ".l{stroke:currentColor;stroke-width:1.5}text.n{fill:currentColor}"
    ".sma_20{color:#2563eb}.sma_50{color:#b45309}.sma_200{color:#7c3aed}"
    "@media(prefers-color-scheme:dark){text{fill:#94a3b8}.t{fill:#e2e8f0}.p{fill:#0f172a}.g{stroke:#253248}.up{stroke:#34d399}"
    ".down{stroke:#f87171}.sma_20{color:#60a5fa}.sma_50{color:#fb923c}.sma_200{color:#c4b5fd}}"
)

Columns = Mapping[str, Sequence[Any]]


def picture(ticker: str, columns: Columns) -> str | None:
    """Markdown of the ticker's last SESSIONS sessions: candles, averages, bands and volume; None without two closes.

    `columns`: `date` and `close`, ascending by date, and of open, high, low, volume, LINES and BAND those that are known; a value
    may be None. An open, high or low that is unknown is drawn at the close.
    """
    shown = _last(columns, SESSIONS)
    closes = [close for close in shown["close"] if close is not None]
    if len(closes) < 2:
        return None
    days: Sequence[date] = shown["date"]
    scale = _Scale(_extremes(shown), TOP, PRICE_HEIGHT)
    drawn = "".join(
        (*_grid(scale, days), *_band(shown, scale), *_volume(shown), *_candles(shown, scale), *_lines(shown, scale))
    )
    values = "".join(
        f"<text class='n {name}' x='{12 + 118 * place}' y='38'>{label} {_price(shown[name][-1])}</text>"
        for place, (name, label) in enumerate((name, label) for name, label in LINES.items() if name in shown)
    )
    change = closes[-1] / closes[-2] - 1
    title = f"{escape(ticker)} {_price(closes[-1])}"
    svg = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}'><style>{_STYLE}</style>"
        f"<rect class='p' width='{WIDTH}' height='{HEIGHT}' rx='6'/><text class='t' x='12' y='21'>{title}</text>"
        f"<text x='{24 + 9 * len(title)}' y='21'>{_change(change)}, {days[0]} to {days[-1]}</text>{values}{drawn}</svg>"
    )
    return f"![{_alternative(ticker, shown)}]({_uri(svg)})"


def small_picture(ticker: str, columns: Columns) -> str | None:
    """Markdown, short enough to be shown in its place: a year's closes, their 50-session average, volume, and the extremes.

    `columns`: as in `picture`. None without two closes.
    """
    shown = _last(columns, SMALL_SESSIONS)
    days, closes = shown["date"], [close for close in shown["close"] if close is not None]
    if len(closes) < 2:
        return None
    last = len(days) - 1
    prices = _Scale(_extremes(shown, ("close", "sma_50")), 2, SMALL_HEIGHT - SMALL_VOLUME - 4)
    volumes = [volume or 0 for volume in shown.get("volume", ())]
    shares = _Scale((0, max(volumes, default=0) or 1), SMALL_HEIGHT - SMALL_VOLUME, SMALL_VOLUME)

    def line(values: Sequence[float | None], scale: _Scale, count: int) -> str:
        # Evenly spread places, of which the last is the newest.
        places = sorted({round(at * last / (count - 1)) for at in range(count)})
        return _path((round(place * SMALL_WIDTH / last), scale.of(values[place])) for place in places)

    drawn = [f"<path d='{line(shown['close'], prices, SMALL_POINTS)}' stroke='dodgerblue'/>"]
    if "sma_50" in shown:
        drawn.append(f"<path d='{line(shown['sma_50'], prices, SMALL_POINTS // 2)}' stroke='orange'/>")
    if any(volumes):
        ground = f"V{SMALL_HEIGHT}H0z"
        drawn.append(f"<path d='{line(volumes, shares, SMALL_POINTS)}{ground}' fill='gray' opacity='.4'/>")
    text = (
        f"**{_plain(ticker)} {_price(closes[-1])}** {_change(closes[-1] / closes[-2] - 1)}, {days[0]} to {days[-1]}, "
        f"low {_price(min(closes))}, high {_price(max(closes))}"
    )
    found = ""
    for count in range(len(drawn), 0, -1):  # of the wildest ticker a line is left out rather than the picture
        svg = (
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {SMALL_WIDTH} {SMALL_HEIGHT}' width='{2 * SMALL_WIDTH}' "
            f"fill='none'>{''.join(drawn[:count])}</svg>"
        )
        found = f"![{_alternative(ticker, shown)}]({_uri(svg)})\n\n{text}"
        if len(found) <= INLINE_CHARACTERS:
            break
    return found


class _Scale:
    """From a value to a vertical place: the highest value at `top`, the lowest `height` below it."""

    def __init__(self, extremes: tuple[float, float], top: int, height: int) -> None:
        self.low, self.high = extremes
        self._top, self._height = top, height

    def __call__(self, value: float) -> int:
        span = self.high - self.low
        return round(self._top + self._height * (self.high - value) / span) if span else self._top + self._height // 2

    def of(self, value: float | None) -> int | None:
        return None if value is None else self(value)


def _last(columns: Columns, count: int) -> dict[str, list[Any]]:
    """The last `count` values of each column; a number that is not finite is unknown."""

    def known(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {name: [known(value) for value in values[-count:]] for name, values in columns.items()}


def _extremes(shown: Columns, names: Sequence[str] = ("close", "high", "low", *BAND, *LINES)) -> tuple[float, float]:
    values = [value for name in names for value in shown.get(name, ()) if value is not None]
    return min(values), max(values)


def _x(place: int) -> int:
    return place * STEP + STEP // 2


def _grid(scale: _Scale, days: Sequence[date]) -> Iterator[str]:
    """Horizontal lines at round prices, with their labels at the right; the names of months below."""
    span = scale.high - scale.low or abs(scale.high) or 1.0
    rough = span / TICKS
    size = 10.0 ** math.floor(math.log10(rough))
    tick = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough)
    for number in range(math.ceil(scale.low / tick), math.floor(scale.high / tick) + 1):
        y, label = scale(number * tick), _price(number * tick)
        yield f"<path class='g' d='M0,{y}h{SESSIONS * STEP}'/><text x='{SESSIONS * STEP + 6}' y='{y + 4}'>{label}</text>"
    for place, (before, day) in enumerate(zip([days[0], *days], days, strict=False)):
        if (before.year, before.month) != (day.year, day.month):
            name = f"{day:%Y}" if day.month == 1 else f"{day:%b}"
            yield f"<text x='{_x(place)}' y='{HEIGHT - 6}'>{name}</text>"


def _band(shown: Columns, scale: _Scale) -> Iterator[str]:
    if not all(name in shown for name in BAND):
        return
    places = [place for place in _places(shown) if all(shown[name][place] is not None for name in BAND)]
    upper, lower = ([(_x(place), scale(shown[name][place])) for place in places] for name in BAND)
    if places:
        yield f"<path class='band' d='{_path([*upper, *reversed(lower)])}z'/>"


def _places(shown: Columns) -> list[int]:
    """The places through which smooth lines are drawn: every DRAWN_OF_SMOOTH-th, back from the newest."""
    return list(range(len(shown["date"]) - 1, -1, -DRAWN_OF_SMOOTH))[::-1]


def _is_up(shown: Columns, place: int) -> bool:
    opened = shown["open"][place] if "open" in shown else None
    return opened is None or shown["close"][place] >= opened


def _of_direction(shown: Columns, segment: Callable[[int], tuple[int, int, int] | None]) -> Iterator[tuple[str, str]]:
    """A class and a path of vertical lines for sessions that rose and for those that fell.

    `segment`: of a session's place, where its line begins, and its length.
    """
    for name, wanted in (("up", True), ("down", False)):
        parts, at = [], (0, 0)
        for place in range(len(shown["close"])):
            found = segment(place) if shown["close"][place] is not None and _is_up(shown, place) is wanted else None
            if found is None:
                continue
            x, y, length = found
            parts.append(f"m{_joined(x - at[0], y - at[1])}v{length}")
            at = (x, y + length)
        if parts:
            yield name, "M0,0" + "".join(parts)


def _candles(shown: Columns, scale: _Scale) -> Iterator[str]:
    def between(one: str, other: str) -> Callable[[int], tuple[int, int, int] | None]:
        def segment(place: int) -> tuple[int, int, int]:
            close = shown["close"][place]
            ends = [shown[name][place] if name in shown else None for name in (one, other)]
            first, last = (scale(close if end is None else end) for end in ends)
            return _x(place), first, last - first or 1  # a line without length is not drawn

        return segment

    for name, path in _of_direction(shown, between("high", "low")):
        yield f"<path class='{name}' d='{path}'/>"
    for name, path in _of_direction(shown, between("open", "close")):
        yield f"<path class='{name} b' d='{path}'/>"


def _volume(shown: Columns) -> Iterator[str]:
    volumes = shown.get("volume", ())
    most = max((volume for volume in volumes if volume), default=0)
    if not most:
        return

    def segment(place: int) -> tuple[int, int, int] | None:
        height = round(VOLUME_HEIGHT * (volumes[place] or 0) / most)
        return (_x(place), BASE, -height) if height else None

    for name, path in _of_direction(shown, segment):
        yield f"<path class='{name} b v' d='{path}'/>"


def _lines(shown: Columns, scale: _Scale) -> Iterator[str]:
    for name in LINES:
        if name not in shown:
            continue
        if path := _path((_x(place), scale.of(shown[name][place])) for place in _places(shown)):
            yield f"<path class='l {name}' d='{path}'/>"


def _path(points: Iterable[tuple[int, int | None]]) -> str:
    """A path through `points`, pairs of x and y; it is interrupted where y is None."""
    parts: list[str] = []
    at: tuple[int, int] | None = None
    for x, y in points:
        if y is None:
            at = None
            continue
        parts.append(f"M{_joined(x, y)}" if at is None else f"l{_joined(x - at[0], y - at[1])}")
        at = (x, y)
    return "".join(parts)


def _joined(x: int, y: int) -> str:
    """Two numbers, with a comma where the sign of the second does not part them."""
    return f"{x}{y}" if y < 0 else f"{x},{y}"


def _price(value: float | None) -> str:
    if value is None:
        return "\N{EN DASH}"
    return f"{value:,.2f}" if abs(value) >= 1 or value == 0 else f"{value:.4g}"


def _change(share: float) -> str:
    return f"{share:+.2%}".replace("-", "\N{MINUS SIGN}")


def _alternative(ticker: str, shown: Columns) -> str:
    return f"{_plain(ticker)} from {shown['date'][0]} to {shown['date'][-1]}"


def _plain(ticker: str) -> str:
    """A ticker in Markdown: `^` and `=` mean nothing there, but `*` and `_` do, and the first letter of a name may be any."""
    return "".join(letter if letter.isalnum() or letter in "^=-." else f"&#{ord(letter)};" for letter in ticker)


def _uri(svg: str) -> str:
    """A data URI of `svg`. Not in Base64, which is a third longer; blanks and parentheses would end the link in Markdown."""
    return "data:image/svg+xml," + quote(svg, safe="<>/=:;,'+-.!*@{}[]&")
