"""Tables that are made later: default privileges of those who own the tables of today, and what was given by them since."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.finding import Fix
from penstock.language import said
from penstock.setup.step import Back, State, Step, by_hand, right
from penstock.setup.terraform import resource

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from penstock.setup.asked import Asked


def steps(asked: Asked, relations: Sequence[Any]) -> Iterator[Step]:
    """A step for each schema and owner, where the pipe's patterns may take tables that are not there yet."""
    if not any(set("*?[") & set(each) for each in asked.pipe.tables.include):
        return
    what = said("the role may read tables that are made later")
    owners = {(each.schema, each.owner): each for each in relations if each.owner != asked.role}
    for (schema, owner), each in owners.items():
        subject = f"{schema}, of {owner}"
        if each.later_too:
            yield right("later tables", subject, what)
        elif each.may_act:
            yield _given(asked, subject, what, schema=schema, owner=owner)
        else:
            advice = said("Run it as {owner}, or as a superuser.", owner=owner)
            fix = Fix(advice=advice, sql=(_statement(asked, schema=schema, owner=owner),))
            yield by_hand("later tables", subject, what, fix)


def _given(asked: Asked, subject: str, what: str, *, schema: str, owner: str) -> Step:
    statement = _statement(asked, schema=schema, owner=owner)
    values = {"database": asked.database, "role": asked.role, "schema": schema, "owner": owner, "object_type": "table"}
    label = f"{asked.role}_{owner}_{schema}"
    text = resource("postgresql_default_privileges", label, {**values, "privileges": ["SELECT"]})
    known = [str(oid) for (oid,) in asked.fetch("tables_of", schema=schema, owner=owner)]
    back = Back("later tables", subject, {"schema": schema, "owner": owner, "role": asked.role, "known": known})
    fix = Fix(sql=(statement,), terraform=text)
    return Step("later tables", subject, what, State.NEEDED, fix, back=(back,), apply=lambda: asked.run(statement))


def _statement(asked: Asked, *, schema: str, owner: str) -> str:
    template = "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema} GRANT SELECT ON TABLES TO {role};"
    return asked.statement(template, owner=owner, schema=schema, role=asked.role)


def undo(asked: Asked, back: Back) -> None:
    """The default privileges, and what tables that were made since have got from them."""
    schema, owner, role = (str(back.arguments[name]) for name in ("schema", "owner", "role"))
    template = "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema} REVOKE SELECT ON TABLES FROM {role};"
    asked.run_if_there(asked.statement(template, owner=owner, schema=schema, role=role))
    known = list(map(int, back.arguments["known"]))
    for (name,) in asked.fetch("given_since", schema=schema, owner=owner, role=role, known=known):
        revoke = "REVOKE SELECT ON TABLE {schema}.{name} FROM {role};"
        asked.run_if_there(asked.statement(revoke, schema=schema, name=name, role=role))


UNDO = {"later tables": undo}
