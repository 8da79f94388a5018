-- Which tickers were the most volatile in the year to the lake's newest session?
-- One row a ticker that has a session in that year; volatility_20 is the deviation of daily returns.
SELECT
  ticker,
  round(avg(volatility_20), 4) AS avg_volatility,
  round(max(volatility_20), 4) AS max_volatility,
  rank() OVER (ORDER BY avg(volatility_20) DESC) AS volatility_rank
FROM stocks_features
WHERE date >= (SELECT date_add('year', -1, max(date)) FROM stocks_features)
GROUP BY ticker
ORDER BY volatility_rank, ticker
