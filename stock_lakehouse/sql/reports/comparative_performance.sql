-- How did the tickers perform, dividends included, since the first session that all of them have?
-- One row a ticker and session from that one on; indexed is 100 on it.
WITH firsts AS (
  SELECT ticker, min(date) AS first_date FROM curated_stocks_daily GROUP BY ticker
),
bases AS (
  SELECT ticker, min(date) AS date, min_by(adj_close, date) AS adj_close
  FROM curated_stocks_daily
  WHERE date >= (SELECT max(first_date) FROM firsts)
  GROUP BY ticker
)
SELECT c.ticker, c.date, c.adj_close / b.adj_close * 100 AS indexed
FROM curated_stocks_daily AS c
JOIN bases AS b ON b.ticker = c.ticker AND c.date >= b.date
ORDER BY c.ticker, c.date
