"""Azure Database for PostgreSQL, Flexible Server: its parameters, the restart they need, its firewall and its endpoints."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError
from penstock.finding import Fix
from penstock.language import said
from penstock.setup import azure_servers
from penstock.setup.address import let_in
from penstock.setup.azure_servers import Server, endpoints, find, told, word
from penstock.setup.server import no_api
from penstock.setup.step import Back, State, Step, by_hand, right

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.setup.asked import Asked

SYNCED_SLOTS_SINCE = 17


def steps(asked: Asked) -> list[Step]:
    """The server's firewall and parameters; people do it where there is no API here."""
    try:
        server = find(asked)
        described = server.described()
    except ConfigError as error:
        return [no_api("Azure's API", asked, error)]
    return [
        *_firewall(asked, server, described),
        *_parameters(asked, server, described),
        *_endpoint(asked, server),
    ]


# Parameters


def _wanted(asked: Asked, server: Server, described: Any) -> dict[str, str]:
    """Parameters by name: for decoding, and for slots that live through a failover."""
    wanted = {each.name: each.value for each in asked.provider.logical}
    if _highly_available(described) and int(described.version) >= SYNCED_SLOTS_SINCE:
        wanted |= {"sync_replication_slots": "on", "hot_standby_feedback": "on"}
    return wanted


def _highly_available(described: Any) -> bool:
    return described.high_availability is not None and word(described.high_availability.mode) not in ("", "Disabled")


def _parameters(asked: Asked, server: Server, described: Any) -> Iterator[Step]:
    waits = False
    facts = asked.facts()
    for name, value in _wanted(asked, server, described).items():
        now = server.parameter(name)
        waits = waits or bool(now.is_config_pending_restart)
        what = said("it is {now}, and has to be {value}", now=now.value, value=value)
        if str(now.value).lower() == value:
            yield right("parameter", name, said("it is {value}", value=value))
            continue
        filled = {**facts, "parameter": name, "value": value}
        fix = asked.provider.setting.filled(filled)
        fix = Fix(cli=_in_group(fix.cli, server), console=fix.console, terraform=fix.terraform)
        waits = waits or not now.is_dynamic_config
        back = Back("azure parameter", name, {**_where(server), "value": str(now.value), "source": word(now.source)})
        yield Step(
            "parameter",
            name,
            what,
            State.NEEDED,
            fix,
            undo_restarts="" if now.is_dynamic_config else server.title,
            back=(back,),
            apply=lambda name=name, value=value: server.set(name, value),  # type: ignore[misc]
        )
    if waits:
        yield _restart(asked, server, facts)
    if _highly_available(described) and int(described.version) < SYNCED_SLOTS_SINCE:
        what = said("its slots survive a failover only with the extension pg_failover_slots")
        yield by_hand("high availability", server.name, what, Fix(advice=asked.provider.failover))


def _restart(asked: Asked, server: Server, facts: dict[str, str]) -> Step:
    def apply() -> None:
        server.restart()
        asked.anew()

    fix = asked.provider.restart.filled(facts)
    return Step(
        "restart",
        server.name,
        said("the parameters take effect at a restart"),
        State.NEEDED,
        Fix(cli=_in_group(fix.cli, server), console=fix.console),
        restarts=server.title,
        apply=apply,
    )


def _in_group(cli: tuple[str, ...], server: Server) -> tuple[str, ...]:
    return tuple(each.replace("RESOURCE-GROUP", server.group) for each in cli)


def _endpoint(asked: Asked, server: Server) -> Iterator[Step]:
    """A server with a virtual endpoint is better reached by it: it follows a promotion."""
    writers = [name for _, names in endpoints(server) for name in names if ".writer." in name]
    if not writers:
        return
    if asked.host.lower() in writers:
        yield right("endpoint", asked.host, said("it follows the writer"))
    else:
        advice = said("Let the host in the pipe's DSN be {host}.", host=writers[0])
        what = said("the server has a virtual endpoint, which follows a promotion; this name does not")
        yield by_hand("endpoint", asked.host, what, Fix(advice=advice))


# The firewall


def _firewall(asked: Asked, server: Server, described: Any) -> Iterator[Step]:
    if "address" not in asked.choices and asked.answers():
        return
    if described.network is not None and word(described.network.public_network_access) == "Disabled":
        what = said("it takes connections from its virtual network only")
        advice = said("Run Penstock in that network, or make a private endpoint in yours, or use an SSH tunnel.")
        yield by_hand("firewall", server.name, what, Fix(advice=advice))
        return
    address = let_in(asked)
    if not address:
        advice = said("Give the address that Penstock's connections come from: --with address=203.0.113.7/32")
        what = said("nobody answers: its firewall may not let this machine in")
        yield by_hand("firewall", server.name, what, Fix(advice=advice))
        return
    span = ipaddress.ip_network(address)
    first, last = str(span[0]), str(span[-1])
    what = said("{address} may connect", address=address)
    rule = f"penstock_{asked.pipe.name}"
    with told(f"firewall of server {server.name}"):
        rules = [each.properties for each in server.api.firewall_rules.list_by_server(server.group, server.name)]
    if any(_covers(each, span) for each in rules):
        yield right("firewall", server.name, what)
        return
    fix = asked.provider.allow.filled({**asked.facts(), "address": first})

    def apply() -> None:
        body = {"properties": {"startIpAddress": first, "endIpAddress": last}}
        with told(f"firewall of server {server.name}"):
            server.api.firewall_rules.begin_create_or_update(
                server.group, server.name, rule, body, polling_interval=azure_servers.poll_seconds
            ).result()
        asked.anew()

    back = Back("azure rule", rule, _where(server))
    fix = Fix(cli=_in_group(fix.cli, server), console=fix.console, terraform=fix.terraform)
    yield Step("firewall", server.name, what, State.NEEDED, fix, back=(back,), apply=apply)


def _covers(rule: Any, span: Any) -> bool:
    start, end = ipaddress.ip_address(rule.start_ip_address), ipaddress.ip_address(rule.end_ip_address)
    return bool(start.version == span.version and start <= span[0] and span[-1] <= end)


# Taking it back


def _where(server: Server) -> dict[str, str | list[str]]:
    return {"subscription": server.subscription, "group": server.group, "server": server.name}


def _server(back: Back) -> Server:
    given = {name: str(value) for name, value in back.arguments.items()}
    return Server(azure_servers.client(given["subscription"]), given["subscription"], given["group"], given["server"])


def undo_parameter(asked: Asked, back: Back) -> None:
    """The value as it was, and the restart that it needs."""
    server = _server(back)
    server.set(back.what, str(back.arguments["value"]), str(back.arguments["source"]))
    if server.parameter(back.what).is_config_pending_restart:
        server.restart()
        asked.anew()


def undo_rule(_asked: Asked, back: Back) -> None:
    """Let the address in no more."""
    server = _server(back)
    with told(f"firewall of server {server.name}"):
        server.api.firewall_rules.begin_delete(
            server.group, server.name, back.what, polling_interval=azure_servers.poll_seconds
        ).result()


UNDO = {"azure parameter": undo_parameter, "azure rule": undo_rule}
