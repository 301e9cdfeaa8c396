"""A differential fuzzer: random programs of all ops, compared between passes and backends."""
