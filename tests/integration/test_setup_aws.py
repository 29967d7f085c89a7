"""penstock setup at Aurora and RDS: parameter groups, restarts, firewalls and private links, against a played API.

The PostgreSQL behind it is a real one, which a reboot of the writer restarts with what the parameter group says.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import boto3
import pytest
from moto.ec2.models import EC2Backend
from tests.servers.postgres import PostgresServer
from tests.servers.postgres_binaries import PASSWORD, SUPERUSER
from tests.setups import ROLE, Operator, apply, left, pipe_at, plan, step_of, undo
from typer.testing import CliRunner

from penstock.cli.main import app
from penstock.setup import aws as amazon_steps
from penstock.setup.step import State, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fix_amazon import Amazon
    from tests.fix_proxy import Proxy

DONE = {"login": "by hand"}  # only Amazon's own servers let a member of rds_replication replicate


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(16) as server:
        with server.connect() as admin:
            admin.execute("create table t (id int primary key)")
            admin.execute("create role rds_replication replication")
        yield server


@pytest.fixture
def source(server: PostgresServer, aws: Amazon) -> PostgresServer:
    """As Aurora starts it: without logical decoding."""
    server.restart(wal_level="replica")

    def reboot(_name: str, values: dict[str, str]) -> None:
        server.restart(wal_level="logical" if values.get("rds.logical_replication") == "1" else "replica")

    aws.on_reboot = reboot
    return server


def test_a_cluster_with_the_default_group(aws: Amazon, source: PostgresServer, tmp_path: Path) -> None:
    pipe = pipe_at(aws.cluster("shop", "shop-1", "shop-2"), source.port, tmp_path)
    aws.moves_at_reboot = True
    steps = plan(pipe)
    assert [step.name for step in steps if step.state is State.NEEDED][:4] == [
        "parameter group",
        "attach",
        "restart",
        "role",
    ]
    assert next(line for step in steps for line in step.fix.cli) == (
        "aws rds create-db-cluster-parameter-group --region us-east-1"
        " --db-cluster-parameter-group-name penstock-shop-aurora-postgresql16"
        " --db-parameter-group-family aurora-postgresql16 --description 'Logical replication of shop'"
    )
    assert aws.rebooted == []
    operator = Operator()
    assert apply(pipe, tmp_path, operator) == DONE
    assert aws.rebooted == ["shop-1", "shop-2"]
    assert operator.asked == ["cluster shop"]
    assert aws.attached("shop") == "penstock-shop-aurora-postgresql16"
    assert aws.values("penstock-shop-aurora-postgresql16") == {"rds.logical_replication": "1"}
    assert show(source) == "logical"
    assert left(plan(pipe)) == DONE
    undo(pipe, tmp_path, operator)
    assert aws.attached("shop") == "default.aurora-postgresql16"
    assert "penstock-shop-aurora-postgresql16" not in aws.backend.db_cluster_parameter_groups
    assert show(source) == "replica"
    with source.connect() as admin:
        assert admin.execute("select from pg_roles where rolname = %s", (ROLE,)).fetchall() == []


def show(server: PostgresServer) -> str:
    with server.connect() as admin:
        return str(admin.execute("show wal_level").fetchone()[0])  # type: ignore[index]


def test_a_group_of_somebodys_is_changed_where_it_is(aws: Amazon, source: PostgresServer, tmp_path: Path) -> None:
    aws.group("mine", {"work_mem": "65536"})
    pipe = pipe_at(aws.cluster("shop", "shop-1", group="mine"), source.port, tmp_path)
    before = aws.values("mine")
    operator = Operator()
    assert apply(pipe, tmp_path, operator, wal_sender_timeout="0") == DONE
    assert aws.attached("shop") == "mine"
    assert aws.values("mine") == {**before, "rds.logical_replication": "1", "wal_sender_timeout": "0"}
    undo(pipe, tmp_path, operator)
    assert (aws.values("mine"), show(source)) == (before, "replica")
    assert aws.rebooted == ["shop-1", "shop-1"]


def test_a_group_that_others_have_too_is_copied(aws: Amazon, source: PostgresServer, tmp_path: Path) -> None:
    many = {f"setting_{number}": str(number) for number in range(30)}
    aws.group("ours", {**many, "rds.logical_replication": "0"})
    other = aws.cluster("other", "other-1", group="ours")
    pipe = pipe_at(aws.cluster("shop", "shop-1", group="ours"), source.port, tmp_path)
    operator = Operator()
    assert apply(pipe, tmp_path, operator) == DONE
    assert aws.values(aws.attached("shop")) == {**many, "rds.logical_replication": "1"}
    assert aws.values("ours") == {**many, "rds.logical_replication": "0"}
    assert other
    undo(pipe, tmp_path, operator)
    assert aws.attached("shop") == "ours"


def test_a_restart_that_may_not_be_is_left(aws: Amazon, source: PostgresServer, tmp_path: Path) -> None:
    pipe = pipe_at(aws.cluster("shop", "shop-1"), source.port, tmp_path)
    assert apply(pipe, tmp_path, Operator(restarts=False)) == {**DONE, "restart": "needed", "wal_level": "by hand"}
    assert aws.rebooted == []
    with source.connect() as admin:  # everything else is done
        assert admin.execute("select rolreplication or pg_has_role(oid, 'rds_replication', 'member') from pg_roles"
                             " where rolname = %s", (ROLE,)).fetchall() == [(True,)]  # fmt: skip
    assert left(plan(pipe)) == {**DONE, "restart": "needed", "wal_level": "by hand"}
    assert apply(pipe, tmp_path, Operator()) == DONE
    undo(pipe, tmp_path, Operator())


def test_programs_say_yes_beforehand(
    aws: Amazon, source: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command itself: without a terminal nothing restarts, unless --yes says so."""
    host = aws.cluster("shop", "shop-1")
    file = tmp_path / "shop.toml"
    dsn = f"host={host} hostaddr=127.0.0.1 port={source.port} user={ROLE} dbname=postgres"
    file.write_text(
        f'[pipe]\nname = "shop"\n[source]\ndsn = "{dsn}"\npassword = {{ file = "{tmp_path}/secret" }}\n'
        '[destination]\ndsn = "chdb:///nowhere"\n'
    )
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    monkeypatch.setenv("PENSTOCK_ADMIN_DSN", f"user={SUPERUSER} password={PASSWORD}")

    def setup(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["setup", str(file), *words])
        return done.exit_code, done.output

    code, words = setup("--apply")
    assert (code, aws.rebooted) == (1, [])
    assert "restarts cluster shop" in words
    assert "--yes" in words
    code, words = setup("--apply", "--yes")
    assert (code, aws.rebooted, show(source)) == (0, ["shop-1"], "logical")
    code, words = setup("--undo")
    assert (code, show(source)) == (2, "logical")
    code, words = setup("--undo", "--yes")
    assert (code, show(source)) == (0, "replica")


