"""Tokens of Amazon's IAM instead of a password: switched on at the server, and the right to ask for one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from penstock.finding import Fix
from penstock.language import said
from penstock.setup.amazon import command
from penstock.setup.amazon_servers import server_of, where
from penstock.setup.step import Back, State, Step, by_hand, right

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.setup.amazon_servers import Server
    from penstock.setup.asked import Asked


def steps(asked: Asked, server: Server) -> Iterator[Step]:
    """What a role needs that logs in by IAM."""
    if asked.tokens != "aws-iam":
        return
    described = server.described()
    enable = {server.words.server: server.name, "EnableIAMDatabaseAuthentication": True, "ApplyImmediately": True}
    what = said("the {server} takes tokens of IAM", server=server.title)
    if _switched(server):
        yield right("IAM", server.name, what)
    else:
        cli = command(server.api.region, "rds", f"modify_{server.words.kind}", enable)
        back = Back("aws IAM", server.name, where(server))
        yield Step(
            "IAM",
            server.name,
            what,
            State.NEEDED,
            Fix(cli=(cli,)),
            back=(back,),
            apply=lambda: _switch(server, on=True),
        )
    resource_id = described.get("DbClusterResourceId") or described.get("DbiResourceId")
    account = str(described.get("DBClusterArn") or described.get("DBInstanceArn")).split(":")[4]
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "rds-db:connect",
                "Resource": f"arn:aws:rds-db:{server.api.region}:{account}:dbuser:{resource_id}/{asked.role}",
            }
        ],
    }
    advice = said(
        "Whoever runs Penstock needs this policy, which setup cannot see: {policy}", policy=json.dumps(policy)
    )
    yield by_hand("IAM policy", asked.role, said("the right to connect with a token"), Fix(advice=advice))


def _switch(server: Server, *, on: bool) -> None:
    server.api.call(
        "rds",
        f"modify_{server.words.kind}",
        {server.words.server: server.name, "EnableIAMDatabaseAuthentication": on, "ApplyImmediately": True},
    )
    server.api.until(lambda: _switched(server) is on, f"{server.title} takes tokens: {on}")


def _switched(server: Server) -> bool:
    return bool(server.described().get("IAMDatabaseAuthenticationEnabled"))


def undo_iam(asked: Asked, back: Back) -> None:
    """No tokens."""
    server = server_of(asked, back)
    if server.exists():
        _switch(server, on=False)


UNDO = {"aws IAM": undo_iam}
