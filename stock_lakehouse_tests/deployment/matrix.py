"""What each role should be allowed: rows of role × action × resource, computed from the tables and from the documents.

Nothing here reads a policy, or the modules that make them. Tables say layer, format, upstream tables and layouts; the tables of
actions in docs/ say what a service demands; what stands beside the tables is written down here, by hand. Not here: how rows are
evaluated (simulate.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from stock_lakehouse.tables import LAYOUTS, STREAM_TABLES, TABLES, Table, laid_out
from stock_lakehouse_tests.deployment.simulate import ACCOUNT, Row

REGION, BUCKET, PREFIX = "eu-central-1", "lake-of-tests", "team/lake"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/0a1b2c3d-0000-0000-0000-000000000000"
LAKE = f"arn:aws:s3:::{BUCKET}"
DOCS = Path(__file__).parents[2] / "docs"
TLS = {"aws:SecureTransport": "true"}

WRITERS = ("run", "run-jobs", "job", "upkeep", "repair", "stream")
READERS = ("dagster", "reader", "crawler", "spectrum", "quicksight")
ROLES = (*WRITERS, *READERS)
TRIMMED = ("raw_ticks", "minute_bars", "live_features")  # their own writers remove old versions
STEPS = ("processed_stocks_daily.step", "curated_stocks_daily.step", "stocks_features.step")


def rights_on(role: str, table: Table) -> str:
    """The letters of what `role` may do to the objects of `table`: r(ead), w(rite), d(elete)."""
    if table in STREAM_TABLES:
        return _on_stream(role, table)
    is_plain, is_curated = table.format != "delta", table.layer in ("curated", "features", "ledger")
    writes = {"csv": "w", "parquet": "wd", "delta": "w"}[table.format]
    maintains = {"csv": "", "parquet": "d", "delta": "wd"}[table.format]
    both = "".join(sorted({*writes, *maintains}))
    return {
        "run": "r" + writes,
        # Databricks jobs publish the layers; the run lands, and removes lines of the ledger when it registers the tables.
        "run-jobs": "rw" if table.format == "csv" or table.layer == "ledger" else "r",
        "job": "r" if table.format == "csv" else "r" + writes,
        "upkeep": "r" + maintains,
        "repair": "r" if table.format == "csv" else "r" + both,
        "dagster": "r" if table.name in ("curated_stocks_daily", "stocks_features") else "",
        "reader": "r" if is_curated or table.name == "processed_quarantine" else "",
        "crawler": "r",
        "spectrum": "r" if is_plain else "",
        "quicksight": "r" if is_curated or is_plain else "",
        "stream": "r" if any(table.name in other.made_from for other in STREAM_TABLES) else "",
    }[role]


def _on_stream(role: str, table: Table) -> str:
    trimmed = "d" if table.name in TRIMMED else ""
    is_tended = table.name in ("raw_ticks", "minute_bars")
    # Runs register the tables of the stream, and readers list them.
    reads = ("run", "run-jobs", "dagster", "reader", "quicksight")
    tends = "rwd" if is_tended else "r"
    return {"stream": "rw" + trimmed, "upkeep": tends, "repair": tends}.get(role, "r" if role in reads else "")


@dataclass(frozen=True)
class Place:
    """Keys below the lake's root.

    - path: a folder; or a key if `is_key`, or how keys begin if it ends in a hyphen
    - rights: letters by role, as of `rights_on`
    """

    path: str
    rights: dict[str, str]
    is_key: bool = False

    def has(self, key: str) -> bool:
        """Whether `key` is in the place."""
        if self.is_key:
            return key == self.path or (self.path.endswith("-") and key.startswith(self.path))
        return key.startswith(f"{self.path}/")


def _by_roles(**rights: str) -> dict[str, str]:
    """Letters by role. A word before `_`: the roles of several, `run_job="rw"`."""
    names = {"run": "run", "jobs": "run-jobs", "job": "job", "upkeep": "upkeep", "repair": "repair", "stream": "stream"}
    names |= {role: role for role in READERS}
    return {names[part]: letters for words, letters in rights.items() for part in words.split("_")}


def places() -> Iterator[Place]:
    """Every table in every layout, what stands beside the tables, and their neighbours, where nobody may do anything."""
    for table in (*TABLES, *STREAM_TABLES):
        for path in sorted({laid_out(table, layout).path for layout in LAYOUTS}):
            rights = {role: rights_on(role, table) for role in ROLES}
            yield Place(path, rights)
            yield Place(f"{path}_evil", {})
            if table.format == "delta" and table not in STREAM_TABLES:
                # Registration in Glue creates tables that no run has made yet.
                yield Place(f"{path}/_delta_log", rights | {"run-jobs": "rw"})
                # A cluster's Spark on the JVM renames what it has written, which is a copy and a deletion.
                yield Place(f"{path}/_delta_log/.0.crc.0.tmp", {"job": "d"}, is_key=True)
                yield Place(f"{path}/_delta_log/0.crc.0.tmp", {}, is_key=True)
    # What a run keeps here while it rewrites histories is removed by it, as from no other place of that table.
    yield Place(
        "curated/corporate_actions/_moving", _by_roles(run_job_repair_upkeep="rwd", jobs_crawler_reader_quicksight="r")
    )
    yield Place("processed/raw_compacted", _by_roles(run_jobs_job_upkeep_repair="rwd"))
    yield Place("serving", _by_roles(upkeep_repair="rwd", run_jobs_job="rw", reader_spectrum_quicksight="r"))
    yield Place("reports", _by_roles(run_jobs="rwd", reader_quicksight="r"))
    yield Place(".staging", _by_roles(run_job_repair="rwd", upkeep="rd", jobs_stream="r"))
    yield Place(".repairs", _by_roles(repair="rwd", upkeep="r"))
    yield Place(".damaged", _by_roles(repair="rw"))
    yield Place(".dagster/logs", _by_roles(run_jobs_upkeep_stream="rw", dagster="r"))
    yield Place("athena-results", _by_roles(run_jobs_reader_quicksight="rw"))
    yield Place(".locks/doctor-", _by_roles(run_jobs_stream="rwd"), is_key=True)
    yield Place(".locks/doctor", {}, is_key=True)
    yield from _leases()
    for path in ("raw", "processed", "curated", "stream", ".locks", ".dagster", ".dagster/home", "staging", "servings"):
        yield Place(path, {})
    yield Place(".locks/other.lease", {}, is_key=True)
    yield Place("lakehouse.toml", {}, is_key=True)


def _leases() -> Iterator[Place]:
    registers = [table.name for table in TABLES if table.format == "delta"]
    for table in TABLES:
        holders = "run_upkeep_repair" if table.format == "csv" else "run_job_upkeep_repair"
        more = "_jobs" if table.name in registers or table.format == "csv" else ""
        yield Place(f".locks/{table.name}.lease", _by_roles(**{holders + more: "rw"}), is_key=True)
    for name in STEPS:
        yield Place(f".locks/{name}.lease", _by_roles(run_job_repair="rw"), is_key=True)
    yield Place(".locks/warehouse.lease", _by_roles(run_jobs="rw"), is_key=True)
    yield Place(".locks/stream.lease", _by_roles(stream_upkeep_repair="rw", dagster="r"), is_key=True)
    for name in ("live_features", "minute_reconciliation"):
        yield Place(f".locks/{name}.lease", _by_roles(stream="rw"), is_key=True)


PLACES = tuple(places())
# Actions on an object, and the letter of their right; "-": nobody has it.
ACTIONS = (
    ("GetObject", "r"), ("PutObject", "w"), ("AbortMultipartUpload", "w"), ("DeleteObject", "d"), ("GetObjectVersion", "-"),
    ("DeleteObjectVersion", "-"), ("GetObjectAcl", "-"), ("PutObjectAcl", "-"), ("PutObjectTagging", "-"),
    ("BypassGovernanceRetention", "-"), ("RestoreObject", "-"),
)  # fmt: skip


def rows_of_lake() -> Iterator[Row]:
    """Requests to the lake's bucket, to its neighbours, and to the key."""
    for role in ROLES:
        for place in PLACES:
            yield from _at(role, place)
        yield from _bucket(role)
        yield from _key(role)
    yield from _administrator()


