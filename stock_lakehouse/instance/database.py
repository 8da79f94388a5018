"""The database of a Dagster instance: whether it can be used, found out without creating anything.

Not here: opening the instance (home.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster._serdes import ConfigurableClassData

CONNECT_SECONDS = 5
SQLITE = b"SQLite format 3\x00"  # the first bytes of a database file


class InstanceError(Exception):
    """Dagster's instance cannot be used. The message says why and what to change, and has no password."""


def check_database(home: Path) -> str:
    """Which database the instance in the folder `home` has, in words. Raises InstanceError if it cannot be used."""
    from dagster import DagsterInvalidConfigError
    from dagster._config.errors import PostProcessingError
    from dagster._core.instance.ref import InstanceRef

    config = home / "dagster.yaml"
    if not config.is_file():
        return f"none yet; the first run creates it in {home}"
    try:
        storage = InstanceRef.from_dir(str(home)).run_storage_data
        if storage is None:
            return "of an instance class of its own"
        if storage.class_name == "PostgresRunStorage":
            return _check_postgres(_values(storage, config), config)
    except (DagsterInvalidConfigError, PostProcessingError) as error:
        raise InstanceError(f"{config} cannot be used: {_first_line(error)}") from None
    if storage.class_name != "SqliteRunStorage":
        return storage.class_name
    for path in sorted(home.rglob("*.db")):
        with path.open("rb") as file:
            if file.read(len(SQLITE)) not in (SQLITE, b""):
                raise InstanceError(
                    f"{path} is damaged; move {home} away, then `stock-lakehouse record` marks in a new instance what the "
                    "lake holds"
                )
    return f"SQLite in {home}"


def _values(storage: ConfigurableClassData, config: Path) -> Mapping[str, Any]:
    """The storage's configuration, with variables resolved. Raises InstanceError for one that is not set."""
    from dagster._config import process_config, resolve_to_config_type
    from dagster_postgres import PostgresRunStorage
    from dagster_shared.error import SerializableErrorInfo

    found = process_config(resolve_to_config_type(PostgresRunStorage.config_type()), storage.config_dict)
    if not found.success or found.value is None:
        [reason, *_] = [
            error.error_data.message if isinstance(error.error_data, SerializableErrorInfo) else error.message
            for error in found.errors or ()
        ]
        raise InstanceError(f"{config} cannot be used: {reason.strip().partition(': ')[2] or reason}")
    values: Mapping[str, Any] = found.value
    return values


def _check_postgres(values: Mapping[str, Any], config: Path) -> str:
    from botocore.exceptions import BotoCoreError
    from dagster_postgres.utils import create_pg_engine, get_token_provider_from_config, pg_url_from_config
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, OperationalError
    from sqlalchemy.pool import NullPool

    try:
        url = pg_url_from_config(values)
        address = make_url(url)
        engine = create_pg_engine(
            url,
            get_token_provider_from_config(values),  # a login by IAM has a token in place of a password
            connect_args={"connect_timeout": CONNECT_SECONDS},
            poolclass=NullPool,
        )
    except (ArgumentError, ValueError):  # their texts quote the URL, which has a password
        raise InstanceError(
            f"{config}: the address of the database is not like postgresql://user:password@host:5432/database"
        ) from None
    host = address.host or address.query.get("host") or "localhost"
    name = f"PostgreSQL database {address.database} on {host}" + (f":{address.port}" if address.port else "")
    try:
        engine.connect().close()
    except BotoCoreError as error:
        raise InstanceError(f"{name}: there are no credentials for its login by IAM: {_first_line(error)}") from None
    except OperationalError as error:
        raise InstanceError(
            f"{name} does not answer: {_first_line(error.orig or error)}; start it, or correct its address ({config} says "
            "which variable has it)"
        ) from None
    return name


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]
