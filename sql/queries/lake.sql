-- What the lake's writer asks Postgres, run by indexer/store/lake.py under the role capstan_indexer.
-- The select_ queries go through DuckDB in one snapshot; {names} are quoted by the caller.

-- name: select_frontiers
-- No slot where nothing has been proven yet; -1 where nothing has been pruned.
select p.schema_name, p.program_id, f.slot, coalesce(r.to_slot, -1) as pruned
from capstan.programs p left join capstan.frontiers f using (program_id) left join capstan.pruned r using (program_id)
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
-- The oldest ones, with the slot where each is stored, the programs it mentions here, and whether its body is here.
-- noted_at as microseconds: a number is the same on both sides. Subqueries, as these are few among very many.
select l.signature, l.noted_us, t.slot, t.programs,
       exists (select from capstan.raw_transactions r where r.slot = t.slot and r.signature = l.signature) as has_body
from (select signature, (extract(epoch from noted_at) * 1000000)::bigint as noted_us
      from capstan.late_transactions order by noted_at limit {limit}) l
cross join lateral (
    select (select slot from capstan.transactions t where t.signature = l.signature) as slot,
           (select coalesce(string_agg(encode(m.program_id, 'hex'), ' '), '') from capstan.mentions m
            where m.signature = l.signature) as programs
) t
order by l.noted_us

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
-- The same, and late rows below the old watermark, which were deleted from the lake just before: of a pruned slot only
-- those that were written again.
select {columns} from {table} e
join capstan.transactions t on t.signature = e.signature and t.slot = e.slot
where e.slot <= {upto} and t.commitment = 'finalized'
  and (e.slot > {after}
       or e.signature in (select signature from capstan.late_transactions
                          where (extract(epoch from noted_at) * 1000000)::bigint <= {noted_us})
          and (e.slot > {pruned}
               or exists (select from capstan.mentions m
                          where m.program_id = {program_id} and m.slot = e.slot and m.signature = e.signature)))
order by e.slot

-- name: select_raw
-- A program's bodies as select_finalized has its events.
select e.signature, e.slot, t.block_time, e.body from capstan.raw_transactions e
join capstan.mentions m on m.program_id = {program_id} and m.slot = e.slot and m.signature = e.signature
join capstan.transactions t on t.signature = e.signature and t.slot = e.slot
where e.slot > {after} and e.slot <= {upto} and m.slot > {after} and m.slot <= {upto}
  and t.slot > {after} and t.slot <= {upto} and t.commitment = 'finalized'
order by e.slot

-- name: select_raw_late
-- The same, and late ones.
select e.signature, e.slot, t.block_time, e.body from capstan.raw_transactions e
join capstan.mentions m on m.program_id = {program_id} and m.slot = e.slot and m.signature = e.signature
join capstan.transactions t on t.signature = e.signature and t.slot = e.slot
where e.slot <= {upto} and t.commitment = 'finalized'
  and (e.slot > {after}
       or e.signature in (select signature from capstan.late_transactions
                          where (extract(epoch from noted_at) * 1000000)::bigint <= {noted_us}))
order by e.slot

-- name: count_lake_files
-- Of each table its small files, and the files that say which rows of others are deleted, as DuckLake's catalog has them.
select s.schema_name, t.table_name,
       (select count(*) from lake_meta.ducklake_data_file f
        where f.table_id = t.table_id and f.end_snapshot is null and f.file_size_bytes < %(bytes_max)s) as small,
       (select count(*) from lake_meta.ducklake_delete_file d
        where d.table_id = t.table_id and d.end_snapshot is null) as deleted
from lake_meta.ducklake_table t join lake_meta.ducklake_schema s using (schema_id)
where t.end_snapshot is null and s.end_snapshot is null and (s.schema_name, t.table_name) <> ('main', 'watermark')
order by 3 desc, 4 desc
