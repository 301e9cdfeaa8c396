"""A differential fuzzer: random programs of all cards, compared between passes and backends."""
