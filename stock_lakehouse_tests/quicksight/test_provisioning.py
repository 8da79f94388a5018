"""QuickSight is brought to what the lake has: first, again, after changes, kills, lost answers and errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse import aws
from stock_lakehouse.dashboards.quicksight import client as quicksight_client
from stock_lakehouse.dashboards.quicksight import definition as quicksight_definition
from stock_lakehouse.dashboards.quicksight import ingestions, provisioning
from stock_lakehouse.dashboards.quicksight.client import (
    EditionError,
    FailedError,
    IngestionError,
    OtherLakeError,
    PrincipalError,
    QuickSight,
    QuickSightError,
    WaitError,
)
from stock_lakehouse.dashboards.quicksight.data_sets import data_sets
from stock_lakehouse.dashboards.quicksight.provisioning import source_request
from stock_lakehouse.settings import Redshift
from stock_lakehouse.sql.engine import PermissionMissingError
from stock_lakehouse_tests import quicksight_server
from stock_lakehouse_tests.aws_model import faults
from stock_lakehouse_tests.graph import edited
from stock_lakehouse_tests.quicksight.conftest import BARS, NEXT_DAY, NOW, Place
from stock_lakehouse_tests.quicksight_server import PREFIX, WRITES

pytestmark = pytest.mark.slow
READER = {"quicksight:DescribeDashboard", "quicksight:ListDashboardVersions", "quicksight:QueryDashboard"}
SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:redshift"


def actions(outcome: provisioning.Outcome) -> dict[str, str]:
    """What was done with each thing that was not found as it should be."""
    return {step.what: step.action for step in outcome.steps if step.action != "unchanged"}


def state(account: quicksight_server.Account) -> Any:
    """What an account has, without identifiers and times of refreshes, and without superseded versions."""

    def rows(found: list[Any]) -> list[str]:
        return sorted(json.dumps(row, default=str, sort_keys=True) for row in found)

    return {
        "sources": {
            name: (source.request, source.permissions, source.tags, source.status.partition("_")[2])
            for name, source in account.sources.items()
        },
        "sets": {
            name: (each.request, each.permissions, each.tags, each.properties, each.schedules, rows(each.spice))
            for name, each in account.sets.items()
        },
        "dashboards": {
            name: (
                each.versions[each.published]["definition"],
                each.versions[each.published]["Status"],
                each.permissions,
                each.tags,
            )
            for name, each in account.dashboards.items()
        },
    }


def assert_spice_is_the_lake(place: Place) -> None:
    for data_set in data_sets(place.settings):
        held = place.account.sets[f"stock-lakehouse-{data_set.name}"].spice

        def key(row: Any) -> str:
            return json.dumps(row, default=str)

        assert sorted(held, key=key) == sorted(place.rows(data_set.sql), key=key)


# The first run, and those after it


def test_the_first_run_creates_all_and_the_second_writes_nothing(place: Place) -> None:
    first = place.provision()
    assert [str(step) for step in first.steps] == [
        "data source: created",
        "data set daily: created",
        "data set daily, lookback window: set; 30 days",
        "data set daily, schedule: set; daily at 22:00",
        "data set daily, permissions: granted; user/default/ana",
        "data set daily, rows: refreshed in full; 458 rows, the data set is new or was changed",
        "data set quality: created",
        "data set quality, schedule: set; daily at 22:00",
        "data set quality, permissions: granted; user/default/ana",
        "data set quality, rows: refreshed in full; 9 rows, the data set is new or was changed",
        "dashboard: created; version 1 is published",
        "dashboard, permissions: granted; group/default/analysts, user/default/ben, user/default/ana",
    ]
    assert (first.version, first.changed, first.writes) == (1, True, len(place.account.writes))
    assert_spice_is_the_lake(place)
    account = place.account
    daily = account.sets["stock-lakehouse-daily"]
    assert daily.schedules == {
        "daily": {
            "ScheduleId": "daily",
            "ScheduleFrequency": {"Interval": "DAILY", "Timezone": "America/New_York", "TimeOfTheDay": "22:00"},
            "RefreshType": "FULL_REFRESH",
        }
    }
    assert account.sources["stock-lakehouse"].request["DataSourceParameters"] == {
        "AthenaParameters": {"WorkGroup": "lakehouse"}
    }
    permissions = account.dashboards["stock-lakehouse"].permissions
    assert permissions[f"{PREFIX}:group/default/analysts"] == permissions[f"{PREFIX}:user/default/ben"] == READER
    assert permissions[f"{PREFIX}:user/default/ana"] > READER
    assert account.sources["stock-lakehouse"].permissions == {}
    # The definition shows the tickers of the settings, and two years before that of the last session.
    parameters = account.dashboards["stock-lakehouse"].versions[1]["definition"]["ParameterDeclarations"]
    defaults = [next(iter(each.values()))["DefaultValues"]["StaticValues"] for each in parameters]
    assert defaults[:2] == [["BF.B"], ["BF.B", "BRK-B", "C=F"]]
    assert str(defaults[2][0]) == "2018-01-01 00:00:00+00:00"

    before, written = state(account), len(account.writes)
    second = place.provision()
    assert (actions(second), second.changed, second.writes, second.version) == ({}, False, 0, 1)
    assert len(account.writes) == written
    assert state(account) == before


def test_a_changed_chart_is_one_update_and_one_publication(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.provision()
    written = len(place.account.writes)
    [first, *others] = quicksight_definition.PANES
    monkeypatch.setattr(quicksight_definition, "PANES", (replace(first, title="Prices"), *others))
    outcome = place.provision()
    assert place.account.writes[written:] == ["UpdateDashboard", "UpdateDashboardPublishedVersion"]
    assert (actions(outcome), outcome.version) == ({"dashboard": "updated"}, 2)
    assert place.account.dashboards["stock-lakehouse"].published == 2
    assert place.provision().writes == 0


def test_changed_settings_are_written_where_they_count(place: Place) -> None:
    place.provision()
    written = len(place.account.writes)
    place.changed(lookback_days=60, refresh_time="23:30")
    assert place.provision().changed
    assert place.account.writes[written:] == [
        "PutDataSetRefreshProperties",
        "UpdateRefreshSchedule",
        "UpdateRefreshSchedule",
    ]
    written = len(place.account.writes)
    place.changed(role="arn:aws:iam::123456789012:role/reader")
    assert actions(place.provision()) == {"data source": "updated"}
    assert place.account.writes[written:] == ["UpdateDataSource", "TagResource"]
    assert place.provision().writes == 0


@pytest.mark.soak
def test_rows_are_read_again_in_the_lookback_window_or_all_and_are_those_of_the_lake(
    place: Place, spark: SparkSession
) -> None:
    place.provision()
    kinds: list[str] = []

    def provisioned() -> str:
        outcome = place.provision()
        assert_spice_is_the_lake(place)
        assert place.provision().writes == 0
        kinds.append(actions(outcome)["data set daily, rows"])
        return kinds[-1]

    # A new session, and a bar of the window that changes.
    new = {key: bar for key, bar in BARS.items() if key[1] in NEXT_DAY}
    corrected = ("C=F", NEXT_DAY[0] - timedelta(days=3))
    new[corrected] = edited(BARS, corrected, close=BARS[corrected]["open"])[corrected]
    place.deliver(spark, new, (corrected[1], *NEXT_DAY), "22222222-run")
    place.now = NOW + timedelta(days=1)
    assert provisioned() == "refreshed incrementally"
    # A bar of a year that is over.
    old = ("BF.B", min(day for _, day in BARS))
    place.deliver(spark, {old: edited(BARS, old, close=BARS[old]["open"])[old]}, (old[1],), "33333333-run")
    assert provisioned() == "refreshed in full"
    # A new bar, but the last refresh was three weeks ago.
    again = {corrected: BARS[corrected]}
    place.deliver(spark, again, (corrected[1],), "44444444-run")
    place.now += timedelta(days=21)
    assert provisioned() == "refreshed in full"
    types = [each["RequestType"] for each in place.account.sets["stock-lakehouse-daily"].ingestions.values()]
    assert types == ["INITIAL_INGESTION", "INCREMENTAL_REFRESH", "FULL_REFRESH", "FULL_REFRESH"]


# Kills and lost answers


class KilledError(BaseException):
    """The process was killed; nothing catches it."""


@contextmanager
def killed_at(place: Place, write: int, *, answered: bool) -> Iterator[None]:
    """Whoever writes is killed at the n-th write: before it is sent, or once it has been answered."""
    events, seen = place.clients["quicksight"].meta.events, 0

    def before(model: Any, **_: Any) -> None:
        nonlocal seen
        if model.name.startswith(WRITES):
            seen += 1
            if seen == write and not answered:
                raise KilledError
            assert seen <= write, "wrote after it was killed"

    def after(model: Any, **_: Any) -> None:
        if model.name.startswith(WRITES) and seen == write and answered:
            raise KilledError

    events.register("before-call.quicksight", before)
    events.register("after-call.quicksight", after)
    try:
        with pytest.raises(KilledError):
            yield
    finally:
        events.unregister("before-call.quicksight", before)
        events.unregister("after-call.quicksight", after)


# Of source and dashboard, and of each data set, by the tests that count them.
FIRST_WRITES, CHANGING_WRITES = 12, 12


def test_a_first_run_has_so_many_writes(place: Place) -> None:
    place.provision()
    assert len(place.account.writes) == FIRST_WRITES


@pytest.mark.slice(4)
@pytest.mark.parametrize("answered", [False, True], ids=["unsent", "answered"])
@pytest.mark.parametrize("write", range(1, FIRST_WRITES + 1))
def test_a_first_run_that_is_killed_at_a_write_is_completed_by_the_next(
    place: Place, write: int, answered: bool
) -> None:
    with killed_at(place, write, answered=answered):
        place.provision()
    assert place.provision().version == 1
    assert place.provision().writes == 0
    assert_spice_is_the_lake(place)
    found, place.account.sources, place.account.sets, place.account.dashboards = state(place.account), {}, {}, {}
    place.provision()
    assert found == state(place.account)


@pytest.mark.slice(3)
@pytest.mark.parametrize("answered", [False, True], ids=["unsent", "answered"])
@pytest.mark.parametrize("write", range(1, CHANGING_WRITES + 1))
def test_a_changing_run_that_is_killed_at_a_write_is_completed_by_the_next(
    place: Place, write: int, answered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another role, another author, another description of a column, another chart."""
    place.provision()
    written = len(place.account.writes)
    place.changed(role="arn:aws:iam::123456789012:role/reader", authors=("user cleo",))
    [first, *others] = quicksight_definition.PANES
    monkeypatch.setattr(quicksight_definition, "PANES", (replace(first, title="Prices"), *others))
    original = provisioning.data_sets

    def described(groups: Any) -> Any:
        daily, quality = original(groups)
        [field, *fields] = daily.fields
        return replace(daily, fields=[replace(field, description="The symbol"), *fields]), quality

    monkeypatch.setattr(provisioning, "data_sets", described)
    with killed_at(place, write, answered=answered):
        place.provision()
    assert place.provision().changed == (not (write == CHANGING_WRITES and answered))
    assert place.provision().writes == 0
    assert len(place.account.writes) > written
    assert_spice_is_the_lake(place)
    dashboard = place.account.dashboards["stock-lakehouse"]
    assert visual_title(dashboard.versions[dashboard.published]["definition"]) == "Prices"
    # A version that was made before the kill is published, and not made again.
    assert len(dashboard.versions) == 2
    assert set(place.account.sets["stock-lakehouse-daily"].permissions) == {f"{PREFIX}:user/default/cleo"}


