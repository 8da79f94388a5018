"""From processed to curated bars: prices on one basis with all splits and dividends known now, and whether the bar is final.

Pure Spark around a numpy kernel. Not here: which rows a run may publish and which bars it reads (layers/curated.py).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from stock_lakehouse.schemas import corporate_actions
from stock_lakehouse.schemas import curated as schema
from stock_lakehouse.schemas.processed import CAPITAL_GAIN, DIVIDEND, SPLIT
from stock_lakehouse.transforms.tickers import by_ticker_and_date, in_groups

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from pyspark.sql import DataFrame

    Array = np.ndarray[Any, np.dtype[Any]]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PRICES = ("open", "high", "low", "close")
BAR = (
    "ticker", "date", *PRICES, "adj_close", "volume", "dividends_delivered", "basis", "ingested_at", "adjusted_to",
    "adj_close_as_of", "year",
)  # fmt: skip
DELIVERED = ("ticker", "date", "session", "kind", "value", "first_seen", "adjusted_to")
PUBLISHED = ("ticker", "ex_date", "kind", "price_factor")
ORIGINS = ("bar", "delivered", "published")
# Rows of `adjusted` that are corporate actions have these columns beside `ticker`; rows that are bars have the curated columns.
ACTION = tuple(column for column in corporate_actions.COLUMNS if column.name != "ticker")
PRICE_BASES = ("total_return", "total_return_delivered", "price_return")
# Two amounts or ratios that differ by less, relatively, are the same: vendors round adjusted values.
SAME = 1e-9


def adjusted(
    processed: DataFrame,
    delivered: DataFrame,
    published: DataFrame,
    sessions: DataFrame,
    years: Collection[int] | None = None,
) -> DataFrame:
    """Curated bars and corporate actions in one frame, which `bars_in` and `actions_in` separate.

    - `processed`: the bars of `years` (None: all) of each of its tickers. It may have earlier bars, of which only the last closes
      are used.
    - `delivered`: what deliveries said about these tickers' actions (`processed_actions`), of all years.
    - `published`: their published corporate actions. They give the factors of dividends after `years`.
    - `sessions`: has `date` and `final_at`. A bar that landed before `final_at` is provisional.

    An action counts from its session on, if the ticker has a bar then or later. What a delivery knew about an action follows from
    when the delivery landed and up to which day its prices are adjusted: see `_Ticker.known_factor`.

    Splits: prices are converted to the basis of all splits known now. They are divided, and volumes are multiplied, by the ratios
    that the delivery did not know.

    Dividends: `adj_close` is the close times, for each dividend that goes ex later, 1 - dividend / close of the bar before.
    That is Yahoo's definition of the adjusted close ("adjusted for both dividends and splits, adhering to CRSP standards":
    help.yahoo.com/kb/SLN28256), and CRSP's of a cash dividend's adjustment factor in total returns (CRSP US Stock Database
    Guide, "Factor to Adjust Price"). A bar whose delivery says nothing about dividends keeps the delivered adj_close, times the
    factors of the dividends that the delivery did not know; `price_basis` says which of the two it is. Prices delivered on total
    return are first converted back to the traded prices, by the same factors.
    """
    from pyspark.sql import functions as F

    types = {column.name: column.type for column in (*schema.COLUMNS, *ACTION) if column.name != "bar_status"}
    ddl = ", ".join(f"{name} {kind}" for name, kind in types.items())
    # One frame with a column `origin`, not a cogroup: Sail's cogroup does not accept nulls.
    frames = ((processed, BAR), (delivered, DELIVERED), (published, PUBLISHED))
    parts = [
        frame.select(*names).withColumn("origin", F.lit(origin))
        for (frame, names), origin in zip(frames, ORIGINS, strict=True)
    ]
    fields = {field.name: field.dataType for part in parts for field in part.schema}
    aligned = [
        part.select(
            *(
                F.col(name) if name in part.columns else F.lit(None).cast(kind).alias(name)
                for name, kind in fields.items()
            )
        )
        for part in parts
    ]
    union = aligned[0].unionByName(aligned[1]).unionByName(aligned[2])
    computed = in_groups(union).applyInArrow(_kernel(None if years is None else frozenset(years)), ddl)
    final_at = sessions.select("date", "final_at")
    status = F.when(F.col("ingested_at") < F.col("final_at"), "provisional").otherwise("final")
    return (
        computed.join(F.broadcast(final_at), "date", "left")
        .withColumn("bar_status", status)
        .select(*(column.name for column in schema.COLUMNS), *(column.name for column in ACTION))
    )


def bars_in(rows: DataFrame) -> DataFrame:
    """The curated bars of `adjusted`, with the columns of their schema."""
    return rows.where("kind IS NULL").select(*(column.name for column in schema.COLUMNS))


def actions_in(rows: DataFrame) -> DataFrame:
    """The corporate actions of `adjusted`, with the columns of their schema."""
    return rows.where("kind IS NOT NULL").select(*(column.name for column in corporate_actions.COLUMNS))


def _kernel(years: frozenset[int] | None) -> Callable[[pa.Table], pa.Table]:
    """A function from the bars and actions of some tickers to their adjusted bars, in ascending order, and their actions."""

    def kernel(rows: pa.Table) -> pa.Table:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        bars, delivered, published = (
            rows.select(names).filter(pc.equal(rows["origin"], origin))
            for names, origin in zip((BAR, DELIVERED, PUBLISHED), ORIGINS, strict=True)
        )
        names = [column.name for column in (*schema.COLUMNS, *ACTION) if column.name != "bar_status"]
        if not bars.num_rows:
            return _empty(rows, names)
        ordered, bounds = by_ticker_and_date(bars)
        tickers = ordered["ticker"].take(bounds[:-1])
        all_bars = _Bars.of(ordered)
        lines, factors_after = _lines_by_ticker(delivered, tickers), _factors_by_ticker(published, tickers, years)
        computed = [
            _Ticker(all_bars.slice(start, end), lines[place], factors_after[place], years)
            for place, (start, end) in enumerate(pairwise(bounds))
        ]
        factors = _Factors(*map(np.concatenate, zip(*(ticker.factors() for ticker in computed), strict=True)))
        out, actions = _adjusted_bars(ordered, all_bars, factors, years), _actions_table(ordered, tickers, computed)
        return pa.concat_tables([_filled(out, actions, names), _filled(actions, out, names)])

    return kernel


def _lines_by_ticker(delivered: pa.Table, tickers: pa.ChunkedArray) -> list[list[_Line]]:
    """The lines of `processed_actions` of each of `tickers`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    seen = delivered["first_seen"].cast(pa.timestamp("us"))
    adjusted_to = pc.coalesce(delivered["adjusted_to"], seen.cast(pa.date32()))
    columns = (
        delivered["kind"],
        delivered["session"].cast(pa.int32()),
        delivered["date"].cast(pa.int32()),
        seen.cast(pa.int64()),
        delivered["value"].cast(pa.float64()),
        adjusted_to.cast(pa.int32()),
    )
    lines: list[list[_Line]] = [[] for _ in range(len(tickers))]
    places = pc.index_in(delivered["ticker"], value_set=tickers.combine_chunks()).to_pylist()
    for place, *line in zip(places, *(column.to_pylist() for column in columns), strict=True):
        if place is not None:
            lines[place].append(_Line(*line))
    return lines


