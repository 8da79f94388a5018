"""What the step of a layer does, once: read, compute, audit, publish. No Dagster here."""
