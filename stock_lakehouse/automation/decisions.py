"""What is to be asked of the source now: pure functions of plain values, the same for sensor and schedule.

Here: new market days, provisional bars and gaps. Not here: reading the lake, the clock or Dagster's runs, and launching
anything (sensors.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from stock_lakehouse.instance.run_tags import Bringing
from stock_lakehouse.lake.coverage import Gap, Held, find_gaps
from stock_lakehouse.market_calendar import CalendarError, MarketCalendar
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.settings import Settings

MOST_RUNS = 3  # of scattered tickers; where there are more groups, one run takes the tickers between them along
QUIET_AFTER = 10  # sessions; until then a ticker's past is asked for with the new day
MOST_GAPS = 5  # runs for gaps at a time; the next look asks for the next ones
LISTED = 3
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Plan:
    """What the settings say about asking. `tickers` in the settings' order: a Dagster range has only neighbours.

    A new session is asked for `session_attempts` times, `session_pause` after the first ask, then twice that and so on; a gap
    `gap_attempts` times, a day, then two days and so on apart. Without `new_sessions` something else brings those (files), and
    only provisional bars are asked for.
    """

    tickers: tuple[str, ...]
    first: date
    last: date | None
    grace: timedelta
    session_attempts: int = Settings.model_fields["session_attempts"].default
    session_pause: timedelta = timedelta(minutes=Settings.model_fields["session_retry_minutes"].default)
    gap_attempts: int = Settings.model_fields["gap_attempts"].default
    by_session: bool = False
    new_sessions: bool = True


@dataclass(frozen=True)
class Asked:
    """How often something was asked for, last `at`; of a ticker's new sessions the newest, `through`."""

    times: int
    at: datetime
    through: date | None = None

    def again_at(self, pause: timedelta) -> datetime:
        return self.at + pause * (1 << self.times - 1)


@dataclass(frozen=True)
class Decision:
    """What to ask for, a run each; why, or why not; and what to remember until the next decision."""

    ask: tuple[Rectangle, ...]
    reason: str
    asked: Mapping[str, Asked] = field(default_factory=dict)


def due_session(now: datetime, calendar: MarketCalendar, plan: Plan) -> date | None:
    """The newest session that the lake should hold at `now`: closed for the grace, and not after the last day."""
    finished = calendar.latest_finished(now, plan.grace)
    due = calendar.between(plan.first, min(finished, plan.last or finished))
    return due[-1] if due else None


def new_market_days(
    now: datetime,
    calendar: MarketCalendar,
    holdings: Mapping[str, Held],
    in_flight: Sequence[Bringing],
    asked: Mapping[str, Asked],
    plan: Plan,
) -> Decision:
    """Ask for the sessions after each ticker's last bar and for provisional bars; for a ticker without bars, for its whole life.

    One run, and one more for new tickers. What is in flight is not asked for. A ticker that did not come in all attempts
    of a session, or for QUIET_AFTER sessions, is left to `gaps`, and asked once a session: it may be halted for long.
    """
    due = due_session(now, calendar, plan)
    if due is None:
        return Decision((), f"nothing is due before {plan.first}; {_next_close(now, calendar, plan)}", asked)
    current = _current(calendar, holdings, plan.first)
    wanted: dict[str, tuple[date, ...]] = {}
    memory: dict[str, Asked] = {}
    standing = _Standing(due, plan.new_sessions)
    for ticker in plan.tickers:
        held, before = holdings.get(ticker), asked.get(ticker)
        lacks = _lacking(held, calendar, plan, due, current)
        left = tuple(day for day in lacks if not any(run.brings(ticker, day) for run in in_flight))
        if before is not None and lacks:
            memory[ticker] = before
        if not left:
            standing.fetching |= {run.run_id for day in lacks for run in in_flight if run.brings(ticker, day)}
            if not lacks and plan.new_sessions and held is not None and held.last < due:
                standing.quiet.append(ticker)
            continue
        gave_up = before is not None and before.times >= plan.session_attempts
        if before is not None and before.through == due:
            if gave_up:
                standing.quiet.append(ticker)
                continue
            if now < (later := before.again_at(plan.session_pause)):
                standing.waiting.append((ticker, later))
                continue
            memory[ticker] = Asked(before.times + 1, now, due)
        else:
            memory[ticker] = Asked(plan.session_attempts if gave_up else 1, now, due)
            if gave_up and held is not None and before is not None and before.through is not None:
                left = tuple(day for day in left if day > before.through or day in held.provisional)
        wanted[ticker] = left
    rectangles = _for_new_days(wanted, holdings, calendar, plan)
    if rectangles:
        return Decision(rectangles, "asking for " + " and ".join(map(_described, rectangles)), memory)
    return Decision((), "; ".join([*standing.words(), _next_close(now, calendar, plan)]), memory)