def _factors_by_ticker(
    published: pa.Table, tickers: pa.ChunkedArray, years: frozenset[int] | None
) -> list[dict[tuple[int, str], float | None]]:
    """The published factor of each action after `years`, by its ex-date and kind, for each of `tickers`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    factors: list[dict[tuple[int, str], float | None]] = [{} for _ in range(len(tickers))]
    if years is None:
        return factors
    after = published.filter(pc.greater(pc.year(published["ex_date"]), max(years)))
    places = pc.index_in(after["ticker"], value_set=tickers.combine_chunks())
    columns = (places, after["ex_date"].cast(pa.int32()), after["kind"], after["price_factor"])
    for place, ex_date, kind, factor in zip(*(column.to_pylist() for column in columns), strict=True):
        if place is not None:
            factors[place][ex_date, kind] = factor
    return factors


def _adjusted_bars(bars: pa.Table, values: _Bars, factors: _Factors, years: frozenset[int] | None) -> pa.Table:
    """The curated bars of `years` (None: all), with all columns but `bar_status`. `values`: those of `bars`."""
    import numpy as np
    import pyarrow as pa

    prices = {name: values.values[name] / factors.basis for name in PRICES}
    if values.on_total_return.any():
        prices = {name: value / factors.total_return for name, value in prices.items()}
    close = prices["close"]
    delivered = values.values["adj_close"] / factors.adj_close
    has_adj_close = ~np.isnan(delivered)
    # adj_close is derived from the actions. Where a delivery says nothing about dividends, it is the delivered one, times the
    # factors that the delivery did not know.
    is_derived = values.dividends_delivered | values.on_total_return | ~has_adj_close
    basis = np.where(values.dividends_delivered, 0, np.where(has_adj_close | values.on_total_return, 1, 2))
    deviation = np.where(
        values.dividends_delivered & has_adj_close, delivered / (close * factors.later_known) - 1, np.nan
    )
    columns = {
        **{name: pa.array(value, from_pandas=True) for name, value in prices.items()},
        "adj_close": pa.array(np.where(is_derived, close * factors.later, delivered * factors.later_unknown)),
        "volume": _volume(bars, values, factors.basis),
        "dividend": pa.array(factors.dividend),
        "split_ratio": pa.array(factors.split_ratio),
        "split_factor": pa.array(factors.split),
        "basis_factor": pa.array(factors.basis),
        "price_basis": pa.array(PRICE_BASES, pa.string()).take(pa.array(basis)),
        "adj_close_deviation": pa.array(deviation + 0.0, from_pandas=True),
    }
    names = [column.name for column in schema.COLUMNS if column.name != "bar_status"]
    table = pa.table({name: columns[name] if name in columns else bars[name] for name in names})
    return table if years is None else table.filter(pa.array(np.isin(_years_of(values.day), list(years))))


def _volume(bars: pa.Table, values: _Bars, ratio: Array) -> pa.Array:
    """The number of shares times `ratio`, by bar, rounded to whole shares; null where unknown."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    volume = values.values["volume"]
    adjusted = np.where(np.isnan(volume), 0, np.rint(np.nan_to_num(volume) * ratio)).astype(np.int64)
    whole = pc.fill_null(bars["volume"].combine_chunks(), 0).to_numpy()
    return pa.array(np.where(ratio == 1, whole, adjusted), mask=np.isnan(volume))