def test_what_a_crash_left_half_done_is_finished_and_taken_back(
    aws: Amazon, source: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = pipe_at(aws.cluster("shop", "shop-1"), source.port, tmp_path)

    class Cut(Exception):
        pass

    def cut(*_: object) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(amazon_steps, "_set", cut)
        with pytest.raises(Cut):
            apply(pipe, tmp_path, Operator())
    assert aws.values("penstock-shop-aurora-postgresql16") == {}
    assert [step.name for step in plan(pipe) if step.state is State.NEEDED][:2] == ["parameter group", "attach"]
    undo(pipe, tmp_path, Operator())
    assert "penstock-shop-aurora-postgresql16" not in aws.backend.db_cluster_parameter_groups


def test_an_instance_of_rds(aws: Amazon, source: PostgresServer, tmp_path: Path) -> None:
    pipe = pipe_at(aws.instance("solo"), source.port, tmp_path)
    assert apply(pipe, tmp_path, Operator()) == DONE
    assert (aws.rebooted, show(source)) == (["solo"], "logical")
    undo(pipe, tmp_path, Operator())
    assert (aws.rebooted, show(source)) == (["solo", "solo"], "replica")


@pytest.mark.slow
def test_a_cluster_of_rds_restarts_as_a_whole(aws: Amazon, source: PostgresServer, tmp_path: Path) -> None:
    """Multi-AZ with two readable standbys: not Aurora, and not restarted by instance."""
    aws.group("mine", {})
    pipe = pipe_at(aws.cluster("trio", "trio-1", "trio-2", group="mine", engine="postgres"), source.port, tmp_path)
    assert apply(pipe, tmp_path, Operator()) == DONE
    assert (aws.rebooted, show(source)) == (["trio-1", "trio-2"], "logical")
    undo(pipe, tmp_path, Operator())


def test_people_do_it_where_the_api_cannot(
    aws: Amazon, source: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = pipe_at("other.cluster-abc.us-east-1.rds.amazonaws.com", source.port, tmp_path)
    step = step_of(plan(pipe), "Amazon's API")
    assert (step.state, step.what) == (
        State.BY_HAND,
        "no cluster or instance in us-east-1 has the endpoint other.cluster-abc.us-east-1.rds.amazonaws.com",
    )
    assert "modify-db-cluster-parameter-group --region us-east-1" in " ".join(step_of(plan(pipe), "wal_level").fix.cli)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "boto3", None)
        assert step_of(plan(pipe), "Amazon's API").fix.advice == "pip install 'penstock[aws]'"
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    step = step_of(plan(pipe), "Amazon's API")
    assert step.what == "there are no credentials of Amazon's here"


def test_the_security_group_lets_an_address_in(aws: Amazon, source: PostgresServer, tmp_path: Path) -> None:
    pipe = pipe_at(aws.instance("solo"), source.port, tmp_path)
    (group,) = [each["VpcSecurityGroupId"] for each in aws.backend.databases["solo"].vpc_security_group_membership_list]

    def rules() -> list[str]:
        found = aws.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
        return [each["CidrIp"] for rule in found if rule.get("FromPort") == 5432 for each in rule["IpRanges"]]

    before = rules()
    step = step_of(plan(pipe, address="203.0.113.7/32"), "security group")
    assert step.state is State.NEEDED
    assert "203.0.113.7/32" in step.fix.terraform
    assert apply(pipe, tmp_path, Operator(), address="203.0.113.7/32") == DONE
    assert rules() == [*before, "203.0.113.7/32"]
    step = step_of(plan(pipe, address="203.0.113.7/32"), "security group")
    assert step.state is State.RIGHT
    undo(pipe, tmp_path, Operator())
    assert rules() == before


@pytest.mark.slow
def test_a_server_that_a_firewall_hides(
    aws: Amazon,
    source: PostgresServer,
    tmp_path: Path,
    proxy_to: Callable[[int], Proxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is inside shows, and is set up, once the security group lets us in."""
    proxy = proxy_to(source.port)
    proxy.blackhole()
    pipe = pipe_at(aws.instance("solo"), proxy.port, tmp_path)
    steps = plan(pipe)
    assert "--with address=" in step_of(steps, "security group").fix.advice
    assert "timeout" in step_of(steps, "reach the source").what
    as_it_was = EC2Backend.authorize_security_group_ingress

    def authorize(*arguments: object, **named: object) -> object:
        proxy.recover()
        return as_it_was(*arguments, **named)

    monkeypatch.setattr(EC2Backend, "authorize_security_group_ingress", authorize)
    assert apply(pipe, tmp_path, Operator(), address="203.0.113.7/32") == DONE
    undo(pipe, tmp_path, Operator())


def test_a_private_link_waits_to_be_accepted(
    aws: Amazon, source: PostgresServer, tmp_path: Path, unaccepted: Callable[[], None]
) -> None:
    pipe = pipe_at(aws.instance("solo"), source.port, tmp_path)
    vpc = aws.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    subnet = aws.ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    service = "com.amazonaws.vpce.us-east-1.vpce-svc-1"
    choices = {"endpoint_service": service, "vpc": vpc, "subnets": subnet}

    def link() -> Step:
        return step_of(plan(pipe, **choices), "private link")

    assert [step.state for step in plan(pipe, endpoint_service=service) if step.name == "private link"] == [
        State.BY_HAND
    ]
    assert link().state is State.NEEDED
    assert apply(pipe, tmp_path, Operator(), **choices) == {**DONE, "private link": "by hand"}
    assert "accept-vpc-endpoint-connections" in link().fix.cli[0]
    unaccepted()
    assert link().state is State.RIGHT
    undo(pipe, tmp_path, Operator())
    assert [each for each in aws.ec2.describe_vpc_endpoints()["VpcEndpoints"] if each["State"] != "deleted"] == []


def test_tokens_instead_of_a_password(aws: Amazon, source: PostgresServer, tmp_path: Path) -> None:
    pipe = pipe_at(aws.cluster("shop", "shop-1"), source.port, tmp_path, authentication="aws-iam")
    with source.connect() as admin:
        admin.execute("create role rds_iam")
    steps = plan(pipe)
    policy = step_of(steps, "IAM policy")
    assert policy.state is State.BY_HAND
    resource = aws.rds.describe_db_clusters()["DBClusters"][0]["DbClusterResourceId"]
    assert f"arn:aws:rds-db:us-east-1:123456789012:dbuser:{resource}/{ROLE}" in policy.fix.advice
    assert apply(pipe, tmp_path, Operator()) == {**DONE, "IAM policy": "by hand"}
    assert aws.values(aws.attached("shop")) == {"rds.logical_replication": "1", "rds.iam_auth_for_replication": "1"}
    assert aws.rds.describe_db_clusters()["DBClusters"][0]["IAMDatabaseAuthenticationEnabled"]
    with source.connect() as admin:
        granted = "select pg_has_role(%s, 'rds_iam', 'member'), (select rolpassword from pg_authid where rolname = %s)"
        assert admin.execute(granted, (ROLE, ROLE)).fetchone() == (True, None)
    assert not (tmp_path / "secret").exists()
    undo(pipe, tmp_path, Operator())
    assert not aws.rds.describe_db_clusters()["DBClusters"][0]["IAMDatabaseAuthenticationEnabled"]
    with source.connect() as admin:
        admin.execute("drop role rds_iam")
