-- Raw bodies, partitions and retention, run by indexer/store/{raw,partitions,retention}.py under the role
-- capstan_indexer.

-- name: ensure_partitions
select distinct partitioned_schema, partitioned_table
from capstan.ensure_partitions(%(schemas)s::text[], %(tables)s::text[], %(numbers)s::bigint[]);

-- name: delete_raw
delete from capstan.raw_transactions where slot = any(%(slots)s) and signature = any(%(signatures)s);

-- name: delete_raw_of_replaced
-- In the slots where these transactions are stored now, before others take their place.
delete from capstan.raw_transactions r using capstan.transactions t
where t.signature = any(%(signatures)s) and r.slot = t.slot and r.signature = t.signature;

-- name: delete_raw_of_completed
-- Bodies whose logs were cut make way for those that have them.
delete from capstan.raw_transactions r using capstan.transactions t
where t.signature = any(%(signatures)s) and not t.complete and r.slot = t.slot and r.signature = t.signature;

-- name: select_program_schema
select schema_name from capstan.programs where program_id = %(program_id)s;

-- name: lake_is_there
select exists (select from pg_namespace where nspname = 'lake_meta' and has_schema_privilege(oid, 'USAGE'))
   and to_regclass('lake_meta.ducklake_table') is not null;

-- name: select_raw_bounds
select min(slot), max(slot) from capstan.mentions where program_id = %(program_id)s;

-- name: select_late_raw
-- Bodies whose transactions the lake may have as they were before.
select r.signature from capstan.late_transactions l
join capstan.raw_transactions r on r.signature = l.signature and r.slot between %(from_slot)s and %(to_slot)s;

-- name: select_raw
-- A program's bodies above the lake's watermark, and late ones.
select r.signature, r.slot, extract(epoch from t.block_time)::bigint, r.body, t.commitment = 'finalized'
from capstan.mentions m
join capstan.raw_transactions r on r.slot = m.slot and r.signature = m.signature
join capstan.transactions t on t.signature = m.signature and t.slot = m.slot
where m.program_id = %(program_id)s and m.slot between %(from_slot)s and %(to_slot)s
  and r.slot between %(from_slot)s and %(to_slot)s
  and (m.slot > %(watermark)s or m.signature = any(%(late)s));

-- name: note_exports
-- What a lake's watermarks were when; the first time each was seen counts.
insert into capstan.exports (schema_name, table_name, slot)
select * from unnest(%(schemas)s::text[], %(tables)s::text[], %(slots)s::bigint[])
on conflict do nothing;

-- name: select_settled
-- Watermarks that the lake has had for at least so many seconds.
select schema_name, table_name, max(slot) from capstan.exports
where seen_at <= clock_timestamp() - make_interval(secs => %(grace_s)s) group by schema_name, table_name;

-- name: forget_exports
-- All but the newest settled one and what came after it.
delete from capstan.exports e where e.slot < (
    select max(n.slot) from capstan.exports n
    where n.schema_name = e.schema_name and n.table_name = e.table_name
      and n.seen_at <= clock_timestamp() - make_interval(secs => %(grace_s)s));

-- name: select_event_tables_of_programs
select p.program_id, t.schema_name, t.table_name,
       exists (select from capstan.partitioned_tables() d
               where d.schema_name = t.schema_name and d.table_name = t.table_name) as partitioned
from capstan.typed_tables t join capstan.programs p using (schema_name)
where t.kind = 'event' order by p.program_id, t.table_name;

-- name: select_partition_numbers
-- Of the partitions that one table has.
select distinct (regexp_match(c.relname, '_p(\d+)$'))[1]::bigint
from capstan.partitioned_tables() p join pg_inherits i on i.inhparent = p.relation join pg_class c on c.oid = i.inhrelid
where p.schema_name = %(schema)s and p.table_name = %(table)s;

-- name: first_mention
select min(slot) from capstan.mentions where program_id = %(program_id)s;

-- name: first_transaction
select min(slot) from capstan.transactions;