def _actions_table(bars: pa.Table, tickers: pa.ChunkedArray, computed: Sequence[_Ticker]) -> pa.Table:
    """The corporate actions of `computed`, one of each of `tickers`, with the columns of ACTION and `ticker`."""
    import pyarrow as pa

    rows = [
        (name, action.ex_date, action.kind, action.value, action.price_factor, action.first_seen, action.late)
        for name, ticker in zip(tickers.to_pylist(), computed, strict=True)
        for action in ticker.actions()
    ]
    names, ex_dates, kinds, values, price_factors, first_seen, late = zip(*rows, strict=True) if rows else ((),) * 7
    return pa.table(
        {
            "ticker": pa.array(names, pa.string()),
            "ex_date": pa.array(ex_dates, pa.int32()).cast(pa.date32()),
            "kind": pa.array(kinds, pa.string()),
            "value": pa.array(values, pa.float64()),
            "price_factor": pa.array(price_factors, pa.float64()),
            "first_seen": pa.array(first_seen, pa.int64())
            .cast(pa.timestamp("us", "UTC"))
            .cast(bars["ingested_at"].type),
            "late": pa.array(late, pa.bool_()),
        }
    )


def _filled(table: pa.Table, other: pa.Table, names: Sequence[str]) -> pa.Table:
    """`table` with the columns `names`; columns that only `other` has are null."""
    import pyarrow as pa

    return pa.table(
        {
            name: table[name] if name in table.column_names else pa.nulls(table.num_rows, other[name].type)
            for name in names
        }
    )


