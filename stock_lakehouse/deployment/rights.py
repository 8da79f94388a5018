"""The roles of a deployment: which steps are one process, and what each may do in the lake and at services.

Rights follow from the asset graph, the tables and the settings; nothing here lists tables or assets. Here: roles. Not here: which
places a step touches (places.py), what a service demands (each resource says it), and IAM policies (policies.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from stock_lakehouse.aws import GLUE_READS, NO_RESOURCE, Right, arn, glue_tables
from stock_lakehouse.deployment import places
from stock_lakehouse.deployment.places import Places, results_folder
from stock_lakehouse.exchanges import CRYPTO
from stock_lakehouse.tables import BY_NAME, RAW, STREAM_BY_NAME, TABLES

if TYPE_CHECKING:
    from stock_lakehouse.settings import Settings

LAKE = "arn:${AWS::Partition}:s3:::${Lake}"
LAKE_KEYS = f"{LAKE}/${{Prefix}}/"


STREAM, WAREHOUSE = "stream_service", "warehouse_service"  # the keys of their resources


class DeploymentError(Exception):
    """What is to be deployed cannot be derived. The message names the asset, table or setting, and what to do."""


@dataclass(frozen=True)
class Role:
    """A role on AWS.

    - name: in lower case, `run-jobs`; its logical identifier in the template is `RunJobsRole`
    - who: the process or person that has it
    - places: what it may do in the lake
    - services: what it may do elsewhere; no action on a resource is in two of them
    - trust: who may assume it: a service (`ecs-tasks`, `ec2`, `glue`, `redshift`, `quicksight`) or `account`, identities of the
      account to which IAM gives that
    """

    name: str
    who: str
    places: Places
    services: tuple[Right, ...]
    trust: str

    @property
    def logical_id(self) -> str:
        """The identifier in CloudFormation: `RunJobsRole`."""
        return "".join(part.capitalize() for part in self.name.split("-")) + "Role"


def roles(settings: Settings) -> dict[str, Role]:
    """Every role of a deployment with `settings`, by name. Those of a service exist only while the settings use it.

    Raises DeploymentError for settings that cannot be deployed, and for an asset or a table that no rule covers.
    """
    _check(settings)
    graph = _Graph(settings)
    return {role.name: role for role in (*_of_processes(settings, graph), *_of_services(settings, graph))}


def _of_processes(settings: Settings, graph: _Graph) -> Iterator[Role]:
    """The roles of this program's processes, and of people."""
    run, of_run = graph.touched(graph.daily) | places.TRIED, graph.services(graph.daily)
    upkeep, of_upkeep = places.upkeep(settings), graph.services_of_upkeep()
    launched = ["RunRole", "UpkeepRole"]
    yield Role("run", "the ECS task of a run", run | places.LOGS, of_run, "ecs-tasks")
    yield Role("upkeep", "the ECS task of the job `upkeep`", upkeep | places.LOGS, of_upkeep, "ecs-tasks")
    # A repair computes the tables again from what has landed, and nothing that comes after them.
    mended = graph.touched(set(BY_NAME) - {RAW.name}) | upkeep | places.repair(settings)
    yield Role("repair", "a person, for `upkeep --repair` and `layout`", mended, of_upkeep, "account")
    if settings.engine == "databricks":
        cluster = "a Databricks cluster, by its instance profile"
        reads = graph.services(graph.streamed) if places.is_streamed_by_job(settings) else ()
        yield Role("job", cluster, places.published_by_job(settings), reads, "ec2")
    if settings.engine == "databricks" and settings.databricks.work == "job":
        submits = places.read(*TABLES) | graph.touched(graph.daily - set(BY_NAME) | {RAW.name})
        who = "the ECS task of a run whose layers are Databricks jobs"
        yield Role("run-jobs", who, submits | places.TRIED | places.LOGS, of_run, "ecs-tasks")
        launched.append("RunJobsRole")
    if graph.streamed:
        streams = graph.touched(graph.streamed) | places.TRIED | places.LOGS
        who = "the service `stream run`, and the ECS tasks of the stream's jobs"
        yield Role("stream", who, streams, graph.services(graph.streamed), "ecs-tasks")
        launched.append("StreamRole")
    looks = places.looked_at_by_sensors(settings) | Places(read=places.LOGS.read)
    asks = graph.demanded({STREAM} if graph.streamed else ())
    who = "Dagster's webserver, daemon and code location on ECS"
    yield Role("dagster", who, looks, (*asks, *_launches(launched)), "ecs-tasks")
    queries = joined(graph.resource("query").reading_rights(), _result_rights(settings))
    yield Role("reader", "people, notebooks, Unity Catalog", places.readers(settings), queries, "account")


