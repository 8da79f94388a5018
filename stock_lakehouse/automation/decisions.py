"""Which runs to request now: pure functions of plain values, shared by the sensors and the schedule.

Here: new market days, provisional bars and gaps. Not here: reading the lake, the clock or Dagster's runs, and launching
runs (sensors.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from stock_lakehouse.instance.run_tags import RunCoverage
from stock_lakehouse.lake.coverage import Gap, TickerCoverage, find_gaps
from stock_lakehouse.market_calendar import ONE_DAY, CalendarError, MarketCalendar
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.settings import Settings

MOST_RUNS = 3  # for scattered tickers; instead of more, one run also covers the tickers between them
QUIET_AFTER = 10  # sessions; until then a ticker's missing sessions are requested together with the new day
MOST_GAPS = 5  # runs for gaps requested at a time; the next tick requests the next ones
LISTED = 3


@dataclass(frozen=True)
class Plan:
    """The settings that decide what is requested, and when.

    - `tickers`: in the settings' order; a Dagster range holds only neighbours of that order.
    - `first`, `last`: the first and last day of the lake; `last` is None if the lake has no end.
    - `grace`: how long after its close a session becomes due.
    - `session_attempts`, `session_pause`: how often a new session is requested; the pause before the second request, which
      doubles before each further one.
    - `gap_attempts`: how often a gap is requested; the second request follows after a day, the third two days later, and so on.
    - `by_session`: True if a partition is a session, so a run's tickers need not be neighbours.
    - `new_sessions`: False if new sessions come from elsewhere (files); then only provisional bars are requested.
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
    """The requests made so far for a ticker's new sessions, or for a gap.

    - `times`: how many.
    - `at`: when the last one was made.
    - `through`: the newest session requested (new sessions only).
    """

    times: int
    at: datetime
    through: date | None = None

    def again_at(self, pause: timedelta) -> datetime:
        return self.at + pause * (1 << self.times - 1)


@dataclass(frozen=True)
class Decision:
    """What to do now.

    - `ask`: the rectangles to request, each as one run.
    - `reason`: why they are requested, or why nothing is.
    - `asked`: the requests to remember until the next decision.
    """

    ask: tuple[Rectangle, ...]
    reason: str
    asked: Mapping[str, Asked] = field(default_factory=dict)


def due_session(now: datetime, calendar: MarketCalendar, plan: Plan) -> date | None:
    """The newest session that the lake should hold at `now`: its close is at least the grace ago, and it is not after `last`."""
    finished = calendar.latest_finished(now, plan.grace)
    due = calendar.between(plan.first, min(finished, plan.last or finished))
    return due[-1] if due else None


def new_market_days(
    now: datetime,
    calendar: MarketCalendar,
    holdings: Mapping[str, TickerCoverage],
    in_flight: Sequence[RunCoverage],
    asked: Mapping[str, Asked],
    plan: Plan,
) -> Decision:
    """Request the sessions after each ticker's last bar, and provisional bars; for a ticker without bars, its whole history.

    That is one run, and one more for new tickers. Sessions that a run in flight covers are not requested. A ticker whose
    session did not come in all attempts, or that has had no bar for QUIET_AFTER sessions, may be halted for long: it is requested
    once a session, and `gaps` requests its missing sessions.
    """
    due = due_session(now, calendar, plan)
    if due is None:
        return Decision((), f"nothing is due before {plan.first}; {_next_close(now, calendar, plan)}", asked)
    recent = _recent_sessions(calendar, holdings, plan.first)
    wanted: dict[str, tuple[date, ...]] = {}
    memory: dict[str, Asked] = {}
    idle = _IdleReasons(due, plan.new_sessions)
    for ticker in plan.tickers:
        held, before = holdings.get(ticker), asked.get(ticker)
        needed = _needed_sessions(held, calendar, plan, due, recent)
        uncovered = tuple(day for day in needed if not any(run.covers(ticker, day) for run in in_flight))
        if before is not None and needed:
            memory[ticker] = before
        if not uncovered:
            idle.fetching |= {run.run_id for day in needed for run in in_flight if run.covers(ticker, day)}
            if not needed and plan.new_sessions and held is not None and held.last < due:
                idle.quiet.append(ticker)
            continue
        gave_up = before is not None and before.times >= plan.session_attempts
        if before is not None and before.through == due:
            if gave_up:
                idle.quiet.append(ticker)
                continue
            if now < (later := before.again_at(plan.session_pause)):
                idle.waiting.append((ticker, later))
                continue
            memory[ticker] = Asked(before.times + 1, now, due)
        else:
            memory[ticker] = Asked(plan.session_attempts if gave_up else 1, now, due)
            if gave_up and held is not None and before is not None and before.through is not None:
                uncovered = tuple(day for day in uncovered if day > before.through or day in held.provisional)
        wanted[ticker] = uncovered
    rectangles = _new_day_rectangles(wanted, holdings, calendar, plan)
    if rectangles:
        return Decision(rectangles, "requesting " + " and ".join(map(_description, rectangles)), memory)
    return Decision((), "; ".join([*idle.text(), _next_close(now, calendar, plan)]), memory)


