"""Several sessions at one source, for tests that do this and that in each of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg
from tests.histories import FIXED, SCHEMA

if TYPE_CHECKING:
    from tests.fix_postgres import Database

    Rows = list[tuple[Any, ...]]

SESSIONS = 3
REFUSED = (
    psycopg.errors.OperationalError,
    psycopg.errors.ProgrammingError,
    psycopg.errors.DataError,
    psycopg.errors.IntegrityError,
    psycopg.errors.NotSupportedError,
)


class Source:
    """What the sessions do, all from one thread: who would wait for another gives up."""

    def __init__(self, database: Database) -> None:
        self.did: list[str] = []
        self.sessions = [database.connect() for _ in range(SESSIONS)]
        self.open = [False] * SESSIONS
        for each in self.sessions:
            each.execute("set lock_timeout = '100ms'")

    def close(self) -> None:
        for each in self.sessions:
            each.close()

    def run(self, session: int, *statements: str) -> bool:
        """All or none of them; whether they were done."""
        connection = self.sessions[session]
        block = "savepoint one" if self.open[session] else "begin"
        undo = "rollback to savepoint one" if self.open[session] else "rollback"
        connection.execute(block)  # type: ignore[call-overload]
        try:
            for each in statements:
                connection.execute(each)  # type: ignore[call-overload]
        except REFUSED:
            connection.execute(undo)  # type: ignore[call-overload]
            return False
        connection.execute("release savepoint one" if self.open[session] else "commit")
        self.did.append(f"{time.strftime('%H:%M:%S')} {session}: {'; '.join(statements)[:300]}")
        return True

    def ask(self, session: int, query: str, *values: Any) -> Rows:
        """Nothing where it would have to wait."""
        block = "savepoint one" if self.open[session] else "begin"
        connection = self.sessions[session]
        connection.execute(block)  # type: ignore[call-overload]
        try:
            return connection.execute(query, values or None).fetchall()  # type: ignore[call-overload, no-any-return]
        finally:
            connection.execute("release savepoint one" if self.open[session] else "commit")

    def transaction(self, session: int, word: str) -> None:
        if word == "begin" and not self.open[session]:
            self.sessions[session].execute("begin")
            self.open[session] = True
        elif word != "begin" and self.open[session]:
            self.sessions[session].execute(word)  # type: ignore[call-overload]
            self.open[session] = False
        self.did.append(f"{session}: {word}")

    def tables(self, session: int, *, partitioned: bool = False, histories: bool = False) -> list[tuple[int, str]]:
        """Oid and quoted name, without partitions; only the roots of some."""
        schemas = ["public", "other", *([SCHEMA] if histories else [])]
        return self.ask(
            session,
            "select c.oid, format('%%I.%%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where c.relkind = any(%s) and not c.relispartition and n.nspname = any(%s)"
            " and c.relname <> 'kept' order by c.oid",  # a pipe that has never run needs a table
            ["p"] if partitioned else ["r", "p"],
            schemas,
        )

    def leaves(self, session: int, root: int) -> list[str]:
        """The quoted names of a table's partitions."""
        found = self.ask(
            session, "select inhrelid::regclass::text from pg_inherits where inhparent = %s order by inhrelid", root
        )
        return [name for (name,) in found]

    def columns(self, session: int, oid: int) -> list[tuple[str, str]]:
        """Quoted name and type, without those that stay as they are."""
        return self.ask(
            session,
            "select quote_ident(attname), format_type(atttypid, atttypmod) from pg_attribute where attrelid = %s and attnum > 0"
            " and not attisdropped and attname <> all(%s) order by attnum",
            oid,
            list(FIXED),
        )
