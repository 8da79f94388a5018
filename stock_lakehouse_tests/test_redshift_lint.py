"""What Redshift's reference does not have is found in a statement; what it has is not."""

from __future__ import annotations

import pytest

from stock_lakehouse_tests.redshift_lint import faults


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT COUNT(*) FILTER (WHERE x > 1) FROM t", "FILTER"),
        ("SELECT MAX_BY(x, y) FROM t", "MAX_BY"),
        ("SELECT ARG_MAX(x, y) FROM t", "ARG_MAX"),
        ("SELECT COUNT_IF(x) FROM t", "COUNT_IF"),
        ("SELECT r FROM t CROSS JOIN UNNEST(reasons) AS u(r)", "UNNEST"),
        ("SELECT * FROM t, LATERAL (SELECT 1) AS u", "LATERAL"),
        ("SELECT x[1] FROM t", "arrays"),
        ("SELECT x FROM t WHERE y = ?", "parameter"),
        ("SELECT SUM(x) OVER (ORDER BY d) FROM t", "needs a frame"),
        ("SELECT FIRST_VALUE(x) OVER (PARTITION BY k ORDER BY d) FROM t", "needs a frame"),
        ("SELECT LAST_VALUE(x) IGNORE NULLS OVER (ORDER BY d) FROM t", "needs a frame"),
        ("SELECT ROW_NUMBER() OVER (ORDER BY d ROWS UNBOUNDED PRECEDING) FROM t", "takes no frame"),
        ("SELECT SUM(x) OVER (ORDER BY d RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM t", "RANGE"),
        ("SELECT COUNT(DISTINCT x) OVER (PARTITION BY k) FROM t", "DISTINCT"),
        ("SELECT SUM(x) OVER w FROM t WINDOW w AS (PARTITION BY k)", "WINDOW"),
        ("SELECT x FROM t EXCEPT ALL SELECT 1", "EXCEPT ALL"),
        ("SELECT * FROM (VALUES (1)) AS (a)", "VALUES"),
        ("SELECT a IS DISTINCT FROM b FROM t", "IS DISTINCT FROM"),
        ("SELECT TRY_CAST(a AS INTEGER) FROM t", "TRY_CAST"),
        ("SELECT farmhash(a) FROM t", "function farmhash"),
        ("INSERT INTO u SELECT TO_HEX(a) FROM t", "function to_hex"),
        (
            "SELECT LISTAGG(a, ',') WITHIN GROUP (ORDER BY b), LISTAGG(a, ',') WITHIN GROUP (ORDER BY c) FROM t",
            "one order",
        ),
        ("SELECT a FROM t WHERE", "syntax error"),
    ],
)
def test_what_redshift_does_not_have_is_found(sql: str, found: str) -> None:
    assert [fault for fault in faults(sql) if found in fault], faults(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT SUM(x) OVER (PARTITION BY k), RANK() OVER (ORDER BY SUM(x) DESC NULLS LAST) FROM t GROUP BY k, x",
        "SELECT SUM(x) OVER (ORDER BY d ROWS BETWEEN 20 PRECEDING AND 1 PRECEDING), LAG(x, 2) OVER (ORDER BY d) FROM t",
        "SELECT STRTOL(SUBSTRING(MD5(a || '~'), 1, 8), 16), NVL(a, b), COALESCE(FLOOR(ABS(x)), 0) FROM t",
        "SELECT k FROM t GROUP BY ROLLUP (k) UNION ALL SELECT k FROM u EXCEPT SELECT 'a'",
        "SELECT LISTAGG(CASE WHEN a THEN b END, ', ') WITHIN GROUP (ORDER BY d) FROM t",
        "CREATE TABLE IF NOT EXISTS s.t (a VARCHAR(128) NOT NULL ENCODE ZSTD, PRIMARY KEY (a)) DISTKEY (a) COMPOUND SORTKEY (a)",
        "INSERT INTO s.t (a, b) VALUES (1, 'FILTER (WHERE'), (2, 'max_by(')",
        "DELETE FROM s.t USING changed WHERE s.t.a = changed.a",
        "CREATE EXTERNAL SCHEMA IF NOT EXISTS x FROM DATA CATALOG DATABASE 'market' IAM_ROLE default",
        'SELECT "rows", "cross" FROM s."filter"',
    ],
)
def test_what_redshift_has_is_not_found(sql: str) -> None:
    assert faults(sql) == []
