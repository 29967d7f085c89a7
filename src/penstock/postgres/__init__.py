"""The PostgreSQL side: connections, catalog, publication and slot, the stream, the copy, checks. Knows nothing of ClickHouse.

Queries of more than a line are named and live in ``queries.sql``, those of the checks in ``checks.sql``, of setup in ``setup.sql``.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING, cast

from psycopg import sql

if TYPE_CHECKING:
    from typing import LiteralString

_NAMED = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def _load() -> dict[str, sql.SQL]:
    found: dict[str, sql.SQL] = {}
    for file in ("queries.sql", "checks.sql", "setup.sql"):
        pieces = _NAMED.split(files(__name__).joinpath(file).read_text(encoding="utf-8"))
        for name, text in zip(pieces[1::2], pieces[2::2], strict=True):
            found[name] = sql.SQL(cast("LiteralString", text.strip()))
    return found


QUERIES = _load()
"""The statements by name. A doubled brace or percent sign stands for itself."""
