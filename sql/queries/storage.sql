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
