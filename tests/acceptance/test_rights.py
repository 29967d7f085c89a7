"""What check asks for at the destination is what a pipe needs there: no less, whatever happens to its tables."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from tests.fix_pipe import Case
from tests.servers.clickhouse import PASSWORD, ClickHouseServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fix_postgres import Database

pytestmark = pytest.mark.pg("== 15")


def as_limited(folder: Path, database: Database, server: ClickHouseServer) -> Case:
    """A pipe with every shape of table, whose user in ClickHouse may do what the server's file says."""
    os.environ["CLICKHOUSE_PASSWORD"] = PASSWORD
    case = Case(folder, database, server.dsn("limited"), server)
    case.define(
        destination='password = { env = "CLICKHOUSE_PASSWORD" }',
        settings='flush_interval = "50ms"\non_drop_column = "drop"\non_type_change = "resync"',
        options='[tables.options."public.h"]\nshape = "history"\n[tables.options."public.n"]\nshape = "null"',
    )
    return case


@pytest.mark.slow
def test_the_rights_that_are_printed_are_enough(database: Database, tmp_path: Path) -> None:
    database.execute(
        "create table t (id int primary key, v text, w int, z int)",
        "alter table t alter v set storage external",
        "insert into t select g, repeat('x', 5000), g, g from generate_series(1, 50) g",
        "create table h (id int primary key, v int)",
        "create table n (id int primary key, v int)",
        "create table k (id int)",
        "alter table k replica identity full",
    )
    grants: list[str] = ["GRANT SELECT ON nothing.*"]
    for last in (False, True):
        with ClickHouseServer(grants="</query><query>".join(grants)) as server:
            case = as_limited(tmp_path, database, server)
            found = json.loads(case.penstock("check", str(case.file), "--json").stdout)
            printed = [sql for each in found if each["check"].startswith("destination") for sql in each["fix"]["sql"]]
            assert all(each.endswith(" TO `limited`;") for each in printed)
            assert bool(printed) is not last
            grants += [each.removesuffix(" TO `limited`;") for each in printed]
            if last:
                assert_lives(case)


def assert_lives(case: Case) -> None:
    """A pipe to which everything happens."""
    database = case.database
    with case.running():
        case.wait_until(lambda: case.log().count("table streaming") == 4, "all tables stream")
        database.execute("update t set w = 0 where id < 9", "delete from t where id = 9", "insert into k values (1)")
        database.execute(
            "alter table t rename w to renamed", "alter table t drop z", "alter table t add a int default 7"
        )
        database.execute("update t set a = 8 where id < 5", "truncate h", "insert into h values (1, 1)", "truncate n")
        case.wait_for("select count() from t_current where a = 8", 4)
        case.wait_for("select count() > 0 from h", 1)
        case.assert_equal("public.t", "public.k")
        database.execute("truncate t", "insert into t (id) values (1)")
        case.wait_for("select count() from t_current", 1)
        database.execute("alter table t alter renamed type text")
        case.wait_until(lambda: "resync" in case.log() or "copied again" in case.log(), "copied again")
        case.wait_for("select toTypeName(renamed) from t_current", "Nullable(String)")
    assert "set aside" not in case.log()
    case.penstock("resync", str(case.file), "--all")
    case.once()
    case.assert_equal("public.t", "public.k")
    done = case.penstock("drop", str(case.file), "--tables")
    assert done.returncode == 0, done.stderr