@dataclass
class _IdleReasons:
    """Why no run is requested although sessions may be due.

    - `due`: the newest session that is due.
    - `new_sessions`: as in `Plan`.
    - `fetching`: the ids of the runs in flight that cover needed sessions.
    - `waiting`: tickers whose session has not come yet, with the time of the next request.
    - `quiet`: tickers that are left to gap_sensor.
    """

    due: date
    new_sessions: bool
    fetching: set[str] = field(default_factory=set)
    waiting: list[tuple[str, datetime]] = field(default_factory=list)
    quiet: list[str] = field(default_factory=list)

    def text(self) -> list[str]:
        parts = []
        if self.fetching:
            runs = ", ".join(sorted(run_id[:8] for run_id in self.fetching))
            parts.append(f"{self.due} is being fetched by run {runs}")
        if self.waiting:
            later = min(at for _, at in self.waiting)
            tickers = _short_list([ticker for ticker, _ in self.waiting])
            parts.append(f"no bar of {self.due} yet for {tickers}; requested again from {_utc(later)}")
        if self.quiet:
            parts.append(f"no bar of {self.due} for {_short_list(self.quiet)} after every attempt: left to gap_sensor")
        complete = f"the lake holds every session to {self.due}" if self.new_sessions else "no bar is provisional"
        return parts or [complete]


def gaps(
    now: datetime,
    calendar: MarketCalendar,
    holdings: Mapping[str, TickerCoverage],
    in_flight: Sequence[RunCoverage],
    asked: Mapping[str, Asked],
    plan: Plan,
) -> Decision:
    """Request missing sessions, a bounded number of times spread over days, unless a run in flight covers them."""
    due = due_session(now, calendar, plan)
    found = find_gaps(calendar, holdings, plan.tickers, due) if due is not None else []
    memory = {gap.key: asked[gap.key] for gap in found if gap.key in asked}
    ready: list[Gap] = []
    later: list[datetime] = []
    fetching = 0
    for gap in found:
        before = memory.get(gap.key)
        if any(run.covers(gap.ticker, day) for run in in_flight for day in gap.sessions):
            fetching += 1
        elif before is None or (before.times < plan.gap_attempts and now >= before.again_at(ONE_DAY)):
            ready.append(gap)
        elif before.times < plan.gap_attempts:
            later.append(before.again_at(ONE_DAY))
    groups = _gap_groups({gap.ticker + gap.key: gap for gap in ready}, plan)[:MOST_GAPS]
    for gap in (gap for group in groups for gap in group):
        before = memory.get(gap.key)
        memory[gap.key] = Asked(before.times + 1 if before else 1, now)
    if groups:
        rectangles = tuple(
            Rectangle(group[0].sessions, tuple(sorted(gap.ticker for gap in group)), calendar.exchange)
            for group in groups
        )
        return Decision(
            rectangles, "requesting missing sessions: " + " and ".join(map(_description, rectangles)), memory
        )
    if not found:
        return Decision((), "no session is missing between a ticker's bars", memory)
    given_up = len(found) - len(later) - fetching
    parts = [f"{len(found)} gaps"]
    if fetching:
        parts.append(f"{fetching} being fetched")
    if later:
        parts.append(f"{len(later)} to be requested again, the next from {_utc(min(later))}")
    if given_up:
        parts.append(f"{given_up} given up after {plan.gap_attempts} requests: see check gap_diagnosis")
    return Decision((), "; ".join(parts), memory)


