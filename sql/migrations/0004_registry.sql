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
