-- How deep did each ticker fall from its highest adj_close before, when was it deepest, and how far is it below now?
-- One row a ticker; trough_date is the first session of the deepest fall.
WITH falls AS (
  SELECT
    ticker,
    date,
    max(adj_close) OVER (PARTITION BY ticker ORDER BY date ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS peak,
    adj_close
  FROM curated_stocks_daily
),
deepest AS (
  SELECT ticker, min(adj_close / peak - 1) AS fall, max_by(adj_close / peak - 1, date) AS fall_now
  FROM falls
  GROUP BY ticker
)
SELECT
  d.ticker,
  min(d.fall) AS max_drawdown,
  min(f.date) AS trough_date,
  min_by(f.peak, f.date) AS peak_before,
  min(d.fall_now) AS drawdown_now
FROM deepest AS d
JOIN falls AS f ON f.ticker = d.ticker AND f.adj_close / f.peak - 1 = d.fall
GROUP BY d.ticker
ORDER BY max_drawdown, ticker
