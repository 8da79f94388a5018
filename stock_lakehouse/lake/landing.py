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

DAY_TEXT = re.compile(r"\s*(\d{4}-\d{2}-\d{2})(?:[T ].*)?\s*", re.DOTALL)
VALUES = [column.name for column in schema.TEXT]
# How a row is to be read: two deliveries are the same only if this is too. A file from before these columns has ANY.
MEANING = ["session", "decimal", "basis", "says"]
COMPARED = [*VALUES, *MEANING]
ANY = "\0any"
KEY = ["ticker", "year", "key"]
NUMERIC = ("open", "high", "low", "close", "adj_close", "volume", "dividends", "capital_gains")
STAMP = "%Y-%m-%dT%H:%M:%S.%fZ"
# Vendors round the prices that they adjust. Two closes of one day whose ratio is nearer to 1 are on one basis.
SAME_BASIS = math.log(1.02)
ROUNDED = 3e-4  # relative: what rounding an adjusted close to cents may move it by
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
    rows that name a split or dividend of LOOK_BACK before the first session, which a request for later sessions would lose, or
    after the last session in its year: prices may be adjusted by it.
    """
    import numpy as np
    import pandas as pd

    placed = rows.assign(ticker=rows["ticker"].fillna(UNREADABLE))
    readable = placed["problem"].isna()
    sessions = placed["session"].where(placed["session"].notna() | ~readable, placed["date"])
    # A delivery has each day many times, so its texts are looked at once.
    codes, texts = pd.factorize(sessions, use_na_sentinel=False)
    days = [day_of(text) for text in texts]
    covered = np.array([day is None or asked.covers(date.fromisoformat(day)) for day in days], dtype=bool)
    since = (asked.first - LOOK_BACK).isoformat()
    start, end, until = asked.first.isoformat(), asked.last.isoformat(), f"{asked.last.year}-12-31"

    def by_row(of_days: Sequence[str | None]) -> pd.Series:
        return pd.Series(of_days, dtype=object).take(codes).set_axis(placed.index)

    placed["day"] = by_row(days)
    placed["year"] = by_row([day[:4] if day else UNREADABLE for day in days])
    # Later ones too, as far as the run reads: prices may be adjusted by them already.
    recent = np.array([day is not None and (since <= day < start or end < day <= until) for day in days], dtype=bool)[
        codes
    ]
    acting = recent.copy()
    if recent.any():
        acting[recent] = acts(placed[recent]).to_numpy(dtype=bool)
    tickers = placed["ticker"].isin([*asked.tickers, UNREADABLE])
    placed["inside"] = tickers & (covered[codes] | acting)
    placed["key"] = keys_of(placed)
    return placed


def day_of(text: Any) -> str | None:
    """The day that `text` begins with, as ISO text; None if it is none of the years 1 to 9999."""
    match = DAY_TEXT.fullmatch(text) if isinstance(text, str) else None
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
    # Most rows are the first of their key, and need no comparison: all of a first load, almost all of a daily one.
    are_first = ~inside.duplicated(KEY, keep=False) & ~_are_in(inside, landed)
    firsts = inside[are_first].reindex(columns=columns).assign(ingested_at=now.strftime(STAMP))
    if are_first.all():
        return firsts
    of_others = None if proven is None else proven[~are_first]
    others = _fresh_by_comparison(inside[~are_first], landed, now, final_at, of_others, columns)
    both = pd.concat([firsts, others]) if len(others) else firsts
    return both.reindex(inside.index.intersection(both.index, sort=False))


def _are_in(rows: pd.DataFrame, landed: pd.DataFrame) -> pd.Series:
    """Which rows are of a key of `landed`."""
    import pandas as pd

    if landed.empty:
        return pd.Series(False, index=rows.index)
    keys, known = (pd.MultiIndex.from_frame(frame[KEY]) for frame in (rows, landed))
    return pd.Series(keys.isin(known), index=rows.index)


def _fresh_by_comparison(
    inside: pd.DataFrame,
    landed: pd.DataFrame,
    now: datetime,
    final_at: Callable[[date], datetime | None],
    proven: pd.Series | None,
    columns: Sequence[str],
) -> pd.DataFrame:
    """`fresh`, each row compared with the one before it of its key."""
    import pandas as pd

    landed = landed[_are_in(landed, inside)]
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
    columns = [*KEY, *VALUES, "decimal", "file"]
    of_now = landed[landed["ingested_at"] >= now.strftime(STAMP)] if len(landed) else landed
    if of_now.empty and not rows.duplicated(KEY).any():
        return ()
    both = pd.concat([of_now.reindex(columns=columns), rows.loc[readable, columns]], ignore_index=True)
    several = both[both.duplicated(KEY, keep=False)].fillna("")
    several = several.assign(**{name: _numbers(several, name).fillna(several[name]) for name in NUMERIC})  # 97.1, 97.10
    different = several.drop_duplicates([*KEY, *VALUES])
    different = different[different.duplicated(KEY, keep=False)]
    delivered = set(zip(*(rows[name] for name in KEY), strict=True)) if len(different) else set()
    found = []
    for key, group in different.groupby(KEY, sort=True):
        if key in delivered:
            files = tuple(dict.fromkeys(name for name in group["file"] if name))
            found.append(Contradiction(key[0], key[2], len(group), files))
    return tuple(found[:LISTED])


@dataclass(frozen=True)
class Basis:
    """What a delivery's own prices and the landed ones say together of their basis.

    - rows: the delivered rows, with `adjusted_to` put right
    - unknown: tickers whose prices do not land, since nobody can say what they are adjusted for, each with the reason
    - readjusted: tickers whose landed prices the vendor has adjusted anew for dividends that it does not name, with the factor
    """

    rows: pd.DataFrame
    unknown: Mapping[str, str]
    readjusted: Mapping[str, float]


_OF_BASIS = [
    "ticker",
    "day",
    "inside",
    "file",
    "close",
    "adj_close",
    "decimal",
    "adjusted_to",
    "adj_close_as_of",
    "says",
    "basis",
]


def basis_of(placed: pd.DataFrame, landed: pd.DataFrame, landed_splits: Callable[[str], Sequence[Split]]) -> Basis:
    """The basis of delivered prices, held against what is landed of the same days; `landed_splits` are all of a ticker.

    A vendor that adjusts at night delivers yesterday's bar on the new basis on the morning of a split's ex-date. What is landed
    tells: closes of the same days differ by the split's ratio, or do not. Where no day is in both, nobody can say.
    """
    form = placed["basis"].fillna(SPLIT_ADJUSTED)
    says_when = placed["adjusted_to"].notna() | placed["adj_close_as_of"].notna()
    ours = placed.loc[says_when & placed["day"].notna() & placed["problem"].isna(), _OF_BASIS]
    unknown: dict[str, str] = {}
    readjusted: dict[str, float] = {}
    named, there = splits_of(placed), dict(list(landed.groupby("ticker", sort=False)))
    for name, rows in ours.groupby("ticker", sort=True):
        ticker, before = str(name), there.get(name, landed[:0])
        splits, newest = named.get(ticker, []), max(rows["adjusted_to"].dropna().unique(), default="")
        coming = [split for split in splits if newest and split.day > newest]  # where nobody says, none
        beside = rows[~rows["inside"]]
        if factor := _readjustment(beside, before, [*splits, *splits_of(before).get(ticker, [])]):
            readjusted[ticker] = factor
        if (form[rows.index] != SPLIT_ADJUSTED).any() or (not coming and (beside.empty or before.empty)):
            continue
        shifts = _shifts(rows if coming else beside, before, "close")
        if (
            not shifts and coming and rows["file"].isna().all()
        ):  # an answer is of now, a file may be older than the ex-date
            unknown[ticker] = (
                f"a split of {coming[0].ratio:g} for 1 is named for {coming[0].day}, of which there is no bar yet: whether the "
                "prices before are adjusted for it cannot be known; they land when that session has a bar"
            )
        if not shifts or _explained(shifts, splits, before, newest):
            continue
        if coming and _explained(shifts, splits, before, coming[-1].day):
            placed.loc[rows.index, "adjusted_to"] = coming[-1].day
            # The announcement lands with the prices that are adjusted by it: until the ex-date they are taken back.
            announced = (placed["ticker"] == ticker) & placed["day"].isin([split.day for split in coming])
            placed.loc[announced, "inside"] = True
        elif not _explained(shifts, [*splits, *landed_splits(ticker)], before, newest):
            middle = sorted(shift.size for shift in shifts)[len(shifts) // 2]
            unknown[ticker] = (
                f"its prices are {math.exp(middle):.4g} times those landed of the same sessions and no split is known that says "
                f"so; run its whole history again: stock-lakehouse materialize --tickers {ticker}"
            )
    return Basis(placed, unknown, readjusted)


@dataclass(frozen=True)
class _Shift:
    """Of a day that is delivered and landed: the log of the delivered over the landed price; when that one landed, and until
    when it is adjusted."""

    day: str
    size: float
    until: str
    landed_at: str


def _shifts(rows: pd.DataFrame, landed: pd.DataFrame, column: str) -> list[_Shift]:
    newest = landed.drop_duplicates(KEY, keep="last")
    then = {
        day: (price, adjusted_to if isinstance(adjusted_to, str) else day, landed_at)
        for day, price, adjusted_to, landed_at in zip(
            newest["day"], _numbers(newest, column), newest["adjusted_to"], newest["ingested_at"], strict=True
        )
    }
    found = []
    for day, price in zip(rows["day"], _numbers(rows, column), strict=True):
        was, until, landed_at = then.get(day, (0.0, "", ""))
        if was > 0 and price > 0:  # nan is above nothing
            found.append(_Shift(str(day), math.log(price / was), until, landed_at))
    return found


def _explained(
    shifts: Sequence[_Shift], splits: Sequence[Split], landed: pd.DataFrame, to: str, within: float = SAME_BASIS
) -> bool:
    """Whether most closes, now adjusted up to `to`, moved as they would: not at all, since a file that grows is not adjusted
    anew; by the splits that the landed delivery did not know, or knew otherwise; or by those that it should have been
    adjusted by and was not. A single day that moved by less than ONE_BAR_SAYS is a correction of that bar.
    """
    ratios = {split.day: split.ratio for split in splits}
    versions = landed[landed["day"].isin(ratios)]
    said: dict[str, list[tuple[str, float]]] = {}
    for day, at, ratio in zip(versions["day"], versions["ingested_at"], _ratios(versions), strict=True):
        if ratio is not None:
            said.setdefault(day, []).append((at, ratio))

    def then(day: str, landed_at: str) -> float:
        known = said.get(day) or [("", ratios[day])]
        return ([ratio for at, ratio in known if at <= landed_at] or [known[0][1]])[-1]

    def by_knowledge(shift: _Shift) -> float:
        moved = 0.0
        for day, ratio in ratios.items():
            now = ratio if shift.day < day <= to else 1.0
            was = then(day, shift.landed_at) if shift.day < day <= shift.until else 1.0
            moved -= math.log(now / was)
        return moved

    def by_all(shift: _Shift) -> float:
        return -sum(math.log(ratio) for day, ratio in ratios.items() if shift.day < day <= to)

    def none(_: _Shift) -> float:
        return 0.0

    for expected in (none, by_knowledge, by_all):
        away = [abs(shift.size - expected(shift)) for shift in shifts]
        if len(away) == 1 and away[0] < ONE_BAR_SAYS and within == SAME_BASIS:
            return True
        if sum(distance < within for distance in away) * 2 > len(away):
            return True
    return False


def _readjustment(beside: pd.DataFrame, landed: pd.DataFrame, splits: Sequence[Split]) -> float | None:
    """By what factor a vendor that names no dividends has adjusted its older prices since they landed; None if by none.

    Of prices on total return the close tells, of others the adjusted close. `beside` are rows that are not asked for, so
    they do not land: those that do are on another basis then.
    """
    silent = beside[~beside["says"].fillna("").str.contains("dividends")]
    if silent.empty or landed.empty:
        return None
    on_total_return = silent["basis"] == TOTAL_RETURN
    for rows, column in ((silent[on_total_return], "close"), (silent[~on_total_return], "adj_close")):
        shifts = _shifts(rows, landed, column)
        to = max(rows["adj_close_as_of"].fillna(rows["adjusted_to"]).dropna(), default="")
        if shifts and not _explained(shifts, splits, landed, to, ROUNDED):
            return math.exp(sorted(shift.size for shift in shifts)[len(shifts) // 2])
    return None


def splits_of(rows: pd.DataFrame) -> dict[str, list[Split]]:
    """The splits that `rows` name, by ticker, each in ascending order."""
    found: dict[str, set[Split]] = {}
    texts = rows["stock_splits"]
    acting = [text for text in texts.dropna().unique() if {ratio_of(text, mark) for mark in (None, ",")} - {None, 1.0}]
    rows = rows[texts.isin(acting)]
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
