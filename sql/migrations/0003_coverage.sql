-- What has been proven, what is being proven, and which block a confirmed row was seen in.
-- One writer for everything here: the indexer (role capstan_indexer), in any number of processes.

-- The coverage ledger: slot ranges of a program in which every finalized transaction is stored, and how that was proven.
-- Ranges of one program never overlap; neighbours proven by the same means become one.
-- A program's frontier is the end of the unbroken run of ranges from slot 0, or from where its history was said to start.
create table capstan.coverage (
    program_id bytea not null check (length(program_id) = 32),
    from_slot  bigint not null check (from_slot >= 0),
    to_slot    bigint not null,         -- inclusive
    means      text not null check (means in ('signatures', 'blocks', 'file')),
    proven_at  timestamptz not null default clock_timestamp(),
    primary key (program_id, from_slot),
    check (from_slot <= to_slot)
);

-- Where the operator said that a program's history starts; without a row that is slot 0.
create table capstan.history_starts (
    program_id bytea primary key check (length(program_id) = 32),
    slot       bigint not null check (slot >= 0)
);

-- What an earlier version of the tables proved.
insert into capstan.coverage (program_id, from_slot, to_slot, means, proven_at)
select program_id, 0, slot, 'signatures', proven_at from capstan.frontiers where slot >= 0;

-- A range that is being filled, by any number of processes. The listing walks backwards from to_slot and leaves jobs.
-- Open backfills of one program and means do not overlap: whoever opens one leaves out what another fills already.
create table capstan.backfills (
    backfill_id  bigint generated always as identity primary key,
    program_ids  bytea[] not null,       -- one for signatures; all that are looked for in blocks
    means        text not null check (means in ('signatures', 'blocks')),
    from_slot    bigint not null check (from_slot >= 0),
    to_slot      bigint not null,
    listed_from  bigint,                 -- jobs exist for every slot from here to to_slot; null before the first
    cursor       text,                   -- signature (base58) before which the listing goes on
    holder       text,                   -- who lists
    leased_until timestamptz,
    transactions bigint not null default 0,     -- of the jobs that are done
    last_error   text,
    created_at   timestamptz not null default clock_timestamp(),
    done_at      timestamptz,            -- every job was done; they are deleted then
    check (from_slot <= to_slot)
);
create index backfills_open on capstan.backfills (backfill_id) where done_at is null;

-- One piece of a backfill: whole slots. Claimed with SKIP LOCKED, kept by a lease, done in the transaction that stores
-- its rows and its coverage.
create table capstan.jobs (
    job_id       bigint generated always as identity primary key,
    backfill_id  bigint not null references capstan.backfills on delete cascade,
    from_slot    bigint not null,
    to_slot      bigint not null,
    signatures   bytea[],                -- what the listing found there; null for blocks, and when the job is done
    slots        bigint[],
    transactions integer,                -- how many the listing found; for blocks known when the job is done
    state        text not null default 'open' check (state in ('open', 'done')),
    holder       text,
    leased_until timestamptz,
    attempts     integer not null default 0,
    last_error   text,
    done_at      timestamptz,
    check (from_slot <= to_slot)
);
create index jobs_open on capstan.jobs (backfill_id, from_slot) where state = 'open';
create index jobs_backfill on capstan.jobs (backfill_id);

-- The block in which a confirmed row was seen; null where it is not known. Another block in the same slot is a fork.
alter table capstan.transactions add column blockhash text;
