-- Raw transactions on their way into the lake, partitions by slot, and what has been taken out of Postgres after its
-- export.
-- One writer for everything here: the indexer (role capstan_indexer).

-- getTransaction bodies as the node sent them (JSON, LZ4 behind its length), so that a new IDL means decoding again, not fetching again.
create table capstan.raw_transactions (
    slot      bigint not null,
    signature bytea not null check (length(signature) = 64),
    body      bytea not null,
    primary key (slot, signature)
) partition by range (slot);
-- The bodies are compressed already.
alter table capstan.raw_transactions alter column body set storage external;

-- How far the lake was when. What it has had for longer than any reader reads may leave Postgres.
create table capstan.exports (
    schema_name text not null,
    table_name  text not null,
    slot        bigint not null,        -- the lake's watermark
    seen_at     timestamptz not null default clock_timestamp(),
    primary key (schema_name, table_name, slot)
);

-- Slots below which rows were taken out of Postgres, by program: they are in the lake.
create table capstan.pruned (
    program_id bytea primary key check (length(program_id) = 32),
    to_slot    bigint not null,         -- inclusive
    pruned_at  timestamptz not null default clock_timestamp()
);

-- A partition holds the slots from number * width on: two days at 400 ms.
create function capstan.partition_width() returns bigint language sql immutable as 'select 432000::bigint';

-- The name of a partition; names longer than PostgreSQL's 63 bytes end in a hash.
create function capstan.partition_name(table_name text, number bigint) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case when octet_length(table_name || '_p' || number) <= 63 then table_name || '_p' || number
                else left(table_name, 8) || '_' || left(md5(table_name), 16) || '_p' || number end
$$;

-- Which of the tables are ours to divide: partitioned, and either generated for a program's events or the raw bodies.
create function capstan.partitioned_tables() returns table (schema_name text, table_name text, relation oid)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select n.nspname::text, c.relname::text, c.oid
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind = 'p'
      and ((n.nspname, c.relname) = ('capstan', 'raw_transactions')
           or exists (select from capstan.typed_tables t
                      where t.kind = 'event' and t.schema_name = n.nspname and t.table_name = c.relname))
$$;

-- Make the partitions that these rows need; tables that are not partitioned are passed over. Returns the partitioned
-- ones, as their conflicts are found by another key. For the owner's rights: a writer may own no tables.
create function capstan.ensure_partitions(schemas text[], tables text[], numbers bigint[])
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
revoke all on function capstan.ensure_partitions(text[], text[], bigint[]) from public;

-- Drop one partition whose rows the lake has; the caller has proven that. False where there is none.
-- Gives up where readers hold the table for longer than its caller's lock_timeout.
create function capstan.drop_partition(in_schema text, in_table text, in_number bigint) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    part text := format('%I.%I', in_schema, capstan.partition_name(in_table, in_number));
begin
    if not exists (select from capstan.partitioned_tables() p join pg_inherits i on i.inhparent = p.relation
                   where p.schema_name = in_schema and p.table_name = in_table and i.inhrelid = to_regclass(part)) then
        return false;
    end if;
    execute format('drop table %s', part);
    return true;
end $$;
revoke all on function capstan.drop_partition(text, text, bigint) from public;

-- Files of transactions that were read, and how far: a load that was killed goes on where it was. What stands here is
-- only where to begin again; reading a part twice changes nothing.
create table capstan.files (
    file_id      text not null,         -- size and a hash of the beginning, of the file as it is on disk
    target       text not null check (target in ('postgres', 'lake')),
    path         text not null,
    bytes_read   bigint not null,       -- of its lines, after decompression
    lines_read   bigint not null,
    transactions bigint not null,
    bad_lines    bigint not null,
    done         boolean not null,
    read_at      timestamptz not null default clock_timestamp(),
    primary key (file_id, target)
);
