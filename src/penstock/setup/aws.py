"""Aurora and RDS: the parameter group, and the restart that it needs.

A group that somebody made is changed where it is, or copied where other servers have it too: its values are never lost.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from penstock.errors import ConfigError
from penstock.finding import Fix
from penstock.language import said
from penstock.setup import tokens
from penstock.setup.amazon import Api, command
from penstock.setup.amazon_servers import AT_ONCE, CLUSTER, PENDING, Server, find, server_of, where
from penstock.setup.server import no_api
from penstock.setup.step import Back, State, Step, right
from penstock.setup.terraform import resource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from penstock.setup.asked import Asked

Values = dict[str, tuple[str, str]]  # by name: the value, and how it is applied
ON = ("1", "on", "true")


def steps(asked: Asked) -> list[Step]:
    """The server's parameters; people do it where there is no API here."""
    try:
        server = find(asked, Api.of(asked))
    except ConfigError as error:
        return [no_api("Amazon's API", asked, error)]
    return [*_parameters(asked, server), *tokens.steps(asked, server)]


def _wanted(asked: Asked) -> dict[str, str]:
    """Parameters by name. wal_sender_timeout only when it is asked for: each session of ours sets its own."""
    wanted = {each.name: each.value for each in asked.provider.logical}
    if asked.tokens == "aws-iam":
        wanted["rds.iam_auth_for_replication"] = "1"
    if "wal_sender_timeout" in asked.choices:
        wanted["wal_sender_timeout"] = asked.choices["wal_sender_timeout"]
    return wanted


def _same(found: str, wanted: str) -> bool:
    return found == wanted or (found in ON and wanted in ON)


def _parameters(asked: Asked, server: Server) -> Iterator[Step]:
    group = server.group()
    have = server.values(group)
    lacking: Values = {
        name: (value, PENDING)
        for name, value in _wanted(asked).items()
        if not _same(have.get(name, ("", ""))[0], value)
    }
    if not lacking and not server.pending():
        yield right("parameters", group, said("it has the values"))
        return
    if lacking and not group.startswith("default.") and not server.sharing(group):
        yield _in_place(server, group, have, lacking)
    elif lacking:
        yield from _group_of_our_own(server, group, have, lacking)
    yield _restart(asked, server)


def _in_place(server: Server, group: str, have: Values, lacking: Values) -> Step:
    what = said("{values} in the parameter group that is there", values=_listed(lacking))
    before = {name: have[name] for name in lacking if name in have}
    back = Back(
        "aws values",
        group,
        {**where(server), "values": json.dumps(before), "others": [name for name in lacking if name not in have]},
    )
    return Step(
        "parameters",
        group,
        what,
        State.NEEDED,
        Fix(
            cli=(command(server.api.region, "rds", *_modification(server, group, lacking)),),
            terraform=f'# in {_resource(server)} "{group}":\n{_blocks(lacking)}',
        ),
        undo_restarts=server.title,
        back=(back,),
        apply=lambda: _set(server, group, lacking),
    )


def _group_of_our_own(server: Server, group: str, have: Values, lacking: Values) -> Iterator[Step]:
    """A new group: of the default one, which cannot be changed, or of one that others have too."""
    described = server.described()
    family = server.family(group) or server.family_of_engine(described)
    ours = f"penstock-{server.name}-{family}".replace(".", "-").lower()
    there = server.family(ours)
    values = {**({} if group.startswith("default.") else have), **lacking}
    set_already = server.values(ours) if there else {}
    left = {name: each for name, each in values.items() if set_already.get(name, ("",))[0] != each[0]}
    create = {
        server.words.group: ours,
        "DBParameterGroupFamily": family,
        "Description": f"Logical replication of {server.name}",
    }
    operation = f"create_{server.words.parameters.removesuffix('s')}_group"
    region = server.api.region

    def make() -> None:
        if not there:
            server.api.call("rds", operation, create, absent=("DBParameterGroupAlreadyExists",))
        _set(server, ours, left)

    what = said("a parameter group for this server alone, with {values}", values=_listed(values))
    cli: tuple[str, ...] = () if there else (command(region, "rds", operation, create),)
    cli += (command(region, "rds", *_modification(server, ours, left)),) if left else ()
    fix = Fix(cli=cli, terraform=_terraform(server, ours, family, values))
    if cli:
        back = () if there else (Back("aws group", ours, where(server)),)
        yield Step("parameter group", ours, what, State.NEEDED, fix, back=back, apply=make)
    else:
        yield right("parameter group", ours, what)
    attach = {server.words.server: server.name, server.words.group: ours, "ApplyImmediately": True}
    yield Step(
        "attach",
        server.name,
        said("the {server} gets the group {new} instead of {old}", server=server.title, new=ours, old=group),
        State.NEEDED,
        Fix(cli=(command(region, "rds", f"modify_{server.words.kind}", attach),), terraform=_attachment(server, ours)),
        undo_restarts=server.title,
        back=(Back("aws attach", group, where(server)),),
        apply=lambda: _attach(server, ours),
    )


