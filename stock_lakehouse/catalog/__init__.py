"""The catalog: what each table is, its registration in Glue, crawlers, and whether lake and catalog agree; no Dagster here."""
