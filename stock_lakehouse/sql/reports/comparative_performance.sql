-- How did the tickers perform, dividends included, since the first session that all of them have?
-- One row a ticker and session from that one on; indexed is 100 on it.
WITH common_start AS (
  SELECT max(first_date) AS date
  FROM (SELECT ticker, min(date) AS first_date FROM curated_stocks_daily GROUP BY ticker) AS firsts
)
SELECT
  c.ticker,
  c.date,
  c.adj_close / first_value(c.adj_close) OVER (PARTITION BY c.ticker ORDER BY c.date) * 100 AS indexed
FROM curated_stocks_daily AS c
CROSS JOIN common_start AS s
WHERE c.date >= s.date
ORDER BY c.ticker, c.date