def visual_title(definition: Any) -> str:
    [members] = definition["Sheets"][0]["Visuals"][0].values()
    return str(members["Title"]["FormatText"]["PlainText"])


@pytest.mark.slice(3)
@pytest.mark.parametrize(
    "operation",
    [
        "CreateDataSource",
        "CreateDataSet",
        "PutDataSetRefreshProperties",
        "CreateRefreshSchedule",
        "UpdateDataSetPermissions",
        "TagResource",
        "CreateDashboard",
        "UpdateDashboardPermissions",
    ],
)
def test_a_write_whose_answer_is_lost_is_repeated_to_the_same_end(place: Place, operation: str) -> None:
    place.account.faults.unanswered.add(operation)
    assert place.provision().version == 1
    assert place.account.faults.unanswered == set()
    assert place.provision().writes == 0
    assert_spice_is_the_lake(place)


def test_a_refresh_whose_answer_is_lost_is_waited_for(place: Place) -> None:
    place.provision()
    place.move_on()
    place.account.faults.unanswered.add("CreateIngestion")
    place.provision()
    assert len(place.account.sets["stock-lakehouse-daily"].ingestions) == 2
    assert_spice_is_the_lake(place)


def test_a_refresh_that_a_killed_run_started_is_taken_up(place: Place) -> None:
    place.provision()
    place.move_on()
    with killed_at(place, 1, answered=True):
        place.provision()
    place.provision()
    assert len(place.account.sets["stock-lakehouse-daily"].ingestions) == 2
    assert_spice_is_the_lake(place)


