"""The server's own settings: set by SQL where a server is one's own, by the provider's steps otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.finding import Fix
from penstock.language import said
from penstock.setup.step import Back, State, Step, by_hand, right

if TYPE_CHECKING:
    from penstock.setup.asked import Asked

SETTING = "wal_level"


def steps(asked: Asked) -> list[Step]:
    """Logical decoding, and how it is switched on here."""
    if not asked.streams:
        return []
    (server,) = asked.fetch("administrator")
    if server.wal_level == "logical":
        return [right(SETTING, SETTING, said("it is logical"))]
    what = said("it is {level}, and has to be logical", level=server.wal_level)
    facts = asked.facts(major=str(asked.source.info.server_version // 10000))
    if asked.provider.name != "generic":
        return [by_hand(SETTING, SETTING, what, asked.provider.switch_on(facts))]
    restart = said("the server is to be restarted: it takes wal_level at its start only")
    return [
        _written(asked, what, superuser=server.superuser),
        by_hand("restart", "PostgreSQL", restart, asked.provider.restart.filled(facts)),
    ]


def _written(asked: Asked, what: str, *, superuser: bool) -> Step:
    statement = "ALTER SYSTEM SET wal_level = logical;"
    fix = Fix(sql=(statement,))
    if not superuser:
        return by_hand(SETTING, SETTING, what, Fix(sql=fix.sql, advice=said("Run it as a superuser.")))
    written = [row.setting for row in asked.fetch("written_setting", name=SETTING)]
    if written[-1:] == ["logical"]:
        return right(SETTING, SETTING, said("it is written down, and counts once the server is restarted"))
    before = "ALTER SYSTEM RESET wal_level;" if not written else f"ALTER SYSTEM SET wal_level = {written[-1]};"
    return Step(
        SETTING, SETTING, what, State.NEEDED, fix, back=(Back("sql", before),), apply=lambda: asked.run(statement)
    )
