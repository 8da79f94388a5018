"""The settings: lakehouse.toml and STOCK_LAKEHOUSE_* variables, validated into typed fields.

Here: names, types, defaults and the errors for wrong values. Not here: anything that acts on a setting.

A new layer gets a group: a subclass of `Group`, and a field of Settings with that type. Its table in lakehouse.toml, its
variables, the errors for unknown names and the refusal of secrets in the file are derived from the fields.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from stock_lakehouse.exchanges import known_from, listed_elsewhere
from stock_lakehouse.indicators.own import IndicatorError, own_indicators, read_source
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.sources.sample_data import SAMPLE_LAST

PREFIX = "STOCK_LAKEHOUSE_"
CONFIG_VARIABLE = PREFIX + "CONFIG"
# The Delta libraries treat a path as a URL, so they do not find a folder whose name has [, %, # or a quote.
FOLDER = re.compile(r"[\w ./&+=@,;:!$'()-]+")
IDENTIFIER = "^[a-z_][a-z0-9_]{0,126}$"  # of a schema, without quotes
SIMILARITY = 0.85  # of a misspelt name to the setting that is meant
MOST_SENTENCES = 5  # in one message about tickers of other exchanges

M = TypeVar("M", bound=BaseModel)


class SettingsError(Exception):
    """lakehouse.toml or a variable is wrong. The message names each wrong field and the allowed values."""


class Group(BaseModel):
    """The settings of one layer.

    A group that is the field `name` of Settings is read from the table [name] of lakehouse.toml and from the variables
    STOCK_LAKEHOUSE_<NAME>_<FIELD>.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    credentials: ClassVar[str] = ""  # the source of the layer's credentials; ends the error for an unknown name


class Databricks(Group):
    """The workspace, the compute and the jobs on Databricks.

    Credentials are not among the settings: the Databricks SDK reads its own variables and profiles.
    """

    credentials = "credentials come from the Databricks SDK's variables, like DATABRICKS_TOKEN"

    host: str | None = Field(
        default=None,
        pattern="^https?://[^/]+/?$",
        description="Address of the workspace, `https://…`. None: `DATABRICKS_HOST`, or the profile's.",
    )
    profile: str | None = Field(
        default=None, description="Profile of `~/.databrickscfg`. None: `DATABRICKS_CONFIG_PROFILE`."
    )
    cluster_id: str | None = Field(
        default=None, description="Cluster for sessions, and for jobs without `job_cluster`."
    )
    serverless: bool = Field(
        default=False,
        description="Sessions run on serverless compute. Set this or `cluster_id`. It has no instance profile, so "
        "the lake and `messages` have to be on a volume, not on S3.",
    )
    start_minutes: float = Field(default=20.0, gt=0, description="How long a terminated cluster may take to start.")
    work: Literal["auto", "session", "job"] = Field(
        default="auto",
        description="`session`: runs use Spark Connect. `job`: runs use Databricks jobs. `auto`: jobs from `job_bars` on.",
    )
    job_bars: int = Field(
        default=100_000, ge=1, description='With `work = "auto"`: number of ticker-sessions from which a run uses jobs.'
    )
    job_cluster: dict[str, Any] | None = Field(
        default=None, description="New cluster for each job, as the Clusters API writes it. As a variable: JSON."
    )
    job_minutes: float = Field(default=240.0, gt=0, description="How long a job may take.")
    wheel: str | None = Field(
        default=None,
        description="This package's wheel, as Databricks sees it. Needed for jobs on a new cluster or serverless compute.",
    )
    workspace_folder: str = Field(
        default="/Workspace/Shared/stock_lakehouse", description="Workspace folder where the script of the jobs is put."
    )
    messages: str | None = Field(
        default=None,
        pattern="^(/Volumes/.+|s3://[^/]+/?)$",
        description="Where jobs and Dagster exchange messages: `/Volumes/…` or `s3://bucket`. Without it no run uses jobs.",
    )

    @property
    def job_compute(self) -> str:
        """Where jobs run: a new cluster if `job_cluster` is set, else the cluster of the sessions, else serverless compute."""
        if self.job_cluster:
            return "a new cluster"
        return f"cluster {self.cluster_id}" if self.cluster_id else "serverless compute"

    @property
    def sends_serverless_jobs_to_s3(self) -> bool:
        """Whether jobs on serverless compute, which has no instance profile, would exchange messages on S3."""
        is_serverless = self.serverless and not self.job_cluster and self.work != "session"
        return is_serverless and self.messages is not None and self.messages.startswith("s3://")

    @model_validator(mode="after")
    def _check_together(self) -> Databricks:
        if self.cluster_id and self.serverless:
            raise ValueError("cluster_id, serverless: set one of them")
        if self.work == "session" and self.job_cluster:
            raise ValueError("job_cluster: not used with work = 'session'")
        if self.work == "job" and self.messages is None:
            raise ValueError("messages: needed with work = 'job', a volume's folder (/Volumes/…) or s3://bucket")
        if self.messages and self.wheel is None and (self.job_cluster or not self.cluster_id):
            raise ValueError(
                "wheel: needed for jobs on a new cluster or serverless, this package's wheel on Databricks"
            )
        return self


