"""What runs on Databricks as a job: one layer for one rectangle, by the same transforms and lake code as a session.

Here: the job's side, without Dagster but for dagster-pipes. Not here: submitting one (resources/databricks_jobs.py).
"""