def _empty(rows: pa.Table, names: Sequence[str]) -> pa.Table:
    import pyarrow as pa

    types = {
        "double": pa.float64(), "bigint": pa.int64(), "int": pa.int32(), "date": pa.date32(), "string": pa.string(),
        "boolean": pa.bool_(), "timestamp": rows.schema.field("ingested_at").type,
    }  # fmt: skip
    kinds = {column.name: column.type for column in (*schema.COLUMNS, *ACTION)}
    return pa.table({name: pa.array([], types[kinds[name]]) for name in names})


class _Line(NamedTuple):
    """A line of `processed_actions`. Days are counted from 1970, `first_seen` is in microseconds."""

    kind: str
    session: int
    date: int
    first_seen: int
    value: float
    adjusted_to: int


@dataclass(frozen=True)
class _Bars:
    """Processed bars as arrays, a value per bar. Days are counted from 1970, `landed` is in microseconds."""

    day: Array
    landed: Array
    adjusted_to: Array
    adj_close_as_of: Array
    dividends_delivered: Array
    on_total_return: Array
    values: Mapping[str, Array]

    @classmethod
    def of(cls, bars: pa.Table) -> _Bars:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        if bars["basis"].null_count:
            raise ValueError("bars without a basis, of an earlier version of the program")
        landed = bars["ingested_at"].cast(pa.timestamp("us"))
        adjusted_to = pc.coalesce(bars["adjusted_to"], landed.cast(pa.date32()))
        return cls(
            day=bars["date"].cast(pa.int32()).to_numpy(),
            landed=landed.cast(pa.int64()).to_numpy(),
            adjusted_to=adjusted_to.cast(pa.int32()).to_numpy(),
            adj_close_as_of=pc.coalesce(bars["adj_close_as_of"], adjusted_to).cast(pa.int32()).to_numpy(),
            dividends_delivered=np.asarray(bars["dividends_delivered"]),
            on_total_return=np.asarray(pc.equal(bars["basis"], "total_return")),
            values={name: bars[name].to_numpy().astype(np.float64) for name in (*PRICES, "adj_close", "volume")},
        )

    def slice(self, start: int, end: int) -> _Bars:
        return _Bars(
            self.day[start:end],
            self.landed[start:end],
            self.adjusted_to[start:end],
            self.adj_close_as_of[start:end],
            self.dividends_delivered[start:end],
            self.on_total_return[start:end],
            {name: value[start:end] for name, value in self.values.items()},
        )


class _Factors(NamedTuple):
    """What the actions of a ticker mean for its bars, a value per bar.

    - split: the product of the ratios of all later splits
    - basis, adj_close: of those ratios, the ones that the delivered prices and the delivered adj_close are not adjusted by
    - total_return: the product of the dividend factors in prices delivered on total return
    - later: the product of the factors of all later dividends
    - later_known, later_unknown: of those, the ones that the delivered adj_close is adjusted by, and the others
    - dividend, split_ratio: of the actions since the bar before
    """

    split: Array
    basis: Array
    adj_close: Array
    total_return: Array
    later: Array
    later_known: Array
    later_unknown: Array
    dividend: Array
    split_ratio: Array


@dataclass
class _Action:
    """A split or dividend of one day, with the successive values that deliveries gave it.

    - `ex_date`: days since 1970.
    - `before`: how many bars of the ticker are before the ex-date. They come first.
    - `seen`: by value, when the first delivery with it landed, in microseconds since 1970.
    - `values`: ratios, or amounts adjusted for the splits known now.
    - `adjusted_to`: by value, the day up to whose splits the delivery is adjusted, in days since 1970.
    - `factors`: by value, the factor of earlier prices; None where a dividend is not below the close before.
    - `announced`: the ticker has not traded since. The action does not count yet, but a delivery may be adjusted by it.
    """

    kind: str
    ex_date: int
    seen: list[int]
    values: list[float]
    adjusted_to: list[int]
    factors: list[float | None] = field(default_factory=list)
    price_factor: float | None = None
    announced: bool = False
    before: int = 0

    @property
    def value(self) -> float:
        return self.neutral if self.announced else self.values[-1]

    @property
    def neutral(self) -> float:
        """The value that means that there is no action."""
        return 1.0 if self.kind == SPLIT else 0.0

    @property
    def counts(self) -> bool:
        """Whether there is an action that counts."""
        return self.value != self.neutral

    def known_at(self, landed: int) -> int:
        """The index of the value that a delivery knew which landed at `landed`: the newest by then, or else the first."""
        return max(bisect_right(self.seen, landed) - 1, 0)

    @property
    def first_seen(self) -> int:
        """When the first delivery with the present value landed."""
        index = len(self.values) - 1
        while index and _same(self.values[index - 1], self.value):
            index -= 1
        return self.seen[index]

    @property
    def late(self) -> bool:
        """Whether an earlier delivery gave another value."""
        return not all(_same(value, self.value) for value in self.values)


