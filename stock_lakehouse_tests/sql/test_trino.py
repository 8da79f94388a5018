"""The client of Trino without a server: versions in the user's SQL, places, settings. A server: test_real_trino.py."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest

from stock_lakehouse.lake import Lake
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.resources.query import QueryResource
from stock_lakehouse.settings import Settings, SettingsError, Trino, load_settings
from stock_lakehouse.sql.engine import QueryFailedError, QueryRefusedError, QuerySyntaxError
from stock_lakehouse.sql.trino import Sent, TrinoEngine, _tables
from stock_lakehouse.sql.values import arrow_type, literals

VERSION = " FOR VERSION AS OF 3"


def with_versions(sql: str) -> Sent:
    sent = Sent(sql)
    sent.add([(place, VERSION) for _, place in _tables(sql)])
    return sent


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM a@",
        'SELECT x.b FROM "a"@ AS x',
        "SELECT a.b FROM a@, lakehouse.c@ d",
        "WITH a AS (SELECT * FROM b@) SELECT * FROM a",
        "WITH a AS (SELECT * FROM a@) SELECT * FROM a",
        "SELECT (SELECT max(c) FROM b@) FROM a@",
        "SELECT 'from a' FROM a@ -- from a\nUNION ALL SELECT b FROM a@",
        "SELECT n FROM UNNEST(sequence(1, 3)) AS t(n)",
        "SELECT b FROM a@ WHERE b IN (SELECT b FROM c@)",
    ],
)
def test_each_table_gets_its_version_and_no_other_text_changes(sql: str) -> None:
    assert with_versions(sql.replace("@", "")).text == sql.replace("@", VERSION)


def test_a_place_is_that_of_the_users_sql() -> None:
    sql = "SELECT 'it''s' AS a, b\nFROM x AS y JOIN z ON y.c = z.d WHERE wrong"
    sent = with_versions(sql)
    for word in ("SELECT", "b\n", "FROM", "y JOIN", "y.c", "wrong"):
        at = sent.text.index(word)
        line, column = sent.text.count("\n", 0, at) + 1, at - (sent.text.rfind("\n", 0, at) + 1) + 1
        own = sql.index(word)
        assert sent.place(line, column) == (sql.count("\n", 0, own) + 1, own - (sql.rfind("\n", 0, own) + 1) + 1)
    assert sent.bound(["'a'", "1"]).startswith("EXECUTE IMMEDIATE 'SELECT ''it''''s'' AS a, b")
    assert sent.bound(["'a'", "1"]).endswith("' USING 'a', 1")
    assert sent.place(1, len("EXECUTE IMMEDIATE '") + 1) == (1, 1)


def test_sql_that_is_none_is_refused_before_a_server_is_asked(lake: Lake) -> None:
    engine = TrinoEngine(Trino(url="http://127.0.0.1:9", catalog="lake"), 1.0, lake)
    with pytest.raises(QueryRefusedError, match="only a SELECT"):
        engine.run("DELETE FROM curated_stocks_daily")
    with pytest.raises(QuerySyntaxError):
        engine.run("SELECT FROM FROM", (), datetime(2024, 1, 1, tzinfo=UTC))
    with pytest.raises(QueryFailedError, match=r"check trino\.url"):
        engine.run("SELECT 1 AS one")


def test_literals_have_the_types_of_their_values() -> None:
    plus_two = timezone(timedelta(hours=2))
    given = ["it's", 7, -2.5, 1e300, 1e-7, True, None, date(2024, 1, 2), datetime(2024, 1, 2, 3, 4, 5)]
    assert literals([*given, datetime(2024, 1, 2, 3, 4, 5, 6, plus_two)]) == [
        *("'it''s'", "7", "-2.5E0", "1E300", "1E-7", "true", "NULL", "DATE '2024-01-02'"),
        *("TIMESTAMP '2024-01-02 03:04:05.000'", "TIMESTAMP '2024-01-02 01:04:05.000006 UTC'"),
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("varchar(4)", "string"),
        ("decimal(12,2)", "decimal128(12, 2)"),
        ("timestamp(3) with time zone", "timestamp[us, tz=UTC]"),
        ("timestamp", "timestamp[us]"),
        ("array(array(bigint))", "list<item: list<item: int64>>"),
        ("time(3)", "string"),
        ("interval day to second", "string"),
    ],
)
def test_a_type_of_sql_is_one_of_arrow(name: str, expected: str) -> None:
    assert str(arrow_type(name)) == expected


def test_the_password_comes_from_its_variable_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path("lakehouse.toml").write_text('[trino]\npassword = "hidden"\n', encoding="utf-8")
    with pytest.raises(SettingsError, match="STOCK_LAKEHOUSE_TRINO_PASSWORD"):
        load_settings()
    Path("lakehouse.toml").write_text(
        'query_engine = "trino"\n[trino]\nurl = "https://trino:8443"\ncatalog = "lake"\nuser = "analyst"\n',
        encoding="utf-8",
    )
    monkeypatch.setenv("STOCK_LAKEHOUSE_TRINO_PASSWORD", "hidden")
    settings = load_settings()
    resource = QueryResource.of(settings, LakehouseResource.of(settings))
    assert "hidden" not in str(resource) + str(resource.trino)
    engine = resource.query_engine
    assert isinstance(engine, TrinoEngine)
    connection = engine._connection()
    assert connection.auth._password == "hidden"
    assert (connection.host, connection.port, connection.http_scheme) == ("trino", 8443, "https")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"query_engine": "trino"}, "set trino.url, and trino.catalog"),
        ({"query_engine": "athena"}, "set catalog to glue"),
        ({"query_engine": "athena", "catalog": "glue", "lake_root": "s3://bucket/lake"}, "aws.athena_results: needed"),
        ({"trino": {"url": "http://trino:8080", "password": "hidden"}}, "unencrypted"),
        ({"aws": {"athena_results": "s3://b/r", "athena_scan_limit_mb": 9}}, "greater than or equal to 10"),
    ],
)
def test_settings_that_cannot_work_together_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**values)  # type: ignore[arg-type]


def test_the_clients_library_is_not_imported_before_a_query() -> None:
    code = (
        "import sys, stock_lakehouse.sql.trino; print([m for m in ('trino', 'sqlglot', 'pyarrow') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
