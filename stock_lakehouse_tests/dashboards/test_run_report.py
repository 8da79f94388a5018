"""The report of a run: what it tells is what the run returned, what the lake holds and what the ledger has, in a browser too."""

from __future__ import annotations

import json
import re
import zlib
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import dagster as dg
import pandas as pd
import polars as pl
import pytest
from playwright.sync_api import Browser, Page
from pyspark.sql import SparkSession
from typer.testing import CliRunner, Result

from stock_lakehouse.assets import all_assets
from stock_lakehouse.assets.dashboards import RUN_REPORT
from stock_lakehouse.cli import app
from stock_lakehouse.dashboards.reports import Reports
from stock_lakehouse.dashboards.run import run as run_answer
from stock_lakehouse.dashboards.server import REPORT_POLICY
from stock_lakehouse.dashboards.view import View
from stock_lakehouse.instance.home import dagster_folder, open_instance
from stock_lakehouse.instance.run_record import RunRecord, StepRecord, UnknownRunError, find_run, read_run
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.partitions import PartitionScheme, Rectangle
from stock_lakehouse.runs.run import RunReport, run_rectangle
from stock_lakehouse.settings import Settings
from stock_lakehouse.sources import Delivery
from stock_lakehouse.sources.sample import CORRECTED, SampleSource
from stock_lakehouse.sources.sample_data import SAMPLE_LAST
from stock_lakehouse_tests.conftest import bytes_of
from stock_lakehouse_tests.dashboards.serving import served
from stock_lakehouse_tests.graph import clocked, history, rectangle, sessions_of
from stock_lakehouse_tests.graph import run as run_layers
from stock_lakehouse_tests.test_ui import chromium

TICKERS = ("AAPL", "GOOG", "NVDA")
FIRST = date(2022, 9, 1)
MISTYPED, CORRECT = "424.39", 422.3900146484375  # the close of CORRECTED in the sample's two deliveries


@dataclass(frozen=True)
class Broken:
    """A source that fails, with text of a stranger in its error."""

    name: str = "sample"
    interval: str = "1d"

    def deliver(self, tickers: Sequence[str], first: date, last: date) -> Iterator[Delivery]:
        raise RuntimeError("the vendor's door is shut </script><script>hacked=1</script> password=hunter2")


@dataclass(frozen=True)
class Project:
    """A folder with lakehouse.toml, and the runs of its lake: a careless delivery, its correction, and one that failed."""

    settings: Settings
    first: RunReport
    second: RunReport
    failed: RunReport

    @property
    def lake(self) -> Lake:
        return Lake(self.settings.lake_root)

    def record(self, of: RunReport) -> RunRecord:
        with open_instance(dagster_folder(self.settings)) as instance:
            return read_run(instance, of.run_id)

    def table(self, name: str) -> pl.DataFrame:
        found = pl.from_arrow(read_table(name, lake_root=self.settings.lake_root))
        assert isinstance(found, pl.DataFrame)
        return found


