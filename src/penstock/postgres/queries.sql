-- Named queries; see __init__.py. Everything is qualified or comes from pg_catalog: the search path is empty.

-- name: tables
select c.oid, n.nspname, c.relname, c.relkind = 'p' as partitioned, c.relreplident, c.relnatts,
       pg_catalog.pg_relation_filenode(c.oid) as filenode
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p')
  and c.relpersistence = 'p'
  and not c.relispartition
  and n.nspname <> 'information_schema'
  and n.nspname !~ '^pg_'
order by n.nspname, c.relname

-- name: leaves
-- Partitions that hold rows, of partitioned tables, however deep. pg_partition_tree would wait for the locks of others' DDL.
-- ``joined``: the transactions that attached it, and what it belongs to.
with recursive tree (root, oid, joined) as (
    select r.oid, r.oid, '' from unnest(%(oids)s::oid[]) r (oid)
    union all
    select t.root, i.inhrelid, t.joined || ' ' || i.xmin::text from tree t join pg_catalog.pg_inherits i on i.inhparent = t.oid
)
select t.root, c.oid, n.nspname, c.relname, c.relreplident, pg_catalog.pg_relation_filenode(c.oid) as filenode,
       c.xmin::text as stamp, t.joined
from tree t
join pg_catalog.pg_class c on c.oid = t.oid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relispartition and c.relkind = 'r'
order by t.root, n.nspname, c.relname

-- name: columns
-- not_null: a constraint that is NOT VALID (18) says nothing of the rows that were there before it.
select a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attndims, a.attlen, a.attgenerated <> '' as generated, a.xmin::text as stamp,
       a.attnotnull and not exists (
           select from pg_catalog.pg_constraint k
           where k.conrelid = a.attrelid and k.contype = 'n' and not k.convalidated and k.conkey = array[a.attnum]
       ) as not_null
from pg_catalog.pg_attribute a
where a.attrelid = any (%(oids)s::oid[]) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum

-- name: missing_values
-- What rows that are older than a column of the root show for it, as text; of a partitioned table as its leaves have it.
select r.attnum as number, a.attrelid, (a.attmissingval::text::text[])[1] as value, a.atthasmissing as kept,
       pg_catalog.pg_relation_filenode(a.attrelid) as filenode
from pg_catalog.pg_attribute r
join pg_catalog.pg_attribute a on a.attname = r.attname and a.attrelid = any (%(oids)s::oid[]) and a.attnum > 0
where r.attrelid = %(root)s and r.attnum = any (%(numbers)s::int2[]) and not r.attisdropped and not a.attisdropped

-- name: types
-- A type of the user's that is called as one of the system's gets its schema's name too.
select t.oid,
       case when n.nspname <> 'pg_catalog' and exists (
           select from pg_catalog.pg_type b where b.typname = t.typname and b.typnamespace = 'pg_catalog'::regnamespace
       ) then n.nspname || '.' || t.typname else t.typname::text end as name,
       t.typtype::text, t.typbasetype, t.typtypmod, t.typndims, t.typstorage <> 'p' as toastable, t.typdelim::text as delimiter,
       coalesce((select e.oid from pg_catalog.pg_type e where e.typarray = t.oid limit 1), 0) as element
from pg_catalog.pg_type t
join pg_catalog.pg_namespace n on n.oid = t.typnamespace
where t.oid = any (%(oids)s::oid[])

-- name: type_names
select u.oid, u.modifier, pg_catalog.format_type(u.oid, u.modifier)
from unnest(%(oids)s::oid[], %(modifiers)s::int[]) u (oid, modifier)

-- name: identities
-- Indexes that can tell rows apart: the primary key, and the one of REPLICA IDENTITY USING INDEX.
select i.indrelid, i.indisprimary, i.indisreplident, i.indimmediate,
       array(select a.attname::text
             from unnest(i.indkey::int2[]) with ordinality k (attnum, place)
             join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
             where k.place <= i.indnkeyatts
             order by k.place) as columns
from pg_catalog.pg_index i
where i.indrelid = any (%(oids)s::oid[])
  and (i.indisprimary or i.indisreplident) and i.indisunique and i.indisvalid

