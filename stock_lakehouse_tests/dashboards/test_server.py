"""The dashboard's server: routes, what guards them, tags, the past, and a lake that changes or is damaged while it is open."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from typer.testing import CliRunner

from stock_lakehouse.cli import app
from stock_lakehouse.dashboards import view
from stock_lakehouse.dashboards.charts import COLUMNS
from stock_lakehouse.dashboards.page_files import page_files
from stock_lakehouse.dashboards.reports import Reports
from stock_lakehouse.dashboards.server import application
from stock_lakehouse.dashboards.view import Views
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.lake.serving import UnservedError
from stock_lakehouse_tests.dashboards.serving import running
from stock_lakehouse_tests.dashboards.written_lake import (
    CORRECTED,
    SESSIONS,
    WRONG_CLOSE,
    Written,
    lake_at,
    walk,
    write,
    written_lake,
)

HOSTILE = "<img src=x onerror=hacked=1>"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return written_lake(tmp_path_factory.mktemp("served") / "lake")


class Client:
    """Asks a running server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, headers: dict[str, str] | None = None) -> requests.Response:
        """The answer, asked for as the page does: again while the server makes its serving copy (202), for a minute."""
        deadline = time.monotonic() + 60
        while True:
            found = self.request("GET", path, headers)
            if found.status_code != 202 or time.monotonic() > deadline:
                return found
            time.sleep(0.1)

    def request(self, method: str, path: str, headers: dict[str, str] | None = None) -> requests.Response:
        return requests.request(method, f"{self.url}{path}", headers=headers, timeout=60)


Serve = Callable[..., Client]


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """Starts a server of a lake, until the end of the file's tests."""
    with ExitStack() as stack:

        def serve(lake: Lake, reports: Reports | None = None, host: str | None = None, **views: Any) -> Client:
            return Client(stack.enter_context(running(application(Views(lake, **views), reports, host))))

        yield serve


@pytest.fixture(scope="module")
def client(written: Written, serve: Serve) -> Client:
    return serve(lake_at(written.root))


@pytest.fixture
def own(written: Written, tmp_path: Path) -> Lake:
    """A lake of the test's own, which it may change."""
    shutil.copytree(written.root, tmp_path / "lake", ignore=shutil.ignore_patterns("serving"))
    return lake_at(tmp_path / "lake")


def asked(client: Client, question: str) -> Any:
    found = client.get(f"/api/{question}")
    assert found.status_code == 200, found.text
    return found.json()


def refused(client: Client, question: str, status: int) -> str:
    found = client.get(f"/api/{question}")
    assert found.status_code == status, found.text
    return str(found.json()["error"])


def test_each_page_and_each_file_that_the_page_names_is_served(client: Client) -> None:
    for path in ("/", "/ticker/NVDA", "/compare", "/signals", "/data", "/ticker/BRK-B"):
        assert client.get(path).text == page_files()["index.html"]
    for name in page_files():
        if name != "index.html":
            found = client.get(f"/static/{name}")
            assert (found.status_code, found.text) == (200, page_files()[name])
    for path in ("/static/nothing.js", "/static/..%2fview.py", "/static/index.html%00", "/api/", "/a/b/c"):
        assert client.get(path).status_code == 404


def test_the_bars_are_those_of_read_table(client: Client, written: Written) -> None:
    rows = read_table("bars_with_features", tickers="LONG", lake_root=written.root)
    found = asked(client, "bars/LONG")
    assert {*found} == {"date", *COLUMNS}
    for name in found:
        wanted = [
            value.isoformat() if name in ("date", "tradable_from") and value else value
            for value in rows[name].to_pylist()
        ]
        assert found[name] == wanted


def test_the_newest_years_and_what_is_before_them_are_together_the_whole(client: Client) -> None:
    whole = asked(client, "bars/LONG")
    newest = asked(client, "bars/LONG?years=3")
    assert newest["date"][0] == "2018-12-31"  # three years before 2021-12-31
    older = asked(client, "bars/LONG?before=2018-12-31")
    assert {name: older[name] + newest[name] for name in whole} == whole
    assert asked(client, "bars/LONG?before=2015-01-02")["date"] == []
    # Of a ticker that is traded no longer, the newest years are its own.
    assert len(asked(client, "bars/GONE?years=3")["date"]) == 600