def allows(role: str, right: str, key: str) -> bool:
    """Whether `role` has the right to the object `key`. Of a folder, its own name may be read: engines ask for it."""
    return any(
        right in place.rights.get(role, "")
        and (place.has(key) or (right == "r" and not place.is_key and key == place.path))
        for place in PLACES
    )


def lists(role: str, prefix: str) -> bool:
    """Whether `role` may list the keys that begin with `prefix`, below the lake's root."""
    return any(place.rights.get(role) and (place.has(prefix) or prefix == place.path) for place in PLACES)


def _at(role: str, place: Place) -> Iterator[Row]:
    own = (
        [place.path, f"{place.path}_evil"]
        if place.is_key
        else [f"{place.path}/part/x.bin", place.path, f"{place.path}_evil"]
    )
    for key in own:
        for action, right in ACTIONS if key == own[0] else ACTIONS[:4]:
            creates = action == "PutObject" and key.startswith("raw/stocks_daily/")
            asked = TLS | ({"s3:if-none-match": "*"} if creates else {})
            yield _s3(role, action, key, allows(role, right, key), asked)
            if creates:
                yield _s3(role, action, key, False)  # it would replace a landed file
    for prefix in (place.path,) if place.is_key else (place.path, f"{place.path}/", f"{place.path}/part"):
        yield _list(role, f"{PREFIX}/{prefix}", lists(role, prefix))
        yield _list(role, prefix, False)  # the same without the lake's prefix
        yield _list(role, f"{PREFIX}/{prefix}", False, "ListBucketVersions")
    yield _list(role, f"{PREFIX}/{place.path}_evil", lists(role, f"{place.path}_evil"))


