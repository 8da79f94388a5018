-- What does a dashboard draw: each bar beside its indicators and signals?
-- One row a ticker and session; ticker and year say which files are read.
SELECT
  c.ticker, c.date, c.open, c.high, c.low, c.close, c.adj_close, c.volume, c.dividend, c.split_ratio, c.price_basis,
  c.bar_status,
  f.sma_20, f.sma_50, f.sma_200, f.ema_12, f.ema_26, f.rsi_14, f.macd, f.macd_signal, f.macd_hist,
  f.bb_upper, f.bb_mid, f.bb_lower, f.volume_sma_20, f.volume_sma_50, f.return_1d, f.volatility_20,
  f.buy_signal, f.sell_signal, f.golden_cross, f.death_cross, f.tradable_from, c.year
FROM curated_stocks_daily AS c
LEFT JOIN stocks_features AS f ON f.ticker = c.ticker AND f.date = c.date AND f.year = c.year
ORDER BY c.ticker, c.date
