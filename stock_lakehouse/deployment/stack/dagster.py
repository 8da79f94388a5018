"""Dagster on ECS: cluster, tasks, service, the images' repository, the database, logs and alarms.

Not here: what the processes are and what they read (production.py), and the roles of the tasks (stack/roles.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from stock_lakehouse.deployment.database import OWNER_VARIABLES
from stock_lakehouse.deployment.places import results_folder
from stock_lakehouse.deployment.production import (
    DATABASE,
    DATABASE_PORT,
    DATABASE_USER,
    LOGS,
    PROCESSES,
    RUN_CONTAINER,
)
from stock_lakehouse.deployment.rights import Role
from stock_lakehouse.deployment.stack.lake import LOG_DAYS
from stock_lakehouse.deployment.stack.notation import (
    Resource,
    Resources,
    Statement,
    allow,
    attribute,
    document,
    is_set,
    listed,
    ref,
    sub,
    trust,
    under,
)
from stock_lakehouse.instance.home import ROLES_VARIABLE
from stock_lakehouse.settings import variable_of

if TYPE_CHECKING:
    from stock_lakehouse.settings import Settings

OWNER = "dagster_owner"  # of the database; it has a password, which RDS keeps in Secrets Manager and renews
POSTGRES = "17"
HTTPS, SPARK_CONNECT = 443, 15002
USER = "10001"  # of the image
TMP = "/tmp"  # in a container, a volume of its own
NAMESPACE = "stock_lakehouse/${AWS::StackName}"  # of the metrics of log lines
# What Session Manager writes in each container that allows sessions; the root of the image cannot be written.
SESSION_FOLDERS = {"session-state": "/var/lib/amazon", "session-log": "/var/log/amazon"}
OWN_POLICIES = ("database", "sessions")  # in the roles themselves
# Settings that are the ARN of a role of the stack, by the role.
ROLE_SETTINGS = {
    "crawler": ("aws", "crawler_role"),
    "spectrum": ("redshift", "iam_role"),
    "quicksight": ("quicksight", "role"),
}
DAYS_WITHOUT_RUN = 4  # a weekend with a holiday on each side of it; an alarm looks back over 7 days at most


def secrets_of(settings: Settings) -> dict[str, tuple[str, str, str]]:
    """The secrets that the settings use: variable → parameter, key in the secret's JSON (empty: the whole secret), what it is."""
    found = {variable_of(("webhook_url",)): ("WebhookSecret", "", "address to which failed runs are posted")}
    if settings.engine == "databricks":
        what = "client_id and client_secret of a service principal of Databricks, as JSON"
        found["DATABRICKS_CLIENT_ID"] = ("DatabricksSecret", "client_id", what)
        found["DATABRICKS_CLIENT_SECRET"] = ("DatabricksSecret", "client_secret", what)
    if settings.stream.source == "kafka" and settings.stream.security == "sasl_ssl":
        found[variable_of(("stream", "password"))] = ("StreamSecret", "", "password of the stream's user")
    if settings.query_engine == "trino":
        found[variable_of(("trino", "password"))] = ("TrinoSecret", "", "password of the user on Trino")
    if settings.engine == "spark_connect":
        found[variable_of(("spark_remote",))] = ("SparkSecret", "", "address of the Spark Connect server")
    return found


