"""What delivered text becomes: typed, quarantined with every reason, or superseded; never lost."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.schemas.forms import numbers
from stock_lakehouse.tables import PROCESSED, PROCESSED_ACTIONS, QUARANTINE, RAW, UNREADABLE
from stock_lakehouse.transforms.processed import (
    PRICES,
    classify,
    delivered_actions,
    processed_bars,
    quarantined,
    superseded,
)

TOLERANCE = 1e-4
# The processed columns that every row of `classify` has.
VALUES = (
    "date",
    *PRICES,
    "adj_close",
    "volume",
    "dividends_delivered",
    "basis",
    "source",
    "ingested_at",
    "adjusted_to",
    "said_dividend",
    "said_split",
    "said_capital_gain",
)
RAW_DDL = ", ".join(f"{name} string" for name in RAW.column_names)
GOOD = {
    "ticker": "AAPL",
    "symbol": "AAPL",
    "date": "2023-09-21",
    "open": "174.55",
    "high": "176.3",
    "low": "173.86",
    "close": "173.93",
    "adj_close": "172.5",
    "volume": "63047900",
    "dividends": "0.0",
    "stock_splits": "0.0",
    "source": "test",
    "interval": "1d",
    "ingested_at": "2023-09-22T00:00:00.000000Z",
    "year": "2023",
}
Row = dict[str, str | None]
COMMAS: Row = {
    "decimal": ",",
    "open": "174,55",
    "high": "176,3",
    "low": "173,86",
    "close": "173,93",
    "adj_close": None,
    "dividends": "0,0",
    "stock_splits": "0",
}


@pytest.fixture(scope="module")
def market(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame(market_calendar(date(2012, 1, 3)).days())


def bar(**changed: str | None) -> Row:
    """A valid delivered row, with changes."""
    return {**GOOD, **changed}


def classified(spark: SparkSession, market: DataFrame, rows: Iterable[Row], tolerance: float = TOLERANCE) -> DataFrame:
    """The rows of `classify`, staged."""
    values = [tuple(row.get(name) for name in RAW.column_names) for row in rows]
    lazy = classify(spark.createDataFrame(values, RAW_DDL), market, tolerance)
    return spark.createDataFrame(lazy.toArrow(), lazy.schema)


def with_fates(
    spark: SparkSession, market: DataFrame, rows: Iterable[Row], tolerance: float = TOLERANCE
) -> list[dict[str, Any]]:
    """The rows of `classify`, each with its fate: processed, quarantined or superseded."""
    staged = classified(spark, market, rows, tolerance)
    numbered = staged.withColumn("source", F.col("row").cast("string"))
    fates = {
        "processed": [
            (row["ticker"], int(row["source"])) for row in processed_bars(numbered, superseded(staged)).collect()
        ],
        "superseded": [(row["ticker"], row["row"]) for row in superseded(staged).collect()],
    }
    fate_of = {key: fate for fate, keys in fates.items() for key in keys}
    assert len(fate_of) == sum(map(len, fates.values()))
    found = staged.toArrow().to_pylist()
    return [{**row, "fate": fate_of.get((row["ticker"], row["row"]), "quarantined"), "row": None} for row in found]


def results(
    spark: SparkSession, market: DataFrame, rows: list[Row], tolerance: float = TOLERANCE
) -> list[dict[str, Any]]:
    """What became of each row, in the order given."""
    marked = [
        {**row, "problem": row.get("problem"), "source": f"{place:06}{row['source']}"} for place, row in enumerate(rows)
    ]
    found = with_fates(spark, market, marked, tolerance)
    assert len(found) == len(rows)
    return [{**row, "source": row["source"][6:]} for row in sorted(found, key=lambda row: str(row["source"]))]


# A row, by what differs from a good one, and everything that is wrong with it.
IMPOSSIBLE: list[tuple[Row, list[str]]] = [
    ({"problem": "2 fields where the header has 7", "line": "a,b"}, ["2 fields where the header has 7"]),
    ({"ticker": UNREADABLE, "symbol": None}, ["ticker cannot be read"]),
    ({"ticker": UNREADABLE}, ["ticker cannot be read", "ticker is not the file's"]),
    ({"symbol": "MSFT"}, ["ticker is not the file's"]),
    ({"date": None, "year": UNREADABLE}, ["date cannot be read"]),
    ({"date": "  ", "year": UNREADABLE}, ["date cannot be read"]),
    ({"date": "2023-02-30", "year": UNREADABLE}, ["date cannot be read"]),
    ({"date": "2023-09-31", "year": UNREADABLE}, ["date cannot be read"]),
    ({"date": "0000-01-01", "year": UNREADABLE}, ["date cannot be read"]),
    ({"date": "20230921", "year": UNREADABLE}, ["date cannot be read"]),
    ({"date": "2023-9-21", "year": UNREADABLE}, ["date cannot be read"]),
    ({"date": "21.09.2023", "year": UNREADABLE}, ["date cannot be read"]),
    ({"date": "09/21/2023", "year": UNREADABLE}, ["date cannot be read"]),
    ({"date": "2023-09-21Z", "year": UNREADABLE}, ["date cannot be read"]),
    ({"date": "2023-09-21\n"}, ["date cannot be read"]),
    ({"date": "٢٠٢٣-٠٩-٢١", "year": UNREADABLE}, ["date cannot be read"]),
    ({"year": "2022"}, ["date is not of its folder's year"]),
    ({"date": "2023-09-23"}, ["not a session of the exchange"]),  # a Saturday
    ({"date": "2023-07-04"}, ["not a session of the exchange"]),
    ({"date": "9999-12-31", "year": "9999"}, ["not a session of the exchange"]),
    ({"ingested_at": "soon"}, ["landing time cannot be read"]),
    ({"ingested_at": None}, ["landing time cannot be read"]),
    *(
        ({name: text}, [f"{name} is not finite"])
        for name in ("open", "high", "low", "close", "adj_close", "volume", "dividends", "stock_splits")
        for text in ("inf", "-Infinity", "1e400")
    ),
    *(
        ({"close": text}, ["close cannot be read"])
        for text in (
            "1d",
            "174f",
            "0x10",
            "1,23",
            "1.234,5",
            "1,2345",
            "1'23",
            "12K4",
            "K",
            "$",
            "١",
            "\uff11",
            "1_0",
            "1e",
            "--1",
            "1 7",
            "174 USD",
            "174\n",
        )
    ),
    *(
        ({name: "x"}, [f"{name} cannot be read"])
        for name in ("open", "high", "low", "adj_close", "volume", "dividends", "stock_splits")
    ),
    *(
        ({"close": text}, ["close is missing"])
        for text in (None, "   ", "NaN", "None", "N/A", "#N/A", "null", "-", "NA")
    ),
    ({"close": "0"}, ["close is not positive"]),
    ({"close": "-5"}, ["close is not positive"]),
    ({"capital_gains": "-5"}, ["capital_gains is negative"]),
    ({**COMMAS, "close": "173.93"}, ["close cannot be read"]),
    ({"low": "-1"}, ["low is not positive"]),
    ({"adj_close": "-0"}, ["adj_close is not positive"]),
    ({"adj_close": "1e-400"}, ["adj_close is not positive"]),
    ({"adj_close": "1e-300"}, ["adj_close is beyond any price"]),
    (dict.fromkeys(PRICES, "1e308"), [f"{name} is beyond any price" for name in PRICES]),
    ({"dividends": "1e308"}, ["dividends is beyond any price"]),
    (
        {"open": "174", "high": "173", "low": "175", "close": "174"},
        ["high is below low"] + [f"{name} is outside low…high" for name in ("open", "close")],
    ),
    ({"open": "176.33"}, ["open is outside low…high"]),
    ({"close": "173.84"}, ["close is outside low…high"]),
    ({"volume": "-1"}, ["volume is negative"]),
    ({"volume": "9007199254740994"}, ["volume is beyond any count"]),
    ({"volume": "1e300"}, ["volume is beyond any count"]),
    ({"dividends": "-0.1"}, ["dividends is negative"]),
    ({"stock_splits": "-4"}, ["stock_splits is negative"]),
    ({"stock_splits": "4:0"}, ["stock_splits cannot be read"]),
    ({"stock_splits": "0:4"}, ["stock_splits cannot be read"]),
    ({"stock_splits": "four for one"}, ["stock_splits cannot be read"]),
    ({"stock_splits": "20001:1"}, ["stock_splits is no plausible ratio"]),
    ({"session": "2023-09-23"}, ["not a session of the exchange"]),
]

# A row, by what differs from a good one, and what it means.
POSSIBLE: list[tuple[Row, dict[str, object]]] = [
    (
        {},
        {
            "date": date(2023, 9, 21),
            "open": 174.55,
            "volume": 63047900,
            "year": 2023,
            "said_dividend": 0.0,
            "said_split": 1.0,
            "said_capital_gain": None,
            "basis": "split_adjusted",
        },
    ),
    ({"symbol": None}, {"ticker": "AAPL"}),
    ({"symbol": " aapl "}, {"ticker": "AAPL"}),
    ({"date": " 2023-09-21 "}, {"date": date(2023, 9, 21)}),
    ({"date": "2023-09-21T00:00:00-04:00"}, {"date": date(2023, 9, 21)}),
    ({"date": "2023-09-21 23:59:59.999+14:00"}, {"date": date(2023, 9, 21)}),
    ({"date": "2020-02-28", "year": "2020"}, {"date": date(2020, 2, 28), "year": 2020}),
    ({"close": " +1.74e2 "}, {"close": 174.0}),
    ({"close": "174."}, {"close": 174.0}),
    ({"open": "00174.5"}, {"open": 174.5}),
    ({"adj_close": ".5"}, {"adj_close": 0.5}),
    ({"adj_close": None}, {"adj_close": None}),
    ({"adj_close": ""}, {"adj_close": None}),
    ({"close": "173.93000000000000682121026329696178436279296875"}, {"close": 173.93}),
    ({"open": "176.31"}, {"open": 176.31}),  # above high, within the tolerance
    ({"close": "173.85"}, {"close": 173.85}),
    ({"open": "1", "high": "1", "low": "1", "close": "1"}, {"high": 1.0}),
    ({"volume": "0"}, {"volume": 0}),
    ({"volume": "63047900.0"}, {"volume": 63047900}),
    ({"volume": "6.3E7"}, {"volume": 63000000}),
    ({"volume": "9007199254740992"}, {"volume": 2**53}),
    ({"volume": "720867.6"}, {"volume": 720868}),
    ({"volume": "45.3M"}, {"volume": 45_300_000}),
    ({"volume": "1.5k"}, {"volume": 1_500}),
    ({"volume": "2.5B"}, {"volume": 2_500_000_000}),
    ({"volume": "720,600"}, {"volume": 720_600}),
    ({"volume": "12,34,567"}, {"volume": 1_234_567}),
    *(({"volume": text}, {"volume": None}) for text in (None, "", "-", "None", "n/a")),
    *(({"open": text}, {"open": None}) for text in (None, "0", "0.00", "NaN", "--")),
    (dict.fromkeys(("open", "high", "low"), "0"), {"open": None, "high": None, "low": None, "close": 173.93}),
    ({"close": "\t173.93"}, {"close": 173.93}),
    ({"close": "$173.93"}, {"close": 173.93}),
    ({"close": "173.93 €"}, {"close": 173.93}),
    (
        {"open": "1,184.40", "high": "1,190", "close": "1 185,0".replace(",", "."), "low": "1'180"},
        {"open": 1184.4, "close": 1185.0},
    ),
    (
        {**COMMAS, "open": "1.174,55", "high": "1 176,3", "low": "1173,86", "close": "1.173,93", "adj_close": "172,5"},
        {"open": 1174.55, "high": 1176.3, "low": 1173.86, "close": 1173.93, "adj_close": 172.5, "volume": 63047900},
    ),
    (dict.fromkeys(PRICES, "3435412500000000.0000"), {"close": 3435412500000000.0}),
    ({"date": "September 21st", "session": "2023-09-21"}, {"date": date(2023, 9, 21)}),
    ({"symbol": "AAPL.US"}, {"date": date(2023, 9, 21)}),
    (
        {"dividends": None, "stock_splits": None},
        {"said_dividend": None, "said_split": None, "dividends_delivered": False},
    ),
    (
        {"dividends": "", "stock_splits": "None", "says": "dividends,splits"},
        {"said_dividend": 0.0, "said_split": 1.0, "dividends_delivered": True},
    ),
    ({"dividends": None, "says": "splits"}, {"said_dividend": None, "dividends_delivered": False}),
    ({"dividends": "0.24", "stock_splits": "4.0"}, {"said_dividend": 0.24, "said_split": 4.0}),
    ({"dividends": "$0.24", "capital_gains": "1.5"}, {"said_dividend": 0.24, "said_capital_gain": 1.5}),
    ({"stock_splits": "0.05"}, {"said_split": 0.05}),
    ({"stock_splits": "4:1"}, {"said_split": 4.0}),
    ({"stock_splits": "1/10"}, {"said_split": 0.1}),
    ({"stock_splits": "3-for-2"}, {"said_split": 1.5}),
    ({"stock_splits": " 3 FOR 2 "}, {"said_split": 1.5}),
    ({"ingested_at": "2023-09-22T00:00:00.000001Z"}, {"source": "test"}),
]


def own_tickers(cases: list[tuple[Row, Any]]) -> list[Row]:
    """The rows of cases, each under a ticker of its own, so that none supersedes another."""
    rows = []
    for place, (changed, _) in enumerate(cases):
        row = bar(**changed)
        if row["ticker"] == GOOD["ticker"]:
            row["ticker"] = f"T{place}"
            row["symbol"] = {"AAPL": f"T{place}", " aapl ": f" t{place} ", "AAPL.US": f"T{place}.US"}.get(
                row["symbol"] or "", row["symbol"]
            )
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def impossible(spark: SparkSession, market: DataFrame) -> list[dict[str, Any]]:
    return results(spark, market, own_tickers(IMPOSSIBLE))


@pytest.fixture(scope="module")
def possible(spark: SparkSession, market: DataFrame) -> list[dict[str, Any]]:
    return results(spark, market, own_tickers(POSSIBLE))


@pytest.mark.parametrize("place", range(len(IMPOSSIBLE)), ids=[f"{changed}" for changed, _ in IMPOSSIBLE])
def test_an_impossible_row_is_quarantined_with_its_reasons(impossible: list[dict[str, Any]], place: int) -> None:
    assert impossible[place]["reasons"] == IMPOSSIBLE[place][1]
    assert impossible[place]["fate"] == "quarantined"


def test_a_negative_zero_is_a_zero(spark: SparkSession, market: DataFrame) -> None:
    # 0.0 == -0.0, but a comparison of published rows may tell them apart.
    [row] = results(spark, market, [bar(dividends="-0.0")])
    assert row["said_dividend"].hex() == (0.0).hex()


@pytest.mark.parametrize("place", range(len(POSSIBLE)), ids=[f"{changed}" for changed, _ in POSSIBLE])
def test_a_possible_row_means_what_its_text_says(possible: list[dict[str, Any]], place: int) -> None:
    found, expected = possible[place], POSSIBLE[place][1]
    assert found["reasons"] == []
    assert found["fate"] == "processed"
    assert {name: found[name] for name in expected} in (expected, {**expected, "ticker": f"T{place}"})


def test_a_row_carries_all_its_reasons_at_once(spark: SparkSession, market: DataFrame) -> None:
    row = bar(
        symbol="MSFT", date="2022-07-04", open="x", high="170", close="inf", adj_close="-3", volume=None, dividends="-1"
    )
    (found,) = results(spark, market, [row])
    assert set(found["reasons"]) == {
        "ticker is not the file's",
        "date is not of its folder's year",
        "not a session of the exchange",
        "open cannot be read",
        "close is not finite",
        "adj_close is not positive",
        "high is below low",
        "dividends is negative",
    }


def test_a_row_that_cannot_be_read_as_a_whole_has_that_one_reason(spark: SparkSession, market: DataFrame) -> None:
    row: Row = {"ticker": "AAPL", "year": UNREADABLE, "problem": "2 fields where the header has 7"}
    (found,) = results(spark, market, [{**row, "line": "a,b", "source": "csv", "ingested_at": GOOD["ingested_at"]}])
    assert (found["fate"], found["reasons"]) == ("quarantined", ["2 fields where the header has 7"])


def actions(spark: SparkSession, market: DataFrame, *rows: Row) -> list[tuple[Any, ...]]:
    """(ticker, date, session, kind, value, second landed) of what `rows` say of actions."""
    found = delivered_actions(classified(spark, market, rows))
    assert found.columns == list(PROCESSED_ACTIONS.column_names)
    return sorted(
        (row["ticker"], str(row["date"]), str(row["session"]), row["kind"], row["value"], row["first_seen"].second)
        for row in found.toArrow().to_pylist()
    )


def test_an_action_is_read_whatever_becomes_of_its_bar(spark: SparkSession, market: DataFrame) -> None:
    rows = [
        bar(date="2023-09-18", close=None, dividends="0.24"),  # no bar
        bar(date="2023-09-19", high="1", stock_splits="4:1"),  # an impossible one
        bar(date="2023-09-23", dividends="0.5"),  # a Saturday: it counts on Monday
        bar(date="2023-09-20", dividends="x", stock_splits="2"),  # what can be read is read
        bar(date="2023-09-21", dividends="9", symbol="MSFT"),  # of another ticker
        bar(date="2023-09-22", dividends="9", problem="several bars of one session"),
    ]
    assert actions(spark, market, *rows) == [
        ("AAPL", "2023-09-18", "2023-09-18", "dividend", 0.24, 0),
        ("AAPL", "2023-09-19", "2023-09-19", "split", 4.0, 0),
        ("AAPL", "2023-09-20", "2023-09-20", "split", 2.0, 0),
        ("AAPL", "2023-09-23", "2023-09-25", "dividend", 0.5, 0),
    ]


def test_what_deliveries_say_one_after_another_stands_in_order(spark: SparkSession, market: DataFrame) -> None:
    said = ["0.0", "0.24", "0.24", None, "0.26", "0"]
    rows = [
        bar(dividends=text, stock_splits=None, ingested_at=f"2023-09-22T00:00:{second:02}.000000Z")
        for second, text in enumerate(said)
    ]
    assert actions(spark, market, *rows, bar(date="2023-09-20")) == [
        ("AAPL", "2023-09-21", "2023-09-21", "dividend", value, second)
        for value, second in ((0.0, 0), (0.0, 5), (0.24, 1), (0.26, 4))
    ]


NUMBERS = st.one_of(
    st.from_regex(r"[+-]?[$]? ?[0-9]{1,3}([,.' ][0-9]{3}){0,2}([.,][0-9]{0,4})?[KMBk%]?", fullmatch=True),
    st.sampled_from(["", "-", "NaN", "n/a", "None", "1e5", "1e400", "inf", "12,34,567.5", "0x10", "١", " 5 ", "€5"]),
    st.text("0123456789.,'$ KMe+-", max_size=8),
)


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(texts=st.lists(NUMBERS, min_size=1, max_size=60), mark=st.sampled_from([None, ","]))
@example(texts=["0$1$", "$+5", "$  5", "$5 $", "-$5", "5$$", "$ 1,234.5", "$", "$-", "+$", "$$5"], mark=None)
def test_the_engine_reads_numbers_as_the_grammar_does(
    spark: SparkSession, market: DataFrame, texts: list[str], mark: str | None
) -> None:
    import pyarrow as pa

    rows = [bar(dividends=text, decimal=mark, says=None) for text in texts]
    found = [row["said_dividend"] for row in results(spark, market, rows)]
    expected = numbers(pa.array(texts), mark).to_pylist()
    for text, engine, grammar in zip(texts, found, expected, strict=True):
        if grammar is not None and 0 <= grammar <= 1e18:
            assert engine == grammar, text
        else:
            assert engine in (None, 0.0), text


def test_the_newest_valid_delivery_wins(spark: SparkSession, market: DataFrame) -> None:
    rows = [
        bar(close="174", ingested_at="2023-09-23T00:00:00.000001Z"),
        bar(close="175", ingested_at="2023-09-23T00:00:00.000002Z"),
        bar(close="176", ingested_at="2023-09-22T23:59:59.999999Z"),
    ]
    found = results(spark, market, rows)
    assert [row["fate"] for row in found] == ["superseded", "processed", "superseded"]


def test_an_invalid_newer_delivery_does_not_hide_a_valid_older_one(spark: SparkSession, market: DataFrame) -> None:
    rows = [
        bar(close="174", ingested_at="2023-09-22T00:00:00.000000Z"),
        bar(close="-1", ingested_at="2023-09-24T00:00:00.000000Z"),
        bar(close="0x1", ingested_at="2023-09-25T00:00:00.000000Z"),
    ]
    assert [row["fate"] for row in results(spark, market, rows)] == ["processed", "quarantined", "quarantined"]


def test_sessions_and_tickers_do_not_supersede_each_other(spark: SparkSession, market: DataFrame) -> None:
    rows = [bar(), bar(date="2023-09-20"), bar(ticker="MSFT", symbol="MSFT")]
    assert [row["fate"] for row in results(spark, market, rows)] == ["processed"] * 3


@pytest.mark.parametrize(("tolerance", "fate"), [(0.0, "quarantined"), (1e-3, "processed")])
def test_the_tolerance_is_relative_and_a_setting(
    spark: SparkSession, market: DataFrame, tolerance: float, fate: str
) -> None:
    low_and_high = [
        bar(ticker="LOW", symbol=None, open="0.009991", high="0.02", low="0.01", close="0.01"),
        bar(ticker="HIGH", symbol=None, open="100000", high="100000", low="90000", close="100099"),
    ]
    assert [row["fate"] for row in results(spark, market, low_and_high, tolerance)] == [fate, fate]


def test_processed_and_quarantined_rows_have_their_tables_columns_and_the_delivered_text(
    spark: SparkSession, market: DataFrame
) -> None:
    rows = classified(spark, market, [bar(), bar(date="2023-09-20", close="twelve", dividends=" .5 ")])
    processed, refused = processed_bars(rows), quarantined(rows)
    assert processed.columns == list(PROCESSED.column_names)
    assert refused.columns == list(QUARANTINE.column_names)
    assert processed.count() == 1
    (row,) = refused.toArrow().to_pylist()
    delivered = {**bar(date="2023-09-20", close="twelve", dividends=" .5 "), "line": None, "problem": None}
    assert {name: row[name] for name in delivered} == delivered
    assert row["reasons"] == ["close cannot be read"]


def test_no_rows_become_no_rows(spark: SparkSession, market: DataFrame) -> None:
    assert classified(spark, market, []).count() == 0


# Text as it goes wrong between a vendor and a lake.
CORRUPTED = st.one_of(
    st.none(),
    st.sampled_from(
        [
            "",
            " ",
            "0",
            "-0",
            "-1",
            "NaN",
            "$5",
            "5K",
            "1:2",
            "1.234,5",
            "inf",
            "1e400",
            "1d",
            "0x10",
            "1,234",
            "١",
            "#REF!",
            "null",
            "\n",
            "1\n",
        ]
    ),
    st.sampled_from(["2023-02-30", "2023-09-23", "2023-09-20", "0000-01-01", "99999-01-01", "2023-09-21T", "20230921"]),
    st.floats().map(repr),
    st.integers(-(10**25), 10**25).map(str),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
DELIVERIES = st.lists(
    st.builds(
        lambda ticker, day, second, damage: bar(
            **{
                "ticker": ticker,
                "symbol": None if ticker == UNREADABLE else ticker,
                "date": f"2023-09-{day}",
                "ingested_at": f"2023-09-22T00:00:{second:02}.000000Z",
                **damage,
            }
        ),
        ticker=st.sampled_from(["AAPL", "MSFT", UNREADABLE]),
        day=st.integers(18, 21),
        second=st.integers(0, 5),
        damage=st.dictionaries(
            st.sampled_from([*sorted(set(GOOD) - {"ticker"}), "line", "problem", "capital_gains", "decimal", "says"]),
            CORRUPTED,
            max_size=3,
        ),
    ),
    min_size=1,
    max_size=40,
)


def assert_conserved(spark: SparkSession, market: DataFrame, rows: list[Row]) -> None:
    kept = with_fates(spark, market, rows)
    fates = [row["fate"] for row in kept]
    assert len(rows) == len(kept) == sum(fates.count(fate) for fate in ("processed", "quarantined", "superseded"))
    assert all(bool(row["reasons"]) == (row["fate"] == "quarantined") for row in kept)
    bars = [row for row in kept if row["fate"] == "processed"]
    keys = [(row["ticker"], row["date"]) for row in bars]
    assert len(set(keys)) == len(keys), "more than one bar of a ticker and session"
    superseded = {(row["ticker"], row["date"]) for row in kept if row["fate"] == "superseded"}
    assert superseded <= set(keys), "a row was superseded by nothing"
    for row in bars:
        low, high = row["low"] or 1e-300, row["high"] or 1e300
        assert 0 < low <= high < float("inf")
        assert low * (1 - TOLERANCE) <= min(row["open"] or low, row["close"])
        assert max(row["open"] or 0, row["close"]) <= high * (1 + TOLERANCE)
        assert row["adj_close"] is None or 0 < row["adj_close"] < float("inf")
        assert row["volume"] is None or 0 <= row["volume"] <= 2**53
        assert row["said_dividend"] is None or 0 <= row["said_dividend"] < float("inf")
        assert row["said_split"] is None or 0 < row["said_split"] < float("inf")


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(DELIVERIES)
def test_any_corruption_of_delivered_text_conserves_rows(
    spark: SparkSession, market: DataFrame, rows: list[Row]
) -> None:
    assert_conserved(spark, market, rows)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@settings(max_examples=600, deadline=None)
@given(DELIVERIES)
def test_very_many_corruptions_of_delivered_text_conserve_rows(
    spark: SparkSession, market: DataFrame, rows: list[Row]
) -> None:
    assert_conserved(spark, market, rows)
