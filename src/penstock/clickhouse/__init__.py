"""The destination: ClickHouse over HTTP(S), or chDB inside this process; one client for both."""
