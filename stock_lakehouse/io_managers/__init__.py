"""IO managers: they load tables as DataFrames, publish DataFrames to tables, and record metadata of the publish."""
