"""What the lake holds, read from the Delta log: spans, holes and provisional bars, without an engine."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.coverage import CoverageError, TickerCoverage, read_coverage
from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.market_calendar import market_calendar

FIRST = date(2022, 12, 1)
CALENDAR = market_calendar(FIRST)


def publish(table: DeltaTable, ticker: str, days: tuple[date, ...], provisional: tuple[date, ...] = ()) -> None:
    """Rows of one ticker, with the columns that are read here; the others null."""
    table.prepare()
    values = {
        "ticker": [ticker] * len(days),
        "date": days,
        "year": [day.year for day in days],
        "bar_status": ["provisional" if day in provisional else "final" for day in days],
        "ingested_at": [datetime(2023, 1, 1, tzinfo=UTC)] * len(days),
    }
    schema = pa.schema(table.open().schema().to_arrow())
    rows = pa.table([values.get(name, [None] * len(days)) for name in schema.names], schema=schema)
    deltalake.write_deltalake(str(table.path), rows, mode="append")


def test_spans_holes_and_provisional_bars_are_found(lake: Lake) -> None:
    days = CALENDAR.between(FIRST, date(2023, 1, 31))
    holes = (date(2022, 12, 30), date(2023, 1, 4))
    for table in (lake.curated, lake.features):
        publish(table, "AAPL", days, days[-2:])
        publish(table, "NVDA", tuple(day for day in days[3:] if day not in holes))
    assert read_coverage(lake.features, lake.curated, CALENDAR) == {
        "AAPL": TickerCoverage(days[0], days[-1], (), days[-2:]),
        "NVDA": TickerCoverage(days[3], days[-1], holes),
    }


def test_what_was_seen_before_a_publish_is_not_believed_after_it(lake: Lake) -> None:
    days = CALENDAR.between(FIRST, date(2022, 12, 9))
    for table in (lake.curated, lake.features):
        publish(table, "AAPL", days[:-1], days[:1])
    assert read_coverage(lake.features, lake.curated, CALENDAR)["AAPL"].provisional == days[:1]
    for table in (lake.curated, lake.features):
        publish(table, "AAPL", days[-1:], days[-1:])
    assert read_coverage(lake.features, lake.curated, CALENDAR) == {
        "AAPL": TickerCoverage(days[0], days[-1], (), (days[0], days[-1]))
    }


def test_a_lake_without_tables_holds_nothing(lake: Lake) -> None:
    assert read_coverage(lake.features, lake.curated, CALENDAR) == {}


def test_a_table_that_cannot_be_read_is_an_error_and_not_empty(lake: Lake) -> None:
    days = CALENDAR.between(FIRST, date(2022, 12, 9))
    for table in (lake.curated, lake.features):
        publish(table, "AAPL", days)
    [log] = (lake.features.path / "_delta_log").glob("*01.json")
    log.write_text("this is no log\n")
    with pytest.raises(CoverageError, match="cannot be read"):
        read_coverage(lake.features, lake.curated, CALENDAR)


def test_a_file_that_is_gone_is_an_error_where_a_hole_makes_it_needed(lake: Lake) -> None:
    days = CALENDAR.between(FIRST, date(2022, 12, 9))
    publish(lake.features, "AAPL", (days[0], days[-1]))
    for path in Path(lake.features.path).rglob("*.parquet"):
        path.unlink()
    with pytest.raises(CoverageError):
        read_coverage(lake.features, lake.curated, CALENDAR)
