"""The fixture plugins of all tests; one a subject."""

import os
from pathlib import Path

# Each of the many processes that the tests start would compile the package anew, where the environment says to keep nothing.
os.environ["PYTHONDONTWRITEBYTECODE"] = ""
os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(__file__).parents[1] / "build" / "pycache"))

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
