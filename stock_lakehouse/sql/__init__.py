"""SQL over the lake's tables: one dialect (Athena's), several engines, and the reports. No Dagster here."""
