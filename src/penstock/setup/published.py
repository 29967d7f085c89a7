"""The publication: made by the administrator where it was named, or where the pipe's role could not maintain one of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.finding import Fix
from penstock.language import said
from penstock.plan import identity_statement
from penstock.postgres import publication
from penstock.setup.step import Back, State, Step, by_hand, right
from penstock.setup.terraform import resource
from penstock.table import ReplicaIdentity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from penstock.setup.asked import Asked
    from penstock.table import Table


def published(asked: Asked, tables: Sequence[Table], found: Any, relations: Sequence[Any]) -> Iterator[Step]:
    """Steps of the publication. A table whose old rows cannot be told is never published unasked: UPDATE would fail from then on."""
    name = asked.pipe.publication
    told = [table for table in tables if _has_identity(table)]
    yield from (_without_identity(table) for table in tables if not _has_identity(table))
    if _maintains(found, relations):
        yield right("publication", name, said("Penstock makes and maintains it: its role owns the tables"))
        return
    yield from _made(asked, told, relations)
    if not asked.pipe.source.publication:
        line = f'publication = "{name}"'
        advice = said("Write into the pipe's file, under [source]: {line}", line=line)
        yield by_hand(
            "definition",
            asked.pipe.name,
            said("the pipe names the publication, which is not its own"),
            Fix(advice=advice),
        )


def _has_identity(table: Table) -> bool:
    return bool(table.identity) and not any(leaf.replica_identity is ReplicaIdentity.NOTHING for leaf in table.leaves)


def _without_identity(table: Table) -> Step:
    what = said(
        "it has no primary key: it is not published, for PostgreSQL would refuse UPDATE and DELETE on it from then on"
    )
    advice = said(
        "Add a primary key, exclude the table, or have its old rows told whole, which costs WAL; then run setup again."
    )
    return by_hand("replica identity", table.full_name, what, Fix(advice=advice, sql=(identity_statement(table),)))


def _maintains(found: Any, relations: Sequence[Any]) -> bool:
    return found is not None and found.may_create and all(each.owned for each in relations)


def _made(asked: Asked, tables: Sequence[Table], relations: Sequence[Any]) -> Iterator[Step]:
    name = asked.pipe.publication
    lack = publication.lacking(asked.source, name, tables, owned=False)
    if lack is None or not tables:
        yield right("publication", name, said("it publishes the tables"))
        return
    fix = Fix(sql=(lack.statement,), terraform="" if lack.exists else _terraform(asked, name, tables))
    what = said("it publishes the tables (lacking: {count})", count=len(lack.tables))
    theirs = sorted({each.owner for each in relations if not each.may_act})
    if theirs:
        advice = said(
            "Run it as somebody who owns all of the tables; now they belong to {owners} too.", owners=", ".join(theirs)
        )
        yield by_hand("publication", name, what, Fix(advice=advice) + fix)
    elif not (lack.exists or asked.administrator().may_create):
        advice = said("Run it as somebody who may create in the database.")
        yield by_hand("publication", name, what, Fix(advice=advice) + fix)
    else:
        drop = (asked.statement("DROP PUBLICATION {name};", name=name),)
        back = _withdrawn(asked, name, lack.tables) if lack.exists else drop
        yield Step(
            "publication",
            name,
            what,
            State.NEEDED,
            fix,
            back=tuple(Back("sql", each) for each in back),
            apply=lambda: asked.run(lack.statement),
        )


def _terraform(asked: Asked, name: str, tables: Sequence[Table]) -> str:
    values = {
        "name": name,
        "database": asked.database,
        "tables": [table.full_name for table in tables],
        "publish_via_partition_root_param": True,
    }
    return resource("postgresql_publication", name, values)


def _withdrawn(asked: Asked, name: str, tables: Sequence[Table]) -> tuple[str, ...]:
    """Each table by itself: one may be gone by then."""
    roots = asked.source.info.server_version >= publication.ROOT_PUBLISHING
    members = [
        (each.schema, each.name)
        for table in tables
        for each in (table.leaves if table.partitioned and not roots else (table,))
    ]
    return tuple(
        asked.statement("ALTER PUBLICATION {name} DROP TABLE {schema}.{table};", name=name, schema=schema, table=table)
        for schema, table in members
    )