def dagster_parameters(settings: Settings) -> dict[str, dict[str, Any]]:
    texts = {
        "Image": "Image of Dagster with its digest, in the repository of the output Repository. Empty: no Dagster, no database",
        "AlarmTopic": "ARN of the SNS topic that alarms are sent to. Empty: alarms tell nobody",
        **{
            parameter: f"ARN of the secret: {what}. Empty: none" for parameter, _, what in secrets_of(settings).values()
        },
    }
    found: dict[str, dict[str, Any]] = {
        name: {"Type": "String", "Default": "", "Description": text} for name, text in texts.items()
    }
    found["PublicIp"] = {
        "Type": "String",
        "Default": "DISABLED",
        "AllowedValues": ["DISABLED", "ENABLED"],
        "Description": "Whether tasks have a public address: their way out in subnets without a NAT gateway",
    }
    found["DatabaseClass"] = {
        "Type": "String",
        "Default": "db.t4g.micro",
        "Description": "Instance class of the database",
    }
    found["DatabaseZones"] = {
        "Type": "String",
        "Default": "one",
        "AllowedValues": ["one", "two"],
        "Description": "Zones with an instance of the database",
    }
    for name, default, what in (("RunCpu", 2048, "CPU units of a run"), ("RunMemory", 8192, "MB of memory of a run")):
        found[name] = {"Type": "Number", "Default": default, "Description": f"{what}, as Fargate offers them together"}
    return found


def dagster_conditions(settings: Settings) -> dict[str, Any]:
    parameters = {parameter for parameter, _, _ in secrets_of(settings).values()}
    return {
        "Dagster": {"Fn::And": [is_set("Image"), {"Condition": "HasVpc"}, {"Condition": "HasSubnets"}]},
        "HasTopic": is_set("AlarmTopic"),
        "TwoZones": {"Fn::Equals": [ref("DatabaseZones"), "two"]},
        **{f"Has{parameter}": is_set(parameter) for parameter in sorted(parameters)},
    }


def dagster_resources(settings: Settings, roles: Mapping[str, Role]) -> Resources:
    """Dagster's resources. All but the repository exist under the condition Dagster, with an image, a VPC and subnets."""
    by_jobs = settings.engine == "databricks" and settings.databricks.work == "job"
    shared = {"Environment": _environment(settings, roles), "Secrets": _secrets(settings)}
    run = _container(RUN_CONTAINER, ("true",), **shared)
    found: Resources = {
        "Logs": {
            "Type": "AWS::Logs::LogGroup",
            "Properties": {"RetentionInDays": LOG_DAYS, "KmsKeyId": attribute("Key")},
        },
        "ExecutionRole": _execution_role(settings),
        "Cluster": {
            "Type": "AWS::ECS::Cluster",
            "Properties": {"ClusterSettings": [{"Name": "containerInsights", "Value": "enabled"}]},
        },
        "TaskGroup": _task_group(settings),
        "DatabaseLogin": _login([role for role in roles.values() if role.trust == "ecs-tasks"]),
        "Sessions": _sessions(roles["dagster"]),
        "RunTask": _task("run", roles["run-jobs" if by_jobs else "run"], (ref("RunCpu"), ref("RunMemory")), [run]),
        "ServerTask": _task("server", roles["dagster"], ("1024", "4096"), _server_containers(shared), SESSION_FOLDERS),
        "Service": _service(
            "ServerTask", EnableExecuteCommand=True
        ),  # so that a port can be forwarded: the way to the UI
        "ServiceAlarm": _task_alarm("Service"),
        **_database(),
        **_alarms(settings),
    }
    if "stream" in roles:
        stream = _container("stream", ("stock-lakehouse", "stream", "run"), **shared)
        found["StreamTask"] = _task("stream", roles["stream"], ("1024", "4096"), [stream])
        found["StreamService"] = _service("StreamTask")
        found["StreamAlarm"] = _task_alarm("StreamService")
    return {"Repository": _repository()} | under("Dagster", found)


def _repository() -> Resource:
    # Old images end, so that the repository does not grow; the newest ten are a way back.
    keep = (
        '{"rules": [{"rulePriority": 1, "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 10}, '
        '"action": {"type": "expire"}}]}'
    )
    return {
        "Type": "AWS::ECR::Repository",
        "Properties": {
            "EmptyOnDelete": True,
            "EncryptionConfiguration": {"EncryptionType": "KMS", "KmsKey": attribute("Key")},
            "ImageScanningConfiguration": {"ScanOnPush": True},
            "ImageTagMutability": "IMMUTABLE",
            "LifecyclePolicy": {"LifecyclePolicyText": keep},
        },
    }