@pytest.fixture(scope="module")
def project(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "lakehouse.toml").write_text(
        f'tickers = {json.dumps(TICKERS)}\nfirst_date = {FIRST}\nlast_date = {SAMPLE_LAST}\nlake_root = "lakehouse"\n'
    )
    settings = Settings(lake_root=folder / "lakehouse", tickers=TICKERS, first_date=FIRST, last_date=SAMPLE_LAST)
    scheme = PartitionScheme(settings, market_calendar(FIRST))
    whole = scheme.request(None, None, None, SAMPLE_LAST)
    newest = Rectangle(whole.sessions[-2:], whole.tickers, whole.exchange)
    return Project(
        settings,
        run_rectangle(settings, whole, source=SampleSource(before_correction=True)),
        run_rectangle(settings, newest),
        run_rectangle(settings, newest, source=Broken()),
    )


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's folder as the working directory."""
    root = project.settings.lake_root
    assert isinstance(root, Path)
    monkeypatch.chdir(root.parent)
    return root.parent


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def answers_in(page: str | bytes) -> dict[str, Any]:
    """The answers inside an HTML file, by question."""
    text = page.decode() if isinstance(page, bytes) else page
    found = re.search(r'<script type="application/json" id="answers">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return {name: json.loads(zlib.decompress(b64decode(packed))) for name, packed in json.loads(found[1]).items()}


def report_of(project: Project, of: RunReport) -> dict[str, Any]:
    content = Reports(project.lake).read(of.run_id)
    assert content is not None
    return answers_in(content)


def open_file(browser: Browser, path: Path, width: int = 1400, **options: Any) -> Page:
    page = browser.new_page(viewport={"width": width, "height": 900}, **options)
    problems: list[str] = []
    page.problems = problems  # type: ignore[attr-defined]
    page.on("console", lambda message: problems.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("request", lambda request: request.url.split("#")[0] == path.as_uri() or problems.append(request.url))
    page.goto(path.as_uri())
    return page


def test_the_report_is_the_last_step_of_a_run_and_its_metadata_lead_to_it(project: Project) -> None:
    for run in (project.first, project.second):
        assert run.success
        steps = project.record(run).steps
        assert steps[-1].name == RUN_REPORT
        assert steps[-1].started is not None
        assert all(step.ended is not None and step.ended <= steps[-1].started for step in steps[:-1])
    with open_instance(dagster_folder(project.settings)) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(RUN_REPORT))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    path = f"{project.settings.lake_root}/reports/{project.second.run_id}.html"
    assert metadata["report"].value == f"http://127.0.0.1:8000/reports/{project.second.run_id}"
    assert metadata["file"].value == path
    assert metadata["bytes"].value == Path(path).stat().st_size < 2_000_000
    assert metadata["checks not passed"].value == (", ".join(map(str, project.second.red)) or "none")
    moved = (
        project.table("stocks_features")
        .filter(pl.col("date") == SAMPLE_LAST)
        .sort(pl.col("return_1d").abs())["ticker"][-1]
    )
    assert str(metadata["picture"].value).startswith(f"![{moved} from 2022-09-23 to 2023-09-21](data:image/svg+xml,")


def test_what_a_run_did_is_told_as_the_run_itself_returned_it(project: Project) -> None:
    for run in (project.first, project.second):
        told = report_of(project, run)["run"]
        assert (told["run"]["id"], told["run"]["outcome"]) == (run.run_id, "succeeded")
        assert told["run"]["launched_by"].startswith("the program, on ")
        seconds = {step["name"]: step["seconds"] for step in told["steps"]}
        assert seconds == pytest.approx(
            {name: took for name, took in run.seconds.items() if name != RUN_REPORT}, abs=0.01
        )
        assert {step["status"] for step in told["steps"]} == {"succeeded"}
        red = [(check["asset"], check["check"], check["severity"]) for check in told["checks"] if not check["passed"]]
        assert red == [(finding.asset, finding.check, finding.severity) for finding in run.red]
        descriptions = {check["check"]: check["description"] for check in told["checks"] if not check["passed"]}
        assert descriptions == {finding.check: finding.description for finding in run.red}
    covers = report_of(project, project.first)["run"]["run"]["covers"]
    assert covers == "AAPL, GOOG, NVDA; 2022-09-01 to 2023-09-21"


def test_rows_before_and_after_are_those_of_the_tables(project: Project) -> None:
    first, second = (
        {row["table"]: row for row in report_of(project, run)["run"]["tables"]}
        for run in (project.first, project.second)
    )
    changed = {  # of the correction: the bars that were refused before, and the mistyped one
        "processed_stocks_daily": (1, 1),
        "curated_stocks_daily": (1, 1),
        "stocks_features": (1, 2),  # the session after the correction has other indicators too
    }
    for name, (added, corrected) in changed.items():
        rows = project.table(name).height
        assert (first[name]["before"], first[name]["after"], first[name]["added"]) == (0, rows - added, rows - added)
        assert (second[name]["before"], second[name]["after"]) == (rows - added, rows)
        assert (second[name]["added"], second[name]["corrected"], second[name]["withdrawn"]) == (added, corrected, 0)
    landed = project.table("raw_stocks_daily").height
    assert first["raw_stocks_daily"]["added"] + second["raw_stocks_daily"]["added"] == landed
    for name in ("processed_quarantine", "corporate_actions", "restatements"):
        assert second[name]["after"] == project.table(name).height
        assert second[name]["before"] == first[name]["after"]


def test_restated_values_are_the_lines_of_the_ledger_that_the_run_wrote(project: Project) -> None:
    lines = project.table("restatements")
    assert set(lines["run_id"]) == {project.second.run_id}
    told = report_of(project, project.second)["run"]["restated"]
    assert told["lines"] == lines.height
    assert told["by_cause"] == [
        [*group, rows.height, rows["rows"].sum()] for group, rows in sorted(lines.group_by("table_name", "cause"))
    ]
    [close] = [line for line in told["first"] if line["columns"] == ["close"]]
    assert (close["ticker"], close["date"], close["table"]) == (CORRECTED[0], str(CORRECTED[1]), "curated_stocks_daily")
    assert (close["old"], float(close["new"]), close["cause"]) == (MISTYPED, CORRECT, "vendor edit")
    assert report_of(project, project.first)["run"]["restated"] == {"lines": 0, "by_cause": [], "first": []}


def test_quarantined_rows_are_those_of_this_run_with_their_reasons(project: Project) -> None:
    rejected = project.table("processed_quarantine")
    told = report_of(project, project.first)["run"]["quarantined"]
    assert told["rows"] == rejected.height == len(told["first"]) > 2
    reasons = rejected.explode("reasons")["reasons"].value_counts()
    assert dict(told["by_reason"]) == dict(reasons.iter_rows())
    assert {row["line"] for row in told["first"]} == set(rejected["line_number"])
    second = report_of(project, project.second)["run"]["quarantined"]
    assert (second["rows"], second["first"]) == (0, [])


def test_a_run_that_failed_is_told_with_its_error_and_the_steps_that_it_skipped(project: Project, here: Path) -> None:
    assert not project.failed.success
    assert Reports(project.lake).read(project.failed.run_id) is None  # its step was skipped
    done = command("report", project.failed.run_id[:8])
    assert done.exit_code == 0, done.output
    path = here / "lakehouse" / "reports" / f"{project.failed.run_id}.html"
    assert Path(done.stdout.strip()) == path
    told = answers_in(path.read_text())["run"]
    assert told["run"]["outcome"] == "failed"
    by_name = {step["name"]: step for step in told["steps"]}
    assert "the vendor's door is shut" in by_name["raw_stocks_daily"]["error"]
    assert {step["status"] for name, step in by_name.items() if name != "raw_stocks_daily"} == {"skipped"}
    assert RUN_REPORT in by_name
    assert (told["tables"], told["restated"]["lines"], told["quarantined"]["rows"]) == ([], 0, None)
    assert told["newest"]["session"] == str(SAMPLE_LAST)  # of the lake, which the run did not change


def test_the_report_of_an_earlier_run_shows_the_lake_as_it_was_then(project: Project, here: Path) -> None:
    done = command("report", project.first.run_id, "--to", "first.html", "--tickers", "nvda", "--years", "1")
    assert done.exit_code == 0, done.output
    found = answers_in((here / "first.html").read_text())
    bars = found["bars/NVDA"]
    assert [name for name in found if name.startswith("bars/")] == ["bars/NVDA"]
    assert bars["close"][bars["date"].index(str(CORRECTED[1]))] == float(MISTYPED)
    assert found["about"]["as_of"] is not None
    now = answers_in(Path(project.settings.lake_root, "reports", f"{project.second.run_id}.html").read_text())
    assert now["bars/NVDA"]["close"][-2] == float(f"{CORRECT:.7g}")
    assert now["about"]["as_of"] is None


def test_the_report_of_the_lake_has_the_newest_run_and_exact_values(project: Project, here: Path) -> None:
    done = command("report")
    assert done.exit_code == 0, done.output
    found = answers_in((here / "report.html").read_text())
    assert found["run"]["run"]["id"] == project.failed.run_id
    assert found["bars/NVDA"]["close"][-2] == CORRECT
    assert found["counts"]["raw_stocks_daily"]["rows"] == project.table("raw_stocks_daily").height


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "0123456789"], "run 0123456789: there is no such run in "),
        (["report", ""], "run : 3 runs begin so; give more of the id"),
        (["report", "--tickers", "MSFT"], "tickers: the lake has no features of MSFT"),
        (["report", "--tickers", "AAPL,"], None),
        (["chart", "NVD"], "The lake has no bars of 'NVD'. Spelled alike: NVDA."),
        (["chart", "NVDA", "--as-of", "2001-01-01"], "nothing is known of 2001-01-01"),
        (["chart", "NVDA", "--as-of", "soon"], "'soon' is no moment"),
        (["chart", "NVDA", "-o", "nowhere/x.html"], "nowhere/x.html: the report cannot be written (No such file"),
    ],
)
def test_what_cannot_be_written_is_said_in_a_line(here: Path, arguments: list[str], words: str | None) -> None:
    done = command(*arguments)
    if words is None:  # a comma too many is no mistake
        assert done.exit_code == 0, done.output
        return
    assert done.exit_code == 2, done.output
    assert words in done.stderr.replace("\n", " ")