def _s3(role: str, action: str, key: str, allowed: bool, context: dict[str, str] = TLS) -> Row:
    held = role == "administrator" or key.startswith("raw/stocks_daily/")  # by the bucket's own policy
    return Row(role, f"s3:{action}", f"{LAKE}/{PREFIX}/{key}", allowed, context, "bucket" if held else "")


def _list(role: str, prefix: str | None, allowed: bool, action: str = "ListBucket") -> Row:
    asked = TLS if prefix is None else TLS | {"s3:prefix": prefix}
    return Row(role, f"s3:{action}", LAKE, allowed, asked)


def _bucket(role: str) -> Iterator[Row]:
    above = PREFIX.rpartition("/")[0]
    for prefix in (None, "", "/", PREFIX, f"{PREFIX}/", above, f"{above}/", f"{PREFIX}_evil/", f"{PREFIX}/.", "raw/"):
        yield _list(role, prefix, False)
    asks_athena = role in ASKS_ATHENA
    yield Row(role, "s3:GetBucketLocation", LAKE, asks_athena, TLS)
    parts = f"{LAKE}/{PREFIX}/athena-results/x.csv"
    yield Row(role, "s3:ListMultipartUploadParts", parts, asks_athena, TLS)
    for key in ("curated/stocks_daily/x", "athena-results_evil/x", "athena-results", "x"):
        yield _s3(role, "ListMultipartUploadParts", key, False)
    yield _list(role, f"{PREFIX}/curated/stocks_daily/", False, "ListBucketVersions")
    for action in (
        "ListBucketMultipartUploads", "GetBucketPolicy", "PutBucketPolicy", "DeleteBucket", "PutLifecycleConfiguration",
        "PutBucketVersioning", "GetBucketAcl",
    ):  # fmt: skip
        yield Row(role, f"s3:{action}", LAKE, False, TLS)
    for key in (
        "x.bin",
        f"{PREFIX}/x.bin",
        f"{above}/x.bin",
        f"{PREFIX}_evil/curated/stocks_daily/x",
        "curated/stocks_daily/x",
    ):
        for action in ("GetObject", "PutObject", "DeleteObject"):
            yield Row(role, f"s3:{action}", f"{LAKE}/{key}", False, TLS)
    for bucket in ("lake-of-tests-evil", "another"):
        for folder in ("raw/stocks_daily/", "curated/stocks_daily/"):  # each role may list one of them in the lake
            prefix = {"s3:prefix": f"{PREFIX}/{folder}"}
            yield Row(role, "s3:ListBucket", f"arn:aws:s3:::{bucket}", False, TLS | prefix)
        yield Row(role, "s3:GetBucketLocation", f"arn:aws:s3:::{bucket}", False, TLS)
        for action in ("GetObject", "PutObject", "DeleteObject", "ListMultipartUploadParts"):
            for table in ("curated/stocks_daily", "serving", "athena-results"):
                yield Row(role, f"s3:{action}", f"arn:aws:s3:::{bucket}/{PREFIX}/{table}/x", False, TLS)