class Aws(Group):
    """The Glue database of the lake, the crawlers, and Athena's workgroup.

    Credentials, region and endpoints are not among the settings: boto3 reads its own variables and profiles.
    """

    credentials = "credentials and region come from boto3's variables and profiles, like AWS_PROFILE and AWS_REGION"

    glue_database: str = Field(
        default="lakehouse",
        pattern="^[a-z0-9_]{1,128}$",
        description="Glue database of the lake's tables; it is created if it does not exist.",
    )
    catalog_by: Literal["register", "crawl"] = Field(
        default="register",
        description="What writes the tables to Glue: `register`, this program; or `crawl`, also Glue crawlers, which need "
        "`crawler_role`; see docs/aws.md#crawlers.",
    )
    crawler_role: str | None = Field(
        default=None, description='Name or ARN of the IAM role of the crawlers. Needed with `catalog_by = "crawl"`.'
    )
    athena_workgroup: str = Field(
        default="lakehouse",
        pattern="^[a-zA-Z0-9._-]{1,128}$",
        description="Athena workgroup of all queries; it is created if it does not exist.",
    )
    athena_results: str | None = Field(
        default=None,
        pattern="^s3://.+",
        description='Where Athena puts results, `s3://bucket/prefix`. Needed with `query_engine = "athena"`.',
    )
    athena_kms_key: str | None = Field(
        default=None,
        pattern="^arn:aws[a-z-]*:kms:.+",
        description="ARN of the KMS key that encrypts Athena's results. None: S3's own keys (SSE_S3).",
    )
    athena_scan_limit_mb: int = Field(
        default=1000, ge=10, description="MB that a query may scan; Athena cancels a query that scans more."
    )
    athena_dollars_per_tb: float = Field(
        default=5.0, ge=0, description="Price of a scanned TB, from which the cost of a query is computed."
    )

    @model_validator(mode="after")
    def _check_together(self) -> Aws:
        if self.catalog_by == "crawl" and self.crawler_role is None:
            raise ValueError(
                "crawler_role: needed with catalog_by = 'crawl', the IAM role that the crawlers use; or set catalog_by to "
                "register, which needs none"
            )
        return self


class Trino(Group):
    """A Trino server whose catalog has the lake's tables."""

    credentials = f"the password comes from {PREFIX}TRINO_PASSWORD"

    url: str | None = Field(
        default=None,
        pattern="^https?://[^/]+/?$",
        description='Address of the server, `https://host:port`. Needed with `query_engine = "trino"`.',
    )
    user: str = Field(default="stock_lakehouse", min_length=1, description="User of the queries.")
    catalog: str | None = Field(
        default=None, description='Catalog of the lake\'s tables on Trino. Needed with `query_engine = "trino"`.'
    )
    schema_name: str = Field(
        default="lakehouse", min_length=1, description="Schema of the lake's tables in that catalog: the Glue database."
    )
    password: SecretStr | None = Field(default=None, description="Password of `user`. It is a secret.")

    @model_validator(mode="after")
    def _check_together(self) -> Trino:
        if self.password is not None and self.url is not None and self.url.startswith("http://"):
            raise ValueError(f"url: {self.url} would send the password unencrypted; set an address with https://")
        return self


class Redshift(Group):
    """The Redshift database of the warehouse.

    Credentials and region are not among the settings: boto3 reads its own variables and profiles.
    """

    credentials = "credentials and region come from boto3's variables and profiles, like AWS_PROFILE and AWS_REGION"

    workgroup: str | None = Field(
        default=None,
        pattern="^[a-z0-9-]{3,64}$",
        description="Workgroup of Redshift Serverless. Set this or `cluster`.",
    )
    cluster: str | None = Field(
        default=None,
        pattern="^[a-z][a-z0-9-]{0,62}$",
        description="Identifier of a provisioned cluster. Set this or `workgroup`.",
    )
    db_user: str | None = Field(
        default=None,
        min_length=1,
        description="Database user on a provisioned cluster. None: the user that IAM gives.",
    )
    database: str = Field(default="dev", min_length=1, description="Database of the schemas.")
    schema_name: str = Field(
        default="stocks",
        pattern=IDENTIFIER,
        description="Schema of the native tables; it is created if it does not exist.",
    )
    external_schema: str = Field(
        default="stocks_lake",
        pattern=IDENTIFIER,
        description="External schema over the Glue database; it is created if it does not exist.",
    )
    iam_role: str = Field(
        default="default",
        pattern="^(default|arn:aws[a-z-]*:iam::.+)$",
        description="ARN of the role with which Redshift reads Glue and the bucket; `default`: the database's own.",
    )
    hot_years: int | None = Field(
        default=None,
        ge=1,
        description="Newest years that are loaded; a view adds the older ones from the lake. None: all years are loaded.",
    )
    readers: tuple[str, ...] = Field(
        default=(),
        description="Who may read the schemas: `group NAME`, `role NAME` or a user's name.",
    )
    statement_minutes: float = Field(
        default=30.0, gt=0, description="How long a statement of a load may take. Then it is cancelled."
    )

    @model_validator(mode="after")
    def _check_together(self) -> Redshift:
        if self.workgroup and self.cluster:
            raise ValueError("workgroup, cluster: set one of them")
        if self.db_user and not self.cluster:
            raise ValueError("db_user: goes with cluster alone; on a workgroup IAM names the user")
        return self


