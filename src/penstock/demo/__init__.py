"""A shop that lives for a few seconds: PostgreSQL from PyPI, a workload, and the proof that ClickHouse holds the same."""
