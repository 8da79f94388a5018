"""Pictures of a lake: what is drawn, what the page asks, and the page itself. No Dagster, no engine."""