-- name: sizes
-- Of a table that others keep locked they are as of the last VACUUM or ANALYZE: the functions would wait.
with locked as materialized (
    select l.relation
    from pg_catalog.pg_locks l
    where l.mode = 'AccessExclusiveLock' and l.pid is distinct from pg_catalog.pg_backend_pid()
      and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
), known as (
    select c.oid, c.reltuples::float8, c.relpages, c.relpages * current_setting('block_size')::bigint as bytes,
           c.oid in (select l.relation from locked l) as locked
    from pg_catalog.pg_class c
    where c.oid = any (%(oids)s::oid[])
), sizes as materialized (
    select k.oid, k.reltuples, k.relpages,
           case when k.locked then k.bytes else coalesce(pg_catalog.pg_relation_size(k.oid), 0) end as heap_bytes,
           case when k.locked then k.bytes else coalesce(pg_catalog.pg_table_size(k.oid), 0) end as bytes
    from known k
)
select s.*, s.heap_bytes / current_setting('block_size')::int as pages
from sizes s

-- name: slot
-- As JSON: which columns there are depends on the version.
select to_jsonb(s) || jsonb_build_object(
    'retained', pg_catalog.pg_wal_lsn_diff(
        case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
             else pg_catalog.pg_current_wal_insert_lsn() end, s.restart_lsn))
from pg_catalog.pg_replication_slots s
where s.slot_name = %(name)s

-- name: this_session
-- The session settings fix the text of a time, which is exact.
select a.pid, a.backend_start::text
from pg_catalog.pg_stat_activity a
where a.pid = pg_catalog.pg_backend_pid()

-- name: end
select case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
            else pg_catalog.pg_current_wal_insert_lsn() end::text

-- name: at_work
-- A sender that waits answers at once; what it waits for is called WalSender… in every version.
select coalesce(a.wait_event, '') not ilike 'WalSender%%'
from pg_catalog.pg_stat_activity a
where a.pid = %(pid)s and a.backend_start::text = %(began)s

