"""Dagster's face of lake/: tables loaded as DataFrames and published from them, and what is told of it."""
