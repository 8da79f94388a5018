"""What the program does in a deployment, chapter by chapter: the state of the lake before, the role, and its commands.

Here: every command and every way in which a run touches a lake. Not here: what they may do, and what a test expects of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stock_lakehouse_tests.deployment.world import DAYS, LAYERS, SAMPLE, TICKERS, Stage

Act = Callable[[Stage], Any]


@dataclass(frozen=True)
class Chapter:
    """Commands of one role.

    - act: the commands, called as the role
    - before: what was there before, made without a role
    - given: variables of the settings
    - refused: what the command is refused and goes on without, as a pattern of the text of a right
    - diagnoses: it tells what is right and wrong, and does nothing else
    """

    name: str
    role: str
    act: Act
    before: Act = lambda stage: None
    given: Mapping[str, str] = field(default_factory=dict)
    refused: str = "$^"
    diagnoses: bool = False


def nothing(stage: Stage) -> None:
    stage.prices.deliver(DAYS[-2])


def filled(stage: Stage) -> None:
    stage.copied(stage.lakes.filled)
    stage.prices.deliver(DAYS[-2])


def reported(stage: Stage) -> None:
    """With the report of an earlier run, which is removed."""
    nothing(stage)
    stage.put("reports/11111111-run.html", b"<html></html>")
    stage.world.gate.age("/reports/1")


def registered(stage: Stage) -> None:
    filled(stage)
    stage.call("materialize", "--select", "catalog")


def loaded(stage: Stage) -> None:
    registered(stage)
    stage.call("warehouse")


def queried(stage: Stage) -> None:
    """With Athena's workgroup, which the first query of a run makes."""
    registered(stage)
    stage.call("query", "--engine", "athena", "SELECT 1")


def run(*select: str) -> Act:
    """A run over all sessions, of all assets or of `select`."""

    def act(stage: Stage) -> None:
        stage.call("materialize", *(("--select", ",".join(select)) if select else ()))

    return act


def next_day(stage: Stage) -> None:
    stage.prices.deliver(DAYS[-1])
    stage.call("materialize", "--from", str(DAYS[-1]), "--select", LAYERS)


def restated(stage: Stage) -> None:
    row = stage.prices.rows["AAA"][DAYS[3]]
    row[3] = row[0]
    stage.prices.deliver(DAYS[-2])
    stage.call("materialize", "--select", LAYERS)


def split(stage: Stage) -> None:
    prices = stage.prices
    for day, row in prices.rows["AAA"].items():
        halved = [f"{float(text) / 2:.4f}" for text in row[:4]]
        prices.rows["AAA"][day] = [*halved, str(int(row[4]) * 2), "0.0", "2.0" if day == DAYS[-1] else "0.0"]
    prices.deliver(DAYS[-1])
    stage.call("materialize", "--select", LAYERS)


def quarantined(stage: Stage) -> None:
    """A bar becomes impossible and good again: the quarantine has a file for it, and then has none."""
    row = stage.prices.rows["BBB"][DAYS[8]]
    high, low = row[1], row[2]
    row[1], row[2] = low, high
    stage.prices.deliver(DAYS[-2])
    stage.call("materialize", "--select", LAYERS)
    row[1], row[2] = high, low
    stage.prices.deliver(DAYS[-2])
    stage.call("materialize", "--select", LAYERS)


def without_a_year(stage: Stage) -> None:
    """An operator has removed the landed files of a year, and the source no longer has it: its ticker-years end."""
    nothing(stage)
    stage.call("materialize", "--select", LAYERS)
    stage.remove("raw/stocks_daily/year=2023")
    stage.prices.deliver(DAYS[-2], since=DAYS[9])


def compacted(stage: Stage) -> None:
    """Landings one after another, until a compaction of raw is written, and written again."""
    with stage.patched("stock_lakehouse.lake.raw_compaction.LOOSE", 2):
        for number in range(4):
            row = stage.prices.rows["AAA"][DAYS[number]]
            row[4] = str(int(row[4]) + 1)
            stage.prices.deliver(DAYS[-2])
            stage.call("materialize", "--select", LAYERS.partition(",processed_q")[0])


def program(*commands: str) -> Act:
    """Commands of the program, in their order."""

    def act(stage: Stage) -> None:
        for command in commands:
            stage.call(*command.split(" "))

    return act


