-- One table per kind of record (libs.common.records); a column per field.
--
-- Order: pages list newest first, so (time, id) makes "the next 30" one short read from the end, whatever the
-- filter; the skip indexes serve the filters and the look-up of one call.
-- Position: the consumer asks for max(seq) per replica. The projection keeps that answer inside each part, and
-- so appears with the rows or not at all. (A table fed by a materialized view would be a second insert, which
-- a crash can separate from the first.)
-- Durability: rows are purged from the stream once they are here, so each insert is on disk before it counts.
-- Deduplication: the client library repeats an insert whose connection broke; the window makes that harmless.

CREATE TABLE IF NOT EXISTS tool_calls (
    time DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    id String CODEC(ZSTD(1)),
    replica LowCardinality(String),
    seq UInt64 CODEC(Delta, ZSTD(1)),
    status LowCardinality(String),
    server LowCardinality(String),
    method LowCardinality(String),
    tool LowCardinality(String),
    `user` LowCardinality(String),
    email LowCardinality(String),
    `group` LowCardinality(String),
    `grant` String CODEC(ZSTD(1)),
    client_id LowCardinality(String),
    client_name LowCardinality(String),
    address LowCardinality(String),
    session String CODEC(ZSTD(1)),
    protocol LowCardinality(String),
    http_status UInt16 CODEC(ZSTD(1)),
    error_code Int32 CODEC(ZSTD(1)),
    reason LowCardinality(String),
    rule LowCardinality(String),
    revision UInt64 CODEC(Delta, ZSTD(1)),
    detail String CODEC(ZSTD(1)),
    duration_us UInt64 CODEC(T64, ZSTD(1)),
    first_byte_us UInt64 CODEC(T64, ZSTD(1)),
    input String CODEC(ZSTD(3)),
    input_bytes UInt64 CODEC(T64, ZSTD(1)),
    input_sha256 String CODEC(ZSTD(1)),
    output String CODEC(ZSTD(3)),
    output_bytes UInt64 CODEC(T64, ZSTD(1)),
    output_sha256 String CODEC(ZSTD(1)),
    INDEX by_id id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX by_user `user` TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_server server TYPE set(100) GRANULARITY 1,
    INDEX by_tool tool TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_status status TYPE set(10) GRANULARITY 1,
    PROJECTION positions (SELECT replica, max(seq) GROUP BY replica)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (time, id)
SETTINGS
    ttl_only_drop_parts = 1,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS auth_events (
    time DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    id String CODEC(ZSTD(1)),
    replica LowCardinality(String),
    seq UInt64 CODEC(Delta, ZSTD(1)),
    event LowCardinality(String),
    outcome LowCardinality(String),
    reason LowCardinality(String),
    `user` LowCardinality(String),
    email LowCardinality(String),
    `grant` String CODEC(ZSTD(1)),
    client_id LowCardinality(String),
    client_name LowCardinality(String),
    address LowCardinality(String),
    server LowCardinality(String),
    detail String CODEC(ZSTD(1)),
    PROJECTION positions (SELECT replica, max(seq) GROUP BY replica)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (time, id)
SETTINGS
    ttl_only_drop_parts = 1,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS admin_events (
    time DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    id String CODEC(ZSTD(1)),
    replica LowCardinality(String),
    seq UInt64 CODEC(Delta, ZSTD(1)),
    event LowCardinality(String),
    actor LowCardinality(String),
    email LowCardinality(String),
    subject String CODEC(ZSTD(1)),
    before String CODEC(ZSTD(3)),
    after String CODEC(ZSTD(3)),
    revision UInt64 CODEC(Delta, ZSTD(1)),
    detail String CODEC(ZSTD(1)),
    PROJECTION positions (SELECT replica, max(seq) GROUP BY replica)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (time, id)
SETTINGS
    ttl_only_drop_parts = 1,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    non_replicated_deduplication_window = 1000;
