"""Transactions that are not simply begun, filled and committed: what was committed arrives, once and in its order, and nothing else."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg import Connection
    from tests.fix_pipe import Case

KILLED = -9
LIMIT = "-c statement_timeout=30s"
TABLES = ("public.o", "public.e", "public.frozen")

SAVEPOINTS = """
do $$ begin
    for n in 1 .. 1500 loop
        begin
            insert into o values (n, 's'), (-n, 's');
            insert into e values (n % 7);
            if n % 3 = 0 then
                raise exception 'rolled back';
            end if;
            begin
                update o set v = 'inner' where id = n;
                if n % 2 = 0 then
                    raise exception 'rolled back';
                end if;
            exception when raise_exception then null;
            end;
        exception when raise_exception then null;
        end;
    end loop;
end $$"""


def test_what_was_committed_arrives_and_nothing_else(served: Case) -> None:
    """``e`` has no key and ``h`` is a history: there a change that came twice, or too much, would be seen."""
    served.database.execute(
        "create table o (id int primary key, v text)",
        "create table e (n int)",
        "alter table e replica identity full",
        "create table h (id int primary key, v text)",
        "create table frozen (id int primary key, v text)",
        "insert into o select i, 'copied' from generate_series(5000, 5100) i",
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not here'; end $$",
        "create table guarded (id int primary key)",
        "create trigger guard before insert on guarded for each row execute function refuse()",
        "insert into frozen values (0, 'before')",
    )
    served.define(settings="max_batch_rows = 400", options='[tables.options."public.h"]\nshape = "history"')
    served.once()
    gid = f"odd {served.database.name}"
    with served.database.connect(options=LIMIT) as first, served.database.connect(options=LIMIT) as second:
        first.execute(SAVEPOINTS)
        _prepared(first, gid)
        _rolled_back(first)
        _messages(first)
        _conflicts(first)
        _without_triggers(first)
        _frozen(first)
        _order_of_commits(first, second)
        _waiting_for_a_key(first, second)
    served.once(failpoint="after insert:3", expect=KILLED)
    served.once()
    served.assert_equal(*TABLES, "public.guarded")
    assert served.query("select count() from o_current where v = 'prepared'") == [["0"]]
    served.database.execute(f"commit prepared '{gid} 1'", f"rollback prepared '{gid} 2'")
    served.once()
    served.assert_equal(*TABLES)
    changes = "select v, _operation from h final order by _version, _is_deleted desc"
    assert served.query(changes) == [["early", "insert"], ["late", "insert"], ["prepared", "insert"]]
    assert served.query("select uniq(bitShiftRight(_version, 64)), count() from h final") == [["3", "3"]]


def _prepared(connection: Connection, gid: str) -> None:
    """Two that are left in doubt; the WAL of one of them lies before all that follows."""
    for number in (1, 2):
        connection.execute(
            f"begin; insert into o values ({number}0001, 'prepared'); insert into e values (100), (100);"
            f" insert into h values ({number}0001, 'prepared'); prepare transaction '{gid} {number}'"
        )


def _rolled_back(connection: Connection) -> None:
    """Large enough to have been written to disk by the decoding; and some that are empty, or only about other things."""
    connection.execute(
        "begin; insert into o select i, 'gone' from generate_series(50001, 53000) i; delete from e; rollback"
    )
    connection.execute(
        "begin; savepoint a; delete from e; rollback to a; savepoint b; insert into e values (1); release b; savepoint c;"
        " truncate frozen; rollback to c; commit"
    )
    connection.execute(
        "begin; commit; begin; create temp table mine (n int); insert into mine values (1); drop table mine; commit"
    )


def _messages(connection: Connection) -> None:
    connection.execute(
        "begin; insert into e values (8); select pg_logical_emit_message(true, 'penstock', repeat('m', 100000));"
        " select pg_logical_emit_message(false, '', 'now'); insert into e values (8); commit"
    )
    connection.execute(
        "begin; select pg_logical_emit_message(false, 'x', 'y'), pg_logical_emit_message(true, 'x', 'y'); rollback"
    )


def _conflicts(connection: Connection) -> None:
    connection.execute(
        "insert into o select i, 'new' from generate_series(4990, 5010) i on conflict (id) do update set v = excluded.v || o.v"
        " where o.id % 2 = 0"
    )
    connection.execute("insert into o select i, 'never' from generate_series(4980, 5010) i on conflict do nothing")
    connection.execute(
        "begin; insert into o values (4980, 'x') on conflict (id) do update set id = 4979; delete from o where id = 4979; commit"
    )


def _without_triggers(connection: Connection) -> None:
    """Rows that a replica's session writes are changes like others."""
    connection.execute(
        "set session_replication_role = replica; insert into guarded values (1), (2); reset session_replication_role"
    )


def _frozen(connection: Connection) -> None:
    with connection.transaction():
        connection.execute("truncate frozen")
        with connection.cursor().copy("copy frozen from stdin (freeze)") as rows:
            for number in range(900):
                rows.write_row((number, f"frozen {number}"))
        connection.execute("update frozen set v = 'thawed' where id < 10")
    with connection.cursor().copy("copy e from stdin") as rows:  # many rows of one WAL record
        for number in range(900):
            rows.write_row((number % 5,))


def _order_of_commits(first: Connection, second: Connection) -> None:
    """The one that wrote first commits last, with changes of the other in between, and of rows that the other wrote."""
    first.execute("begin; insert into h values (1, 'late'); insert into o values (30001, 'first')")
    second.execute("begin; insert into h values (2, 'early'); insert into o values (30002, 'second')")
    for number in range(40):
        first.execute("insert into e values (9)")
        first.execute("update o set v = %s where id = 30001", (f"first {number}",))
        second.execute("update o set v = %s where id = 30002", (f"second {number}",))
    second.execute("commit")
    first.execute("update o set v = v || ' and first', id = 30003 where id = 30002")
    first.execute("commit")
    second.execute("insert into o values (30002, 'again')")


def _waiting_for_a_key(first: Connection, second: Connection) -> None:
    """The insert that waits is written before the delete that it waits for (postgres.md 1)."""
    first.execute("begin; insert into o values (40001, 'of the first')")
    outcome: list[str] = []

    def insert() -> None:
        second.execute("insert into o values (40001, 'of the second')")
        outcome.append("inserted")

    waiting = threading.Thread(target=insert)
    waiting.start()
    _until(lambda: _waits(first, second.info.backend_pid))
    first.execute("delete from o where id = 40001")
    first.execute("commit")
    waiting.join(30)
    assert outcome == ["inserted"]


def _waits(connection: Connection, pid: int) -> bool:
    rows = connection.execute("select from pg_locks where pid = %s and not granted", (pid,)).fetchall()
    return bool(rows)


def _until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("the second session never waited")
