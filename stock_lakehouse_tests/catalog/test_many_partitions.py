"""Calls by the number of partitions: as few as Glue's limits allow, and one when nothing changed."""

from __future__ import annotations

import time
from typing import Any

import boto3
import pytest
from botocore.config import Config

from benchmarks.catalog import ROOT, registration
from stock_lakehouse.catalog.glue import GlueCatalog

# Tickers and years; calls of the first registration: the listing of the database, the look for it, its creation, the table's,
# 100 partitions a call, the digest.
SIZES = [
    pytest.param(50, 20, 5 + 10, id="1,000"),
    pytest.param(500, 20, 5 + 100, id="10,000", marks=pytest.mark.soak),
    pytest.param(10_000, 20, 5 + 2_000, id="200,000", marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("tickers", "years", "calls"), SIZES)
def test_partitions_are_registered_in_full_calls_and_looked_at_in_one(
    aws: str, database: str, tickers: int, years: int, calls: int
) -> None:
    # moto gives all partitions in one page, which takes it minutes for 200,000.
    client: Any = boto3.client("glue", endpoint_url=aws, region_name="us-east-1", config=Config(read_timeout=900))
    catalog = GlueCatalog(database, ROOT, client)
    [first] = catalog.register([registration(tickers, years)])
    assert (first.action, first.added) == ("created", tickers * years)
    assert catalog.calls.total() == calls
    catalog.calls.clear()
    started = time.process_time()
    [unchanged] = catalog.register([registration(tickers, years)])
    seconds = time.process_time() - started
    assert not unchanged.changed
    assert catalog.calls == {"GetTables": 1}
    assert seconds < 1 + tickers * years / 10_000  # seconds of this process: the digest and one call
    catalog.calls.clear()
    [extended] = catalog.register([registration(tickers, years, more=1)])
    assert extended.added == tickers
    assert catalog.calls["BatchCreatePartition"] == -(-tickers // 100)
    assert catalog.writes == catalog.calls["BatchCreatePartition"] + 2  # the digest is taken away before and set after