def old_versions(stage: Stage) -> None:
    """A lake of months: versions beyond their retention, replaced files, what a killed run staged, an orphaned line."""
    stage.copied(stage.lakes.aged)
    stage.prices.deliver(DAYS[-2])
    stage.put(".staging/0123456789abcdef/part-0.parquet", b"PAR1")
    stage.put("serving/lakehouse.tmp", b"")
    stage.put(f"serving/stocks_features/year=2023/{'0' * 24}/data.parquet", b"PAR1")
    stage.call("materialize", "--select", "catalog")
    stage.call("warehouse")
    stage.world.gate.age(r"\.staging/|0{24}|\.tmp$|/(processed|curated)/")


def damaged(stage: Stage) -> None:
    """A file of each format is damaged."""
    filled(stage)
    for folder in (
        "processed/stocks_daily",
        "curated/stocks_daily",
        "curated/stocks_features",
        "curated/corporate_actions",
    ):
        stage.cut(folder)


def restored(stage: Stage) -> None:
    """From a backup in a folder, so that the role needs no rights to it."""
    stage.call("restore", str(stage.lakes.filled))


def read_by_python(stage: Stage) -> None:
    from stock_lakehouse.lake.dictionary import list_tables
    from stock_lakehouse.lake.reading import read_table

    for name in list_tables().index:
        if name.startswith(("curated", "corporate", "stocks", "restatements", "bars")):
            assert read_table(name).num_rows or name in ("restatements", "corporate_actions"), name
    assert read_table("curated_stocks_daily", tickers="AAA", as_of="2100-01-01").num_rows


def dashboard(stage: Stage) -> None:
    """What the page of the dashboard asks its server."""
    from starlette.testclient import TestClient

    from stock_lakehouse.clock import clock_of
    from stock_lakehouse.dashboards.reports import Reports
    from stock_lakehouse.dashboards.server import application
    from stock_lakehouse.dashboards.view import Views
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.settings import load_settings

    settings = load_settings()
    lake = Lake(settings.lake_options)
    views = Views(lake, settings.serving_cache, clock_of(None), stage.lines.append, None)
    with TestClient(application(views, Reports(lake), None), base_url="http://127.0.0.1:8000") as client:
        for question in ("about", "charts", "bars/AAA", "restated/AAA", "signals", "data", "counts"):
            while (answer := client.get(f"/api/{question}")).status_code == 202:  # the serving copy is being made
                time.sleep(0.1)
            stage.answered(answer)


def sensors(stage: Stage) -> None:
    """Every sensor looks once."""
    import dagster as dg

    from stock_lakehouse.definitions import build_definitions
    from stock_lakehouse.settings import load_settings

    definitions = build_definitions(load_settings(automation="sensor"))
    with dg.DagsterInstance.ephemeral() as instance:
        for sensor in definitions.sensors or ():
            assert isinstance(sensor, dg.SensorDefinition)
            sensor.evaluate_tick(dg.build_sensor_context(instance, definitions=definitions))


def reported_by_sql(stage: Stage) -> None:
    """The reports of sql/reports/."""
    from stock_lakehouse.sql.reports import reports

    stage.call("materialize", "--select", ",".join(reports()))


def a_day_later(stage: Stage) -> None:
    """Catalog and dashboard are those of the day before, and there is a report of an earlier run."""
    with stage.settings({"STOCK_LAKEHOUSE_ENGINE": "embedded"}):
        provisioned(stage)
        next_day(stage)
    reported(stage)


def shown(stage: Stage) -> None:
    """The catalog, another dashboard on it, and the report of the run."""
    from stock_lakehouse.assets.dashboards import RUN_REPORT
    from stock_lakehouse.assets.quicksight import NAME

    with stage.on_databricks(), stage.settings(OF_DASHBOARD):
        stage.call("materialize", "--select", f"catalog,{NAME},{RUN_REPORT}")


def job(name: str) -> Act:
    """A job of Dagster, as its task on ECS runs it."""

    def act(stage: Stage) -> None:
        import dagster as dg

        from stock_lakehouse.definitions import build_definitions
        from stock_lakehouse.settings import load_settings

        with dg.DagsterInstance.ephemeral() as instance:
            definition = build_definitions(load_settings()).resolve_job_def(name)
            result = definition.execute_in_process(instance=instance, raise_on_error=False)
            stage.ended(result)

    return act


def layers_by_jobs(stage: Stage) -> None:
    """What a cluster of Databricks does: every layer but raw, from the orders of Dagster."""
    from stock_lakehouse.databricks_jobs.main import publish
    from stock_lakehouse.databricks_jobs.order import Order
    from stock_lakehouse.market_calendar import utc_now
    from stock_lakehouse.settings import load_settings

    settings = load_settings()
    for name in ("processed_stocks_daily", "curated_stocks_daily", "stocks_features"):
        order = Order(
            name, [day.isoformat() for day in DAYS[:-1]], list(TICKERS), "11111111-run", utc_now().isoformat(),
            settings.lake_options.as_json(),
        )  # fmt: skip
        publish(order, stage.spark, lambda result: None)


