"""The server's own settings: set by SQL where a server is one's own, by the provider's steps otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

from penstock.finding import Fix
from penstock.language import said, spoken
from penstock.postgres.providers import Parameter
from penstock.setup.step import Back, State, Step, by_hand, right

if TYPE_CHECKING:
    from penstock.errors import ConfigError
    from penstock.setup.asked import Asked

SPARE = 4  # slots and senders more than are in use
FREE_SENDERS = 2  # that a pipe needs


def steps(asked: Asked) -> list[Step]:
    """Logical decoding, and room for one slot more."""
    if not asked.streams:
        return []
    server = asked.administrator()
    wanted = _wanted(server)
    made = [] if server.wal_level != "logical" else [right("wal_level", "wal_level", said("it is logical"))]
    facts = asked.facts(major=str(asked.source.info.server_version // 10000))
    if asked.provider.name != "generic":
        return made + [_provided(asked, parameter, now, facts) for parameter, now in wanted]
    made += [_written(asked, parameter, now, superuser=server.superuser) for parameter, now in wanted]
    if wanted:
        what = said("the server is to be restarted: it takes these settings at its start only")
        made.append(by_hand("restart", "PostgreSQL", what, asked.provider.restart.filled(facts)))
    return made


def no_api(name: str, asked: Asked, error: ConfigError) -> Step:
    """Why people have to do it; and how, where the server cannot be seen either, and ``steps`` will not say."""
    facts = asked.facts()
    fix = Fix(advice=spoken(error.hint))
    return by_hand(
        name, facts["server"], spoken(error.message), fix if asked.reachable else fix + asked.provider.switch_on(facts)
    )


def _wanted(server: Any) -> list[tuple[Parameter, str]]:
    """Parameters that are not as they have to be, with what they are."""
    wanted = []
    if server.wal_level != "logical":
        wanted.append((Parameter("wal_level", "logical"), server.wal_level))
    if server.has_slot:
        return wanted
    if server.slots >= server.most_slots:
        parameter = Parameter("max_replication_slots", str(server.slots + SPARE))
        wanted.append((parameter, str(server.most_slots)))
    if server.senders + FREE_SENDERS > server.most_senders:
        parameter = Parameter("max_wal_senders", str(server.senders + SPARE))
        wanted.append((parameter, str(server.most_senders)))
    return wanted


def _provided(asked: Asked, parameter: Parameter, now: str, facts: dict[str, str]) -> Step:
    facts_of = asked.provider
    fix = (
        facts_of.switch_on(facts) if parameter.name == "wal_level" else facts_of.set_parameter(parameter, facts)
    ) or Fix(advice=said("It cannot be set there: ask the provider."))
    return by_hand(parameter.name, parameter.name, _as_it_is(parameter, now), fix)


def _as_it_is(parameter: Parameter, now: str) -> str:
    if parameter.name == "wal_level":
        return said("it is {now}, and has to be {value}", now=now, value=parameter.value)
    return said("all {now} are in use: {value} would do", now=now, value=parameter.value)


def _written(asked: Asked, parameter: Parameter, now: str, *, superuser: bool) -> Step:
    name, value = parameter.name, parameter.value
    what = _as_it_is(parameter, now)
    fix = asked.provider.setting.filled({"parameter": name, "value": value})
    if not superuser:
        return by_hand(name, name, what, Fix(advice=said("Run it as a superuser.")) + fix)
    written = [row.setting for row in asked.fetch("written_setting", name=name)]
    if written[-1:] == [value]:
        return right(name, name, said("it is written down, and counts once the server is restarted"))
    alter = asked.statement("ALTER SYSTEM SET {name} =", name=name)
    before = f"{alter} {sql.Literal(written[-1]).as_string(asked.source)};" if written else ""
    back = before or asked.statement("ALTER SYSTEM RESET {name};", name=name)
    return Step(name, name, what, State.NEEDED, fix, back=(Back("sql", back),), apply=lambda: asked.run(*fix.sql))
