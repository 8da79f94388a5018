"""What is rendered is what graph and settings give, names nothing of an account, and follows the graph."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from stock_lakehouse import definitions
from stock_lakehouse.automation.jobs import GROUP, LAYER_TAG, SERVING_LAYER
from stock_lakehouse.cli import app
from stock_lakehouse.deployment import places, rights
from stock_lakehouse.deployment.places import Places
from stock_lakehouse.deployment.policies import LIMIT, LONGEST, Names, policies_of, size
from stock_lakehouse.deployment.render import BUNDLE, differences, rendered, write
from stock_lakehouse.deployment.rights import DeploymentError, Role, joined, roles
from stock_lakehouse.resources.query import QueryResource
from stock_lakehouse.resources.stream import StreamResource
from stock_lakehouse.settings import CONFIG_VARIABLE, Settings
from stock_lakehouse.tables import CURATED, FEATURES, LIVE_FEATURES, STREAM_TABLES, TABLES, Table
from stock_lakehouse_tests.deployment.matrix import documented
from stock_lakehouse_tests.deployment.role_tables import DOCUMENT, OVERVIEW, written
from stock_lakehouse_tests.deployment.stacks import CONFIG, full, least

DEPLOY = CONFIG.parent
# Names that belong to an account: in a rendered file each is a parameter.
OF_AN_ACCOUNT = re.compile(r"\b\d{12}\b|s3://[a-z0-9]|\b(?:eu|us|ap|sa|ca|me|af)-[a-z]+-\d\b|arn:aws:")


@cache
def found() -> Mapping[str, Role]:
    """The roles of deploy/, for tests that leave the graph as it is."""
    return roles(full())


@cache
def files() -> dict[str, str]:
    return rendered(full(), found())


def test_the_committed_files_are_what_the_graph_gives() -> None:
    assert differences(files(), DEPLOY) == [], "run `stock-lakehouse deploy render`"


def test_no_rendered_file_names_an_account_a_region_or_a_bucket() -> None:
    named = {path: OF_AN_ACCOUNT.findall(text) for path, text in files().items()}
    assert {path: found for path, found in named.items() if found} == {}


def test_a_second_rendering_writes_nothing_and_what_is_not_rendered_any_more_is_removed(tmp_path: Path) -> None:
    assert sorted(write(files(), tmp_path)) == sorted(files())
    assert write(files(), tmp_path) == []
    fewer = rendered(least())
    gone = {path for path in files() if path not in fewer}
    assert {BUNDLE, "policies/stream-write.json", "policies/job-read.json"} <= gone
    assert gone <= set(write(fewer, tmp_path))
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")} == set(fewer)


def test_a_databricks_yml_of_somebody_else_stays(tmp_path: Path) -> None:
    (tmp_path / BUNDLE).write_text("bundle: {name: theirs}\n", encoding="utf-8")
    write(rendered(least()), tmp_path)
    assert (tmp_path / BUNDLE).read_text(encoding="utf-8") == "bundle: {name: theirs}\n"


def test_the_program_says_which_file_differs_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(CONFIG))
    write(files(), tmp_path)
    clean = CliRunner().invoke(app, ["deploy", "render", "--check", "--folder", str(tmp_path)])
    assert clean.exit_code == 0, clean.output
    policy = tmp_path / "policies" / "reader-read.json"
    policy.write_text(policy.read_text(encoding="utf-8").replace("s3:GetObject", "s3:*"), encoding="utf-8")
    stale = CliRunner().invoke(app, ["deploy", "render", "--check", "--folder", str(tmp_path)])
    assert stale.exit_code == 1
    assert "reader-read.json: differs" in stale.output.replace("\n", "")
    assert "stock-lakehouse deploy render" in stale.output
    checked = CliRunner().invoke(app, ["deploy", "check", "--json", "--folder", str(tmp_path)])
    assert checked.exit_code == 1
    states = {line["what"]: line for line in json.loads(checked.output)}
    assert states.pop("drift")["state"] == "broken"
    assert {line["state"] for line in states.values()} == {"ok"}
    CliRunner().invoke(app, ["deploy", "render", "--folder", str(tmp_path)])
    again = CliRunner().invoke(app, ["deploy", "check", "--folder", str(tmp_path)])
    assert again.exit_code == 0, again.output


def test_each_policy_fits_with_the_longest_names() -> None:
    assert (len(LONGEST.bucket), len(LONGEST.prefix)) == (63, 48)
    sizes = {
        f"{role.name}-{part}": size(policy)
        for role in found().values()
        for part, policy in policies_of(role, LONGEST).items()
    }
    assert max(sizes.values()) <= LIMIT
    assert all(len(policies_of(role)) <= 10 for role in found().values()), "IAM attaches ten policies to a role"


def test_a_lake_at_the_root_of_its_bucket_has_its_folders_there() -> None:
    names = Names("aws", "eu-central-1", "111122223333", "all-mine", "", "arn:aws:kms:eu-central-1:111122223333:key/1")
    reader = policies_of(roles(least())["reader"], names)
    assert "arn:aws:s3:::all-mine/curated/stocks_daily/*" in reader["read"]["Statement"][0]["Resource"]
    assert "curated/stocks_daily/*" in reader["list"]["Statement"][0]["Condition"]["StringLike"]["s3:prefix"]


def test_services_that_the_settings_do_not_use_have_neither_roles_nor_rights() -> None:
    fewest = roles(least())
    assert fewest.keys() == {"run", "upkeep", "repair", "dagster", "reader"}
    assert {right.sid for role in fewest.values() for right in role.services} == {
        "StartRuns", "FollowRuns", "RunTaskDefinition", "RunRoles",
    }  # fmt: skip
    assert {"crawler", "spectrum", "quicksight", "stream", "job", "run-jobs"} <= found().keys()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"lake_root": "folder"}, "lake_root: folder is a folder"),
        (
            {"lake_root": "s3://bucket/lake", "catalog": "glue", "query_engine": "athena", "aws": {"athena_results": "s3://bucket/results"}},
            "aws.athena_results: no role may write to s3://bucket/results",
        ),
        (
            {"lake_root": "s3://bucket/lake", "engine": "databricks", "databricks": {"cluster_id": "c", "messages": "s3://m"}},
            "databricks.messages: Dagster writes to the root of s3://m",
        ),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_deployed_are_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(DeploymentError, match=re.escape(named)):
        roles(Settings(**settings))


def added(monkeypatch: pytest.MonkeyPatch, asset: dg.AssetsDefinition) -> None:
    """The graph has `asset`, too."""
    all_assets: Callable[..., Sequence[dg.AssetsDefinition]] = definitions.all_assets
    monkeypatch.setattr(definitions, "all_assets", lambda *given: [*all_assets(*given), asset])


def with_rule(monkeypatch: pytest.MonkeyPatch, name: str, rule: Places) -> None:
    """The asset `name`, which has no table, touches `rule`."""
    known = places.beside_tables
    monkeypatch.setattr(places, "beside_tables", lambda settings: {**known(settings), name: rule})


def changed(before: Mapping[str, Role]) -> set[str]:
    """The names of the roles that are others now."""
    after = roles(full())
    return {name for name in after.keys() | before.keys() if after.get(name) != before.get(name)}


def of_lake(name: str, deps: Sequence[str]) -> dg.AssetsDefinition:
    @dg.asset(name=name, deps=list(deps), group_name=GROUP, tags={LAYER_TAG: SERVING_LAYER})
    def asset() -> None: ...

    return asset


def test_an_asset_of_the_lake_changes_the_roles_of_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = found()
    added(monkeypatch, of_lake("letters", [FEATURES.name]))
    with_rule(monkeypatch, "letters", Places(write=frozenset({"letters"})))
    assert changed(before) == {"run", "run-jobs"}
    assert "letters" in roles(full())["run"].places.write


def test_a_step_of_the_stream_changes_the_role_of_the_stream_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = found()
    written = places.written_by_stream

    def wider(table: Table, settings: Settings) -> Places:
        extra = Places(write=frozenset({"stream/extra"})) if table == LIVE_FEATURES else Places()
        return written(table, settings) | extra

    monkeypatch.setattr(places, "written_by_stream", wider)
    assert changed(before) == {"stream"}


def test_an_asset_that_no_rule_covers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    added(monkeypatch, of_lake("letters", [CURATED.name]))
    with pytest.raises(DeploymentError, match="letters: this asset has no table, and no rule"):
        roles(full())


def test_an_asset_in_no_job_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    @dg.asset(name="stranger", group_name="own")
    def stranger() -> None: ...

    added(monkeypatch, stranger)
    with pytest.raises(DeploymentError, match="stranger: this asset is in no job"):
        roles(full())


def test_a_table_that_no_asset_has_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    orphan = Table("orphan", "curated", "delta", "curated/orphan", CURATED.columns, "Nobody's.")
    monkeypatch.setattr(rights, "TABLES", (*TABLES, orphan))
    with pytest.raises(DeploymentError, match="orphan: no asset has this table"):
        roles(full())


def test_an_action_on_the_same_resources_is_allowed_once() -> None:
    for role in found().values():
        assert joined(role.services) == role.services
        asked = [
            (action, right.resources, repr(right.conditions)) for right in role.services for action in right.actions
        ]
        assert len(set(asked)) == len(asked), role.name


def test_resources_demand_only_what_their_settings_use() -> None:
    from stock_lakehouse.resources.lakehouse import LakehouseResource

    lakehouse = LakehouseResource.of(least())
    assert QueryResource.of(least(), lakehouse).rights() == ()
    assert StreamResource.of(least(), lakehouse).rights() == ()
    [stream] = StreamResource.of(full(), LakehouseResource.of(full())).rights()
    assert stream.resources == ("arn:${AWS::Partition}:kinesis:${AWS::Region}:${AWS::AccountId}:stream/stock_ticks",)


def test_stream_tables_and_their_places_are_those_of_the_tables() -> None:
    stream = found()["stream"].places
    assert {table.path for table in STREAM_TABLES} <= stream.write


@pytest.mark.parametrize("document", [OVERVIEW, DOCUMENT], ids=lambda document: document.name)
def test_the_documented_roles_are_those_that_are_derived(document: Path) -> None:
    assert written(document) == document.read_text(encoding="utf-8"), "run `make docs`"


@pytest.mark.slow
def test_roles_are_derived_without_the_client_of_spark_and_without_pandas() -> None:
    # The code location is loaded for them; the client and the libraries of calendars would take as long as all the rest.
    code = (
        "import sys; from stock_lakehouse.deployment.rights import roles; from stock_lakehouse.settings import Settings; "
        "roles(Settings(lake_root='s3://bucket/lake')); "
        "print([name for name in ('pyspark.sql.connect.client', 'pandas', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Lines of tables in docs/ by which a user gives the rights of a service by hand: the file, a part of the line, and what has them.
DOCUMENTED = {
    "catalog": ("aws.md", "| `catalog` |", "Catalog"),
    "queries": ("aws.md", "`athena:StartQueryExecution`", "Queries"),
    "workgroup": ("aws.md", "`athena:CreateWorkGroup`", "Workgroup"),
    "crawlers": ("aws.md", '`catalog_by = "crawl"`', "Crawlers AnyCrawler CrawlerRole"),
    "results": ("aws.md", "`s3:ListMultipartUploadParts`", "ResultsBucket ResultsParts"),
    "statements": ("warehouse.md", "`redshift-data:BatchExecuteStatement`", "Statements"),
    "sent statements": ("warehouse.md", "`redshift-data:DescribeStatement`", "StatementsSent"),
    "login": ("warehouse.md", "`redshift-serverless:GetCredentials`", "RedshiftLogin"),
    "stream": ("streaming.md", "`kinesis:GetRecords`", "Stream"),
    "QuickSight's account": (
        "dashboards.md",
        "`quicksight:DescribeAccountSubscription`",
        "QuickSightAccount QuickSightAny",
    ),
    "QuickSight's source": ("dashboards.md", "`quicksight:DescribeDataSource`", "QuickSightSource"),
    "QuickSight's sets": ("dashboards.md", "`quicksight:DescribeDataSet`", "QuickSightSets"),
    "QuickSight's dashboard": ("dashboards.md", "`quicksight:DescribeDashboard`", "QuickSightDashboard"),
    "QuickSight's tags": ("dashboards.md", "`quicksight:ListTagsForResource`", "QuickSightTags"),
}
# The line of the results also has what reading and writing a place of the lake is; the other two are QuickSight's on its source.
OF_PLACES = {"s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:AbortMultipartUpload"}
ON_THE_SOURCE_TOO = {"quicksight:CreateDataSet", "quicksight:UpdateDataSet"}


@pytest.mark.parametrize("what", DOCUMENTED)
def test_the_rights_that_the_documents_list_are_those_that_are_given(what: str) -> None:
    file, line, sids = DOCUMENTED[what]
    given = {
        action
        for role in found().values()
        for right in role.services
        if right.sid in sids.split()
        for action in right.actions
    }
    if sids == "QuickSightSource":
        given -= ON_THE_SOURCE_TOO
    listed = set(documented(file, line)) - OF_PLACES
    assert listed - {"athena:GetWorkGroup"} == given - {"athena:GetWorkGroup"}


def test_a_cluster_that_reads_the_stream_may_do_what_that_needs() -> None:
    settings = full()
    streaming = settings.stream.model_copy(update={"runner": "structured_streaming"})
    cluster = roles(settings.model_copy(update={"stream": streaming}))["job"]
    assert {
        "stream/raw_ticks",
        "stream/minute_bars",
        "stream/_checkpoints",
    } <= cluster.places.write & cluster.places.delete
    assert {action for right in cluster.services for action in right.actions} >= {
        "kinesis:ListShards",
        "kinesis:GetRecords",
    }
    assert not found()["job"].services
    assert not {place for place in found()["job"].places.read if place.startswith("stream/")}
