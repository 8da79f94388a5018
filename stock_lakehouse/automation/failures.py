"""run_failure_sensor: a failed run becomes one message to a webhook, and one only for each cause and cooldown.

Here: which failures are told, in what words, and how they are posted. The address is a secret: it is in no log, cursor or error.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.instance.run_tags import keys_of
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

NAME = "run_failure_sensor"
WILL_RETRY = "dagster/will_retry"  # Dagster runs it again by itself: not a failure yet
RUNS_A_LOOK = 50
OVERLAP = timedelta(seconds=10)  # runs that end together may be recorded out of order
KEPT = timedelta(days=7)  # how long a cause is remembered
POST_ATTEMPTS = 10  # one, two, four … minutes apart: eight and a half hours
POST_PAUSE = timedelta(minutes=1)
POST_SECONDS = 10
ERROR_LENGTH = 600


class WebhookError(Exception):
    """The webhook did not take a message; the text never holds its address."""


@dataclass(frozen=True)
class Failure:
    """A run that failed: which steps, for which keys, why, and when."""

    run_id: str
    job: str
    assets: tuple[str, ...]
    keys: str
    error: str
    ended: datetime

    @property
    def cause(self) -> str:
        """The same for failures that differ in numbers, days, ids and keys only."""
        plain = re.sub(r"[0-9a-f]{8,}|\d+", "#", self.error.splitlines()[0] if self.error else "")
        return hashlib.sha256(f"{self.job}|{','.join(self.assets)}|{plain[:200]}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Memory:
    """The cursor.

    - `after`: failures to this time have been handled.
    - `handled`: when the runs near it were recorded, by run id: all within OVERLAP, and the newest RUNS_A_LOOK of the others.
    - `causes`: when each cause was last reported, and how often it was not reported since.
    - `attempts`: the failed posts of the next message, which is due at `again`.
    """

    after: datetime
    handled: Mapping[str, datetime] = field(default_factory=dict)
    causes: dict[str, tuple[datetime, int]] = field(default_factory=dict)
    attempts: int = 0
    again: datetime | None = None

    def as_text(self) -> str:
        return json.dumps(
            {
                "after": self.after.isoformat(),
                "handled": {run_id: at.isoformat() for run_id, at in self.handled.items()},
                "causes": {cause: [at.isoformat(), more] for cause, (at, more) in self.causes.items()},
                "attempts": self.attempts,
                "again": self.again.isoformat() if self.again else None,
            }
        )

    @classmethod
    def from_text(cls, cursor: str | None, now: datetime) -> Memory:
        """What `as_text` wrote; from an empty cursor: nothing before `now` is told."""
        if not cursor:
            return cls(now)
        read = json.loads(cursor)
        latest = datetime.fromisoformat(read["after"])
        # Older cursors list the ids under `told`, without times.
        handled = read["handled"] if "handled" in read else dict.fromkeys(read["told"], read["after"])
        return cls(
            latest,
            {run_id: datetime.fromisoformat(at) for run_id, at in handled.items()},
            {cause: (datetime.fromisoformat(at), more) for cause, (at, more) in read["causes"].items()},
            read["attempts"],
            datetime.fromisoformat(read["again"]) if read["again"] else None,
        )


def is_told(failure: Failure, memory: Memory, cooldown: timedelta) -> bool:
    """Whether `failure` gets a message: its cause has had none within `cooldown`."""
    before = memory.causes.get(failure.cause)
    return before is None or failure.ended - before[0] >= cooldown


def after(failure: Failure, memory: Memory, told: bool) -> Memory:
    """`memory` once `failure` is dealt with, by a message or by counting it."""
    at, more = memory.causes.get(failure.cause, (failure.ended, 0))
    known = {cause: one for cause, one in memory.causes.items() if failure.ended - one[0] < KEPT}
    known[failure.cause] = (failure.ended, 0) if told else (at, more + 1)
    return replace(passed(memory, failure.run_id, failure.ended), causes=known, attempts=0, again=None)


def passed(memory: Memory, run_id: str, recorded: datetime) -> Memory:
    """`memory` once the run is handled.

    It remembers every run that the next look reads again, however many failed within OVERLAP: a run that it forgets would take
    the place of one that was not reported yet.
    """
    latest = max(memory.after, recorded)
    handled = {**memory.handled, run_id: recorded}
    newest = set(list(handled)[-RUNS_A_LOOK:])
    kept = {one: at for one, at in handled.items() if one in newest or at > latest - OVERLAP}
    return replace(memory, after=latest, handled=kept)


def message(failure: Failure, more: int, settings: Settings) -> dict[str, Any]:
    """What is posted. `json`: fields and a `text`; `slack`: a text in Slack's form. `more` failures were not told since."""
    link = f"{settings.ui_url.rstrip('/')}/runs/{failure.run_id}"
    error = _without_secrets(failure.error, settings)
    since = f"\n{more} more of this cause since the last message" if more else ""
    assets = ", ".join(failure.assets) or failure.job
    if settings.webhook_form == "slack":
        parts = [_slack(one) for one in (assets, failure.keys, error)]
        text = f"*{parts[0]} failed* for {parts[1]}\n```{parts[2]}```\n<{_slack(link)}|run {failure.run_id[:8]}>{since}"
        return {"text": text}
    return {
        "text": f"{assets} failed for {failure.keys}: {error}\n{link}{since}",
        "job": failure.job,
        "assets": list(failure.assets),
        "keys": failure.keys,
        "error": error,
        "run_id": failure.run_id,
        "link": link,
        "cause": failure.cause,
        "more_since_last": more,
    }