class _Ticker:
    """One ticker's processed bars in ascending order, and its actions."""

    def __init__(
        self,
        bars: _Bars,
        lines: Sequence[_Line],
        published: Mapping[tuple[int, str], float | None],
        years: frozenset[int] | None,
    ) -> None:
        self.bars, self.years, self._published = bars, years, published
        actions = sorted(_actions_of(self._that_matter(lines)), key=_sort_key)
        counts = bars.day.searchsorted([action.ex_date for action in actions], side="left").tolist()
        for action, before in zip(actions, counts, strict=True):
            action.before = before
            action.announced = not self._has_traded_since(action)
        self.splits = [action for action in actions if action.kind == SPLIT]
        for split in self.splits:
            split.factors = [float(value) for value in split.values]
            split.price_factor = 1 / split.value if split.counts else None
        self.dividends = [action for action in actions if action.kind != SPLIT]
        for dividend in self.dividends:
            dividend.values = [
                value / self._unknown_ratio(dividend.ex_date, seen, to)
                for value, seen, to in zip(dividend.values, dividend.seen, dividend.adjusted_to, strict=True)
            ]

    def _that_matter(self, lines: Sequence[_Line]) -> Sequence[_Line]:
        """The lines of actions after the last bar before `years`: an earlier one changes only bars that are earlier still."""
        if self.years is None:
            return lines
        earlier = int(self.bars.day.searchsorted(_first_day(min(self.years)), side="left"))
        if not earlier:
            return lines
        last = int(self.bars.day[earlier - 1])
        return [line for line in lines if line.session > last]

    def _has_traded_since(self, action: _Action) -> bool:
        """Whether the ticker has traded since the action."""
        if self.years is not None and _year(action.ex_date) > max(self.years):
            return (action.ex_date, action.kind) in self._published
        return bool(self.bars.day[-1] >= action.ex_date)

    def _unknown_ratio(self, day: int, landed: int, adjusted_to: int) -> float:
        """The product of the ratios of the splits after `day` that a delivery with `landed` and `adjusted_to` did not know."""
        product = 1.0
        for split in self.splits:
            if day < split.ex_date:
                product *= split.value / self._known_ratio(split, landed, adjusted_to)
        return product

    @staticmethod
    def _known_ratio(action: _Action, landed: int, adjusted_to: int) -> float:
        """The ratio of a split by which the prices of one delivery are adjusted; 1 where the delivery did not know it."""
        if adjusted_to < action.ex_date:
            return 1.0
        return float(action.factors[action.known_at(landed)] or 1.0)

    def known_factor(self, action: _Action, adjusted_to: Array) -> Array | float:
        """By bar before the ex-date: the factor of an action by which the bar's delivery is adjusted; 1 where the delivery did
        not know it. One number if it is the same for all of these bars.

        A delivery knows an action if it is adjusted to the ex-date or later. The factor is then that of the newest value when the
        delivery landed, or, if there was none yet, of the first value (parts of a history may land in any order).
        """
        import numpy as np

        factors = np.array([1.0 if factor is None else factor for factor in action.factors])
        of_newest: Array | float = float(factors[0])
        if len(factors) > 1:
            landed = self.bars.landed[: action.before]
            of_newest = factors[np.maximum(np.searchsorted(np.array(action.seen), landed, side="right") - 1, 0)]
        knows = adjusted_to[: action.before] >= action.ex_date
        if knows.all():
            return of_newest
        known: Array = np.where(knows, of_newest, 1.0)
        return known

    def factors(self) -> _Factors:
        """What the actions mean for each bar. It also sets the factors of the dividends."""
        import numpy as np

        bars = self.bars
        split_factor, basis_factor, adj_close_factor = (np.ones(len(bars.day)) for _ in range(3))
        for split in self.splits:
            before = split.before
            split_factor[:before] *= split.value
            basis_factor[:before] *= split.value / self.known_factor(split, bars.adjusted_to)
            adj_close_factor[:before] *= split.value / self.known_factor(split, bars.adj_close_as_of)
        total_return_factor = self._set_dividend_factors(bars.values["close"] / basis_factor)
        return _Factors(
            split_factor,
            basis_factor,
            adj_close_factor,
            total_return_factor,
            *self._later_dividend_factors(),
            self._since_bar_before(self.dividends, np.add, 0.0),
            self._since_bar_before(self.splits, np.multiply, 1.0),
        )

    def _set_dividend_factors(self, delivered: Array) -> Array:
        """Set the factors of every dividend. Returns, by bar, the product of the factors in prices delivered on total return.

        `delivered` are the closes, adjusted for the splits known now. The newest dividend comes first, since a close before an
        ex-date that is delivered on total return is adjusted by every later dividend: traded close = delivered / later factors +
        dividend.
        """
        import numpy as np

        on_total_return = self.bars.on_total_return
        any_on_total_return = bool(on_total_return.any())
        adjusted_by = np.ones(len(self.bars.day))
        bars_before = [dividend.before - 1 for dividend in self.dividends]
        end = len(self.dividends)
        while end:
            start = end - 1  # dividends that go ex after the same bar form a group: there is no trade between them
            while start and bars_before[start - 1] == bars_before[end - 1]:
                start -= 1
            group, bar = self.dividends[start:end], bars_before[end - 1]
            end = start
            if bar < 0:
                for dividend in group:
                    dividend.factors = [None] * len(dividend.values)
                    dividend.price_factor = self._published_factor(dividend)
                continue
            traded = float(delivered[bar] / adjusted_by[bar])
            if on_total_return[bar]:
                known = [dividend for dividend in group if self.bars.adjusted_to[bar] >= dividend.ex_date]
                traded += sum(dividend.values[dividend.known_at(int(self.bars.landed[bar]))] for dividend in known)
            self._drop_gain_in_dividend(group, bar, traded)
            remaining = traded
            for dividend in group:
                dividend.factors = [
                    1 - value / remaining if 0 <= value < remaining else None for value in dividend.values
                ]
                dividend.price_factor = dividend.factors[-1] if dividend.counts else None
                if self._after_years(dividend):
                    dividend.price_factor = self._published_factor(dividend)
                    dividend.factors[-1] = dividend.price_factor
                if any_on_total_return:
                    before, factor = dividend.before, self.known_factor(dividend, self.bars.adjusted_to)
                    adjusted_by[:before] *= np.where(on_total_return[:before], factor, 1.0)
                if dividend.factors[-1] is not None:
                    remaining -= dividend.value
        return adjusted_by

    def _drop_gain_in_dividend(self, group: list[_Action], bar: int, traded: float) -> None:
        """Drop a capital gain if the delivered adj_close shows that the dividend of the same session includes it.

        Yahoo includes capital gains in the dividends of some funds, and delivers them beside the dividends of others
        (yfinance#2666).
        """
        gains = [action for action in group if action.kind == CAPITAL_GAIN and action.counts]
        amount = sum(action.value for action in group if action.kind == DIVIDEND)
        if not gains or amount <= 0 or bar + 1 >= len(self.bars.day):
            return
        close, adj_close = self.bars.values["close"], self.bars.values["adj_close"]
        factor = (adj_close[bar] / close[bar]) / (adj_close[bar + 1] / close[bar + 1])
        if not factor > 0:  # no adj_close was delivered
            return
        without_gains, with_gains = 1 - amount / traded, 1 - (amount + sum(gain.value for gain in gains)) / traded
        if abs(factor - without_gains) < abs(factor - with_gains):
            for gain in gains:
                gain.values = [0.0] * len(gain.values)

    def _after_years(self, action: _Action) -> bool:
        return self.years is not None and _year(action.ex_date) > max(self.years)

    def _published_factor(self, action: _Action) -> float | None:
        factor: float | None = self._published.get((action.ex_date, action.kind)) if self._after_years(action) else None
        return factor

    def _later_dividend_factors(self) -> tuple[Array, Array, Array]:
        """By bar, three products over all later dividends.

        - Their factors.
        - The factors by which the delivered adj_close is adjusted.
        - The factors by which the delivered adj_close is not adjusted yet.
        """
        import numpy as np

        effective = [dividend for dividend in self.dividends if dividend.price_factor is not None]
        ex_dates = np.array([dividend.ex_date for dividend in effective], dtype=np.int64)
        from_each_on = np.concatenate(
            [np.cumprod([dividend.price_factor or 1.0 for dividend in reversed(effective)])[::-1], [1.0]]
        )
        day = self.bars.day
        later = from_each_on[np.searchsorted(ex_dates, day, side="right")]
        later_known, later_unknown = np.ones(len(day)), np.ones(len(day))
        if not np.isnan(self.bars.values["adj_close"]).all():  # otherwise these two are not used
            for dividend in self.dividends:
                if not dividend.before:
                    continue
                before, known = dividend.before, self.known_factor(dividend, self.bars.adj_close_as_of)
                later_known[:before] *= known
                later_unknown[:before] *= (dividend.price_factor or 1.0) / known
        return later, later_known, later_unknown

    def _since_bar_before(self, actions: Sequence[_Action], join: Any, neutral: float) -> Array:
        """By bar: the joined values of the actions since the bar before; for the first bar, of the actions on its day."""
        import numpy as np

        out = np.full(len(self.bars.day), neutral)
        for action in actions:
            bar = action.before
            if bar < len(out) and action.counts and (bar or self.bars.day[0] == action.ex_date):
                out[bar] = join(out[bar], action.value)
        return out

    def actions(self) -> list[_Action]:
        """The actions of `years` (None: all) that count, in ascending order. Call `factors` first."""
        return [
            action
            for action in sorted([*self.splits, *self.dividends], key=_sort_key)
            if action.counts and (self.years is None or _year(action.ex_date) in self.years)
        ]