def test_a_chart_is_one_ticker_in_a_file_as_it_is_and_as_it_was(project: Project, here: Path, browser: Browser) -> None:
    done = command("chart", "nvda", "--years", "1")
    assert (done.exit_code, done.stdout.strip()) == (0, "NVDA.html"), done.output
    closes = project.table("curated_stocks_daily").filter(
        pl.col("ticker") == "NVDA", pl.col("date") >= date(2022, 9, 21)
    )
    found = answers_in((here / "NVDA.html").read_text())
    assert found["bars/NVDA"]["close"] == closes.sort("date")["close"].to_list()  # all digits of the doubles
    assert found.keys() == {"charts", "about", "bars/NVDA", "restated/NVDA"}
    ended = project.record(project.first).ended
    assert ended is not None
    before = command("chart", "NVDA", "--as-of", ended.isoformat(), "--output", "before.html")
    assert before.exit_code == 0, before.output
    bars = answers_in((here / "before.html").read_text())["bars/NVDA"]
    assert bars["close"][bars["date"].index(str(CORRECTED[1]))] == float(MISTYPED)
    page = open_file(browser, here / "before.html")
    page.wait_for_selector("body[data-drawn=NVDA]")
    assert page.locator("#pages button").all_inner_texts() == ["Ticker"]
    assert page.locator("#past").inner_text().startswith("The past: what the lake said as of ")
    assert not page.problems  # type: ignore[attr-defined]
    page.close()


