"""The checks of delivered files and of the quarantine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path

import dagster as dg
from pyspark.sql import SparkSession

from stock_lakehouse.assets.processed import processed_stocks_daily
from stock_lakehouse.checks.files import files_read
from stock_lakehouse.sources import Delivery, UnusedColumn
from stock_lakehouse.sources.download import Download
from stock_lakehouse.tables import PROCESSED, RAW, UNREADABLE
from stock_lakehouse_tests.graph import (
    NOW,
    Bar,
    Clocked,
    OutputContext,
    RawCsvIOManager,
    clocked,
    delivery,
    edited,
    history,
    keys_of,
    rectangle,
    run,
    sessions_of,
)

SESSIONS = sessions_of(date(2020, 1, 6), date(2020, 1, 10))
ASKED = rectangle(SESSIONS, ("AAA",))
BARS = history(("AAA",), SESSIONS)


class Files:
    """A source of files: of each its rows."""

    name, interval = "csv", "1d"

    def __init__(self, notes: Mapping[str, tuple[str, ...]] | None = None, **files: Sequence[Mapping[str, str | None]]):
        self._notes, self._files = notes or {}, files

    def deliver(self, _tickers: Sequence[str], _first: date, _last: date) -> Iterator[Delivery]:
        for file, rows in self._files.items():
            named = [{"session": row["date"], **row, "file": f"{file}.csv"} for row in rows]
            yield Delivery(delivery(named), notes=self._notes)


def check_of(source: Files, known: Sequence[str] = ("AAA", "BBB")) -> tuple[bool, str, list[Mapping[str, object]]]:
    """Whether it passed, its severity, and its rows."""
    download = Download(source, ("AAA",), SESSIONS[0], SESSIONS[-1], known)
    assert list(download)
    check = files_read(download)
    rows = check.metadata.get("rows")
    return check.passed, check.severity.value, [record.data for record in rows.records] if rows else []  # type: ignore[union-attr]


def test_a_file_that_gave_nothing_is_red_with_its_name_and_what_to_change() -> None:
    strange = [{**BARS["AAA", SESSIONS[0]], "ticker": "AAA.US"}]
    passed, severity, rows = check_of(Files(good=list(BARS.values()), strange=strange))
    assert (passed, severity) == (False, "WARN")
    assert [row["file"] for row in rows] == ["strange.csv"]
    assert rows[0]["reason"] == "1 of symbols that nobody asked for: AAA.US 1 (if AAA.US is AAA, write AAA in the file)"


def test_it_is_an_error_if_no_file_gave_a_row_that_was_asked_for() -> None:
    refused: Bar = {**BARS["AAA", SESSIONS[0]], "problem": "01/02/2020 may be two days: set csv_dates"}
    passed, severity, rows = check_of(Files(AAA=[refused]))
    assert (passed, severity) == (False, "ERROR")
    assert "set csv_dates" in str(rows[0]["reason"])
    others = [{**BARS["AAA", SESSIONS[0]], "ticker": "BBB"}]
    assert check_of(Files(AAA=[refused], others=others))[1] == "ERROR"
    assert check_of(Files(AAA=list(BARS.values()), others=others)) == (True, "WARN", [])


def test_a_column_of_dividends_that_is_left_out_is_red_and_what_a_reader_recognised_is_not() -> None:
    notes = {"AAA.csv": ("form of Quandl", UnusedColumn("column 'Div Yield' is not used: call it Dividends"))}
    passed, severity, rows = check_of(Files(notes, AAA=list(BARS.values())))
    assert (passed, severity) == (False, "WARN")
    assert rows[0]["reason"] == "column 'Div Yield' is not used: call it Dividends"
    assert check_of(Files({"AAA.csv": ("form of Quandl, which is not used any more",)}, AAA=list(BARS.values())))[0]


def test_a_source_without_files_is_green() -> None:
    download = Download(Files(), ("AAA",), SESSIONS[0], SESSIONS[-1])
    assert not list(download)
    assert files_read(download).passed


def processed_checks(house: Clocked) -> dg.AssetCheckResult:
    """The check `quarantine` of a run of the processed layer, which is then published."""
    raw = RawCsvIOManager(lakehouse=house).load_input(OutputContext(RAW.name, keys_of(ASKED), "a"))  # type: ignore[arg-type]
    function = processed_stocks_daily.op.compute_fn.decorated_fn  # type: ignore[union-attr]
    results = list(function(OutputContext(PROCESSED.name, keys_of(ASKED), "a"), raw, house))
    run(house, ASKED, steps=(PROCESSED.name,))
    (check,) = [one for one in results if isinstance(one, dg.AssetCheckResult) and one.check_name == "quarantine"]
    return check


def test_rows_new_in_the_quarantine_are_told_once_with_their_text(spark: SparkSession, tmp_path: Path) -> None:
    house = clocked(tmp_path / "lake", spark, ("AAA",))
    bad = edited(BARS, ("AAA", SESSIONS[1]), close="soon")
    run(house, ASKED, bad.values(), steps=(RAW.name,))
    first = processed_checks(house)
    assert not first.passed
    assert first.severity == dg.AssetCheckSeverity.WARN
    [row] = [record.data for record in first.metadata["rows"].records]  # type: ignore[union-attr]
    assert (row["ticker"], row["session"], row["value"]) == ("AAA", str(SESSIONS[1]), "close=soon")
    assert row["reasons"] == "close cannot be read"
    assert first.metadata["by reason"].value == {"close cannot be read": 1}
    assert "show processed_quarantine AAA" in str(first.metadata["what to do"].value)
    assert processed_checks(house).passed
    run(house, ASKED, edited(bad, ("AAA", SESSIONS[2]), volume="-5").values(), steps=(RAW.name,))
    second = processed_checks(house)
    assert second.metadata["found"].value == 1
    assert second.metadata["rows"].records[0].data["value"] == "volume=-5"  # type: ignore[union-attr]
    house.staging.clear()


def test_a_bad_row_delivered_again_after_a_good_one_is_told_again(spark: SparkSession, tmp_path: Path) -> None:
    house = clocked(tmp_path / "lake", spark, ("AAA",))
    bad = edited(BARS, ("AAA", SESSIONS[1]), close="soon")
    for at, (bars, passed) in enumerate(((bad, False), (BARS, True), (bad, False))):
        house._at = datetime(2024, 6, 3 + at, tzinfo=NOW.tzinfo)
        run(house, ASKED, bars.values(), steps=(RAW.name,))
        assert processed_checks(house).passed is passed
    house.staging.clear()


def test_a_row_without_a_ticker_is_told_too(spark: SparkSession, tmp_path: Path) -> None:
    house = clocked(tmp_path / "lake", spark, ("AAA",))
    row: Bar = {**BARS["AAA", SESSIONS[0]], "ticker": None, "symbol": "\x1b[31mA A"}
    run(house, ASKED, [row], steps=(RAW.name,))
    check = processed_checks(house)
    assert f"show processed_quarantine {UNREADABLE}" in str(check.metadata["what to do"].value)
    assert check.metadata["rows"].records[0].data["value"] == r"symbol=\x1b[31mA A"  # type: ignore[union-attr]
    assert processed_checks(house).passed
    house.staging.clear()


def test_rows_of_different_reasons_are_shown_first(spark: SparkSession, tmp_path: Path) -> None:
    house = clocked(tmp_path / "lake", spark, ("AAA",))
    bad = BARS
    for session in SESSIONS[:4]:
        bad = edited(bad, ("AAA", session), close="soon")
    bad = edited(bad, ("AAA", SESSIONS[4]), volume="-5")
    run(house, ASKED, bad.values(), steps=(RAW.name,))
    records = processed_checks(house).metadata["rows"].records  # type: ignore[union-attr]
    assert [record.data["value"] for record in records] == ["close=soon", "volume=-5", *["close=soon"] * 3]
    house.staging.clear()
