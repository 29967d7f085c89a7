"""Providers of PostgreSQL alone, and a server that somebody runs by himself."""

from __future__ import annotations

from penstock.finding import Fix
from penstock.language import N_
from penstock.postgres.providers.row import Parameter, Provider, Support

_ON = Fix(advice=N_("It is on from the start. Where it is off, ask the provider."))
_COPY_ONLY = N_("its servers let nobody replicate: only a single copy is possible")

SUPABASE = Provider(
    name="supabase",
    title="Supabase",
    manual="https://supabase.com/docs/guides/database/replication",
    marks=("role:supabase_admin",),
    hosts=r"^db\.(?P<project>[a-z0-9]+)\.supabase\.co$|\.pooler\.supabase\.com$",
    switch=_ON,
    setting=Fix(
        cli=("supabase --experimental --project-ref {project} postgres-config update --config {parameter}={value}",),
    ),
    restart=Fix(console=N_("Supabase → Project Settings → General → Restart project")),
    poolers=r"\.pooler\.supabase\.com$",
    pooler_ports=(6543, 6432),
    direct_advice=N_(
        "Supabase → Connect → Direct connection shows the host, db.PROJECT.supabase.co; "
        "it has an IPv6 address, an IPv4 one with the IPv4 add-on."
    ),
    endpoint_advice=N_("Name the direct connection, db.PROJECT.supabase.co."),
    allow=Fix(
        console=N_("Supabase → Project Settings → Database → Network Restrictions → Add restriction: {address}/32")
    ),
    failover=N_("A project has one server; an upgrade or a restore removes its slots."),
    notes=(N_("The direct connection is IPv6 unless the project has the IPv4 add-on."),),
)

NEON = Provider(
    name="neon",
    title="Neon",
    manual="https://neon.com/docs/guides/logical-replication-neon",
    oldest=14,
    marks=("setting:neon.timeline_id", "setting:neon.tenant_id", "role:neon_superuser"),
    hosts=r"^(?P<server>ep-[a-z0-9-]+?)(?:-pooler)?\.(?:[a-z0-9-]+\.)*neon\.tech$|\.neon\.tech$",
    switch=Fix(
        advice=N_("It restarts all computes of the project, and cannot be switched off again."),
        console=N_("Neon Console → your project → Settings → Logical Replication → Enable"),
        cli=(
            (
                'curl --request PATCH https://console.neon.tech/api/v2/projects/{project} --header "Authorization: Bearer $NEON_API_KEY"'
                ' --header \'Content-Type: application/json\' --data \'{"project":{"settings":{"enable_logical_replication":true}}}\''
            ),
        ),
        terraform="""\
# in neon_project:
enable_logical_replication = "yes\"""",
    ),
    fixed=("max_replication_slots", "max_wal_senders", "max_slot_wal_keep_size", "wal_level"),
    administrator="neon_superuser",
    poolers=r"-pooler\.",
    direct=(r"-pooler\.", "."),
    direct_advice=N_("Neon Console → Connect → switch Connection pooling off shows the direct host."),
    endpoint_advice=N_("Name the primary compute's endpoint; a read replica's has no slots."),
    allow=Fix(console=N_("Neon Console → your project → Settings → Network security → IP Allow: {address}")),
    failover=N_("A compute that starts again keeps its slots. Restoring a branch removes them."),
    notes=(
        N_("Neon removes a slot that nobody reads from for about 40 hours while others are read."),
        N_("A compute that somebody replicates from does not scale to zero."),
        N_("There are 10 slots and 10 senders."),
    ),
)

CRUNCHY = Provider(
    name="crunchy",
    title="Crunchy Bridge",
    manual="https://docs.crunchybridge.com/how-to/logical-replication",
    hosts=r"\.postgresbridge\.com$",
    switch=_ON,
    setting=Fix(
        console=N_("Crunchy Bridge → your cluster → Settings → Config params: {parameter} = {value}"),
        cli=("cb config-param set --cluster CLUSTER {parameter}={value}",),
    ),
    restart=Fix(console=N_("Crunchy Bridge → your cluster → Settings → Restart"), cli=("cb restart CLUSTER",)),
    pooler_ports=(5431, 6432),
    direct_advice=N_("PgBouncer listens on port 5431; PostgreSQL itself on 5432 of the same host."),
    endpoint_advice=N_(
        "The cluster's host follows a failover of high availability; a read replica has a host of its own."
    ),
    allow=Fix(
        console=N_("Crunchy Bridge → Networks → your network → Firewall → Add rule: {address}/32"),
        cli=("cb network add-firewall-rule --network NETWORK --rule {address}/32",),
    ),
    failover=N_("From PostgreSQL 17 on slots made with failover are kept; before, a failover loses them."),
    notes=(N_("Run the statements as the role postgres."),),
)

