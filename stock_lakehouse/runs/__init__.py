"""Runs started by the program: a single run, a backfill of many runs, and recording in Dagster what the lake holds."""
