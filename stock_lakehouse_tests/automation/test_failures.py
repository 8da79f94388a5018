"""Messages about failed runs: what is told, once a cause and cooldown, in which words, and that no secret is in them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr

from stock_lakehouse.automation.failures import (
    POST_ATTEMPTS,
    RUNS_A_LOOK,
    Failure,
    Memory,
    WebhookError,
    after,
    is_told,
    message,
    post,
    run_failure_sensor,
)
from stock_lakehouse.settings import Settings

AT = datetime(2026, 11, 24, 21, 40, tzinfo=UTC)
FAILURE = Failure(
    "0123abcd-1111", "stock_lakehouse", ("raw_stocks_daily",), "2026-11-24|AAPL", "HTTP 503, 4 times: <busy>", AT
)
COOLDOWN = timedelta(hours=4)


class Endpoint:
    """A JSON endpoint on loopback that answers with `status`."""

    def __init__(self) -> None:
        self.status = 200
        self.bodies: list[dict[str, Any]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                endpoint.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(endpoint.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/s3cret"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    one = Endpoint()
    yield one
    one.server.shutdown()
    one.server.server_close()


def settings(**more: Any) -> Settings:
    return Settings(
        webhook_url=SecretStr("https://hooks.example.com/s3cret"), ui_url="https://dagster.example.com/", **more
    )


def test_failures_that_differ_in_numbers_ids_and_keys_have_one_cause() -> None:
    same = replace(FAILURE, run_id="ffff", keys="2026-11-25|NVDA", error="HTTP 504, 2 times: <busy>")
    other = replace(FAILURE, error="no folder")
    assert same.cause == FAILURE.cause
    assert other.cause != FAILURE.cause
    assert replace(FAILURE, assets=("curated_stocks_daily",)).cause != FAILURE.cause


def test_a_cause_is_told_once_a_cooldown_and_then_with_how_often_it_came() -> None:
    memory = Memory(AT - timedelta(hours=1))
    told = []
    for minutes in (0, 5, 60, 239, 240, 241):
        failure = replace(FAILURE, run_id=str(minutes), ended=AT + timedelta(minutes=minutes))
        is_new = is_told(failure, memory, COOLDOWN)
        if is_new:
            told.append((minutes, memory.causes.get(failure.cause, (AT, 0))[1]))
        memory = Memory.from_text(after(failure, memory, is_new).as_text(), AT)  # through the cursor
    assert told == [(0, 0), (240, 3)]
    assert is_told(replace(FAILURE, error="another cause"), memory, COOLDOWN)


def test_the_message_has_asset_keys_error_and_link() -> None:
    body = message(FAILURE, 3, settings())
    assert body["assets"] == ["raw_stocks_daily"]
    assert body["keys"] == "2026-11-24|AAPL"
    assert body["error"] == "HTTP 503, 4 times: <busy>"
    assert body["link"] == "https://dagster.example.com/runs/0123abcd-1111"
    assert body["more_since_last"] == 3
    assert all(part in body["text"] for part in (body["assets"][0], body["keys"], body["error"], body["link"]))


def test_slack_gets_its_own_form_escaped() -> None:
    body = message(FAILURE, 0, settings(webhook_form="slack"))
    assert set(body) == {"text"}
    assert "&lt;busy&gt;" in body["text"]
    assert "<https://dagster.example.com/runs/0123abcd-1111|run 0123abcd>" in body["text"]


def test_no_secret_of_the_settings_is_in_a_message() -> None:
    of = settings(spark_remote=SecretStr("sc://host:443/;token=dapi-123"))
    error = "cannot reach sc://host:443/;token=dapi-123 for https://hooks.example.com/s3cret; password=hunter2"
    text = json.dumps(message(replace(FAILURE, error=error), 0, of))
    assert not any(secret in text for secret in ("dapi-123", "s3cret", "hunter2"))


def test_a_webhook_that_fails_is_an_error_without_its_address(endpoint: Endpoint) -> None:
    endpoint.status = 500
    with pytest.raises(WebhookError) as caught:
        post(endpoint.url, {})
    assert str(caught.value) == "the webhook answered HTTP 500"
    endpoint.server.server_close()
    with pytest.raises(WebhookError) as caught:
        post("http://127.0.0.1:1/s3cret", {})
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


@dg.asset
def raw_stocks_daily() -> None:
    try:
        raise ConnectionError("HTTP 503, 4 times")
    except ConnectionError as error:
        raise RuntimeError("no ticker came") from error


def fail(instance: dg.DagsterInstance, tags: dict[str, str] | None = None) -> str:
    return dg.materialize([raw_stocks_daily], instance=instance, raise_on_error=False, tags=tags).run_id


def look(sensor: dg.SensorDefinition, instance: dg.DagsterInstance, cursor: str | None) -> dg.SensorResult:
    result = sensor(dg.build_sensor_context(instance=instance, cursor=cursor))
    assert isinstance(result, dg.SensorResult)
    return result


def test_the_sensor_tells_failed_runs_after_it_was_turned_on(endpoint: Endpoint) -> None:
    of = Settings(webhook_url=SecretStr(endpoint.url))
    sensor = run_failure_sensor(of)
    with dg.DagsterInstance.ephemeral() as instance:
        first = look(sensor, instance, None)
        run_id = fail(instance, {"dagster/partition": "2026-11-24|AAPL"})
        fail(instance)  # the same cause
        fail(instance, {"dagster/will_retry": "true"})
        second = look(sensor, instance, first.cursor)
        third = look(sensor, instance, second.cursor)
    [body] = endpoint.bodies
    assert (body["run_id"], body["keys"], body["error"]) == (
        run_id,
        "2026-11-24|AAPL",
        "ConnectionError: HTTP 503, 4 times",
    )
    assert "1 messages sent, 1 failures of causes already reported" in str(second.skip_reason)
    assert "no run failed" in str(third.skip_reason)
    assert "s3cret" not in f"{first.cursor}{second.cursor}{third.cursor}{second.skip_reason}"


def test_a_message_that_could_not_be_posted_is_posted_later_and_not_for_ever(endpoint: Endpoint) -> None:
    endpoint.status = 500
    sensor = run_failure_sensor(Settings(webhook_url=SecretStr(endpoint.url)))
    with dg.DagsterInstance.ephemeral() as instance:
        start = look(sensor, instance, None).cursor
        fail(instance)
        waiting = look(sensor, instance, start)
        assert "HTTP 500" in str(waiting.skip_reason)
        early = look(sensor, instance, waiting.cursor)
        assert "tried again from" in str(early.skip_reason)
        assert len(endpoint.bodies) == 1
        memory = replace(Memory.from_text(waiting.cursor, AT), again=None)
        endpoint.status = 204
        assert "1 messages sent" in str(look(sensor, instance, memory.as_text()).skip_reason)
        # In vain too often: it is dropped, and the next failures are told.
        endpoint.status = 500
        last = replace(memory, attempts=POST_ATTEMPTS - 1)
        dropped = look(sensor, instance, last.as_text())
    assert "no run failed" not in str(dropped.skip_reason)
    assert Memory.from_text(dropped.cursor, AT).attempts == 0


@pytest.mark.parametrize("retried", [False, True])
def test_more_failures_at_once_than_one_look_reads_hide_none_of_them_nor_later_ones(
    endpoint: Endpoint, retried: bool
) -> None:
    sensor = run_failure_sensor(Settings(webhook_url=SecretStr(endpoint.url)))
    tags = {"dagster/will_retry": "true"} if retried else {}
    with dg.DagsterInstance.ephemeral() as instance:
        cursor = look(sensor, instance, None).cursor
        at_once = [
            instance.create_run_for_job(broken_job, status=dg.DagsterRunStatus.FAILURE, tags=tags).run_id
            for _ in range(3 * RUNS_A_LOOK + 1)
        ]
        for _ in range(3):
            cursor = look(sensor, instance, cursor).cursor
        later = fail(instance)
        seen = [look(sensor, instance, cursor)]
        seen.append(look(sensor, instance, seen[-1].cursor))
    memory = Memory.from_text(seen[-1].cursor, AT)
    counted = sum(more for _, more in memory.causes.values())
    assert counted == (0 if retried else len(at_once) - 1)
    assert [body["run_id"] for body in endpoint.bodies if body["assets"]] == [later]
    assert "no run failed" in str(seen[-1].skip_reason)


@dg.job
def broken_job() -> None:
    """No step."""


def test_a_cursor_of_an_older_version_is_read() -> None:
    old = {"after": AT.isoformat(), "told": ["a", "b"], "causes": {}, "attempts": 0, "again": None}
    memory = Memory.from_text(json.dumps(old), AT)
    assert memory == Memory(AT, {"a": AT, "b": AT})
    assert Memory.from_text(memory.as_text(), AT) == memory
