"""databricks.yml: what `databricks bundle deploy` makes in a workspace, from the settings.

Here: the bundle as data. Not here: what bundles have no type for (workspace.py), and the jobs of the layers and of the stream:
Dagster submits those, because each carries its order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stock_lakehouse import __version__
from stock_lakehouse.deployment.rights import DeploymentError
from stock_lakehouse.engines.databricks import SERVERLESS_VERSION, WHEEL

if TYPE_CHECKING:
    from stock_lakehouse.settings import Databricks, Settings

NAME = "stock_lakehouse"
CLI = ">= 1.22.1"  # the first versions of the CLI have neither cluster policies nor libraries of a cluster
BUILT = f"./dist/{WHEEL}"
RUNTIME, NODE_TYPE = "17.3.x-scala2.13", "m6id.xlarge"  # Spark 4 and Python 3.12; a node with a disk of its own
PYTHON = "3.12"  # of this runtime, and of serverless environment 4
RUNTIME_17_OR_NEWER = r"(1[7-9]|[2-9][0-9])\..*"
IDLE_MINUTES = 20
CHECK_SECONDS = 1800  # a terminated cluster starts first
DEV = {"mode": "development", "default": True, "variables": {"principal": "${workspace.current_user.userName}"}}
ROOT = "/Workspace/Users/${var.principal}/.bundle/${bundle.name}/${bundle.target}"


def bundle(settings: Settings) -> dict[str, Any]:
    """The content of databricks.yml. Names of a workspace, an account or a lake are variables of the bundle.

    Raises DeploymentError for a lake that the compute could not reach.
    """
    if reason := settings.unreachable_by_serverless:
        raise DeploymentError(reason)
    databricks = settings.databricks
    return {
        "bundle": {"name": NAME, "databricks_cli_version": CLI},
        "sync": {"paths": []},  # the wheel is all that the workspace needs
        "variables": _variables(databricks),
        "artifacts": {
            "wheel": {
                "type": "whl",
                "path": ".",
                "build": "python3 -m pip wheel --no-deps --wheel-dir dist ${var.sources}",
                "files": [{"source": BUILT}],
            }
        },
        "resources": _resources(databricks),
        "targets": {"dev": DEV, "production": _production(databricks)},
    }


def wheel_in_production(principal: str) -> str:
    """Where the bundle puts the wheel in production, for jobs that Dagster submits: the value of `databricks.wheel`.

    It is in the home folder of the service principal `principal`, where nobody else but administrators writes.
    """
    root = f"/Workspace/Users/{principal}/.bundle/{NAME}/production"
    return f"{root}/artifacts/.internal/{WHEEL}"


def _variables(databricks: Databricks) -> dict[str, Any]:
    cluster = databricks.job_cluster or {}
    variables: dict[str, tuple[str, Any]] = {
        "sources": (f"What `pip wheel` builds: a folder of sources, or a requirement like stock-lakehouse=={__version__}.", ".."),
        "principal": (
            "Whose the jobs and clusters are: in production the application id of a service principal.",
            None,
        ),
        "program": ("Version of the program that Dagster runs; the job `check` compares it with the wheel's.", __version__),
        "python": ("Minor version of Python that the program runs on; sessions need the cluster's.", PYTHON),
    }  # fmt: skip
    if volume := _volume(databricks):
        variables["catalog"] = "Catalog of the schema; it has to exist.", volume[0]
        variables["schema"] = "Schema of the volume; it is created.", volume[1]
    if not databricks.serverless:
        variables |= {
            "instance_profile": ("ARN of the job role's instance profile: the stack's output JobInstanceProfile.", None),
            "region": ("Region of the lake's bucket.", None),
            "runtime": ("Databricks Runtime of the clusters, 17 or newer.", cluster.get("spark_version", RUNTIME)),
            "node_type": ("Node type of the cluster for sessions.", cluster.get("node_type_id", NODE_TYPE)),
            "workers": ("Workers of the cluster for sessions.", 1),
            "most_workers": ("Workers that a cluster of the policy may have.", 16),
        }  # fmt: skip
    return {
        name: {"description": description} if default is None else {"description": description, "default": default}
        for name, (description, default) in variables.items()
    }


def _volume(databricks: Databricks) -> list[str] | None:
    """Catalog, schema and volume of `messages`; those of the defaults without it. None: messages are exchanged on S3."""
    messages = databricks.messages or "/Volumes/main/stock_lakehouse/messages"
    parts = messages.split("/")[2:5]
    if messages.startswith("s3://"):
        return None
    if len(parts) < 3 or not all(parts):
        raise DeploymentError(
            f"databricks.messages: {messages} names no volume; set it to /Volumes/CATALOG/SCHEMA/VOLUME, or a folder below"
        )
    return parts


def _resources(databricks: Databricks) -> dict[str, Any]:
    resources: dict[str, Any] = {"jobs": {"check": _check(databricks)}}
    if volume := _volume(databricks):
        resources["schemas"] = {
            "lakehouse": {
                "catalog_name": "${var.catalog}",
                "name": "${var.schema}",
                "comment": "Of stock_lakehouse: messages of its jobs. The tables of the lake are on S3.",
            }
        }
        resources["volumes"] = {
            "messages": {
                "catalog_name": "${var.catalog}",
                "schema_name": "${resources.schemas.lakehouse.name}",  # a deployment to dev renames the schema
                "name": volume[2],
                "volume_type": "MANAGED",
                "comment": "Messages between Dagster and its jobs.",
            }
        }
    if not databricks.serverless:
        resources["cluster_policies"] = {"lakehouse": {"name": NAME, "definition": policy()}}
        resources["clusters"] = {"sessions": _sessions()}
    return resources


def policy() -> dict[str, Any]:
    """The cluster policy: one user, the instance profile, a runtime that the program supports, bounded size and idle time.

    It is for the cluster of the sessions and for the clusters of jobs, of layers and of a stream. A job's cluster ends with its
    job, so an idle time is optional. The driver is never a spot instance: a stream would stop with it.
    """
    return {
        "data_security_mode": {"type": "fixed", "value": "SINGLE_USER"},
        "single_user_name": {"type": "fixed", "value": "${var.principal}"},
        "spark_version": {"type": "regex", "pattern": RUNTIME_17_OR_NEWER, "defaultValue": "${var.runtime}"},
        "aws_attributes.instance_profile_arn": {"type": "fixed", "value": "${var.instance_profile}"},
        "aws_attributes.availability": {
            "type": "allowlist",
            "values": ["SPOT_WITH_FALLBACK", "ON_DEMAND"],
            "defaultValue": "SPOT_WITH_FALLBACK",
        },
        "aws_attributes.first_on_demand": {"type": "range", "minValue": 1, "defaultValue": 1},
        "spark_env_vars.AWS_REGION": {"type": "fixed", "value": "${var.region}"},
        "num_workers": {"type": "range", "maxValue": "${var.most_workers}", "isOptional": True},
        "autoscale.max_workers": {"type": "range", "maxValue": "${var.most_workers}", "isOptional": True},
        "autotermination_minutes": {
            "type": "range",
            "minValue": 10,
            "maxValue": 120,
            "defaultValue": IDLE_MINUTES,
            "isOptional": True,
        },
        "custom_tags.project": {"type": "fixed", "value": NAME},
    }


def _sessions() -> dict[str, Any]:
    return {
        "cluster_name": NAME,
        "policy_id": "${resources.cluster_policies.lakehouse.id}",
        "data_security_mode": "SINGLE_USER",
        "single_user_name": "${var.principal}",
        "spark_version": "${var.runtime}",
        "node_type_id": "${var.node_type}",
        "num_workers": "${var.workers}",
        "autotermination_minutes": IDLE_MINUTES,
        "aws_attributes": {
            "instance_profile_arn": "${var.instance_profile}",
            "availability": "SPOT_WITH_FALLBACK",
            "first_on_demand": 1,
        },
        # The lake's bucket is read with the instance profile, but nothing on a cluster tells the program its region.
        "spark_env_vars": {"AWS_REGION": "${var.region}"},
        "custom_tags": {"project": NAME},
        "libraries": [{"whl": BUILT}],
    }


def _check(databricks: Databricks) -> dict[str, Any]:
    """The job that runs databricks_jobs/check.py: on serverless compute, and on the cluster of the sessions."""
    tasks = [_check_task("serverless", environment_key=NAME)]
    if not databricks.serverless:
        cluster = "${resources.clusters.sessions.id}"
        tasks.append(_check_task("cluster", existing_cluster_id=cluster, libraries=[{"whl": BUILT}]))
    environment = {"environment_version": SERVERLESS_VERSION, "dependencies": [BUILT]}
    return {
        "name": f"{NAME} check",
        "description": "Imports the package and TA-Lib, and compares versions. It reads no data.",
        "max_concurrent_runs": 1,
        "environments": [{"environment_key": NAME, "spec": environment}],
        "tasks": tasks,
    }


def _check_task(name: str, **compute: Any) -> dict[str, Any]:
    parameters = {"program": "${var.program}", "python": "${var.python}"}
    wheel_task = {"package_name": NAME, "entry_point": "check", "named_parameters": parameters}
    return {"task_key": name, **compute, "python_wheel_task": wheel_task, "timeout_seconds": CHECK_SECONDS}


def _production(databricks: Databricks) -> dict[str, Any]:
    """The target whose jobs and clusters are a service principal's, with the rights that it needs on the rest."""
    resources: dict[str, Any] = {}
    if _volume(databricks):
        resources["schemas"] = {"lakehouse": {"grants": [_grant("USE_SCHEMA")]}}
        resources["volumes"] = {"messages": {"grants": [_grant("READ_VOLUME", "WRITE_VOLUME")]}}
    if not databricks.serverless:
        resources["cluster_policies"] = {"lakehouse": {"permissions": [{"level": "CAN_USE", **_principal()}]}}
        resources["clusters"] = {"sessions": {"permissions": [{"level": "CAN_RESTART", **_principal()}]}}
    return {
        "mode": "production",
        "workspace": {"root_path": ROOT},
        "run_as": _principal(),
        **({"resources": resources} if resources else {}),
    }


def _principal() -> dict[str, str]:
    return {"service_principal_name": "${var.principal}"}


def _grant(*privileges: str) -> dict[str, Any]:
    return {"principal": "${var.principal}", "privileges": list(privileges)}