# Permissions


def test_exactly_the_named_principals_may_use_it_and_others_are_revoked(place: Place) -> None:
    place.provision()
    account = place.account
    dashboard, daily = account.dashboards["stock-lakehouse"], account.sets["stock-lakehouse-daily"]
    traders, cleo = f"{PREFIX}:group/default/traders", f"{PREFIX}:user/default/cleo"
    dashboard.permissions[traders] = set(READER)
    daily.permissions[cleo] = {"quicksight:DescribeDataSet"}
    account.sources["stock-lakehouse"].permissions[cleo] = {"quicksight:PassDataSource"}
    dashboard.links[f"{PREFIX}:namespace/default"] = set(READER)
    place.changed(
        authors=(), readers=("user ana", "group analysts")
    )  # ana may no more change it, and ben no more look at it

    planned = [str(step) for step in place.provision(dry_run=True).steps if step.action != "unchanged"]
    assert planned == [
        "data source, permissions: to be revoked; user/default/cleo",
        "data set daily, permissions: to be revoked; user/default/ana, user/default/cleo",
        "data set quality, permissions: to be revoked; user/default/ana",
        "dashboard, permissions: to be revoked; user/default/ben, user/default/ana, group/default/traders",
        "dashboard, permissions: to be revoked the link; namespace/default",
    ]
    assert traders in dashboard.permissions
    place.provision()
    assert dashboard.permissions == {f"{PREFIX}:user/default/ana": READER, f"{PREFIX}:group/default/analysts": READER}
    assert (daily.permissions, account.sources["stock-lakehouse"].permissions, dashboard.links) == ({}, {}, {})
    assert place.provision().writes == 0