def _execution_role(settings: Settings) -> Resource:
    """What ECS itself does for a task: it pulls the image, writes the log and reads the secrets that are named."""
    pull = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    named = {parameter for parameter, _, _ in secrets_of(settings).values()}
    owner = sub("${Database.MasterUserSecret.SecretArn}")
    secrets = [{"Fn::If": [f"Has{name}", ref(name), ref("AWS::NoValue")]} for name in sorted(named)]
    of_secrets = {"StringEquals": {"kms:ViaService": sub("secretsmanager.${AWS::Region}.amazonaws.com")}}
    policy = document(
        allow("Image", pull, attribute("Repository")),
        allow("ImageLogin", ["ecr:GetAuthorizationToken"], "*"),  # AWS knows no resource of this action
        allow("Log", ["logs:CreateLogStream", "logs:PutLogEvents"], attribute("Logs")),
        allow("Secrets", ["secretsmanager:GetSecretValue"], [owner, *secrets]),
        allow("SecretsKey", ["kms:Decrypt"], attribute("Key"), Condition=of_secrets),
    )
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "Description": "ECS: image, log and secrets of the tasks",
            "AssumeRolePolicyDocument": trust("ecs-tasks"),
            "Policies": [{"PolicyName": "start", "PolicyDocument": policy}],
        },
    }


def _login(roles: Sequence[Role]) -> Resource:
    """Every process of Dagster, runs too, writes to Dagster's database."""
    user = (
        "arn:${AWS::Partition}:rds-db:${AWS::Region}:${AWS::AccountId}:dbuser:${Database.DbiResourceId}/"
        + DATABASE_USER
    )
    return _policy(OWN_POLICIES[0], roles, allow("Login", ["rds-db:connect"], sub(user)))


def _sessions(role: Role) -> Resource:
    """Forwarding of a port: an agent in the container opens channels to Session Manager."""
    actions = [
        f"ssmmessages:{action}{channel}Channel" for action in ("Create", "Open") for channel in ("Control", "Data")
    ]
    return _policy(OWN_POLICIES[1], [role], allow("Sessions", actions, "*"))  # AWS knows no resource of these actions


def _policy(name: str, roles: Sequence[Role], statement: Statement) -> Resource:
    return {
        "Type": "AWS::IAM::Policy",
        "Properties": {
            "PolicyName": name,
            "Roles": [ref(role.logical_id) for role in roles],
            "PolicyDocument": document(statement),
        },
    }


def _task(
    name: str,
    role: Role,
    size: tuple[Any, Any],
    containers: Sequence[Resource],
    folders: Iterable[str] = (),
) -> Resource:
    """A task definition. `size`: CPU units and MB of memory; `folders`: names of volumes beside those of /tmp."""
    volumes = [*(_temporary(container["Name"]) for container in containers), *folders]
    return {
        "Type": "AWS::ECS::TaskDefinition",
        "Properties": {
            "Family": sub(f"${{AWS::StackName}}-{name}"),
            "Cpu": size[0],
            "Memory": size[1],
            "NetworkMode": "awsvpc",
            "RequiresCompatibilities": ["FARGATE"],
            "TaskRoleArn": attribute(role.logical_id),
            "ExecutionRoleArn": attribute("ExecutionRole"),
            "ContainerDefinitions": list(containers),
            "Volumes": [{"Name": volume} for volume in volumes],
        },
    }


def _temporary(container: str) -> str:
    """The name of the volume that is /tmp in a container."""
    return f"tmp-{container}"


