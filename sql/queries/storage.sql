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
