"""What is decided once: lakehouse.toml and STOCK_LAKEHOUSE_* variables, validated into typed settings.

Here: names, types, defaults and the errors a wrong value gives. Not here: anything that acts on a setting.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from stock_lakehouse.exchanges import XNYS, exchange_of, known_from, listed_elsewhere

PREFIX = "STOCK_LAKEHOUSE_"
CONFIG_VARIABLE = PREFIX + "CONFIG"
S3_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()=-]+)*")
# Delta tables in folders with other characters are written elsewhere or not found again: the libraries below take a path for an
# address, and a space for %20.
FOLDER = re.compile(r"[A-Za-z0-9._/&+=@,;:!$'()-]+")
TICKER = re.compile(r"\^?[A-Z0-9][A-Z0-9.^=-]{0,14}")
MOST_SENTENCES = 5  # about tickers of other exchanges, in one message
SECRETS = ("spark_remote", "webhook_url")


class SettingsError(Exception):
    """lakehouse.toml or a variable is wrong; the message names each field and what it may hold."""


class Databricks(BaseModel):
    """Where on Databricks: the table [databricks] of lakehouse.toml, or variables STOCK_LAKEHOUSE_DATABRICKS_<NAME>.

    Credentials are not here: the Databricks SDK reads its own variables (DATABRICKS_TOKEN, …) and profiles.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str | None = Field(
        default=None, pattern="^https?://[^/]+/?$", description="else DATABRICKS_HOST or the profile's"
    )
    profile: str | None = None
    cluster_id: str | None = None
    serverless: bool = False
    start_minutes: float = Field(default=20.0, gt=0, description="how long a cluster may take to start")
    work: Literal["auto", "session", "job"] = "auto"
    job_bars: int = Field(
        default=100_000, ge=1, description="with work = 'auto': from so many ticker-sessions on a run is a job"
    )
    job_cluster: dict[str, Any] | None = Field(
        default=None, description="a new cluster for each job, as the Clusters API writes it"
    )
    job_minutes: float = Field(default=240.0, gt=0, description="how long a job may take")
    wheel: str | None = Field(default=None, description="this package's wheel, as Databricks sees it")
    workspace_folder: str = Field(default="/Workspace/Shared/stock_lakehouse", description="where job scripts are put")
    messages: str | None = Field(
        default=None, pattern="^(/Volumes/.+|s3://[^/]+/?)$", description="where jobs and Dagster exchange messages"
    )

    @property
    def job_compute(self) -> str:
        """Where jobs run: a new cluster if `job_cluster` says which, else the cluster of sessions, else serverless."""
        if self.job_cluster:
            return "a new cluster"
        return f"cluster {self.cluster_id}" if self.cluster_id else "serverless compute"

    @property
    def sends_serverless_jobs_to_s3(self) -> bool:
        """Whether jobs on serverless compute, which has no instance profile, would exchange messages on S3."""
        is_serverless = self.serverless and not self.job_cluster and self.work != "session"
        return is_serverless and self.messages is not None and self.messages.startswith("s3://")

    @field_validator("job_cluster", mode="before")
    @classmethod
    def _from_variable(cls, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value

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


DATABRICKS_VARIABLES = {name: f"{PREFIX}DATABRICKS_{name.upper()}" for name in Databricks.model_fields}


class Settings(BaseSettings):
    """Every setting of the platform. Relative paths are relative to the folder of lakehouse.toml."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    tickers: Annotated[tuple[str, ...], NoDecode] = ("AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA")
    exchange: str = Field(XNYS, description="whose sessions the lake has: a MIC, 24/7 (crypto) or 24/5 (currencies)")
    first_date: date = date(2013, 1, 2)
    last_date: date | None = None
    source: Literal["sample", "csv", "yfinance"] = "sample"
    csv_folder: Path | None = None
    csv_prices: Literal["auto", "split_adjusted", "as_traded", "as_traded_adjusted_close", "total_return"] = Field(
        "auto",
        description="what the prices of CSV files are adjusted for; auto: what a file's columns say, else for splits",
    )
    csv_adjusted_to: date | None = Field(
        None, description="day of the download of CSV files; none: the newest bar that a file has of a ticker"
    )
    csv_dates: Literal["auto", "day_first", "month_first"] = Field(
        "auto", description="what 01/02/2024 is; auto: as the file's other dates show, and refused where they do not"
    )
    csv_decimal: Literal["auto", "point", "comma"] = Field(
        "auto", description="decimal mark of CSV files; auto: as a file's numbers show, and refused where they do not"
    )
    csv_time_zone: str | None = Field(
        None, description="whose day a timestamp with a UTC offset means (Europe/Berlin); none: the exchange's"
    )
    lake_root: Path | str = Path("lakehouse")
    engine: Literal["embedded", "spark_connect", "databricks"] = "embedded"
    spark_remote: SecretStr | None = None
    databricks: Databricks = Databricks()
    partition_by: Literal["date_ticker", "session"] = "date_ticker"

    tickers_per_batch: int = Field(25, ge=1, description="tickers that a source is asked for, and raw lands, at a time")
    bars_per_chunk: int = Field(
        750_000, ge=1, description="bars computed or compared at a time: 1 GB of memory a million"
    )
    partitions_per_write: int = Field(250, ge=1, description="ticker-years written to Parquet at a time: 2 MB each")
    requests_per_second: float = Field(2.0, gt=0, description="yfinance: rate limit shared by all requests")
    request_attempts: int = Field(4, ge=1, description="yfinance: tries a ticker before it counts as failed")
    close_grace_minutes: int = Field(30, ge=0, description="a bar delivered before close plus this is provisional")
    price_tolerance: float = Field(1e-4, ge=0, lt=1, description="how far, relative, open or close may leave low…high")
    jump_deviations: float = Field(25.0, gt=0, description="a larger daily move is reported")
    adj_close_tolerance: float = Field(
        1e-3,
        gt=0,
        description="how far, relative, the delivered adj_close may be from the derived one before it is reported",
    )
    restated_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="share of a ticker's bars that its vendor may change in 30 days before it is reported",
    )

    retention_days: int = Field(365, ge=1, description="versions of Delta tables that are so old may be removed")

    automation: Literal["off", "sensor", "schedule", "declarative"] = "off"
    sensor_interval_seconds: int = Field(60, ge=1, description="pause between two looks of a sensor")
    session_attempts: int = Field(4, ge=1, description="times that a new session is asked for on its day")
    session_retry_minutes: float = Field(
        15, gt=0, description="pause before the second ask; doubled before each further one"
    )
    gap_attempts: int = Field(
        5, ge=1, description="times that a gap is asked for: 0, 1, 3, 7, 15 days after it is found"
    )
    csv_stable_seconds: int = Field(30, ge=0, description="a CSV file is read when it has not changed for so long")
    webhook_url: SecretStr | None = None
    webhook_form: Literal["json", "slack"] = "json"
    webhook_cooldown_minutes: int = Field(240, ge=0, description="one message a cause in this time")
    ui_url: str = Field("http://127.0.0.1:3000", description="where Dagster's UI is; for links in messages")
    simulated_clock: Path | None = None

    @field_validator("tickers", mode="before")
    @classmethod
    def _split_tickers(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("tickers")
    @classmethod
    def _check_tickers(cls, tickers: tuple[str, ...]) -> tuple[str, ...]:
        if not tickers:
            raise ValueError("at least one ticker is needed, like AAPL,NVDA")
        return check_tickers(tickers)

    @field_validator("exchange")
    @classmethod
    def _check_exchange(cls, name: str) -> str:
        return exchange_of(name)

    @field_validator("lake_root", mode="before")
    @classmethod
    def _check_lake_root(cls, value: Any) -> Any:
        if not isinstance(value, str) or "://" not in value:
            return Path(value)
        uri = value.rstrip("/")
        if not S3_URI.fullmatch(uri):
            raise ValueError(f"{value!r} is no place for a lake; allowed: a folder, or s3://bucket/prefix")
        return uri

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
        if self.engine == "databricks" and self.databricks.serverless and isinstance(self.lake_root, str):
            raise ValueError(
                f"databricks.serverless: serverless compute has no instance profile, so it cannot reach {self.lake_root}; set "
                "databricks.cluster_id to a cluster whose instance profile may use the bucket, or run this program on Databricks "
                "and set lake_root to a folder of a volume (/Volumes/…)"
            )
        if self.engine == "databricks" and self.databricks.sends_serverless_jobs_to_s3:
            raise ValueError(
                "databricks.messages: serverless jobs have no instance profile, so they cannot reach "
                f"{self.databricks.messages}; set databricks.messages to a folder of a volume (/Volumes/…), or "
                "databricks.job_cluster to a cluster with one"
            )
        if self.webhook_url is not None and not self.webhook_url.get_secret_value().startswith(("https://", "http://")):
            raise ValueError("webhook_url: begins with neither https:// nor http://")
        if self.simulated_clock is not None and self.source == "yfinance":
            raise ValueError("simulated_clock: a live source needs the real time; it goes with sample and csv only")
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
        """Arguments first, then variables, then lakehouse.toml."""
        toml = TomlConfigSettingsSource(settings_cls, toml_file=config_file())
        given = {name: os.environ.get(variable) for name, variable in DATABRICKS_VARIABLES.items()}
        # Not by env_nested_delimiter: with "_" TICKERS_PER_WRITE would be a part of TICKERS.
        databricks = InitSettingsSource(
            settings_cls, {"databricks": {name: value for name, value in given.items() if value is not None}}
        )
        return init_settings, env_settings, databricks, toml


def check_tickers(tickers: tuple[str, ...]) -> tuple[str, ...]:
    """`tickers` as they are. Raises ValueError for one that is not of the form `TICKER`, or given twice."""
    for ticker in tickers:
        if not TICKER.fullmatch(ticker):
            raise ValueError(f"{ticker!r} is not a ticker; allowed: ^{TICKER.pattern}$, like BRK-B")
    if len(set(tickers)) != len(tickers):
        raise ValueError("a ticker stands there twice")
    return tickers


def config_file() -> Path:
    """Where lakehouse.toml is: the file that STOCK_LAKEHOUSE_CONFIG names, else the one in the working directory."""
    return Path(os.environ.get(CONFIG_VARIABLE, "lakehouse.toml")).absolute()


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process, paths absolute. Raises SettingsError that names every field that is wrong."""
    file = config_file()
    if CONFIG_VARIABLE in os.environ and not file.is_file():
        raise SettingsError(f"{CONFIG_VARIABLE}: there is no file {file}")
    known = {PREFIX + name.upper() for name in Settings.model_fields if name != "databricks"}
    known |= {*DATABRICKS_VARIABLES.values(), CONFIG_VARIABLE}
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    if unknown:
        raise SettingsError(f"{unknown[0]}: no such setting; allowed: {', '.join(sorted(known))}")
    _refuse_secrets_in(file)
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        raise SettingsError("; ".join(_describe(e) for e in error.errors())) from None
    base = file.parent
    folder = base / settings.lake_root.expanduser() if isinstance(settings.lake_root, Path) else None
    if folder is not None and not FOLDER.fullmatch(str(folder)):
        raise SettingsError(
            f"lake_root: the path {folder} has a character that tables cannot have in theirs; allowed: {FOLDER.pattern}. Set "
            "lake_root to another folder, or move this one"
        )
    return settings.model_copy(
        update={
            "lake_root": folder or settings.lake_root,
            "csv_folder": base / settings.csv_folder.expanduser() if settings.csv_folder else None,
            "simulated_clock": settings.simulated_clock.absolute() if settings.simulated_clock else None,
        }
    )


def _refuse_secrets_in(file: Path) -> None:
    if not file.is_file():
        return
    try:
        written = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # no TOML, or no UTF-8
        raise SettingsError(f"{file}: {error}") from None
    for name in SECRETS:
        if name in written:
            raise SettingsError(f"{name}: may hold a secret, so it is not read from a file; set {PREFIX}{name.upper()}")
    if "simulated_clock" in written:
        raise SettingsError(
            f"simulated_clock: is for one process and its children, so it is not read from a file; set {PREFIX}SIMULATED_CLOCK"
        )


def _describe(error: Any) -> str:
    field = ".".join(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        fields = Databricks.model_fields if field.startswith("databricks.") else Settings.model_fields
        message = f"no such setting; allowed: {', '.join(sorted(fields))}"
        if field.startswith("databricks."):
            message += "; credentials come from the Databricks SDK's variables, like DATABRICKS_TOKEN"
    return f"{field}: {message}" if field else message
