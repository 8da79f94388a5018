"""The name by which a lake's dagster.yaml finds its event log; the log is instance/event_log.py."""

from stock_lakehouse.instance.event_log import BatchedSqliteEventLogStorage

__all__ = ["BatchedSqliteEventLogStorage"]
