"""Dagster on ECS: the dagster.yaml of its tasks, their variables, and the processes of the service.

Here: the facts that the file, the image and the template share. Not here: the tasks themselves (template.py), what a process does
when it starts (start.py), the dagster.yaml of a laptop or a server (instance/home.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stock_lakehouse.instance.home import CODE_LOCATION, CODE_MODULE, QUEUE, ROLES_VARIABLE

if TYPE_CHECKING:
    from stock_lakehouse.settings import Settings

# The variables that the template gives each container of the service, and the task of a run. No value is a secret.
VARIABLES: Final = {
    "AWS_REGION": "region of the database, and of all calls",
    "DAGSTER_POSTGRES_HOST": "host name of the database",
    "DAGSTER_ECS_CLUSTER": "name or ARN of the cluster in which runs start",
    "DAGSTER_ECS_RUN_TASK": "family of the task definition of a run",
    "DAGSTER_ECS_SUBNETS": "subnets of the task of a run, separated by commas",
    "DAGSTER_ECS_SECURITY_GROUPS": "its security groups, separated by commas",
    "DAGSTER_ECS_PUBLIC_IP": "ENABLED, or DISABLED in subnets with another way out",
    ROLES_VARIABLE: "JSON object of the ARN of the role of the runs of some jobs: upkeep, and stream while it is used",
    "DAGSTER_LOGS_BUCKET": "bucket of the output of runs",
    "DAGSTER_LOGS_PREFIX": "prefix of its objects: LOGS below the lake's root",
}
LOGS: Final = ".dagster/logs"  # place of the output of runs below the root of a lake on S3
RUN_CONTAINER: Final = "run"  # the container of the task of a run
DATABASE, DATABASE_USER, DATABASE_PORT = "dagster", "dagster", 5432
RDS_CA: Final = "/etc/stock-lakehouse/rds-ca.pem"  # in the image: the certificates that sign those of RDS
HOME: Final = "/tmp/dagster"  # in the image, whose root cannot be written: /tmp is a volume
CODE_PORT, UI_PORT = 4000, 3000

_HEAD: Final = f"""\
# The Dagster instance on ECS. Written by `stock-lakehouse deploy render`. A container fills in the variables when it starts.
storage:
  postgres:
    postgres_db:
      hostname: ${{DAGSTER_POSTGRES_HOST}}
      port: {DATABASE_PORT}
      db_name: {DATABASE}
      username: {DATABASE_USER}         # logs in by IAM: there is no password
      params:
        sslmode: verify-full
        sslrootcert: {RDS_CA}
    auth_provider:
      aws_wif:
        region: ${{AWS_REGION}}
run_launcher:                           # each run is a task of its own, so a deployment ends no run
  module: dagster_aws.ecs
  class: EcsRunLauncher
  config:
    task_definition: ${{DAGSTER_ECS_RUN_TASK}}
    container_name: {RUN_CONTAINER}
    secrets_tag: ""                     # without it: secretsmanager:ListSecrets on everything
    use_current_ecs_task_config: false  # without it: ec2:DescribeNetworkInterfaces on everything
    run_task_kwargs:
      cluster: ${{DAGSTER_ECS_CLUSTER}}
      launchType: FARGATE
      networkConfiguration:
        awsvpcConfiguration:
          subnets: [${{DAGSTER_ECS_SUBNETS}}]
          securityGroups: [${{DAGSTER_ECS_SECURITY_GROUPS}}]
          assignPublicIp: ${{DAGSTER_ECS_PUBLIC_IP}}
compute_logs:
  module: dagster_aws.s3.compute_log_manager
  class: S3ComputeLogManager
  config:
    bucket: ${{DAGSTER_LOGS_BUCKET}}
    prefix: ${{DAGSTER_LOGS_PREFIX}}
    skip_empty_files: true
    upload_interval: 60                 # seconds between uploads of the output of a run in progress
"""

# What the webserver and the daemon of the service load.
WORKSPACE: Final = f"""\
load_from:
  - grpc_server:
      host: 127.0.0.1
      port: {CODE_PORT}
      location_name: {CODE_LOCATION}
"""


@dataclass(frozen=True)
class Process:
    """A container of the service.

    - name: of the container
    - command: what the image's entry point becomes
    - health: a shell command that ends with 0 while the process is well. It takes about two seconds of a processor.
    """

    name: str
    command: tuple[str, ...]
    health: str


_WORKSPACE_OPTION = ("-w", f"{HOME}/workspace.yaml")
_UI = f"http://127.0.0.1:{UI_PORT}/server_info"
PROCESSES: Final = (
    Process(
        "code",
        ("dagster", "api", "grpc", "-h", "127.0.0.1", "-p", str(CODE_PORT), "-m", CODE_MODULE),
        f"dagster api grpc-health-check -p {CODE_PORT}",
    ),
    Process(
        "webserver",
        ("dagster-webserver", "-h", "127.0.0.1", "-p", str(UI_PORT), *_WORKSPACE_OPTION),
        f"python -c \"import urllib.request as u; u.urlopen('{_UI}', timeout=5)\"",
    ),
    Process("daemon", ("dagster-daemon", "run", *_WORKSPACE_OPTION), "dagster-daemon liveness-check"),
)


def dagster_yaml(settings: Settings) -> str:
    """The text of deploy/dagster.yaml, with VARIABLES as `${NAME}`. It is the same for all settings."""
    return _HEAD + QUEUE.format(dequeue_seconds=5, dequeue_why="seconds between looks at the queue", runs=4)