@dataclass
class _Standing:
    """Why nothing is asked for of what is due."""

    due: date
    new_sessions: bool
    fetching: set[str] = field(default_factory=set)
    waiting: list[tuple[str, datetime]] = field(default_factory=list)
    quiet: list[str] = field(default_factory=list)

    def words(self) -> list[str]:
        parts = []
        if self.fetching:
            runs = ", ".join(sorted(run_id[:8] for run_id in self.fetching))
            parts.append(f"{self.due} is being fetched by run {runs}")
        if self.waiting:
            later = min(at for _, at in self.waiting)
            tickers = _few([ticker for ticker, _ in self.waiting])
            parts.append(f"{tickers} did not bring {self.due} yet; asked again from {_utc(later)}")
        if self.quiet:
            parts.append(f"{_few(self.quiet)} without {self.due} after every attempt: left to gap_sensor")
        complete = f"the lake holds every session to {self.due}" if self.new_sessions else "no bar is provisional"
        return parts or [complete]


def gaps(
    now: datetime,
    calendar: MarketCalendar,
    holdings: Mapping[str, Held],
    in_flight: Sequence[Bringing],
    asked: Mapping[str, Asked],
    plan: Plan,
) -> Decision:
    """Ask for missing sessions again, a bounded number of times, spread over days; what is in flight is not asked for."""
    due = due_session(now, calendar, plan)
    found = find_gaps(calendar, holdings, plan.tickers, due) if due is not None else []
    memory = {gap.key: asked[gap.key] for gap in found if gap.key in asked}
    ready: list[Gap] = []
    later: list[datetime] = []
    fetching = 0
    for gap in found:
        before = memory.get(gap.key)
        if any(run.brings(gap.ticker, day) for run in in_flight for day in gap.sessions):
            fetching += 1
        elif before is None or (before.times < plan.gap_attempts and now >= before.again_at(DAY)):
            ready.append(gap)
        elif before.times < plan.gap_attempts:
            later.append(before.again_at(DAY))
    groups = _neighbours({gap.ticker + gap.key: gap for gap in ready}, plan)[:MOST_GAPS]
    for gap in (gap for group in groups for gap in group):
        before = memory.get(gap.key)
        memory[gap.key] = Asked(before.times + 1 if before else 1, now)
    if groups:
        rectangles = tuple(
            Rectangle(group[0].sessions, tuple(sorted(gap.ticker for gap in group)), calendar.exchange)
            for group in groups
        )
        return Decision(rectangles, "asking again for " + " and ".join(map(_described, rectangles)), memory)
    if not found:
        return Decision((), "no session is missing between a ticker's bars", memory)
    given_up = len(found) - len(later) - fetching
    parts = [f"{len(found)} gaps"]
    if fetching:
        parts.append(f"{fetching} being fetched")
    if later:
        parts.append(f"{len(later)} asked for again, the next from {_utc(min(later))}")
    if given_up:
        parts.append(f"{given_up} given up after {plan.gap_attempts} asks: see check gap_diagnosis")
    return Decision((), "; ".join(parts), memory)


def rectangles_of(
    spans: Mapping[str, tuple[date, date]], calendar: MarketCalendar, plan: Plan
) -> tuple[Rectangle, ...]:
    """The rectangles that hold each ticker's first to last session: one a group of neighbours that share both.

    Where there would be more than MOST_GAPS, a single one of all tickers and sessions between.
    """
    same: dict[tuple[date, date], list[str]] = {}
    for ticker, span in spans.items():
        same.setdefault(span, []).append(ticker)
    found = [(span, group) for span, tickers in sorted(same.items()) for group in _groups(tickers, plan)]
    if len(found) > MOST_GAPS:
        span = (min(first for first, _ in same), max(last for _, last in same))
        places = sorted(plan.tickers.index(ticker) for ticker in spans)
        found = [(span, list(spans) if plan.by_session else list(plan.tickers[places[0] : places[-1] + 1]))]
    return tuple(Rectangle(calendar.between(*span), tuple(sorted(group)), calendar.exchange) for span, group in found)