def landed(stage: Stage) -> None:
    """Raw alone."""
    nothing(stage)
    stage.call("materialize", "--select", "raw_stocks_daily")


def by_jobs(stage: Stage) -> None:
    """A run whose layers are jobs, each of which the cluster does with its own role."""
    from stock_lakehouse.databricks_jobs.main import publish

    def cluster(context: Any, order: Any, databricks: Any) -> Any:
        import dagster as dg

        from stock_lakehouse.checks import as_dagster

        results: list[Any] = []
        with stage.as_role("job", stage.playing):
            metadata = publish(order, stage.spark, results.append)
        yield from map(as_dagster, results)
        yield dg.MaterializeResult(asset_key=order.name, metadata=metadata)

    with stage.on_databricks(), stage.patched("stock_lakehouse.resources.databricks_jobs.publish_by_job", cluster):
        stage.call("materialize")


def done_by_jobs(stage: Stage) -> None:
    """With a run of the day before."""
    nothing(stage)
    by_jobs(stage)


def again_by_jobs(stage: Stage) -> None:
    """The next day, with another dashboard. The report of the run before is removed."""
    stage.prices.deliver(DAYS[-1])
    with stage.settings(OF_DASHBOARD):
        by_jobs(stage)


def by_session(stage: Stage) -> None:
    """A run by a session on a cluster, whose frames are staged in the lake."""
    with stage.on_databricks():
        stage.call("materialize", "--select", LAYERS)


def after_the_layers(stage: Stage) -> None:
    """What a run makes of the published tables: the catalog, reports, the warehouse, the dashboard."""
    from stock_lakehouse.deployment.places import beside_tables
    from stock_lakehouse.settings import load_settings

    with stage.on_databricks():
        stage.call("materialize", "--select", ",".join(beside_tables(load_settings())))


def by_year(stage: Stage) -> None:
    nothing(stage)
    stage.call("materialize", "--select", LAYERS)


def provisioned(stage: Stage) -> None:
    registered(stage)
    stage.call("quicksight")


def changed_dashboard(stage: Stage) -> None:
    with stage.settings(OF_DASHBOARD):
        stage.call("quicksight")


def streamed(stage: Stage) -> None:
    """Messages in the data stream, and the official bars of their tickers."""
    stage.copied(stage.lakes.sample)
    stage.stream()
    stage.call("stream", "produce", "--every", "600", "--poison", "0.05")


def drained(stage: Stage) -> None:
    streamed(stage)
    stage.call("stream", "drain")


def reconciled(stage: Stage) -> None:
    """With every table of the stream."""
    streamed(stage)
    job("stream_drain")(stage)
    stage.call("stream", "reconcile")


def compared(stage: Stage) -> None:
    """The job, as if the session of the sample were of this month."""
    with stage.patched("stock_lakehouse.assets.stream.COMPARED_DAYS", 10_000):
        job("stream_reconcile")(stage)
    assert stage.keys("stream/reconciliation")


def run_stream(stage: Stage) -> None:
    """`stream run` until Ctrl-C."""
    with stage.interrupted(after=6.0):
        stage.call("stream", "run")


# Other tickers of a dashboard, another time of its refresh, another reader.
OF_DASHBOARD = {
    "STOCK_LAKEHOUSE_TICKERS": ",".join(reversed(TICKERS)),
    "STOCK_LAKEHOUSE_QUICKSIGHT_REFRESH_TIME": "21:00",
    "STOCK_LAKEHOUSE_QUICKSIGHT_READERS": '["group traders"]',
    "STOCK_LAKEHOUSE_QUICKSIGHT_AUTHORS": '["user ben"]',
}
ONE_REPORT = {"STOCK_LAKEHOUSE_REPORTS_KEPT": "1"}
WITHOUT_VIEWS = {"STOCK_LAKEHOUSE_QUERY_ENGINE": "duckdb"}  # the Athena of the tests has no tables of a stream
WITHOUT_WAREHOUSE = {"STOCK_LAKEHOUSE_WAREHOUSE": "off"}
SHORT = {"STOCK_LAKEHOUSE_RETENTION_DAYS": "30"}
# What the charts show of delivered rows to who may read them: how many there are.
PROCESSED = "processed/(stocks_daily/_by_year|actions/_delta_log|stocks_daily)"
DELIVERED = rf".*/(raw/stocks_daily|{PROCESSED}|stream/raw_ticks/_delta_log)/'"
BY_YEAR = {"STOCK_LAKEHOUSE_LAYOUT": "year"}
WITH_SESSION = {"STOCK_LAKEHOUSE_ENGINE": "databricks", "STOCK_LAKEHOUSE_DATABRICKS_WORK": "session"}
WITH_JOBS = {
    "STOCK_LAKEHOUSE_ENGINE": "databricks",
    "STOCK_LAKEHOUSE_DATABRICKS_WORK": "job",
}
READING = (
    "show curated_stocks_daily AAA", "show stocks_features AAA --json", "show curated_stocks_daily AAA --as-of 2100-01-01",
    "restatements AAA", "export curated_stocks_daily --output curated.parquet", "describe stocks_features",
    "query --engine duckdb --report latest_signals", "chart AAA --output chart.html", "report --to report.html",
)  # fmt: skip