def test_what_is_asked_wrongly_is_named(client: Client) -> None:
    assert "there are about, charts, bars" in refused(client, "prices", 404)
    assert refused(client, "bars/LONG?years=many", 400) == "years: 'many' is no whole number"
    assert refused(client, "bars/LONG?before=soon", 400) == "before: 'soon' is no date like 2024-05-03"
    assert "missing a required argument: 'ticker'" in refused(client, "bars", 400)
    assert "unexpected keyword argument 'since'; arguments: ticker, years, before" in refused(
        client, "bars/LONG?since=1", 400
    )
    assert "'last week' is no moment" in refused(client, "about?as_of=last+week", 400)


def test_an_unknown_ticker_is_named_with_those_that_are_spelled_alike_and_cannot_run_as_a_script(
    client: Client,
) -> None:
    found = client.get("/api/bars/LON")
    assert found.status_code == 404
    assert found.json() == {
        "error": "The lake has no bars of 'LON'. Spelled alike: LONG, GONE.",
        "nearest": ["LONG", "GONE"],
        "preparing": False,
    }
    hostile = client.get(f"/api/bars/{HOSTILE}")
    assert (hostile.status_code, hostile.headers["content-type"]) == (404, "application/json")
    assert hostile.headers["x-content-type-options"] == "nosniff"


def test_only_get_and_only_the_names_of_the_loopback_address_are_answered(
    client: Client, written: Written, serve: Serve
) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert client.request(method, "/api/about").status_code == 405
    for host, status in (
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
    ):
        assert client.get("/api/about", headers={"host": host}).status_code == status
    behind = serve(lake_at(written.root), host="charts.example")
    assert behind.get("/", headers={"host": "charts.example"}).status_code == 200
    assert client.get("/", headers={"host": "charts.example"}).status_code == 400


def test_every_answer_has_a_policy_that_allows_nothing_but_this_server(client: Client) -> None:
    for path in ("/", "/static/app.js", "/api/about", "/api/nothing", "/nothing/at/all"):
        policy = client.get(path).headers["content-security-policy"].split("; ")
        assert "default-src 'self'" in policy
        assert "script-src 'self'" in policy
        assert not [part for part in policy if "unsafe" in part]


