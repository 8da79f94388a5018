"""Sessions on Databricks: headers, credentials, clusters, workers, broken streams, against a TLS endpoint of the test's own."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import trustme
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from typer.testing import CliRunner, Result

from stock_lakehouse import __version__
from stock_lakehouse.cli import app
from stock_lakehouse.engines import SESSION_SETTINGS, EngineError, apply_settings
from stock_lakehouse.engines.databricks import ClusterError, CredentialsError
from stock_lakehouse.engines.workers import WorkerError, workers_python
from stock_lakehouse.settings import Databricks
from stock_lakehouse.tables import CURATED, FEATURES, PROCESSED, RAW
from stock_lakehouse_tests.engines.servers import sail_server
from stock_lakehouse_tests.engines.workspace import (
    CLUSTER,
    RUNNING,
    SECONDS_BEFORE_EXPIRY,
    TOKEN,
    Workspace,
    on,
    session_on,
    workspace_at,
)
from stock_lakehouse_tests.graph import TICKERS, clocked, history, layers, rectangle, run, year_boundary

DAYS = year_boundary(12, 12)


@pytest.mark.slow
def test_the_layers_are_published_through_it_as_on_the_embedded_engine(
    workspace: Workspace, spark: SparkSession, tmp_path: Path
) -> None:
    bars = history(TICKERS[:2], DAYS)
    asked = rectangle(DAYS, TICKERS[:2])
    near = clocked(tmp_path / "near", spark)
    run(near, asked, bars.values())
    with session_on(on(workspace)) as remote:
        far = clocked(tmp_path / "far", remote)
        run(far, asked, bars.values())
        assert layers(far) == layers(near)
    for call in workspace.calls:
        assert call.metadata["x-databricks-cluster-id"] == CLUSTER
        assert call.token == TOKEN
    assert {"ExecutePlan", "AnalyzePlan", "Config"} <= set(workspace.methods())


@pytest.mark.slow
def test_the_product_s_name_is_in_the_user_agent_of_spark_and_of_the_rest_api(workspace: Workspace) -> None:
    with session_on(on(workspace)) as spark:
        assert spark.version
    assert all(agent.startswith(f"stock_lakehouse/{__version__} ") for agent in workspace.agents)
    assert workspace.agents
    rest = dict(workspace.requests)
    assert rest["GET /api/2.1/clusters/get"].startswith(f"stock_lakehouse/{__version__} ")


def test_a_serverless_session_is_named_by_its_own_id_and_asks_no_cluster(workspace: Workspace) -> None:
    with session_on(on(workspace, cluster_id=None, serverless=True)) as spark:
        assert spark.range(3).count() == 3
        own = spark.session_id  # type: ignore[attr-defined]
    assert {call.metadata["x-databricks-session-id"] for call in workspace.calls} == {own}
    assert not any("x-databricks-cluster-id" in call.metadata for call in workspace.calls)
    assert workspace.requests == []


def test_a_profile_of_databrickscfg_says_where_and_who(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABRICKS_TOKEN")
    (tmp_path / ".databrickscfg").write_text(f"[research]\nhost = {workspace.host}\ntoken = {TOKEN}\n")
    with session_on(Databricks(profile="research", serverless=True)) as spark:
        assert spark.range(3).count() == 3


@pytest.mark.slow
def test_an_oauth_token_is_renewed_in_the_middle_of_a_run(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABRICKS_TOKEN")
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "an-application")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "its-secret")
    workspace.client = ("an-application", "its-secret")
    days = DAYS[:5]
    with session_on(on(workspace)) as remote:
        far = clocked(tmp_path / "far", remote)
        asked = rectangle(days, TICKERS[:1])
        run(far, asked, history(TICKERS[:1], days).values(), steps=(RAW.name, PROCESSED.name))
        before = {call.token for call in workspace.calls}
        time.sleep(workspace.token_seconds - SECONDS_BEFORE_EXPIRY + 0.1)  # the SDK now takes it for expired
        for token in before:
            workspace.tokens[token] = 0.0
        run(far, asked, steps=(CURATED.name, FEATURES.name))
        assert far.lake.features.read(remote).count() == len(days)
    after = {call.token for call in workspace.calls}
    assert after > before
    assert after <= workspace.tokens.keys()


def test_a_token_that_expires_in_the_middle_of_a_run_is_a_named_error_that_says_what_to_set(
    workspace: Workspace,
) -> None:
    with session_on(on(workspace)) as spark:
        assert spark.range(3).count() == 3
        workspace.tokens[TOKEN] = 0.0
        for ask in (lambda: spark.range(3).count(), lambda: spark.range(3).schema):
            with pytest.raises(
                CredentialsError, match=r"the token has expired or was revoked .* set DATABRICKS_TOKEN"
            ) as caught:
                ask()
            assert TOKEN not in str(caught.value)


def test_a_token_that_has_expired_before_the_start_is_a_named_error(workspace: Workspace) -> None:
    workspace.tokens[TOKEN] = 0.0
    with (
        pytest.raises(CredentialsError, match=r"Invalid access token.*set DATABRICKS_TOKEN"),
        session_on(on(workspace)),
    ):
        pass
    serverless = on(workspace, cluster_id=None, serverless=True)
    with pytest.raises(CredentialsError, match="the token has expired or was revoked"), session_on(serverless):
        pass


def test_a_wrong_oauth_secret_is_a_named_error_that_keeps_it_to_itself(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABRICKS_TOKEN")
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "an-application")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "not-its-secret")
    workspace.client = ("an-application", "its-secret")
    serverless = on(workspace, cluster_id=None, serverless=True)
    with pytest.raises(CredentialsError, match="Client authentication failed") as caught, session_on(serverless):
        pass
    assert "not-its-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "host", "said"),
    [
        (
            {},
            True,
            "no credentials; set DATABRICKS_TOKEN, or DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, or databricks.p",
        ),
        ({"DATABRICKS_TOKEN": "x"}, False, "no workspace; set databricks.host or DATABRICKS_HOST"),
        ({}, False, "no workspace; set databricks.host or DATABRICKS_HOST"),
        ({"DATABRICKS_CLIENT_ID": "x"}, True, "DATABRICKS_CLIENT_ID is set without DATABRICKS_CLIENT_SECRET"),
        (
            {"DATABRICKS_CLIENT_SECRET": "very-secret"},
            True,
            "DATABRICKS_CLIENT_SECRET is set without DATABRICKS_CLIENT_ID",
        ),
        ({"DATABRICKS_CONFIG_PROFILE": "nobody"}, True, "no credentials"),
    ],
)
def test_what_is_missing_is_named(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], host: bool, said: str
) -> None:
    monkeypatch.delenv("DATABRICKS_TOKEN")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    where = {"host": workspace.host} if host else {}
    with pytest.raises(CredentialsError) as caught, session_on(Databricks(serverless=True, **where)):
        pass
    assert said in str(caught.value)
    assert "very-secret" not in str(caught.value)


def test_a_terminated_cluster_is_started_and_waited_for(workspace: Workspace) -> None:
    workspace.clusters[CLUSTER] = [
        {"state": "TERMINATING"},
        {
            "state": "TERMINATED",
            "termination_reason": {"code": "INACTIVITY"},
            "state_message": "Inactive for 60 minutes",
        },
    ]
    workspace.after_start = [{"state": "PENDING", "state_message": "Starting Spark"}] * 3 + [RUNNING]
    said: list[str] = []
    with session_on(on(workspace), said) as spark:
        assert spark.range(3).count() == 3
    assert said == [
        f"cluster {CLUSTER} is TERMINATING (no reason given); waiting for it to run",
        f"cluster {CLUSTER} is TERMINATED (INACTIVITY, Inactive for 60 minutes); starting it, for up to 20 min",
        f"cluster {CLUSTER} is PENDING (Starting Spark); waiting for it to run",
    ]
    assert [what for what, _ in workspace.requests].count("POST /api/2.1/clusters/start") == 1


def test_a_cluster_that_takes_too_long_is_a_named_error_with_its_state(workspace: Workspace) -> None:
    workspace.clusters[CLUSTER] = [{"state": "PENDING", "state_message": "Waiting for instances"}]
    late = on(workspace, start_minutes=0.005)
    with (
        pytest.raises(
            ClusterError, match=r"PENDING \(Waiting for instances\): it did not run within 0.005 min"
        ) as caught,
        session_on(late),
    ):
        pass
    assert "raise databricks.start_minutes" in str(caught.value)
    assert workspace.calls == []


@pytest.mark.parametrize(
    ("after_start", "said"),
    [
        (
            [{"state": "PENDING"}, {"state": "TERMINATED", "state_message": "No capacity"}],
            r"TERMINATED \(No capacity\)",
        ),
        ([{"state": "ERROR", "state_message": "Broken image"}], r"ERROR \(Broken image\)"),
    ],
)
def test_a_cluster_that_does_not_start_is_a_named_error(
    workspace: Workspace, after_start: list[dict[str, object]], said: str
) -> None:
    workspace.clusters[CLUSTER] = [{"state": "TERMINATED"}]
    workspace.after_start = after_start
    with pytest.raises(ClusterError, match=rf"is {said} and does not start"), session_on(on(workspace)):
        pass


def test_a_cluster_that_is_not_there_is_a_named_error(workspace: Workspace) -> None:
    with (
        pytest.raises(ClusterError, match=r"Cluster 0-0-x does not exist; check databricks.cluster_id"),
        session_on(on(workspace, cluster_id="0-0-x")),
    ):
        pass


def test_workers_of_another_python_are_refused_with_the_version_to_use(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The engine holds what the client says against its own: a client of Python 3.99, then.
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    monkeypatch.setattr("stock_lakehouse.engines.workers.client_python", lambda: "3.99")
    workspace.rewrite = lambda request: request.replace(b"\x2a\x04" + here.encode(), b"\x2a\x043.99")
    with (
        pytest.raises(
            WorkerError, match=f"run Python {here}, this program Python 3.99.*run this program with Python {here}"
        ),
        session_on(on(workspace)),
    ):
        pass


@pytest.mark.parametrize(
    ("message", "theirs"),
    [
        (
            "[PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.12 than that in driver: 3.11, PySpark",
            "3.12",
        ),
        ("Python in worker has different version (3, 10) than that in driver 3.11, PySpark cannot run", "3.10"),
        ("(Python version used to compile the UDF (3.99) does not match the Python version at runtime (3.13))", "3.13"),
        ("ModuleNotFoundError: No module named 'talib'", None),
    ],
)
def test_every_engine_s_complaint_about_python_is_understood(message: str, theirs: str | None) -> None:
    assert workers_python(message) == theirs


@pytest.mark.slow
@pytest.mark.parametrize("module", ["talib", "stock_lakehouse"])
@pytest.mark.parametrize("serverless", [False, True])
def test_workers_without_what_indicators_need_are_refused_with_how_to_install_it(
    trusted: tuple[trustme.CA, Path], tmp_path: Path, workspace: Workspace, module: str, serverless: bool
) -> None:
    chosen = (
        on(workspace, cluster_id=None, serverless=True) if serverless else on(workspace, wheel="/Volumes/a/b/c/x.whl")
    )
    preamble = f"sys.modules[{module!r}] = None"
    with sail_server(preamble) as bare, workspace_at(bare.host_and_port, trusted[0], tmp_path) as there:
        there.tokens, there.clusters = workspace.tokens, workspace.clusters
        with (
            pytest.raises(WorkerError, match=module) as caught,
            session_on(chosen.model_copy(update={"host": there.host})),
        ):
            pass
    how = 'databricks.work = "job"' if serverless else "install /Volumes/a/b/c/x.whl on the cluster"
    assert how in str(caught.value)


@pytest.mark.slow
def test_workers_with_another_version_of_the_package_are_refused(
    trusted: tuple[trustme.CA, Path], tmp_path: Path, workspace: Workspace
) -> None:
    older = "import stock_lakehouse; stock_lakehouse.__version__ = '0.0.9'"
    with sail_server(older) as bare, workspace_at(bare.host_and_port, trusted[0], tmp_path) as there:
        there.tokens, there.clusters = workspace.tokens, workspace.clusters
        another = rf"have stock_lakehouse 0.0.9, this program is {__version__}"
        with pytest.raises(WorkerError, match=another), session_on(on(there)):
            pass


class Conf:
    """The settings of an engine that lets none be set, as Databricks serverless does with most."""

    def __init__(self, **held: str) -> None:
        self.held, self.conf = held, self

    def set(self, name: str, value: str) -> None:
        raise PySparkException(f"[CONFIG_NOT_AVAILABLE] {name}")

    def get(self, name: str) -> str:
        if name not in self.held:
            raise PySparkException(f"[CONFIG_NOT_AVAILABLE] {name}")
        return self.held[name]


def test_a_setting_that_cannot_be_set_must_hold_what_other_engines_hold(caplog: pytest.LogCaptureFixture) -> None:
    apply_settings(Conf(**SESSION_SETTINGS))  # type: ignore[arg-type]
    apply_settings(Conf())  # type: ignore[arg-type]
    assert "spark.sql.ansi.enabled can be neither set nor read on this engine" in caplog.text
    with pytest.raises(EngineError, match=r"the engine has spark.sql.ansi.enabled = false and refuses true"):
        apply_settings(Conf(**{**SESSION_SETTINGS, "spark.sql.ansi.enabled": "false"}))  # type: ignore[arg-type]


def called(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str) -> Result:
    """`stock-lakehouse doctor` with `table` under [databricks] of lakehouse.toml."""
    (tmp_path / "lakehouse.toml").write_text(
        f'last_date = 2023-09-21\nengine = "databricks"\n[databricks]\nhost = "{workspace.host}"\n{table}'
    )
    return CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "500"})


def test_the_doctor_says_that_the_workspace_answers_and_which_runs_are_jobs(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.clusters[CLUSTER] = [{"state": "TERMINATED"}]
    workspace.after_start = [{"state": "PENDING"}, RUNNING]
    jobs = 'messages = "/Volumes/a/b/c"\njob_bars = 5000\n'
    result = called(workspace, tmp_path, monkeypatch, f'cluster_id = "{CLUSTER}"\n{jobs}')
    assert result.exit_code == 0, result.output
    assert "engine: databricks answers" in result.output
    assert f"runs of 5,000 ticker-sessions or more are Databricks jobs on cluster {CLUSTER}" in result.output
    assert f"cluster {CLUSTER} is TERMINATED" in result.output
    result = called(workspace, tmp_path, monkeypatch, "serverless = true\n")
    assert "no run is a Databricks job; for bulk loads set databricks.messages" in result.output


def test_the_doctor_names_what_is_missing(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABRICKS_TOKEN")
    result = called(workspace, tmp_path, monkeypatch, "serverless = true\n")
    assert result.exit_code == 1
    assert "no credentials; set DATABRICKS_TOKEN" in result.output
    result = called(workspace, tmp_path, monkeypatch, "")
    assert result.exit_code == 1
    assert "set databricks.cluster_id, or databricks.serverless = true" in result.output
