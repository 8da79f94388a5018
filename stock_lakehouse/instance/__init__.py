"""What Dagster keeps of a lake: its instance, its event log, the tags of its runs."""
