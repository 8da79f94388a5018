-- How often did sma_50 pass sma_200 each way, when, and on what share of sessions upwards?
-- One row a ticker.
SELECT
  ticker,
  count_if(golden_cross) AS golden_crosses,
  count_if(death_cross) AS death_crosses,
  round(CAST(count_if(golden_cross) AS double) / count(*) * 100, 2) AS golden_cross_pct,
  array_join(array_agg(CAST(date AS varchar) ORDER BY date) FILTER (WHERE golden_cross), ', ') AS golden_cross_dates,
  array_join(array_agg(CAST(date AS varchar) ORDER BY date) FILTER (WHERE death_cross), ', ') AS death_cross_dates
FROM stocks_features
GROUP BY ticker
ORDER BY golden_crosses DESC, ticker
