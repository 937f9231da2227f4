-- A raw body is read with its row or not at all: one that fits a page needs no second table beside its partition, which
-- the server would write and index by itself. New partitions are made so, and those that are there fill up so.

create or replace function capstan.ensure_partitions(schemas text[], tables text[], numbers bigint[])
returns table (partitioned_schema text, partitioned_table text)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    wanted record;
    part   text;
    width  bigint := capstan.partition_width();
begin
    for wanted in
        select p.schema_name, p.table_name, p.relation, i.number, pg_get_userbyid(c.relowner) as owner
        from (select distinct i.s, i.t, i.number from unnest(schemas, tables, numbers) as i (s, t, number)) i
        join pg_namespace n on n.nspname = i.s
        join pg_class c on c.relnamespace = n.oid and c.relname = i.t and c.relkind = 'p'
        join capstan.partitioned_tables() p on p.relation = c.oid
        order by 1, 2, 4
    loop
        part := capstan.partition_name(wanted.table_name, wanted.number);
        if to_regclass(format('%I.%I', wanted.schema_name, part)) is null then
            -- One at a time: attaching two at once would wait for each other's locks in any order.
            perform pg_advisory_xact_lock(213490600);
            -- From the table itself: the session's cache may not have heard of another's new table yet.
            if not exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                           where n.nspname = wanted.schema_name and c.relname = part) then
                -- Made apart and attached: that lets readers and writers of the other partitions go on.
                execute format('create table %I.%I (like %s including defaults including constraints including storage)%s',
                               wanted.schema_name, part, wanted.relation::regclass,
                               -- A body is read with its row or not at all: one that fits a page needs no second table.
                               case when (wanted.schema_name, wanted.table_name) = ('capstan', 'raw_transactions')
                                    then ' with (toast_tuple_target = 8160)' else '' end);
                if wanted.owner <> current_user then
                    execute format('alter table %I.%I owner to %I', wanted.schema_name, part, wanted.owner);
                end if;
                execute format('alter table %s attach partition %I.%I for values from (%s) to (%s)',
                               wanted.relation::regclass, wanted.schema_name, part,
                               wanted.number * width, (wanted.number + 1) * width);
            end if;
        end if;
        partitioned_schema := wanted.schema_name;
        partitioned_table := wanted.table_name;
        return next;
    end loop;
end $$;

do $$
declare
    part regclass;
begin
    for part in select i.inhrelid::regclass from pg_inherits i where i.inhparent = 'capstan.raw_transactions'::regclass
    loop
        execute format('alter table %s set (toast_tuple_target = 8160)', part);
    end loop;
end $$;