CHAPTERS = (
    Chapter("next day", "run", next_day, filled),
    Chapter("first load", "run", run(), reported, ONE_REPORT),
    Chapter("restatement", "run", restated, filled),
    Chapter("split", "run", split, filled),
    Chapter("bars that become impossible", "run", quarantined, filled),
    Chapter("a year that is withdrawn", "run", run(LAYERS), without_a_year),
    Chapter("many landings", "run", compacted, nothing),
    Chapter("backfill", "run", program("backfill --chunk 20", "record"), nothing),
    Chapter("restore", "run", restored, nothing),
    Chapter("demo", "run", program("demo"), given=SAMPLE),
    Chapter("doctor", "run", program("doctor"), filled, {"STOCK_LAKEHOUSE_STREAM_SOURCE": "off"}, diagnoses=True),
    Chapter("status", "run", program("status", "tables"), filled, diagnoses=True),
    Chapter("catalog", "run", run("catalog"), filled),
    Chapter("reports by SQL", "run", reported_by_sql, registered),
    Chapter("catalog and dashboard of the next day", "run", shown, a_day_later, ONE_REPORT),
    Chapter("warehouse", "run", program("warehouse", "warehouse --check --full", "warehouse --repair"), registered),
    Chapter("quicksight", "run", program("quicksight", "quicksight --dry-run"), registered),
    Chapter("a changed dashboard", "run", changed_dashboard, provisioned),
    Chapter("catalog of a stream", "run", run("catalog"), reconciled, {**SAMPLE, **WITHOUT_VIEWS}),
    Chapter("first load, tables by year", "run", run(LAYERS), nothing, BY_YEAR),
    Chapter("bars that become impossible, tables by year", "run", quarantined, by_year, BY_YEAR),
    Chapter("a run by a session", "run", by_session, nothing, WITH_SESSION),
    Chapter("a run by jobs", "run-jobs", by_jobs, nothing, WITH_JOBS),
    Chapter(
        "catalog and dashboard of the next day, by jobs", "run-jobs", shown, a_day_later, {**WITH_JOBS, **ONE_REPORT}
    ),
    Chapter("the next run by jobs", "run-jobs", again_by_jobs, done_by_jobs, {**WITH_JOBS, **ONE_REPORT}),
    Chapter("after the layers", "run-jobs", after_the_layers, filled, WITH_JOBS),
    Chapter("layers by jobs", "job", layers_by_jobs, landed),
    Chapter("upkeep", "upkeep", program("upkeep"), old_versions, SHORT),
    Chapter("upkeep with a stream", "upkeep", program("upkeep"), reconciled, {**SAMPLE, **WITHOUT_WAREHOUSE}),
    Chapter("upkeep by Dagster", "upkeep", job("upkeep"), old_versions, SHORT),
    Chapter("upkeep --repair", "repair", program("upkeep --repair"), damaged, WITHOUT_WAREHOUSE),
    Chapter("upkeep --repair with a warehouse", "repair", program("upkeep --repair"), loaded),
    Chapter("layout", "repair", program("layout"), filled, {"STOCK_LAKEHOUSE_LAYOUT": "year"}),
    Chapter("reading commands", "reader", program(*READING), filled, refused=DELIVERED),
    Chapter("read_table", "reader", read_by_python, filled, refused=DELIVERED),
    Chapter("dashboard", "reader", dashboard, filled, refused=DELIVERED),
    Chapter("query on Athena", "reader", program("query --engine athena --report latest_signals"), queried),
    Chapter("sensors", "dagster", sensors, drained, SAMPLE),
    Chapter("stream drain", "stream", program("stream drain", "stream status", "stream retry"), streamed, SAMPLE),
    Chapter("stream run", "stream", run_stream, streamed, SAMPLE),
    Chapter("drain by Dagster", "stream", job("stream_drain"), streamed, SAMPLE),
    Chapter("comparison by Dagster", "stream", compared, drained, SAMPLE),
)
