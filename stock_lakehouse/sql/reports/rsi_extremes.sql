-- On how many sessions of the month to the lake's newest session was RSI at or above 70, at or below 30?
-- One row a ticker that has a session in that month.
SELECT
  ticker,
  count_if(rsi_14 >= 70) AS overbought_days,
  count_if(rsi_14 <= 30) AS oversold_days,
  count(*) AS total_days,
  round(CAST(count_if(rsi_14 >= 70) AS double) / count(*) * 100, 2) AS pct_overbought
FROM stocks_features
WHERE date >= (SELECT date_add('month', -1, max(date)) FROM stocks_features)
GROUP BY ticker
ORDER BY pct_overbought DESC, ticker
