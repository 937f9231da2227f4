-- IDLs by the slot from which each is valid: an upgrade of a program must not make its old data unreadable.
-- One writer: the indexer (role capstan_indexer); `capstan idl add` with the operator's own login.

create table capstan.idls (
    program_id bytea not null references capstan.programs (program_id),
    from_slot  bigint not null check (from_slot >= 0),  -- valid up to the next one's from_slot
    idl        text not null,
    idl_sha256 bytea not null check (length(idl_sha256) = 32),
    added_at   timestamptz not null default clock_timestamp(),
    primary key (program_id, from_slot)
);

insert into capstan.idls (program_id, from_slot, idl, idl_sha256, added_at)
select program_id, 0, idl, idl_sha256, registered_at from capstan.programs;

-- Grows with every change of `idls`. What was decoded under an older one is not written, but decoded again: writers
-- compare it under a shared advisory lock, and who changes the registry holds that lock alone.
create table capstan.registry (
    only_row   boolean primary key default true check (only_row),
    generation bigint not null
);
insert into capstan.registry (generation) values (1);

-- Which columns the fields of each IDL version have: [[from_slot, [[IDL field, column, form], ...]], ...], by from_slot.
-- `columns` next to it are those of all versions together. The form says how a value is shown at the edge.
alter table capstan.typed_tables add column versions jsonb not null default '[]';

-- How a typed table came to the columns it has, beyond its first ones.
create table capstan.column_changes (
    schema_name text not null,
    table_name  text not null,
    column_name text not null,
    field       text not null,          -- of the IDL
    from_slot   bigint not null,        -- of the IDL that brought it
    reason      text not null,
    changed_at  timestamptz not null default clock_timestamp(),
    primary key (schema_name, table_name, column_name),
    foreign key (schema_name, table_name) references capstan.typed_tables (schema_name, table_name)
);

-- Base58 of any bytes. Seven bytes go into a number at a time, and ten digits come out of it, by pairs from a table of
-- all 58 * 58: 8 us for a key. Leading zero bytes are leading "1"s.
do $make$
declare
    alphabet constant text := '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';
    pairs constant text := (
        select string_agg(substr(alphabet, n / 58 + 1, 1) || substr(alphabet, n % 58 + 1, 1), '' order by n)
        from generate_series(0, 58 * 58 - 1) n);
begin
    execute format($format$
        create function capstan.base58(key bytea) returns text
        language plpgsql immutable strict parallel safe as $function$
        declare
            size constant integer := length(key);
            rest numeric := 0;
            quotient numeric;
            chunk bigint;
            digits bytea := '';
            at integer := 1;
        begin
            while at + 6 <= size loop
                rest := rest * 72057594037927936 + ('x' || encode(substr(key, at, 7), 'hex'))::bit(56)::bigint;
                at := at + 7;
            end loop;
            while at <= size loop
                rest := rest * 256 + get_byte(key, at - 1);
                at := at + 1;
            end loop;
            while rest > 0 loop
                quotient := div(rest, 430804206899405824);  -- 58^10
                chunk := rest - quotient * 430804206899405824;
                rest := quotient;
                digits := substr(%1$L::bytea, (chunk / 128063081718016)::integer * 2 + 1, 2)
                       || substr(%1$L::bytea, (chunk / 38068692544 %% 3364)::integer * 2 + 1, 2)
                       || substr(%1$L::bytea, (chunk / 11316496 %% 3364)::integer * 2 + 1, 2)
                       || substr(%1$L::bytea, (chunk / 3364 %% 3364)::integer * 2 + 1, 2)
                       || substr(%1$L::bytea, (chunk %% 3364)::integer * 2 + 1, 2)
                       || digits;
            end loop;
            return repeat('1', size - length(ltrim(key, '\x00'::bytea)))
                || ltrim(convert_from(digits, 'SQL_ASCII'), '1');
        end $function$
    $format$, pairs);
end $make$;

-- Bytes as a list of numbers, which is how an array of u8 is shown.
create function capstan.byte_list(value bytea) returns jsonb
language sql immutable strict parallel safe as $$
    select coalesce(jsonb_agg(get_byte(value, n) order by n), '[]') from generate_series(0, length(value) - 1) n
$$;

-- A float as JSON has it, and in words what JSON has no number for.
create function capstan.json_float(value double precision) returns jsonb
language sql immutable strict parallel safe as $$
    select case when value in ('NaN', 'Infinity', '-Infinity') then to_jsonb(value::text) else to_jsonb(value) end
$$;

-- Every event of every program in one shape. Made anew whenever the typed tables change; its columns stay.
create view capstan.events as
select null::text as program, null::text as name, null::text as signature, null::bigint as slot,
       null::timestamptz as block_time, null::text as kind, null::bigint as ordinal, null::text as commitment,
       null::jsonb as value
where false;

-- Where nobody has that name yet, as `events` too; with the rights of whoever asks.
do $make$
begin
    if to_regnamespace('public') is null or to_regclass('public.events') is not null then
        return;
    end if;
    if has_schema_privilege('public', 'CREATE') then
        create view public.events with (security_invoker = true) as select * from capstan.events;
        grant select on public.events to public;
    end if;
end $make$;
