"""Which delivered rows land in raw, and the basis of their prices: the splits and dividends that they are adjusted for.

Here: the rules, for frames of text in memory. Not here: files (raw_csv.py), and what the values mean beyond session and action.
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
    import pyarrow as pa

DAY_TEXT = re.compile(r"\s*(\d{4}-\d{2}-\d{2})(?:[T ].*)?\s*", re.DOTALL)
VALUES = [column.name for column in schema.TEXT]
# How a row is to be read. Two deliveries of a row are the same only if these columns are too. Files that lack them have ANY.
MEANING = ["session", "decimal", "basis", "says"]
COMPARED = [*VALUES, *MEANING]
ANY = "\0any"
KEY = ["ticker", "year", "key"]
NUMERIC = ("open", "high", "low", "close", "adj_close", "volume", "dividends", "capital_gains")
STAMP = "%Y-%m-%dT%H:%M:%S.%fZ"
# Vendors round the prices that they adjust. Two closes of one day are on the same basis if their log ratio is below this.
SAME_BASIS = math.log(1.02)
ROUNDED = 3e-4  # relative: how far rounding to cents may move an adjusted close
# A single bar that differs by a smaller log ratio is a correction. One that differs by more is on another basis.
ONE_BAR_SAYS = math.log(1.2)
LISTED = 1000  # how many contradictions a landing lists
# The delivered columns that place every row. The others stay as they were delivered: most rows are never compared.
PLACED = [
    "ticker",
    "problem",
    "close",
    "adj_close",
    "stock_splits",
    "decimal",
    "adjusted_to",
    "adj_close_as_of",
    "says",
    "basis",
    "file",
]


@dataclass(frozen=True)
class Split:
    """A split named in a delivery: `ratio` new shares for one, first traded on `day` (ISO)."""

    day: str
    ratio: float


def place(rows: pa.Table, rectangle: Rectangle) -> pd.DataFrame:
    """The PLACED columns of `rows` with the `ticker`, `year`, `day` (ISO text or None) and `key` of each row, and whether it is
    `inside`. The index is the row's number in `rows`.

    These rows are inside:

    - rows of the tickers and sessions of `rectangle`
    - rows that cannot be read, since their ticker and session are unknown
    - rows that name a split or dividend in the LOOK_BACK before the first session, which a request for later sessions would lose,
      or after the last session in its year, since prices may be adjusted by it
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    placed = rows.select(PLACED).to_pandas()
    placed["ticker"] = placed["ticker"].fillna(UNREADABLE)
    unread = pc.and_(pc.is_null(rows["session"]), pc.is_null(rows["problem"]))
    sessions = pc.if_else(unread, rows["date"], rows["session"]).combine_chunks().dictionary_encode("encode")
    # A delivery repeats each day many times, so each distinct text is read once.
    codes = sessions.indices.to_numpy()
    days = [day_of(text) for text in sessions.dictionary.to_pylist()]
    is_covered = np.array([day is None or rectangle.covers(date.fromisoformat(day)) for day in days], dtype=bool)
    look_back_start = (rectangle.first - LOOK_BACK).isoformat()
    start, end, year_end = rectangle.first.isoformat(), rectangle.last.isoformat(), f"{rectangle.last.year}-12-31"

    def by_row(by_text: Sequence[str | None]) -> Any:
        return np.array(by_text, dtype=object)[codes]

    placed["day"] = by_row(days)
    placed["year"] = by_row([day[:4] if day else UNREADABLE for day in days])
    # Also actions after the last session, up to the end of its year: prices may be adjusted by them already.
    is_near = np.array(
        [day is not None and (look_back_start <= day < start or end < day <= year_end) for day in days], dtype=bool
    )[codes]
    has_action = is_near.copy()
    if is_near.any():
        has_action[is_near] = acts(rows.filter(pa.array(is_near)).to_pandas()).to_numpy(dtype=bool)
    is_of_tickers = placed["ticker"].isin([*rectangle.tickers, UNREADABLE])
    placed["inside"] = is_of_tickers & (is_covered[codes] | has_action)
    placed["key"] = by_row([str(day) for day in days])
    unreadable = (placed["ticker"] == UNREADABLE) | (placed["year"] == UNREADABLE) | placed["problem"].notna()
    if unreadable.any():
        placed.loc[unreadable, "key"] = keys_of(with_texts(placed[unreadable], rows))
    return placed