def _container(name: str, command: Sequence[str], **more: Any) -> Resource:
    log = {"awslogs-group": ref("Logs"), "awslogs-region": ref("AWS::Region"), "awslogs-stream-prefix": name}
    return {
        "Name": name,
        "Image": ref("Image"),
        **({"Command": list(command)} if command else {}),
        "User": USER,
        "ReadonlyRootFilesystem": True,
        "Essential": True,
        "LinuxParameters": {
            "InitProcessEnabled": True
        },  # which ends the children of a process, also those of a session
        "LogConfiguration": {"LogDriver": "awslogs", "Options": log},
        "MountPoints": [_mount(_temporary(name), TMP)],
        **more,
    }


def _mount(volume: str, path: str) -> Resource:
    return {"SourceVolume": volume, "ContainerPath": path, "ReadOnly": False}


def _server_containers(shared: Mapping[str, Any]) -> list[Resource]:
    """Dagster's processes; before them, once, the one that makes the database's user."""
    secret = "${Database.MasterUserSecret.SecretArn}"
    owner = {
        OWNER_VARIABLES["host"]: sub("${Database.Endpoint.Address}"),
        OWNER_VARIABLES["user"]: OWNER,
    }
    maker = _container(
        "database",
        (),
        # In place of the image's own, which writes Dagster's files and wants their variables.
        EntryPoint=["python", "-m", "stock_lakehouse.deployment.database"],
        Environment=_named(owner),
        Secrets=[{"Name": OWNER_VARIABLES["password"], "ValueFrom": sub(f"{secret}:password::")}],
    ) | {"Essential": False}
    processes = []
    for process in PROCESSES:
        container = _container(process.name, process.command, **shared)
        container["MountPoints"] += [_mount(volume, path) for volume, path in SESSION_FOLDERS.items()]
        container["HealthCheck"] = {
            "Command": ["CMD-SHELL", process.health],
            "Interval": 30,
            "Timeout": 20,
            "Retries": 3,
            "StartPeriod": 120,
        }
        container["DependsOn"] = [{"ContainerName": "database", "Condition": "SUCCESS"}]
        if process.name != PROCESSES[0].name:
            container["DependsOn"].append({"ContainerName": PROCESSES[0].name, "Condition": "HEALTHY"})
        processes.append(container)
    return [maker, *processes]


def _named(variables: Mapping[str, Any]) -> list[Resource]:
    return [{"Name": name, "Value": value} for name, value in variables.items()]


def _environment(settings: Settings, roles: Mapping[str, Role]) -> list[Resource]:
    """The variables of production.VARIABLES, and the settings that are names of the stack."""
    of_jobs = {name: f"${{{roles[name].logical_id}.Arn}}" for name in ("upkeep", "stream") if name in roles}
    variables: dict[str, Any] = {
        "AWS_REGION": ref("AWS::Region"),
        "DAGSTER_POSTGRES_HOST": sub("${Database.Endpoint.Address}"),
        "DAGSTER_ECS_CLUSTER": ref("Cluster"),
        "DAGSTER_ECS_RUN_TASK": sub("${AWS::StackName}-run"),
        "DAGSTER_ECS_SUBNETS": ref("SubnetIds"),
        "DAGSTER_ECS_SECURITY_GROUPS": attribute("TaskGroup", "GroupId"),
        "DAGSTER_ECS_PUBLIC_IP": ref("PublicIp"),
        ROLES_VARIABLE: sub(json.dumps(of_jobs)),
        "DAGSTER_LOGS_BUCKET": ref("Lake"),
        "DAGSTER_LOGS_PREFIX": sub(f"${{Prefix}}/{LOGS}"),
        variable_of(("lake_root",)): sub("s3://${Lake}/${Prefix}"),
    }
    if folder := results_folder(settings):
        variables[variable_of(("aws", "athena_results"))] = sub(f"s3://${{Lake}}/${{Prefix}}/{folder}")
    for name, path in ROLE_SETTINGS.items():
        if name in roles:
            variables[variable_of(path)] = attribute(roles[name].logical_id)
    return _named(variables)


