"""From processed to curated bars: prices on one basis with all splits and dividends known now, and whether the bar is final.

Pure Spark around a numpy kernel. Not here: which rows a run may publish and which bars it reads (layers/curated.py).
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
    computed = union.groupBy("ticker").applyInArrow(_kernel(None if years is None else frozenset(years)), ddl)
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
    """A function from one ticker's bars and actions to its adjusted bars, in ascending order, and its corporate actions."""

    def kernel(rows: pa.Table) -> pa.Table:
        import pyarrow as pa
        import pyarrow.compute as pc

        bars, delivered, published = (
            rows.select(names).filter(pc.equal(rows["origin"], origin))
            for names, origin in zip((BAR, DELIVERED, PUBLISHED), ORIGINS, strict=True)
        )
        names = [column.name for column in (*schema.COLUMNS, *ACTION) if column.name != "bar_status"]
        if not bars.num_rows:
            return _empty(rows, names)
        ticker = _Ticker(_by_date(bars), delivered.to_pylist(), published.to_pylist(), years)
        out, actions = ticker.adjusted(), ticker.actions_table()
        return pa.concat_tables([_filled(out, actions, names), _filled(actions, out, names)])

    return kernel


def _by_date(bars: pa.Table) -> pa.Table:
    """`bars` in ascending order of date, each column in one piece."""
    import numpy as np
    import pyarrow as pa

    day = bars["date"].cast(pa.int32()).to_numpy()
    in_order = bool((day[1:] >= day[:-1]).all())
    return (bars if in_order else bars.take(np.argsort(day, kind="stable"))).combine_chunks()


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


