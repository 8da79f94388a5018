"""The script that Databricks runs. It is uploaded to the workspace with each job; the wheel brings everything else."""

from stock_lakehouse.databricks_jobs.main import main

main()