def test_hundreds_of_readers_are_granted_in_calls_that_quicksight_takes(place: Place) -> None:
    names = [f"reader{number}" for number in range(120)]
    place.account.users.update(names)
    place.changed(readers=tuple(f"user {name}" for name in names))
    place.provision()
    assert len(place.account.dashboards["stock-lakehouse"].permissions) == 121
    assert place.account.calls["UpdateDashboardPermissions"] == 3


def test_users_are_looked_up_in_the_region_that_has_them(place: Place) -> None:
    place.account.faults.identity_region = "eu-west-1"
    place.provision()
    permissions = place.account.dashboards["stock-lakehouse"].permissions
    assert {principal.split(":")[3] for principal in permissions} == {"eu-west-1"}
    assert place.account.dashboards["stock-lakehouse"].arn.split(":")[3] == "us-east-1"


# A dry run


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(place: Place) -> None:
    outcome = place.provision(dry_run=True)
    assert [str(step) for step in outcome.steps] == [
        "data source: to be created",
        "data set daily: to be created",
        "data set daily, lookback window: to be set; 30 days",
        "data set daily, schedule: to be set; daily at 22:00",
        "data set daily, permissions: to be granted; user/default/ana",
        "data set daily, rows: to be refreshed in full; nothing is known to be loaded",
        "data set quality: to be created",
        "data set quality, schedule: to be set; daily at 22:00",
        "data set quality, permissions: to be granted; user/default/ana",
        "data set quality, rows: to be refreshed in full; nothing is known to be loaded",
        "dashboard: to be created",
        "dashboard, permissions: to be granted; group/default/analysts, user/default/ben, user/default/ana",
    ]
    assert (outcome.writes, place.account.writes, outcome.changed) == (0, [], True)
    place.provision()
    written = len(place.account.writes)
    assert not place.provision(dry_run=True).changed
    place.changed(role="arn:aws:iam::123456789012:role/reader")
    assert actions(place.provision(dry_run=True)) == {"data source": "to be updated"}
    assert len(place.account.writes) == written