def post(url: str, body: dict[str, Any]) -> None:
    """Post `body` as JSON. Raises WebhookError unless the answer is a success."""
    import requests

    try:
        answer = requests.post(url, json=body, timeout=POST_SECONDS, allow_redirects=False)
    except requests.RequestException as error:  # its text holds the address
        raise WebhookError(f"the webhook cannot be reached ({type(error).__name__})") from None
    if not 200 <= answer.status_code < 300:
        raise WebhookError(f"the webhook answered HTTP {answer.status_code}")


def run_failure_sensor(settings: Settings) -> dg.SensorDefinition:
    """Posts failed runs to `webhook_url`.

    Not Dagster's decorator of that name: its cursor moves on when a post fails, and it has no room for causes.
    """

    @dg.sensor(
        name=NAME,
        minimum_interval_seconds=min(settings.sensor_interval_seconds, 30),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts each failed run to the webhook, one message a cause and cooldown.",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now = utc_now()  # failures are recorded in real time, whatever clock the lake goes by
        memory = Memory.from_text(context.cursor, now)
        if memory.again is not None and now < memory.again:
            return dg.SensorResult(skip_reason=f"the webhook is tried again from {memory.again:%H:%M:%S} UTC")
        return _tell(context, settings, memory, now)

    return look


def _tell(context: dg.SensorEvaluationContext, settings: Settings, memory: Memory, now: datetime) -> dg.SensorResult:
    assert settings.webhook_url is not None  # automation_of defines the sensor only with it
    cooldown = timedelta(minutes=settings.webhook_cooldown_minutes)
    sent = counted = 0
    for run, recorded in _failed_runs(context.instance, memory):
        if run.tags.get(WILL_RETRY) == "true":
            memory = passed(memory, run.run_id, recorded)
            continue
        failure = failure_of(context.instance, run, recorded)
        told = is_told(failure, memory, cooldown)
        if told:
            more = memory.causes.get(failure.cause, (now, 0))[1]
            try:
                post(settings.webhook_url.get_secret_value(), message(failure, more, settings))
            except WebhookError as error:
                attempts = memory.attempts + 1
                context.log.error(f"{error}: run {failure.run_id} is not told, attempt {attempts} of {POST_ATTEMPTS}")
                if attempts < POST_ATTEMPTS:
                    memory = replace(memory, attempts=attempts, again=now + POST_PAUSE * 2 ** (attempts - 1))
                    return dg.SensorResult(skip_reason=f"{error}; tried again", cursor=memory.as_text())
        memory = after(failure, memory, told)
        sent, counted = sent + told, counted + (not told)
    reason = f"{sent} messages sent, {counted} failures of causes already told" if sent or counted else "no run failed"
    return dg.SensorResult(skip_reason=reason, cursor=memory.as_text())


def _failed_runs(instance: DagsterInstance, memory: Memory) -> list[tuple[dg.DagsterRun, datetime]]:
    """At most RUNS_A_LOOK failed runs that are not handled yet and when they were recorded, oldest first."""
    records = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=memory.after - OVERLAP),
        limit=len(memory.handled) + RUNS_A_LOOK,  # the handled ones may be among them and must not fill the answer
        order_by="update_timestamp",
        ascending=True,
    )
    new = [record for record in records if record.dagster_run.run_id not in memory.handled]
    return [(record.dagster_run, _utc(record.update_timestamp)) for record in new[:RUNS_A_LOOK]]


def _utc(moment: datetime) -> datetime:
    """SQLite gives times without a zone; they are UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def failure_of(instance: DagsterInstance, run: dg.DagsterRun, ended: datetime) -> Failure:
    """What a failed run's events say of it: the steps that failed and the root of the first one's error."""
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    steps, errors = [], []
    for record in instance.get_records_for_run(run.run_id, of_type=kinds).records:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        error = event.step_failure_data.error if event.is_step_failure else None
        while error is not None and error.cause is not None:
            error = error.cause
        if event.is_step_failure:
            steps.append(str(event.step_key))
        errors.append(error.message.strip() if error is not None else str(event.message or event.event_type_value))
    return Failure(
        run.run_id,
        run.job_name,
        tuple(dict.fromkeys(steps)),
        keys_of(run),
        (errors or ["no error recorded"])[0],
        ended,
    )


def _without_secrets(text: str, settings: Settings) -> str:
    for secret in settings.secrets():
        text = text.replace(secret, "***")
    text = re.sub(r"(?i)\b((?:token|password|secret)\s*[=:]\s*)[^\s;,&]+", r"\1***", text)
    return text if len(text) <= ERROR_LENGTH else text[:ERROR_LENGTH] + " …"


def _slack(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("```", "'''")
