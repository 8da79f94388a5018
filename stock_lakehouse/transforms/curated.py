"""From processed to curated bars: prices on one basis with all splits and dividends known now, and whether the bar is final.

Pure Spark around a numpy kernel. Not here: which of the rows a run may publish and which bars it looks at (layers/curated.py).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from stock_lakehouse.schemas import corporate_actions
from stock_lakehouse.schemas import curated as schema
from stock_lakehouse.schemas.processed import CAPITAL_GAIN, DIVIDEND, SPLIT

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
# Rows of `adjusted` that are corporate actions have these beside `ticker`; rows that are bars the curated columns.
ACTION = tuple(column for column in corporate_actions.COLUMNS if column.name != "ticker")
# Two amounts or ratios are the same: vendors round what they adjust.
SAME = 1e-9


def adjusted(
    processed: DataFrame,
    delivered: DataFrame,
    published: DataFrame,
    sessions: DataFrame,
    years: Collection[int] | None = None,
) -> DataFrame:
    """Curated bars and corporate actions in one frame, which `bars_in` and `actions_in` take apart.

    `processed` has the bars of `years` (None: all) of each of its tickers, and may have earlier ones, of which only the last
    closes are looked at. `delivered` has what deliveries said of these tickers' actions (`processed_actions`), of all
    years. `published` has their published corporate actions: they say the factors of dividends after `years`. `sessions` has
    `date` and `final_at`: a bar that landed before then is provisional.

    An action counts from its session on, if the ticker has a bar then or later. What a delivery knew of it follows from when the
    delivery landed, and up to which day its prices are adjusted: see `_Ticker.factor_then`.

    Splits: prices are brought to the basis of all splits known now: divided, and volumes multiplied, by the ratios that the
    delivery did not know.

    Dividends: `adj_close` is the close times, for each dividend that goes ex later, 1 - dividend / close of the bar before.
    That is Yahoo's definition of the adjusted close ("adjusted for both dividends and splits, adhering to CRSP standards":
    help.yahoo.com/kb/SLN28256), and CRSP's of a cash dividend's adjustment factor in total returns (CRSP US Stock Database
    Guide, "Factor to Adjust Price"). A bar whose delivery says nothing of dividends keeps the delivered adj_close, times
    the dividends that it did not know; the price basis says which. Prices delivered on total return are first taken back to
    what was traded, by the same factors.
    """
    from pyspark.sql import functions as F

    types = {one.name: one.type for one in (*schema.COLUMNS, *ACTION) if one.name != "bar_status"}
    ddl = ", ".join(f"{name} {kind}" for name, kind in types.items())
    # One frame, told apart by `origin`: Sail's cogroup takes no nulls.
    frames = ((processed, BAR), (delivered, DELIVERED), (published, PUBLISHED))
    parts = [
        frame.select(*names).withColumn("origin", F.lit(origin))
        for (frame, names), origin in zip(frames, ORIGINS, strict=True)
    ]
    fields = {one.name: one.dataType for part in parts for one in part.schema}
    same = [
        part.select(
            *(
                F.col(name) if name in part.columns else F.lit(None).cast(kind).alias(name)
                for name, kind in fields.items()
            )
        )
        for part in parts
    ]
    both = same[0].unionByName(same[1]).unionByName(same[2])
    computed = both.groupBy("ticker").applyInArrow(_kernel(None if years is None else frozenset(years)), ddl)
    final_at = sessions.select("date", "final_at")
    status = F.when(F.col("ingested_at") < F.col("final_at"), "provisional").otherwise("final")
    return (
        computed.join(F.broadcast(final_at), "date", "left")
        .withColumn("bar_status", status)
        .select(*(one.name for one in schema.COLUMNS), *(one.name for one in ACTION))
    )


def bars_in(rows: DataFrame) -> DataFrame:
    """The curated bars of `adjusted`, with the columns of their schema."""
    return rows.where("kind IS NULL").select(*(one.name for one in schema.COLUMNS))


def actions_in(rows: DataFrame) -> DataFrame:
    """The corporate actions of `adjusted`, with the columns of their schema."""
    return rows.where("kind IS NOT NULL").select(*(one.name for one in corporate_actions.COLUMNS))


def _kernel(years: frozenset[int] | None) -> Callable[[pa.Table], pa.Table]:
    """A function of one ticker's bars and actions that gives its adjusted bars, in ascending order, and its corporate actions."""

    def kernel(rows: pa.Table) -> pa.Table:
        import pyarrow as pa
        import pyarrow.compute as pc

        bars, delivered, published = (rows.filter(pc.equal(rows["origin"], origin)) for origin in ORIGINS)
        names = [column.name for column in (*schema.COLUMNS, *ACTION) if column.name != "bar_status"]
        if not bars.num_rows:
            return _empty(rows, names)
        ticker = _Ticker(bars.sort_by("date"), delivered.to_pylist(), published.to_pylist(), years)
        out, actions = ticker.adjusted(), ticker.actions_table()
        return pa.concat_tables([_filled(out, actions, names), _filled(actions, out, names)])

    return kernel


