"""What is launched from here: one run, a backfill of many, and telling Dagster what the lake holds."""
