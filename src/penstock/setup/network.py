"""The way to a server of Amazon's: a rule of its security group, or a private link into our own network."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError
from penstock.finding import Fix
from penstock.language import said
from penstock.setup.address import PORT, let_in
from penstock.setup.amazon import Api, command
from penstock.setup.amazon_servers import find
from penstock.setup.step import Back, State, Step, by_hand, right

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.setup.asked import Asked

TAG = "penstock"


def steps(asked: Asked) -> list[Step]:
    """What lets us in. Nothing where the server answers already, or where there is no API: ``aws`` says so then."""
    try:
        api = Api.of(asked)
    except ConfigError:
        return []
    made = list(_private_link(asked, api)) if "endpoint_service" in asked.choices else []
    if "address" in asked.choices or not asked.answers():
        made += _rule(asked, api)
    return made


# The security group


def _rule(asked: Asked, api: Api) -> Iterator[Step]:
    address = let_in(asked)
    if not address:
        advice = said("Give the address that Penstock's connections come from: --with address=203.0.113.7/32")
        what = said("nobody answers: its security group may not let this machine in")
        yield by_hand(
            "security group", asked.host, what, Fix(advice=advice) + asked.provider.allow.filled(asked.facts())
        )
        return
    try:
        described = find(asked, api).described()
    except ConfigError:
        return  # ``aws`` says so
    port = int(described.get("Port") or described.get("Endpoint", {}).get("Port") or PORT)
    groups = [each["VpcSecurityGroupId"] for each in described.get("VpcSecurityGroups", ())]
    if not groups:
        return
    what = said("{address} may connect to port {port}", address=address, port=port)
    found = api.call("ec2", "describe_security_groups", {"GroupIds": groups})["SecurityGroups"]
    if any(_lets_in(rule, address, port) for group in found for rule in group["IpPermissions"]):
        yield right("security group", groups[0], what)
        return
    versions = {4: ("IpRanges", "CidrIp"), 6: ("Ipv6Ranges", "CidrIpv6")}
    ranges, cidr = versions[ipaddress.ip_network(address).version]
    permission = {
        "IpProtocol": "tcp",
        "FromPort": port,
        "ToPort": port,
        ranges: [{cidr: address, "Description": f"Penstock, pipe {asked.pipe.name}"}],
    }
    change = {"GroupId": groups[0], "IpPermissions": [permission]}
    fix = Fix(
        cli=(command(api.region, "ec2", "authorize_security_group_ingress", change),),
        terraform=asked.provider.allow.filled({**asked.facts(), "address": address.partition("/")[0]})
        .terraform.replace("SECURITY-GROUP", groups[0])
        .replace(f"{address.partition('/')[0]}/32", address),
    )
    back = Back("aws rule", groups[0], {"region": api.region, "address": address, "port": str(port)})
    yield Step(
        "security group",
        groups[0],
        what,
        State.NEEDED,
        fix,
        back=(back,),
        apply=lambda: _authorize(asked, api, change),
    )


def _authorize(asked: Asked, api: Api, change: dict[str, Any]) -> None:
    api.call("ec2", "authorize_security_group_ingress", change, absent=("InvalidPermission.Duplicate",))
    asked.anew()


def _lets_in(rule: dict[str, Any], address: str, port: int) -> bool:
    wanted = ipaddress.ip_network(address)
    ports = rule["IpProtocol"] == "-1" or (
        rule["IpProtocol"] == "tcp" and rule.get("FromPort", port) <= port <= rule.get("ToPort", port)
    )
    ranges = [each["CidrIp"] for each in rule.get("IpRanges", ())]
    ranges += [each["CidrIpv6"] for each in rule.get("Ipv6Ranges", ())]
    networks = map(ipaddress.ip_network, ranges)
    return ports and any(each.version == wanted.version and wanted.subnet_of(each) for each in networks)  # type: ignore[arg-type]


# PrivateLink


def _private_link(asked: Asked, api: Api) -> Iterator[Step]:
    """A VPC endpoint to a service that leads to the source; the service's owner may have to accept it."""
    service = asked.choices["endpoint_service"]
    found = _endpoint(api, service, asked.choices.get("vpc", ""))
    if found is None:
        yield _new_endpoint(asked, api, service)
        return
    state, name = str(found["State"]), str(found["VpcEndpointId"])
    if state.lower() == "available":
        names = [each["DnsName"] for each in found.get("DnsEntries", ())][:1]
        what = said("it is accepted; the pipe's host through it is {host}", host="".join(names) or asked.host)
        yield right("private link", name, what)
        return
    accept = {"ServiceId": service.rpartition(".")[2], "VpcEndpointIds": [name]}
    fix = Fix(
        advice=said("Its state is {state}: the owner of the service has to accept it.", state=state),
        cli=(command(api.region, "ec2", "accept_vpc_endpoint_connections", accept),),
        console=said("VPC → Endpoint services → the service → Endpoint connections → Accept"),
    )
    yield by_hand("private link", name, said("it is not accepted yet"), fix)


