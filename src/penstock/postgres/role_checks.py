"""What is asked about the role's rights before a pipe runs; part of ``checks.CHECKS``. One paste mends all of a kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.finding import Finding, Fix, Severity
from penstock.language import said
from penstock.postgres.question import listed, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.postgres.question import Question

_BYPASS_BY_ALL = 16  # from here on an administrator who is no superuser can give BYPASSRLS at Azure


def replication(asked: Question) -> Iterator[Finding]:
    """Whether the role may replicate."""
    if not asked.server.may_replicate:
        yield Finding(
            "replication_role",
            Severity.BLOCKING,
            asked.server.role,
            said("the role may not replicate"),
            said("Only such a role may make a slot and read the stream of changes."),
            Fix(sql=asked.provider.replicate).filled(asked.facts),
        )


def privileges(asked: Question) -> Iterator[Finding]:
    """Whether the role may read the tables."""
    schemas = dict.fromkeys(each.schema_sql for each in asked.relations if not each.may_use)
    tables = [each for each in asked.relations if not each.may_select]
    if not schemas and not tables:
        return
    statements = []
    if schemas:
        statements.append(f"GRANT USAGE ON SCHEMA {', '.join(schemas)} TO {asked.role};")
    if tables:
        statements.append(f"GRANT SELECT ON TABLE {', '.join(each.relation_sql for each in tables)} TO {asked.role};")
    names = dict.fromkeys(_name(each) for each in asked.relations if not (each.may_use and each.may_select))
    yield Finding(
        "privileges",
        Severity.BLOCKING,
        asked.server.role,
        said("the role may not read {tables}", tables=listed(names)),
        said("The rows that are there already are read with SELECT."),
        Fix(sql=tuple(statements)),
    )


def default_privileges(asked: Question) -> Iterator[Finding]:
    """Whether the role may read the tables that are still to come."""
    if asked.pipe.settings.on_new_table != "copy" or not any(
        set("*?[") & set(each) for each in asked.pipe.tables.include
    ):
        return
    rows = asked.fetch("default_privileges", oids=[each.oid for each in asked.relations])
    if rows:
        yield Finding(
            "default_privileges",
            Severity.WARNING,
            asked.server.role,
            said(
                "the role cannot read tables that are made later in {schemas}",
                schemas=listed(dict.fromkeys(row.nspname for row in rows)),
            ),
            said("A new table that the pipe takes in would be set aside until it is granted."),
            Fix(
                sql=tuple(
                    f"ALTER DEFAULT PRIVILEGES FOR ROLE {quoted(row.owner)} IN SCHEMA {row.schema_sql}"
                    f" GRANT SELECT ON TABLES TO {asked.role};"
                    for row in rows
                ),
                advice=said("As {owners}, or a member of it.", owners=listed(dict.fromkeys(row.owner for row in rows))),
            ),
        )


def row_security(asked: Question) -> Iterator[Finding]:
    """Whether policies hide rows."""
    hidden = [_name(each) for each in asked.relations if each.row_security]
    if not hidden:
        return
    leave_out = said("Or leave the tables out: tables.exclude.")
    fix = Fix(sql=asked.provider.bypass).filled(asked.facts)
    if asked.provider.name == "azure" and asked.major < _BYPASS_BY_ALL:
        fix = Fix()
    yield Finding(
        "row_security",
        Severity.BLOCKING,
        listed(hidden),
        said("policies of row-level security hide rows from the role {role}", role=asked.server.role),
        said("Rows would be missing without an error, so they are not copied at all."),
        fix + Fix(advice=leave_out),
    )


def _name(relation: Any) -> str:
    return f"{relation.nspname}.{relation.relname}"


CHECKS: tuple[Callable[[Question], Iterator[Finding]], ...] = (
    replication,
    privileges,
    default_privileges,
    row_security,
)
