-- What was the mean price of each ticker in each minute?
-- One row a ticker and minute.
SELECT
  ticker, coalesce(quote_date, trade_date) AS trade_date, minute AS window_start,
  minute + INTERVAL '1' MINUTE AS window_end, avg_close, close AS last_close, state
FROM minute_bars
ORDER BY ticker, window_start
