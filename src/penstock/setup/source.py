"""What the pipe's role needs inside PostgreSQL: statements that any administrator can run.

What is there already is left as it is, so that taking back gives up nothing that setup did not give.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from psycopg import sql

from penstock.errors import PenstockError
from penstock.finding import Fix
from penstock.language import said, spoken
from penstock.postgres.connection import Connector
from penstock.setup import later_tables
from penstock.setup.password import Password, verifier
from penstock.setup.published import published
from penstock.setup.step import Back, State, Step, by_hand, right
from penstock.setup.terraform import Expression, resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from penstock.setup.asked import Asked


def steps(asked: Asked) -> list[Step]:
    """The steps in the order in which they are made. Raises SourceError."""
    tables = asked.tables()
    found = next(iter(asked.fetch("role_to_be", role=asked.role)), None)
    oids = [oid for table in tables for oid in (table.oid, *(leaf.oid for leaf in table.leaves))]
    relations = asked.fetch("to_be_granted", role=asked.role, oids=oids)
    made = [*_role(asked, found), *_rights(asked, found)]
    made += _schemas(asked, relations)
    made += _tables(asked, relations)
    made += later_tables.steps(asked, relations)
    made += _row_security(asked, found, relations)
    if asked.streams:
        made += published(asked, tables, found, relations)
    made += _login(asked, found)
    return made


def change(asked: Asked, which: tuple[str, str], what: str, *, fix: Fix, back: Iterable[str], may: bool = True) -> Step:
    """A step that is statements; by hand where this administrator may not run them."""
    name, subject = which
    if not may:
        advice = said("This administrator may not do that: run it as the owner, or as a superuser.")
        return by_hand(name, subject, what, replace(fix, advice=advice))
    returns = tuple(Back("sql", each) for each in back)
    return Step(name, subject, what, State.NEEDED, fix, back=returns, apply=lambda: asked.run(*fix.sql))


# The role


def _role(asked: Asked, found: Any) -> Iterator[Step]:
    role = asked.role
    if found is None:
        yield from _new_role(asked)
    elif not found.may_login:
        what = said("the role may log in")
        do, back = (asked.statement(f"ALTER ROLE {{role}} {each};", role=role) for each in ("LOGIN", "NOLOGIN"))
        yield change(asked, ("role", role), what, fix=Fix(sql=(do,)), back=[back])
    else:
        yield right("role", role, said("the role is there, with the password that it has"))


def _new_role(asked: Asked) -> Iterator[Step]:
    role = asked.role
    if asked.tokens == "azure-entra":
        what = said("there is no such role: it has to be made as a principal of Microsoft Entra's")
        yield by_hand("role", role, what, asked.provider.tokens.filled(asked.facts()))
        return
    password = Password() if asked.tokens else Password.of(asked.pipe.source, shown=asked.show_password)
    create = asked.statement("CREATE ROLE {role} LOGIN", role=role)
    drop = Back("sql", asked.statement("DROP ROLE {role};", role=role))
    shown = Fix(sql=(f"{create};" if asked.tokens else f"{create} PASSWORD '…';",), terraform=_role_resource(asked))
    if password.lack:
        advice = said(
            "Say where the pipe finds the role's password: password = {place} in [source]; setup makes one and writes it there.",
            place='{ file = "…" }',
        )
        what = said("there is no such role, and no password for one: {lack}", lack=password.lack)
        yield by_hand("role", role, what, replace(shown, advice=advice))
        return
    if asked.tokens:
        what = said("a role that may log in, with tokens")
    elif password.path:
        what = said(
            "a role that may log in; its new password is written to {path}, and shown nowhere", path=password.path
        )
    else:
        what = said("a role that may log in, with the password that the pipe has")

    def apply() -> None:
        secret = password.read_or_make()
        if secret and secret != password.known and asked.show_password:
            asked.shown[role] = secret
        if secret:
            literal = sql.Literal(verifier(asked.source, role, secret)).as_string(asked.source)
            asked.run(f"{create} PASSWORD {literal};")
        else:
            asked.run(f"{create};")

    yield Step("role", role, what, State.NEEDED, shown, back=(drop, *password.back), apply=apply)


def _role_resource(asked: Asked) -> str:
    """With the right to replicate, for there it is the role's own."""
    values: dict[str, object] = {"name": asked.role, "login": True}
    if not asked.tokens:
        values["password"] = Expression("var.penstock_password")
    granted = [each for each in asked.provider.replicate if each.startswith("GRANT ")]
    right_to = {"roles": [each.split()[1] for each in granted]} if granted else {"replication": True}
    return resource("postgresql_role", asked.role, {**values, **right_to})


def _rights(asked: Asked, found: Any) -> Iterator[Step]:
    facts = asked.provider
    if found is not None and not found.may_connect:
        yield _may_connect(asked)
    if asked.streams:
        yield _replication(asked, found)
    if asked.tokens == "aws-iam" and "rds_iam" not in (found.member_of if found else ()):
        yield _attribute("tokens", said("the role logs in with tokens of IAM"), facts.tokens.sql, asked=asked)
    if asked.streams and facts.timeout == "role" and facts.name != "generic":
        yield from _sender_timeout(asked, found)


def _replication(asked: Asked, found: Any) -> Step:
    what = said("the role may replicate")
    if found is not None and _may_replicate(found):
        return right("replication", asked.role, what)
    return _attribute("replication", what, asked.provider.replicate, asked=asked)