def _key(role: str) -> Iterator[Row]:
    via = {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}
    writes = any("w" in place.rights.get(role, "") for place in PLACES)
    for action, right in (("Decrypt", True), ("GenerateDataKey", writes), ("Encrypt", False), ("DescribeKey", False)):
        # iam-simulate does not compare the encryption context: an assertion of our own holds that condition.
        for key, services, allowed in (
            (KEY, via, right), (f"{KEY[:-1]}1", via, False), (f"{KEY}0", via, False), (KEY, {}, False),
            (KEY, {"kms:ViaService": f"sqs.{REGION}.amazonaws.com"}, False),
            (KEY, {"kms:ViaService": "s3.us-west-2.amazonaws.com"}, False),
        ):  # fmt: skip
            yield Row(role, f"kms:{action}", key, allowed, services, "key")


def _administrator() -> Iterator[Row]:
    """Who may do everything is still held to TLS and to landed files that are never replaced."""
    landed, other = "raw/stocks_daily/year=2023/x.csv", "curated/stocks_daily/x"
    create = TLS | {"s3:if-none-match": "*"}
    yield _s3("administrator", "PutObject", landed, True, create)
    yield _s3("administrator", "PutObject", landed, False)
    yield _s3("administrator", "PutObject", landed, False, TLS | {"s3:if-match": "tag"})
    yield _s3("administrator", "PutObject", f"raw/stocks_daily_evil/{landed}", True)
    yield Row("administrator", "s3:PutObject", f"{LAKE}/{landed}", True, TLS, "bucket")  # of another lake
    yield _s3("administrator", "GetObject", landed, True)
    yield _s3("administrator", "DeleteObject", landed, True)
    yield _s3("administrator", "PutObject", other, True)
    insecure = {"aws:SecureTransport": "false"}
    for action, allowed in (
        ("GetObject", False),
        ("PutObject", False),
        ("DeleteObject", False),
        ("PutObjectAcl", False),
    ):
        yield _s3("administrator", action, other, allowed, insecure)
    yield Row("administrator", "s3:ListBucket", LAKE, True, TLS, "bucket")
    for action in ("ListBucket", "GetBucketPolicy", "PutBucketPolicy"):
        yield Row("administrator", f"s3:{action}", LAKE, False, insecure, "bucket")


# Services.
ASKS_ATHENA = ("run", "run-jobs", "reader", "quicksight")
RUNS = ("run", "run-jobs")
COMPARES = (*RUNS, "upkeep", "repair")  # upkeep compares the warehouse with the lake, and loads nothing
GLUE_ONLY = ("crawler", "spectrum")


