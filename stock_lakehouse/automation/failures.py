"""run_failure_sensor: posts failed runs to a webhook, at most one message for each cause and cooldown.

Here: which failures are posted, the text of a message, and the posting. The address is a secret: no log, cursor or error has it.
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
WILL_RETRY = "dagster/will_retry"  # Dagster will retry the run by itself, so it is not a failure yet
RUNS_A_LOOK = 50
OVERLAP = timedelta(seconds=10)  # runs that end together may be recorded out of order
KEPT = timedelta(days=7)  # how long a cause is remembered
POST_ATTEMPTS = 10  # 1, 2, 4 … minutes apart: eight and a half hours in all
POST_PAUSE = timedelta(minutes=1)
POST_SECONDS = 10
ERROR_LENGTH = 600


class WebhookError(Exception):
    """The webhook did not accept a message. The text never holds its address."""


@dataclass(frozen=True)
class Failure:
    """A run that failed.

    - `run_id`, `job`: the run and its job.
    - `assets`: the steps that failed.
    - `keys`: the run's partition keys, as text.
    - `error`: the root of the first step's error.
    - `ended`: when the failure was recorded.
    """

    run_id: str
    job: str
    assets: tuple[str, ...]
    keys: str
    error: str
    ended: datetime

    @property
    def cause(self) -> str:
        """A hash that is equal for failures which differ only in numbers, days, ids and keys."""
        plain = re.sub(r"[0-9a-f]{8,}|\d+", "#", self.error.splitlines()[0] if self.error else "")
        return hashlib.sha256(f"{self.job}|{','.join(self.assets)}|{plain[:200]}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Memory:
    """The cursor.

    - `after`: failures recorded up to this time have been handled.
    - `handled`: by run id, when the handled runs near `after` were recorded: all within OVERLAP, and the newest RUNS_A_LOOK.
    - `causes`: by cause, when it was last reported, and how many failures were not reported since.
    - `attempts`: how often posting the next message has failed.
    - `again`: when that message is posted again; None if posting has not failed.
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
        """The memory in a cursor that `as_text` wrote. With an empty cursor no failure before `now` is reported."""
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
    """True if `failure` is to be reported: its cause has not been reported within `cooldown`."""
    before = memory.causes.get(failure.cause)
    return before is None or failure.ended - before[0] >= cooldown


def after(failure: Failure, memory: Memory, told: bool) -> Memory:
    """`memory` after `failure` was reported (`told`), or counted for the next message of its cause."""
    at, more = memory.causes.get(failure.cause, (failure.ended, 0))
    causes = {cause: report for cause, report in memory.causes.items() if failure.ended - report[0] < KEPT}
    causes[failure.cause] = (failure.ended, 0) if told else (at, more + 1)
    return replace(passed(memory, failure.run_id, failure.ended), causes=causes, attempts=0, again=None)


def passed(memory: Memory, run_id: str, recorded: datetime) -> Memory:
    """`memory` after the run was handled.

    It keeps every run that the next tick will read again, however many failed within OVERLAP. A forgotten run would be read as
    new and take the place of one that has not been reported.
    """
    latest = max(memory.after, recorded)
    handled = {**memory.handled, run_id: recorded}
    newest = set(list(handled)[-RUNS_A_LOOK:])
    kept = {handled_id: at for handled_id, at in handled.items() if handled_id in newest or at > latest - OVERLAP}
    return replace(memory, after=latest, handled=kept)


def message(failure: Failure, more: int, settings: Settings) -> dict[str, Any]:
    """The message to post, in the form of the setting `webhook_form`: JSON fields and a `text`, or a text in Slack's markup.

    `more`: how many failures of the cause were not reported since its last message.
    """
    link = f"{settings.ui_url.rstrip('/')}/runs/{failure.run_id}"
    error = _without_secrets(failure.error, settings)
    since = f"\n{more} more of this cause since the last message" if more else ""
    assets = ", ".join(failure.assets) or failure.job
    if settings.webhook_form == "slack":
        parts = [_slack(text) for text in (assets, failure.keys, error)]
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
    """The sensor that posts failed runs to `webhook_url`.

    Dagster's decorator of that name is not used: its cursor moves on when a post fails, and cannot hold the causes.
    """

    @dg.sensor(
        name=NAME,
        minimum_interval_seconds=min(settings.sensor_interval_seconds, 30),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts failed runs to the webhook, at most one message for each cause and cooldown.",
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now = utc_now()  # Dagster records failures in real time, also for a lake with a simulated clock
        memory = Memory.from_text(context.cursor, now)
        if memory.again is not None and now < memory.again:
            return dg.SensorResult(skip_reason=f"the webhook is tried again from {memory.again:%H:%M:%S} UTC")
        return _report(context, settings, memory, now)

    return tick


def _report(context: dg.SensorEvaluationContext, settings: Settings, memory: Memory, now: datetime) -> dg.SensorResult:
    assert settings.webhook_url is not None  # automation_of defines the sensor only with a webhook
    cooldown = timedelta(minutes=settings.webhook_cooldown_minutes)
    sent = counted = 0
    for run, recorded in _failed_runs(context.instance, memory):
        if run.tags.get(WILL_RETRY) == "true":
            memory = passed(memory, run.run_id, recorded)
            continue
        failure = failure_of(context.instance, run, recorded)
        reported = is_told(failure, memory, cooldown)
        if reported:
            more = memory.causes.get(failure.cause, (now, 0))[1]
            try:
                post(settings.webhook_url.get_secret_value(), message(failure, more, settings))
            except WebhookError as error:
                attempts = memory.attempts + 1
                context.log.error(
                    f"{error}: run {failure.run_id} is not reported, attempt {attempts} of {POST_ATTEMPTS}"
                )
                if attempts < POST_ATTEMPTS:
                    memory = replace(memory, attempts=attempts, again=now + POST_PAUSE * 2 ** (attempts - 1))
                    return dg.SensorResult(skip_reason=f"{error}; tried again", cursor=memory.as_text())
        memory = after(failure, memory, reported)
        sent, counted = sent + reported, counted + (not reported)
    reason = (
        f"{sent} messages sent, {counted} failures of causes already reported" if sent or counted else "no run failed"
    )
    return dg.SensorResult(skip_reason=reason, cursor=memory.as_text())


def _failed_runs(instance: DagsterInstance, memory: Memory) -> list[tuple[dg.DagsterRun, datetime]]:
    """The oldest RUNS_A_LOOK failed runs that have not been handled, and when each was recorded, oldest first."""
    records = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=memory.after - OVERLAP),
        limit=len(memory.handled) + RUNS_A_LOOK,  # handled runs may be among the records and must not use up the limit
        order_by="update_timestamp",
        ascending=True,
    )
    new = [record for record in records if record.dagster_run.run_id not in memory.handled]
    return [(record.dagster_run, _utc(record.update_timestamp)) for record in new[:RUNS_A_LOOK]]


def _utc(moment: datetime) -> datetime:
    """`moment` with its time zone: SQLite returns UTC without one."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def failure_of(instance: DagsterInstance, run: dg.DagsterRun, ended: datetime) -> Failure:
    """The failure that a failed run's events describe: the steps that failed and the root of the first one's error."""
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
