"""The answers of the page Data: against what was delivered, and `read_table`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import deltalake
import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.dashboards import coverage as coverage_room
from stock_lakehouse.dashboards import data as data_room
from stock_lakehouse.dashboards.data import counts, data
from stock_lakehouse.dashboards.view import View
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import add_actions
from stock_lakehouse.lake.raw_csv import CorruptRawFileError
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.lake.storage import DeniedError, Folder
from stock_lakehouse.tables import TABLES
from stock_lakehouse_tests.dashboards.varied_lake import (
    CORRECTED,
    DIVIDEND,
    EARLY_END,
    HOSTILE,
    LATE_START,
    MISSING,
    REFUSED,
    SESSIONS,
    SPLIT,
    Varied,
    corrected,
    delivered,
    varied_lake,
)
from stock_lakehouse_tests.graph import clocked, history, rectangle, run

DELIVERED = len(delivered())
BARS = DELIVERED - 1  # one was refused


def tables_of(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {table["table"]: table for table in found["tables"]}


def test_each_table_has_its_rows_newest_session_and_version(varied: Varied) -> None:
    tables = tables_of(data(View(varied.lake)))
    assert [*tables] == [table.name for table in TABLES]
    for name, rows, last in (
        ("processed_quarantine", 1, REFUSED.isoformat()),
        ("curated_stocks_daily", BARS, "2021-06-30"),
        ("stocks_features", BARS, "2021-06-30"),
        ("corporate_actions", 2, DIVIDEND.isoformat()),
    ):
        assert (tables[name]["rows"], tables[name]["last"]) == (rows, last), name
    assert tables["raw_stocks_daily"]["last"] == "2021-06-30"
    assert tables["raw_stocks_daily"]["rows"] is None  # a question of its own
    for name, stored in varied.lake.delta.items():
        assert tables[name]["version"] == stored.version()
        assert (tables[name]["files"], tables[name]["bytes"]) == (len(stored.sizes()), sum(stored.sizes()))
    ledger = read_table("restatements", lake_root=varied.root)
    assert tables["restatements"]["rows"] == ledger.num_rows > 0


def test_rows_of_delivered_tables_are_counted_by_opening_each_file_once(varied: Varied) -> None:
    data_room._lines_in.cache_clear()
    data_room._rows_in.cache_clear()
    found = counts(View(varied.lake))
    assert found == {
        "raw_stocks_daily": {"rows": DELIVERED + 1},  # the correction is one more delivery
        "processed_stocks_daily": {"rows": BARS, "last": "2021-06-30"},
    }
    files = data_room._lines_in.cache_info().currsize
    assert files == len(varied.lake.raw.files())
    assert counts(View(varied.lake)) == found
    assert data_room._lines_in.cache_info().misses == files  # none was opened again


def test_who_may_not_read_delivered_rows_sees_everything_else(varied: Varied, monkeypatch: pytest.MonkeyPatch) -> None:
    def guarded(listing: Callable[..., Any]) -> Callable[..., Any]:
        def listed(folder: Folder, path: str, *how: Any) -> Any:
            if path.startswith(("raw/", "processed/stocks_daily")):
                raise DeniedError(f"{path}: access denied")
            return listing(folder, path, *how)

        return listed

    everything = data(View(varied.lake))
    for name in ("walk", "walk_partitions"):
        monkeypatch.setattr(Folder, name, guarded(getattr(Folder, name)))
    view = View(varied.lake)
    found = data(view)
    for name, held in tables_of(found).items():
        if name in ("raw_stocks_daily", "processed_stocks_daily"):
            assert {held[fact] for fact in ("rows", "files", "bytes", "last", "changed")} == {None}
        else:
            assert held == tables_of(everything)[name]
    assert {**found, "tables": None} == {**everything, "tables": None}
    assert counts(view) == {
        "raw_stocks_daily": {"rows": None},
        "processed_stocks_daily": {"rows": None, "last": None},
    }


def test_a_damaged_raw_file_is_named(spark: SparkSession, tmp_path: Path) -> None:
    house = clocked(tmp_path / "lake", spark, ("AAA",))
    run(house, rectangle(SESSIONS[:3], ["AAA"]), history(["AAA"], SESSIONS[:3]).values())
    [file] = house.lake.raw.files()
    with (tmp_path / "lake" / file.path).open("a") as opened:
        opened.write('"one field too few"\n')
    with pytest.raises(CorruptRawFileError, match=file.name):
        counts(View(house.lake))


def test_the_picture_of_coverage_has_the_sessions_and_the_missing_ones_of_each_ticker_and_year(varied: Varied) -> None:
    found = data(View(varied.lake))["coverage"]
    assert (found["tickers"], found["years"], found["absent"]) == (5, [2019, 2020, 2021], [])
    # AAA lacks three sessions, BBB the one that was refused.
    assert found["missing"] == 4
    of_year = {year: [day for day in SESSIONS if day.year == year] for year in found["years"]}

    def cells(missing: dict[int, int], first: date = SESSIONS[0], last: date = SESSIONS[-1]) -> list[list[int] | None]:
        spans = {year: [day for day in days if first <= day <= last] for year, days in of_year.items()}
        return [
            [len(days) - missing.get(year, 0), missing.get(year, 0)] if days else None for year, days in spans.items()
        ]

    wanted = {
        "AAA": cells({2019: 2, 2020: 1}),
        "BBB": cells({2021: 1}),
        "CCC": cells({}, first=LATE_START),
        "DDD": cells({}, last=EARLY_END),
        "EEE": cells({}, first=SESSIONS[-2]),
    }
    assert {row["tickers"][0]: row["cells"] for row in found["rows"]} == wanted
    assert [row["tickers"][0] for row in found["rows"]][:2] == ["AAA", "BBB"]  # those that lack most first
    assert [(gap["ticker"], gap["year"], gap["days"]) for gap in found["gaps"]] == [
        ("BBB", 2021, [REFUSED.isoformat()]),
        ("AAA", 2020, [MISSING[2].isoformat()]),
        ("AAA", 2019, [day.isoformat() for day in MISSING[:2]]),
    ]
    since = len(SESSIONS) - 1 - SESSIONS.index(EARLY_END)
    assert found["ended"] == [{"ticker": "DDD", "last": EARLY_END.isoformat(), "sessions": since}]
    assert found["ended_tickers"] == 1
    assert tables_of(data(View(varied.lake)))["curated_stocks_daily"]["missing"] == 4


def test_tickers_that_have_the_same_sessions_are_one_row(spark: SparkSession, tmp_path: Path) -> None:
    house = clocked(tmp_path / "lake", spark, ("AAA", "BBB", "CCC", "ZZZ"))
    bars = history(["AAA", "BBB", "CCC"], SESSIONS[:5])
    del bars["BBB", SESSIONS[2]]
    run(house, rectangle(SESSIONS[:5], ["AAA", "BBB", "CCC"]), bars.values())
    found = coverage_room.coverage_of(View(house.lake))
    assert [(row["tickers"], row["count"], row["cells"]) for row in found["rows"]] == [
        (["BBB"], 1, [[4, 1]]),
        (["AAA", "CCC"], 2, [[5, 0]]),
    ]
    assert found["absent"] == ["ZZZ"]  # in the settings, and without a bar


def test_what_was_refused_is_told_by_reason_and_as_delivered(varied: Varied) -> None:
    found = data(View(varied.lake))["quarantine"]
    assert (found["rows"], found["other_reasons"]) == (1, 0)
    assert ["volume is negative", 1] in found["reasons"]
    [row] = found["newest"]
    assert row["ticker"] == "BBB"
    assert HOSTILE in row["delivered"]
    assert "volume -1" in row["delivered"]
    assert "volume is negative" in row["reasons"]


def test_of_many_refused_rows_the_newest_are_listed_and_all_are_counted(spark: SparkSession, tmp_path: Path) -> None:
    sessions = SESSIONS[: data_room.LISTED + 30]
    house = clocked(tmp_path / "lake", spark, ("AAA",))
    bars = history(["AAA"], sessions)
    for number, key in enumerate(sorted(bars)[: data_room.LISTED + 10]):
        bars[key]["close"] = f"{'none of this is a price ' * 100}{number}"
    run(house, rectangle(sessions, ["AAA"]), bars.values())
    found = data(View(house.lake))["quarantine"]
    assert (found["rows"], len(found["newest"])) == (data_room.LISTED + 10, data_room.LISTED)
    assert dict(map(tuple, found["reasons"]))["close cannot be read"] == data_room.LISTED + 10
    assert max(len(row["delivered"]) for row in found["newest"]) == data_room.LONGEST_TEXT + 1  # cut, and an ellipsis


def test_the_ledger_tells_the_newest_lines_and_the_causes_of_thirty_days(varied: Varied) -> None:
    found = data(View(varied.lake))["restatements"]
    lines = read_table("restatements", lake_root=varied.root).to_pylist()
    assert found["lines"] == len(lines)
    of_curated = [line for line in found["newest"] if line["table"] == "curated_stocks_daily"]
    before, after = delivered()["AAA", CORRECTED], corrected()
    assert {line["columns"][0]: (float(line["old"]), float(line["new"])) for line in of_curated} == {
        name: (float(before[name] or "nan"), float(after[name] or "nan")) for name in ("high", "close", "adj_close")
    }
    assert {(line["ticker"], line["date"], line["cause"]) for line in of_curated} == {
        ("AAA", CORRECTED.isoformat(), "vendor edit")
    }
    assert {(group["table"], group["cause"], group["lines"], group["tickers"]) for group in found["recent"]} == {
        ("curated_stocks_daily", "vendor edit", 3, 1),
        ("stocks_features", "vendor edit", 1, 1),
    }
    later = View(varied.lake, clock=lambda: datetime.now(UTC) + timedelta(days=31))
    assert data(later)["restatements"]["recent"] == []


def test_splits_and_dividends_are_listed_newest_first(varied: Varied) -> None:
    found = data(View(varied.lake))["actions"]
    assert found["kinds"] == {"dividend": 1, "split": 1}
    assert [(row["ticker"], row["ex_date"], row["kind"], row["value"]) for row in found["newest"]] == [
        ("BBB", DIVIDEND.isoformat(), "dividend", 0.5),
        ("BBB", SPLIT.isoformat(), "split", 4.0),
    ]


def test_sessions_between_the_newest_bar_and_the_calendar_are_counted(varied: Varied) -> None:
    # 2021-07-05, a Monday, was a holiday: by the evening of Tuesday three sessions were missing.
    for at, expected, behind in (
        (datetime(2021, 6, 30, 23, tzinfo=UTC), "2021-06-30", 0),
        (datetime(2021, 7, 2, 23, tzinfo=UTC), "2021-07-02", 2),
        (datetime(2021, 7, 6, 23, tzinfo=UTC), "2021-07-06", 3),
    ):
        found = data(View(varied.lake, clock=lambda at=at: at))
        assert (found["last"], found["expected"], found["behind"]) == ("2021-06-30", expected, behind)


def test_an_earlier_moment_tells_what_was_known_then(varied: Varied) -> None:
    now, then = data(View(varied.lake)), data(View(varied.lake, as_of=varied.between))
    tables, before = tables_of(now), tables_of(then)
    assert before["curated_stocks_daily"]["version"] == tables["curated_stocks_daily"]["version"] - 1
    assert before["raw_stocks_daily"]["files"] == tables["raw_stocks_daily"]["files"] - 1
    assert (before["restatements"]["rows"], then["restatements"]["newest"]) == (0, [])
    assert before["processed_stocks_daily"]["files"] is None  # keeps no history
    assert then["quarantine"] == now["quarantine"]
    assert counts(View(varied.lake, as_of=varied.between)) == {
        "raw_stocks_daily": {"rows": DELIVERED},
        "processed_stocks_daily": {"rows": None, "last": None},
    }


def test_a_lake_without_tables_has_no_rows_and_no_error(tmp_path: Path) -> None:
    found = data(View(Lake(tmp_path)))
    assert {table["rows"] for table in found["tables"] if table["version"] is not None} == set()
    assert (found["last"], found["behind"], found["coverage"]["rows"]) == (None, None, [])
    assert (found["quarantine"]["rows"], found["restatements"]["lines"], found["actions"]["newest"]) == (0, 0, [])
    assert counts(View(Lake(tmp_path))) == {
        "raw_stocks_daily": {"rows": 0},
        "processed_stocks_daily": {"rows": 0, "last": None},
    }


def test_a_lake_whose_log_has_no_statistics_has_the_same_coverage(varied: Varied, tmp_path: Path) -> None:
    shutil.copytree(varied.root, tmp_path / "lake")
    lake = Lake(varied.lake.options.model_copy(update={"lake_root": tmp_path / "lake"}))
    rows = lake.curated.open().to_pyarrow_table()
    properties = {"delta.dataSkippingStatsColumns": "close"}
    lake.curated.open().alter.set_table_properties(properties, raise_if_not_exists=False)
    deltalake.write_deltalake(lake.curated.open(), rows, mode="overwrite")
    assert "min.date" not in add_actions(lake.curated.open()).column_names
    assert coverage_room.coverage_of(View(lake)) == coverage_room.coverage_of(View(varied.lake))


@pytest.mark.soak
def test_a_lake_by_year_has_the_same_coverage(varied: Varied, spark: SparkSession, tmp_path: Path) -> None:
    by_year = varied_lake(tmp_path / "lake", spark, "year")
    assert data(View(by_year.lake))["coverage"] == data(View(varied.lake))["coverage"]
