-- Rows made by the server, the same ones each time: a number is drawn from a hash of what it is for.

create function pg_temp.pick(what text, i bigint, below bigint) returns bigint
    language sql immutable parallel safe
    as $$ select (hashtextextended(what, i) & 9223372036854775807) % below $$;

set local session_replication_role = replica;  -- the rows refer to each other by construction: no need to look

insert into customers (name, email, country, profile, is_vip, credit, created_at)
select 'Customer ' || i,
       'c' || i || '@example.com',
       (array['de', 'fr', 'us', 'jp', 'br', 'in'])[1 + pg_temp.pick('country', i, 6)],
       jsonb_build_object('language', (array['de', 'en', 'pt'])[1 + pg_temp.pick('language', i, 3)],
                          'points', pg_temp.pick('points', i, 5000), 'likes', jsonb_build_array('tea', 'größe', i)),
       pg_temp.pick('vip', i, 20) = 0,
       case when pg_temp.pick('credit', i, 3) > 0 then pg_temp.pick('cents', i, 10000000) / 100.0 end,
       timestamptz '2025-01-01 00:00:00+00' + i * interval '97.013 seconds'
from generate_series(1, :customers) as i;

insert into products (sku, name, price, stock, description, changed_at)
select 'P-' || to_char(i, 'FM000000'),
       'Product ' || i,
       (100 + pg_temp.pick('price', i, 40000)) / 100.0,
       pg_temp.pick('stock', i, 1000),
       (select string_agg(md5(i || '/' || j), ' ') from generate_series(1, 70 + pg_temp.pick('length', i, 80)) as j),
       timestamptz '2025-01-01 00:00:00+00' + i * interval '61 seconds'
from generate_series(1, :products) as i;

create temporary table items on commit drop as
select o as order_id,
       line,
       'P-' || to_char(1 + pg_temp.pick('sku' || line, o, :products), 'FM000000') as sku,
       1 + pg_temp.pick('quantity' || line, o, 5) as quantity
from generate_series(1, :orders) as o,
     generate_series(1, 1 + pg_temp.pick('lines', o, 4)) as line;

insert into orders (id, customer_id, status, total, note, placed_at, changed_at)
select o,
       1 + pg_temp.pick('customer', o, :customers),
       (enum_range(null::order_status))[1 + pg_temp.pick('status', o, 6)],
       sum(quantity * price),
       case when pg_temp.pick('note', o, 10) = 0 then E'leave at the door\n\\ ring ' || o end,
       timestamptz '2025-06-01 00:00:00+00' + o * interval '7.000001 seconds',
       timestamptz '2025-06-01 00:00:00+00' + o * interval '7.000001 seconds'
from items join products using (sku), lateral (select order_id) as named (o)
group by o
order by o;

insert into order_items (order_id, line, sku, quantity, price)
select order_id, line, sku, quantity, price from items join products using (sku)
order by order_id, line;

select setval(pg_get_serial_sequence('orders', 'id'), :orders);