def _filled(table: pa.Table, other: pa.Table, names: Sequence[str]) -> pa.Table:
    """`table` with the columns `names`; null in those that only `other` has."""
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


@dataclass
class _Action:
    """A split or dividend of one day: what deliveries said of it, one after another.

    `seen` are the times, in microseconds since 1970, from which deliveries said `values`: ratios, or amounts adjusted for the
    splits known now. `factors` are what they multiply earlier prices by; None where a dividend is not below the close before.
    """

    kind: str
    ex_date: int  # days since 1970
    seen: list[int]
    values: list[float]
    adjusted_to: list[int]
    factors: list[float | None] = field(default_factory=list)
    price_factor: float | None = None
    announced: bool = (
        False  # the ticker has not traded since: it does not count yet, but a delivery may be adjusted by it
    )

    @property
    def value(self) -> float:
        return self.none if self.announced else self.values[-1]

    @property
    def none(self) -> float:
        """The value that says that there is none."""
        return 1.0 if self.kind == SPLIT else 0.0

    @property
    def acts(self) -> bool:
        """Whether it counts."""
        return self.value != self.none

    def known_at(self, landed: int) -> int:
        """Which of `values` a delivery that landed then knew: the newest said by then, or, if none had been, the first."""
        return max(bisect_right(self.seen, landed) - 1, 0)

    @property
    def first_seen(self) -> int:
        """Since when deliveries say the value that they say now."""
        at = len(self.values) - 1
        while at and _same(self.values[at - 1], self.value):
            at -= 1
        return self.seen[at]

    @property
    def late(self) -> bool:
        """Whether a delivery had said something else before."""
        return not all(_same(value, self.value) for value in self.values)