TIMESCALE = Provider(
    name="timescale",
    title="Timescale Cloud (Tiger Cloud)",
    manual="https://docs.tigerdata.com",
    support=Support.SNAPSHOT,
    refusal=_COPY_ONLY,
    hosts=r"\.tsdb\.cloud\.timescale\.com$|\.tsdb\.forge\.timescale\.com$",
    administrator="tsdbadmin",
    notes=(N_("The rows of a hypertable are in its chunks, in the schema _timescaledb_internal."),),
)

PLANETSCALE = Provider(
    name="planetscale",
    title="PlanetScale for Postgres",
    manual="https://planetscale.com/docs/postgres/integrations/logical-cdc",
    hosts=r"\.(?:pg\.)?psdb\.cloud$",
    setting=Fix(
        console=N_("PlanetScale → your database → Clusters → Parameters: {parameter} = {value} → Queue changes → Apply")
    ),
    restart=Fix(advice=N_("Applying such a parameter restarts the cluster.")),
    pooler_ports=(6432,),
    direct_advice=N_("PgBouncer listens on port 6432; PostgreSQL itself on 5432 of the same host."),
    endpoint_advice=N_("The host follows a failover; port 5432 leads to the primary."),
    failover=N_(
        "Only slots made with failover survive: sync_replication_slots = on and hot_standby_feedback = on in Parameters, "
        "and the slot's name in Logical replication slots of the cluster's configuration."
    ),
    notes=(
        N_("The user's name is NAME.BRANCH, as the console shows it."),
        N_("max_slot_wal_keep_size is 4 GB until it is raised."),
    ),
)

GENERIC = Provider(
    name="generic",
    title="PostgreSQL",
    manual="https://www.postgresql.org/docs/current/logical-replication-config.html",
    setting=Fix(sql=("ALTER SYSTEM SET {parameter} = '{value}';",)),
    restart=Fix(
        advice=N_("After that restart the server."),
        cli=("pg_ctl restart -D DATA-FOLDER",),
    ),
    direct_advice=N_("Give the host and port of PostgreSQL itself, not those of PgBouncer or another pooler."),
    endpoint_advice=N_("Name the primary, or all servers with target_session_attrs=read-write."),
    allow=Fix(
        advice=N_("Before that add this line to pg_hba.conf: hostssl all {role} {address}/32 scram-sha-256"),
        sql=("SELECT pg_reload_conf();",),
    ),
    failover=N_(
        "From PostgreSQL 17 on slots made with failover are kept on a standby with sync_replication_slots = on; "
        "before, with the extension pg_failover_slots."
    ),
)

HEROKU = Provider(
    name="heroku",
    title="Heroku Postgres",
    manual="https://devcenter.heroku.com/articles/heroku-postgresql",
    support=Support.SNAPSHOT,
    refusal=_COPY_ONLY,
    marks=("schema:heroku_ext",),
    hosts=r"\.herokai\.com$",
)

DIGITALOCEAN = Provider(
    name="digitalocean",
    title="DigitalOcean Managed PostgreSQL",
    manual="https://docs.digitalocean.com/products/databases/postgresql/",
    support=Support.SNAPSHOT,
    refusal=_COPY_ONLY,
    marks=("role:_doadmin_managed", "role:doadmin"),
    hosts=r"\.db\.ondigitalocean\.com$",
    administrator="doadmin",
    pooler_ports=(25061, 6432),
    allow=Fix(
        console=N_("DigitalOcean → Databases → your cluster → Settings → Trusted sources → Edit: {address}"),
        cli=("doctl databases firewalls append CLUSTER --rule ip_addr:{address}",),
    ),
)

_OTHER = N_("this is not PostgreSQL, and has no logical decoding that Penstock can read")

REFUSED = (
    Provider(
        name="yugabyte",
        title="YugabyteDB",
        support=Support.NONE,
        refusal=_OTHER,
        logical=(Parameter("wal_level", "logical"),),
        marks=(r"version:YugabyteDB|-YB-",),
        hosts=r"\.yugabyte\.cloud$|\.ybdb\.io$",
    ),
    Provider(
        name="cockroach",
        title="CockroachDB",
        support=Support.NONE,
        refusal=_OTHER,
        marks=(r"version:CockroachDB",),
        hosts=r"\.cockroachlabs\.cloud$",
    ),
    Provider(
        name="redshift",
        title="Amazon Redshift",
        support=Support.NONE,
        refusal=_OTHER,
        marks=(r"version:Redshift",),
        hosts=r"\.redshift(?:-serverless)?\.amazonaws\.com",
    ),
)
