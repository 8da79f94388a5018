"""QuickSight is brought to what the lake has: data source, data sets, their rows, the dashboard, and who may use them.

Here: what is there against what should be, and the writes that lead from one to the other. Not here: single calls (client.py),
and how much is read again (refresh.py).

Each write can be killed, and the next run goes on. A digest tells what was written: of a data source or data set in its tags,
which a creation sets in the same call and an update after it; of the dashboard in the description of the published version. If
digests are equal, nothing is written. So what somebody changes by hand stays until the wanted state changes; only permissions and
refresh settings are compared themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stock_lakehouse import aws
from stock_lakehouse.catalog.glue import says
from stock_lakehouse.clock import Clock
from stock_lakehouse.dashboards.quicksight import ingestions
from stock_lakehouse.dashboards.quicksight.client import (
    FailedError,
    OtherLakeError,
    QuickSight,
    QuickSightError,
    as_tags,
    named_errors,
    wait,
)
from stock_lakehouse.dashboards.quicksight.data_sets import DAILY, DataSet, Groups, data_sets, quality_kinds
from stock_lakehouse.dashboards.quicksight.definition import definition
from stock_lakehouse.dashboards.quicksight.principals import (
    AUTHOR,
    READER,
    USER_OF_DATA,
    Permissions,
    allowed,
    check_edition,
    differences,
    entries,
    parts,
    principals,
    short,
)
from stock_lakehouse.dashboards.quicksight.refresh import LakeState, Loaded, Refresh, loaded_now, needed
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.provisioning import UNCHANGED, Step
from stock_lakehouse.sql.athena import AthenaEngine

if TYPE_CHECKING:
    from stock_lakehouse.dashboards.view import View

# Tags of this program: the lake's root, the digest of what was written, and of a data set what it has in SPICE.
ROOT, WRITTEN, ROWS = "lakehouse-root", "lakehouse-digest", "lakehouse-rows"
LONGEST_TAG = 256
SCHEDULE = "daily"
RESOURCE_MINUTES = 10.0  # for a data source or a version of the dashboard
DIGEST_LENGTH = 32
COMPARED_TICKERS = 6
YEARS_SHOWN = 2  # before that of the last session


@dataclass
class Outcome:
    """What a run did, or with `dry_run` would do.

    - steps: in their order
    - url: of the dashboard
    - version: the published one; None before the first
    - calls, writes: of QuickSight
    """

    url: str
    dry_run: bool
    steps: list[Step] = field(default_factory=list)
    version: int | None = None
    calls: int = 0
    writes: int = 0

    @property
    def changed(self) -> bool:
        return any(step.action != UNCHANGED for step in self.steps)

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return {**asdict(self), "changed": self.changed}


def provision(
    settings: Groups,
    view: View,
    quicksight: QuickSight,
    dry_run: bool = False,
    tell: Callable[[str], None] = lambda line: None,
    clock: Clock = utc_now,
) -> Outcome:
    """Bring QuickSight to what the lake of `view` has. Only what differs is written.

    - dry_run: tell what would be written, and write nothing
    - tell: called with a line of text for each step that writes, and before long waits

    Raises QuickSightError, PermissionMissingError, StorageError.
    """
    return _Provisioning(settings, view, quicksight, dry_run, tell, clock).run()


def source_request(settings: Groups) -> dict[str, Any]:
    """The members of CreateDataSource that say what the data source is. Redshift's workgroup is asked for its address."""
    wanted = settings.quicksight
    role = {"RoleArn": wanted.role} if wanted.role else {}
    if wanted.source == "athena":
        return {
            "Type": "ATHENA",
            "DataSourceParameters": {"AthenaParameters": {"WorkGroup": settings.aws.athena_workgroup, **role}},
        }
    redshift = settings.redshift
    place: dict[str, Any] = {"ClusterId": redshift.cluster} if redshift.cluster else _endpoint(str(redshift.workgroup))
    parameters = {**place, "Database": redshift.database}
    request: dict[str, Any] = {"Type": "REDSHIFT"}
    if wanted.secret:
        request["Credentials"] = {"SecretArn": wanted.secret}
    else:
        user = {"DatabaseUser": redshift.db_user} if redshift.db_user else {}
        parameters["IAMParameters"] = {**role, **user}
    if wanted.vpc_connection:
        request["VpcConnectionProperties"] = {"VpcConnectionArn": wanted.vpc_connection}
    return {**request, "DataSourceParameters": {"RedshiftParameters": parameters}}


