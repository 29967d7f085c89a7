"""Google: Cloud SQL and AlloyDB."""

from __future__ import annotations

from penstock.finding import Fix
from penstock.language import N_
from penstock.postgres.providers.row import Parameter, Provider

_ALL_FLAGS = N_("The command replaces all flags of the instance: repeat those that are set already.")

CLOUD_SQL = Provider(
    name="cloudsql",
    title="Google Cloud SQL",
    manual="https://cloud.google.com/sql/docs/postgres/replication/configure-logical-replication",
    marks=("setting:cloudsql.logical_decoding", "setting:cloudsql.iam_authentication", "role:cloudsqlsuperuser"),
    hosts=r"\.sql\.goog\.?$",
    logical=(Parameter("cloudsql.logical_decoding", "on"),),
    setting=Fix(
        advice=_ALL_FLAGS,
        console=N_("Cloud SQL → {server} → Edit → Flags → Add a database flag: {parameter} = {value} → Save"),
        cli=("gcloud sql instances patch {server} --project={project} --database-flags={parameter}={value}",),
        terraform="""\
# in google_sql_database_instance "{server}", block settings:
database_flags {
  name  = "{parameter}"
  value = "{value}"
}""",
    ),
    restart=Fix(
        console=N_("Cloud SQL → {server} → Restart (saving a flag that needs it restarts by itself)"),
        cli=("gcloud sql instances restart {server} --project={project}",),
    ),
    timeout="parameter",
    administrator="cloudsqlsuperuser",
    endpoint_advice=N_("Name the primary's own address: with high availability it stays the same after a failover."),
    allow=Fix(
        advice=N_("The command replaces all authorized networks: repeat those that are there already."),
        console=N_(
            "Cloud SQL → {server} → Connections → Networking → Authorized networks → Add a network: {address}/32 → Save"
        ),
        cli=("gcloud sql instances patch {server} --project={project} --authorized-networks={address}/32",),
        terraform="""\
# in google_sql_database_instance "{server}", block settings, block ip_configuration:
authorized_networks {
  name  = "penstock"
  value = "{address}/32"
}""",
    ),
    keeps_slots=True,
    failover=N_(
        "High availability keeps the disk, and with it the slots; the address stays. A promoted read replica has no slots."
    ),
)

ALLOYDB = Provider(
    name="alloydb",
    title="Google AlloyDB",
    manual="https://cloud.google.com/alloydb/docs/reference/alloydb-flags",
    oldest=14,
    marks=("setting:alloydb.logical_decoding", "setting:alloydb.enable_pglogical", "role:alloydbsuperuser"),
    hosts=r"\.alloydb(?:-psc)?\.goog\.?$",
    logical=(Parameter("alloydb.logical_decoding", "on"), Parameter("alloydb.enable_pglogical", "on")),
    switch=Fix(
        advice=_ALL_FLAGS,
        console=N_(
            "AlloyDB → Clusters → your cluster → the primary instance → Edit → Flags: alloydb.logical_decoding = on, "
            "alloydb.enable_pglogical = on → Update instance (it restarts)"
        ),
        cli=(
            (
                "gcloud alloydb instances update {server} --cluster=CLUSTER --region={region} --project={project}"
                " --database-flags=alloydb.logical_decoding=on,alloydb.enable_pglogical=on"
            ),
        ),
        terraform="""\
# in google_alloydb_instance "{server}":
database_flags = {
  "alloydb.logical_decoding" = "on"
  "alloydb.enable_pglogical" = "on"
}""",
    ),
    setting=Fix(
        advice=_ALL_FLAGS,
        console=N_(
            "AlloyDB → Clusters → your cluster → the primary instance → Edit → Flags: {parameter} = {value} → Update instance"
        ),
        cli=(
            (
                "gcloud alloydb instances update {server} --cluster=CLUSTER --region={region} --project={project}"
                " --database-flags={parameter}={value}"
            ),
        ),
        terraform="""\
# in google_alloydb_instance "{server}":
database_flags = {
  "{parameter}" = "{value}"
}""",
    ),
    restart=Fix(
        console=N_("AlloyDB → Clusters → your cluster → the primary instance → Restart"),
        cli=("gcloud alloydb instances restart {server} --cluster=CLUSTER --region={region} --project={project}",),
    ),
    timeout="parameter",
    administrator="alloydbsuperuser",
    endpoint_advice=N_(
        "Name the primary instance's address: it stays the same after a failover. A read pool has no slots."
    ),
    allow=Fix(
        console=N_(
            "AlloyDB → Clusters → your cluster → the primary instance → Edit → Connectivity → Authorized external networks: {address}/32"
        ),
        cli=(
            (
                "gcloud alloydb instances update {server} --cluster=CLUSTER --region={region} --project={project}"
                " --assign-inbound-public-ip=ASSIGN_IPV4 --authorized-external-networks={address}/32"
            ),
        ),
    ),
    keeps_slots=True,
    failover=N_("The nodes of the primary instance share their storage: slots and address stay."),
)
