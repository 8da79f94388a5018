"""The warehouse: native tables on Redshift that equal those of the lake, how they are loaded and compared; no Dagster here."""
