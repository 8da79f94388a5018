"""An engine killed with SIGKILL before, in the middle of or after any write: a named error in bounded time, nothing
half-published, and the run made again on another engine ends in the tables of a run that nothing disturbed.

In test_kill.py the run itself is killed; here the run lives and its engine dies.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from pyspark.sql import SparkSession
from pyspark.sql.connect.readwriter import DataFrameWriter

from stock_lakehouse.engines import EngineError, loss, spark_session
from stock_lakehouse.engines.loss import BoundedRetryPolicy, EngineLostError
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.runs.run import RunReport, run_rectangle
from stock_lakehouse.settings import Settings
from stock_lakehouse_tests.engines.servers import JAVA, Server, java, jvm_server, sail_server
from stock_lakehouse_tests.faults import Faults
from stock_lakehouse_tests.graph import clocked, layers
from stock_lakehouse_tests.reliability.scenario import heal, prepare, second_run
from stock_lakehouse_tests.reliability.states import State, assert_old_or_new

MOMENTS = ("before", "amid", "after")


@pytest.fixture(autouse=True)
def _less_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second instead of half a minute: nobody starts these engines again."""
    monkeypatch.setattr(loss, "RETRIES", 3)


class Deadly:
    """Counts the engine's writes below `root`, and kills `server` at one of them."""

    def __init__(self, root: Path, server: Server | None = None, at: int = -1, moment: str = "before") -> None:
        self.root, self.server, self.at, self.moment = root, server, at, moment
        self.places: list[str] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("parquet", "save"):
                patch.setattr(DataFrameWriter, name, self._around(getattr(DataFrameWriter, name)))
            yield

    def _around(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def write(writer: Any, path: str, *args: Any, **kwargs: Any) -> Any:
            number = len(self.places)
            parts = Path(path).relative_to(self.root).parts
            self.places.append(parts[0] if parts[0] == ".staging" else "/".join(parts[:2]))
            if number != self.at or self.server is None:
                return original(writer, path, *args, **kwargs)
            if self.moment == "before":
                self.server.kill()
            if self.moment == "amid":
                threading.Thread(target=self._kill_when_written, args=(Path(path), self.server), daemon=True).start()
            result = original(writer, path, *args, **kwargs)
            if self.moment == "after":
                self.server.kill()
            return result

        return write

    @staticmethod
    def _kill_when_written(path: Path, server: Server) -> None:
        """Kill when the first file shows that the write has begun."""
        there = set(path.rglob("*"))
        deadline = time.monotonic() + 60
        while not set(path.rglob("*")) - there and time.monotonic() < deadline:
            time.sleep(0.002)
        server.kill()


@dataclass
class Scenario:
    """A lake before and after an undisturbed second run, and the writes of that run."""

    folder: Path
    spark: SparkSession
    old: State
    new: State
    places: list[str]

    def copy(self, name: str) -> Path:
        shutil.copytree(self.folder / "prepared", self.folder / name, copy_function=shutil.copy2)
        return self.folder / name

    def check(self, server: Server, at: int, moment: str, faults: Faults) -> None:
        """Kill `server` at write `at` of a second run on it, look at the lake, run again on the embedded engine."""
        root = self.copy(f"{moment}_{at}")
        deadly = Deadly(root, server, at, moment)
        with spark_session("spark_connect", server.address) as session, deadly.watching():
            if (at, moment) == (len(self.places) - 1, "after"):  # what is left to ask is a preview's
                with pytest.raises(EngineError):
                    second_run(clocked(root, session), "dddddddd-run")
            else:
                with pytest.raises(EngineLostError, match=r"nothing is half-published.* then run the same again"):
                    second_run(clocked(root, session), "dddddddd-run")
        assert_old_or_new(self.old, State.of(root, self.spark), self.new)
        seconds = heal(clocked(root, self.spark))
        healed = State.of(root, self.spark)
        faults.tried(f"an engine killed {moment} a write", 1, healed.lost_of(self.new), seconds)
        assert healed == self.new
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def scenario(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    folder = tmp_path_factory.mktemp("lost")
    prepare(clocked(folder / "prepared", spark))
    old = State.of(folder / "prepared", spark)
    shutil.copytree(folder / "prepared", folder / "undisturbed", copy_function=shutil.copy2)
    deadly = Deadly(folder / "undisturbed")
    with deadly.watching():
        second_run(clocked(folder / "undisturbed", spark), "dddddddd-run")
    return Scenario(folder, spark, old, State.of(folder / "undisturbed", spark), deadly.places)


def of_kind(scenario: Scenario, place: str) -> int:
    """The number of the first write at `place`."""
    return scenario.places.index(place)


KINDS = (".staging", "curated/restatements", "curated/stocks_daily", "curated/stocks_features")


@pytest.mark.soak
def test_the_scenario_writes_everything_that_an_engine_writes(scenario: Scenario) -> None:
    assert set(scenario.places) == set(KINDS)


@pytest.mark.slow
@pytest.mark.slice(2)
@pytest.mark.parametrize("place", KINDS)
def test_sail_killed_amid_a_write_is_a_named_error_and_the_run_made_again_ends_as_if_undisturbed(
    scenario: Scenario, faults: Faults, place: str
) -> None:
    with sail_server() as server:
        scenario.check(server, of_kind(scenario, place), "amid", faults)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("moment", MOMENTS)
def test_sail_killed_at_any_write_and_the_run_made_again_ends_as_if_undisturbed(
    scenario: Scenario, faults: Faults, moment: str
) -> None:
    for at in range(len(scenario.places)):
        with sail_server() as server:
            scenario.check(server, at, moment, faults)


@pytest.mark.engines
@pytest.mark.skipif(java() is None, reason=f"there is no Java {JAVA} or newer (JAVA_HOME, or java on the path)")
@pytest.mark.parametrize(
    "place",
    ["curated/stocks_daily", *(pytest.param(kind, marks=pytest.mark.soak) for kind in (KINDS[0], KINDS[1], KINDS[3]))],
)
@pytest.mark.timeout(900)
def test_jvm_spark_killed_amid_a_write_and_the_run_made_again_ends_as_if_undisturbed(
    scenario: Scenario, faults: Faults, place: str, tmp_path: Path
) -> None:
    with jvm_server(tmp_path) as server:
        scenario.check(server, of_kind(scenario, place), "amid", faults)


def run_sample(settings: Settings, address: str, monkeypatch: pytest.MonkeyPatch) -> RunReport:
    monkeypatch.setenv("STOCK_LAKEHOUSE_SPARK_REMOTE", address)
    return run_rectangle(settings, Rectangle((date(2023, 9, 20), date(2023, 9, 21)), ("AAPL",)))


@pytest.mark.slow
def test_a_dagster_run_whose_engine_dies_says_so_and_the_next_run_heals(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        tickers=("AAPL",),
        lake_root=tmp_path / "lake",
        last_date=date(2023, 9, 21),
        engine="spark_connect",
        spark_remote="sc://127.0.0.1:1",
    )
    whole = settings.model_copy(update={"lake_root": tmp_path / "whole", "engine": "embedded"})
    assert run_sample(whole, "", monkeypatch).success
    with ExitStack() as stack:
        server = stack.enter_context(sail_server())
        deadly = Deadly(settings.lake_root, server, 5, "before")
        stack.enter_context(deadly.watching())
        report = run_sample(settings, server.address, monkeypatch)
    assert not report.success
    (failure,) = report.failures
    assert failure.split(":")[0] in {"processed_stocks_daily", "curated_stocks_daily"}
    assert "the engine stopped answering in the middle of the run (UNAVAILABLE)" in failure
    assert server.address.removeprefix("sc://") not in failure
    with sail_server() as other:
        assert run_sample(settings, other.address, monkeypatch).success

    def held(root: Path) -> dict[str, Any]:
        rows = layers(clocked(root, spark, ("AAPL",)))
        return {
            name: [{key: value for key, value in row.items() if not isinstance(value, datetime)} for row in found]
            for name, found in rows.items()
        }

    assert held(settings.lake_root) == held(whole.lake_root)


class _Refused(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str = "") -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> None:
        return None


def test_an_engine_that_does_not_answer_is_asked_for_less_than_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    policy = BoundedRetryPolicy()
    gone = _Refused(grpc.StatusCode.UNAVAILABLE)
    attempts, pauses = policy.to_state(), []

    def ask_for_ever() -> None:
        while True:
            pauses.append(attempts.next_attempt(gone))

    with pytest.raises(EngineLostError, match="stopped answering"):
        ask_for_ever()
    assert 20_000 < sum(pauses) < 60_000
    # What the end of a run still asks of it is not asked again.
    with pytest.raises(EngineLostError):
        policy.to_state().next_attempt(gone)


@pytest.mark.parametrize(
    "said", ["[INVALID_HANDLE.SESSION_CHANGED] The handle", "invalid argument: operation not found: 0c73cd34"]
)
def test_an_engine_that_was_started_anew_is_a_lost_one_at_once(said: str) -> None:
    policy = BoundedRetryPolicy()
    anew = _Refused(grpc.StatusCode.INTERNAL, said)
    assert policy.can_retry(anew)
    with pytest.raises(EngineLostError, match="was restarted"):
        policy.to_state().next_attempt(anew)
    assert not policy.can_retry(_Refused(grpc.StatusCode.INTERNAL, "the query is wrong"))
