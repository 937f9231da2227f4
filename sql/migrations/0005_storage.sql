-- Raw transactions on their way into the lake, and what has been taken out of Postgres after its export.
-- One writer for everything here: the indexer (role capstan_indexer).

-- getTransaction bodies as the node sent them (JSON, zstd), so that a new IDL means decoding again, not fetching again.
create table capstan.raw_transactions (
    slot      bigint not null,
    signature bytea not null check (length(signature) = 64),
    body      bytea not null,
    primary key (slot, signature)
) partition by range (slot);
