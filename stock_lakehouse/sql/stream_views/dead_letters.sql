-- Which messages of the stream could not be used, and why?
-- One row a message.
SELECT arrival_time, source, "partition", "offset", reason, value
FROM raw_ticks
WHERE reason IS NOT NULL
ORDER BY arrival_time, source, "partition", "offset"
