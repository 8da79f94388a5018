"""What a run and the doctor say of each delivered file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from stock_lakehouse.sources import Delivery, Landing, UnusedColumn, delivered_table
from stock_lakehouse.sources.file_report import (
    MORE,
    MOST_KINDS,
    SHOWN_FILES,
    FileReport,
    collect,
    file_line,
    file_lines,
    spelled_otherwise,
)

ASKED, KNOWN = {"AAPL"}, {"AAPL", "BRK-B"}
Row = Mapping[str, str | None]


def bar(**values: str | None) -> Row:
    return {"file": "all.csv", "ticker": "AAPL", "date": "2024-01-02", "session": "2024-01-02", **values}


def reports(rows: Iterable[Row], **notes: tuple[str, ...]) -> dict[str, FileReport]:
    rows = list(rows)
    names = sorted({name for row in rows for name in row})
    files: dict[str, FileReport] = {}
    table = delivered_table({name: [row.get(name) for row in rows] for name in names})
    collect(files, Delivery(table, notes={name.replace("_", "."): said for name, said in notes.items()}), ASKED, KNOWN)
    return files


def test_every_row_of_a_file_is_counted_once_by_what_it_is() -> None:
    rows = [
        bar(),
        bar(session="2024-01-03"),
        bar(ticker="BRK-B"),
        bar(ticker="MSFT"),
        bar(ticker=None, symbol=" BRK/B "),
        bar(ticker=None, line_number="7"),
        bar(session=None, date="soon", line_number="8"),
        bar(problem="4 fields where the header has 7", line="a,b,c,d", line_number="9"),
    ]
    found = reports(rows)["all.csv"]
    assert (found.rows, found.gave, found.elsewhere) == (8, 2, 1)
    assert found.others == {"MSFT": 1, "BRK/B": 1}
    assert (found.first, found.last) == ("2024-01-02", "2024-01-03")
    assert sorted(one.rows for one in found.refused.values()) == [1, 1, 1]
    assert found.rows == found.gave + found.elsewhere + sum(found.others.values()) + 3
    line = file_line(found, Landing(delivered=8, landed=5, repeated=1, outside=2), KNOWN)
    assert line.startswith("all.csv: 8 rows, 5 landed; 1 repeated; 2 outside what the run asked for; 1 refused: ")
    assert "1 refused for 1 more reasons" in line
    assert "if BRK/B is BRK-B, write BRK-B in the file" in line


def test_rows_without_a_file_are_no_files_and_a_file_without_rows_is_one() -> None:
    assert not reports([bar(file=None)])
    found = reports([], empty_csv=())
    assert found["empty.csv"].is_useless
    assert file_line(found["empty.csv"]) == ("empty.csv: no row; nothing can be used: remove it, or export it again")


def test_a_file_of_other_tickers_of_the_settings_is_not_useless() -> None:
    assert not reports([bar(ticker="BRK-B")])["all.csv"].is_useless
    assert reports([bar(ticker="MSFT")])["all.csv"].is_useless


def test_the_most_frequent_reason_comes_first_with_its_first_line() -> None:
    bad = [bar(problem="the quote is left open", line='"1', line_number=str(number)) for number in range(5, 9)]
    found = reports([bar(), bar(session=None, date="soon", line_number="3"), *bad])["all.csv"]
    assert "4 refused: the quote is left open (line 5: '\"1')" in file_line(found)


def test_notes_are_said_once_and_those_of_an_unused_column_are_known() -> None:
    note = UnusedColumn("column 'Div Yield' is not used")
    files = reports([bar()], all_csv=(note, "decimal commas"))
    collect(files, Delivery(delivered_table({}), notes={"all.csv": (note,)}), ASKED, KNOWN)
    assert files["all.csv"].notes == (note, "decimal commas")
    assert files["all.csv"].unused == (note,)
    assert file_line(files["all.csv"]).endswith(f"{note}; decimal commas")


def test_delivered_text_steers_no_terminal_and_its_length_and_kinds_are_bounded() -> None:
    rows = [
        bar(file="\x1b[31m.csv", problem="\x1b]0;title\x07" * 200, line="\x1b" * 4000, line_number="2"),
        *(bar(file="\x1b[31m.csv", ticker=None, symbol=f"{number}\u202e") for number in range(2 * MOST_KINDS)),
    ]
    found = reports(rows)["\x1b[31m.csv"]
    assert len(found.others) == MOST_KINDS + 1
    assert found.others[MORE] == MOST_KINDS
    line = file_line(found)
    assert line.isprintable()
    assert len(line) < 2000


def test_of_many_files_those_with_something_to_say_have_a_line_and_the_rest_one() -> None:
    rows = [bar(file=f"{number:03}.csv", ticker="MSFT" if number % 9 == 0 else "AAPL") for number in range(90)]
    lines = list(file_lines(reports(rows).values(), {}, KNOWN))
    assert [line[:7] for line in lines[:-1]] == [f"{number:03}.csv" for number in range(0, 90, 9)]
    assert lines[-1] == "80 more files: 80 rows"
    all_bad = [bar(file=f"{number:03}.csv", ticker="MSFT") for number in range(90)]
    lines = list(file_lines(reports(all_bad).values(), {"089.csv": Landing(landed=1)}, KNOWN))
    assert len(lines) == SHOWN_FILES + 1
    assert lines[-1] == "70 more files: 70 rows (70 of the files with rows refused or of other symbols), 1 landed"


@pytest.mark.parametrize(
    ("symbol", "ticker"),
    [
        ("BRK.B", "BRK-B"),
        ("brk/b", "BRK-B"),
        ("BRK B", "BRK-B"),
        ("BRKB", "BRK-B"),
        ("AAPL.US", "AAPL"),
        ("NASDAQ:AAPL", "AAPL"),
        ("AAPL US Equity", "AAPL"),
        ("AAPL.DE", None),
        ("AAPL GR Equity", None),
        ("MSFT", None),
        ("", None),
        ("AAPLX", None),
    ],
)
def test_a_symbol_that_the_settings_spell_otherwise_is_recognised(symbol: str, ticker: str | None) -> None:
    assert spelled_otherwise(symbol, ("AAPL", "BRK-B")) == ticker
