-- What the indexer asks and writes, run by indexer/store under the role capstan_indexer.

-- name: insert_chain
-- The first chain stays.
insert into capstan.chain (genesis_hash) values (%(genesis_hash)s) on conflict do nothing;

-- name: select_chain
select genesis_hash from capstan.chain;

-- name: select_frontier
select slot from capstan.frontiers where program_id = %(program_id)s;

-- name: lock_frontier
-- For a batch that moves the frontier: waits for every batch that relies on where it is. Until the transaction ends.
-- An advisory lock, as before the first move there is no row to lock. The two keys: "frontiers", and the program.
select pg_advisory_xact_lock(213490599, hashtext(encode(%(program_id)s, 'hex')));

-- name: share_frontier
-- For a batch that moves none: the frontier stays where it is until it is committed.
select pg_advisory_xact_lock_shared(213490599, hashtext(encode(%(program_id)s, 'hex')));

-- name: select_frontiers
select program_id, slot from capstan.frontiers where program_id = any(%(program_ids)s);

-- name: select_moved
-- Signatures that are stored as another execution than the one they come with now: in another slot, or only confirmed
-- and not known to be in the same block of it. A finalized row that is not known to be another one replaces, too.
-- And those that are finalized already, where a confirmed one comes and has nothing to add.
select t.signature, t.commitment, t.slot
from unnest(%(signatures)s::bytea[], %(slots)s::bigint[], %(blockhashes)s::text[], %(finals)s::boolean[],
            %(completes)s::boolean[])
     as i (signature, slot, blockhash, final, complete)
join capstan.transactions t on t.signature = i.signature
where t.slot <> i.slot
   or (t.commitment = 'confirmed' and i.final and (t.blockhash = i.blockhash) is not true)
   or (t.commitment = 'confirmed' and t.blockhash is distinct from i.blockhash)
   or (t.commitment = 'finalized' and not i.final and (t.complete or not i.complete));

-- name: transaction_conflict
-- A replay changes nothing. Finalized and complete never go back within a block; in another slot, or another block of
-- the same slot, the row is a new one. A finalized row stays in its block.
on conflict (signature) do update set
    slot = excluded.slot,
    block_time = case when t.slot <> excluded.slot then excluded.block_time
                      else coalesce(excluded.block_time, t.block_time) end,
    err = case when t.slot = excluded.slot and t.commitment = 'finalized' then t.err else excluded.err end,
    fee = case when t.slot = excluded.slot and t.commitment = 'finalized' then coalesce(excluded.fee, t.fee)
               else excluded.fee end,
    compute_units = coalesce(excluded.compute_units, t.compute_units),
    commitment = case when t.slot = excluded.slot and t.commitment = 'finalized' then t.commitment
                      else excluded.commitment end,
    complete = excluded.complete or (t.complete and t.slot = excluded.slot
                                     and (t.commitment = 'finalized' or (t.blockhash = excluded.blockhash) is true
                                          or num_nonnulls(t.blockhash, excluded.blockhash) = 0)),
    blockhash = case when t.slot = excluded.slot and t.commitment = 'finalized'
                     then coalesce(t.blockhash, excluded.blockhash) else excluded.blockhash end,
    indexed_at = case when t.slot = excluded.slot then t.indexed_at else clock_timestamp() end
where t.slot <> excluded.slot
   or (t.commitment = 'confirmed' and excluded.commitment = 'finalized')
   or (t.commitment = 'confirmed' and t.blockhash is distinct from excluded.blockhash)
   or (excluded.complete and not t.complete)
   or (t.fee is null and excluded.fee is not null)
   or (t.block_time is null and excluded.block_time is not null);

-- name: event_conflict
-- An event's identity decides; only a time that was not known may be filled in.
on conflict (signature, kind, ordinal) do update set block_time = excluded.block_time
where t.block_time is null and excluded.block_time is not null;

-- name: event_conflict_in_partitions
-- The same where the table is partitioned: its keys have the slot in them. An event has one slot, its transaction's.
on conflict (signature, kind, ordinal, slot) do update set block_time = excluded.block_time
where t.block_time is null and excluded.block_time is not null;

-- name: note_late_transactions
-- Rows below a frontier that the lake cannot have as they are now: new, moved, just finalized, just completed, or read
-- for the first time.
insert into capstan.late_transactions (signature)
select i.signature
from unnest(%(signatures)s::bytea[], %(slots)s::bigint[], %(completes)s::boolean[], %(reads)s::boolean[])
     as i (signature, slot, complete, read)