def _endpoint(api: Api, service: str, vpc: str) -> dict[str, Any] | None:
    filters = [{"Name": "service-name", "Values": [service]}]
    filters += [{"Name": "vpc-id", "Values": [vpc]}] if vpc else []
    answer = api.call("ec2", "describe_vpc_endpoints", {"Filters": filters})
    alive = [each for each in answer["VpcEndpoints"] if each["State"].lower() not in ("deleted", "deleting")]
    return alive[0] if alive else None


def _new_endpoint(asked: Asked, api: Api, service: str) -> Step:
    what = said("a private link to {service}", service=service)
    lacking = [each for each in ("vpc", "subnets") if each not in asked.choices]
    if lacking:
        words = " ".join(f"--with {each}=…" for each in ("vpc", "subnets", "security_groups"))
        advice = said("Say where in your network it ends: {words}", words=words)
        return by_hand("private link", service, what, Fix(advice=advice))
    wanted: dict[str, Any] = {
        "VpcEndpointType": "Interface",
        "ServiceName": service,
        "VpcId": asked.choices["vpc"],
        "SubnetIds": asked.choices["subnets"].split(","),
        "TagSpecifications": [{"ResourceType": "vpc-endpoint", "Tags": [{"Key": TAG, "Value": asked.pipe.name}]}],
    }
    if "security_groups" in asked.choices:
        wanted["SecurityGroupIds"] = asked.choices["security_groups"].split(",")

    def apply() -> None:
        api.call("ec2", "create_vpc_endpoint", wanted)
        api.until(lambda: _settled(api, service, wanted["VpcId"]), f"the private link to {service} is not made")

    back = Back("aws link", service, {"region": api.region, "vpc": asked.choices["vpc"], "pipe": asked.pipe.name})
    fix = Fix(cli=(command(api.region, "ec2", "create_vpc_endpoint", wanted),))
    return Step("private link", service, what, State.NEEDED, fix, back=(back,), apply=apply)


def _settled(api: Api, service: str, vpc: str) -> bool:
    found = _endpoint(api, service, vpc)
    return found is not None and found["State"].lower() != "pending"


# Taking it back


def undo_rule(asked: Asked, back: Back) -> None:
    """Let the address in no more."""
    address, port = str(back.arguments["address"]), int(str(back.arguments["port"]))
    ranges = (
        {"IpRanges": [{"CidrIp": address}]}
        if ipaddress.ip_network(address).version == 4
        else {"Ipv6Ranges": [{"CidrIpv6": address}]}
    )
    permission = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, **ranges}
    Api.of(asked, str(back.arguments["region"])).call(
        "ec2",
        "revoke_security_group_ingress",
        {"GroupId": back.what, "IpPermissions": [permission]},
        absent=("InvalidPermission.NotFound", "InvalidGroup.NotFound"),
    )


def undo_link(asked: Asked, back: Back) -> None:
    """The private link that has our tag is removed."""
    api = Api.of(asked, str(back.arguments["region"]))
    found = _endpoint(api, back.what, str(back.arguments["vpc"]))
    tags = {each["Key"]: each["Value"] for each in (found or {}).get("Tags", ())}
    if found is not None and tags.get(TAG) == back.arguments["pipe"]:
        api.call("ec2", "delete_vpc_endpoints", {"VpcEndpointIds": [found["VpcEndpointId"]]})


UNDO = {"aws rule": undo_rule, "aws link": undo_link}
