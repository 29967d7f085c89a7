"""The checks of roles and tables: each bad situation is made on a real server, and its fix applied as printed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.findings import check, mend, named, names, one, pipe_of

from penstock.finding import Severity
from penstock.postgres import providers, table_checks

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fix_postgres import Database


def test_privileges_come_in_one_pass(database: Database, role: Callable[..., str]) -> None:
    name = role()
    database.execute(
        'create schema "o.dd"',
        'create table "o.dd"."t""1" (id int primary key)',
        "create table public.p (id int primary key) partition by range (id)",
        'create table "o.dd".leaf partition of public.p for values from (0) to (10)',
    )
    pipe = pipe_of(database.server.dsn(database.name, user=name), {"include": ["*"]})
    found = {finding.check: finding for finding in check(pipe)}
    assert set(found) == {"replication_role", "privileges", "default_privileges", "publication"}
    assert 'o.dd.leaf, o.dd.t"1, public.p' in found["privileges"].problem
    assert len(found["privileges"].fix.sql) == 2
    owned = "o.dd.leaf" if database.server.version == 12 else "public.p"
    assert owned in found["publication"].problem
    mend(database, *[found[each] for each in ("replication_role", "privileges", "default_privileges")])
    assert names(pipe) == {"publication"}
    database.execute("create table public.later (id int primary key)")
    later = one(pipe, "publication")  # and nothing else: the role may read the new table
    mend(database, later)
    assert check(pipe_of(pipe.source.dsn, {"include": ["*"]}, publication="penstock")) == []
    database.execute("create publication given for table only public.later")
    given = one(pipe_of(pipe.source.dsn, {"include": ["*"]}, publication="given"), "publication")
    mend(database, given)
    assert check(pipe_of(pipe.source.dsn, {"include": ["*"]}, publication="given")) == []


def test_tables_of_another_owner(database: Database, role: Callable[..., str]) -> None:
    name, owner = role("replication"), role()
    database.execute(
        "create table t (id int primary key)", f"alter table t owner to {owner}", f"grant select on t to {name}"
    )
    pipe = pipe_of(database.server.dsn(database.name, user=name), {"include": ["public.t"]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(providers, "PROVIDERS", (replace(providers.PROVIDERS[-1], administrator=owner),))
        (found,) = check(pipe)
    assert found.fix.sql[0].lower().startswith("create publication")
    (found,) = check(pipe)
    assert (found.check, found.severity) == ("publication", Severity.BLOCKING)
    mend(database, found)
    assert check(pipe) == []
    database.execute(f"alter table t owner to {name}")
    assert check(pipe) == []
    database.execute(f"revoke create on database {database.name} from {name}")
    (found,) = check(pipe)
    assert (found.check, "may not create a publication" in found.problem) == ("publication", True)
    mend(database, found)
    assert check(pipe) == []


def test_row_level_security(database: Database, role: Callable[..., str]) -> None:
    name = role("replication")
    database.execute(
        "create table t (id int primary key)",
        "create table u (id int primary key)",
        "alter table t enable row level security",
        "alter table u enable row level security",
        f"grant select on t, u to {name}",
        "create publication given for table t, u",
    )
    tables = {"include": ["public.t", "public.u"]}
    pipe = pipe_of(database.server.dsn(database.name, user=name), tables, publication="given")
    (found,) = check(pipe)
    assert (found.check, found.subject, found.severity) == ("row_security", "public.t, public.u", Severity.BLOCKING)
    azure = one(pipe_of(pipe.source.dsn, tables, publication="given", provider="azure"), "row_security")
    assert bool(azure.fix.sql) is (database.server.version >= 16)
    assert "tables.exclude" in azure.fix.advice
    assert check(pipe_of(pipe.source.dsn, {**tables, "exclude": ["public.[tu]"]}, publication="given")) == []
    mend(database, found)
    assert check(pipe) == []


def test_keys(database: Database) -> None:
    database.execute(
        "create table bare (id int)",
        "create table deferred (id int primary key deferrable)",
        "create table nothing (id int primary key)",
        "alter table nothing replica identity nothing",
        "create table whole (id int)",
        "alter table whole replica identity full",
        "create table events (id int)",
    )
    pipe = pipe_of(database.dsn, {"include": ["public.*"], "options": {"public.events": {"shape": "history"}}})
    found = check(pipe)
    assert {finding.subject: (finding.severity, finding.problem) for finding in found} == {
        "public.bare": (Severity.BLOCKING, "it has no primary key"),
        "public.deferred": (Severity.BLOCKING, "its primary key is deferrable, which cannot identify rows"),
        "public.nothing": (Severity.BLOCKING, "its replica identity is NOTHING"),
        "public.whole": (Severity.INFO, "it has no key"),
        "public.events": (Severity.WARNING, "it has no primary key"),
    }
    mend(database, *[finding for finding in found if finding.severity is not Severity.INFO])
    assert {finding.severity for finding in check(pipe)} == {Severity.INFO}
    assert (
        "Add a primary key" in one(pipe_of(database.dsn, {"include": ["public.whole"]}), "replica_identity").fix.advice
    )
    database.execute("alter table whole add primary key (id)")
    assert check(pipe_of(database.dsn, {"include": ["public.whole"]})) == []


def test_partitions_that_disagree(database: Database) -> None:
    database.execute(
        "create table r (id int primary key, x int not null) partition by range (id)",
        "create table l0 partition of r for values from (0) to (10)",
        "create table l1 partition of r for values from (10) to (20)",
        "create unique index on l1 (x)",
        "alter table l1 replica identity using index l1_x_idx",
    )
    pipe = pipe_of(database.dsn)
    found = named(pipe, "replica_identity")
    assert [(finding.subject, finding.severity) for finding in found] == [("public.r", Severity.BLOCKING)]
    mend(database, *found)
    assert check(pipe) == []


def test_what_is_left_out(database: Database) -> None:
    database.execute(
        "create unlogged table u (id int primary key)",
        "create schema other",
        "create unlogged table other.u (id int)",
        "create table g (id int primary key, d int generated always as (1) stored)",
        "create extension file_fdw",
        "create server files foreign data wrapper file_fdw",
        "create table r (id int) partition by range (id)",
        "alter table r replica identity full",
        "create foreign table other.f partition of r for values from (0) to (1) server files options (filename '/dev/null')",
    )
    found = {(finding.check, finding.subject): finding for finding in check(pipe_of(database.dsn))}
    assert set(found) == {
        ("left_out", "public.u"),
        ("left_out", "other.f"),
        ("columns_left_out", "public.g"),
        ("replica_identity", "public.r"),
    }
    assert "partition of public.r" in found["left_out", "other.f"].problem
    assert found["columns_left_out", "public.g"].severity is Severity.INFO
    mend(database, found["left_out", "public.u"])
    foreign = one(pipe_of(database.dsn), "left_out")
    assert (foreign.subject, foreign.fix.advice) == ("other.f", "Leave it out: tables.exclude.")
    assert named(pipe_of(database.dsn, {"exclude": ["public.r"]}), "left_out") == []


def test_what_a_copy_meets(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_checks, "LARGE_BYTES", 1)
    database.execute(
        "create table t (id int primary key, customer int)",
        "insert into t select g, g from generate_series(1, 1000) g",
        "create schema _timescaledb_catalog",
        "create table _timescaledb_catalog.hypertable (schema_name name, table_name name)",
        "insert into _timescaledb_catalog.hypertable values ('public', 'metrics')",
        "create table metrics (id int primary key)",
    )
    pipe = pipe_of(database.dsn, {"options": {"public.t": {"order_by": ["customer"]}}})
    found = {finding.check: finding for finding in check(pipe)}
    assert {name: (each.severity, each.subject) for name, each in found.items() if name != "sizes"} == {
        "hypertables": (Severity.BLOCKING, "public.metrics"),
        "waiting_changes": (Severity.INFO, "public.t"),
    }
    assert "in 2 tables" in found["sizes"].problem
    mend(database, found["waiting_changes"])
    without = pipe_of(
        database.dsn, {"exclude": ["public.metrics"], "options": {"public.t": {"order_by": ["customer"]}}}
    )
    assert names(without) == {"sizes"}