def _attribute(name: str, what: str, templates: Sequence[str], *, asked: Asked) -> Step:
    """Something that the provider's statements give the role."""
    role = asked.statement("{role}", role=asked.role)
    give, back = (
        [each.format(role=role) for each in many] for many in (templates, map(_opposite, reversed(templates)))
    )
    return change(asked, (name, asked.role), what, fix=Fix(sql=tuple(give)), back=back)


def _sender_timeout(asked: Asked, found: Any) -> Iterator[Step]:
    """What the guides of some providers ask for."""
    what = said("the server does not end the stream while it is quiet")
    before = next((each for each in (found.settings if found else ()) if each.startswith("wal_sender_timeout=")), "")
    if before.removeprefix("wal_sender_timeout=") in ("0", "0ms", "0s"):
        yield right("wal_sender_timeout", asked.role, what)
        return
    alter = asked.statement("ALTER ROLE {role}", role=asked.role)
    value = sql.Literal(before.partition("=")[2]).as_string(asked.source)
    back = f"{alter} SET wal_sender_timeout = {value};" if before else f"{alter} RESET wal_sender_timeout;"
    fix = Fix(sql=(f"{alter} SET wal_sender_timeout = 0;",))
    yield change(asked, ("wal_sender_timeout", asked.role), what, fix=fix, back=[back])


def _may_connect(asked: Asked) -> Step:
    """PUBLIC may connect, unless that was taken away."""
    database = asked.database
    names = {"database": database, "role": asked.role}
    give = asked.statement("GRANT CONNECT ON DATABASE {database} TO {role};", **names)
    back = asked.statement("REVOKE CONNECT ON DATABASE {database} FROM {role};", **names)
    return change(asked, ("connect", database), said("the role may connect"), fix=Fix(sql=(give,)), back=[back])


def _opposite(give: str) -> str:
    """What takes an attribute of a role, or a membership, back; of a template, for a role's name may have such words."""
    if give.startswith("GRANT "):
        return re.sub(r"^GRANT (.*) TO ", r"REVOKE \1 FROM ", give)
    return re.sub(r"(?:WITH )?(REPLICATION|BYPASSRLS);$", r"NO\1;", give)


def _login(asked: Asked, found: Any) -> Iterator[Step]:
    """Whether the pipe itself gets in, for statements and the stream: its password, and the server's rules, show only here."""
    ready = found is not None and found.may_login and found.may_connect
    if not ready or (asked.streams and not _may_replicate(found)):
        return
    connector = Connector(asked.pipe.source, f"penstock setup {asked.pipe.name}")
    try:
        connector.connect().close()
        if asked.streams:
            connector.replication({}).close()
    except PenstockError as error:
        what = said("the pipe does not get in: {error}", error=error.message)
        yield by_hand("login", asked.role, what, Fix(advice=spoken(error.hint)))
    else:
        yield right("login", asked.role, said("the pipe gets in"))


def _may_replicate(found: Any) -> bool:
    return bool(found.may_replicate or "rds_replication" in found.member_of)


# Schemas and tables


def _schemas(asked: Asked, relations: list[Any]) -> Iterator[Step]:
    what = said("the role may use the schema")
    for schema, members in groupby(relations, key=lambda each: each.schema):
        one = next(iter(members))
        if one.may_use:
            yield right("schema", schema, what)
            continue
        give = asked.statement("GRANT USAGE ON SCHEMA {schema} TO {role};", schema=schema, role=asked.role)
        back = asked.statement("REVOKE USAGE ON SCHEMA {schema} FROM {role};", schema=schema, role=asked.role)
        fix = Fix(sql=(give,), terraform=_grant(asked, "schema", schema, privileges=["USAGE"]))
        yield change(asked, ("schema", schema), what, fix=fix, back=[back], may=one.may_grant_schema)


def _tables(asked: Asked, relations: list[Any]) -> Iterator[Step]:
    """One statement a schema; those that the administrator may not grant apart from the others."""
    ordered = sorted(relations, key=lambda each: (each.schema, not each.may_grant))
    for (schema, may), members in groupby(ordered, key=lambda each: (each.schema, each.may_grant)):
        names = [each.name for each in members if not each.may_select]
        if not names:
            yield right("tables", schema, said("the role may read the tables"))
            continue
        what = said("the role may read the tables (lacking: {count})", count=len(names))
        listed = sql.SQL(", ").join(sql.Identifier(schema, each) for each in names).as_string(asked.source)
        role = asked.statement("{role}", role=asked.role)
        back = [
            asked.statement(
                "REVOKE SELECT ON TABLE {schema}.{name} FROM {role};", schema=schema, name=each, role=asked.role
            )
            for each in names
        ]
        fix = Fix(
            sql=(f"GRANT SELECT ON TABLE {listed} TO {role};",),
            terraform=_grant(asked, "table", schema, privileges=["SELECT"], objects=names),
        )
        yield change(asked, ("tables", schema), what, fix=fix, back=back, may=may)


def _grant(asked: Asked, kind: str, schema: str, **what: list[str]) -> str:
    values = {"database": asked.database, "role": asked.role, "schema": schema, "object_type": kind, **what}
    return resource("postgresql_grant", f"{asked.role}_{kind}_{schema}", values)


def _row_security(asked: Asked, found: Any, relations: list[Any]) -> Iterator[Step]:
    hidden = [f"{each.schema}.{each.name}" for each in relations if each.row_security]
    if not hidden or (found is not None and found.sees_all):
        return
    what = said("the role sees every row, whatever the policies of {tables} say", tables=", ".join(hidden))
    yield _attribute("row-level security", what, asked.provider.bypass, asked=asked)
