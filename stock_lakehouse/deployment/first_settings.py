"""The lakehouse.toml that `stock-lakehouse init --aws` writes. Not here: that of a laptop (instance/home.py)."""

from __future__ import annotations

from stock_lakehouse.deployment.bundle import wheel_in_production
from stock_lakehouse.lake_options import EXAMPLE_BUCKET

# `stock-lakehouse deploy render` works from it at once: only what is needed to run is filled in from the stack.
AWS_TOML = f"""\
# A lake on AWS. `stock-lakehouse deploy render` makes of it what is deployed: docs/deployment.md. All settings: docs/settings.md.
# A line can be overridden by a variable: STOCK_LAKEHOUSE_TICKERS=AAPL,NVDA. Secrets and credentials come from variables only.

# What the lake holds.
tickers = ["AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA"]
exchange = "XNYS"                  # whose sessions: a MIC like XLON, XTKS | 24/7 (crypto) | 24/5 (currencies)
first_date = 2013-01-02
source = "yfinance"                # sample | csv | yfinance

# Where it is. Once the stack is deployed, fill in its output LakeRoot, here and in athena_results.
lake_root = "{EXAMPLE_BUCKET}bucket/lake"

# What registers its tables, and what runs SQL on them.
catalog = "glue"
query_engine = "athena"            # athena | duckdb: on this machine

# What computes: this program, on the machine or in the task where it runs; or Databricks, with the table [databricks] below.
engine = "embedded"                # embedded | databricks

# What starts runs: off | sensor | schedule | declarative (docs/automation.md).
automation = "sensor"

# Native tables on Redshift, with the table [redshift] below (docs/warehouse.md).
# warehouse = "redshift"

# A dashboard on QuickSight, with the table [quicksight] below (docs/dashboards.md).
# dashboard = "quicksight"

# The Glue database and Athena's workgroup (docs/aws.md).
[aws]
glue_database = "lakehouse"
athena_workgroup = "lakehouse"
athena_results = "{EXAMPLE_BUCKET}bucket/lake/athena-results"

# Databricks (docs/deployment.md#databricks). The bundle makes cluster, volume and wheel; until it is deployed, cluster_id and the
# service principal's application id in wheel may be any text.
# [databricks]
# host = "https://WORKSPACE.cloud.databricks.com"
# cluster_id = "sessions"          # from `databricks bundle summary -t production`
# messages = "/Volumes/main/stock_lakehouse/messages"
# wheel = "{wheel_in_production("APPLICATION-ID")}"

# Redshift Serverless.
# [redshift]
# workgroup = "stocks"

# Who sees the dashboard on QuickSight.
# [quicksight]
# readers = ["group analysts"]

# Live prices from Kinesis or Kafka (docs/streaming.md).
# [stream]
# source = "kinesis"
# name = "stock_ticks"
"""
