"""Documents that the code writes, or that a test executes."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from stock_lakehouse.sql.functions import signatures
from stock_lakehouse.sql.reports import reports
from stock_lakehouse.tables import FEATURES, STREAM_TABLES, TABLES, bars_with_features
from stock_lakehouse_tests import table_documents
from stock_lakehouse_tests.pipeline import House

SQL = Path(__file__).parents[1] / "docs" / "sql.md"
PYTHON = Path(__file__).parents[1] / "docs" / "python.md"
BLOCK = re.compile(r"^```(toml|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_data_dictionary_is_up_to_date() -> None:
    if table_documents.written() != table_documents.DOCUMENT.read_text(encoding="utf-8"):
        pytest.fail("docs/tables.md is stale: run `make docs`, and look at what it changed")


def test_the_data_dictionary_has_every_column_of_every_table() -> None:
    sections = table_documents.DOCUMENT.read_text(encoding="utf-8").split("\n## ")[1:]
    found = {text.partition("\n")[0]: tuple(re.findall(r"^\| `(\w+)`", text, re.MULTILINE)) for text in sections}
    assert found == {
        table.name: table.column_names for table in (*TABLES, bars_with_features(FEATURES), *STREAM_TABLES)
    }


def test_the_page_on_sql_names_every_function_and_report() -> None:
    text = SQL.read_text(encoding="utf-8")
    assert [name for name in (*signatures(), *reports()) if f"`{name}`" not in text] == []


@pytest.mark.slow
def test_every_example_of_the_page_on_python_gives_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = BLOCK.findall(PYTHON.read_text(encoding="utf-8"))
    (settings,) = (text for language, text in blocks if language == "toml")
    (indicators,) = (text for _, text in blocks if text.startswith("# my_indicators.py\n"))
    (tmp_path / "lakehouse.toml").write_text(settings)
    (tmp_path / "my_indicators.py").write_text(indicators)
    House(tmp_path, tmp_path / "instance").run()
    monkeypatch.chdir(tmp_path)

    examples = [text for _, text in blocks if text.startswith(">>> ")]
    assert len(examples) == len(blocks) - 2
    names: dict[str, object] = {}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    told: list[str] = []
    for number, text in enumerate(examples, 1):
        test = doctest.DocTestParser().get_doctest(text, names, f"example {number}", str(PYTHON), 0)
        runner.run(test, out=told.append, clear_globs=False)
        names = test.globs
    assert not runner.failures, "".join(told)
    assert runner.tries > len(examples)
