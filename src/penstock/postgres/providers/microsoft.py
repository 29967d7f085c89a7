"""Microsoft: Azure Database for PostgreSQL, Flexible Server."""

from __future__ import annotations

from penstock.finding import Fix
from penstock.language import N_
from penstock.postgres.providers.row import Provider

AZURE = Provider(
    name="azure",
    title="Azure Database for PostgreSQL",
    manual="https://learn.microsoft.com/azure/postgresql/flexible-server/concepts-logical",
    marks=("setting:azure.extensions", "role:azure_pg_admin"),
    hosts=r"^(?P<server>[^.]+)\.(?:writer\.|reader\.)?(?:private\.|privatelink\.)?postgres\.database\.azure\.com",
    setting=Fix(
        console=N_("Azure portal → {server} → Settings → Server parameters → {parameter} = {value} → Save"),
        cli=(
            (
                "az postgres flexible-server parameter set --resource-group RESOURCE-GROUP --server-name {server}"
                " --name {parameter} --value {value}"
            ),
        ),
        terraform="""\
resource "azurerm_postgresql_flexible_server_configuration" "{parameter}" {
  server_id = azurerm_postgresql_flexible_server.{server}.id
  name      = "{parameter}"
  value     = "{value}"
}""",
    ),
    restart=Fix(
        console=N_("Azure portal → {server} → Overview → Restart"),
        cli=("az postgres flexible-server restart --resource-group RESOURCE-GROUP --name {server}",),
    ),
    administrator="azure_pg_admin",
    direct_advice=N_("The built-in PgBouncer listens on port 6432; PostgreSQL itself on 5432 of the same host."),
    readers=r"\.reader\.postgres\.database\.azure\.com",
    writer=(r"\.reader\.", ".writer."),
    endpoint_advice=N_(
        "The server's own name follows a failover of high availability; with read replicas use the virtual endpoint "
        "NAME.writer.postgres.database.azure.com, which follows a promotion."
    ),
    allow=Fix(
        console=N_(
            "Azure portal → {server} → Settings → Networking → Firewall rules → Add {address} – {address} → Save"
        ),
        cli=(
            (
                "az postgres flexible-server firewall-rule create --resource-group RESOURCE-GROUP --name {server}"
                " --rule-name penstock --start-ip-address {address} --end-ip-address {address}"
            ),
        ),
        terraform="""\
resource "azurerm_postgresql_flexible_server_firewall_rule" "penstock" {
  name             = "penstock"
  server_id        = azurerm_postgresql_flexible_server.{server}.id
  start_ip_address = "{address}"
  end_ip_address   = "{address}"
}""",
    ),
    tokens=Fix(
        advice=N_(
            "Make the role as a Microsoft Entra principal; its token is the password, a fresh one for each connection."
        ),
        sql=("SELECT * FROM pgaadauth_create_principal('NAME', false, false);",),
        console=N_(
            "Azure portal → {server} → Security → Authentication → PostgreSQL and Microsoft Entra authentication → Save"
        ),
        cli=(
            "az postgres flexible-server update --resource-group RESOURCE-GROUP --name {server} --microsoft-entra-auth Enabled",
        ),
    ),
    failover=N_(
        "Slots survive a failover of high availability from PostgreSQL 17 on, "
        "with sync_replication_slots = on and hot_standby_feedback = on; "
        "before 17 with the extension pg_failover_slots."
    ),
    notes=(
        N_(
            "Up to PostgreSQL 15 no role can be given BYPASSRLS: leave tables with row-level security out, or own them."
        ),
        N_("Publish the tables that are needed only: FOR TABLE …, or FOR TABLES IN SCHEMA … (15 and later)."),
    ),
)