def _actions_of(lines: Sequence[_Line]) -> list[_Action]:
    """The actions of one ticker, from its lines of `processed_actions`.

    If several days count on one session, each of them has a separate action. Days with the same value name one action twice.
    """
    days: dict[tuple[str, int, int], list[_Line]] = {}
    for line in lines:
        days.setdefault((line.kind, line.session, line.date), []).append(line)
    by_session: dict[tuple[str, int], list[_Action]] = {}
    for (kind, ex_date, _), of_day in sorted(days.items()):
        of_day.sort(key=lambda line: line.first_seen)
        action = _Action(
            kind,
            ex_date,
            [line.first_seen for line in of_day],
            [line.value for line in of_day],
            [line.adjusted_to for line in of_day],
        )
        others = by_session.setdefault((kind, ex_date), [])
        if not any(other.counts and action.counts and _same(other.value, action.value) for other in others):
            others.append(action)
    return [action for actions in by_session.values() for action in actions]


def _sort_key(action: _Action) -> tuple[int, int]:
    return action.ex_date, (DIVIDEND, CAPITAL_GAIN, SPLIT).index(action.kind)


def _same(value: float, other: float) -> bool:
    return abs(value - other) <= SAME * abs(other)


def _first_day(year: int) -> int:
    return (date(year, 1, 1) - EPOCH.date()).days


def _year(day: int) -> int:
    return (EPOCH + timedelta(days=day)).year


def _years_of(days: Array) -> Array:
    years: Array = days.astype("datetime64[D]").astype("datetime64[Y]").astype(int) + 1970
    return years
