-- Named queries of penstock setup; see __init__.py.

-- name: administrator
-- The server, and the role that setup works with there.
select current_user::text as role,
       (select r.rolsuper from pg_catalog.pg_roles r where r.rolname = current_user) as superuser,
       current_setting('wal_level') as wal_level,
       current_setting('max_replication_slots')::int as most_slots,
       (select count(*)::int from pg_catalog.pg_replication_slots) as slots,
       current_setting('max_wal_senders')::int as most_senders,
       (select count(*)::int from pg_catalog.pg_stat_replication) as senders,
       exists (select from pg_catalog.pg_replication_slots where slot_name = %(slot)s) as has_slot,
       has_database_privilege(current_database(), 'create') as may_create

-- name: role_to_be
-- The pipe's role as it is; no row where there is none.
select r.rolcanlogin as may_login, r.rolsuper or r.rolreplication as may_replicate, r.rolsuper or r.rolbypassrls as sees_all,
       array(select m.rolname::text from pg_catalog.pg_roles m
             where m.rolname like 'rds\_%%' and pg_catalog.pg_has_role(r.oid, m.oid, 'member')) as member_of,
       coalesce(r.rolconfig, array[]::text[]) as settings,
       has_database_privilege(r.oid, current_database(), 'connect') as may_connect,
       has_database_privilege(r.oid, current_database(), 'create') as may_create
from pg_catalog.pg_roles r
where r.rolname = %(role)s

-- name: to_be_granted
-- What the role may do with each relation, and whether we may give it the rest. All false for a role that is not there yet.
select n.nspname as schema, c.relname as name, pg_catalog.pg_get_userbyid(c.relowner)::text as owner,
       coalesce(has_schema_privilege(r.oid, n.oid, 'usage'), public.may_use) as may_use,
       coalesce(has_table_privilege(r.oid, c.oid, 'select'), false) as may_select,
       coalesce(pg_catalog.pg_has_role(r.oid, c.relowner, 'usage'), false) as owned,
       c.relrowsecurity and (c.relforcerowsecurity or not coalesce(pg_catalog.pg_has_role(r.oid, c.relowner, 'usage'), false)) as row_security,
       has_schema_privilege(n.oid, 'usage with grant option') as may_grant_schema,
       has_table_privilege(c.oid, 'select with grant option') as may_grant,
       pg_catalog.pg_has_role(c.relowner, 'usage') as may_act,
       coalesce(r.rolsuper, false) or exists (
           select from pg_catalog.pg_roles m where m.rolname = 'pg_read_all_data' and pg_catalog.pg_has_role(r.oid, m.oid, 'usage')
       ) or exists (
           select from pg_catalog.pg_default_acl d, aclexplode(d.defaclacl) g
           where d.defaclobjtype = 'r' and d.defaclnamespace in (0, n.oid) and d.defaclrole = c.relowner
             and g.grantee in (0, r.oid) and g.privilege_type = 'SELECT'
       ) as later_too
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_roles r on r.rolname = %(role)s
cross join lateral (
    select exists (
        select from aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) g where g.grantee = 0 and g.privilege_type = 'USAGE'
    ) as may_use
) public
where c.oid = any (%(oids)s::oid[])
order by n.nspname, c.relname

-- name: written_setting
-- What postgresql.auto.conf says of a setting, for superusers.
select f.setting from pg_catalog.pg_file_settings f
where f.name = %(name)s and f.sourcefile like '%%postgresql.auto.conf'

-- name: tables_of
-- Whatever default privileges of an owner for tables count for.
select c.oid from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(schema)s and pg_catalog.pg_get_userbyid(c.relowner) = %(owner)s and c.relkind in ('r', 'p', 'v', 'm', 'f')

-- name: given_since
-- What was made since then, and got the role's privilege from the owner's default privileges.
select c.relname from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
cross join lateral aclexplode(c.relacl) g
where n.nspname = %(schema)s and pg_catalog.pg_get_userbyid(c.relowner) = %(owner)s and not c.oid = any (%(known)s::oid[])
  and g.grantor = c.relowner and g.grantee = (select r.oid from pg_catalog.pg_roles r where r.rolname = %(role)s)
  and g.privilege_type = 'SELECT'
order by c.relname
