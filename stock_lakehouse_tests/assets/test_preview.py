"""What Dagster's UI shows of delivered text."""

from __future__ import annotations

import base64
import html
import re
import xml.etree.ElementTree as ET
from datetime import date

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.io_managers.metadata import CHART_HEIGHT, CHART_WIDTH, chart, preview
from stock_lakehouse_tests.conftest import frame
from stock_lakehouse_tests.graph import rectangle

ASKED = rectangle([date(2023, 9, 21)], ["AAA"])


@pytest.mark.parametrize(
    "text",
    [
        "1 | 2 |",
        "<script>alert(1)</script>",
        "![](http://x.invalid/i.png)",
        "[look](http://x.invalid)",
        "`1`",
        "two\nlines",
        "a\\|b",
        "&lt;b&gt;",
        "# *_~",
        "\x1b[31m",
    ],
)
def test_a_preview_is_a_table_in_which_delivered_text_is_only_text(spark: SparkSession, text: str) -> None:
    rows = frame(spark, "ticker string, date string, open string", ("AAA", "2023-09-21", text))
    header, _, row = preview(rows, ASKED).md_str.split("\n")  # type: ignore[union-attr]
    assert header == "| ticker | date | open |"
    cells = [one.strip() for one in row.strip("|").split("|")]
    assert len(cells) == 3
    assert not re.search(r"[<>\[\]()!`*_\\~#]", re.sub("&#[0-9]+;", "", cells[2]))
    assert html.unescape(cells[2]) == text.replace("\n", "\\n").replace("\x1b", "\\x1b")


def test_a_long_cell_is_cut(spark: SparkSession) -> None:
    rows = frame(spark, "ticker string, date string, open string", ("AAA", "2023-09-21", "9" * 4_000))
    assert len(preview(rows, ASKED).md_str or "") < 250


def test_a_chart_draws_the_first_ticker_from_its_oldest_session_to_its_newest(spark: SparkSession) -> None:
    bars = [("AAA", 18, 10.0), ("AAA", 20, 20.0), ("AAA", 19, 15.0), ("BBB", 19, 99.0)]
    rows = frame(
        spark, "ticker string, date date, close double", *((name, date(2023, 9, day), at) for name, day, at in bars)
    )
    drawn = chart(rows, ASKED)
    assert drawn is not None
    text = drawn.md_str or ""
    assert text.endswith("AAA, 2023-09-18 to 2023-09-20, 10.00 to 20.00: close (steelblue)")
    encoded = re.search(r"!\[close\]\(data:image/svg\+xml;base64,([^)]*)\)", text)
    assert encoded is not None
    [line] = ET.fromstring(base64.b64decode(encoded[1]))
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert points == [(0, CHART_HEIGHT), (CHART_WIDTH / 2, CHART_HEIGHT / 2), (CHART_WIDTH, 0)]


def test_there_is_no_chart_of_a_single_session_or_of_a_table_without_prices(spark: SparkSession) -> None:
    assert chart(frame(spark, "ticker string, date date, close double", ("AAA", date(2023, 9, 18), 1.0)), ASKED) is None
    assert chart(frame(spark, "ticker string, date date, kind string", ("AAA", date(2023, 9, 18), "x")), ASKED) is None