def test_the_page_shows_the_run_and_leads_to_its_charts(project: Project, browser: Browser) -> None:
    path = Path(project.settings.lake_root, "reports", f"{project.second.run_id}.html")
    page = open_file(browser, path)
    page.wait_for_selector("#run_tiles")
    assert page.locator("#run_title").inner_text() == f"Run {project.second.run_id[:8]} succeeded"
    rows = [line.split("\t") for line in page.locator("#run_tables").inner_text().splitlines()]
    heads, by_name = rows[0], {row[0]: row for row in rows[1:]}
    count = project.table("curated_stocks_daily").height
    curated = dict(zip(heads, by_name["curated_stocks_daily"], strict=True))
    assert (curated["Rows before"], curated["added"], curated["Rows after"]) == (f"{count - 1}", "1", f"{count}")
    restated = [line.split("\t") for line in page.locator("#run_restated").inner_text().splitlines()]
    [close] = [row for row in restated if row[3] == "close"]
    assert close[1:3] + close[4:6] == ["NVDA", "2023-09-20", "424.39", "422.39"]
    assert page.locator("[data-step]").count() == len(project.record(project.second).steps) - 1
    cards = page.locator("#run_charts .card")
    assert [card.split()[0] for card in cards.all_inner_texts()] == list(TICKERS)
    cards.nth(2).click()
    page.wait_for_selector("body[data-drawn=NVDA]")
    assert page.locator("section[data-page=run]").is_hidden()
    page.go_back()
    page.locator("#run_tiles").wait_for()
    for name in ("Signals", "Data", "Run"):
        page.get_by_role("button", name=name, exact=True).click()
        page.locator(f"section[data-page={name.lower()}]").wait_for()
    assert not page.problems  # type: ignore[attr-defined]
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_findings_without_scrolling_sideways(project: Project, browser: Browser, scheme: Any) -> None:
    path = Path(project.settings.lake_root, "reports", f"{project.first.run_id}.html")
    page = open_file(browser, path, 390, color_scheme=scheme)
    page.wait_for_selector("#run_tiles")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    boxes = page.locator("#run_checks .check").all_inner_texts()
    assert len(boxes) == len(project.first.red) > 0
    assert any("processed_stocks_daily, quarantine" in box and "To do:" in box for box in boxes)
    assert page.locator("#run_quarantined tbody tr").count() == project.table("processed_quarantine").height
    assert not page.problems  # type: ignore[attr-defined]
    page.close()