class _Ticker:
    """One ticker's processed bars in ascending order, as arrays, and its actions."""

    def __init__(
        self,
        bars: pa.Table,
        delivered: Sequence[dict[str, Any]],
        published: Sequence[dict[str, Any]],
        years: frozenset[int] | None,
    ) -> None:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        self.bars, self.years = bars, years
        self.day = bars["date"].cast(pa.int32()).to_numpy()
        landed = bars["ingested_at"].cast(pa.timestamp("us"))
        self.landed = landed.cast(pa.int64()).to_numpy()
        known_to = pc.coalesce(bars["adjusted_to"], landed.cast(pa.date32()))
        self.adjusted_to = known_to.cast(pa.int32()).to_numpy()
        self.as_of = pc.coalesce(bars["adj_close_as_of"], known_to).cast(pa.int32()).to_numpy()
        self.says = np.asarray(bars["dividends_delivered"])
        self.on_total_return = np.asarray(pc.equal(bars["basis"], "total_return"))
        self.values = {name: bars[name].to_numpy().astype(np.float64) for name in (*PRICES, "adj_close", "volume")}
        self._published = {(_days(row["ex_date"]), row["kind"]): row["price_factor"] for row in published}
        every = sorted(_merged(delivered), key=_order)
        for one in every:
            one.announced = not self._counts(one)
        self.splits = [one for one in every if one.kind == SPLIT]
        for split in self.splits:
            split.factors = [float(value) for value in split.values]
            split.price_factor = 1 / split.value if split.acts else None
        self.dividends = [one for one in every if one.kind != SPLIT]
        for dividend in self.dividends:
            dividend.values = [
                value / self._unknown_at(dividend.ex_date, seen, to)
                for value, seen, to in zip(dividend.values, dividend.seen, dividend.adjusted_to, strict=True)
            ]

    def _counts(self, action: _Action) -> bool:
        """Whether the ticker has traded since the action."""
        if self.years is not None and _year(action.ex_date) > max(self.years):
            return (action.ex_date, action.kind) in self._published
        return bool(self.day[-1] >= action.ex_date)

    def _unknown_at(self, day: int, landed: int, adjusted_to: int) -> float:
        """The product of the ratios of the splits after `day` that a delivery of then did not know."""
        product = 1.0
        for split in self.splits:
            if day < split.ex_date:
                product *= split.value / self._then(split, landed, adjusted_to)
        return product

    @staticmethod
    def _then(action: _Action, landed: int, adjusted_to: int) -> float:
        """The ratio that one delivery's prices are adjusted by."""
        if adjusted_to < action.ex_date:
            return 1.0
        return float(action.factors[action.known_at(landed)] or 1.0)

    def factor_then(self, action: _Action, adjusted_to: Array) -> Array:
        """By bar: the factor of an action that the bar's delivery is adjusted by, 1 where it did not know it.

        A delivery knows an action if it is adjusted to the ex-date or later: then by what deliveries said when it landed, or, if
        none had said anything yet, by what the first one says (parts of a history may land in any order).
        """
        import numpy as np

        at = np.maximum(np.searchsorted(np.array(action.seen), self.landed, side="right") - 1, 0)
        factors = np.array([1.0 if factor is None else factor for factor in action.factors])
        known: Array = np.where(adjusted_to >= action.ex_date, factors[at], 1.0)
        return known

    def adjusted(self) -> pa.Table:
        """The curated bars, of `years`, with all columns but `bar_status`."""
        import numpy as np
        import pyarrow as pa

        size = len(self.day)
        every, unknown, unknown_to_adjusted = np.ones(size), np.ones(size), np.ones(size)
        for split in self.splits:
            before = self.day < split.ex_date
            every[before] *= split.value
            unknown[before] *= split.value / self.factor_then(split, self.adjusted_to)[before]
            unknown_to_adjusted[before] *= split.value / self.factor_then(split, self.as_of)[before]
        prices = {name: self.values[name] / unknown for name in PRICES}
        on_total_return = self._dividend_factors(prices["close"])
        if self.on_total_return.any():
            prices = {name: value / on_total_return for name, value in prices.items()}
        close = prices["close"]
        following, then, since = self._products()
        delivered = self.values["adj_close"] / unknown_to_adjusted
        has = ~np.isnan(delivered)
        # adj_close derived from the actions, and, where a delivery says nothing of dividends, its own brought to now.
        derived = self.says | self.on_total_return | ~has
        basis = np.where(
            self.says, "total_return", np.where(has | self.on_total_return, "total_return_delivered", "price_return")
        )
        deviation = np.where(self.says & has, delivered / (close * then) - 1, np.nan)
        inside = np.ones(size, bool) if self.years is None else np.isin(_years_of(self.day), list(self.years))
        columns = {
            **{name: pa.array(value, from_pandas=True) for name, value in prices.items()},
            "adj_close": pa.array(np.where(derived, close * following, delivered * since)),
            "volume": self._volume(unknown),
            "dividend": pa.array(self._since_bar_before(self.dividends, np.add, 0.0)),
            "split_ratio": pa.array(self._since_bar_before(self.splits, np.multiply, 1.0)),
            "split_factor": pa.array(every),
            "basis_factor": pa.array(unknown),
            "price_basis": pa.array(basis.tolist(), pa.string()),
            "adj_close_deviation": pa.array(deviation + 0.0, from_pandas=True),
        }
        names = [column.name for column in schema.COLUMNS if column.name != "bar_status"]
        table = pa.table({name: columns[name] if name in columns else self.bars[name] for name in names})
        return table.filter(pa.array(inside))

    def _dividend_factors(self, delivered: Array) -> Array:
        """Set the factors of every dividend; by bar: the product of those that prices delivered on total return are adjusted by.

        `delivered` are the closes, on the splits known now. From the newest dividend to the oldest, since the close before
        an ex-date, delivered on total return, is adjusted by every later one: traded close = delivered / later factors +
        dividend.
        """
        import numpy as np

        adjusted_by = np.ones(len(self.day))
        places = [int(np.searchsorted(self.day, one.ex_date, side="left")) - 1 for one in self.dividends]
        at = len(self.dividends)
        while at:
            start = at - 1  # dividends that go ex after the same bar are taken together: nothing is traded between them
            while start and places[start - 1] == places[at - 1]:
                start -= 1
            group, place = self.dividends[start:at], places[at - 1]
            at = start
            if place < 0:
                for one in group:
                    one.factors = [None] * len(one.values)
                    one.price_factor = self._published_factor(one)
                continue
            traded = float(delivered[place] / adjusted_by[place])
            if self.on_total_return[place]:
                known = [one for one in group if self.adjusted_to[place] >= one.ex_date]
                traded += sum(one.values[one.known_at(int(self.landed[place]))] for one in known)
            self._drop_gain_in_dividend(group, place, traded)
            left = traded
            for one in group:
                one.factors = [1 - value / left if 0 <= value < left else None for value in one.values]
                one.price_factor = one.factors[-1] if one.acts else None
                if self._after_years(one):
                    one.price_factor = self._published_factor(one)
                    one.factors[-1] = one.price_factor
                if self.on_total_return.any():
                    before = self.on_total_return & (self.day < one.ex_date)
                    adjusted_by[before] *= self.factor_then(one, self.adjusted_to)[before]
                if one.factors[-1] is not None:
                    left -= one.value
        return adjusted_by

    def _drop_gain_in_dividend(self, group: list[_Action], place: int, traded: float) -> None:
        """Take a capital gain for none where the delivered adj_close shows that the dividend beside it has it in already.

        Yahoo counts capital gains among the dividends of some funds and beside them of others (yfinance#2666).
        """
        gains = [one for one in group if one.kind == CAPITAL_GAIN and one.acts]
        amount = sum(one.value for one in group if one.kind == DIVIDEND)
        if not gains or amount <= 0 or place + 1 >= len(self.day):
            return
        close, adj_close = self.values["close"], self.values["adj_close"]
        factor = (adj_close[place] / close[place]) / (adj_close[place + 1] / close[place + 1])
        if not factor > 0:  # nothing delivered
            return
        without, with_gains = 1 - amount / traded, 1 - (amount + sum(one.value for one in gains)) / traded
        if abs(factor - without) < abs(factor - with_gains):
            for one in gains:
                one.values = [0.0] * len(one.values)

    def _after_years(self, action: _Action) -> bool:
        return self.years is not None and _year(action.ex_date) > max(self.years)

    def _published_factor(self, action: _Action) -> float | None:
        factor: float | None = self._published.get((action.ex_date, action.kind)) if self._after_years(action) else None
        return factor

    def _products(self) -> tuple[Array, Array, Array]:
        """By bar: the product of the factors of all later dividends; of those, as the delivered adj_close is adjusted by
        them; and of what brings a delivered adj_close to now."""
        import numpy as np

        acting = [one for one in self.dividends if one.price_factor is not None]
        ex_dates = np.array([one.ex_date for one in acting], dtype=np.int64)
        from_each_on = np.concatenate([np.cumprod([one.price_factor or 1.0 for one in reversed(acting)])[::-1], [1.0]])
        following = from_each_on[np.searchsorted(ex_dates, self.day, side="right")]
        then, since = np.ones(len(self.day)), np.ones(len(self.day))
        if not np.isnan(self.values["adj_close"]).all():  # else nobody asks
            for one in self.dividends:
                before = self.day < one.ex_date
                known = self.factor_then(one, self.as_of)[before]
                then[before] *= known
                since[before] *= (one.price_factor or 1.0) / known
        return following, then, since

    def _since_bar_before(self, actions: Sequence[_Action], join: Any, none: float) -> Array:
        """By bar: the values of the actions since the bar before, joined; of the first bar those of its own day."""
        import numpy as np

        out = np.full(len(self.day), none)
        for one in actions:
            at = int(np.searchsorted(self.day, one.ex_date, side="left"))
            if at < len(out) and one.acts and (at or self.day[0] == one.ex_date):
                out[at] = join(out[at], one.value)
        return out

    def _volume(self, ratio: Array) -> pa.Array:
        """Shares, times `ratio` by bar, whole; null where they are not known."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        volume = self.values["volume"]
        adjusted = np.where(np.isnan(volume), 0, np.rint(np.nan_to_num(volume) * ratio)).astype(np.int64)
        whole = pc.fill_null(self.bars["volume"].combine_chunks(), 0).to_numpy()
        return pa.array(np.where(ratio == 1, whole, adjusted), mask=np.isnan(volume))

    def actions_table(self) -> pa.Table:
        """The corporate actions of `years` (None: all), with the columns of ACTION and `ticker`."""
        import pyarrow as pa

        acting = [
            one
            for one in sorted([*self.splits, *self.dividends], key=_order)
            if one.acts and (self.years is None or _year(one.ex_date) in self.years)
        ]
        seen = self.bars["ingested_at"].type
        return pa.table(
            {
                "ticker": pa.array([self.bars["ticker"][0].as_py()] * len(acting), pa.string()),
                "ex_date": pa.array([one.ex_date for one in acting], pa.int32()).cast(pa.date32()),
                "kind": pa.array([one.kind for one in acting], pa.string()),
                "value": pa.array([one.value for one in acting], pa.float64()),
                "price_factor": pa.array([one.price_factor for one in acting], pa.float64()),
                "first_seen": pa.array([one.first_seen for one in acting], pa.int64())
                .cast(pa.timestamp("us", "UTC"))
                .cast(seen),
                "late": pa.array([one.late for one in acting], pa.bool_()),
            }
        )


def _merged(delivered: Sequence[dict[str, Any]]) -> list[_Action]:
    """The actions that lines of `processed_actions` of one ticker tell of.

    Of the days that count on one session each is an action of its own, unless they say the same: then it is named twice.
    """
    days: dict[tuple[str, int, Any], list[dict[str, Any]]] = {}
    for row in delivered:
        days.setdefault((row["kind"], _days(row["session"]), row.get("date")), []).append(row)
    found: dict[tuple[str, int], list[_Action]] = {}
    for (kind, ex_date, _), rows in sorted(days.items(), key=lambda item: (item[0][0], item[0][1], str(item[0][2]))):
        rows.sort(key=lambda row: row["first_seen"])
        action = _Action(
            kind,
            ex_date,
            [(row["first_seen"] - EPOCH) // timedelta(microseconds=1) for row in rows],
            [float(row["value"]) for row in rows],
            [_days(row["adjusted_to"] or row["first_seen"].date()) for row in rows],
        )
        others = found.setdefault((kind, ex_date), [])
        if not any(other.acts and action.acts and _same(other.value, action.value) for other in others):
            others.append(action)
    return [action for actions in found.values() for action in actions]


def _order(action: _Action) -> tuple[int, int]:
    return action.ex_date, (DIVIDEND, CAPITAL_GAIN, SPLIT).index(action.kind)


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= SAME * abs(other)


def _days(day: date) -> int:
    return (day - EPOCH.date()).days


def _year(day: int) -> int:
    return (EPOCH + timedelta(days=day)).year


def _years_of(days: Array) -> Array:
    years: Array = days.astype("datetime64[D]").astype("datetime64[Y]").astype(int) + 1970
    return years
