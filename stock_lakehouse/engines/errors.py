"""The errors of an engine that cannot be used."""

from __future__ import annotations

CREDENTIALS = (
    "set DATABRICKS_TOKEN, or DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, "
    "or databricks.profile to a profile of ~/.databrickscfg"
)


class EngineError(Exception):
    """The engine does not start or cannot be used. The message says what to change."""


class CredentialsError(EngineError):
    """Databricks rejects the credentials, or there are none. The message says which variables to set."""