-- name: awaited_standbys
-- Whose slots a sender waits for, from 17 on (StandbySlotsHaveCaughtup in PostgreSQL's slot.c).
select format('%%s (%%s)', n.name, case when s.slot_name is null then 'there is no such slot' when s.active then 'behind' else 'not connected' end)
from pg_catalog.pg_stat_activity a
cross join unnest(string_to_array(current_setting('synchronized_standby_slots', true), ',')) e (entry)
cross join lateral (select btrim(e.entry, ' "') as name) n
left join pg_catalog.pg_replication_slots s on s.slot_name = n.name
where a.pid = %(pid)s and a.backend_start::text = %(began)s and a.wait_event = 'WaitForStandbyConfirmation'
  and (s.active and s.restart_lsn >= pg_catalog.pg_current_wal_flush_lsn()) is not true
order by n.name

-- name: end_former_session
select pg_catalog.pg_terminate_backend(a.pid)
from pg_catalog.pg_replication_slots s
join pg_catalog.pg_stat_activity a on a.pid = s.active_pid
where s.slot_name = %(slot)s
  and a.pid = %(pid)s and a.backend_start::text = %(began)s
  and a.usename = session_user and a.application_name = current_setting('application_name')

-- name: publication
select p.oid, p.puballtables, p.pubinsert and p.pubupdate and p.pubdelete and p.pubtruncate as complete, to_jsonb(p) ->> 'pubviaroot' as via_root
from pg_catalog.pg_publication p
where p.pubname = %(name)s

-- name: published
-- From 15 on; as pg_get_publication_tables, which from 16 on waits for the locks of others' DDL, of any of the tables.
with recursive pub as (
    select p.oid, p.puballtables, p.pubviaroot from pg_catalog.pg_publication p where p.pubname = %(publication)s
), listed (oid) as (
    select r.prrelid from pub join pg_catalog.pg_publication_rel r on r.prpubid = pub.oid
    union
    select c.oid
    from pub
    join pg_catalog.pg_class c on pub.puballtables or exists (
        select from pg_catalog.pg_publication_namespace s where s.pnpubid = pub.oid and s.pnnspid = c.relnamespace
    )
    where c.relkind in ('r', 'p') and pg_catalog.pg_relation_is_publishable(c.oid)
), below (oid) as (
    select i.inhrelid
    from listed l
    join pg_catalog.pg_inherits i on i.inhparent = l.oid
    join pg_catalog.pg_class c on c.oid = i.inhrelid and c.relispartition
    union
    select i.inhrelid from below b join pg_catalog.pg_inherits i on i.inhparent = b.oid
)
select l.oid from pub join listed l on pub.pubviaroot and not l.oid in (select b.oid from below b)
union
select c.oid
from pub
join pg_catalog.pg_class c on not pub.pubviaroot and c.relkind = 'r' and c.oid in (select l.oid from listed l union select b.oid from below b)

-- name: published_before_15
select relid from pg_catalog.pg_get_publication_tables(%(name)s)

-- name: with_roots
with recursive up (oid) as (
    select unnest(%(oids)s::oid[])
    union
    select i.inhparent from up join pg_catalog.pg_inherits i on i.inhrelid = up.oid
    join pg_catalog.pg_class c on c.oid = up.oid and c.relispartition
)
select oid from up

-- name: listed
-- What stands in the publication itself, with the transaction that put it there.
select r.prrelid::text, r.xmin::text
from pg_catalog.pg_publication_rel r join pg_catalog.pg_publication p on p.oid = r.prpubid
where p.pubname = %(name)s

-- name: listed_schemas
select 'schema ' || n.nspname, r.xmin::text
from pg_catalog.pg_publication_namespace r join pg_catalog.pg_publication p on p.oid = r.pnpubid
join pg_catalog.pg_namespace n on n.oid = r.pnnspid
where p.pubname = %(name)s

-- name: published_of
-- What stands in the publication itself for these tables.
with recursive tree (oid) as (
    select r.oid from unnest(%(oids)s::oid[]) r (oid)
    union all
    select i.inhrelid from tree t join pg_catalog.pg_inherits i on i.inhparent = t.oid
    join pg_catalog.pg_class c on c.oid = i.inhrelid and c.relispartition
)
select c.oid, n.nspname, c.relname
from tree t
join pg_catalog.pg_publication_rel r on r.prrelid = t.oid
join pg_catalog.pg_publication p on p.oid = r.prpubid and p.pubname = %(name)s
join pg_catalog.pg_class c on c.oid = t.oid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace

-- name: blockers
-- Whoever runs a transaction that is not younger than the given one; their age is known for roles we may see only.
select format('PID %%s (%%s, database %%s, %%s%%s)', a.pid, a.usename, a.datname,
              coalesce(nullif(a.application_name, ''), 'no application name'),
              coalesce(', ' || nullif(concat_ws(', ', a.state, a.wait_event), ''), ''))
from pg_catalog.pg_stat_activity a
where a.backend_xid is not null and a.pid <> pg_catalog.pg_backend_pid()
  and pg_catalog.age(a.backend_xid) >= pg_catalog.age(%(xid)s::text::xid)
union all
select format('prepared transaction %%L (%%s, database %%s)', p.gid, p.owner, p.database)
from pg_catalog.pg_prepared_xacts p
where pg_catalog.age(p.transaction) >= pg_catalog.age(%(xid)s::text::xid)

-- name: waits_for
-- The transactions that a session waits for; a prepared one holds its lock without a process.
select format('PID %%s (%%s, database %%s, %%s%%s)', a.pid, a.usename, a.datname,
              coalesce(nullif(a.application_name, ''), 'no application name'),
              coalesce(', ' || nullif(concat_ws(', ', a.state, a.wait_event), ''), ''))
from pg_catalog.pg_stat_activity a
where a.pid = any (pg_catalog.pg_blocking_pids(%(pid)s))
union all
select format('prepared transaction %%L (%%s, database %%s)', p.gid, p.owner, p.database)
from pg_catalog.pg_locks l
join pg_catalog.pg_prepared_xacts p on p.transaction = l.transactionid
where l.pid = %(pid)s and not l.granted and l.locktype = 'transactionid'
union all
select 'the primary to log which transactions run (on an idle one: select pg_log_standby_snapshot();)'
where pg_catalog.pg_is_in_recovery()

-- name: awaited_lock
-- The lock that a session waits for, and who has it, or is before it in the queue. What their statements say may hold values, and is
-- not shown; a prepared transaction holds its lock without a process.
with wait as (
    select l.locktype, l.relation, l.classid, l.objid, l.transactionid, l.database, pg_catalog.pg_blocking_pids(l.pid) as pids
    from pg_catalog.pg_locks l
    where l.pid = %(pid)s and not l.granted
), holders as (
    select format('PID %%s (%%s)', a.pid, concat_ws(
               ', ', coalesce(a.usename, a.backend_type), 'database ' || a.datname,
               coalesce(nullif(a.application_name, ''), 'no application name'), a.state,
               'its query began ' || date_trunc('second', a.query_start)::text)) as holder
    from pg_catalog.pg_stat_activity a
    where a.pid = any (select unnest(w.pids) from wait w)
    union all
    select format('prepared transaction %%L (%%s, database %%s)', p.gid, p.owner, p.database)
    from pg_catalog.pg_prepared_xacts p
    where exists (
        select from wait w
        join pg_catalog.pg_locks l on l.transactionid = w.transactionid
             or (l.relation = w.relation and l.database = w.database and l.mode not in ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock'))
        join pg_catalog.pg_locks x on x.virtualtransaction = l.virtualtransaction and x.transactionid = p.transaction
        where 0 = any (w.pids) and l.pid is null and x.pid is null
    )
)
select case when w.relation is not null then w.relation::regclass::text
            when w.classid = 'pg_catalog.pg_publication'::regclass
            then coalesce((select 'publication "' || p.pubname || '"' from pg_catalog.pg_publication p where p.oid = w.objid), 'a publication')
            else 'a row of the catalog' end,
       coalesce((select string_agg(h.holder, ', ' order by h.holder) from holders h), 'another session')
from wait w

-- name: locked
-- A lock of these modes, and of no other, is against SHARE UPDATE EXCLUSIVE; one that is asked for is before ours.
select distinct l.relation
from pg_catalog.pg_locks l
where l.relation = any (%(oids)s::oid[]) and l.pid is distinct from pg_catalog.pg_backend_pid()
  and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
  and l.mode in ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')

-- name: system
select c.system_identifier::text,
       case when pg_catalog.pg_is_in_recovery() then (select timeline_id from pg_catalog.pg_control_checkpoint())
            else ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int end,
       pg_catalog.pg_is_in_recovery(),
       current_database(),
       concat_ws(' ', pg_catalog.pg_postmaster_start_time(), pg_catalog.inet_server_addr(), pg_catalog.inet_server_port())
from pg_catalog.pg_control_system() c

-- name: place
select pg_catalog.pg_is_in_recovery(), current_database(),
       concat_ws(' ', pg_catalog.pg_postmaster_start_time(), pg_catalog.inet_server_addr(), pg_catalog.inet_server_port())

-- name: relation
select n.nspname, c.relname, pg_catalog.pg_relation_filenode(c.oid)
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = %(oid)s

-- name: holders
-- What a plan of parts needs to know of each relation that holds rows.
select c.oid, n.nspname, c.relname, pg_catalog.pg_relation_filenode(c.oid) as filenode,
       coalesce(m.amname = 'heap', true) as heap,
       coalesce(pg_catalog.pg_relation_size(c.oid), 0) / current_setting('block_size')::int as pages,
       coalesce(pg_catalog.pg_table_size(c.oid), 0) as bytes
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_am m on m.oid = c.relam
where c.oid = any (%(oids)s::oid[])
order by n.nspname, c.relname

-- name: operators
-- The operators of a table's key columns, schema-qualified: = is strategy 3 of a B-tree, < is 1, >= is 4.
select distinct a.attname::text, o.amopstrategy::int, pg_catalog.quote_ident(n.nspname) || '.' || p.oprname
from pg_catalog.pg_index i
cross join lateral unnest(i.indkey::int2[], i.indclass::oid[]) k (attnum, opclass)
join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
join pg_catalog.pg_opclass c on c.oid = k.opclass
join pg_catalog.pg_amop o on o.amopfamily = c.opcfamily and o.amoplefttype = c.opcintype and o.amoprighttype = c.opcintype
join pg_catalog.pg_operator p on p.oid = o.amopopr
join pg_catalog.pg_namespace n on n.oid = p.oprnamespace
where i.indrelid = %(oid)s and (i.indisprimary or i.indisreplident) and o.amopstrategy in (1, 3, 4)

-- name: histogram
-- Bounds of the statistics' histogram, as text. pg_stats shows it to those who may read the column.
select (s.histogram_bounds::text::{type}[])::text[]
from pg_catalog.pg_stats s
where s.schemaname = {schema} and s.tablename = {name} and s.attname = {column} and not s.inherited

-- name: sample
-- Quantiles of a sample of blocks, where there are no statistics.
select pg_catalog.percentile_disc({fractions}::float8[]) within group (order by {column})::text[]
from only {relation} tablesample system ({percent})

-- name: narrowed
-- Columns and row filters of these relations, which a publication sends (15 and later). The view pg_publication_tables would wait for the
-- locks of others' DDL, of any of the tables. Lists and filters do not count where the whole schema is published.
select c.oid,
       array(select a.attname::text
             from pg_catalog.pg_attribute a
             where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
               and case when r.prattrs is null
                        then a.attgenerated = '' or a.attgenerated::text = to_jsonb(p) ->> 'pubgencols'
                        else a.attnum = any (r.prattrs::int2[]) end
             order by a.attnum) as names,
       pg_catalog.pg_get_expr(r.prqual, r.prrelid) as filter
from pg_catalog.pg_publication p
join pg_catalog.pg_class c on c.oid = any (%(oids)s::oid[])
left join pg_catalog.pg_publication_rel r on r.prpubid = p.oid and r.prrelid = c.oid and not exists (
    select from pg_catalog.pg_publication_namespace s where s.pnpubid = p.oid and s.pnnspid = c.relnamespace
)
where p.pubname = %(publication)s