def with_texts(placed: pd.DataFrame, rows: pa.Table) -> pd.DataFrame:
    """`placed`, some of the placed rows of `rows`, with the delivered columns that PLACED leaves out."""
    others = [name for name in rows.column_names if name not in PLACED]
    return placed.join(rows.select(others).take(placed.index.to_numpy()).to_pandas().set_axis(placed.index))


def day_of(text: Any) -> str | None:
    """The day that `text` begins with, as ISO text; None if it begins with no day of the years 1 to 9999."""
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
    """The key of each row: two rows of a ticker and year with the same key are deliveries of the same bar or action.

    The key is the day. If the ticker, the day or the row as a whole cannot be read, it is a digest of all delivered text.
    """

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
    rows: pa.Table,
    landed: pd.DataFrame,
    now: datetime,
    final_at: Callable[[date], datetime | None],
    proven: pd.Series | None = None,
) -> pd.Series:
    """The landing time (text) of each row of `inside` that lands, with its index. `inside`: placed rows of `rows`.

    A row lands if it is new or differs from the newest landed row of its key. An unchanged row lands once more after its
    session's close, so that it can become final, and if `proven` is true for it: its delivery proves a newer basis of its prices.
    A row's landing time is `now`, or a microsecond after that of the row that it supersedes if that is later. So the landing
    time alone tells which delivery is the newest, whatever the clock did and however often one delivery repeats a key.
    """
    import pandas as pd

    # Rows that are the first of their key need no comparison: all rows of a first load, almost all of a daily one.
    are_first = ~inside.duplicated(KEY, keep=False) & ~_are_in(inside, landed)
    firsts = pd.Series(now.strftime(STAMP), index=inside.index[are_first], dtype=object)
    if are_first.all():
        return firsts
    others_proven = None if proven is None else proven[~are_first]
    others = _fresh_by_comparison(with_texts(inside[~are_first], rows), landed, now, final_at, others_proven)
    both = pd.concat([firsts, others]) if len(others) else firsts
    return both.reindex(inside.index.intersection(both.index, sort=False))


def _are_in(rows: pd.DataFrame, landed: pd.DataFrame) -> pd.Series:
    """Which of `rows` have a key that `landed` has."""
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
) -> pd.Series:
    """`fresh`, with each row compared with the previous row of its key."""
    import pandas as pd

    columns = [*KEY, "day", *COMPARED, "ingested_at"]

    landed = landed[_are_in(landed, inside)]
    newest = landed.drop_duplicates(KEY, keep="last")
    both = pd.concat(
        [newest.reindex(columns=columns).astype(object), inside.reindex(columns=columns).astype(object)],
        ignore_index=True,
    )
    both["is_new"] = [False] * len(newest) + [True] * len(inside)
    by_key = both.groupby(KEY, sort=False)
    values = both[COMPARED].where(both[COMPARED].notna(), "")
    previous = by_key[COMPARED].shift().fillna("")
    is_same = ((values == previous) | (previous == ANY)).all(axis=1) & (by_key.cumcount() > 0)
    is_same |= pd.Series([False] * len(newest) + delivered_before(inside, landed), dtype=bool)
    is_proven = [False] * len(both) if proven is None else [*[False] * len(newest), *proven.tolist()]
    is_last = ~both.duplicated(KEY, keep="last")
    stamps, lands = [], []
    landing_times: dict[tuple[str, str, str], datetime] = {}
    final_times: dict[str, datetime | None] = {}
    now_stamp = now.strftime(STAMP)
    for is_new, ticker, year, key, day, is_repeated, proves_basis, is_last_of_key, stamp in zip(
        *(both[name] for name in ("is_new", *KEY, "day")), is_same, is_proven, is_last, both["ingested_at"], strict=True
    ):
        row_key = (ticker, year, key)
        previous_time = landing_times.get(row_key)
        if not is_new:
            landing_times[row_key] = datetime.fromisoformat(stamp)
            lands.append(False)
            stamps.append(stamp)
            continue
        if day and day not in final_times:
            final_times[day] = final_at(date.fromisoformat(day))
        # A row without a ticker never becomes a bar, so it cannot become final.
        final_time = final_times.get(day) if day and ticker != UNREADABLE else None
        confirms = (
            final_time is not None
            and previous_time is not None
            and previous_time < final_time <= now
            and is_last_of_key
        )
        if is_repeated and not confirms and not proves_basis:
            lands.append(False)
            stamps.append(None)
            continue
        landing_time = now if previous_time is None else max(now, previous_time + timedelta(microseconds=1))
        landing_times[row_key] = landing_time
        lands.append(True)
        stamps.append(now_stamp if landing_time == now else landing_time.strftime(STAMP))
    landing = pd.Series(stamps, dtype=object)[pd.Series(lands, dtype=bool)]
    return landing.set_axis(inside.index[landing.index - len(newest)])