class QuickSight(Group):
    """The data source, data sets and dashboard on Amazon QuickSight.

    Credentials and region are not among the settings: boto3 reads its own variables and profiles.
    """

    credentials = "credentials and region come from boto3's variables and profiles, like AWS_PROFILE and AWS_REGION"

    source: Literal["athena", "redshift"] = Field(
        default="athena", description="What the data sets are read from: Athena, or the warehouse on Redshift."
    )
    name: str = Field(
        default="stock-lakehouse",
        pattern="^[a-zA-Z0-9_-]{1,100}$",
        description="Identifier of the dashboard. Those of the data source and of the data sets begin with it.",
    )
    namespace: str = Field(
        default="default", pattern="^[a-zA-Z0-9._-]{1,64}$", description="Namespace of the users and groups."
    )
    readers: tuple[str, ...] = Field(
        default=(), description="Who may look at the dashboard: `user NAME` or `group NAME`."
    )
    authors: tuple[str, ...] = Field(
        default=(),
        description="Who may also change and delete it, and use its data sets: `user NAME` or `group NAME`.",
    )
    role: str | None = Field(
        default=None,
        pattern="^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+",
        description="ARN of the role with which QuickSight reads from Athena, or from a Redshift cluster. None: QuickSight's own "
        "role, which reads from Athena.",
    )
    secret: str | None = Field(
        default=None,
        pattern="^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:.+",
        description="ARN of the secret in Secrets Manager that has user and password of Redshift. Needed with "
        '`source = "redshift"`, except on a cluster with `role`.',
    )
    vpc_connection: str | None = Field(
        default=None,
        pattern="^arn:aws[a-z-]*:quicksight:.+:vpcConnection/.+",
        description='ARN of the VPC connection to Redshift. Goes with `source = "redshift"`.',
    )
    refresh_time: str = Field(
        default="22:00",
        pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$",
        description="Time of day, on the exchange, of the daily full refresh that stands in for a run that did not come.",
    )
    lookback_days: int = Field(
        default=30, ge=2, description="Days that an incremental refresh reads again; older changes need a full one."
    )

    @model_validator(mode="after")
    def _check_together(self) -> QuickSight:
        for field in ("readers", "authors"):
            if wrong := [name for name in getattr(self, field) if not re.fullmatch("(user|group) [^ ].*", name)]:
                raise ValueError(f"{field}: {wrong[0]!r} is neither `user NAME` nor `group NAME`")
        if self.source == "athena" and (self.secret or self.vpc_connection):
            raise ValueError("secret, vpc_connection: go with source = 'redshift' alone")
        if self.role and self.secret:
            raise ValueError("role, secret: set one of them")
        return self


