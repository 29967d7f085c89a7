"""The fixture plugins of all tests; one a subject."""

pytest_plugins = [
    "tests.fix_amazon",
    "tests.fix_azure",
    "tests.fix_clickhouse",
    "tests.fix_frames",
    "tests.fix_postgres",
    "tests.fix_proxy",
    "tests.fix_properties",
    "tests.fix_ssh",
    "tests.fix_pipe",
    "tests.fix_standby",
    "tests.fix_tls",
]
