-- Lines that ClickHouse refused, so that one of them does not hold up what comes after it. They count towards
-- the position like rows do. `seq` is that of the line, or the last one of a message that could not be cut.

CREATE TABLE IF NOT EXISTS dead_letters (
    time DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    `table` LowCardinality(String),
    replica LowCardinality(String),
    seq UInt64,
    line String CODEC(ZSTD(3)),
    error String CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (`table`, replica, seq)
SETTINGS
    ttl_only_drop_parts = 1,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    non_replicated_deduplication_window = 1000;
