"""Clusters and instances of Aurora and RDS: found by their host, with their parameter groups, their states and restarts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError
from penstock.language import said
from penstock.setup.amazon import Api

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from penstock.setup.asked import Asked
    from penstock.setup.step import Argument, Back

PENDING_SECONDS = 120.0  # within which a changed group shows at the server
AT_ONCE = 20  # parameters that one call takes
PENDING = "pending-reboot"


@dataclass(frozen=True, slots=True)
class Words:
    """What the API calls the same things of clusters and of instances."""

    noun: str
    server: str  # DBClusterIdentifier
    servers: str  # the list of them
    group: str  # DBClusterParameterGroupName
    groups: str
    kind: str  # as in the names of operations: db_cluster
    parameters: str  # as in describe_db_cluster_parameters


CLUSTER = Words(
    "cluster", "DBClusterIdentifier", "DBClusters", "DBClusterParameterGroupName", "DBClusterParameterGroups",
    "db_cluster", "db_cluster_parameters",
)  # fmt: skip
INSTANCE = Words(
    "instance", "DBInstanceIdentifier", "DBInstances", "DBParameterGroupName", "DBParameterGroups",
    "db_instance", "db_parameters",
)  # fmt: skip
WORDS = {each.noun: each for each in (CLUSTER, INSTANCE)}


@dataclass(frozen=True, slots=True)
class Server:
    """A cluster, or an instance that is in none."""

    api: Api
    words: Words
    name: str

    def described(self) -> dict[str, Any]:
        """As the API describes it now."""
        operation = f"describe_{self.words.kind}s"
        found = self.api.call("rds", operation, {self.words.server: self.name})[self.words.servers]
        return dict(found[0])

    def exists(self) -> bool:
        """Whether it is still there."""
        gone = ("DBClusterNotFoundFault", "DBInstanceNotFound")
        return bool(self.api.call("rds", f"describe_{self.words.kind}s", {self.words.server: self.name}, absent=gone))

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.words.noun} {self.name}"

    # Parameter groups

    def group(self) -> str:
        """The name of the group that is attached."""
        return _group_of(self.words, self.described())

    def family(self, group: str) -> str:
        """The family of a group; empty where there is no such group."""
        operation = f"describe_{self.words.parameters.removesuffix('s')}_groups"
        found = self.api.call("rds", operation, {self.words.group: group}, absent=("DBParameterGroupNotFound",)).get(
            self.words.groups
        )
        return str(found[0]["DBParameterGroupFamily"]) if found else ""

    def family_of_engine(self, described: Mapping[str, Any]) -> str:
        """The family of its version, where its group is not told."""
        return f"{described['Engine']}{described['EngineVersion'].partition('.')[0]}"

    def values(self, group: str) -> dict[str, tuple[str, str]]:
        """What somebody set in a group: value and how it is applied, by name."""
        wanted = {self.words.group: group, "Source": "user"}
        found = self.api.every("rds", f"describe_{self.words.parameters}", "Parameters", wanted)
        return {
            each["ParameterName"]: (each["ParameterValue"], each.get("ApplyMethod", PENDING))
            for each in found
            if each.get("ParameterValue") is not None and each.get("Source", "user") == "user"
        }

    def sharing(self, group: str) -> list[str]:
        """Other servers that have the group too."""
        every = self.api.every("rds", f"describe_{self.words.kind}s", self.words.servers)
        return [
            each[self.words.server]
            for each in every
            if _group_of(self.words, each) == group and each[self.words.server] != self.name
        ]

    # States and restarts

    def states(self) -> Iterator[tuple[str, str]]:
        """Name and state of the parameters of each part that restarts by itself, the writer first."""
        described = self.described()
        if self.words is INSTANCE:
            yield self.name, described["DBParameterGroups"][0]["ParameterApplyStatus"]
            return
        members = sorted(described.get("DBClusterMembers", ()), key=lambda each: not each["IsClusterWriter"])
        for each in members:
            yield each["DBInstanceIdentifier"], each["DBClusterParameterGroupStatus"]

    def pending(self) -> list[str]:
        """The parts that wait for a restart, the writer first."""
        return [name for name, state in self.states() if state == PENDING]

    def available(self) -> bool:
        """Whether it, and all its parts, are up and not in the middle of something."""
        described = self.described()
        if self.words is INSTANCE:
            state = described["DBParameterGroups"][0]["ParameterApplyStatus"]
            return bool(described["DBInstanceStatus"] == "available" and state != "applying")
        return described["Status"] == "available" and all(
            self._instance(name)["DBInstanceStatus"] == "available" for name, _ in self.states()
        )

    def _instance(self, name: str) -> dict[str, Any]:
        return dict(self.api.call("rds", "describe_db_instances", {"DBInstanceIdentifier": name})["DBInstances"][0])

    def settle(self) -> None:
        """Restart what waits for it, the writer first, one at a time; returns when everything is available."""
        self.api.until(self.available, f"{self.title} is not available")
        if not self.api.until(lambda: bool(self.pending()), "", PENDING_SECONDS):
            return  # nothing was changed after all: it had these values already
        described = self.described()
        if self.words is CLUSTER and not str(described["Engine"]).startswith("aurora"):
            self.api.call("rds", "reboot_db_cluster", {"DBClusterIdentifier": self.name})
            self.api.until(lambda: self.available() and not self.pending(), f"{self.title} restarts")
        while pending := self.pending():
            one = pending[0]
            self.api.call("rds", "reboot_db_instance", {"DBInstanceIdentifier": one})
            self.api.until(lambda one=one: self.available() and one not in self.pending(), f"instance {one} restarts")  # type: ignore[misc]


def _group_of(words: Words, described: Mapping[str, Any]) -> str:
    if words is CLUSTER:
        return str(described["DBClusterParameterGroup"])
    return str(described["DBParameterGroups"][0]["DBParameterGroupName"])


def find(asked: Asked, api: Api) -> Server:
    """The server behind the source's host. Raises ConfigError where the credentials show none, and what a call raises."""
    hosts, given = asked.host.lower().split(","), asked.choices.get("server", "")
    for cluster in api.every("rds", "describe_db_clusters", "DBClusters"):
        names = (cluster.get("Endpoint"), cluster.get("ReaderEndpoint"), *cluster.get("CustomEndpoints", ()))
        if given == cluster["DBClusterIdentifier"] or any(str(each).lower() in hosts for each in names):
            return Server(api, CLUSTER, cluster["DBClusterIdentifier"])
    for instance in api.every("rds", "describe_db_instances", "DBInstances"):
        address = str(instance.get("Endpoint", {}).get("Address", "")).lower()
        if given == instance["DBInstanceIdentifier"] or address in hosts:
            owner = instance.get("DBClusterIdentifier")
            return Server(api, CLUSTER, owner) if owner else Server(api, INSTANCE, instance["DBInstanceIdentifier"])
    raise ConfigError(
        said("no cluster or instance in {region} has the endpoint {host}", region=api.region, host=asked.host),
        hint=said("Use credentials of its account; or name it: --with server=NAME."),
    )


def where(server: Server) -> dict[str, Argument]:
    """How the record names a server."""
    return {"region": server.api.region, "noun": server.words.noun, "server": server.name}


def server_of(asked: Asked, back: Back) -> Server:
    """The server that the record names."""
    return Server(
        Api.of(asked, str(back.arguments["region"])), WORDS[str(back.arguments["noun"])], str(back.arguments["server"])
    )