def _current(calendar: MarketCalendar, holdings: Mapping[str, Held], first: date) -> tuple[date, date] | None:
    """The newest session that any ticker has, and the one QUIET_AFTER before it: a ticker without a bar since is quiet."""
    newest = max((held.last for held in holdings.values()), default=None)
    if newest is None:
        return None
    return calendar.between(min(first, newest), newest)[-QUIET_AFTER - 1 :][0], newest


def _lacking(
    held: Held | None, calendar: MarketCalendar, plan: Plan, due: date, current: tuple[date, date] | None
) -> tuple[date, ...]:
    """The sessions to `due` after the last bar, all of them where there is none, and those with a provisional bar.

    Of a quiet ticker only those that no other has either: it may be gone, and its past must not widen every day's run.
    """
    if held is None or current is None:
        return calendar.between(plan.first, due) if plan.new_sessions else ()
    again = [day for day in held.provisional if plan.first <= day <= due]
    since = current[1] if held.last < current[0] else held.last
    new = calendar.between(max(plan.first, since + DAY), due) if plan.new_sessions else ()
    return tuple(sorted({*again, *new}))


def _for_new_days(
    wanted: Mapping[str, tuple[date, ...]], holdings: Mapping[str, Held], calendar: MarketCalendar, plan: Plan
) -> tuple[Rectangle, ...]:
    """The rectangles that hold `wanted`: one of the tickers that have bars, one a group of those that have none."""
    rectangles = []
    for known in (True, False):
        part = {ticker: days for ticker, days in wanted.items() if (ticker in holdings) is known and days}
        if not part:
            continue
        sessions = calendar.between(min(days[0] for days in part.values()), max(days[-1] for days in part.values()))
        groups = _groups(list(part), plan)
        if len(groups) > MOST_RUNS:
            start, end = plan.tickers.index(groups[0][0]), plan.tickers.index(groups[-1][-1])
            groups = [list(plan.tickers[start : end + 1])]
        rectangles += [Rectangle(sessions, tuple(sorted(group)), calendar.exchange) for group in groups]
    return tuple(rectangles)


def _groups(tickers: Sequence[str], plan: Plan) -> list[list[str]]:
    """`tickers`, in the settings' order, cut where they are no neighbours there; a session's key needs no cut."""
    if plan.by_session:
        return [list(tickers)]
    places = {ticker: place for place, ticker in enumerate(plan.tickers)}
    groups: list[list[str]] = []
    for ticker in sorted(tickers, key=places.__getitem__):
        if groups and places[groups[-1][-1]] + 1 == places[ticker]:
            groups[-1].append(ticker)
        else:
            groups.append([ticker])
    return groups


def _neighbours(ready: Mapping[str, Gap], plan: Plan) -> list[list[Gap]]:
    """Gaps of the same sessions and neighbouring tickers together, oldest first."""
    same: dict[tuple[date, ...], dict[str, Gap]] = {}
    for gap in ready.values():
        same.setdefault(gap.sessions, {})[gap.ticker] = gap
    return [
        [by_ticker[ticker] for ticker in group]
        for _, by_ticker in sorted(same.items())
        for group in _groups(list(by_ticker), plan)
    ]


def _next_close(now: datetime, calendar: MarketCalendar, plan: Plan) -> str:
    """When there will be something to ask for."""
    finished = calendar.latest_finished(now, plan.grace)
    if plan.last is not None and finished >= plan.last:
        return f"last_date is {plan.last}"
    try:
        close = calendar.close(calendar.after(finished))
    except CalendarError as error:
        return f"{error}; upgrade exchange_calendars and pandas_market_calendars"
    if close <= now:
        return f"closed {_utc(close)}, asked for from {_utc(close + plan.grace)}"
    return f"next close {_utc(close)}"


def _described(asked: Rectangle) -> str:
    days = f"{asked.first}" if asked.first == asked.last else f"{asked.first} to {asked.last}"
    return f"{days} of {_few(asked.tickers)}"


def _few(tickers: Sequence[str]) -> str:
    return ", ".join(tickers) if len(tickers) <= LISTED else f"{len(tickers)} tickers"


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
