-- The engine's ledger: what it decided, what it signed, what came of it. One writer: the engine (role capstan_engine).
-- Rows are written before the act they describe: an intent before anything is signed, an attempt before anything is sent.

create schema engine;

-- Who acts. The epoch grows with every change of holder and is checked in the INSERT of each attempt.
create table engine.leases (
    name       text primary key,
    holder     text not null,
    epoch      bigint not null check (epoch > 0),
    expires_at timestamptz not null
);

create table engine.intents (
    intent_id    bigint generated always as identity primary key,
    key          text not null unique,      -- cleanup_vault:<vault>:<session_start>: one session, one intent, for ever
    rule         text not null,
    program_id   bytea not null check (length(program_id) = 32),
    subject      bytea not null check (length(subject) = 32),
    payload      jsonb not null,            -- everything the adapter needs to build the instruction again
    reason       text not null,
    decided_slot bigint not null,
    decided_at   timestamptz not null default clock_timestamp(),
    -- open: to be acted on; landed: done by us; lost: somebody else did it first; failed: the chain refused;
    -- void: the rule, asked again, no longer wants it
    state        text not null default 'open' check (state in ('open', 'landed', 'lost', 'failed', 'void')),
    outcome      text,
    settled_at   timestamptz,
    check ((state = 'open') = (settled_at is null))
);
create index intents_open on engine.intents (intent_id) where state = 'open';
-- Every pass asks which expired sessions have an intent already.
create index intents_subject on engine.intents (subject);

create table engine.attempts (
    attempt_id              bigint generated always as identity primary key,
    intent_id               bigint not null references engine.intents,
    epoch                   bigint not null,
    signature               bytea not null unique check (length(signature) = 64),
    transaction             bytea not null,     -- the signed bytes: sent again as they are until landed or expired
    last_valid_block_height bigint not null,
    signed_at               timestamptz not null default clock_timestamp(),
    sends                   integer not null default 0,
    outcome                 text check (outcome in ('landed', 'failed', 'expired')),
    slot                    bigint,
    err                     text,               -- the RPC's TransactionError as JSON
    settled_at              timestamptz,
    check ((outcome is null) = (settled_at is null))
);
-- No second signature for an intent while the first may still land.
create unique index attempts_one_open on engine.attempts (intent_id) where outcome is null;
create unique index attempts_one_landed on engine.attempts (intent_id) where outcome = 'landed';

-- Why nothing was done, the latest reason per subject and rule.
create table engine.skips (
    rule    text not null,
    subject bytea not null,
    reason  text not null,
    seen_at timestamptz not null default clock_timestamp(),
    primary key (rule, subject)
);