# Errors


def refused(place: Place, error: type[Exception], *words: str) -> None:
    with pytest.raises(error) as raised:
        place.provision()
    for word in words:
        assert word in str(raised.value), str(raised.value)


def impatient(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are tried twice, and not for a minute."""
    monkeypatch.setattr(aws, "ATTEMPTS", 2)
    place.clients = {service: aws.client(service) for service in place.clients}


def test_an_account_without_the_enterprise_edition_is_told_what_to_do(place: Place) -> None:
    place.account.faults.edition = "STANDARD"
    refused(place, EditionError, "Standard edition", "upgrade it to Enterprise")
    place.account.faults.edition = "none"
    refused(place, EditionError, "account 123456789012 has no subscription")
    # Without the right to ask for the edition, the first call of a dashboard tells it.
    place.account.faults.edition, place.account.faults.denied = "STANDARD", frozenset({"DescribeAccountSubscription"})
    refused(place, EditionError, "dashboard: the QuickSight account is of the Standard edition", "DescribeDashboard")


def test_a_reader_who_does_not_exist_is_named_before_anything_is_written(place: Place) -> None:
    place.changed(readers=("user zoe", "group analysts", "group nobody"))
    refused(place, PrincipalError, "no user zoe", "no group nobody", "namespace default")
    assert place.account.writes == []


@pytest.mark.slice(3)
@pytest.mark.parametrize(
    ("operation", "what"),
    [
        ("DescribeUser", "user ben"),
        ("CreateDataSource", "data source"),
        ("CreateDataSet", "data set daily"),
        ("PutDataSetRefreshProperties", "data set daily"),
        ("DescribeIngestion", "data set daily, rows"),
        ("UpdateDataSetPermissions", "data set daily, permissions"),
        ("CreateDashboard", "dashboard"),
        ("TagResource", "data set daily"),
    ],
)
def test_a_missing_right_is_named_with_what_was_worked_on(place: Place, operation: str, what: str) -> None:
    place.account.faults.denied = frozenset({operation})
    refused(place, PermissionMissingError, f"{what}: these credentials lack quicksight:{operation}")
    place.account.faults.denied = frozenset()
    assert place.provision().version == 1
    assert_spice_is_the_lake(place)


def test_a_name_that_another_lake_or_nobody_has_is_not_touched(place: Place) -> None:
    place.provision()
    before = state(place.account)
    tags = place.account.sources["stock-lakehouse"].tags
    mine = tags["lakehouse-root"]
    tags["lakehouse-root"] = "s3://other/lake"
    refused(place, OtherLakeError, "stock-lakehouse exists", "belongs to the lake s3://other/lake", "quicksight.name")
    del tags["lakehouse-root"]
    refused(place, OtherLakeError, "was not made by this program")
    tags["lakehouse-root"] = mine
    assert state(place.account) == before
    place.changed(name="second")
    place.provision()
    assert place.account.dashboards.keys() == {"stock-lakehouse", "second"}


def test_throttling_and_other_changes_are_waited_for_with_a_bound(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.account.faults.throttled = 2
    place.account.faults.conflicts = 3
    assert place.provision().version == 1
    impatient(place, monkeypatch)
    place.account.faults.throttled = 100
    refused(place, QuickSightError, "AWS throttled DescribeAccountSubscription 2 times", "run again later")
    place.account.faults.throttled = 0
    monkeypatch.setattr(quicksight_client, "CONFLICT_MINUTES", 0.0002)
    place.changed(readers=("user ben",))
    place.account.faults.conflicts = 100
    refused(place, QuickSightError, "another change of it has not ended in 0.0002 minutes")


def test_an_internal_failure_of_any_call_is_survived(place: Place) -> None:
    place.provision()
    calls = len(place.account.requests)
    place.account.requests.clear()
    place.account.sources, place.account.sets, place.account.dashboards = {}, {}, {}
    original: Callable[..., Any] = place.account.answer
    failed: set[str] = set()

    def answer(operation: str, request: dict[str, Any], region: str) -> Any:
        if operation not in failed:
            failed.add(operation)
            raise quicksight_server.RefusedError("InternalFailureException", "An internal failure occurred.")
        return original(operation, request, region)

    place.account.answer = answer  # type: ignore[method-assign]
    assert place.provision().version == 1
    assert len(failed) >= 20
    assert len(place.account.requests) == calls


def test_a_version_that_quicksight_refuses_is_told_and_the_one_before_stays_published(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.provision()
    [first, *others] = quicksight_definition.PANES
    monkeypatch.setattr(quicksight_definition, "PANES", (replace(first, title="Prices"), *others))
    place.account.faults.version = "of the test"
    refused(
        place, FailedError, "dashboard, version 2", "INTERNAL_FAILURE: of the test (sheet/ticker)", "stays published"
    )
    dashboard = place.account.dashboards["stock-lakehouse"]
    assert dashboard.published == 1
    place.provision()
    assert (dashboard.published, len(dashboard.versions)) == (3, 3)


def test_a_first_version_that_fails_is_followed_by_another(place: Place) -> None:
    place.account.faults.version = "of the test"
    refused(place, FailedError, "dashboard, version 1")
    assert place.provision().version == 2
    assert place.provision().writes == 0


def test_a_data_source_that_cannot_be_used_is_told_and_tried_again(place: Place) -> None:
    place.account.faults.source = "no right to read"
    refused(place, FailedError, "data source: QuickSight cannot use it", "no right to read")
    assert actions(place.provision())["data source"] == "updated"
    assert place.provision().writes == 0


@pytest.mark.slice(2)
@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("SQL_TABLE_NOT_FOUND", "materialize --select catalog"),
        ("PERMISSION_DENIED", "allow QuickSight's role to read"),
        ("SOURCE_RESOURCE_LIMIT_EXCEEDED", "raise aws.athena_scan_limit_mb"),
        ("QUERY_TIMEOUT", "run again when that is repaired"),
    ],
)
def test_a_failed_refresh_is_told_with_what_to_do(place: Place, error: str, advice: str) -> None:
    place.account.faults.ingestions = [error]
    refused(place, IngestionError, "data set daily, rows", error, "of the test", advice)
    assert place.provision().version == 1
    assert_spice_is_the_lake(place)


def test_rows_that_spice_drops_are_an_error(place: Place) -> None:
    place.account.faults.dropped = 3
    refused(place, IngestionError, "SPICE dropped 3 of 458 rows")


def test_a_refresh_that_another_supersedes_is_waited_for(place: Place) -> None:
    place.account.faults.ingestions = ["INGESTION_SUPERSEDED"]
    assert place.provision().version == 1
    assert_spice_is_the_lake(place)
    assert len(place.account.sets["stock-lakehouse-daily"].ingestions) == 2
    assert place.account.calls["CreateIngestion"] == 0


def test_a_full_refresh_that_an_incremental_one_supersedes_is_started_again(place: Place) -> None:
    place.account.faults.ingestions = ["SUPERSEDED_BY_LESS"]
    assert place.provision().version == 1
    assert_spice_is_the_lake(place)
    types = [each["RequestType"] for each in place.account.sets["stock-lakehouse-daily"].ingestions.values()]
    assert types == ["INITIAL_INGESTION", "INCREMENTAL_REFRESH", "FULL_REFRESH"]


def test_a_refresh_that_others_supersede_again_and_again_ends_with_an_error(place: Place) -> None:
    place.account.faults.ingestions = ["INGESTION_SUPERSEDED"] * 10
    refused(place, IngestionError, "other refreshes superseded it 3 times")


def test_more_refreshes_than_quicksight_allows_a_day_are_an_error(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.provision()
    impatient(place, monkeypatch)  # boto3 repeats a call that a limit refuses
    daily = place.account.sets["stock-lakehouse-daily"]
    [automatic] = daily.ingestions.values()
    for number in range(32):
        daily.ingestions[f"mine-{number}"] = {**automatic, "IngestionId": f"mine-{number}"}
    place.move_on()
    refused(place, QuickSightError, "data set daily, rows: a limit of QuickSight is reached", "32 ingestions")


def test_a_wait_has_a_bound_and_the_next_run_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.account.faults.looks = 10**6
    monkeypatch.setattr(provisioning, "RESOURCE_MINUTES", 0.001)
    refused(place, WaitError, "data source: QuickSight was still at work after 0.001 minutes", "quicksight` later")
    place.account.sources["stock-lakehouse"].looks = 0
    monkeypatch.setattr(ingestions, "MINUTES", 0.001)
    refused(place, WaitError, "data set daily, rows")
    place.account.faults.looks = 0
    for each in place.account.sets["stock-lakehouse-daily"].ingestions.values():
        each["looks"] = 0
    assert place.provision().version == 1
    assert_spice_is_the_lake(place)


def test_a_lake_without_bars_is_told(place: Place) -> None:
    from stock_lakehouse.dashboards.view import View
    from stock_lakehouse.lake import Lake

    empty = View(Lake(place.settings.lake_options.model_copy(update={"lake_root": place.lake.root / "empty"})))  # type: ignore[operator]
    with pytest.raises(QuickSightError, match="the lake has no bars"):
        provisioning.provision(place.settings, empty, QuickSight())
    assert place.account.requests == []


def test_without_a_region_a_line_says_what_to_set(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(place.lake.root))
    with pytest.raises(QuickSightError, match="set AWS_REGION"):
        QuickSight()


# Redshift as the source


@pytest.mark.parametrize(
    ("redshift", "quicksight", "parameters", "credentials"),
    [
        (
            {"workgroup": "stocks", "database": "dev"},
            {"secret": SECRET, "vpc_connection": f"{PREFIX}:vpcConnection/private"},
            {
                "Host": "stocks.123456789012.us-east-1.redshift-serverless.amazonaws.com",
                "Port": 5439,
                "Database": "dev",
            },
            {"SecretArn": SECRET},
        ),
        (
            {"cluster": "stocks", "database": "dev", "db_user": "reader"},
            {"role": "arn:aws:iam::123456789012:role/reader"},
            {
                "ClusterId": "stocks",
                "Database": "dev",
                "IAMParameters": {"RoleArn": "arn:aws:iam::123456789012:role/reader", "DatabaseUser": "reader"},
            },
            None,
        ),
    ],
    ids=["workgroup", "cluster"],
)
def test_redshift_is_a_source_too(
    place: Place, redshift: Any, quicksight: Any, parameters: Any, credentials: Any
) -> None:
    place.changed(source="redshift", **quicksight)
    place.settings = place.settings.model_copy(update={"redshift": Redshift(**redshift)})
    request = source_request(place.settings)
    assert request["DataSourceParameters"] == {"RedshiftParameters": parameters}
    assert request.get("Credentials") == credentials
    place.account.rows = None  # its SQL is Redshift's
    place.provision()
    [table] = place.account.sets["stock-lakehouse-daily"].request["PhysicalTableMap"].values()
    assert 'FROM "stocks".prices_with_features' in table["CustomSql"]["SqlQuery"]
    assert place.provision().writes == 0
    place.changed(source="athena")
    refused(place, QuickSightError, "reads from REDSHIFT, which QuickSight cannot change to ATHENA")


def test_the_requests_of_a_data_source_are_those_of_the_model(place: Place) -> None:
    members = {"AwsAccountId": "123456789012", "DataSourceId": "a", "Name": "a"}
    assert faults("quicksight", "CreateDataSource", {**members, **source_request(place.settings)}) == []
