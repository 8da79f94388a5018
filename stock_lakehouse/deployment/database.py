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
    from psycopg2.extensions import connection

# `password` is a secret: the service's task gets it from Secrets Manager, for this container alone.
OWNER_VARIABLES = {
    "host": "DAGSTER_POSTGRES_HOST",
    "user": "DAGSTER_POSTGRES_OWNER",
    "password": "DAGSTER_POSTGRES_OWNER_PASSWORD",
}
IAM_LOGIN = "rds_iam"  # RDS has this role; its members log in by IAM and no longer by a password
CONNECT_SECONDS = 10


def create_user(owner: connection) -> None:
    """Create Dagster's user, who logs in by IAM and may create tables in the database; a repetition changes nothing."""
    from psycopg2 import sql

    user, database = sql.Identifier(DATABASE_USER), sql.Identifier(DATABASE)
    with owner, owner.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (DATABASE_USER,))
        if cursor.fetchone() is None:
            cursor.execute(sql.SQL("CREATE ROLE {} LOGIN").format(user))
        cursor.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(IAM_LOGIN), user))
        cursor.execute(sql.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {} TO {}").format(database, user))
        cursor.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA public TO {}").format(user))


def main() -> None:
    import psycopg2

    values = {name: os.environ.get(variable, "") for name, variable in OWNER_VARIABLES.items()}
    if missing := [OWNER_VARIABLES[name] for name, value in values.items() if not value]:
        sys.exit(f"not set: {', '.join(missing)}: the database's host, its owner and the owner's password")
    try:
        owner = psycopg2.connect(
            **values,
            port=DATABASE_PORT,
            dbname=DATABASE,
            sslmode="verify-full",
            sslrootcert=RDS_CA,
            connect_timeout=CONNECT_SECONDS,
        )
        try:
            create_user(owner)
        finally:
            owner.close()
    except psycopg2.Error as error:
        sys.exit(f"the user {DATABASE_USER} could not be created on {values['host']}: {str(error).strip()}")
    sys.stdout.write(f"The user {DATABASE_USER} of the database {DATABASE} logs in by IAM.\n")


if __name__ == "__main__":
    main()
