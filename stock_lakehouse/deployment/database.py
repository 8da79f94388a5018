"""The user of Dagster's database on RDS: `python -m stock_lakehouse.deployment.database`, before the service's processes start.

RDS makes a database with an owner who has a password. Dagster's processes log in by IAM as a user of their own, whom the owner
has to create. Not here: Dagster's tables, which Dagster creates itself.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from stock_lakehouse.deployment.production import DATABASE, DATABASE_PORT, DATABASE_USER, RDS_CA

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

# `password` is a secret: the service's task gets it from Secrets Manager, for this container alone.
OWNER_VARIABLES = {
    "host": "DAGSTER_POSTGRES_HOST",
    "user": "DAGSTER_POSTGRES_OWNER",
    "password": "DAGSTER_POSTGRES_OWNER_PASSWORD",
}
IAM_LOGIN = "rds_iam"  # RDS has this role; its members log in by IAM and no longer by a password
CONNECT_SECONDS = 10


def create_user(owner: Engine) -> None:
    """Create Dagster's user, who logs in by IAM and may create tables in the database; a repetition changes nothing."""
    from sqlalchemy import text

    with owner.begin() as connection:
        known = text("SELECT 1 FROM pg_roles WHERE rolname = :name")
        if connection.execute(known, {"name": DATABASE_USER}).first() is None:
            connection.execute(text(f"CREATE ROLE {DATABASE_USER} LOGIN"))
        for right in (IAM_LOGIN, f"CONNECT, TEMPORARY ON DATABASE {DATABASE}", "USAGE, CREATE ON SCHEMA public"):
            connection.execute(text(f"GRANT {right} TO {DATABASE_USER}"))


def main() -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.engine import URL
    from sqlalchemy.exc import DBAPIError

    values = {name: os.environ.get(variable, "") for name, variable in OWNER_VARIABLES.items()}
    if missing := [OWNER_VARIABLES[name] for name, value in values.items() if not value]:
        sys.exit(f"not set: {', '.join(missing)}: the database's host, its owner and the owner's password")
    address = URL.create(
        "postgresql",
        username=values["user"],
        password=values["password"],
        host=values["host"],
        port=DATABASE_PORT,
        database=DATABASE,
        query={"sslmode": "verify-full", "sslrootcert": RDS_CA, "connect_timeout": str(CONNECT_SECONDS)},
    )
    try:
        create_user(create_engine(address))
    except DBAPIError as error:
        sys.exit(f"the user {DATABASE_USER} could not be created on {values['host']}: {str(error.orig).strip()}")
    sys.stdout.write(f"The user {DATABASE_USER} of the database {DATABASE} logs in by IAM.\n")


if __name__ == "__main__":
    main()