def _endpoint(workgroup: str) -> dict[str, Any]:
    with named_errors(f"Redshift workgroup {workgroup}"):
        found = aws.client("redshift-serverless").get_workgroup(workgroupName=workgroup)["workgroup"]
    address = found.get("endpoint", {})
    if "address" not in address:
        raise QuickSightError(
            f"Redshift workgroup {workgroup}: it has no address yet (status {found.get('status')}); run again when it has one"
        )
    return {"Host": address["address"], "Port": address["port"]}


class _Provisioning:
    """One run. `provision` describes the arguments."""

    def __init__(
        self,
        settings: Groups,
        view: View,
        quicksight: QuickSight,
        dry_run: bool,
        tell: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self.settings, self.wanted = settings, settings.quicksight
        self.view, self.state = view, LakeState(view)
        self.quicksight = quicksight
        self.dry_run = dry_run
        self.clock = clock
        self._tell = tell
        self.name = self.wanted.name
        self.root = str(view.lake.root)[:LONGEST_TAG]
        url = f"https://{quicksight.region}.quicksight.aws.amazon.com/sn/dashboards/{self.name}"
        self.outcome = Outcome(url, dry_run)

    def run(self) -> Outcome:
        if not self.view.ticker_years:
            raise QuickSightError(
                f"{self.view.lake.root}: the lake has no bars, so there is nothing to show; `stock-lakehouse materialize` "
                "computes them"
            )
        check_edition(self.quicksight)
        readers, authors = principals(self.quicksight, self.wanted)
        source = self._data_source()
        sets = {data_set.name: self._data_set(data_set, source, authors) for data_set in data_sets(self.settings)}
        # Who is both is an author.
        self._dashboard(sets, dict.fromkeys(readers, READER) | dict.fromkeys(authors, AUTHOR))
        self.outcome.calls, self.outcome.writes = self.quicksight.calls.total(), self.quicksight.writes
        return self.outcome

    def _id(self, data_set: str | None = None) -> str:
        return self.name if data_set is None else f"{self.name}-{data_set}"

    def _step(self, what: str, action: str, detail: str = "") -> None:
        """Note what was done. `action`: unchanged, or the participle of a write."""
        if self.dry_run and action != UNCHANGED:
            action = f"to be {action}"
        step = Step(what, action, detail)
        self.outcome.steps.append(step)
        if action != UNCHANGED:
            self._tell(str(step))

    def _tags(self, arn: str, what: str) -> dict[str, str]:
        """The tags of a resource of this lake. Raises OtherLakeError if it is another lake's, or nobody's."""
        tags = self.quicksight.tags(arn, what)
        if tags.get(ROOT) != self.root:
            owner = f"belongs to the lake {tags[ROOT]}" if ROOT in tags else "was not made by this program"
            raise OtherLakeError(
                f"{what}: {arn.rpartition('/')[2]} exists in QuickSight and {owner}; set quicksight.name to another name, or "
                "delete it there"
            )
        return tags

    # Data source

    def _data_source(self) -> str:
        """Create or update the data source; return its ARN."""
        what, arn = "data source", self.quicksight.arn("datasource", self._id())
        place, request = {"DataSourceId": self._id()}, source_request(self.settings)
        digest = _digest(request)
        present = self.quicksight.find("describe_data_source", what, **place)
        if present is None and not self.dry_run:
            self._ensure_workgroup()
            tags = as_tags({ROOT: self.root, WRITTEN: digest})
            if self.quicksight.call("create_data_source", what, **place, Name=self.name, Tags=tags, **request):
                self._wait_for_source(place)
                self._step(what, "created")
            else:
                present = self.quicksight.find("describe_data_source", what, **place)
        elif present is None:
            self._step(what, "created")
        if present is not None:
            self._update_source(what, arn, place, request, digest, present["DataSource"])
        self._permissions(what, "data_source", place, {})
        return arn

    def _update_source(
        self,
        what: str,
        arn: str,
        place: Mapping[str, str],
        request: Mapping[str, Any],
        digest: str,
        present: Mapping[str, Any],
    ) -> None:
        if present.get("Type") != request["Type"]:
            raise QuickSightError(
                f"{what}: {self.name} reads from {present.get('Type')}, which QuickSight cannot change to {request['Type']}; set "
                f"quicksight.name to another name, or delete it: aws quicksight delete-data-source --aws-account-id "
                f"{self.quicksight.account} --data-source-id {self.name}"
            )
        has_failed = str(present.get("Status", "")).endswith("_FAILED")
        if self._tags(arn, what).get(WRITTEN) == digest and not has_failed:
            if str(present.get("Status", "")).endswith("_IN_PROGRESS") and not self.dry_run:
                self._wait_for_source(place)
            self._step(what, UNCHANGED)
            return
        if not self.dry_run:
            self._ensure_workgroup()
            members = {name: value for name, value in request.items() if name != "Type"}
            self.quicksight.call("update_data_source", what, **place, Name=self.name, **members)
            self._wait_for_source(place)
            self.quicksight.tag(arn, what, {WRITTEN: digest})
        self._step(what, "updated", "the last change of it had failed" if has_failed else "")

    def _ensure_workgroup(self) -> None:
        """Athena's workgroup exists, if the settings say enough to create it."""
        if self.wanted.source == "athena" and self.settings.aws.athena_results is not None:
            AthenaEngine(self.settings.aws, minutes=1.0).ensure_workgroup()

    def _wait_for_source(self, place: Mapping[str, str]) -> None:
        """Wait until the last change of the data source has ended. Raises FailedError, WaitError."""

        def ended() -> Mapping[str, Any] | None:
            found = self.quicksight.find("describe_data_source", "data source", **place)
            if found is None or str(found["DataSource"].get("Status", "")).endswith("_IN_PROGRESS"):
                return None
            return dict(found["DataSource"])

        source = wait(ended, RESOURCE_MINUTES, "data source")
        if str(source.get("Status", "")).endswith("_FAILED"):
            error = source.get("ErrorInfo", {})
            raise FailedError(
                f"data source: QuickSight cannot use it: {error.get('Type', 'no reason')}: {error.get('Message', '')}; allow "
                "QuickSight to read from it (docs/dashboards.md, QuickSight), then run again"
            )

    # Data sets

    def _data_set(self, data_set: DataSet, source: str, users: Sequence[str]) -> str:
        """Create or update a data set with its refreshes and its rows; return its ARN."""
        what, identifier = f"data set {data_set.name}", self._id(data_set.name)
        place, arn = {"DataSetId": identifier}, self.quicksight.arn("dataset", identifier)
        request = {"Name": identifier, **data_set.request(source)}
        digest = _digest(request)
        present = self.quicksight.find("describe_data_set", what, **place)
        tags: dict[str, str] = {}
        started: str | None = None  # the refresh that a creation or update starts
        is_written = True
        if present is None and not self.dry_run:
            tags = {ROOT: self.root, WRITTEN: digest}
            created = self.quicksight.call("create_data_set", what, **place, Tags=as_tags(tags), **request)
            if created:
                started = created.get("IngestionId")
                self._step(what, "created")
            else:
                present = self.quicksight.find("describe_data_set", what, **place)
        elif present is None:
            self._step(what, "created")
        if present is not None:
            tags = self._tags(arn, what)
            is_written = tags.get(WRITTEN) == digest
            if not is_written and not self.dry_run:
                started = self.quicksight.call("update_data_set", what, **place, **request).get("IngestionId")
            self._step(what, UNCHANGED if is_written else "updated")
        self._refresh_settings(data_set, what, place)
        self._permissions(what, "data_set", place, dict.fromkeys(users, USER_OF_DATA))
        # A data set that was changed has no rows that are known, until the tags say both.
        loaded = Loaded.of_tag(tags.get(ROWS)) if is_written else None
        rows = self._rows(data_set, what, place, loaded, started)
        if rows is not None and not self.dry_run:
            self.quicksight.tag(arn, what, {WRITTEN: digest, ROWS: rows.tag})
        return arn

    def _refresh_settings(self, data_set: DataSet, what: str, place: Mapping[str, str]) -> None:
        """The lookback window of incremental refreshes, and the daily full refresh, which also repairs what a run has missed."""
        find, call = self.quicksight.find, self.quicksight.call
        if data_set.window is not None:
            window = {"ColumnName": data_set.window, "Size": self.wanted.lookback_days, "SizeUnit": "DAY"}
            wanted = {"RefreshConfiguration": {"IncrementalRefresh": {"LookbackWindow": window}}}

            def is_set() -> bool:
                present = find("describe_data_set_refresh_properties", what, **place)
                return says((present or {}).get("DataSetRefreshProperties"), wanted)

            if not is_set():
                if not self.dry_run:
                    try:
                        call("put_data_set_refresh_properties", what, **place, DataSetRefreshProperties=wanted)
                    except QuickSightError:
                        # A call whose answer is lost is sent again, and then QuickSight refuses what is set already.
                        if not is_set():
                            raise
                self._step(f"{what}, lookback window", "set", f"{self.wanted.lookback_days} days")
        schedule = {
            "ScheduleId": SCHEDULE,
            "ScheduleFrequency": {
                "Interval": "DAILY",
                "Timezone": self.view.lake.options.calendar.time_zone,
                "TimeOfTheDay": self.wanted.refresh_time,
            },
            "RefreshType": "FULL_REFRESH",
        }
        present = find("describe_refresh_schedule", what, **place, ScheduleId=SCHEDULE)
        if not says((present or {}).get("RefreshSchedule"), schedule):
            if not self.dry_run:
                operation = "create_refresh_schedule" if present is None else "update_refresh_schedule"
                call(operation, what, **place, Schedule=schedule)
            self._step(f"{what}, schedule", "set", f"daily at {self.wanted.refresh_time}")

    # Rows

    def _rows(
        self, data_set: DataSet, what: str, place: Mapping[str, str], loaded: Loaded | None, started: str | None
    ) -> Loaded | None:
        """Refresh a data set if the lake has other rows; return what it has then, None if it was not refreshed.

        `started`: the refresh that is going on since the data set was created or updated.
        """
        now, days = self.clock(), self.wanted.lookback_days
        content = self.state.bars if data_set.name == DAILY else self.state.quality
        if started is not None:
            refresh: Refresh | None = Refresh("FULL_REFRESH", "the data set is new or was changed")
        else:
            refresh = needed(loaded, content, self.state, now, days)
            if refresh is not None and loaded is not None and data_set.window is None:
                refresh = Refresh("FULL_REFRESH", "rows have changed")
        rows = f"{what}, rows"
        if refresh is None:
            self._step(rows, UNCHANGED)
            return None
        action = "refreshed in full" if refresh.type == "FULL_REFRESH" else "refreshed incrementally"
        if self.dry_run:
            self._step(rows, action, refresh.reason)
            return None
        after = loaded_now(content, self.state, now, days)
        self._tell(f"{rows}: SPICE reads them ({refresh.reason})")
        done = ingestions.refresh(self.quicksight, rows, place, refresh.type, content, now, started)
        self._step(rows, action, f"{done.get('RowInfo', {}).get('RowsIngested', 0):,} rows, {refresh.reason}")
        return after

    # Dashboard

    def _dashboard(self, arns: Mapping[str, str], permissions: Permissions) -> None:
        what, place = "dashboard", {"DashboardId": self.name}
        request = {"Name": self.name, "Definition": self._definition(arns)}
        digest = _digest(request)
        new = {**request, "VersionDescription": digest, "ValidationStrategy": {"Mode": "STRICT"}}
        present = self.quicksight.find("describe_dashboard", what, **place)
        if present is None and not self.dry_run:
            if self.quicksight.call("create_dashboard", what, **place, **new, Tags=as_tags({ROOT: self.root})):
                self._wait_for_version(1)  # the first version is published by itself
                self._step(what, "created", "version 1 is published")
                self.outcome.version = 1
            else:
                present = self.quicksight.find("describe_dashboard", what, **place)
        elif present is None:
            self._step(what, "created")
        if present is not None:
            self._update_dashboard(place, new, digest, present["Dashboard"])
        self._permissions(what, "dashboard", place, permissions)

    def _update_dashboard(
        self, place: Mapping[str, str], new: Mapping[str, Any], digest: str, present: Mapping[str, Any]
    ) -> None:
        what = "dashboard"
        self._tags(str(present["Arn"]), what)
        published: Mapping[str, Any] = present["Version"]
        self.outcome.version = int(published["VersionNumber"])
        if published.get("Description") == digest and not _has_failed(published):
            if not self.dry_run:
                self._wait_for_version(self.outcome.version)  # a killed run may have left it in the making
            self._step(what, UNCHANGED)
            return
        if self.dry_run:
            self._step(what, "updated", "and published")
            return
        latest = self.quicksight.find("describe_dashboard", what, **place, AliasName="$LATEST")
        version = (latest or present)["Dashboard"]["Version"]
        number = int(version["VersionNumber"])
        if version.get("Description") != digest or _has_failed(version):
            answer = self.quicksight.call("update_dashboard", what, **place, **new)
            number = int(str(answer["VersionArn"]).rpartition("/")[2])
        # The version that is published stays in sight until this one is complete.
        self._wait_for_version(number)
        self.quicksight.call("update_dashboard_published_version", what, **place, VersionNumber=number)
        self.outcome.version = number
        self._step(what, "updated", f"version {number} is published")

    def _definition(self, arns: Mapping[str, str]) -> dict[str, Any]:
        held = self.view.ticker_years
        tickers = [ticker for ticker in self.view.lake.options.tickers if ticker in held] or list(held)
        last_year = max(last for _, last in held.values())
        since = datetime(last_year - YEARS_SHOWN, 1, 1, tzinfo=UTC)
        return definition(arns, tickers[:COMPARED_TICKERS], since, quality_kinds(self.settings))

    def _wait_for_version(self, number: int) -> None:
        """Wait until a version of the dashboard is complete. Raises FailedError, WaitError."""
        what = f"dashboard, version {number}"

        def ended() -> Mapping[str, Any] | None:
            found = self.quicksight.find("describe_dashboard", what, DashboardId=self.name, VersionNumber=number)
            version: Mapping[str, Any] = {} if found is None else found["Dashboard"]["Version"]
            return version if str(version.get("Status", "")).endswith(("_SUCCESSFUL", "_FAILED")) else None

        version = wait(ended, RESOURCE_MINUTES, what)
        if _has_failed(version):
            errors = "; ".join(
                f"{error.get('Type')}: {error.get('Message')}"
                + "".join(f" ({entity['Path']})" for entity in error.get("ViolatedEntities", []))
                for error in version.get("Errors", [])
            )
            raise FailedError(
                f"{what}: QuickSight refused the definition: {errors or 'no reason'}; the version before stays published. Report "
                "this as a defect"
            )

    # Permissions

    def _permissions(self, what: str, kind: str, place: Mapping[str, str], wanted: Permissions) -> None:
        """Grant and revoke so that exactly `wanted` is allowed, and no link opens a dashboard to others."""
        what = f"{what}, permissions"
        answer = self.quicksight.find(f"describe_{kind}_permissions", what, **place) or {}
        grants, revokes = differences(allowed(answer), wanted)
        links = allowed(answer.get("LinkSharingConfiguration", {}))
        for member, action, changes in (
            ("GrantPermissions", "granted", grants),
            ("RevokePermissions", "revoked", revokes),
            ("RevokeLinkPermissions", "revoked the link", links),
        ):
            if changes:
                for part in parts(entries(changes)) if not self.dry_run else ():
                    self.quicksight.call(f"update_{kind}_permissions", what, **place, **{member: part})
                self._step(what, action, short(changes))


def _has_failed(version: Mapping[str, Any]) -> bool:
    return str(version.get("Status", "")).endswith("_FAILED")


def _digest(request: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True, default=str).encode()).hexdigest()[:DIGEST_LENGTH]