def delivered_before(inside: pd.DataFrame, landed: pd.DataFrame) -> list[bool]:
    """Which rows of `inside` have a key with several delivered rows, all of which landed before, the last one as the newest.

    Each of these rows differs from the previous one, so without this check all would land again at every delivery.
    """
    is_repeated = inside.duplicated(KEY, keep=False).to_numpy()
    if not is_repeated.any():
        return [False] * len(inside)
    delivered_texts, landed_texts = _texts(inside[is_repeated]), _texts(landed)
    known = {
        key
        for key, texts in delivered_texts.items()
        if key in landed_texts and texts[-1] == landed_texts[key][-1] and set(texts) <= set(landed_texts[key])
    }
    return [key in known for key in zip(*(inside[name] for name in KEY), strict=True)]


def reverting(inside: pd.DataFrame, rows: pa.Table, landed: pd.DataFrame) -> pd.Series:
    """Which rows of `inside` landed before, but are not the newest landed row of their key. `inside`: placed rows of `rows`.

    Such a row either takes back a vendor's correction, or comes from one of two files that contradict each other. In the latter
    case the row of the other file may still follow.
    """
    import pandas as pd

    landed_versions = landed[landed.duplicated(KEY, keep=False)]
    if landed_versions.empty:
        return pd.Series(False, index=inside.index)
    landed_texts = _texts(landed_versions)
    keys = keys_in(inside)
    candidates = inside[keys.map(lambda key: key in landed_texts)]
    values = with_texts(candidates, rows)[VALUES].astype(object)
    values = values.where(values.notna(), "")
    returning = {
        key
        for key, text in zip(keys[candidates.index], values.itertuples(index=False, name=None), strict=True)
        if text != landed_texts[key][-1] and text in landed_texts[key]
    }
    return keys.map(lambda key: key in returning)


def keys_in(rows: pd.DataFrame) -> pd.Series:
    """The key of each row as one value."""
    import pandas as pd

    return pd.Series(list(zip(*(rows[name] for name in KEY), strict=True)), index=rows.index, dtype=object)


def counted(rows: pd.DataFrame, outcomes: pd.Series) -> Landing:
    """The counts of `rows` as a Landing, in total and by file. `outcomes`: what became of each row, one of `sources.COUNTS`."""
    by_file: dict[str, dict[str, int]] = {}
    for (name, outcome), count in outcomes.groupby([rows["file"].fillna(""), outcomes], sort=True).size().items():
        by_file.setdefault(name, dict.fromkeys(COUNTS[1:], 0))[outcome] = int(count)
    landings = {
        name: Landing(sum(counts.values()), **counts)  # type: ignore[arg-type]  # COUNTS are its fields of type int
        for name, counts in by_file.items()
    }
    total = sum(landings.values(), Landing())
    return replace(total, by_file={name: landing for name, landing in landings.items() if name})


