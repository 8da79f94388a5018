"""The script that Databricks runs; it is put into the workspace with each job. The wheel brings everything else."""

from stock_lakehouse.databricks_jobs.main import main

main()
