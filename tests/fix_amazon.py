"""Amazon's API for tests: moto within the process, with the states that it lacks.

A changed group shows as pending-reboot until the instance was rebooted; a reboot takes a few looks, and gives a PostgreSQL the
``wal_level`` that the group asks for, by a real restart; during one the writer may move. Endpoints wait to be accepted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws
from moto.core.responses import ActionResult
from moto.ec2.models.vpcs import VPCEndPoint
from moto.rds.models import DBCluster, DBInstance, RDSBackend, rds_backends
from moto.rds.responses import RDSResponse

from penstock.setup import amazon, amazon_servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REGION = "us-east-1"
ACCOUNT = "123456789012"
LOOKS = 2  # for so many looks a server restarts


@dataclass
class Amazon:
    """The fake, and what happened in it."""

    rds: Any
    ec2: Any
    rebooted: list[str] = field(default_factory=list)
    in_effect: dict[str, dict[str, str]] = field(default_factory=dict)  # by instance
    restarting: dict[str, int] = field(default_factory=dict)
    on_reboot: Callable[[str, dict[str, str]], None] = lambda _name, _values: None
    moves_at_reboot: bool = False  # the writer's restart makes another one the writer

    @property
    def backend(self) -> RDSBackend:
        return rds_backends[ACCOUNT][REGION]

    def cluster(
        self,
        name: str,
        *instances: str,
        group: str = "default.aurora-postgresql16",
        engine: str = "aurora-postgresql",
    ) -> str:
        """A cluster with instances, the writer first; returns its writer endpoint."""
        self._default_group()
        self.rds.create_db_cluster(
            DBClusterIdentifier=name,
            Engine=engine,
            EngineVersion="16.4",
            DBClusterInstanceClass="db.r6gd.large",
            AllocatedStorage=100,
            StorageType="gp2",
            MasterUsername="root",
            MasterUserPassword="password1",
            DBClusterParameterGroupName=group,
        )
        for each in instances:
            self.rds.create_db_instance(
                DBInstanceIdentifier=each,
                DBClusterIdentifier=name,
                Engine=engine,
                DBInstanceClass="db.r6g.large",
            )
            self.in_effect[each] = self.values(group)
        return str(self.rds.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"][0]["Endpoint"])

    def instance(self, name: str) -> str:
        """An instance of RDS with its default group; returns its endpoint."""
        self.rds.create_db_instance(
            DBInstanceIdentifier=name,
            Engine="postgres",
            EngineVersion="16.3",
            DBInstanceClass="db.r6g.large",
            AllocatedStorage=20,
            MasterUsername="root",
            MasterUserPassword="password1",
        )
        self.in_effect[name] = {}
        return str(self.rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]["Endpoint"]["Address"])

    def _default_group(self) -> None:
        if "default.aurora-postgresql16" not in self.backend.db_cluster_parameter_groups:
            self.group("default.aurora-postgresql16", {"rds.logical_replication": "0"}, source="engine-default")

    def group(self, name: str, values: dict[str, str], source: str = "user") -> None:
        """A cluster parameter group."""
        self.rds.create_db_cluster_parameter_group(
            DBClusterParameterGroupName=name, DBParameterGroupFamily="aurora-postgresql16", Description="of a test"
        )
        for key, value in values.items():
            self.backend.db_cluster_parameter_groups[name].parameters[key] = {"ParameterValue": value, "Source": source}

    def values(self, group: str) -> dict[str, str]:
        """What somebody set in a cluster's group."""
        found = self.backend.db_cluster_parameter_groups[group].parameters
        return {name: each["ParameterValue"] for name, each in found.items() if each.get("Source", "user") == "user"}

    def attached(self, cluster: str) -> str:
        return str(
            self.rds.describe_db_clusters(DBClusterIdentifier=cluster)["DBClusters"][0]["DBClusterParameterGroup"]
        )

    # What moto lacks

    def wanted(self, instance: str) -> dict[str, str]:
        database = self.backend.databases[instance]
        cluster = database.db_cluster_identifier
        if cluster:
            return self.values(self.backend.clusters[cluster].parameter_group)
        found = database.db_parameter_groups()[0].parameters
        return {name: each["ParameterValue"] for name, each in found.items()}

    def state(self, instance: str) -> str:
        return "in-sync" if self.in_effect.get(instance) == self.wanted(instance) else "pending-reboot"

    def reboot(self, name: str) -> None:
        self.rebooted.append(name)
        self.in_effect[name] = self.wanted(name)
        self.restarting[name] = LOOKS
        cluster = self.backend.databases[name].db_cluster_identifier
        if self._is_writer(name):
            self.on_reboot(name, self.in_effect[name])
            if self.moves_at_reboot and cluster:
                self.rds.failover_db_cluster(DBClusterIdentifier=cluster)

    def _is_writer(self, name: str) -> bool:
        return bool(getattr(self.backend.databases[name], "is_cluster_writer", True))

    def status(self, name: str) -> str:
        left = self.restarting.get(name, 0)
        self.restarting[name] = max(left - 1, 0)
        return "rebooting" if left else "available"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Amazon]:
    """Amazon, empty."""
    for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test"), ("DEFAULT_REGION", REGION)):
        monkeypatch.setenv(f"AWS_{name}", value)
    boto3.setup_default_session()  # with these credentials
    monkeypatch.setattr(amazon, "poll_seconds", 0.001)
    monkeypatch.setattr(amazon_servers, "PENDING_SECONDS", 0.05)
    with mock_aws():
        fake = Amazon(boto3.client("rds", REGION), boto3.client("ec2", REGION))
        _extend(fake, monkeypatch)
        _add(fake, monkeypatch)
        yield fake