@dataclass
class _Action:
    """A split or dividend of one day, with the successive values that deliveries gave it.

    - `ex_date`: days since 1970.
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
        adjusted_to = pc.coalesce(bars["adjusted_to"], landed.cast(pa.date32()))
        self.adjusted_to = adjusted_to.cast(pa.int32()).to_numpy()
        self.adj_close_as_of = pc.coalesce(bars["adj_close_as_of"], adjusted_to).cast(pa.int32()).to_numpy()
        self.dividends_delivered = np.asarray(bars["dividends_delivered"])
        self.on_total_return = np.asarray(pc.equal(bars["basis"], "total_return"))
        self.values = {name: bars[name].to_numpy().astype(np.float64) for name in (*PRICES, "adj_close", "volume")}
        self._published = {(_days(row["ex_date"]), row["kind"]): row["price_factor"] for row in published}
        actions = sorted(_actions_of(delivered), key=_sort_key)
        for action in actions:
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

    def _has_traded_since(self, action: _Action) -> bool:
        """Whether the ticker has traded since the action."""
        if self.years is not None and _year(action.ex_date) > max(self.years):
            return (action.ex_date, action.kind) in self._published
        return bool(self.day[-1] >= action.ex_date)

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

    def before(self, action: _Action) -> int:
        """How many bars are before the ex-date of an action. They come first."""
        return int(self.day.searchsorted(action.ex_date, side="left"))

    def known_factor(self, action: _Action, adjusted_to: Array) -> Array | float:
        """By bar before the ex-date: the factor of an action by which the bar's delivery is adjusted; 1 where the delivery did
        not know it. One number if it is the same for all of these bars.

        A delivery knows an action if it is adjusted to the ex-date or later. The factor is then that of the newest value when the
        delivery landed, or, if there was none yet, of the first value (parts of a history may land in any order).
        """
        import numpy as np

        count = self.before(action)
        factors = np.array([1.0 if factor is None else factor for factor in action.factors])
        of_newest: Array | float = float(factors[0])
        if len(factors) > 1:
            known_at = np.maximum(np.searchsorted(np.array(action.seen), self.landed[:count], side="right") - 1, 0)
            of_newest = factors[known_at]
        knows = adjusted_to[:count] >= action.ex_date
        if knows.all():
            return of_newest
        known: Array = np.where(knows, of_newest, 1.0)
        return known

    def adjusted(self) -> pa.Table:
        """The curated bars of `years`, with all columns but `bar_status`."""
        import numpy as np
        import pyarrow as pa

        size = len(self.day)
        split_factor, basis_factor, adj_close_factor = np.ones(size), np.ones(size), np.ones(size)
        for split in self.splits:
            before = self.before(split)
            split_factor[:before] *= split.value
            basis_factor[:before] *= split.value / self.known_factor(split, self.adjusted_to)
            adj_close_factor[:before] *= split.value / self.known_factor(split, self.adj_close_as_of)
        prices = {name: self.values[name] / basis_factor for name in PRICES}
        total_return_factor = self._set_dividend_factors(prices["close"])
        if self.on_total_return.any():
            prices = {name: value / total_return_factor for name, value in prices.items()}
        close = prices["close"]
        later, later_known, later_unknown = self._later_dividend_factors()
        delivered = self.values["adj_close"] / adj_close_factor
        has_adj_close = ~np.isnan(delivered)
        # adj_close is derived from the actions. Where a delivery says nothing about dividends, it is the delivered one, times the
        # factors that the delivery did not know.
        is_derived = self.dividends_delivered | self.on_total_return | ~has_adj_close
        basis = np.where(self.dividends_delivered, 0, np.where(has_adj_close | self.on_total_return, 1, 2))
        deviation = np.where(self.dividends_delivered & has_adj_close, delivered / (close * later_known) - 1, np.nan)
        inside = np.ones(size, bool) if self.years is None else np.isin(_years_of(self.day), list(self.years))
        columns = {
            **{name: pa.array(value, from_pandas=True) for name, value in prices.items()},
            "adj_close": pa.array(np.where(is_derived, close * later, delivered * later_unknown)),
            "volume": self._volume(basis_factor),
            "dividend": pa.array(self._since_bar_before(self.dividends, np.add, 0.0)),
            "split_ratio": pa.array(self._since_bar_before(self.splits, np.multiply, 1.0)),
            "split_factor": pa.array(split_factor),
            "basis_factor": pa.array(basis_factor),
            "price_basis": pa.array(PRICE_BASES, pa.string()).take(pa.array(basis)),
            "adj_close_deviation": pa.array(deviation + 0.0, from_pandas=True),
        }
        names = [column.name for column in schema.COLUMNS if column.name != "bar_status"]
        table = pa.table({name: columns[name] if name in columns else self.bars[name] for name in names})
        return table.filter(pa.array(inside))

    def _set_dividend_factors(self, delivered: Array) -> Array:
        """Set the factors of every dividend. Returns, by bar, the product of the factors in prices delivered on total return.

        `delivered` are the closes, adjusted for the splits known now. The newest dividend comes first, since a close before an
        ex-date that is delivered on total return is adjusted by every later dividend: traded close = delivered / later factors +
        dividend.
        """
        import numpy as np

        adjusted_by = np.ones(len(self.day))
        bars_before = [self.before(dividend) - 1 for dividend in self.dividends]
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
            if self.on_total_return[bar]:
                known = [dividend for dividend in group if self.adjusted_to[bar] >= dividend.ex_date]
                traded += sum(dividend.values[dividend.known_at(int(self.landed[bar]))] for dividend in known)
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
                if self.on_total_return.any():
                    before, factor = self.before(dividend), self.known_factor(dividend, self.adjusted_to)
                    adjusted_by[:before] *= np.where(self.on_total_return[:before], factor, 1.0)
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
        if not gains or amount <= 0 or bar + 1 >= len(self.day):
            return
        close, adj_close = self.values["close"], self.values["adj_close"]
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
        later = from_each_on[np.searchsorted(ex_dates, self.day, side="right")]
        later_known, later_unknown = np.ones(len(self.day)), np.ones(len(self.day))
        if not np.isnan(self.values["adj_close"]).all():  # otherwise these two are not used
            for dividend in self.dividends:
                before, known = self.before(dividend), self.known_factor(dividend, self.adj_close_as_of)
                later_known[:before] *= known
                later_unknown[:before] *= (dividend.price_factor or 1.0) / known
        return later, later_known, later_unknown

    def _since_bar_before(self, actions: Sequence[_Action], join: Any, neutral: float) -> Array:
        """By bar: the joined values of the actions since the bar before; for the first bar, of the actions on its day."""
        import numpy as np

        out = np.full(len(self.day), neutral)
        for action in actions:
            bar = self.before(action)
            if bar < len(out) and action.counts and (bar or self.day[0] == action.ex_date):
                out[bar] = join(out[bar], action.value)
        return out

    def _volume(self, ratio: Array) -> pa.Array:
        """The number of shares times `ratio`, by bar, rounded to whole shares; null where unknown."""
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

        actions = [
            action
            for action in sorted([*self.splits, *self.dividends], key=_sort_key)
            if action.counts and (self.years is None or _year(action.ex_date) in self.years)
        ]
        timestamp = self.bars["ingested_at"].type
        return pa.table(
            {
                "ticker": pa.array([self.bars["ticker"][0].as_py()] * len(actions), pa.string()),
                "ex_date": pa.array([action.ex_date for action in actions], pa.int32()).cast(pa.date32()),
                "kind": pa.array([action.kind for action in actions], pa.string()),
                "value": pa.array([action.value for action in actions], pa.float64()),
                "price_factor": pa.array([action.price_factor for action in actions], pa.float64()),
                "first_seen": pa.array([action.first_seen for action in actions], pa.int64())
                .cast(pa.timestamp("us", "UTC"))
                .cast(timestamp),
                "late": pa.array([action.late for action in actions], pa.bool_()),
            }
        )


def _actions_of(delivered: Sequence[dict[str, Any]]) -> list[_Action]:
    """The actions of one ticker, from its lines of `processed_actions`.

    If several days count on one session, each of them has a separate action. Days with the same value name one action twice.
    """
    days: dict[tuple[str, int, Any], list[dict[str, Any]]] = {}
    for row in delivered:
        days.setdefault((row["kind"], _days(row["session"]), row.get("date")), []).append(row)
    by_session: dict[tuple[str, int], list[_Action]] = {}
    for (kind, ex_date, _), rows in sorted(days.items(), key=lambda item: (item[0][0], item[0][1], str(item[0][2]))):
        rows.sort(key=lambda row: row["first_seen"])
        action = _Action(
            kind,
            ex_date,
            [(row["first_seen"] - EPOCH) // timedelta(microseconds=1) for row in rows],
            [float(row["value"]) for row in rows],
            [_days(row["adjusted_to"] or row["first_seen"].date()) for row in rows],
        )
        others = by_session.setdefault((kind, ex_date), [])
        if not any(other.counts and action.counts and _same(other.value, action.value) for other in others):
            others.append(action)
    return [action for actions in by_session.values() for action in actions]


def _sort_key(action: _Action) -> tuple[int, int]:
    return action.ex_date, (DIVIDEND, CAPITAL_GAIN, SPLIT).index(action.kind)


def _same(value: float, other: float) -> bool:
    return abs(value - other) <= SAME * abs(other)


def _days(day: date) -> int:
    return (day - EPOCH.date()).days


def _year(day: int) -> int:
    return (EPOCH + timedelta(days=day)).year


def _years_of(days: Array) -> Array:
    years: Array = days.astype("datetime64[D]").astype("datetime64[Y]").astype(int) + 1970
    return years
