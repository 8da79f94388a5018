"""What Dagster's UI shows of delivered text."""

from __future__ import annotations

import html
import re
from datetime import date

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.io_managers.metadata import preview
from stock_lakehouse_tests.conftest import frame


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
    header, _, row = preview(rows.toArrow()).md_str.split("\n")  # type: ignore[union-attr]
    assert header == "| ticker | date | open |"
    cells = [one.strip() for one in row.strip("|").split("|")]
    assert len(cells) == 3
    assert not re.search(r"[<>\[\]()!`*_\\~#]", re.sub("&#[0-9]+;", "", cells[2]))
    assert html.unescape(cells[2]) == text.replace("\n", "\\n").replace("\x1b", "\\x1b")


def test_a_long_cell_is_cut(spark: SparkSession) -> None:
    rows = frame(spark, "ticker string, date string, open string", ("AAA", "2023-09-21", "9" * 4_000))
    assert len(preview(rows.toArrow()).md_str or "") < 250


def test_numbers_are_rounded_to_what_people_read_and_columns_fill_what_the_ui_shows(spark: SparkSession) -> None:
    rows = frame(
        spark,
        "ticker string, date date, open double, low double, volume bigint, year int, is_final boolean, high double",
        ("AAA", date(2023, 9, 21), 1234.5678, 0.012345678, 12345678, 2023, True, None),
    )
    _, _, row = preview(rows.toArrow()).md_str.split("\n")  # type: ignore[union-attr]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "AAA",
        "2023-09-21",
        "1,234.57",
        "0.01235",
        "12,345,678",
        "2023",
        "yes",
        "\N{EN DASH}",
    ]
    many = ", ".join(f"a_column_with_a_long_name_{number} double" for number in range(20))
    wide = frame(
        spark, f"ticker string, date date, {many}", *[("AAA", date(2023, 9, day), *[1e12] * 20) for day in range(1, 6)]
    )
    text = preview(wide.toArrow()).md_str or ""
    assert text.startswith("| ticker | date | a_column_with_a_long_name_0 |")
    assert 850 < len(text) < 1000