def _texts(rows: pd.DataFrame) -> dict[tuple[Any, ...], list[tuple[Any, ...]]]:
    """The text of the rows of each key, in order."""
    found: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    values = rows[VALUES].astype(object).where(rows[VALUES].notna(), "")
    for *key, text in zip(*(rows[name] for name in KEY), values.itertuples(index=False, name=None), strict=True):
        found.setdefault(tuple(key), []).append(text)
    return found


def contradictions(
    inside: pd.DataFrame, rows: pa.Table, landed: pd.DataFrame, now: datetime
) -> tuple[Contradiction, ...]:
    """The sessions of a ticker for which `inside`, placed rows of `rows`, has different rows, or for which this download, which
    began at `now`, has landed a different row."""
    import pandas as pd

    this_download = landed[landed["ingested_at"] >= now.strftime(STAMP)] if len(landed) else landed
    if this_download.empty and not inside.duplicated(KEY).any():
        return ()
    readable = (inside["ticker"] != UNREADABLE) & inside["day"].notna() & inside["problem"].isna()
    columns = [*KEY, *VALUES, "decimal", "file"]
    delivered_rows = with_texts(inside[readable], rows)[columns]
    candidates = pd.concat([this_download.reindex(columns=columns), delivered_rows], ignore_index=True)
    repeated = candidates[candidates.duplicated(KEY, keep=False)].fillna("")
    # Numbers are compared by value: 97.1 equals 97.10.
    repeated = repeated.assign(**{name: _numbers(repeated, name).fillna(repeated[name]) for name in NUMERIC})
    different = repeated.drop_duplicates([*KEY, *VALUES])
    different = different[different.duplicated(KEY, keep=False)]
    delivered = set(zip(*(inside[name] for name in KEY), strict=True)) if len(different) else set()
    found = []
    for key, group in different.groupby(KEY, sort=True):
        if key in delivered:
            files = tuple(dict.fromkeys(name for name in group["file"] if name))
            found.append(Contradiction(key[0], key[2], len(group), files))
    return tuple(found[:LISTED])


@dataclass(frozen=True)
class Basis:
    """The basis of a delivery's prices, as the delivered and the landed prices together show it.

    - rows: the delivered rows, with `adjusted_to` corrected
    - unknown: the tickers whose prices do not land, since it is unknown what they are adjusted for, each with the reason
    - readjusted: the tickers whose landed prices the vendor has since readjusted for dividends that it does not name, each with
      the factor
    """

    rows: pd.DataFrame
    unknown: Mapping[str, str]
    readjusted: Mapping[str, float]


