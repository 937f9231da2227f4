-- The chain as Capstan knows it, beside the typed tables that are generated from the IDLs.
-- One writer for everything here: the indexer (role capstan_indexer). Everyone else reads.
-- Slots and block heights are bigint: they stay below 2^63. Amounts are numeric(20,0): u64::MAX is in use as a sentinel.
-- The schema itself is made before the first migration, with the table of migrations.

-- Which chain this database belongs to. An indexer pointed at another one refuses.
create table capstan.chain (
    only_row      boolean primary key default true check (only_row),
    genesis_hash  text not null,
    first_seen_at timestamptz not null default now()
);

-- The programs that are indexed, each with the IDL its typed tables were generated from.
create table capstan.programs (
    program_id    bytea primary key check (length(program_id) = 32),
    name          text not null,
    schema_name   text not null unique,
    idl           text not null,
    idl_sha256    bytea not null check (length(idl_sha256) = 32),
    registered_at timestamptz not null default now()
);

-- What was generated: one row per typed table, so that a reader finds an event's table without guessing names.
create table capstan.typed_tables (
    schema_name text not null references capstan.programs (schema_name),
    table_name  text not null,
    kind        text not null check (kind in ('event', 'account')),
    type_name   text not null,          -- as in the IDL
    columns     jsonb not null,         -- [[IDL field, column, Postgres type], ...] in IDL order
    primary key (schema_name, table_name),
    unique (schema_name, kind, type_name)
);

create table capstan.transactions (
    signature     bytea primary key check (length(signature) = 64),
    slot          bigint not null,
    block_time    timestamptz,
    err           text,                 -- the RPC's TransactionError as JSON; null where the transaction succeeded
    fee           numeric(20, 0) not null,
    compute_units bigint,
    commitment    text not null check (commitment in ('confirmed', 'finalized')),
    complete      boolean not null,     -- false: logs were cut or absent, so events may be missing
    indexed_at    timestamptz not null default clock_timestamp()
);
create index transactions_slot on capstan.transactions (slot);
create index transactions_confirmed on capstan.transactions (slot) where commitment = 'confirmed';

-- Which indexed programs a transaction mentions: enumeration is per program, so is the comparison with it.
create table capstan.mentions (
    program_id bytea not null,
    slot       bigint not null,
    signature  bytea not null,
    primary key (program_id, slot, signature)
);
create index mentions_signature on capstan.mentions (signature);

-- Every finalized transaction of the program up to and including `slot` is stored. Moves only by enumeration,
-- in the transaction that stores the rows it vouches for.
create table capstan.frontiers (
    program_id bytea primary key check (length(program_id) = 32),
    slot       bigint not null,
    proven_at  timestamptz not null default now()
);

-- Finalized transactions that came, or changed, at or below a frontier that vouched for them already: the lake may have
-- exported their slots. The exporter replaces them there, by identity, and strikes them off.
create table capstan.late_transactions (
    signature bytea primary key check (length(signature) = 64),
    noted_at  timestamptz not null default clock_timestamp()
);

-- The newest slot at which an address was seen not to exist (or to be no account of the program). An older state that
-- arrives after it is stored as closed.
create table capstan.closures (
    program_id bytea not null,
    address    bytea not null check (length(address) = 32),
    slot       bigint not null,
    primary key (program_id, address)
);

-- What was seen and could not be read: counted and shown, never dropped in silence.
create table capstan.problems (
    program_id bytea not null,
    subject    bytea not null,          -- a signature (64 bytes) or an account address (32)
    kind       text not null,           -- unknown_discriminator, bad_payload, trailing_bytes, bad_base64, truncated, no_logs, ...
    ordinal    bigint not null default 0,
    detail     text not null,
    slot       bigint not null,
    seen_at    timestamptz not null default now(),
    primary key (program_id, subject, kind, ordinal)
);

-- One row per running part (indexer, engine), for "how fresh is this?".
create table capstan.heartbeats (
    name          text primary key,
    tip_slot      bigint,               -- newest slot seen from the chain
    tip_time      timestamptz,          -- the cluster's own clock at that slot
    beat_at       timestamptz not null default clock_timestamp(),
    last_error    text,
    last_error_at timestamptz
);