class Stream(Group):
    """Where live prices come from, and how they become minute bars."""

    credentials = f"the password comes from {PREFIX}STREAM_PASSWORD"

    source: Literal["off", "files", "kafka", "kinesis"] = Field(
        default="off",
        description="Where messages with prices come from: nowhere, files that grow, a topic of Kafka, or a data stream of "
        "Amazon Kinesis. Nothing of streaming is loaded with `off`.",
    )
    runner: Literal["embedded", "structured_streaming"] = Field(
        default="embedded",
        description="What reads the stream: this program; or a query of Spark's Structured Streaming, as a job with `engine = "
        '"databricks"`, or, from Kafka alone, with `engine = "spark_connect"`; see docs/streaming.md#structured-streaming.',
    )
    name: str = Field(
        default="stock_ticks",
        pattern="^[A-Za-z0-9._-]{1,100}$",
        description="Name of the stream: of Kafka's topic, of Kinesis' data stream. It is a part of the positions in the tables, "
        "so a new name reads from the start.",
    )
    folder: Path | None = Field(
        default=None, description='Folder in which files `*.jsonl` grow. Needed with `source = "files"`.'
    )
    servers: str | None = Field(
        default=None,
        pattern=r"^[^\s,:/]+:\d{1,5}(,[^\s,:/]+:\d{1,5})*$",
        description='Brokers of Kafka, `host:port,host:port`. Needed with `source = "kafka"`.',
    )
    security: Literal["plaintext", "ssl", "sasl_ssl"] = Field(
        default="plaintext", description="How the brokers of Kafka are spoken to: `sasl_ssl` with user and password."
    )
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="How user and password are shown to Kafka."
    )
    user: str | None = Field(
        default=None, min_length=1, description='User of Kafka. Needed with `security = "sasl_ssl"`.'
    )
    password: SecretStr | None = Field(default=None, description="Password of `user`. It is a secret.")
    ca_file: Path | None = Field(
        default=None,
        description="File of certificates that sign those of the brokers of Kafka. None: the ones the system trusts.",
    )
    start: Literal["earliest", "latest"] = Field(
        default="earliest",
        description="Where a partition (a file) begins on the first run of a lake. One that appears later begins at its start.",
    )
    batch_messages: int = Field(default=20_000, ge=1, description="Messages in a batch at most.")
    batch_megabytes: int = Field(default=32, ge=1, le=50, description="Megabytes of messages in a batch at most.")
    trigger_seconds: float = Field(default=1.0, ge=0.1, le=60, description="How long a batch waits for more messages.")
    late_seconds: int = Field(
        default=120,
        ge=0,
        description="An event that is older than the newest one of its partition by more than this is late. It is counted and "
        "used. A minute is final once all partitions have been seen past its end by this time.",
    )
    ahead_seconds: int = Field(
        default=60,
        ge=0,
        description="A message whose time is further ahead of its arrival than this is a dead letter: its clock is wrong.",
    )
    idle_seconds: int = Field(
        default=60, ge=1, description="A partition without a message for this long holds back no minute."
    )
    keep_ticks_days: int | None = Field(
        default=None,
        ge=1,
        description="Days for which ticks are kept; bars stay. A later tick of a day that was removed is a dead letter. None: "
        "ticks are kept forever.",
    )
    versions_hours: int = Field(
        default=2, ge=1, description="Hours for which replaced files and versions of stream tables are kept."
    )
    compact_batches: int = Field(
        default=25, ge=2, description="Small files are joined each time after so many batches."
    )
    price_tolerance: float = Field(
        default=5e-4,
        ge=0,
        lt=1,
        description="How far open, high, low and close of a session's minutes may differ from the official bar, as a fraction.",
    )
    volume_tolerance: float | None = Field(
        default=None,
        ge=0,
        description="How far the volume may differ. None: it is reported and not judged, since most feeds see a part of it.",
    )
    report_seconds: int = Field(
        default=300,
        ge=1,
        description="`stream run` prints a line, and tells Dagster of new minute bars, each time after so long; Dagster at most "
        "once a minute.",
    )
    live_seconds: int = Field(
        default=60,
        ge=0,
        description="`stream run` computes live features each time after so long, and `stream drain` at its end. 0: they do not.",
    )
    drain_after_seconds: int = Field(
        default=300,
        ge=1,
        description="`stream_lag_sensor` starts a drain once messages have waited so long without a runner.",
    )
    lag_alert_seconds: int = Field(
        default=900, ge=1, description="A drain that leaves messages that have waited longer than this fails."
    )

    @model_validator(mode="after")
    def _check_together(self) -> Stream:
        if self.source == "files" and self.folder is None:
            raise ValueError("folder: needed with source = 'files', the folder in which files *.jsonl grow")
        if self.source == "files" and self.runner != "embedded":
            raise ValueError(
                "runner: files that grow are read by the embedded runner alone; set runner to embedded, or source to kafka"
            )
        if self.source == "kafka":
            if self.servers is None:
                raise ValueError("servers: needed with source = 'kafka', its brokers as host:port,host:port")
            if self.security == "sasl_ssl" and (self.user is None or self.password is None):
                raise ValueError(
                    f"user: security = 'sasl_ssl' needs a user, and a password in the variable {PREFIX}STREAM_PASSWORD"
                )
            if self.security != "sasl_ssl" and self.password is not None:
                raise ValueError(
                    f"security: {self.security!r} uses no password; set security = 'sasl_ssl', or unset {PREFIX}STREAM_PASSWORD"
                )
        return self


