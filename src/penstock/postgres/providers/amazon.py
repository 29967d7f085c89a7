"""Amazon: Aurora and RDS."""

from __future__ import annotations

from dataclasses import replace

from penstock.finding import Fix
from penstock.language import N_
from penstock.postgres.providers.row import Parameter, Provider

_MOVES = N_(
    "Name the cluster's writer endpoint (NAME.cluster-ID.REGION.rds.amazonaws.com): it moves to the new writer by itself."
)
_ALLOW = Fix(
    console=N_(
        "RDS → Databases → {server} → Connectivity & security → VPC security groups → Inbound rules → Edit: "
        "type PostgreSQL, source {address}/32"
    ),
    cli=(
        (
            "aws ec2 authorize-security-group-ingress --region {region} --group-id SECURITY-GROUP"
            " --protocol tcp --port 5432 --cidr {address}/32"
        ),
    ),
    terraform="""\
resource "aws_vpc_security_group_ingress_rule" "penstock" {
  security_group_id = "SECURITY-GROUP"
  ip_protocol       = "tcp"
  from_port         = 5432
  to_port           = 5432
  cidr_ipv4         = "{address}/32"
}""",
)
_TOKENS = Fix(
    advice=N_("The token lives 15 minutes: Penstock makes a fresh one for each connection."),
    sql=("GRANT rds_iam TO {role};",),
    console=N_(
        "RDS → Databases → {server} → Modify → Database authentication → Password and IAM; rds.iam_auth_for_replication = 1"
    ),
)
_AMAZON = Provider(
    name="amazon",
    title="Amazon",
    logical=(Parameter("rds.logical_replication", "1", shown="on"),),
    timeout="parameter",
    administrator="rds_superuser",
    replicate=("GRANT rds_replication TO {role};",),
    poolers=r"\.proxy-[^.]+\.[^.]+\.rds\.amazonaws\.com",
    direct_advice=N_(
        "RDS Proxy does not carry replication. "
        "The endpoint of PostgreSQL itself is in the console: RDS → Databases → your database → Endpoints."
    ),
    allow=_ALLOW,
    tokens=_TOKENS,
)
"""What both have in common."""

AURORA = replace(
    _AMAZON,
    name="aurora",
    title="Amazon Aurora",
    manual="https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/AuroraPostgreSQL.Replication.Logical.html",
    marks=("function:aurora_version",),
    hosts=r"^(?P<server>[^.]+)\.cluster-(?:ro-|custom-)?[^.]+\.(?P<region>[^.]+)\.rds\.amazonaws\.com",
    setting=Fix(
        advice=N_(
            "If the cluster has a parameter group of your own already, change that one: another one would lose its settings."
        ),
        console=N_(
            "RDS → Parameter groups → Create parameter group (family aurora-postgresql{major}, type DB Cluster Parameter Group) → "
            "{parameter} = {value} → Save; then Databases → {server} → Modify → DB cluster parameter group → Continue → Apply immediately"
        ),
        cli=(
            (
                "aws rds create-db-cluster-parameter-group --region {region} --db-cluster-parameter-group-name {group}"
                ' --db-parameter-group-family aurora-postgresql{major} --description "logical replication"'
            ),
            (
                "aws rds modify-db-cluster-parameter-group --region {region} --db-cluster-parameter-group-name {group}"
                " --parameters ParameterName={parameter},ParameterValue={value},ApplyMethod={apply}"
            ),
            (
                "aws rds modify-db-cluster --region {region} --db-cluster-identifier {server}"
                " --db-cluster-parameter-group-name {group} --apply-immediately"
            ),
        ),
        terraform="""\
resource "aws_rds_cluster_parameter_group" "{group}" {
  name   = "{group}"
  family = "aurora-postgresql{major}"
  parameter {
    name         = "{parameter}"
    value        = "{value}"
    apply_method = "{apply}"
  }
}
# in aws_rds_cluster "{server}":
#   db_cluster_parameter_group_name = aws_rds_cluster_parameter_group.{group}.name""",
    ),
    restart=Fix(
        console=N_("RDS → Databases → {server} → the writer instance → Actions → Reboot"),
        cli=("aws rds reboot-db-instance --region {region} --db-instance-identifier WRITER-INSTANCE",),
    ),
    readers=r"\.cluster-ro-",
    writer=(r"\.cluster-ro-", ".cluster-"),
    pinned=r"^[^.]+\.(?!cluster-|proxy-)[^.]+\.[^.]+\.rds\.amazonaws\.com|\.cluster-custom-",
    endpoint_advice=_MOVES,
    tokens=replace(
        _TOKENS,
        cli=(
            "aws rds modify-db-cluster --region {region} --db-cluster-identifier {server} --enable-iam-database-authentication",
        ),
    ),
    keeps_slots=True,
    failover=N_(
        "A reader becomes the writer, and the writer endpoint follows it. "
        "Slots survive, because the instances of a cluster share their storage."
    ),
    notes=(
        N_("A global database: the writer endpoint of the primary region only."),
        N_("“Internal error … aborted sub-transaction” in the log: raise settings.decoding_work_mem."),
    ),
)

RDS = replace(
    _AMAZON,
    name="rds",
    title="Amazon RDS",
    manual="https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/PostgreSQL.Concepts.General.FeatureSupport.LogicalReplication.html",
    marks=("setting:rds.logical_replication", "role:rds_superuser"),
    hosts=r"^(?P<server>[^.]+)\.(?:proxy-)?[^.]+\.(?P<region>[^.]+)\.rds\.amazonaws\.com",
    setting=Fix(
        advice=N_(
            "If the instance has a parameter group of your own already, change that one: another one would lose its settings."
        ),
        console=N_(
            "RDS → Parameter groups → Create parameter group (family postgres{major}, type DB Parameter Group) → "
            "{parameter} = {value} → Save; then Databases → {server} → Modify → DB parameter group → Continue → Apply immediately"
        ),
        cli=(
            (
                "aws rds create-db-parameter-group --region {region} --db-parameter-group-name {group}"
                ' --db-parameter-group-family postgres{major} --description "logical replication"'
            ),
            (
                "aws rds modify-db-parameter-group --region {region} --db-parameter-group-name {group}"
                " --parameters ParameterName={parameter},ParameterValue={value},ApplyMethod={apply}"
            ),
            (
                "aws rds modify-db-instance --region {region} --db-instance-identifier {server}"
                " --db-parameter-group-name {group} --apply-immediately"
            ),
        ),
        terraform="""\
resource "aws_db_parameter_group" "{group}" {
  name   = "{group}"
  family = "postgres{major}"
  parameter {
    name         = "{parameter}"
    value        = "{value}"
    apply_method = "{apply}"
  }
}
# in aws_db_instance "{server}":
#   parameter_group_name = aws_db_parameter_group.{group}.name""",
    ),
    restart=Fix(
        console=N_("RDS → Databases → {server} → Actions → Reboot"),
        cli=("aws rds reboot-db-instance --region {region} --db-instance-identifier {server}",),
    ),
    endpoint_advice=N_("Name the instance's endpoint: with Multi-AZ it follows a failover by itself."),
    tokens=replace(
        _TOKENS,
        cli=(
            (
                "aws rds modify-db-instance --region {region} --db-instance-identifier {server}"
                " --enable-iam-database-authentication --apply-immediately"
            ),
        ),
    ),
    keeps_slots=True,
    failover=N_(
        "A Multi-AZ instance keeps its storage, and with it the slots; the endpoint follows. A promoted read replica has no slots."
    ),
)
