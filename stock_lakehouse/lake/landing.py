"""Which delivered rows land in raw, and what is known of the basis of their prices.

Here: the rules, over frames of text in memory. Not here: files (raw_csv.py), and what the values mean beyond session and action.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from stock_lakehouse.partitions import LOOK_BACK, Rectangle
from stock_lakehouse.schemas import raw as schema
from stock_lakehouse.schemas.forms import RATIO, numbers
from stock_lakehouse.sources import (
    COUNTS,
    SPLIT_ADJUSTED,
    TOTAL_RETURN,
    Contradiction,
    Landing,
)
from stock_lakehouse.tables import UNREADABLE

if TYPE_CHECKING:
    import pandas as pd

DAY = re.compile(r"\s*(\d{4}-\d{2}-\d{2})(?:[T ].*)?\s*", re.DOTALL)
VALUES = [column.name for column in schema.TEXT]
# How a row is to be read: two deliveries are the same only if this is too. A file from before these columns has ANY.
MEANING = ["session", "decimal", "basis", "says"]
COMPARED = [*VALUES, *MEANING]
ANY = "\0any"
KEY = ["ticker", "year", "key"]
STAMP = "%Y-%m-%dT%H:%M:%S.%fZ"
# Vendors round the prices that they adjust. Two closes of one day whose ratio is nearer to 1 are on one basis.
SAME_BASIS = math.log(1.02)
ONE_BAR_SAYS = math.log(1.2)  # what a single bar that differs may be: a correction, or another basis
LISTED = 1000  # contradictions that a landing remembers


@dataclass(frozen=True)
class Split:
    """A split named in a delivery: `ratio` new shares for one, first traded on `day` (ISO)."""

    day: str
    ratio: float


def place(rows: pd.DataFrame, asked: Rectangle) -> pd.DataFrame:
    """`rows` with the ticker and year of their folder, `day` (ISO text or None), `key`, and whether they are `inside`.

    Inside are the rows of the tickers and sessions asked; those that cannot be read, since nobody can say of what they are; and
    rows of LOOK_BACK before the first session that name a split or dividend, which a request for later sessions would lose.
    """
    import numpy as np

    placed = rows.assign(ticker=rows["ticker"].fillna(UNREADABLE))
    readable = placed["problem"].isna()
    sessions = placed["session"].where(placed["session"].notna() | ~readable, placed["date"])
    days = {text: day_of(text) for text in sessions.unique()}
    placed["day"] = [days[text] for text in sessions]
    placed["year"] = [day[:4] if day else UNREADABLE for day in placed["day"]]
    covered = {day: day is None or asked.covers(date.fromisoformat(day)) for day in set(days.values())}
    since = (asked.first - LOOK_BACK).isoformat()
    start = asked.first.isoformat()
    recent = np.array([day is not None and since <= day < start for day in placed["day"]], dtype=bool)
    acting = recent.copy()
    if recent.any():
        acting[recent] = acts(placed[recent]).to_numpy(dtype=bool)
    tickers = placed["ticker"].isin([*asked.tickers, UNREADABLE])
    placed["inside"] = tickers & (np.array([covered[day] for day in placed["day"]], dtype=bool) | acting)
    placed["key"] = keys_of(placed)
    return placed


def day_of(text: Any) -> str | None:
    """The day that `text` begins with, as ISO text; None if it is none of the years 1 to 9999."""
    match = DAY.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    try:
        return date.fromisoformat(match[1]).isoformat()
    except ValueError:
        return None


def acts(rows: pd.DataFrame) -> pd.Series:
    """Whether a row names a dividend, a capital gain or a split."""
    import pandas as pd

    amounts = [_numbers(rows, name).fillna(0) > 0 for name in ("dividends", "capital_gains")]
    ratios = pd.Series([ratio not in (None, 1.0) for ratio in _ratios(rows)], index=rows.index)
    return amounts[0] | amounts[1] | ratios


def keys_of(rows: pd.DataFrame) -> list[str]:
    """What makes two rows of a ticker and year deliveries of the same thing: the day; or a digest of everything that was
    delivered, where the ticker, the day or the row as a whole cannot be read."""

    def digest(values: tuple[Any, ...]) -> str:
        return hashlib.sha256(
            repr([value if isinstance(value, str) and value else None for value in values]).encode()
        ).hexdigest()

    keys = [str(day) for day in rows["day"]]
    unreadable = (rows["ticker"] == UNREADABLE) | (rows["year"] == UNREADABLE) | rows["problem"].notna()
    values = rows[VALUES]
    for index in unreadable.to_numpy().nonzero()[0]:
        keys[index] = digest(tuple(values.iloc[index]))
    return keys


def fresh(
    inside: pd.DataFrame,
    landed: pd.DataFrame,
    now: datetime,
    final_at: Callable[[date], datetime | None],
    proven: pd.Series | None = None,
) -> pd.DataFrame:
    """The rows of `inside` that land, in order and by its index, each with the text of its `ingested_at`.

    A row lands if it is new or differs from the newest landed row of its key; once more after its session's close, so that it can
    become final; and, where `proven` says so, though it is the same: its delivery proves a newer basis of its prices.
    A row's landing time is `now`, but always later than that of the row it supersedes, by a microsecond if need be: the
    newest delivery is then known by its time alone, whatever the clock did and however often one delivery repeats a key.
    """
    import pandas as pd

    columns = list(dict.fromkeys([*KEY, "day", *COMPARED, "problem", "adjusted_to", "ingested_at", *PASSED]))
    newest = landed.drop_duplicates(KEY, keep="last")
    both = pd.concat(
        [newest.reindex(columns=columns).astype(object), inside.reindex(columns=columns).astype(object)],
        ignore_index=True,
    )
    both["is_new"] = [False] * len(newest) + [True] * len(inside)
    before = both.groupby(KEY, sort=False)
    values = both[COMPARED].where(both[COMPARED].notna(), "")
    earlier = before[COMPARED].shift().fillna("")
    same = ((values == earlier) | (earlier == ANY)).all(axis=1) & (before.cumcount() > 0)
    same |= pd.Series([False] * len(newest) + delivered_before(inside, landed), dtype=bool)
    forced = [False] * len(both) if proven is None else [*[False] * len(newest), *proven.tolist()]
    is_last = ~both.duplicated(KEY, keep="last")
    stamps, kept = [], []
    last: dict[tuple[str, str, str], datetime] = {}
    finals: dict[str, datetime | None] = {}
    stamp_of_now = now.strftime(STAMP)
    for is_new, ticker, year, key, day, repeated, proves, last_of_key, stamp in zip(
        *(both[name] for name in ("is_new", *KEY, "day")), same, forced, is_last, both["ingested_at"], strict=True
    ):
        identity = (ticker, year, key)
        before_it = last.get(identity)
        if not is_new:
            last[identity] = datetime.fromisoformat(stamp)
            kept.append(False)
            stamps.append(stamp)
            continue
        if day and day not in finals:
            finals[day] = final_at(date.fromisoformat(day))
        # A row without a ticker never becomes a bar, so nothing of it can become final.
        final = finals.get(day) if day and ticker != UNREADABLE else None
        confirms = final is not None and before_it is not None and before_it < final <= now and last_of_key
        if repeated and not confirms and not proves:
            kept.append(False)
            stamps.append(None)
            continue
        at = now if before_it is None else max(now, before_it + timedelta(microseconds=1))
        last[identity] = at
        kept.append(True)
        stamps.append(stamp_of_now if at == now else at.strftime(STAMP))
    both["ingested_at"] = stamps
    landing = both.loc[kept]  # not both[kept], which takes an empty list for columns
    landing.index = inside.index[landing.index - len(newest)]
    return landing


# Columns that pass through `fresh` beside those that it compares.
PASSED = ("file", "line_number", "adj_close_as_of")


def delivered_before(inside: pd.DataFrame, landed: pd.DataFrame) -> list[bool]:
    """Which rows of `inside` are of a key that it gives several times, all of them landed before and the last the newest.

    Each of those rows differs from the one before it, so one by one all would land again whenever they are delivered.
    """
    several = inside.duplicated(KEY, keep=False).to_numpy()
    if not several.any():
        return [False] * len(inside)
    delivered, there = _texts(inside[several]), _texts(landed)
    known = {
        key
        for key, rows in delivered.items()
        if key in there and rows[-1] == there[key][-1] and set(rows) <= set(there[key])
    }
    return [key in known for key in zip(*(inside[name] for name in KEY), strict=True)]


def reverting(inside: pd.DataFrame, landed: pd.DataFrame) -> pd.Series:
    """Which rows of `inside` are of a key whose newest landed row is another, and which had landed before that one.

    Such a row is a vendor's correction taken back, or one of two files that contradict each other: the other one may still come.
    """
    import pandas as pd

    twice = landed[landed.duplicated(KEY, keep=False)]
    if twice.empty:
        return pd.Series(False, index=inside.index)
    there = _texts(twice)
    own = keys_in(inside)
    candidates = own.map(lambda key: key in there)
    values = inside[VALUES].astype(object).where(inside[VALUES].notna(), "")
    returning = {
        key
        for key, row in zip(own[candidates], values[candidates].itertuples(index=False, name=None), strict=True)
        if row != there[key][-1] and row in there[key]
    }
    return own.map(lambda key: key in returning)


def keys_in(rows: pd.DataFrame) -> pd.Series:
    """The key of each row as one value."""
    import pandas as pd

    return pd.Series(list(zip(*(rows[name] for name in KEY), strict=True)), index=rows.index, dtype=object)


def counted(rows: pd.DataFrame, fates: pd.Series) -> Landing:
    """`rows` as a Landing, in all and by file; `fates` has what became of each, one of `sources.COUNTS`."""
    by_file: dict[str, Landing] = {}
    for name, group in fates.groupby(rows["file"].fillna(""), sort=True):
        landed, repeated, outside, withheld = (int((group == fate).sum()) for fate in COUNTS[1:])
        by_file[str(name)] = Landing(len(group), landed, repeated, outside, withheld)
    total = sum(by_file.values(), Landing())
    return replace(total, by_file={name: landing for name, landing in by_file.items() if name})


def _texts(rows: pd.DataFrame) -> dict[tuple[Any, ...], list[tuple[Any, ...]]]:
    """The text of the rows of each key, in order."""
    found: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    values = rows[VALUES].astype(object).where(rows[VALUES].notna(), "")
    for *key, text in zip(*(rows[name] for name in KEY), values.itertuples(index=False, name=None), strict=True):
        found.setdefault(tuple(key), []).append(text)
    return found


def contradictions(rows: pd.DataFrame, landed: pd.DataFrame, now: datetime) -> tuple[Contradiction, ...]:
    """Sessions of a ticker of which `rows` has several different ones, or this download, which began at `now`, has landed
    another."""
    import pandas as pd

    readable = (rows["ticker"] != UNREADABLE) & rows["day"].notna() & rows["problem"].isna()
    columns = [*KEY, *VALUES, "file"]
    of_now = landed[landed["ingested_at"] >= now.strftime(STAMP)] if len(landed) else landed
    if of_now.empty and not rows.duplicated(KEY).any():
        return ()
    both = pd.concat([of_now.reindex(columns=columns), rows.loc[readable, columns]], ignore_index=True)
    several = both[both.duplicated(KEY, keep=False)].fillna("")
    different = several.drop_duplicates([*KEY, *VALUES])
    different = different[different.duplicated(KEY, keep=False)]
    delivered = set(zip(*(rows[name] for name in KEY), strict=True)) if len(different) else set()
    found = []
    for key, group in different.groupby(KEY, sort=True):
        if key in delivered:
            files = tuple(dict.fromkeys(name for name in group["file"] if name))
            found.append(Contradiction(key[0], key[2], len(group), files))
    return tuple(found[:LISTED])


def with_basis(placed: pd.DataFrame, landed: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[str, str]]:
    """`placed` with `adjusted_to` put right where a vendor adjusted its prices before the ex-date had a bar, and the tickers of
    which it is not known what their prices are adjusted for, each with the reason.

    A vendor that adjusts at night delivers yesterday's bar on the new basis on the morning of a split's ex-date. What is landed
    tells: closes of the same days differ by the split's ratio, or do not. Where no day is in both, nobody can say.
    """
    adjusted = placed["basis"].fillna(SPLIT_ADJUSTED) == SPLIT_ADJUSTED
    ours = placed[adjusted & placed["adjusted_to"].notna() & placed["day"].notna() & placed["problem"].isna()]
    unknown: dict[str, str] = {}
    named, there = splits_of(placed), dict(list(landed.groupby("ticker", sort=False)))
    for ticker, rows in ours.groupby("ticker", sort=True):
        splits, newest = named.get(str(ticker), []), str(rows["adjusted_to"].max())
        coming = [split for split in splits if split.day > newest]
        beside = rows[~rows["inside"]]
        if not coming and (beside.empty or ticker not in there):
            continue
        before = there.get(ticker, landed[:0])
        shifts = _shifts(rows if coming else beside, before)
        if (
            not shifts and coming and rows["file"].isna().all()
        ):  # an answer is of now; a file may be from before the ex-date
            unknown[str(ticker)] = (
                f"a split of {coming[0].ratio:g} for 1 is named for {coming[0].day}, of which there is no bar yet: whether the "
                "prices before are adjusted for it cannot be known; they land when that session has a bar"
            )
        # Closes that did not move are on the basis that they were landed on: a file that grows is not adjusted anew.
        unchanged, known = _explained(shifts, [], before), [split for split in splits if split.day <= newest]
        if not shifts or unchanged or _explained(shifts, known, before):
            continue
        if coming and _explained(shifts, splits, before):
            placed.loc[rows.index, "adjusted_to"] = coming[-1].day
            # The announcement lands with the prices that are adjusted by it: until the ex-date they are taken back.
            announced = (placed["ticker"] == ticker) & placed["day"].isin([split.day for split in coming])
            placed.loc[announced, "inside"] = True
            continue
        middle = sorted(shift for shift, _ in shifts)[len(shifts) // 2]
        unknown[str(ticker)] = (
            f"its prices are {math.exp(middle):.4g} times those landed of the same sessions and no split is named that says "
            f"so; run its whole history again: stock-lakehouse materialize --tickers {ticker}"
        )
    return placed, unknown


def _shifts(rows: pd.DataFrame, landed: pd.DataFrame) -> list[tuple[float, str]]:
    """Of each day that is in both: the log of the delivered over the landed close, and until when the landed one is adjusted."""
    newest = landed.drop_duplicates(KEY, keep="last")
    then = dict(zip(newest["day"], zip(_numbers(newest, "close"), newest["adjusted_to"], strict=True), strict=True))
    found = []
    for day, close in zip(rows["day"], _numbers(rows, "close"), strict=True):
        was, adjusted_to = then.get(day, (0.0, None))
        if was > 0 and close > 0:  # nan is above nothing
            found.append((math.log(close / was), adjusted_to if isinstance(adjusted_to, str) else str(day)))
    return found


def _explained(shifts: Sequence[tuple[float, str]], splits: Sequence[Split], landed: pd.DataFrame) -> bool:
    """Whether most closes moved as `splits` say: by those after the landed bar's basis, and by what a vendor corrected of others.

    A single day that moved by less than ONE_BAR_SAYS is a correction of that bar.
    """
    named = landed[landed["day"].isin([split.day for split in splits])].drop_duplicates(KEY, keep="last")
    said = dict(zip(named["day"], _ratios(named), strict=True))

    def expected(until: str) -> float:
        return -sum(
            math.log(split.ratio if split.day > until else split.ratio / (said.get(split.day) or split.ratio))
            for split in splits
        )

    away = [abs(shift - expected(until)) for shift, until in shifts]
    if len(away) == 1 and away[0] < ONE_BAR_SAYS:
        return True
    return sum(distance < SAME_BASIS for distance in away) * 2 > len(away)


def splits_of(rows: pd.DataFrame) -> dict[str, list[Split]]:
    """The splits that `rows` name, by ticker, each in ascending order."""
    found: dict[str, set[Split]] = {}
    for ticker, day, ratio in zip(rows["ticker"], rows["day"], _ratios(rows), strict=True):
        if ratio not in (None, 1.0) and isinstance(day, str):
            found.setdefault(ticker, set()).add(Split(day, ratio))
    return {ticker: sorted(splits, key=lambda split: split.day) for ticker, splits in found.items()}


def proves_newer_basis(placed: pd.DataFrame, landed: pd.DataFrame, landing: pd.DataFrame) -> pd.Series:
    """Which rows of `placed` are to land though their text is the same: their delivery proves that they are adjusted for a split
    that the landed rows are taken not to know.

    The proof is the delivery's own move over the ex-date: nearer to none than to the ratio. A split that is named while the
    history is not adjusted yet shows the ratio, and proves nothing. `landing` are the rows that land anyway.
    """
    import numpy as np
    import pandas as pd

    proven = pd.Series(False, index=placed.index)
    if landed.empty:
        return proven
    adjusted = placed["basis"].fillna(SPLIT_ADJUSTED).isin([SPLIT_ADJUSTED, TOTAL_RETURN])
    readable = placed["problem"].isna() & placed["day"].notna() & adjusted & placed["adjusted_to"].notna()
    named = splits_of(placed[readable])
    delivered = placed[readable & placed["ticker"].isin(named)].groupby("ticker", sort=False)
    for ticker, own in delivered:
        splits = named[str(ticker)]
        there = landed[landed["ticker"] == ticker]
        newest = there.drop_duplicates(KEY, keep="last").set_index("day")
        stamps = (
            landing[landing["ticker"] == ticker].drop_duplicates("day", keep="last").set_index("day")["ingested_at"]
        )
        for split in splits:
            if not is_applied(own, split):
                continue
            seen = stamps.get(split.day) or (
                newest["ingested_at"].get(split.day) if split.day in newest.index else None
            )
            if seen is None:
                continue
            versions = there[(there["day"] == split.day) & (there["ingested_at"] < seen)]
            otherwise = [ratio for ratio in _ratios(versions) if ratio is not None and ratio != split.ratio]
            rows = own[(own["day"] < split.day) & (own["adjusted_to"] >= split.day) & own["day"].isin(newest.index)]
            was = newest.loc[rows["day"]]
            unaware = [
                str(to or "") < split.day or (bool(otherwise) and str(at) < str(seen))
                for to, at in zip(was["adjusted_to"].fillna(""), was["ingested_at"], strict=True)
            ]
            proven.loc[rows.index] |= np.array(unaware, dtype=bool)
    return proven


def is_applied(rows: pd.DataFrame, split: Split) -> bool:
    """Whether the closes of a ticker's rows move over the ex-date as if they were adjusted for the split; False if they do
    not say."""
    closes = sorted((day, close) for day, close in zip(rows["day"], _numbers(rows, "close"), strict=True) if close > 0)
    before = [close for day, close in closes if day < split.day]
    since = [close for day, close in closes if day >= split.day]
    if not before or not since:
        return False
    move = math.log(before[-1] / since[0])
    return abs(move) < abs(move - math.log(split.ratio))


def _numbers(rows: pd.DataFrame, name: str) -> pd.Series:
    """The doubles that the texts of a column mean; nan where they mean none."""
    import pandas as pd
    import pyarrow as pa

    texts = rows[name].astype(object).where(rows[name].notna(), None)
    commas = rows["decimal"] == "," if "decimal" in rows.columns else pd.Series(False, index=rows.index)
    out = pd.Series(float("nan"), index=rows.index, dtype=float)
    for own, mark in ((~commas, None), (commas, ",")):
        if own.any():
            out.loc[own] = numbers(pa.array(texts[own].tolist(), pa.string()), mark).to_numpy(zero_copy_only=False)
    return out


def _ratios(rows: pd.DataFrame) -> Sequence[float | None]:
    """New shares for one old one, by row; 1 for a word that says none, None where nothing is said or it cannot be read."""
    found: dict[tuple[Any, Any], float | None] = {}
    marks = rows["decimal"] if "decimal" in rows.columns else [None] * len(rows)
    pairs = [
        (text if isinstance(text, str) else None, mark == ",")
        for text, mark in zip(rows["stock_splits"], marks, strict=True)
    ]
    for text, comma in set(pairs):
        found[text, comma] = None if text is None else ratio_of(text, "," if comma else None)
    return [found[pair] for pair in pairs]


def ratio_of(text: str, decimal: str | None = None) -> float | None:
    """New shares for one old one: 4.0, 4:1, 1/10, 4-for-1; 1 for 0, which vendors write for "no split"; None if it is none."""
    import pyarrow as pa

    match = re.match(RATIO.replace(r"\z", r"\Z"), text.strip().lower())
    if match:
        new, old = float(match[1]), float(match[2])
        return new / old if new > 0 and old > 0 else None
    value = numbers(pa.array([text], pa.string()), decimal)[0].as_py()
    return None if value is None or value < 0 else value or 1.0