def _of_services(settings: Settings, graph: _Graph) -> Iterator[Role]:
    """The roles with which services of AWS read the lake."""
    tables = glue_tables(settings.aws.glue_database)
    if settings.catalog == "glue" and settings.aws.catalog_by == "crawl":
        writes = (
            "glue:CreateTable", "glue:UpdateTable", "glue:BatchCreatePartition", "glue:UpdatePartition",
            "glue:BatchUpdatePartition",
        )  # fmt: skip
        logs = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")
        crawls = (
            Right("Crawled", (*GLUE_READS, *writes), tables),
            Right("CrawlerLogs", logs, (arn("logs", "log-group:/aws-glue/crawlers*"),)),
        )
        yield Role("crawler", "the Glue crawlers", places.read(*TABLES), crawls, "glue")
    if settings.warehouse == "redshift":
        registered = (Right("Registered", GLUE_READS, tables),)
        yield Role("spectrum", "Redshift, for its external schema", places.plain_files(), registered, "redshift")
    if settings.dashboard == "quicksight" and settings.quicksight.source == "athena":
        from stock_lakehouse.sql.athena import query_rights

        queries = joined(query_rights(settings.aws), _result_rights(settings))
        shown = places.readers(settings) | places.plain_files()
        yield Role("quicksight", "QuickSight, for Athena", shown, queries, "quicksight")


class _Graph:
    """The asset graph of a deployment: which assets each process runs, and what they touch and demand."""

    def __init__(self, settings: Settings) -> None:
        from stock_lakehouse.automation.jobs import DAILY
        from stock_lakehouse.definitions import build_definitions

        # Rights depend on no session, and the calendar of every day is there at once.
        daily = {"exchange": CRYPTO, "partition_by": "session"}
        self._definitions = build_definitions(settings.model_copy(update=daily))
        self._settings = settings
        self._beside_tables = places.beside_tables(settings)
        self._graph = self._definitions.resolve_asset_graph()
        self._keys = {key.path[-1]: key for key in self._graph.get_all_asset_keys()}
        self.daily = {key.path[-1] for key in DAILY.resolve(self._graph)}
        self.streamed = STREAM_BY_NAME.keys() & self._keys.keys()
        if unknown := sorted(self._keys.keys() - self.daily - self.streamed):
            raise DeploymentError(
                f"{unknown[0]}: this asset is in no job of the platform, so no role has its rights; give it the group "
                "`lake`, or deploy it from a code location of its own"
            )
        if missing := [table.name for table in TABLES if table.name not in self._keys]:
            raise DeploymentError(
                f"{missing[0]}: no asset has this table, so no role has the rights to write it; add its asset"
            )

    def touched(self, names: Iterable[str]) -> Places:
        """What the steps of these assets touch. Raises DeploymentError for an asset that no rule covers."""
        return reduce(or_, map(self._touched, sorted(names)), places.left_behind(self._settings))

    def _touched(self, name: str) -> Places:
        known = BY_NAME | STREAM_BY_NAME
        upstream = {key.path[-1] for key in self._graph.get(self._keys[name]).parent_keys}
        found = places.read(*(known[other] for other in sorted({name, *upstream}) if other in known))
        if name in STREAM_BY_NAME:
            return found | places.written_by_stream(STREAM_BY_NAME[name], self._settings)
        if name in BY_NAME:
            return found | (places.written_in(BY_NAME[name], self._settings) if BY_NAME[name].has_step else Places())
        if name not in self._beside_tables:
            raise DeploymentError(
                f"{name}: this asset has no table, and no rule says which places of the lake its step touches; add a line to "
                "beside_tables in deployment/places.py"
            )
        return found | self._beside_tables[name]

    def services(self, names: Iterable[str]) -> tuple[Right, ...]:
        """What the resources of these assets and of their checks demand."""
        wanted, required = set(names), set[str]()
        for definition in self._graph.assets_defs:
            if wanted & {
                key.path[-1] for key in (*definition.keys, *(check.asset_key for check in definition.check_keys))
            }:
                required |= definition.required_resource_keys
        rights = self.demanded(required)
        return joined(rights, _result_rights(self._settings) if "query" in required else ())

    def services_of_upkeep(self) -> tuple[Right, ...]:
        """What upkeep demands: of the warehouse comparisons alone, and nothing of the stream, whose settings it asks for."""
        required = self._definitions.resolve_job_def("upkeep").required_resource_keys - {STREAM, WAREHOUSE}
        return joined(self.demanded(required), self.resource(WAREHOUSE).comparing_rights())

    def demanded(self, resources: Iterable[str]) -> tuple[Right, ...]:
        """What these resources demand. A resource that declares no rights, like Dagster's own, calls no service."""
        found = map(self.resource, sorted(resources))
        return joined(*(resource.rights() for resource in found if hasattr(resource, "rights")))

    def resource(self, name: str) -> Any:
        return (self._definitions.resources or {}).get(name)


