-- Named queries of the checks; see __init__.py. None of them changes anything.

-- name: server
-- What the checks need to know of server and role at once.
select current_setting('server_version_num')::int as version_number,
       version() as version,
       current_setting('server_version') as release,
       current_setting('wal_level') as wal_level,
       pg_catalog.pg_is_in_recovery() as in_recovery,
       pg_catalog.pg_backend_pid() as backend_pid,
       extract(epoch from pg_catalog.clock_timestamp())::float8 as clock,
       pg_catalog.getdatabaseencoding()::text as encoding,
       case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
            else pg_catalog.pg_current_wal_insert_lsn() end::text as lsn,
       current_user::text as role,
       current_database()::text as database,
       r.rolsuper as is_superuser,
       r.rolsuper or r.rolreplication or exists (
           select from pg_catalog.pg_roles m
           where m.rolname = 'rds_replication' and pg_catalog.pg_has_role(m.oid, 'member')
       ) as may_replicate,
       has_database_privilege(current_database(), 'create') as may_create,
       (select count(*) from pg_catalog.pg_replication_slots) as slots,
       (select count(*) from pg_catalog.pg_stat_replication) as senders,
       -- The kind of others' sessions may be hidden from us; whether they have a database is not.
       (select count(*) from pg_catalog.pg_stat_activity a where a.datid is not null) as connections,
       (select count(*) from pg_catalog.pg_stat_activity a where a.usesysid = r.oid) as role_connections,
       (select count(*) from pg_catalog.pg_stat_activity a where a.datname = current_database()) as database_connections,
       r.rolconnlimit as role_limit,
       (select d.datconnlimit from pg_catalog.pg_database d where d.datname = current_database()) as database_limit
from pg_catalog.pg_roles r
where r.rolname = current_user

-- name: settings
-- In their base units; pending: a value was set that only a restart brings into effect.
select s.name, s.setting, s.unit, s.pending_restart as pending
from pg_catalog.pg_settings s
where s.name = any (%(names)s::text[])
union all
select n.name, current_setting(n.name, true), null, false
from unnest(%(names)s::text[]) n (name)
where current_setting(n.name, true) is not null
  and not exists (select from pg_catalog.pg_settings s where s.name = n.name)

-- name: privileges
-- Of every relation that is copied: what the role may do with it.
select c.oid, n.nspname, c.relname, pg_catalog.quote_ident(n.nspname) as schema_sql,
       pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) as relation_sql,
       has_schema_privilege(n.oid, 'usage') as may_use, has_table_privilege(c.oid, 'select') as may_select,
       pg_catalog.pg_has_role(c.relowner, 'usage') as owned, pg_catalog.pg_get_userbyid(c.relowner)::text as owner,
       exists (
           select from pg_catalog.pg_roles o
           where o.oid = c.relowner and o.rolsuper
              or o.rolname = %(administrator)s and pg_catalog.pg_has_role(c.relowner, o.oid, 'member')
       ) as of_administrator,
       pg_catalog.row_security_active(c.oid) as row_security,
       exists (select from pg_catalog.pg_index i where i.indrelid = c.oid and i.indisprimary and not i.indimmediate) as deferrable
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = any (%(oids)s::oid[])
order by n.nspname, c.relname

-- name: left_out
-- Relations that look like tables, and that logical decoding knows nothing of.
select n.nspname, c.relname, case when c.relkind = 'f' then 'foreign' else 'unlogged' end as kind,
       (select pn.nspname || '.' || p.relname
        from pg_catalog.pg_partition_ancestors(c.oid) a
        join pg_catalog.pg_class p on p.oid = a.relid
        join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace
        where not p.relispartition and p.oid <> c.oid) as root
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where (c.relkind in ('r', 'p') and c.relpersistence = 'u' or c.relkind = 'f')
  and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
order by n.nspname, c.relname

-- name: marks
-- By what providers are known: what only their servers have, of the marks that are asked for.
select array(
    select m.mark
    from (select mark, split_part(mark, ':', 1) as kind, substr(mark, strpos(mark, ':') + 1) as name
          from unnest(%(marks)s::text[]) u (mark)) m
    where case m.kind
              when 'setting' then current_setting(m.name, true) is not null
              when 'function' then exists (select from pg_catalog.pg_proc p where p.proname = m.name)
              when 'role' then exists (select from pg_catalog.pg_roles r where r.rolname = m.name)
              when 'schema' then exists (select from pg_catalog.pg_namespace n where n.nspname = m.name)
              when 'version' then version() ~ m.name
          end)

