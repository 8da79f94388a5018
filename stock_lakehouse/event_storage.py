"""The module that a lake's dagster.yaml names for its event log. The class is defined in instance/event_log.py."""

from stock_lakehouse.instance.event_log import BatchedSqliteEventLogStorage

__all__ = ["BatchedSqliteEventLogStorage"]