class Settings(LakeOptions, BaseSettings):
    """All settings of the platform. Relative paths are relative to the folder of lakehouse.toml."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    source: Literal["sample", "csv", "yfinance"] = Field(
        "sample",
        description="Where prices come from: the sample that is part of the package, CSV files, or Yahoo Finance; see "
        "docs/sources.md.",
    )
    csv_folder: Path | None = Field(None, description='Folder of CSV files with prices. Needed with `source = "csv"`.')
    csv_prices: Literal["auto", "split_adjusted", "as_traded", "as_traded_adjusted_close", "total_return"] = Field(
        "auto",
        description="What the prices of CSV files are adjusted for. `auto`: what the columns of a file say, else splits.",
    )
    csv_adjusted_to: date | None = Field(
        None,
        description="Day on which CSV files were downloaded. None: the day of the newest bar that a file has of a ticker. That "
        "day also counts where it is later than this setting.",
    )
    csv_dates: Literal["auto", "day_first", "month_first"] = Field(
        "auto",
        description="Order of day and month in a date like 01/02/2024. `auto`: as the other dates of the file show; a file that "
        "does not show it is refused. An order that the dates of a file disprove is refused.",
    )
    csv_decimal: Literal["auto", "point", "comma"] = Field(
        "auto",
        description="Decimal mark of CSV files. `auto`: as the numbers of the file show; a file that does not show it is "
        "refused. A mark that the numbers of a file disprove is refused.",
    )
    csv_time_zone: str | None = Field(
        None,
        description="Time zone whose day a timestamp with a UTC offset means, like `Europe/Berlin`. None: that of the exchange; "
        "a file where it is in doubt is refused.",
    )
    csv_stable_seconds: int = Field(
        30, ge=0, description="A watched CSV file is read when it has not changed for this time."
    )
    tickers_per_batch: int = Field(
        25, ge=1, description="Tickers that Yahoo Finance is asked for, and whose rows are landed, at a time."
    )
    requests_per_second: float = Field(
        2.0, gt=0, description="Rate limit of requests to Yahoo Finance, shared by all requests of a process."
    )
    request_attempts: int = Field(
        4, ge=1, description="How often Yahoo Finance is asked for a ticker before the ticker counts as failed."
    )
    engine: Literal["embedded", "spark_connect", "databricks"] = Field(
        "embedded",
        description="Where Spark runs: in the process, on a Spark Connect server, or on Databricks; see docs/engines.md.",
    )
    spark_remote: SecretStr | None = Field(
        None,
        description="Address of the Spark Connect server, like `sc://localhost:15002`; it may hold a token. Needed with "
        '`engine = "spark_connect"`.',
    )
    databricks: Databricks = Field(Databricks(), description="Where on Databricks runs are computed.")
    catalog: Literal["local", "glue"] = Field(
        "local",
        description="Where the tables are registered: `local`, nowhere but in the lake itself; or `glue`, AWS Glue, for which "
        "the lake must be on S3; see docs/aws.md.",
    )
    query_engine: Literal["duckdb", "athena", "trino", "redshift"] = Field(
        "duckdb",
        description="What runs SQL: DuckDB in the process, AWS Athena, a Trino server, or the warehouse on Redshift; see "
        "docs/sql.md.",
    )
    serving_cache: Path | None = Field(
        None,
        description="Folder where SQL on this machine keeps Parquet files of bars and features. None: the lake's own "
        "`serving/`; of a lake on S3 the user's cache folder; see docs/architecture.md.",
    )
    query_minutes: float = Field(30.0, gt=0, description="How long a query may take. Then it is stopped.")
    aws: Aws = Field(Aws(), description="The Glue database and Athena's workgroup.")
    trino: Trino = Field(Trino(), description="A Trino server that runs SQL.")
    warehouse: Literal["off", "redshift"] = Field(
        "off",
        description='Native tables of bars and features beside the lake: none, or on Redshift, which needs `catalog = "glue"`; '
        "see docs/warehouse.md.",
    )
    redshift: Redshift = Field(Redshift(), description="The Redshift database of the warehouse.")
    dashboard: Literal["off", "local", "quicksight"] = Field(
        "local",
        description="Who shows the charts: nobody, `stock-lakehouse dashboard` and the report of each run, or also QuickSight; "
        "see docs/dashboards.md.",
    )
    dashboard_url: str = Field(
        "http://127.0.0.1:8000",
        pattern="^https?://[^/]+/?$",
        description="Where the dashboard listens, and what links in Dagster's UI say.",
    )
    quicksight: QuickSight = Field(QuickSight(), description="The dashboard on Amazon QuickSight.")
    stream: Stream = Field(Stream(), description="Live prices and minute bars.")
    partition_by: Literal["date_ticker", "session"] = Field(
        "date_ticker",
        description="What a partition is: `date_ticker`, a bar (`2023-09-21|NVDA`), up to 100,000 keys; or `session`, a session "
        "of all tickers.",
    )

    automation: Literal["off", "sensor", "schedule", "declarative"] = Field(
        "off",
        description="What starts runs: only you, sensors, a schedule, or Dagster's declarative automation; see "
        "docs/automation.md.",
    )
    sensor_interval_seconds: int = Field(60, ge=1, description="Pause between two evaluations of a sensor.")
    session_attempts: int = Field(
        4, ge=1, description="How many runs are requested for a new session on its day, at most."
    )
    session_retry_minutes: float = Field(
        15,
        gt=0,
        description="Pause before the second run that is requested for a new session. It doubles before each further one.",
    )
    gap_attempts: int = Field(
        5,
        ge=1,
        description="How many runs are requested for a gap, at most: 0, 1, 3, 7 and 15 days after it is found.",
    )
    webhook_url: SecretStr | None = Field(None, description="Address to which failed runs are posted. It is a secret.")
    webhook_form: Literal["json", "slack"] = Field(
        "json", description="Form of what is posted: plain JSON, or a message of Slack."
    )
    webhook_cooldown_minutes: int = Field(
        240, ge=0, description="For this time after a failure was posted, the same cause is not posted again."
    )
    report_tickers: int = Field(
        12, ge=1, description="How many tickers `stock-lakehouse report` charts at most, if you do not name them."
    )
    reports_kept: int = Field(30, ge=1, description="How many reports of runs are kept.")
    ui_url: str = Field("http://127.0.0.1:3000", description="Address of Dagster's UI, for links in messages.")

    @model_validator(mode="before")
    @classmethod
    def _end_with_the_sample(cls, given: Any) -> Any:
        """The sample has no bars after its last session, so a lake of it would be out of date from its first day."""
        if not isinstance(given, dict) or given.get("source", "sample") != "sample":
            return given
        begins = str(given.get("first_date", ""))  # a date, or its ISO text
        return {"last_date": SAMPLE_LAST, **given} if begins <= SAMPLE_LAST.isoformat() else given

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        if self.last_date is not None and self.last_date < self.first_date:
            raise ValueError(f"last_date: {self.last_date} is before first_date {self.first_date}")
        known = known_from(self.exchange)
        if known is not None and self.first_date < known:
            raise ValueError(
                f"first_date: the sessions of {self.exchange} are known from {known} on; set first_date to that day or later"
            )
        elsewhere = [listed_elsewhere(ticker, self.exchange, self.source == "yfinance") for ticker in self.tickers]
        if refused := [sentence for sentence in elsewhere if sentence][:MOST_SENTENCES]:
            raise ValueError(f"tickers: {'; '.join(refused)}")
        if self.source == "csv" and self.csv_folder is None:
            raise ValueError("csv_folder: needed with source = 'csv', a folder of CSV files")
        if self.engine == "spark_connect" and self.spark_remote is None:
            raise ValueError(
                "spark_remote: needed with engine = 'spark_connect'; set the variable "
                f"{PREFIX}SPARK_REMOTE to an address like sc://localhost:15002"
            )
        if self.engine == "databricks" and not (self.databricks.cluster_id or self.databricks.serverless):
            raise ValueError(
                "databricks: with engine = 'databricks' set databricks.cluster_id, or databricks.serverless = true"
            )
        if self.engine == "databricks" and (reason := self.unreachable_by_serverless):
            raise ValueError(reason)
        if self.engine == "databricks" and self.databricks.sends_serverless_jobs_to_s3:
            raise ValueError(
                "databricks.messages: serverless jobs have no instance profile, so they cannot reach "
                f"{self.databricks.messages}; set databricks.messages to a folder of a volume (/Volumes/…), or "
                "databricks.job_cluster to a cluster with one"
            )
        if self.catalog == "glue" and not isinstance(self.lake_root, str):
            raise ValueError(
                f"catalog: 'glue' needs a lake on S3, because AWS cannot read {self.lake_root}; set lake_root to "
                "s3://bucket/prefix, or catalog to local"
            )
        if self.webhook_url is not None and not self.webhook_url.get_secret_value().startswith(("https://", "http://")):
            raise ValueError("webhook_url: begins with neither https:// nor http://")
        if self.simulated_clock is not None and self.source == "yfinance":
            raise ValueError("simulated_clock: a live source needs the real time; it goes with sample and csv only")
        if self.simulated_clock is not None and self.stream.source in ("kafka", "kinesis"):
            whose = {"kafka": "brokers of Kafka need", "kinesis": "Kinesis needs"}[self.stream.source]
            raise ValueError(f"simulated_clock: {whose} the real time; it goes with stream.source = 'files' only")
        return self

    @model_validator(mode="after")
    def _check_stream_runner(self) -> Settings:
        if self.stream.source == "off" or self.stream.runner == "embedded":
            return self
        if self.engine == "embedded":
            raise ValueError(
                "stream.runner: the embedded engine has no Structured Streaming; set engine to databricks, or, for Kafka, to "
                "spark_connect; or set stream.runner to embedded, which reads the stream with any engine"
            )
        if self.engine == "spark_connect" and self.stream.source == "kinesis":
            raise ValueError(
                "stream.runner: Spark has no source for Kinesis, except on Databricks; set stream.runner to embedded, or engine "
                "to databricks"
            )
        if self.engine == "databricks" and self.databricks.messages is None:
            raise ValueError(
                "databricks.messages: stream.runner = 'structured_streaming' runs as a job; set it to a volume's folder "
                "(/Volumes/…) or s3://bucket, through which the job and this program exchange messages"
            )
        return self

    @model_validator(mode="after")
    def _check_sql_engine(self) -> Settings:
        if self.query_engine == "athena" and self.catalog != "glue":
            raise ValueError(
                "query_engine: Athena reads the tables that Glue has; set catalog to glue, which needs a lake on S3, or "
                "query_engine to duckdb"
            )
        if self.query_engine == "athena" and self.aws.athena_results is None:
            raise ValueError("aws.athena_results: needed with query_engine = 'athena', s3://bucket/prefix for results")
        if self.query_engine == "trino" and (self.trino.url is None or self.trino.catalog is None):
            raise ValueError(
                "trino: with query_engine = 'trino' set trino.url, and trino.catalog to Trino's catalog that has the tables"
            )
        if self.query_engine == "redshift" and self.warehouse != "redshift":
            raise ValueError("query_engine: Redshift runs SQL over the warehouse; set warehouse to redshift")
        return self

    @model_validator(mode="after")
    def _check_warehouse(self) -> Settings:
        if self.warehouse == "redshift" and self.catalog != "glue":
            raise ValueError(
                "warehouse: Redshift is loaded from the tables that Glue has; set catalog to glue, which needs a lake on S3"
            )
        if self.warehouse == "redshift" and not (self.redshift.workgroup or self.redshift.cluster):
            raise ValueError("redshift: with warehouse = 'redshift' set redshift.workgroup or redshift.cluster")
        if self.dashboard == "quicksight" and self.quicksight.source == "redshift" and self.warehouse != "redshift":
            raise ValueError("quicksight.source: Redshift has no tables of the lake; set warehouse to redshift")
        if self.dashboard == "quicksight" and self.quicksight.source == "athena" and self.catalog != "glue":
            raise ValueError("quicksight.source: Athena reads the tables that Glue has; set catalog to glue")
        if self.dashboard == "quicksight" and not (self.quicksight.readers or self.quicksight.authors):
            raise ValueError(
                "quicksight.readers: nobody could see the dashboard; name readers or authors, like `group analysts`"
            )
        if self.dashboard == "quicksight" and self.quicksight.source == "redshift":
            by_role = (
                self.quicksight.role and self.redshift.cluster
            )  # a workgroup gives no credentials to a role of QuickSight
            if not (self.quicksight.secret or by_role):
                raise ValueError(
                    "quicksight.secret: needed with source = 'redshift', the ARN of a secret with user and password; on a "
                    "cluster quicksight.role does as well"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources of values, in order of precedence: arguments, variables, lakehouse.toml."""
        # Not `env_settings`: with "_" between a group and its field, it would read TICKERS_PER_BATCH as a part of TICKERS.
        variables = InitSettingsSource(settings_cls, _given_by_variables(settings_cls))
        return init_settings, variables, TomlConfigSettingsSource(settings_cls, toml_file=config_file())

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """The settings of this process, with absolute paths. Raises SettingsError, which names every wrong field."""
        file = config_file()
        if CONFIG_VARIABLE in os.environ and not file.is_file():
            raise SettingsError(f"{CONFIG_VARIABLE}: there is no file {file}")
        known = {CONFIG_VARIABLE, *(variable_of(path) for path, _ in fields_of(cls))}
        unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name not in known)
        if unknown:
            raise SettingsError(f"{unknown[0]}: {_no_such_setting(unknown[0], known)}")
        _refuse_variables_in(file, cls)
        try:
            settings = _with_absolute_paths(cls(**overrides), file.parent)
        except ValidationError as error:
            raise SettingsError("; ".join(_describe(e, cls) for e in error.errors())) from None
        root = settings.lake_root
        if isinstance(root, Path) and not FOLDER.fullmatch(str(root)):
            raise SettingsError(
                f"lake_root: the path {root} has a character that the path of a table cannot have; allowed: letters, digits, "
                "blanks and . _ / & + = @ , ; : ! $ ' ( ) -. Set lake_root to another folder, or move this one"
            )
        if settings.indicators is not None:
            try:
                own_indicators(str(settings.indicators), read_source(settings.indicators))
            except IndicatorError as error:
                raise SettingsError(f"indicators: {error}") from None
        return settings

    @property
    def unreachable_by_serverless(self) -> str | None:
        """Why serverless compute of Databricks cannot reach the lake; None if it can, or if it is not used."""
        if not self.databricks.serverless or isinstance(self.lake_root, Path):
            return None
        return (
            f"databricks.serverless: serverless compute has no instance profile, so it cannot reach {self.lake_root}; set "
            "databricks.cluster_id to a cluster whose instance profile may use the bucket, or run this program on Databricks "
            "and set lake_root to a folder of a volume (/Volumes/…)"
        )

    @property
    def lake_options(self) -> LakeOptions:
        """The settings that the lake, Dagster's resource and a Databricks job share; no secret is among them."""
        return LakeOptions(**{name: getattr(self, name) for name in LakeOptions.model_fields})

    def secrets(self) -> list[str]:
        """Every secret that is set, so that texts can be cleaned of them before they leave the process."""
        return list(_secrets_in(self))


