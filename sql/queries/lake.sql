-- What the lake's writer asks Postgres, run by indexer/store/lake.py under the role capstan_indexer.
-- The select_ queries go through DuckDB in one snapshot; {names} are quoted by the caller.

-- name: select_frontiers
-- No slot where nothing has been proven yet.
select p.schema_name, f.slot from capstan.programs p left join capstan.frontiers f using (program_id)
order by p.schema_name

-- name: select_event_tables
-- The columns as column, Postgres type, column, Postgres type, ...
select t.schema_name, t.table_name,
       coalesce((select array_agg(part order by column_number, part_number)
                 from jsonb_array_elements(t.columns) with ordinality as c (definition, column_number),
                      unnest(array[definition ->> 1, definition ->> 2]) with ordinality as p (part, part_number)),
                '{}'::text[]) as columns
from capstan.typed_tables t where t.kind = 'event' order by t.schema_name, t.table_name

-- name: select_late
-- noted_at as microseconds: a number is the same on both sides.
select signature, (extract(epoch from noted_at) * 1000000)::bigint as noted_us from capstan.late_transactions

-- name: delete_late
delete from capstan.late_transactions l
using unnest(%(signatures)s::bytea[], %(noted_us)s::bigint[]) as i (signature, noted_us)
where l.signature = i.signature and (extract(epoch from l.noted_at) * 1000000)::bigint = i.noted_us

-- name: select_finalized
-- Finalized rows above the old watermark, up to the new one.
select {columns} from {table} e
join capstan.transactions t on t.signature = e.signature and t.slot = e.slot
where e.slot > {after} and e.slot <= {upto} and t.slot > {after} and t.slot <= {upto} and t.commitment = 'finalized'
order by e.slot

-- name: select_finalized_late
-- The same, and late rows below the old watermark, which were deleted from the lake just before.
select {columns} from {table} e
join capstan.transactions t on t.signature = e.signature and t.slot = e.slot
where e.slot <= {upto} and t.commitment = 'finalized'
  and (e.slot > {after} or e.signature in (select signature from capstan.late_transactions))
order by e.slot
