"""What each process may do: the places of the lake and the services, derived from the asset graph, the tables and the settings.

Here: which step touches which places, and which steps are one process. Not here: IAM policies (policies.py), and what a service
demands: each resource declares that itself (resources/).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from stock_lakehouse.aws import GLUE_READS, Right, arn, glue_tables
from stock_lakehouse.dashboards.reports import FOLDER as REPORTS
from stock_lakehouse.lake import raw_compaction
from stock_lakehouse.lake.lease import TRIAL, lease_path
from stock_lakehouse.lake.maintenance import DAMAGED
from stock_lakehouse.lake.serving import FOLDER as SERVING
from stock_lakehouse.lake.serving import SERVED
from stock_lakehouse.lake.staging import FOLDER as STAGING
from stock_lakehouse.lake.stream_table import LOCK as STREAM_LOCK
from stock_lakehouse.layers.curated import REWRITE_MARKERS
from stock_lakehouse.sql.reports import reports
from stock_lakehouse.tables import (
    BY_NAME,
    CURATED,
    FEATURES,
    LAYOUTS,
    LIVE_FEATURES,
    MINUTE_BARS,
    PROCESSED,
    RAW,
    RAW_TICKS,
    RECONCILIATION,
    RESTATEMENTS,
    STREAM_BY_NAME,
    STREAM_TABLES,
    TABLES,
    Table,
    laid_out,
    written_in_step,
)
from stock_lakehouse.upkeep import REPAIRS
from stock_lakehouse.warehouse.load import LEASE as WAREHOUSE_LEASE

if TYPE_CHECKING:
    from stock_lakehouse.settings import Settings

COMPUTE_LOGS = ".dagster/logs"  # where S3ComputeLogManager keeps what runs print
_TABLES = BY_NAME | STREAM_BY_NAME


class DeploymentError(Exception):
    """What is to be deployed cannot be derived. The message names the asset, table or setting, and what to do."""


@dataclass(frozen=True)
class Places:
    """Places below the lake's root: a folder (`raw/stocks_daily`), or a pattern of keys (`.locks/doctor-*`), which has a `*`.

    Every place may also be listed: without that, S3 answers 403 for a key that does not exist.

    - read: objects are read
    - write: objects are written and replaced
    - create: objects are written once and never replaced; they may also be read
    - delete: objects are deleted
    """

    read: frozenset[str] = frozenset()
    write: frozenset[str] = frozenset()
    create: frozenset[str] = frozenset()
    delete: frozenset[str] = frozenset()

    def __or__(self, other: Places) -> Places:
        return Places(*(getattr(self, kind.name) | getattr(other, kind.name) for kind in fields(self)))


@dataclass(frozen=True)
class Role:
    """A role on AWS.

    - name: in lower case, `run-jobs`; its logical identifier in the template is `RunJobsRole`
    - who: the process or person that has it
    - places: what it may do in the lake
    - services: what it may do elsewhere
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

    Raises DeploymentError for a lake that is not on S3, and for an asset or a table that no rule covers.
    """
    _check(settings)
    graph = _Graph(settings)
    every = _read(*TABLES)
    daily = graph.steps(graph.daily)
    landing = graph.steps({RAW.name})
    run = daily | _all(f"{TRIAL}*") | _logs()
    tend = _upkeep(settings)
    found = [
        Role("run", "the ECS task of a run; a server of one's own", run, graph.services(graph.daily), "ecs-tasks"),
        Role("upkeep", "the ECS task of the job `upkeep`", tend | _logs(), graph.job_services("upkeep"), "ecs-tasks"),
        Role(
            "repair",
            "a person, for `upkeep --repair` and `layout`",
            run | tend | _repair(settings),
            _joined(graph.services(graph.daily), graph.job_services("upkeep")),
            "account",
        ),
        Role(
            "dagster",
            "Dagster's webserver, daemon and code location on ECS",
            _read(CURATED, FEATURES) | _stream_looks(settings) | Places(read=frozenset({COMPUTE_LOGS})),
            (*graph.stream_services, *_launches(settings)),
            "ecs-tasks",
        ),
        Role(
            "reader",
            "people, notebooks, Unity Catalog",
            _reads(settings),
            tuple(graph.resource("query").reading_rights()),
            "account",
        ),
    ]
    if settings.engine == "databricks":
        layers = graph.steps({table.name for table in TABLES if table.has_step} - {RAW.name})
        found.append(Role("job", "a Databricks cluster, by its instance profile", layers | _all(STAGING), (), "ec2"))
        if settings.databricks.work != "session":
            rest = graph.steps(graph.daily - set(BY_NAME))
            run_jobs = every | landing | _leases(*BY_NAME) | rest | _all(f"{TRIAL}*") | _logs()
            who = "the ECS task of a run whose layers are Databricks jobs"
            found.append(Role("run-jobs", who, run_jobs, graph.services(graph.daily), "ecs-tasks"))
    if settings.stream.source != "off":
        streamed = graph.steps(graph.streamed) | _all(f"{TRIAL}*") | _logs()
        who = "the service `stream run`, and the ECS tasks of the stream's jobs"
        found.append(Role("stream", who, streamed, graph.services(graph.streamed), "ecs-tasks"))
    found.extend(_of_services(settings, graph))
    return {role.name: role for role in found}


def _beside_tables() -> dict[str, Places]:
    """What the steps of assets without a table touch beyond the tables upstream of them, by asset. Reports read alone."""
    from stock_lakehouse.assets.dashboards import RUN_REPORT
    from stock_lakehouse.assets.quicksight import NAME as QUICKSIGHT
    from stock_lakehouse.automation.jobs import CATALOG
    from stock_lakehouse.warehouse.tables import NATIVE_TABLES

    served = Places(read=frozenset({SERVING}))
    # Registration removes the ledger's orphaned lines, under the leases of the table that they are about and of the ledger.
    settles = Places(write=_paths(RESTATEMENTS)) | _leases(
        RESTATEMENTS.name, *(one.name for one in TABLES if one.ledger)
    )
    return {
        CATALOG: served | settles,
        RUN_REPORT: _read(*TABLES)
        | served
        | Places(read=frozenset({REPORTS}), write=frozenset({REPORTS}), delete=frozenset({REPORTS})),
        QUICKSIGHT: _read(*TABLES) | served,
        **{table.asset: served | _leases(WAREHOUSE_LEASE) for table in NATIVE_TABLES},
    }


class _Graph:
    """The asset graph of a deployment: which assets each process runs, and what they touch and demand."""

    def __init__(self, settings: Settings) -> None:
        from stock_lakehouse.automation.jobs import DAILY
        from stock_lakehouse.definitions import build_definitions

        self._definitions = build_definitions(settings)
        self._settings = settings
        self._beside_tables = _beside_tables()
        self._graph = self._definitions.resolve_asset_graph()
        self._keys = {key.path[-1]: key for key in self._graph.get_all_asset_keys()}
        names = set(self._keys)
        self.daily = {key.path[-1] for key in DAILY.resolve(self._graph)}
        self.streamed = {table.name for table in STREAM_TABLES} & names
        if unknown := sorted(names - self.daily - self.streamed):
            raise DeploymentError(
                f"{unknown[0]}: no job of the platform has this asset, so no role has its rights; put it into the group of the "
                "lake's assets, or deploy it from a code location of its own"
            )
        for table in TABLES:
            if table.name not in names:
                raise DeploymentError(
                    f"{table.name}: no asset writes or reports this table, so no role has its rights; add its asset"
                )

    def steps(self, names: Iterable[str]) -> Places:
        """What the steps of these assets touch."""
        return reduce(or_, (self._step(name) for name in sorted(names)), Places())

    def services(self, names: Iterable[str]) -> tuple[Right, ...]:
        """What the resources of these assets and of their checks demand."""
        wanted = set(names)
        required: set[str] = set()
        for definition in self._graph.assets_defs:
            if wanted & {key.path[-1] for key in definition.keys}:
                required |= definition.required_resource_keys
        for check in self._definitions.asset_checks or ():
            if wanted & {key.asset_key.path[-1] for key in check.check_keys}:
                required |= check.required_resource_keys
        return self._demanded(required)

    def job_services(self, job: str) -> tuple[Right, ...]:
        """What the resources of a job of ops demand."""
        return self._demanded(self._definitions.resolve_job_def(job).required_resource_keys)

    @property
    def stream_services(self) -> tuple[Right, ...]:
        """What the sensors of the stream demand."""
        return self._demanded({"stream_service"} if self.streamed else ())

    def resource(self, name: str) -> Any:
        return (self._definitions.resources or {}).get(name)

    def _demanded(self, resources: Iterable[str]) -> tuple[Right, ...]:
        found = map(self.resource, sorted(resources))
        return _joined(*(resource.rights() for resource in found if hasattr(resource, "rights")))

    def _step(self, name: str) -> Places:
        upstream = [key.path[-1] for key in self._graph.get(self._keys[name]).parent_keys]
        read = _read(*(_TABLES[other] for other in (name, *upstream) if other in _TABLES))
        table = _TABLES.get(name)
        if table is not None:
            return read | (_writes(table, self._settings) if table.has_step else Places())
        rule = self._beside_tables.get(name) or (Places() if name in reports() else None)
        if rule is None:
            raise DeploymentError(
                f"{name}: this asset has no table, and no rule says which places of the lake its step touches; add one to "
                "_beside_tables of deployment/rights.py"
            )
        return read | rule | (_results(self._settings) if name in reports() else Places())


def _check(settings: Settings) -> None:
    """Raise DeploymentError for settings that cannot be deployed on AWS."""
    if not isinstance(settings.lake_root, str):
        raise DeploymentError(
            f"lake_root: {settings.lake_root} is a folder, and what is deployed on AWS has its lake on S3; set lake_root to "
            "s3://bucket/prefix (the stack's output LakeRoot), or STOCK_LAKEHOUSE_CONFIG to the lakehouse.toml of the deployment"
        )
    messages = settings.databricks.messages
    if settings.engine == "databricks" and messages is not None and messages.startswith("s3://"):
        raise DeploymentError(
            f"databricks.messages: Dagster Pipes writes to the root of {messages}, so rights by path cannot cover it; set "
            "databricks.messages to a folder of a volume (/Volumes/…)"
        )
    results = settings.aws.athena_results
    if results is not None and not results.startswith(f"{settings.lake_root}/"):
        raise DeploymentError(
            f"aws.athena_results: {results} is outside of the lake's root, where no role may write; set it to "
            f"{settings.lake_root}/athena-results"
        )


def _joined(*rights: Iterable[Right]) -> tuple[Right, ...]:
    """The rights in their order, each once."""
    found: list[Right] = []
    for right in (right for some in rights for right in some):
        if right not in found:
            found.append(right)
    return tuple(found)


def _paths(*tables: Table) -> frozenset[str]:
    """The folders of `tables`, in every layout: a lake may be moved to another one."""
    return frozenset(laid_out(table, layout).path for table in tables for layout in LAYOUTS)


def _read(*tables: Table) -> Places:
    return Places(read=_paths(*tables))


def _all(*places: str) -> Places:
    """Places that are read, written and deleted."""
    return Places(read=frozenset(places), write=frozenset(places), delete=frozenset(places))


def _made(place: str) -> Places:
    """A place whose files are written once, and removed when they are replaced."""
    return Places(create=frozenset({place}), delete=frozenset({place}))


def _leases(*names: str) -> Places:
    """The leases of these names, which are taken, renewed and given back, and never removed."""
    keys = frozenset(f"{lease_path(name)}*" for name in names)
    return Places(read=keys, write=keys)


def _writes(table: Table, settings: Settings) -> Places:
    """What the step of `table` writes: the tables of the step, their leases, and what stands beside them."""
    if table.name in STREAM_BY_NAME:
        return _writes_stream(table)
    written = written_in_step(table)
    found = _leases(f"{table.name}.step", *(one.name for one in written))
    for one in written:
        if one.format == "csv":
            found |= Places(create=_paths(one))
        elif one.format == "parquet":
            found |= Places(write=_paths(one), delete=_paths(one))  # the file of a ticker-year that ends is removed
        else:
            found |= Places(write=_paths(one))
    if table in (RAW, PROCESSED):
        found |= _made(raw_compaction.PATH) | _leases(RAW.name)
    if table == CURATED:
        found |= _all(REWRITE_MARKERS)
    if table in SERVED:
        found |= Places(create=frozenset({SERVING}))
    if settings.engine != "embedded":
        found |= _all(STAGING)
    return found


def _writes_stream(table: Table) -> Places:
    """The step of ticks and bars also writes the losses; each removes its old versions itself."""
    written = (table, *(one for one in STREAM_TABLES if table.name in one.written_by))
    lease = STREAM_LOCK if table in (RAW_TICKS, MINUTE_BARS) else table.name
    return Places(write=_paths(*written), delete=_paths(*written), read=_paths(*written)) | _leases(lease)


def _upkeep(settings: Settings) -> Places:
    """Upkeep reads every table, maintains the Delta tables, and removes what is replaced or was left by a killed run."""
    delta = [table for table in TABLES if table.format == "delta"]
    parquet = [table for table in TABLES if table.format == "parquet"]
    found = _read(*TABLES) | Places(write=_paths(*delta), delete=_paths(*delta, *parquet))
    found |= _leases(*(table.name for table in TABLES)) | _made(raw_compaction.PATH) | _made(SERVING)
    found |= Places(read=frozenset({REPAIRS, STAGING}), delete=frozenset({STAGING}))
    if settings.stream.source != "off":
        found |= Places(*(_paths(*STREAM_TABLES) for _ in range(2))) | Places(delete=_paths(RAW_TICKS, MINUTE_BARS))
        found |= _leases(STREAM_LOCK)
    return found


def _repair(settings: Settings) -> Places:
    """What `upkeep --repair` does beyond a run and upkeep: damaged files are set aside, and what is to be computed again is marked."""
    found = Places(create=frozenset({DAMAGED})) | _all(REPAIRS, REWRITE_MARKERS)
    if settings.stream.source != "off":
        found |= _writes_stream(MINUTE_BARS)
    return found


def _logs() -> Places:
    return Places(read=frozenset({COMPUTE_LOGS}), write=frozenset({COMPUTE_LOGS}))


def _results(settings: Settings) -> Places:
    """Where Athena puts results, in the name of who asks."""
    if settings.query_engine != "athena":
        return Places()
    place = frozenset({str(settings.aws.athena_results).removeprefix(f"{settings.lake_root}/")})
    return Places(read=place, write=place)


def _reads(settings: Settings) -> Places:
    """What readers read: curated tables, features, ledger, their serving copy, reports; and bars and features of the stream."""
    tables = [table for table in TABLES if table.layer in ("curated", "features", "ledger")]
    if settings.stream.source != "off":
        tables += [MINUTE_BARS, LIVE_FEATURES, RECONCILIATION]
    return _read(*tables) | Places(read=frozenset({SERVING, REPORTS})) | _results(settings)


def _stream_looks(settings: Settings) -> Places:
    """What the stream's sensors look at."""
    if settings.stream.source == "off":
        return Places()
    return _read(*STREAM_TABLES) | Places(read=frozenset({f"{lease_path(STREAM_LOCK)}*"}))