def config_file() -> Path:
    """The path of lakehouse.toml: the file that STOCK_LAKEHOUSE_CONFIG names, else the one in the working directory."""
    return Path(os.environ.get(CONFIG_VARIABLE, "lakehouse.toml")).absolute()


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process, with absolute paths. Raises SettingsError, which names every wrong field."""
    return Settings.load(**overrides)


def groups_of(settings_class: type[Settings]) -> dict[str, type[Group]]:
    """The groups of settings, by the names of their fields."""
    return {
        name: field.annotation
        for name, field in settings_class.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group)
    }


def fields_of(settings_class: type[Settings]) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every setting with its path: ("tickers",), or ("databricks", "host") for a setting of a group."""
    groups = groups_of(settings_class)
    for name, field in settings_class.model_fields.items():
        if name not in groups:
            yield (name,), field
    for group, model in groups.items():
        for name, field in model.model_fields.items():
            yield (group, name), field


def variable_of(path: tuple[str, ...]) -> str:
    """The environment variable of the setting at `path`."""
    return PREFIX + "_".join(path).upper()


def variable_only(field: FieldInfo) -> str | None:
    """Why a setting is read from its variable only and not from lakehouse.toml; None if the file may have it."""
    if _holds_secret(field.annotation):
        return "may hold a secret"
    extra = field.json_schema_extra
    return str(extra["variable_only"]) if isinstance(extra, dict) and "variable_only" in extra else None