def _extend(fake: Amazon, monkeypatch: pytest.MonkeyPatch) -> None:
    """States that moto does not show."""

    def members(cluster: Any) -> list[dict[str, Any]]:
        return [
            {
                "DBInstanceIdentifier": each.db_instance_identifier,
                "IsClusterWriter": each.is_cluster_writer,
                "DBClusterParameterGroupStatus": fake.state(each.db_instance_identifier),
                "PromotionTier": each.promotion_tier,
            }
            for each in cluster.members
        ]

    def groups(database: Any) -> Any:
        found = database.db_parameter_groups()
        for each in found:
            each.ParameterApplyStatus = fake.state(database.db_instance_identifier)
        return found

    def describe(backend: RDSBackend, name: str | None = None, filters: Any = None) -> Any:
        found = as_it_was(backend, name, filters)
        for each in found:
            each.status = fake.status(each.db_instance_identifier)
        return found

    def reboot(backend: RDSBackend, name: str) -> DBInstance:
        fake.reboot(name)
        return backend.databases[name]

    def takes_tokens(cluster: Any) -> bool:
        return bool(getattr(cluster, "enable_iam_database_authentication", False))

    as_it_was = RDSBackend.describe_db_instances
    monkeypatch.setattr(DBCluster, "db_cluster_members", property(members))
    monkeypatch.setattr(DBCluster, "iam_database_authentication_enabled", property(takes_tokens))
    monkeypatch.setattr(DBInstance, "db_parameter_group_status_list", property(groups))
    monkeypatch.setattr(RDSBackend, "describe_db_instances", describe)
    monkeypatch.setattr(RDSBackend, "reboot_db_instance", reboot)


def _add(fake: Amazon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations that moto does not have."""

    def reset(response: RDSResponse) -> ActionResult:
        name = response.params["DBClusterParameterGroupName"]
        for each in response.params["Parameters"]:
            fake.backend.db_cluster_parameter_groups[name].parameters.pop(each["ParameterName"])
        return ActionResult({"DBClusterParameterGroupName": name})

    def reboot_all(response: RDSResponse) -> ActionResult:
        name = response.params["DBClusterIdentifier"]
        for each in fake.backend.clusters[name].members:
            fake.reboot(each.db_instance_identifier)
        return ActionResult({"DBCluster": fake.backend.clusters[name]})

    monkeypatch.setattr(RDSResponse, "reboot_db_cluster", reboot_all, raising=False)
    monkeypatch.setattr(RDSResponse, "reset_db_cluster_parameter_group", reset, raising=False)


@pytest.fixture
def unaccepted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Endpoints are made pending acceptance; called, it accepts them all."""
    made: list[Any] = []
    begin = VPCEndPoint.__init__

    def start(self: Any, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        self.state = "pendingAcceptance"
        made.append(self)

    def accept() -> None:
        for each in made:
            each.state = "available"

    monkeypatch.setattr(VPCEndPoint, "__init__", start)
    return accept
