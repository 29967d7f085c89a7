"""What a server knows of roles, rights, publications and settings, in a form that two moments can be compared by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fix_postgres import Database

QUERIES = {
    "roles": "select rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconfig::text"
    " from pg_roles order by rolname",
    "members": "select roleid::regrole::text, member::regrole::text from pg_auth_members order by 1, 2",
    "tables": "select c.oid::regclass::text, c.relreplident, g.grantor::regrole::text, g.grantee::regrole::text, g.privilege_type"
    " from pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) g where c.relkind in ('r', 'p')"
    " and c.relnamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) order by 1, 3, 4, 5",
    "schemas": "select n.nspname, g.grantee::regrole::text, g.privilege_type from pg_namespace n,"
    " aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) g where n.nspname !~ '^pg_' order by 1, 2, 3",
    "databases": "select d.datname, g.grantee::regrole::text, g.privilege_type from pg_database d,"
    " aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) g where d.datname = current_database() order by 1, 2, 3",
    "defaults": "select defaclrole::regrole::text, defaclnamespace::regnamespace::text, defaclobjtype, defaclacl::text"
    " from pg_default_acl order by 1, 2",
    "publications": "select p.pubname, p.puballtables, array(select prrelid::regclass::text from pg_publication_rel r"
    " where r.prpubid = p.oid order by 1) from pg_publication p order by 1",
    "slots": "select slot_name from pg_replication_slots where database = current_database() order by 1",
    "written": "select name, setting from pg_file_settings where sourcefile like '%postgresql.auto.conf' order by 1",
}


def state(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that setup may change."""
    return {name: database.fetch(query) for name, query in QUERIES.items()}