def _holds_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(map(_holds_secret, get_args(annotation)))


def _secrets_in(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, dict | BaseModel):
        for _, inner in value.items() if isinstance(value, dict) else value:
            yield from _secrets_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _secrets_in(inner)


def types_of(field: FieldInfo) -> tuple[Any, ...]:
    """The types that the field's value may have, without None."""
    annotation = field.annotation
    types = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return tuple(kind for kind in types if kind is not NoneType)


def _given_by_variables(settings_class: type[BaseSettings]) -> dict[str, Any]:
    """The values that variables give; those of a group are in a nested dict.

    A list or table is read as JSON if it looks like JSON, and otherwise left to the field's validator. Raises SettingsError for
    broken JSON.
    """
    assert issubclass(settings_class, Settings)
    given: dict[str, Any] = {}
    for path, field in fields_of(settings_class):
        value: Any = os.environ.get(variable_of(path))
        if value is None:
            continue
        if any(get_origin(kind) in (dict, list, tuple) for kind in types_of(field)) and value.lstrip().startswith(
            ("{", "[")
        ):
            try:
                value = json.loads(value)
            except ValueError as error:
                raise SettingsError(f"{variable_of(path)}: is not JSON ({error})") from None
        target = given if len(path) == 1 else given.setdefault(path[0], {})
        target[path[-1]] = value
    return given