def rectangles_of(
    spans: Mapping[str, tuple[date, date]], calendar: MarketCalendar, plan: Plan
) -> tuple[Rectangle, ...]:
    """The rectangles that hold each ticker's first to last session: one for each group of neighbours with the same span.

    Instead of more than MOST_GAPS rectangles there is a single one, of all these tickers and sessions and those between them.
    """
    by_span: dict[tuple[date, date], list[str]] = {}
    for ticker, span in spans.items():
        by_span.setdefault(span, []).append(ticker)
    found = [(span, group) for span, tickers in sorted(by_span.items()) for group in _groups(tickers, plan)]
    if len(found) > MOST_GAPS:
        span = (min(first for first, _ in by_span), max(last for _, last in by_span))
        places = sorted(plan.tickers.index(ticker) for ticker in spans)
        found = [(span, list(spans) if plan.by_session else list(plan.tickers[places[0] : places[-1] + 1]))]
    return tuple(Rectangle(calendar.between(*span), tuple(sorted(group)), calendar.exchange) for span, group in found)


def _recent_sessions(
    calendar: MarketCalendar, holdings: Mapping[str, TickerCoverage], first: date
) -> tuple[date, date] | None:
    """The session QUIET_AFTER before the newest one that any ticker has, and that newest one.

    A ticker without a bar since the former is quiet. None if no ticker has a bar.
    """
    newest = max((held.last for held in holdings.values()), default=None)
    if newest is None:
        return None
    return calendar.between(min(first, newest), newest)[-QUIET_AFTER - 1 :][0], newest


def _needed_sessions(
    held: TickerCoverage | None, calendar: MarketCalendar, plan: Plan, due: date, recent: tuple[date, date] | None
) -> tuple[date, ...]:
    """A ticker's sessions up to `due` that are after its last bar or have a provisional bar; all sessions if it has no bar.

    A quiet ticker needs only the sessions after the newest one that any ticker has: it may be gone, and its past must not
    widen every day's run.
    """
    if held is None or recent is None:
        return calendar.between(plan.first, due) if plan.new_sessions else ()
    provisional = [day for day in held.provisional if plan.first <= day <= due]
    since = recent[1] if held.last < recent[0] else held.last
    new = calendar.between(max(plan.first, since + ONE_DAY), due) if plan.new_sessions else ()
    return tuple(sorted({*provisional, *new}))


def _new_day_rectangles(
    wanted: Mapping[str, tuple[date, ...]], holdings: Mapping[str, TickerCoverage], calendar: MarketCalendar, plan: Plan
) -> tuple[Rectangle, ...]:
    """The rectangles that hold `wanted`, each of a group of neighbours; tickers with bars apart from those without.

    If either kind has more than MOST_RUNS groups, one rectangle covers them and the tickers between them.
    """
    rectangles = []
    for has_bars in (True, False):
        part = {ticker: days for ticker, days in wanted.items() if (ticker in holdings) is has_bars and days}
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
    """`tickers` in the settings' order, cut where two are not neighbours there; one group if a partition is a session."""
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


def _gap_groups(ready: Mapping[str, Gap], plan: Plan) -> list[list[Gap]]:
    """The gaps, grouped by equal sessions and neighbouring tickers, oldest first."""
    by_sessions: dict[tuple[date, ...], dict[str, Gap]] = {}
    for gap in ready.values():
        by_sessions.setdefault(gap.sessions, {})[gap.ticker] = gap
    return [
        [by_ticker[ticker] for ticker in group]
        for _, by_ticker in sorted(by_sessions.items())
        for group in _groups(list(by_ticker), plan)
    ]


def _next_close(now: datetime, calendar: MarketCalendar, plan: Plan) -> str:
    """When the next session will be due."""
    finished = calendar.latest_finished(now, plan.grace)
    if plan.last is not None and finished >= plan.last:
        return f"last_date is {plan.last}"
    try:
        close = calendar.close(calendar.after(finished))
    except CalendarError as error:
        return f"{error}; upgrade exchange_calendars and pandas_market_calendars"
    if close <= now:
        return f"closed {_utc(close)}, requested from {_utc(close + plan.grace)}"
    return f"next close {_utc(close)}"


def _description(rectangle: Rectangle) -> str:
    days = f"{rectangle.first}" if rectangle.first == rectangle.last else f"{rectangle.first} to {rectangle.last}"
    return f"{days} for {_short_list(rectangle.tickers)}"


def _short_list(tickers: Sequence[str]) -> str:
    return ", ".join(tickers) if len(tickers) <= LISTED else f"{len(tickers)} tickers"


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