def _secrets(settings: Settings) -> list[Resource]:
    """What ECS reads from Secrets Manager when a task starts; after a rotation a new deployment reads it again."""
    found = []
    for variable, (parameter, key, _) in secrets_of(settings).items():
        value = sub(f"${{{parameter}}}:{key}::") if key else ref(parameter)
        secret = {"Name": variable, "ValueFrom": value}
        found.append({"Fn::If": [f"Has{parameter}", secret, ref("AWS::NoValue")]})
    return found


def _service(task: str, **more: Any) -> Resource:
    """A service of one task, of which there are never two at once: two daemons would request each run twice."""
    network = {
        "Subnets": listed("SubnetIds"),
        "SecurityGroups": [attribute("TaskGroup", "GroupId")],
        "AssignPublicIp": ref("PublicIp"),
    }
    return {
        "Type": "AWS::ECS::Service",
        "DependsOn": ["DatabaseLogin", "Sessions"],  # a task that starts before its rights fails
        "Properties": {
            "Cluster": ref("Cluster"),
            "TaskDefinition": ref(task),
            "DesiredCount": 1,
            "LaunchType": "FARGATE",
            "PlatformVersion": "LATEST",
            "DeploymentConfiguration": {"MaximumPercent": 100, "MinimumHealthyPercent": 0},
            "NetworkConfiguration": {"AwsvpcConfiguration": network},
            "PropagateTags": "SERVICE",
            **more,
        },
    }


def _task_group(settings: Settings) -> Resource:
    """Out alone: AWS, Databricks and the source by HTTPS, the database, and what else the settings name."""
    ports = {HTTPS: "AWS, Databricks and the source", DATABASE_PORT: "The database"}
    if settings.stream.source == "kafka" and settings.stream.servers:
        ports |= {int(server.rpartition(":")[2]): "Kafka" for server in settings.stream.servers.split(",")}
    if settings.query_engine == "trino":
        ports.setdefault(urlsplit(str(settings.trino.url)).port or HTTPS, "Trino")
    if settings.engine == "spark_connect":
        ports[SPARK_CONNECT] = "Spark Connect"
    return {
        "Type": "AWS::EC2::SecurityGroup",
        "Properties": {
            "GroupDescription": "Tasks of Dagster: nothing comes in",
            "VpcId": ref("VpcId"),
            "SecurityGroupEgress": [_rule(port, what, CidrIp="0.0.0.0/0") for port, what in sorted(ports.items())],
        },
    }


def _rule(port: int, description: str, **other_end: Any) -> Resource:
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "Description": description, **other_end}


def _database() -> Resources:
    incoming = _rule(DATABASE_PORT, "Dagster's tasks", SourceSecurityGroupId=attribute("TaskGroup", "GroupId"))
    nowhere = _rule(DATABASE_PORT, "The database opens no connection", CidrIp="127.0.0.1/32")
    return {
        "DatabaseGroup": {
            "Type": "AWS::EC2::SecurityGroup",
            "Properties": {
                "GroupDescription": "Database of Dagster",
                "VpcId": ref("VpcId"),
                "SecurityGroupIngress": [incoming],
                "SecurityGroupEgress": [nowhere],
            },
        },
        "DatabaseSubnets": {
            "Type": "AWS::RDS::DBSubnetGroup",
            "Properties": {"DBSubnetGroupDescription": "Database of Dagster", "SubnetIds": listed("SubnetIds")},
        },
        "Database": {
            "Type": "AWS::RDS::DBInstance",
            "DeletionPolicy": "Snapshot",
            "UpdateReplacePolicy": "Snapshot",
            "Properties": {
                "Engine": "postgres",
                "EngineVersion": POSTGRES,
                "DBInstanceClass": ref("DatabaseClass"),
                "DBName": DATABASE,
                "Port": str(DATABASE_PORT),
                "MasterUsername": OWNER,
                "ManageMasterUserPassword": True,
                "MasterUserSecret": {"KmsKeyId": attribute("Key")},
                "EnableIAMDatabaseAuthentication": True,
                "AllocatedStorage": "20",
                "MaxAllocatedStorage": 100,
                "StorageType": "gp3",
                "StorageEncrypted": True,
                "KmsKeyId": attribute("Key"),
                "MultiAZ": {"Fn::If": ["TwoZones", True, False]},
                "DBSubnetGroupName": ref("DatabaseSubnets"),
                "VPCSecurityGroups": [attribute("DatabaseGroup", "GroupId")],
                "PubliclyAccessible": False,
                "BackupRetentionPeriod": 7,
                "CopyTagsToSnapshot": True,
                "AutoMinorVersionUpgrade": True,
                "EnableCloudwatchLogsExports": ["postgresql"],
            },
        },
    }