_BASIS_COLUMNS = [
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
    """The basis of the delivered prices, found by comparison with the landed prices of the same days.

    A vendor that adjusts at night delivers yesterday's bar on the new basis on the morning of a split's ex-date. The landed
    closes of the same days show it: they differ by the split's ratio, or not at all. If no day is in both, the basis is unknown.
    `landed_splits`: gives all landed splits of a ticker.
    """
    basis = placed["basis"].fillna(SPLIT_ADJUSTED)
    has_basis_date = placed["adjusted_to"].notna() | placed["adj_close_as_of"].notna()
    dated = placed.loc[has_basis_date & placed["day"].notna() & placed["problem"].isna(), _BASIS_COLUMNS]
    unknown: dict[str, str] = {}
    readjusted: dict[str, float] = {}
    named, landed_by_ticker = splits_of(placed), dict(list(landed.groupby("ticker", sort=False)))
    for name, rows in dated.groupby("ticker", sort=True):
        ticker, landed_rows = str(name), landed_by_ticker.get(name, landed[:0])
        splits, newest = named.get(ticker, []), max(rows["adjusted_to"].dropna().unique(), default="")
        # None if the rows name no basis date.
        coming = [split for split in splits if newest and split.day > newest]
        outside = rows[~rows["inside"]]
        if factor := _readjustment(outside, landed_rows, [*splits, *splits_of(landed_rows).get(ticker, [])]):
            readjusted[ticker] = factor
        if (basis[rows.index] != SPLIT_ADJUSTED).any() or (not coming and (outside.empty or landed_rows.empty)):
            continue
        shifts = _shifts(rows if coming else outside, landed_rows, "close")
        if (
            not shifts and coming and rows["file"].isna().all()
        ):  # a response is current, but a file may be older than the ex-date
            unknown[ticker] = (
                f"a split of {coming[0].ratio:g} for 1 is named for {coming[0].day}, which has no bar yet: it is unknown whether "
                "earlier prices are adjusted for it, so they land only once that session has a bar"
            )
        if not shifts or _explained(shifts, splits, landed_rows, newest):
            continue
        if coming and _explained(shifts, splits, landed_rows, coming[-1].day):
            placed.loc[rows.index, "adjusted_to"] = coming[-1].day
            # The announced split lands with the prices that are adjusted by it: they are converted back until the ex-date.
            is_announced = (placed["ticker"] == ticker) & placed["day"].isin([split.day for split in coming])
            placed.loc[is_announced, "inside"] = True
        elif not _explained(shifts, [*splits, *landed_splits(ticker)], landed_rows, newest):
            median = sorted(shift.size for shift in shifts)[len(shifts) // 2]
            unknown[ticker] = (
                f"its prices are {math.exp(median):.4g} times the landed prices of the same sessions, and no known split "
                f"explains that; run its whole history again: stock-lakehouse materialize --tickers {ticker}"
            )
    return Basis(placed, unknown, readjusted)


@dataclass(frozen=True)
class _Shift:
    """How a price of a day that is both delivered and landed moved.

    - size: log of the delivered over the landed price
    - adjusted_to: the day up to which the landed price is adjusted
    - landed_at: when the landed price landed
    """

    day: str
    size: float
    adjusted_to: str
    landed_at: str


def _shifts(rows: pd.DataFrame, landed: pd.DataFrame, column: str) -> list[_Shift]:
    newest = landed.drop_duplicates(KEY, keep="last")
    landed_prices = {
        day: (price, adjusted_to if isinstance(adjusted_to, str) else day, landed_at)
        for day, price, adjusted_to, landed_at in zip(
            newest["day"], _numbers(newest, column), newest["adjusted_to"], newest["ingested_at"], strict=True
        )
    }
    found = []
    for day, price in zip(rows["day"], _numbers(rows, column), strict=True):
        landed_price, adjusted_to, landed_at = landed_prices.get(day, (0.0, "", ""))
        if landed_price > 0 and price > 0:  # NaN compares False: an unknown price gives no shift
            found.append(_Shift(str(day), math.log(price / landed_price), adjusted_to, landed_at))
    return found


def _explained(
    shifts: Sequence[_Shift],
    splits: Sequence[Split],
    landed: pd.DataFrame,
    adjusted_to: str,
    tolerance: float = SAME_BASIS,
) -> bool:
    """Whether the splits explain how most closes moved that are now adjusted up to `adjusted_to`. One of these must hold:

    - The closes did not move: a file that grows is not readjusted.
    - They moved by the splits that the landed delivery did not know, or for which it knew another ratio.
    - They moved by the splits for which the landed delivery should have been adjusted and was not.

    A single day that moved by less than ONE_BAR_SAYS is a correction of that bar.
    """
    ratios = {split.day: split.ratio for split in splits}
    landed_versions = landed[landed["day"].isin(ratios)]
    landed_ratios: dict[str, list[tuple[str, float]]] = {}
    for day, version_landed_at, ratio in zip(
        landed_versions["day"], landed_versions["ingested_at"], _ratios(landed_versions), strict=True
    ):
        if ratio is not None:
            landed_ratios.setdefault(day, []).append((version_landed_at, ratio))

    def known_ratio(day: str, landed_at: str) -> float:
        versions_of_day = landed_ratios.get(day) or [("", ratios[day])]
        return (
            [ratio for version_landed_at, ratio in versions_of_day if version_landed_at <= landed_at]
            or [versions_of_day[0][1]]
        )[-1]

    def by_knowledge(shift: _Shift) -> float:
        move = 0.0
        for day, ratio in ratios.items():
            current = ratio if shift.day < day <= adjusted_to else 1.0
            previous = known_ratio(day, shift.landed_at) if shift.day < day <= shift.adjusted_to else 1.0
            move -= math.log(current / previous)
        return move

    def by_all(shift: _Shift) -> float:
        return -sum(math.log(ratio) for day, ratio in ratios.items() if shift.day < day <= adjusted_to)

    def unmoved(_: _Shift) -> float:
        return 0.0

    for expected in (unmoved, by_knowledge, by_all):
        distances = [abs(shift.size - expected(shift)) for shift in shifts]
        if len(distances) == 1 and distances[0] < ONE_BAR_SAYS and tolerance == SAME_BASIS:
            return True
        if sum(distance < tolerance for distance in distances) * 2 > len(distances):
            return True
    return False


def _readjustment(outside: pd.DataFrame, landed: pd.DataFrame, splits: Sequence[Split]) -> float | None:
    """The factor by which a vendor that names no dividends has adjusted its older prices since they landed; None if it has not.

    It is the move of the close for prices on total return, of the adjusted close for others. `outside`: rows that were not
    requested, so they do not land. The rows that do land are on a different basis then.
    """
    silent = outside[~outside["says"].fillna("").str.contains("dividends")]
    if silent.empty or landed.empty:
        return None
    on_total_return = silent["basis"] == TOTAL_RETURN
    for rows, column in ((silent[on_total_return], "close"), (silent[~on_total_return], "adj_close")):
        shifts = _shifts(rows, landed, column)
        adjusted_to = max(rows["adj_close_as_of"].fillna(rows["adjusted_to"]).dropna(), default="")
        if shifts and not _explained(shifts, splits, landed, adjusted_to, ROUNDED):
            return math.exp(sorted(shift.size for shift in shifts)[len(shifts) // 2])
    return None


def splits_of(rows: pd.DataFrame) -> dict[str, list[Split]]:
    """The splits that `rows` name, by ticker, each in ascending order."""
    found: dict[str, set[Split]] = {}
    texts = rows["stock_splits"]
    split_texts = [
        text for text in texts.dropna().unique() if {ratio_of(text, mark) for mark in (None, ",")} - {None, 1.0}
    ]
    rows = rows[texts.isin(split_texts)]
    for ticker, day, ratio in zip(rows["ticker"], rows["day"], _ratios(rows), strict=True):
        if ratio not in (None, 1.0) and isinstance(day, str):
            found.setdefault(ticker, set()).add(Split(day, ratio))
    return {ticker: sorted(splits, key=lambda split: split.day) for ticker, splits in found.items()}


def proves_newer_basis(placed: pd.DataFrame, landed: pd.DataFrame, landing: pd.DataFrame) -> pd.Series:
    """Which rows of `placed` must land although their text is unchanged: their delivery proves that they are adjusted for a split
    that the landed rows count as not adjusted for.

    The proof is the move of the delivered closes over the ex-date: it is nearer to none than to the split's ratio. If the
    history is not adjusted yet when a split is named, the move is the ratio, which proves nothing. `landing`: the rows that
    land anyway.
    """
    import numpy as np
    import pandas as pd

    proven = pd.Series(False, index=placed.index)
    if landed.empty:
        return proven
    adjusted = placed["basis"].fillna(SPLIT_ADJUSTED).isin([SPLIT_ADJUSTED, TOTAL_RETURN])
    readable = placed["problem"].isna() & placed["day"].notna() & adjusted & placed["adjusted_to"].notna()
    named = splits_of(placed[readable])
    by_ticker = placed[readable & placed["ticker"].isin(named)].groupby("ticker", sort=False)
    for ticker, delivered_rows in by_ticker:
        splits = named[str(ticker)]
        landed_rows = landed[landed["ticker"] == ticker]
        newest = landed_rows.drop_duplicates(KEY, keep="last").set_index("day")
        stamps = (
            landing[landing["ticker"] == ticker].drop_duplicates("day", keep="last").set_index("day")["ingested_at"]
        )
        for split in splits:
            if not is_applied(delivered_rows, split):
                continue
            named_at = stamps.get(split.day) or (
                newest["ingested_at"].get(split.day) if split.day in newest.index else None
            )
            if named_at is None:
                continue
            versions = landed_rows[(landed_rows["day"] == split.day) & (landed_rows["ingested_at"] < named_at)]
            other_ratios = [ratio for ratio in _ratios(versions) if ratio is not None and ratio != split.ratio]
            rows = delivered_rows[
                (delivered_rows["day"] < split.day)
                & (delivered_rows["adjusted_to"] >= split.day)
                & delivered_rows["day"].isin(newest.index)
            ]
            current = newest.loc[rows["day"]]
            is_unaware = [
                str(adjusted_to or "") < split.day or (bool(other_ratios) and str(landed_at) < str(named_at))
                for adjusted_to, landed_at in zip(
                    current["adjusted_to"].fillna(""), current["ingested_at"], strict=True
                )
            ]
            proven.loc[rows.index] |= np.array(is_unaware, dtype=bool)
    return proven


def is_applied(rows: pd.DataFrame, split: Split) -> bool:
    """Whether the closes of a ticker's rows move over the ex-date as if they were adjusted for the split; False if there are
    no closes on one side of it."""
    closes = sorted((day, close) for day, close in zip(rows["day"], _numbers(rows, "close"), strict=True) if close > 0)
    before = [close for day, close in closes if day < split.day]
    since = [close for day, close in closes if day >= split.day]
    if not before or not since:
        return False
    move = math.log(before[-1] / since[0])
    return abs(move) < abs(move - math.log(split.ratio))


def _numbers(rows: pd.DataFrame, name: str) -> pd.Series:
    """The texts of a column as doubles; NaN if a text is not a number."""
    import pandas as pd
    import pyarrow as pa

    texts = rows[name].astype(object).where(rows[name].notna(), None)
    has_comma = rows["decimal"] == "," if "decimal" in rows.columns else pd.Series(False, index=rows.index)
    out = pd.Series(float("nan"), index=rows.index, dtype=float)
    for in_group, decimal_mark in ((~has_comma, None), (has_comma, ",")):
        if in_group.any():
            out.loc[in_group] = numbers(pa.array(texts[in_group].tolist(), pa.string()), decimal_mark).to_numpy(
                zero_copy_only=False
            )
    return out


def _ratios(rows: pd.DataFrame) -> Sequence[float | None]:
    """New shares for each old one, by row; 1 if the text means "no split", None if there is no text or it cannot be read."""
    found: dict[tuple[Any, Any], float | None] = {}
    decimal_marks = rows["decimal"] if "decimal" in rows.columns else [None] * len(rows)
    pairs = [
        (text if isinstance(text, str) else None, decimal_mark == ",")
        for text, decimal_mark in zip(rows["stock_splits"], decimal_marks, strict=True)
    ]
    for text, has_comma in set(pairs):
        found[text, has_comma] = None if text is None else ratio_of(text, "," if has_comma else None)
    return [found[pair] for pair in pairs]


def ratio_of(text: str, decimal: str | None = None) -> float | None:
    """New shares for each old one, of 4.0, 4:1, 1/10, 4-for-1; 1 for 0, which vendors write for "no split"; None if no ratio."""
    import pyarrow as pa

    match = re.match(RATIO.replace(r"\z", r"\Z"), text.strip().lower())
    if match:
        new, old = float(match[1]), float(match[2])
        return new / old if new > 0 and old > 0 else None
    value = numbers(pa.array([text], pa.string()), decimal)[0].as_py()
    return None if value is None or value < 0 else value or 1.0
