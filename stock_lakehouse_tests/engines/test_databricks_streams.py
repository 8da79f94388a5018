"""Streams that break between this program and Databricks, before JVM Spark, whose answers can be taken up again as there.

Sail's cannot: what it had sent and did not arrive is missing afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stock_lakehouse.tables import PROCESSED, RAW
from stock_lakehouse_tests.engines.workspace import Workspace, on, session_on
from stock_lakehouse_tests.graph import TICKERS, clocked, contents, history, rectangle, run, year_boundary

pytestmark = pytest.mark.engines
DAYS = year_boundary(30, 30)[:8]


def test_a_stream_that_drops_is_taken_up_where_it_broke(
    jvm_address: str, open_workspace: Callable[[str], Workspace], tmp_path: Path
) -> None:
    workspace, asked = open_workspace(jvm_address.removeprefix("sc://")), rectangle(DAYS, TICKERS[:1])
    with session_on(on(workspace)) as remote:
        workspace.drop_streams = 2
        assert sorted(row["id"] for row in remote.range(200_000).collect()) == list(range(200_000))
        workspace.drop_streams = 5
        far = clocked(tmp_path / "far", remote)
        run(far, asked, history(TICKERS[:1], DAYS).values(), steps=(RAW.name, PROCESSED.name))
        assert workspace.drop_streams < 0
        assert len(contents(far.lake.processed)) == len(DAYS)
    taken_up = [call for call in workspace.calls if call.method == "ReattachExecute"]
    assert len(taken_up) >= 7
    assert all("x-databricks-cluster-id" in call.metadata and call.token for call in taken_up)
