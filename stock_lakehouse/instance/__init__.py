"""Dagster's records of a lake: the instance, the event log and the tags of runs."""