def _launches(settings: Settings) -> tuple[Right, ...]:
    """What the launcher of runs needs: to start tasks of runs, and to give them their roles."""
    task = arn("ecs", "task/${Cluster}/*")
    in_cluster = {"ArnEquals": {"ecs:cluster": "${Cluster.Arn}"}}
    passed = ("RunRole", "UpkeepRole", "ExecutionRole")
    if settings.engine == "databricks" and settings.databricks.work != "session":
        passed += ("RunJobsRole",)
    if settings.stream.source != "off":
        passed += ("StreamRole",)
    to_tasks = {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
    return (
        Right("StartRuns", ("ecs:RunTask",), ("${RunTask}",), in_cluster),
        Right("FollowRuns", ("ecs:DescribeTasks", "ecs:StopTask", "ecs:TagResource"), (task,)),
        Right(
            "RunTaskDefinition", ("ecs:DescribeTaskDefinition",), ("*",), reason="AWS knows no resource of this action"
        ),
        Right("RunRoles", ("iam:PassRole",), tuple(f"${{{role}.Arn}}" for role in passed), to_tasks),
    )


def _of_services(settings: Settings, graph: _Graph) -> Iterator[Role]:
    """The roles with which services of AWS read the lake."""
    plain = [table for table in TABLES if table.format != "delta"]
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
        yield Role("crawler", "the Glue crawlers", _read(*TABLES), crawls, "glue")
    if settings.warehouse == "redshift":
        served = _read(*plain) | Places(read=frozenset({SERVING}))
        yield Role(
            "spectrum",
            "Redshift, for its external schema",
            served,
            (Right("Registered", GLUE_READS, tables),),
            "redshift",
        )
    if settings.dashboard == "quicksight" and settings.quicksight.source == "athena":
        asks = graph.resource("query").reading_rights() if settings.query_engine == "athena" else ()
        yield Role("quicksight", "QuickSight, for Athena", _reads(settings) | _read(*plain), asks, "quicksight")
