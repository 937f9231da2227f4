-- The registry of IDLs and typed tables, run by indexer/store/registry.py with the operator's own login or as the indexer.

-- name: lock_registry
-- For whoever changes it: waits for every batch that is being written. Until the transaction ends.
select pg_advisory_xact_lock(213490600, 0);

-- name: share_registry
-- For a batch: what it was decoded with stays until it is committed.
select pg_advisory_xact_lock_shared(213490600, 0);

-- name: select_generation
select generation from capstan.registry;

-- name: raise_generation
update capstan.registry set generation = generation + 1;

-- name: select_program
select schema_name, idl_sha256 from capstan.programs where program_id = %(program_id)s;

-- name: upsert_program
-- The newest IDL stands with the program.
insert into capstan.programs as p (program_id, name, schema_name, idl, idl_sha256)
values (%(program_id)s, %(name)s, %(schema_name)s, %(idl)s, %(idl_sha256)s)
on conflict (program_id) do update set name = excluded.name, idl = excluded.idl, idl_sha256 = excluded.idl_sha256
where p.idl_sha256 <> excluded.idl_sha256;

-- name: select_idls
select from_slot, idl, idl_sha256 from capstan.idls where program_id = %(program_id)s order by from_slot;

-- name: upsert_idl
insert into capstan.idls as i (program_id, from_slot, idl, idl_sha256)
values (%(program_id)s, %(from_slot)s, %(idl)s, %(idl_sha256)s)
on conflict (program_id, from_slot) do update
set idl = excluded.idl, idl_sha256 = excluded.idl_sha256, added_at = clock_timestamp();

-- name: select_all_idls
-- Of the programs asked for, or of all.
select i.program_id, p.schema_name, i.from_slot, i.idl
from capstan.idls i join capstan.programs p using (program_id)
where %(program_ids)s::bytea[] is null or i.program_id = any(%(program_ids)s::bytea[])
order by p.registered_at, i.program_id, i.from_slot;

-- name: select_tables
select kind, type_name, table_name, columns, versions from capstan.typed_tables
where schema_name = %(schema_name)s order by kind desc, table_name;

-- name: insert_table
insert into capstan.typed_tables (schema_name, table_name, kind, type_name, columns, versions)
values (%(schema_name)s, %(table_name)s, %(kind)s, %(type_name)s, %(columns)s, %(versions)s);

-- name: update_table
update capstan.typed_tables set columns = %(columns)s, versions = %(versions)s
where schema_name = %(schema_name)s and table_name = %(table_name)s
  and (columns, versions) is distinct from (%(columns)s::jsonb, %(versions)s::jsonb);

-- name: insert_column_change
insert into capstan.column_changes (schema_name, table_name, column_name, field, from_slot, reason)
values (%(schema_name)s, %(table_name)s, %(column_name)s, %(field)s, %(from_slot)s, %(reason)s);

-- name: select_event_tables
select p.name, t.type_name, t.schema_name, t.table_name, t.columns, t.versions
from capstan.typed_tables t join capstan.programs p using (schema_name)
where t.kind = 'event' order by p.registered_at, t.schema_name, t.table_name;

-- name: select_view
-- Its comment, and whether we may make it anew.
select obj_description(c.oid, 'pg_class'), pg_has_role(c.relowner, 'USAGE') and has_schema_privilege('capstan', 'CREATE')
from pg_class c where c.oid = to_regclass('capstan.events');

-- name: select_tip
-- The newest slot that is known of: of the chain, and of what is stored of the program.
select greatest(
    (select max(tip_slot) from capstan.heartbeats),
    (select max(slot) from capstan.frontiers where program_id = %(program_id)s),
    (select max(slot) from capstan.mentions where program_id = %(program_id)s));

-- name: count_transactions
-- Stored transactions of the program in a range of slots.
select count(*) from capstan.mentions
where program_id = %(program_id)s and slot >= %(from_slot)s and slot <= %(to_slot)s;

-- name: count_bodies
-- The same, and those without a raw body.
select count(*), count(*) filter (where r.signature is null)
from capstan.mentions m left join capstan.raw_transactions r using (slot, signature)
where m.program_id = %(program_id)s and m.slot >= %(from_slot)s and m.slot <= %(to_slot)s;