def _refuse_variables_in(file: Path, settings_class: type[Settings]) -> None:
    """Raise SettingsError if `file` is not TOML, or has a setting that is read from its variable only."""
    if not file.is_file():
        return
    try:
        written = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # neither TOML nor UTF-8
        raise SettingsError(f"{file}: {error}") from None
    for path, field in fields_of(settings_class):
        table = written if len(path) == 1 else written.get(path[0])
        reason = variable_only(field)
        if reason and isinstance(table, dict) and path[-1] in table:
            raise SettingsError(f"{'.'.join(path)}: {reason}, so it is not read from a file; set {variable_of(path)}")


def _with_absolute_paths(model: M, folder: Path) -> M:
    """`model` and its groups with absolute paths.

    A relative path is relative to `folder`; if the setting is read from its variable only, to the working directory.
    """
    absolute: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, Group):
            absolute[name] = _with_absolute_paths(value, folder)
        elif isinstance(value, Path):
            absolute[name] = (Path.cwd() if variable_only(field) else folder) / value.expanduser()
    return model.model_copy(update=absolute)


def _no_such_setting(name: str, known: Iterable[str]) -> str:
    """The error for an unknown name: the known name that it resembles, if one does, and all of them."""
    # The prefix that all variables have would make any two of them similar.
    by_short_name = {setting.lower().removeprefix(PREFIX.lower()): setting for setting in known}
    short_name = name.lower().removeprefix(PREFIX.lower())
    similar = difflib.get_close_matches(short_name, by_short_name, n=1, cutoff=SIMILARITY)
    guess = f"did you mean {by_short_name[similar[0]]}? " if similar else ""
    return f"no such setting; {guess}allowed: {', '.join(sorted(by_short_name.values()))}"


def _describe(error: Any, settings_class: type[Settings]) -> str:
    path = [str(part) for part in error["loc"]]
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        group = groups_of(settings_class).get(path[0])
        message = _no_such_setting(path[-1], (group or settings_class).model_fields)
        if group and group.credentials:
            message += f"; {group.credentials}"
    return f"{'.'.join(path)}: {message}" if path else message
