-- Calls per minute, for histograms and percentiles over long ranges. Derived: after a crash it can differ from
-- tool_calls, which is the truth, by the batch that was being inserted.

CREATE TABLE IF NOT EXISTS calls_per_minute (
    minute DateTime('UTC') CODEC(Delta, ZSTD(1)),
    server LowCardinality(String),
    method LowCardinality(String),
    tool LowCardinality(String),
    status LowCardinality(String),
    calls SimpleAggregateFunction(sum, UInt64),
    duration_us AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), UInt64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, server, method, tool, status)
SETTINGS
    ttl_only_drop_parts = 1,
    non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS calls_per_minute_from_tool_calls TO calls_per_minute AS
SELECT
    toStartOfMinute(time) AS minute,
    server,
    method,
    tool,
    status,
    count() AS calls,
    quantilesTDigestState(0.5, 0.95, 0.99)(tool_calls.duration_us) AS duration_us
FROM tool_calls
GROUP BY minute, server, method, tool, status;
