-- On which sessions was the volume more than three times the average of the 20 sessions before?
-- One row a spike.
WITH averages AS (
  SELECT
    ticker,
    date,
    CAST(volume AS double) AS volume,
    avg(CAST(volume AS double)) OVER (PARTITION BY ticker ORDER BY date ROWS BETWEEN 20 PRECEDING AND 1 PRECEDING) AS average_before,
    row_number() OVER (PARTITION BY ticker ORDER BY date) AS session
  FROM curated_stocks_daily
)
SELECT ticker, date, CAST(volume AS bigint) AS volume, average_before, volume / average_before AS times
FROM averages
WHERE session > 20 AND volume > 3 * average_before
ORDER BY times DESC, ticker, date
