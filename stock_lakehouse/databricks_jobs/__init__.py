"""The job that runs on Databricks: it publishes one layer for one rectangle, with the same transforms and lake code as a session.

Here: the job's side, with dagster-pipes but without Dagster. Not here: how a job is submitted (resources/databricks_jobs.py).
"""