def _alarms(settings: Settings) -> Resources:
    found: Resources = {
        "ErrorLines": _lines('"- ERROR -"', "Errors"),
        "ErrorAlarm": _alarm(
            "Dagster logged an error",
            _own_metric("Errors"),
            {"Statistic": "Sum", "Period": 300, "EvaluationPeriods": 1, "TreatMissingData": "notBreaching"},
            "GreaterThanThreshold",
            0,
        ),
        "StorageAlarm": _alarm(
            "The database has less than 2 GB of free storage",
            _metric("AWS/RDS", "FreeStorageSpace", DBInstanceIdentifier=ref("Database")),
            {"Statistic": "Minimum", "Period": 300, "EvaluationPeriods": 3},
            "LessThanThreshold",
            2_000_000_000,
        ),
    }
    if settings.automation != "off":
        found["RunLines"] = _lines("RUN_SUCCESS", "Runs")
        found["RunAlarm"] = _alarm(
            f"No run ended well for {DAYS_WITHOUT_RUN} days, so the newest session is older than that",
            _own_metric("Runs"),
            {
                "Statistic": "Sum",
                "Period": 86400,
                "EvaluationPeriods": DAYS_WITHOUT_RUN,
                "TreatMissingData": "breaching",
            },
            "LessThanThreshold",
            1,
        )
    return found


def _task_alarm(service: str) -> Resource:
    dimensions = {"ClusterName": ref("Cluster"), "ServiceName": attribute(service, "Name")}
    return _alarm(
        "The service has no running task",
        _metric("ECS/ContainerInsights", "RunningTaskCount", **dimensions),
        {"Statistic": "Minimum", "Period": 60, "EvaluationPeriods": 10, "TreatMissingData": "breaching"},
        "LessThanThreshold",
        1,
    )


def _lines(pattern: str, metric: str) -> Resource:
    """A metric of the log lines with `pattern`."""
    counted = {"MetricNamespace": sub(NAMESPACE), "MetricName": metric, "MetricValue": "1", "DefaultValue": 0}
    return {
        "Type": "AWS::Logs::MetricFilter",
        "Properties": {"LogGroupName": ref("Logs"), "FilterPattern": pattern, "MetricTransformations": [counted]},
    }


def _metric(namespace: Any, name: str, **dimensions: Any) -> Resource:
    return {
        "Namespace": namespace,
        "MetricName": name,
        "Dimensions": [{"Name": dimension, "Value": value} for dimension, value in dimensions.items()],
    }


def _own_metric(name: str) -> Resource:
    return {"Namespace": sub(NAMESPACE), "MetricName": name}


def _alarm(what: str, metric: Resource, evaluation: Mapping[str, Any], operator: str, threshold: float) -> Resource:
    return {
        "Type": "AWS::CloudWatch::Alarm",
        "Properties": {
            "AlarmDescription": what,
            **metric,
            **evaluation,
            "ComparisonOperator": operator,
            "Threshold": threshold,
            "AlarmActions": {"Fn::If": ["HasTopic", [ref("AlarmTopic")], ref("AWS::NoValue")]},
        },
    }