@dataclass(frozen=True)
class Service:
    """Resources of a service.

    - resources: ARNs of ours; neighbours: ARNs where nobody may do anything
    - actions: roles by action
    - never: actions that nobody may do
    - context: the keys of conditions of an allowed request; `needed`: those without which it is refused
    """

    resources: tuple[str, ...]
    actions: dict[str, tuple[str, ...]]
    never: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    context: tuple[tuple[str, str], ...] = ()


def documented(file: str, line: str) -> tuple[str, ...]:
    """The actions that a line of a table in docs/ names; `line` is a part of it that no other line has."""
    [found] = [
        text for text in (DOCS / file).read_text(encoding="utf-8").splitlines() if line in text and text.startswith("|")
    ]
    actions: list[str] = []
    for service, action in re.findall(r"`([a-z0-9-]+|…):([A-Za-z]+)`", found):
        actions.append(f"{actions[-1].partition(':')[0] if service == '…' else service}:{action}")
    return tuple(dict.fromkeys(actions))


def _arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"


def _to(roles: tuple[str, ...], *actions: Iterable[str]) -> dict[str, tuple[str, ...]]:
    return {action: roles for some in actions for action in some}


def _sum(*parts: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The roles of each action in any of `parts`."""
    found: dict[str, tuple[str, ...]] = {}
    for part in parts:
        for action, roles in part.items():
            found[action] = (*found.get(action, ()), *roles)
    return found


def services() -> Iterator[Service]:
    """What docs/ says that each service demands, by who asks it."""
    catalog = tuple(action for action in documented("aws.md", "| `catalog` |") if action.startswith("glue:"))
    queries = documented("aws.md", "`glue:BatchGetPartition`; for the views")
    reads = tuple(action for action in queries if not re.search("Create|Update", action))
    views = tuple(action for action in queries if action not in reads)
    crawls = ("CreateTable", "UpdateTable", "BatchCreatePartition", "UpdatePartition", "BatchUpdatePartition")
    yield Service(
        (_arn("glue", "catalog"), _arn("glue", "database/lakehouse"), _arn("glue", "table/lakehouse/curated_stocks_daily")),
        _sum(
            _to(RUNS, catalog, views),
            _to((*ASKS_ATHENA, *GLUE_ONLY), reads),
            _to(("crawler",), (f"glue:{action}" for action in crawls)),
        ),
        ("glue:DeleteDatabase", "glue:BatchDeleteTable", "glue:GetTableVersions"),
        (_arn("glue", "catalog2"), _arn("glue", "database/lakehouse2"),
         _arn("glue", "table/lakehouse2/x"), _arn("glue", "table/other/x"),
         _arn("glue", "database/other")),
    )  # fmt: skip
    crawlers = documented("aws.md", '`catalog_by = "crawl"`')
    named = tuple(
        action for action in crawlers if action not in ("glue:CreateCrawler", "glue:GetCrawlerMetrics", "iam:PassRole")
    )
    yield Service(
        tuple(_arn("glue", f"crawler/lakehouse_{kind}") for kind in ("delta", "files")),
        _to(RUNS, named),
        ("glue:DeleteCrawler", "glue:StopCrawler"),
        (
            _arn("glue", "crawler/lakehouse_other"),
            _arn("glue", "crawler/other"),
            _arn("glue", "crawler/lakehouse_delta2"),
            _arn("glue", "crawler/lakehouse_files2"),
        ),
    )
    yield Service(
        ("*",), _to(RUNS, ("glue:CreateCrawler", "glue:GetCrawlerMetrics")), ("glue:ListCrawlers", "glue:GetCrawlers")
    )
    yield Service(
        (_arn("athena", "workgroup/lakehouse"),),
        _sum(
            _to(ASKS_ATHENA, documented("aws.md", "`athena:StartQueryExecution`")),
            _to(RUNS, documented("aws.md", "`athena:CreateWorkGroup`")),
        ),
        ("athena:DeleteWorkGroup", "athena:CreateNamedQuery", "athena:BatchGetQueryExecution"),
        (_arn("athena", "workgroup/primary"), _arn("athena", "workgroup/lakehouse2")),
    )
    workgroup = _arn("redshift-serverless", "workgroup/RedshiftWorkgroupId")
    other = (_arn("redshift-serverless", "workgroup/another"), f"{workgroup}2")
    yield Service(
        (workgroup,),
        _sum(
            _to(RUNS, documented("warehouse.md", "`redshift-data:BatchExecuteStatement`")),
            _to(("upkeep", "repair"), ("redshift-data:ExecuteStatement",)),
            _to(COMPARES, documented("warehouse.md", "`redshift-serverless:GetCredentials`")),
        ),
        ("redshift-serverless:DeleteWorkgroup", "redshift-serverless:UpdateWorkgroup"),
        other,
    )
    yield Service(
        ("*",),
        _to(COMPARES, documented("warehouse.md", "`redshift-data:DescribeStatement`")),
        ("redshift-data:ListStatements",),
    )
    yield Service(
        (_arn("kinesis", "stream/stock_ticks"),),
        _to(("stream", "dagster"), documented("streaming.md", "`kinesis:GetRecords`")),
        ("kinesis:DeleteStream", "kinesis:PutRecord", "kinesis:PutRecords"),
        (_arn("kinesis", "stream/stock_ticks2"), _arn("kinesis", "stream/other")),
    )
    yield from _quicksight()
    yield from _tasks()
    yield from _passed()
    yield Service(
        (_arn("logs", "log-group:/aws-glue/crawlers"), _arn("logs", "log-group:/aws-glue/crawlers:log-stream:x")),
        _to(("crawler",), ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")),
        ("logs:DeleteLogGroup", "logs:GetLogEvents"),
        (_arn("logs", "log-group:/aws/ecs/x"), _arn("logs", "log-group:/aws-glue/jobs")),
    )
    # What no role needs at all.
    yield Service((_arn("secretsmanager", "secret:stock-x"),), {}, ("secretsmanager:GetSecretValue",))
    yield Service(
        ("*",),
        {},
        ("secretsmanager:ListSecrets", "ec2:DescribeNetworkInterfaces", "s3:ListAllMyBuckets", "iam:ListRoles"),
    )


def _quicksight() -> Iterator[Service]:
    def of(line: str) -> tuple[str, ...]:
        return tuple(action for action in documented("dashboards.md", line) if action.startswith("quicksight:"))

    tags, sets = of("`quicksight:ListTagsForResource`"), of("`quicksight:DescribeDataSet`")
    below = tuple(action for action in sets if re.search("Ingestion|RefreshSchedule", action))
    from_source = ("quicksight:CreateDataSet", "quicksight:UpdateDataSet")  # they also name the source of the rows
    never = ("quicksight:ListUsers", "quicksight:RegisterUser")
    yield Service(("*",), _to(RUNS, of("`quicksight:DescribeAccountSubscription`")), never)
    for resource, actions, neighbours in (
        (
            "datasource/stock-lakehouse",
            (*of("`quicksight:DescribeDataSource`"), *from_source, *tags),
            ("datasource/stock-lakehouse2", "datasource/other"),
        ),
        ("dataset/stock-lakehouse-daily", (*sets, *tags), ("dataset/stock-lakehouse", "dataset/other")),
        ("dataset/stock-lakehouse-daily/ingestion/1", below, ("dataset/stock-lakehouse/ingestion/1",)),
        ("dataset/stock-lakehouse-daily/refresh-schedule/1", below, ("dataset/other/refresh-schedule/1",)),
        (
            "dashboard/stock-lakehouse",
            (*of("`quicksight:DescribeDashboard`"), *tags),
            ("dashboard/stock-lakehouse2", "dashboard/other"),
        ),
    ):
        kind = {"datasource": "DataSource", "dataset": "DataSet", "dashboard": "Dashboard"}[resource.partition("/")[0]]
        others = tuple(_arn("quicksight", name) for name in neighbours)
        yield Service((_arn("quicksight", resource),), _to(RUNS, actions), (f"quicksight:Delete{kind}",), others)


def _tasks() -> Iterator[Service]:
    cluster = (("ecs:cluster", _arn("ecs", "cluster/Cluster")),)
    yield Service(
        (_arn("ecs", "task-definition/StackName-run:1"),), _to(("dagster",), ("ecs:RunTask",)), ("ecs:DeregisterTaskDefinition",),
        (_arn("ecs", "task-definition/other:1"), _arn("ecs", "task-definition/StackName-server:1")), cluster,
    )  # fmt: skip
    yield Service(
        (_arn("ecs", "task/Cluster/0a1b"),),
        _to(("dagster",), ("ecs:DescribeTasks", "ecs:StopTask", "ecs:TagResource")),
        ("ecs:ExecuteCommand", "ecs:UntagResource"),
        (_arn("ecs", "task/other/0a1b"), _arn("ecs", "task/Cluster2/0a1b")),
    )
    yield Service(
        ("*",), _to(("dagster",), ("ecs:DescribeTaskDefinition",)), ("ecs:ListTaskDefinitions", "ecs:ListClusters")
    )


def _passed() -> Iterator[Service]:
    """Which role may be given to what. `repair` and `job` are given to no task."""
    for roles, name, service in (
        *((("dagster",), name, "ecs-tasks") for name in ("RunRole", "RunJobsRole", "UpkeepRole", "StreamRole", "ExecutionRole")),
        (RUNS, "CrawlerRole", "glue"),
        (RUNS, "QuicksightRole", "quicksight"),
        *(((), name, "ecs-tasks") for name in ("RepairRole", "JobRole", "ReaderRole", "DagsterRole", "Admin")),
    ):  # fmt: skip
        to = (("iam:PassedToService", f"{service}.amazonaws.com"),)
        neighbours = (f"arn:aws:iam::{ACCOUNT}:role/{name}2",)
        yield Service(
            (f"arn:aws:iam::{ACCOUNT}:role/{name}",),
            {"iam:PassRole": roles},
            ("iam:DeleteRole", "iam:GetRole"),
            neighbours,
            to,
        )


def rows_of_services() -> Iterator[Row]:
    """Requests to services: what is demanded, what nobody may do, and the neighbours of our resources."""
    for service in services():
        context = dict(service.context)
        for role in ROLES:
            for resource in service.resources:
                for action, roles in service.actions.items():
                    yield Row(role, action, resource, role in roles, context)
                    for key in context:
                        yield Row(role, action, resource, False, {})
                        yield Row(role, action, resource, False, context | {key: "another"})
                for action in service.never:
                    yield Row(role, action, resource, False, context)
            for resource in service.neighbours:
                for action in service.actions:
                    yield Row(role, action, resource, False, context)


def rows() -> list[Row]:
    """Every row, each once."""
    return list({_identity(row): row for row in (*rows_of_lake(), *rows_of_services())}.values())


def _identity(row: Row) -> tuple[object, ...]:
    return row.role, row.action, row.resource, tuple(sorted(row.context.items()))


def likely(rows_of_role: Iterable[tuple[int, Row]], actions: Iterable[str], resource: str) -> Iterator[int]:
    """The rows of these actions on what `resource`, a pattern, names."""
    wanted = set(actions)
    for number, row in rows_of_role:
        if row.action in wanted and fnmatchcase(row.resource, resource):
            yield number