def test_text_of_a_stranger_is_text_in_the_page_and_secrets_are_not_in_it(
    project: Project, here: Path, browser: Browser, tmp_path: Path
) -> None:
    done = command("report", project.failed.run_id, "--to", str(tmp_path / "failed.html"))
    assert done.exit_code == 0, done.output
    page = open_file(browser, tmp_path / "failed.html")
    page.wait_for_selector("#run_tiles")
    assert "</script><script>hacked=1</script>" in page.locator("#run_steps pre").inner_text()
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.locator("#run_title").inner_text() == f"Run {project.failed.run_id[:8]} failed"
    assert not page.problems  # type: ignore[attr-defined]
    page.close()
    told = run_answer(View(project.lake), project.record(project.failed), ["hunter2", ""])
    assert "hunter2" not in json.dumps(told)
    assert "password=***" in json.dumps(told)


def test_the_server_gives_the_reports_of_the_lake_and_none_of_its_other_files(project: Project) -> None:
    with served(project.lake, Reports(project.lake)) as url:
        with urlopen(f"{url}/reports/{project.second.run_id}", timeout=10) as found:
            assert found.read() == Reports(project.lake).read(project.second.run_id)
            assert found.headers["content-security-policy"] == REPORT_POLICY
        for name in ("nothing", "..%2f..%2flakehouse.toml", "%2e%2e", "a" * 200, ".hidden", "a.b"):
            with pytest.raises(HTTPError, match="404"):
                urlopen(f"{url}/reports/{name}", timeout=10)


def test_reports_of_a_bucket_are_replaced_and_the_oldest_removed(s3_root: str) -> None:
    reports = Reports(Lake(s3_root))
    assert reports.read("a-run") is None
    assert reports.write("a-run", "first") == f"{s3_root}/reports/a-run.html"
    reports.write("a-run", "second")
    assert reports.read("a-run") == b"second"
    reports.write("b-run", "third")
    assert (reports.remove_old(1), reports.remove_old(1)) == (1, 0)
    assert (reports.read("a-run") is None) != (reports.read("b-run") is None)


def test_only_the_newest_reports_are_kept_and_files_of_others_stay(tmp_path: Path) -> None:
    import os

    reports = Reports(Lake(tmp_path))
    for place, name in enumerate("abcd"):
        path = Path(reports.write(name, name))
        os.utime(path, (place, place))
    (tmp_path / "reports" / "notes.txt").write_text("mine")
    assert reports.remove_old(2) == 2
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == ["c.html", "d.html", "notes.txt"]


def test_crosses_and_signals_of_the_newest_session_are_told_whatever_the_day(
    spark: SparkSession, tmp_path: Path
) -> None:
    sessions = sessions_of(date(2019, 1, 2), date(2021, 6, 30))
    bars = history(["AAA", "BBB"], sessions)
    close = pd.Series([float(bars["AAA", session]["close"] or "nan") for session in sessions])
    above = (close.rolling(50).mean() > close.rolling(200).mean())[200:]
    crossed = int(above[above != above.shift()].index[1])  # the first is where the averages begin
    name = "Golden cross" if above[crossed] else "Death cross"
    house = clocked(tmp_path / "lake", spark, ("AAA", "BBB"))
    shown = sessions[: crossed + 1]
    run_layers(house, rectangle(shown, ("AAA", "BBB")), [bar for (_, day), bar in bars.items() if day <= shown[-1]])
    newest = run_answer(View(house.lake), RunRecord("r", "j", "SUCCESS", "", "", None, None, "", (), (), {}))["newest"]
    assert (newest["session"], newest["tickers"]) == (shown[-1].isoformat(), 2)
    [row] = [row for row in newest["signals"] if row["ticker"] == "AAA"]
    assert name in row["signals"]
    assert row["close"] == close[crossed]
    assert row["return_1d"] == pytest.approx(close[crossed] / close[crossed - 1] - 1)