def _restart(asked: Asked, server: Server) -> Step:
    what = said("the parameters take effect at a restart: of the writer first, then of each reader")
    first = next((name for name, _ in server.states()), server.name)
    fix = Fix(cli=(command(server.api.region, "rds", "reboot_db_instance", {"DBInstanceIdentifier": first}),))
    return Step(
        "restart", server.name, what, State.NEEDED, fix, restarts=server.title, apply=lambda: _settle(asked, server)
    )


# Doing it


def _settle(asked: Asked, server: Server) -> None:
    """The restart, until statements can be run again where they could be before."""
    reachable = asked.reachable
    server.settle()
    if reachable:
        server.api.until(asked.anew, f"{server.title} takes no connections after its restart")


def _listed(values: Mapping[str, tuple[str, str]]) -> str:
    return ", ".join(f"{name} = {value}" for name, (value, _) in values.items())


def _modification(server: Server, group: str, values: Values) -> tuple[str, dict[str, object]]:
    parameters = [
        {"ParameterName": name, "ParameterValue": value, "ApplyMethod": method}
        for name, (value, method) in values.items()
    ]
    return f"modify_{server.words.parameters.removesuffix('s')}_group", {
        server.words.group: group,
        "Parameters": parameters,
    }


def _set(server: Server, group: str, values: Values) -> None:
    names = list(values)
    for begin in range(0, len(names), AT_ONCE):
        some = {name: values[name] for name in names[begin : begin + AT_ONCE]}
        operation, parameters = _modification(server, group, some)
        server.api.call("rds", operation, parameters)


def _attach(server: Server, group: str) -> None:
    server.api.call(
        "rds",
        f"modify_{server.words.kind}",
        {server.words.server: server.name, server.words.group: group, "ApplyImmediately": True},
    )
    server.api.until(lambda: server.group() == group and server.available(), f"{server.title} gets {group}")


def _resource(server: Server) -> str:
    return "aws_rds_cluster_parameter_group" if server.words is CLUSTER else "aws_db_parameter_group"


def _blocks(values: Values) -> str:
    return "\n".join(
        f'  parameter {{\n    name         = "{name}"\n    value        = "{value}"\n    apply_method = "{method}"\n  }}'
        for name, (value, method) in values.items()
    )


def _terraform(server: Server, group: str, family: str, values: Values) -> str:
    text = resource(_resource(server), group, {"name": group, "family": family})
    return "\n".join([text.removesuffix("\n}"), _blocks(values), "}"])


def _attachment(server: Server, group: str) -> str:
    """Terraform of the server itself, which is somebody's already."""
    kind, key = (
        ("aws_rds_cluster", "db_cluster_parameter_group_name")
        if server.words is CLUSTER
        else ("aws_db_instance", "parameter_group_name")
    )
    return f'# in {kind} "{server.name}":\n#   {key} = {_resource(server)}.{group}.name'


# Taking it back


def undo_values(asked: Asked, back: Back) -> None:
    """The values as they were in a group of somebody's."""
    server = server_of(asked, back)
    if not server.family(back.what):
        return
    before: dict[str, list[str]] = json.loads(str(back.arguments["values"]))
    _set(server, back.what, {name: (value, method) for name, (value, method) in before.items()})
    others = [{"ParameterName": name, "ApplyMethod": PENDING} for name in back.arguments["others"]]
    if others:
        operation = f"reset_{server.words.parameters.removesuffix('s')}_group"
        server.api.call("rds", operation, {server.words.group: back.what, "Parameters": others})
    if server.exists():
        _settle(asked, server)


def undo_attach(asked: Asked, back: Back) -> None:
    """The group that was there before."""
    server = server_of(asked, back)
    if not server.exists():
        return
    if server.group() != back.what:
        _attach(server, back.what)
    _settle(asked, server)


def undo_group(asked: Asked, back: Back) -> None:
    """A group of ours is removed, once the servers have let go of it."""
    server = server_of(asked, back)
    operation = f"delete_{server.words.parameters.removesuffix('s')}_group"

    def gone() -> bool:
        if not server.family(back.what):
            return True
        return bool(
            server.api.call("rds", operation, {server.words.group: back.what}, absent=("InvalidDBParameterGroupState",))
        )

    server.api.until(gone, f"parameter group {back.what} is still in use")


UNDO = {"aws values": undo_values, "aws attach": undo_attach, "aws group": undo_group}