-- name: is_old
-- By the cluster's clock, and of a slot behind the range: the whole range is older.
select coalesce((select t.block_time from capstan.transactions t
                 where t.slot > %(to_slot)s and t.block_time is not null order by t.slot limit 1)
                < coalesce((select max(tip_time) from capstan.heartbeats), clock_timestamp())
                  - make_interval(secs => %(age_s)s), false);

-- name: is_unsettled
-- Whether anything in the range is not finalized, or still has to be replaced in the lake.
select exists (select from capstan.transactions
               where commitment = 'confirmed' and slot between %(from_slot)s and %(to_slot)s)
    or exists (select from capstan.late_transactions l join capstan.transactions t using (signature)
               where t.slot between %(from_slot)s and %(to_slot)s);

-- name: is_mentioned
select exists (select from capstan.programs p join capstan.mentions m using (program_id)
               where m.slot between %(from_slot)s and %(to_slot)s);

-- name: is_stored
select exists (select from capstan.transactions where slot between %(from_slot)s and %(to_slot)s);

-- name: mark_late
insert into capstan.late_transactions (signature)
select t.signature from unnest(%(signatures)s::bytea[]) as i (signature) join capstan.transactions t using (signature)
on conflict (signature) do update set noted_at = clock_timestamp();

-- name: mark_pruned
-- Before anything goes: from now on the lake is not told to forget what is not here.
insert into capstan.pruned as p (program_id, to_slot) values (%(program_id)s, %(to_slot)s)
on conflict (program_id) do update set to_slot = greatest(p.to_slot, excluded.to_slot), pruned_at = clock_timestamp();

-- name: prune_mentions
delete from capstan.mentions where (program_id, slot, signature) in (
    select program_id, slot, signature from capstan.mentions
    where program_id = %(program_id)s and slot between %(from_slot)s and %(to_slot)s limit %(rows)s);

-- name: prune_transactions
delete from capstan.transactions where signature in (
    select t.signature from capstan.transactions t
    where t.slot between %(from_slot)s and %(to_slot)s and t.commitment = 'finalized'
      and not exists (select from capstan.mentions m where m.signature = t.signature)
      and not exists (select from capstan.late_transactions l where l.signature = t.signature)
    limit %(rows)s);

-- name: drop_partition
select capstan.drop_partition(%(schema)s, %(table)s, %(number)s);

-- name: count_hot
select count(*) from {table} where slot between %(from_slot)s and %(to_slot)s;

-- name: select_hot_identities
-- For the comparison with the lake; {names} are quoted by the caller.
select {identity} from {table} e where e.slot between {from_slot} and {to_slot}

-- name: select_hot_raw_identities
select e.signature from capstan.raw_transactions e
join capstan.mentions m on m.program_id = {program_id} and m.slot = e.slot and m.signature = e.signature
where e.slot between {from_slot} and {to_slot} and m.slot between {from_slot} and {to_slot}

-- name: prune_events
-- Of a table without partitions.
delete from {table} where ctid = any(array(
    select ctid from {table} where slot between {from_slot} and {to_slot} limit {rows}))

-- name: select_file
select bytes_read, lines_read, transactions, bad_lines, done from capstan.files
where file_id = %(file_id)s and target = %(target)s;

-- name: upsert_file
insert into capstan.files (file_id, target, path, bytes_read, lines_read, transactions, bad_lines, done)
values (%(file_id)s, %(target)s, %(path)s, %(bytes_read)s, %(lines_read)s, %(transactions)s, %(bad_lines)s, %(done)s)
on conflict (file_id, target) do update set path = excluded.path, bytes_read = excluded.bytes_read,
    lines_read = excluded.lines_read, transactions = excluded.transactions, bad_lines = excluded.bad_lines,
    done = excluded.done, read_at = clock_timestamp();

-- name: select_other_programs
-- Programs of this database that are not among those.
select name from capstan.programs where program_id <> all(%(program_ids)s::bytea[]) order by name;

-- name: count_hot_between
select count(*) from capstan.transactions where slot > %(after)s and slot <= %(upto)s;
