"""What an engine that cannot be used says of itself."""

from __future__ import annotations

CREDENTIALS = (
    "set DATABRICKS_TOKEN, or DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, "
    "or databricks.profile to a profile of ~/.databrickscfg"
)


class EngineError(Exception):
    """The engine does not start or cannot be used; the message says what to change."""


class CredentialsError(EngineError):
    """Databricks does not take the credentials, or there are none; the message says which variables to set."""
