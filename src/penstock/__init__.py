"""Penstock: PostgreSQL to ClickHouse replication in one Python process."""

__version__ = "0.1.0"