def test_an_answer_is_zipped_and_not_sent_again_while_the_shown_versions_stay(own: Lake, serve: Serve) -> None:
    client = serve(own)
    for path in (
        "/",
        "/static/lightweight-charts.js",
        "/api/bars/LONG",
        "/api/charts",
        "/api/about",
        "/api/signals",
        "/api/data",
    ):
        found = client.get(path)
        assert found.headers.get("content-encoding") == "gzip" or len(found.content) < 1000
        tag = found.headers["etag"]
        again = client.get(path, headers={"if-none-match": tag})
        assert (again.status_code, again.content) == (304, b"") or path == "/api/about"  # which has the time
    tag = client.get("/api/bars/LONG").headers["etag"]
    write(own, SESSIONS[:-5])
    changed = client.get("/api/bars/LONG", headers={"if-none-match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag
    assert changed.json()["date"][-1] == SESSIONS[-6].isoformat()


def test_the_past_is_what_the_lake_said_then(client: Client, written: Written) -> None:
    def closes(as_of: str) -> dict[str, float]:
        found = asked(client, f"bars/LONG?years=3{as_of}")
        return dict(zip(found["date"], found["close"], strict=True))

    then = f"&as_of={written.first:%Y-%m-%dT%H:%M:%S.%f}"
    now = closes("")
    before = closes(then)
    assert now.keys() - before.keys() == {SESSIONS[-1].isoformat()}
    differing = {day for day in before if before[day] != now[day]}
    assert differing == {CORRECTED.isoformat()}
    assert before[CORRECTED.isoformat()] == WRONG_CLOSE
    assert now[CORRECTED.isoformat()] == walk("LONG")[SESSIONS.index(CORRECTED)]
    about = asked(client, f"about?{then[1:]}")
    assert about["last"] == SESSIONS[-2].isoformat()
    assert about["as_of"] == written.first.isoformat()
    assert about["digest"] != asked(client, "about")["digest"]
    assert asked(client, f"restated/LONG?{then[1:]}") == []
    [line] = asked(client, "restated/LONG")
    assert (line["date"], line["column"], line["old"]) == (CORRECTED.isoformat(), "close", repr(WRONG_CLOSE))
    assert "There is nothing to show as of that moment" in refused(client, "about?as_of=2015-01-01", 404)


def test_an_empty_lake_says_what_fills_it(tmp_path: Path, serve: Serve) -> None:
    client = serve(Lake(tmp_path / "none"))
    assert "`stock-lakehouse materialize` loads what the settings name" in refused(client, "about", 404)
    assert "The lake has no bars of 'LONG'." in refused(client, "bars/LONG", 404)


def test_the_serving_copy_is_made_once_and_the_asker_is_told_while_it_is(
    own: Lake, monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    monkeypatch.setattr(view, "WAIT_SECONDS", 0.01)
    go_on, told = threading.Event(), []
    made: list[str] = []
    prepare = view.View.prepare

    def slowly(self: view.View) -> None:
        self.serving._tell("serving copy of curated_stocks_daily: years to be written: 7, from 2015 on")
        assert go_on.wait(30)
        made.append(self.digest)
        prepare(self)

    monkeypatch.setattr(view.View, "prepare", slowly)
    client = serve(own, tell=told.append)
    for _ in range(2):
        time.sleep(0.05)
        found = client.request("GET", "/api/about")
        assert (found.status_code, found.json()["preparing"]) == (202, True)
    assert (
        found.json()["error"] == told[0] == "serving copy of curated_stocks_daily: years to be written: 7, from 2015 on"
    )
    go_on.set()
    assert asked(client, "about")["notice"] is None
    assert len(made) == 1
    assert len(list(own.root.glob("serving/*/year=*/*/data.parquet"))) == 2 * 7  # type: ignore[union-attr]


def test_a_serving_copy_that_cannot_be_made_is_told_and_the_tables_own_files_are_read(
    own: Lake, client: Client, monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    def impossible(self: view.View) -> None:
        raise UnservedError(
            "serving/x: may not be written (Permission denied); set serving_cache to a folder of your own"
        )

    monkeypatch.setattr(view.View, "prepare", impossible)
    told: list[str] = []
    without = serve(own, tell=told.append)
    notice = asked(without, "about")["notice"]
    assert notice == told[0]
    assert notice.endswith("set serving_cache to a folder of your own")
    assert asked(without, "bars/LONG") == asked(client, "bars/LONG")
    assert len(told) == 1


def test_a_damaged_file_is_named_and_other_tickers_are_answered(own: Lake, serve: Serve) -> None:
    [damaged] = [path for path in own.curated.paths() if "ticker=LONG/year=2021" in path]
    (Path(own.root) / damaged).write_bytes(b"no parquet")
    client = serve(own)
    assert "`stock-lakehouse upkeep` names the damaged files" in asked(client, "about")["notice"]
    text = refused(client, "bars/LONG", 503)
    assert text.startswith("curated_stocks_daily: a file cannot be read (")
    assert text.endswith("`stock-lakehouse upkeep` names the damaged files")
    assert asked(client, "bars/GONE")["date"]


def test_a_report_is_served_in_a_sandbox_and_nothing_else_of_its_folder(
    client: Client, written: Written, tmp_path: Path, serve: Serve
) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "1234abcd.html").write_text("<!doctype html><p>a report</p>")
    (tmp_path / "secret.html").write_text("no")
    served = serve(lake_at(written.root), Reports(Lake(tmp_path)))
    for path in ("/reports/1234abcd", "/reports/1234abcd.html"):
        found = served.get(path)
        assert (found.status_code, found.text) == (200, "<!doctype html><p>a report</p>")
        assert found.headers["content-security-policy"].startswith("sandbox allow-scripts")
        assert served.get(path, headers={"if-none-match": found.headers["etag"]}).status_code == 304
    for path in ("/reports/other", "/reports/..%2fsecret", "/reports/%2e%2e%2fsecret.html", "/reports/%2e%2e"):
        assert served.get(path).status_code == 404
    assert "`stock-lakehouse report 1234abcd` writes that of a run" in client.get("/reports/1234abcd").json()["error"]


def test_requests_at_once_while_the_lake_changes_have_one_version_each(own: Lake, serve: Serve) -> None:
    client = serve(own)
    asked(client, "about")
    lengths: set[int] = set()
    failures: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            found = client.get("/api/bars/NEWS")
            if found.status_code != 200:
                failures.append(found.text)
            else:
                lengths.add(len(found.json()["date"]))

    readers = [threading.Thread(target=ask) for _ in range(3)]
    for reader in readers:
        reader.start()
    for fewer in (1, 2, 3):
        write(own, SESSIONS[:-fewer])
    done.set()
    for reader in readers:
        reader.join()
    assert not failures
    assert lengths <= {27, 28, 29, 30}
    assert len(asked(client, "bars/NEWS")["date"]) == 27


def test_a_lake_on_s3_is_read_through_the_readers_own_copy(
    written: Written, s3_root: str, tmp_path: Path, client: Client, serve: Serve
) -> None:
    from stock_lakehouse_tests import s3

    s3.upload(written.root, s3_root)
    remote = serve(lake_at(s3_root), cache=tmp_path / "cache")  # type: ignore[arg-type]
    about = asked(remote, "about")
    assert (about["lake"], about["notice"]) == (s3_root, None)
    assert asked(remote, "bars/LONG") == asked(client, "bars/LONG")
    assert len(list((tmp_path / "cache").glob("*/year=*/*/data.parquet"))) == 2 * 7


# ---- the command


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return int(bound.getsockname()[1])


@pytest.fixture
def project(written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lakehouse.toml").write_text(
        f'lake_root = "{written.root}"\ntickers = ["CENT", "GONE", "LONG", "NEWS"]\nlast_date = 2021-12-31\n'
    )
    return tmp_path


@pytest.fixture
def process(project: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    port = free_port()
    command = [sys.executable, "-m", "stock_lakehouse", "dashboard", "--port", str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=project, env=os.environ
    ) as started:
        yield started, port
        started.kill()


def test_the_command_says_where_it_serves_what_and_ctrl_c_ends_it_at_once(
    process: tuple[subprocess.Popen[str], int],
) -> None:
    started, port = process
    assert started.stdout is not None
    line = started.stdout.readline()
    assert line == f"Dashboard on http://127.0.0.1:{port}: 4 tickers, to 2021-12-31; stop it with Ctrl-C\n"
    keeps_alive = socket.create_connection(("127.0.0.1", port))  # as a browser does
    deadline = time.monotonic() + 60
    while (answered := requests.get(f"http://127.0.0.1:{port}/api/about", timeout=30)).status_code == 202:
        assert time.monotonic() < deadline  # a busy machine needs a moment for the serving copy
        time.sleep(0.1)
    assert answered.json()["last"] == "2021-12-31"
    began = time.monotonic()
    started.send_signal(signal.SIGINT)
    _, told = started.communicate(timeout=30)
    assert started.returncode == 0
    assert time.monotonic() - began < 5
    assert "Stopped: the lake stays as it is." in told.strip().splitlines()[-1]  # after lines on the serving copy
    assert "Traceback" not in told
    keeps_alive.close()


def test_a_port_that_is_taken_and_a_dashboard_that_is_off_are_said_in_a_line(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = CliRunner().invoke(app, ["dashboard", "--port", str(port)])
    assert found.exit_code == 2
    assert found.stderr.startswith(
        f"stock-lakehouse: dashboard: 127.0.0.1:{port} is taken; `stock-lakehouse dashboard --port "
    )
    with (project / "lakehouse.toml").open("a") as settings:
        settings.write('dashboard = "off"\n')
    off = CliRunner().invoke(app, ["dashboard"])
    assert (off.exit_code, off.stderr) == (
        2,
        'stock-lakehouse: dashboard: is "off" in the settings; set it to "local"\n',
    )


def test_behind_the_calendar_is_known_from_the_clock_and_the_settings(written: Written, serve: Serve) -> None:
    def expected(last_date: str | None, now: datetime) -> str:
        options = lake_at(written.root).options.model_copy(update={"last_date": last_date})
        return str(asked(serve(Lake(options), clock=lambda: now), "about")["expected"])

    # 2022-01-03 is a Monday; New York closes at 21:00 UTC, and the grace is half an hour.
    assert expected(None, datetime(2022, 1, 3, 21, 29, tzinfo=UTC)) == "2021-12-31"
    assert expected(None, datetime(2022, 1, 3, 21, 31, tzinfo=UTC)) == "2022-01-03"