left join capstan.transactions t using (signature)
where t.signature is null or t.slot <> i.slot or t.commitment = 'confirmed' or (i.complete and not t.complete)
   or (i.read and t.fee is null)
on conflict (signature) do update set noted_at = clock_timestamp();

-- name: note_late
-- Transactions that were read again: what the lake has of them, if it has them, is to be replaced.
insert into capstan.late_transactions (signature) select unnest(%(signatures)s::bytea[])
on conflict (signature) do update set noted_at = clock_timestamp();

-- name: note_late_promotions
-- Rows that become finalized below a frontier that vouched for their slot already.
insert into capstan.late_transactions (signature)
select distinct t.signature
from unnest(%(signatures)s::bytea[], %(slots)s::bigint[]) as i (signature, slot)
join capstan.transactions t on t.signature = i.signature and t.slot = i.slot and t.commitment = 'confirmed'
join capstan.mentions m on m.signature = t.signature
join capstan.frontiers f on f.program_id = m.program_id and t.slot <= f.slot
on conflict (signature) do update set noted_at = clock_timestamp();

-- name: lock_transactions
-- In order, so that writers at the same time do not dead-lock.
select from capstan.transactions where signature = any(%(signatures)s) and %(slots)s::bigint[] is not null
order by signature for update;

-- name: promote_transactions
-- Only in the slot that was finalized.
update capstan.transactions t set commitment = 'finalized'
from unnest(%(signatures)s::bytea[], %(slots)s::bigint[]) as i (signature, slot)
where t.signature = i.signature and t.slot = i.slot and t.commitment = 'confirmed';

-- name: select_known
select t.signature, t.complete
from unnest(%(signatures)s::bytea[], %(slots)s::bigint[]) as i (signature, slot)
join capstan.transactions t on t.signature = i.signature and t.slot = i.slot;

-- name: select_stored_rows
select signature, slot, commitment, blockhash, complete, err, fee is not null
from capstan.transactions where signature = any(%(signatures)s);

-- name: select_unread
-- By the programs' problems: the transactions themselves may be in the lake alone. The ordinal is the version.
select subject, max(slot)
from capstan.problems
where kind = 'unsupported_version' and program_id = any(%(program_ids)s::bytea[]) and ordinal <= %(version_max)s
  and subject > %(after)s
group by subject order by subject limit %(limit)s;

-- name: select_unfinalized
select t.signature, t.slot
from capstan.transactions t
where t.commitment = 'confirmed' and t.slot between %(slot_min)s and %(slot_max)s
  and exists (select from capstan.mentions m where m.signature = t.signature and m.program_id = %(program_id)s);

-- name: delete_transactions
-- Only where they were dropped from, and never a finalized one.
delete from capstan.transactions t
using unnest(%(signatures)s::bytea[], %(slots)s::bigint[]) as i (signature, slot)
where t.signature = i.signature and t.slot = i.slot and t.commitment = 'confirmed'
returning t.signature;

-- name: select_event_tables
select schema_name, table_name from capstan.typed_tables where kind = 'event' order by schema_name, table_name;

-- name: delete_mentions
delete from capstan.mentions where signature = any(%(signatures)s);

-- name: delete_problems
delete from capstan.problems where subject = any(%(signatures)s);

-- name: delete_problems_of_completed
-- What was noted about a transaction whose logs were not all there, once they are; or that was not read, once it is.
with read as (
    delete from capstan.problems where kind = 'unsupported_version' and subject = any(%(read)s::bytea[]))
delete from capstan.problems p using capstan.transactions t
where t.signature = any(%(signatures)s) and not t.complete and p.subject = t.signature;

-- name: upsert_heartbeat
-- What is not said stays as it was.
insert into capstan.heartbeats as h (name, tip_slot, tip_time, last_error, last_error_at)
values (%(name)s, %(tip_slot)s, %(tip_time)s, %(error)s::text,
        case when %(error)s::text is null then null else clock_timestamp() end)
on conflict (name) do update set
    tip_slot = coalesce(excluded.tip_slot, h.tip_slot),
    tip_time = coalesce(excluded.tip_time, h.tip_time),
    beat_at = clock_timestamp(),
    last_error = coalesce(excluded.last_error, h.last_error),
    last_error_at = coalesce(excluded.last_error_at, h.last_error_at);
