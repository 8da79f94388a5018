-- What does the lake hold of each ticker: first and last session, how many, and the range of its close?
-- One row a ticker.
SELECT
  ticker,
  min(date) AS first_date,
  max(date) AS last_date,
  count(*) AS sessions,
  min(close) AS min_close,
  max(close) AS max_close,
  max_by(close, date) AS last_close
FROM curated_stocks_daily
GROUP BY ticker
ORDER BY sessions DESC, ticker