def test_a_run_is_done_when_the_steps_beside_its_report_are(project: Project) -> None:
    at = datetime(2024, 1, 2, tzinfo=UTC)
    record = replace(project.record(project.second), status="STARTED", ended=None)
    assert record.outcome == "succeeded"
    reporting = StepRecord(RUN_REPORT, "in progress", at)
    running = replace(record, steps=(*record.without(RUN_REPORT).steps, reporting))
    assert (running.outcome, running.without(RUN_REPORT).outcome) == ("in progress", "succeeded")
    lost = replace(running, steps=(StepRecord("raw_stocks_daily", "failed", at, at, 3, "no"), reporting))
    assert lost.without(RUN_REPORT).outcome == "failed"


def test_a_run_is_found_by_how_its_id_begins(project: Project) -> None:
    with open_instance(dagster_folder(project.settings)) as instance:
        assert find_run(instance, None) == project.failed.run_id
        assert find_run(instance, project.first.run_id[:13]) == project.first.run_id
        with pytest.raises(UnknownRunError, match="there is no such run"):
            read_run(instance, "no-run")
        read_run(instance, project.first.run_id)


def test_a_run_that_changes_nothing_writes_no_report_and_leads_to_the_one_that_holds(
    spark: SparkSession, tmp_path: Path
) -> None:
    settings = Settings(
        lake_root=tmp_path / "lake", tickers=("AAPL",), first_date=date(2023, 9, 18), last_date=SAMPLE_LAST
    )
    whole = PartitionScheme(settings, market_calendar(settings.first_date)).request(None, None, None, SAMPLE_LAST)
    folder = tmp_path / "lake" / "reports"

    def written(select: Sequence[str] | None = None) -> tuple[str, dict[str, Any]]:
        """A run's id, and what it recorded of its report."""
        run = run_rectangle(settings, whole, select)
        assert run.success, run.failures
        with open_instance(dagster_folder(settings)) as instance:
            event = instance.get_latest_materialization_event(dg.AssetKey(RUN_REPORT))
        assert event is not None
        assert event.run_id == run.run_id
        assert event.asset_materialization is not None
        return run.run_id, {name: value.value for name, value in event.asset_materialization.metadata.items()}

    first, _ = written()
    before = bytes_of(folder)
    assert before.keys() == {f"{first}.html"}
    _, facts = written()
    assert bytes_of(folder) == before
    assert facts["report"] == f"http://127.0.0.1:8000/reports/{first}"
    assert facts["why"] == f"The run changed nothing, so that the report of run {first} still holds."
    (folder / f"{first}.html").unlink()
    third, _ = written()
    assert bytes_of(folder).keys() == {f"{third}.html"}  # there was none that holds
    # As with declarative automation: of the run that published features, not of the one that serves them.
    (folder / f"{third}.html").unlink()
    _, facts = written(["catalog", RUN_REPORT])
    assert facts["run"] == third
    assert bytes_of(folder).keys() == {f"{third}.html"}


def test_without_a_dashboard_there_is_no_report(settings: Settings) -> None:
    partitions = dg.StaticPartitionsDefinition(["any"])
    names = {
        shown: {
            key.path[-1]
            for asset in all_assets(partitions, settings.model_copy(update={"dashboard": shown}))
            for key in asset.keys
        }
        for shown in ("off", "local")
    }
    assert names["local"] - names["off"] == {RUN_REPORT}


def test_a_lake_without_bars_has_a_report_of_its_run(
    spark: SparkSession, tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        lake_root=tmp_path / "lake", tickers=("AAPL",), first_date=date(2023, 9, 18), last_date=SAMPLE_LAST
    )
    (tmp_path / "lakehouse.toml").write_text('lake_root = "lake"\ntickers = ["AAPL"]\nfirst_date = 2023-09-18\n')
    scheme = PartitionScheme(settings, market_calendar(settings.first_date))
    run = run_rectangle(settings, scheme.request(None, None, None, SAMPLE_LAST), source=Broken())
    done = command("report", run.run_id, "--to", "empty.html")
    assert done.exit_code == 0, done.output
    page = open_file(browser, tmp_path / "empty.html")
    page.wait_for_selector("#run_tiles")
    assert page.locator("#pages button").all_inner_texts() == ["Run"]
    assert "the vendor's door is shut" in page.locator("#run_steps").inner_text()
    assert not page.problems  # type: ignore[attr-defined]
    page.close()
