"""run_report: the HTML report of the run that it is a part of. It is written last, and does not change the tables."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.automation.jobs import CATALOG, GROUP, LAYER_TAG, SERVING_LAYER
from stock_lakehouse.dashboards.picture import small_picture
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.tables import FEATURES

if TYPE_CHECKING:
    from stock_lakehouse.dashboards.reports import Reports
    from stock_lakehouse.instance.run_record import RunRecord
    from stock_lakehouse.settings import Settings

RUN_REPORT = "run_report"
# Names of metadata: the run that the report tells of, its checks that did not pass, and a digest of the versions that it shows.
RUN, RED, LAKE = "run", "checks not passed", "versions"


def run_report(settings: "Settings") -> dg.AssetsDefinition:
    """The asset. It has one upstream asset, the catalog, so that it also tells of a report or a warehouse that failed."""

    @dg.asset(
        name=RUN_REPORT,
        deps=[CATALOG],
        group_name=GROUP,
        tags={LAYER_TAG: SERVING_LAYER},
        kinds={"html"},
        # Of the steps that may begin, the in-process executor takes the one with the highest priority: this one is the last.
        op_tags={"dagster/priority": "-1"},
        description="An HTML file for each run that changes something: what ran, the checks, changed and refused rows, signals "
        "and charts of the newest session. `stock-lakehouse dashboard` serves it; `stock-lakehouse report RUN` writes that of any"
        " other run, also of one that failed before this step.",
    )
    def report(context: dg.AssetExecutionContext, lakehouse: LakehouseResource) -> dg.MaterializeResult[Any]:
        from stock_lakehouse.dashboards.answers import ReportError, answers_of_run
        from stock_lakehouse.dashboards.report import YEARS, page_of
        from stock_lakehouse.dashboards.reports import Reports
        from stock_lakehouse.dashboards.view import View
        from stock_lakehouse.lake.storage import StorageError

        record, reports = _told_run(context), Reports(lakehouse.lake)
        red = ", ".join(str(check) for check in record.checks if not check.passed) or "none"
        try:
            view = View(lakehouse.lake, clock=lakehouse.now)
            found = {RED: red, LAKE: view.digest}
            standing = _standing(context, record, found, reports)
            if standing is not None:
                why = {"why": f"The run changed nothing, so that the report of run {standing} still holds."}
                return dg.MaterializeResult(metadata={**_place(settings, reports, standing), **found, **why})
            answered = answers_of_run(view, record, YEARS, settings.report_tickers, settings.secrets())
            page = page_of(answered)
            reports.write(record.run_id, page)
        except (ReportError, StorageError) as error:
            raise dg.Failure(f"the report of the run was not written: {error}", allow_retries=False) from error
        try:
            reports.remove_old(settings.reports_kept)
        except StorageError as error:
            context.log.warning(f"reports older than the newest {settings.reports_kept} stay: {error}")
        size = {"bytes": len(page.encode())}
        return dg.MaterializeResult(
            metadata={**_place(settings, reports, record.run_id), **found, **size, **_picture(answered)}
        )

    return report


def _place(settings: "Settings", reports: "Reports", run_id: str) -> dict[str, Any]:
    return {
        "report": dg.MetadataValue.url(f"{settings.dashboard_url.rstrip('/')}/reports/{run_id}"),
        "file": dg.MetadataValue.path(reports.location(run_id)),
        RUN: run_id,
    }


def _standing(
    context: dg.AssetExecutionContext, record: "RunRecord", found: Mapping[str, str], reports: "Reports"
) -> str | None:
    """The run whose report still holds: the newest one, if this run changed nothing, and checks and lake are as they were then.

    A run that changes nothing writes nothing, and reports of runs worth reading are not replaced by those of others.
    """
    event = context.instance.get_latest_materialization_event(dg.AssetKey(RUN_REPORT))
    if event is None or event.asset_materialization is None or not record.changed_nothing:
        return None
    before = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    newest = str(before.get(RUN, ""))
    return newest if found.items() <= before.items() and reports.read(newest) is not None else None


def _told_run(context: dg.AssetExecutionContext) -> "RunRecord":
    """The run to tell of: this one; if it does not compute features, the one that published them last.

    With declarative automation the layers are one run, and what serves their readers is another.
    """
    from stock_lakehouse.instance.run_record import expectations, read_run

    expected = expectations(context.job_def)
    record = read_run(context.instance, context.run_id, expected).without(RUN_REPORT)
    newest = context.instance.get_latest_materialization_event(dg.AssetKey(FEATURES.name))
    if newest is None or FEATURES.name in {step.name for step in record.steps}:
        return record
    return read_run(context.instance, newest.run_id, expected)


def _picture(answered: Mapping[str, Any]) -> dict[str, dg.MarkdownMetadataValue]:
    """The ticker of the report that moved most in its newest session; none of a lake without bars."""

    def move(ticker: str) -> float:
        moves: Sequence[float | None] = answered[f"bars/{ticker}"]["return_1d"]
        return abs((moves and moves[-1]) or 0.0)

    tickers = answered["about"]["tickers"]
    if not tickers:
        return {}
    ticker = max(tickers, key=move)
    text = small_picture(ticker, answered[f"bars/{ticker}"])
    return {} if text is None else {"picture": dg.MetadataValue.md(text)}
