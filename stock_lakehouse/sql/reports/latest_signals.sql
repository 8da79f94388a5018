-- What do the indicators and signals of each ticker's newest session say, and from when can a signal be traded?
-- One row a ticker.
WITH newest AS (
  SELECT ticker, max(date) AS date FROM stocks_features GROUP BY ticker
)
SELECT
  f.ticker, f.date, c.close, f.sma_50, f.sma_200, f.rsi_14, f.macd_hist, f.volatility_20,
  f.buy_signal, f.sell_signal, f.golden_cross, f.death_cross, f.tradable_from
FROM stocks_features AS f
JOIN newest AS n ON f.ticker = n.ticker AND f.date = n.date
JOIN curated_stocks_daily AS c ON c.ticker = f.ticker AND c.date = f.date
ORDER BY f.ticker