def joined(*rights: Iterable[Right]) -> tuple[Right, ...]:
    """The rights in their order, each action on the same resources and conditions once."""
    found: list[Right] = []
    for right in (right for some in rights for right in some):
        same = [other for other in found if (other.resources, other.conditions) == (right.resources, right.conditions)]
        actions = tuple(action for action in right.actions if not any(action in other.actions for other in same))
        if actions:
            found.append(replace(right, actions=actions))
    return tuple(found)


def _check(settings: Settings) -> None:
    """Raise DeploymentError for settings that cannot be deployed on AWS."""
    root, messages, results = settings.lake_root, settings.databricks.messages, settings.aws.athena_results
    if not isinstance(root, str):
        raise DeploymentError(
            f"lake_root: {root} is a folder, and a deployment on AWS has its lake on S3; set lake_root to s3://bucket/prefix, or "
            "call the program where the lakehouse.toml of the deployment is (`stock-lakehouse init --aws` writes one)"
        )
    if settings.engine == "databricks" and messages is not None and messages.startswith("s3://"):
        raise DeploymentError(
            f"databricks.messages: Dagster writes to the root of {messages}, which no right by path covers; set "
            "databricks.messages to a folder of a volume (/Volumes/…)"
        )
    if results is not None and not results.startswith(f"{root}/"):
        raise DeploymentError(
            f"aws.athena_results: no role may write to {results}, because it is outside of the lake's root; set "
            f"aws.athena_results to {root}/athena-results"
        )


def _result_rights(settings: Settings) -> tuple[Right, ...]:
    """What Athena asks of the results' bucket in the name of who asks, beside reading and writing the results."""
    folder = results_folder(settings)
    if folder is None:
        return ()
    parts = f"{LAKE_KEYS}{folder}/*"
    return (
        Right("ResultsBucket", ("s3:GetBucketLocation",), (LAKE,)),
        Right("ResultsParts", ("s3:ListMultipartUploadParts",), (parts,)),
    )


def _launches(launched: Iterable[str]) -> tuple[Right, ...]:
    """What the launcher of runs needs: to start tasks, to follow them, and to give them the roles `launched`."""
    in_cluster = {"ArnEquals": {"ecs:cluster": arn("ecs", "cluster/${Cluster}")}}
    to_tasks = {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
    passed = tuple(f"${{{role}.Arn}}" for role in (*launched, "ExecutionRole"))
    follow = ("ecs:DescribeTasks", "ecs:StopTask", "ecs:TagResource")
    # Every revision: while the stack is updated, the daemon still starts runs by the one before.
    definition = arn("ecs", "task-definition/${AWS::StackName}-run:*")
    return (
        Right("StartRuns", ("ecs:RunTask",), (definition,), in_cluster),
        Right("FollowRuns", follow, (arn("ecs", "task/${Cluster}/*"),)),
        Right("RunTaskDefinition", ("ecs:DescribeTaskDefinition",), ("*",), reason=NO_RESOURCE),
        Right("RunRoles", ("iam:PassRole",), passed, to_tasks),
    )