-- name: default_privileges
-- Owners of tables in these schemas whose next table the role could not read.
select distinct n.nspname, pg_catalog.quote_ident(n.nspname) as schema_sql,
       pg_catalog.pg_get_userbyid(c.relowner)::text as owner
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = any (%(oids)s::oid[])
  and not pg_catalog.pg_has_role(c.relowner, 'usage')
  and not exists (
      select from pg_catalog.pg_roles r
      where r.rolname = 'pg_read_all_data' and pg_catalog.pg_has_role(r.oid, 'usage'))
  and not exists (
      select from pg_catalog.pg_default_acl d
      cross join lateral pg_catalog.aclexplode(d.defaclacl) g
      where d.defaclobjtype = 'r' and d.defaclrole = c.relowner and d.defaclnamespace in (0, n.oid)
        and g.privilege_type = 'SELECT'
        and (g.grantee = 0 or pg_catalog.pg_has_role(g.grantee, 'usage')))
order by 1, 3

-- name: long_transactions
-- Their ages are known for roles that we may see only; of others there is nothing but the process.
select a.pid, a.usename::text as role, a.datname::text as database, coalesce(a.application_name, '') as application,
       a.state, extract(epoch from pg_catalog.clock_timestamp() - a.xact_start)::float8 as seconds
from pg_catalog.pg_stat_activity a
where a.backend_xid is not null and a.pid <> pg_catalog.pg_backend_pid()
  and coalesce(a.xact_start < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(seconds)s), true)
order by a.xact_start

-- name: old_prepared
select p.gid, p.owner::text as owner, p.database::text as database, pg_catalog.quote_literal(p.gid) as gid_sql,
       extract(epoch from pg_catalog.clock_timestamp() - p.prepared)::float8 as seconds
from pg_catalog.pg_prepared_xacts p
where p.prepared < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(seconds)s)
order by p.prepared

-- name: wal_average
-- 14 and later.
select (w.wal_bytes / greatest(extract(epoch from pg_catalog.clock_timestamp() - w.stats_reset), 1))::float8 as bytes_per_second
from pg_catalog.pg_stat_wal w
where w.stats_reset is not null

-- name: wal_since
select pg_catalog.pg_wal_lsn_diff(
    case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
         else pg_catalog.pg_current_wal_insert_lsn() end, %(lsn)s::pg_lsn)::float8 as bytes

-- name: hypertables
select h.schema_name::text as schema, h.table_name::text as name from _timescaledb_catalog.hypertable h

-- name: relation_exists
select pg_catalog.to_regclass(%(name)s) is not null as found

-- name: synchronous
-- Whom commits wait for. The name is that of this session, which the pipe's sender has too, as the server keeps it; the state of the
-- sender is shown to pg_read_all_stats only. Senders without a database: standbys, and what stores WAL; backups come and go.
select current_setting('synchronous_standby_names') as names,
       current_setting('application_name') as pipe,
       (select r.sync_state
        from pg_catalog.pg_replication_slots s
        join pg_catalog.pg_stat_replication r on r.pid = s.active_pid
        where s.slot_name = %(slot)s) as state,
       array(select r.application_name
             from pg_catalog.pg_stat_replication r
             join pg_catalog.pg_stat_activity a on a.pid = r.pid and a.datid is null
             where r.application_name not in ('', 'pg_basebackup')
             order by 1) as followers

-- name: standbys
-- The physical slots that somebody uses, and senders without a database: servers that follow this one.
select array(select s.slot_name::text from pg_catalog.pg_replication_slots s where s.slot_type = 'physical' and s.active order by 1) as slots,
       (select count(*) from pg_catalog.pg_stat_replication r
        join pg_catalog.pg_stat_activity a on a.pid = r.pid and a.datname is null) as senders,
       coalesce(current_setting('synchronized_standby_slots', true), '') as awaited,
       current_setting('pg_failover_slots.synchronize_slot_names', true) is not null as extension

-- name: standby
-- A standby by itself. primary_conninfo is shown to superusers and pg_read_all_settings only.
select pg_catalog.pg_is_in_recovery() as in_recovery,
       coalesce(current_setting('sync_replication_slots', true), '') as synchronizes,
       current_setting('hot_standby_feedback') as feedback,
       (select s.setting from pg_catalog.pg_settings s where s.name = 'primary_slot_name') as slot,
       (select s.setting ~* '\mdbname\s*=' from pg_catalog.pg_settings s where s.name = 'primary_conninfo') as names_database,
       (select to_jsonb(s) from pg_catalog.pg_replication_slots s where s.slot_name = %(name)s) as copy
