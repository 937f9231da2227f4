-- What the engine asks and writes, run by indexer/store/ledger.py under the role capstan_engine.
-- Times are the database's own (clock_timestamp): two engines on two machines need one clock for their lease.

-- name: select_genesis_hash
-- The chain this database belongs to; no row before the indexer has begun.
select genesis_hash from capstan.chain;

-- name: select_program
-- The program as the indexer registered it, with the IDL that its tables were made from.
select idl, schema_name from capstan.programs where program_id = %(program_id)s;

-- name: select_account_table
-- Where the accounts of one type are, and which column holds which field.
select t.schema_name, t.table_name, t.columns
from capstan.typed_tables t join capstan.programs p using (schema_name)
where p.program_id = %(program_id)s and t.kind = 'account' and t.type_name = %(type_name)s;

-- name: select_expired_sessions
-- Open accounts past their expiry that have no intent yet and were not skipped just now, oldest expiry first.
-- A page starts after (after_expiry, after_address). A void intent does not count: the rule may want it again.
-- {table}, {start} and {expiry} are names from the registry, quoted by the caller.
select a.address, {start} as session_start, {expiry} as session_expiry
from {table} a
where a.closed_slot is null
  and {expiry} <= %(clock)s
  and ({expiry}, a.address) > (%(after_expiry)s, %(after_address)s)
  and not exists (
      select from engine.intents i
      where i.program_id = %(program_id)s and i.subject = a.address and i.rule = %(rule)s and i.state <> 'void'
        and (i.payload ->> 'session_start')::bigint = {start})
  and not exists (
      select from engine.skips s
      where s.rule = %(rule)s and s.subject = a.address
        and s.seen_at > clock_timestamp() - make_interval(secs => %(recheck_s)s))
order by {expiry}, a.address
limit %(limit)s;

-- name: insert_intent
-- One session, one intent, for ever: a known key changes nothing, unless the rule had withdrawn it and wants it again.
insert into engine.intents (key, rule, program_id, subject, payload, reason, decided_slot)
values (%(key)s, %(rule)s, %(program_id)s, %(subject)s, %(payload)s, %(reason)s, %(decided_slot)s)
on conflict (key) do update
set state = 'open', outcome = null, settled_at = null,
    reason = excluded.reason, decided_slot = excluded.decided_slot, decided_at = clock_timestamp()
where intents.state = 'void'
returning intent_id;

-- name: upsert_skip
-- The latest reason why nothing was done.
insert into engine.skips (rule, subject, reason) values (%(rule)s, %(subject)s, %(reason)s)
on conflict (rule, subject) do update set reason = excluded.reason, seen_at = clock_timestamp();

-- name: delete_skip
-- A subject that is acted on after all is no longer skipped.
delete from engine.skips where rule = %(rule)s and subject = %(subject)s;

-- name: select_actionable_intents
-- Open intents without an open attempt: the only ones that may be signed for. Fewest tries first, so that one that
-- keeps failing does not keep others waiting.
select i.intent_id, i.key, i.subject, i.payload, i.decided_slot,
       count(a.attempt_id) as tries, count(*) filter (where a.outcome = 'failed') as failures
from engine.intents i left join engine.attempts a using (intent_id)
where i.state = 'open' and i.program_id = %(program_id)s and i.rule = %(rule)s
group by i.intent_id
having count(*) filter (where a.attempt_id is not null and a.outcome is null) = 0
order by tries, i.intent_id
limit %(limit)s;

-- name: select_open_attempts
-- Signed and perhaps sent, and their end is not known: after a crash these are resumed first.
select a.attempt_id, a.intent_id, i.key, i.rule, a.signature, a.transaction, a.last_valid_block_height, a.sends,
       (select count(*) from engine.attempts b where b.intent_id = a.intent_id and b.outcome = 'failed') as failures
from engine.attempts a join engine.intents i using (intent_id)
where a.outcome is null and i.program_id = %(program_id)s
order by a.attempt_id;

-- name: insert_attempts
-- The permission to send. Refused (no row) where the lease has another epoch or has run out, where the intent is no
-- longer open, and where an attempt for it is open already. The lease row stays locked until commit, so that nobody
-- takes over in between.
insert into engine.attempts (intent_id, epoch, signature, transaction, last_valid_block_height)
select i.intent_id, l.epoch, t.signature, t.transaction, t.last_valid_block_height
from (select epoch from engine.leases
      where name = %(lease)s and holder = %(holder)s and epoch = %(epoch)s and expires_at > clock_timestamp()
      for share) l
cross join unnest(%(intent_ids)s::bigint[], %(signatures)s::bytea[], %(transactions)s::bytea[], %(heights)s::bigint[])
     as t (intent_id, signature, transaction, last_valid_block_height)
join engine.intents i on i.intent_id = t.intent_id and i.state = 'open'
on conflict do nothing
returning attempt_id, intent_id;

-- name: count_sends
-- How often the same bytes went out; written after sending, for the operator only.
update engine.attempts set sends = sends + 1 where attempt_id = any(%(attempt_ids)s::bigint[]);

-- name: settle_attempt
-- The end of an attempt and what it means for its intent, in one statement. Settling twice changes nothing.
with settled as (
    update engine.attempts
    set outcome = %(outcome)s, slot = %(slot)s, err = %(err)s, settled_at = clock_timestamp()
    where attempt_id = %(attempt_id)s and outcome is null
    returning intent_id)
update engine.intents i
set state = %(intent_state)s, outcome = %(intent_outcome)s,
    settled_at = case when %(intent_state)s = 'open' then null else clock_timestamp() end
from settled
where i.intent_id = settled.intent_id and i.state = 'open';

-- name: settle_intent
-- The end of an intent that nothing was signed for, or nothing that can still land.
update engine.intents
set state = %(state)s, outcome = %(outcome)s, settled_at = clock_timestamp()
where intent_id = %(intent_id)s and state = 'open'
  and not exists (select from engine.attempts a where a.intent_id = intents.intent_id and a.outcome is null)
returning intent_id;

-- name: acquire_lease
-- Taken where it is free or run out, renewed where it is ours; no row where another holds it. The epoch grows with
-- every taking, also with our own after it ran out: what was signed before that is not to be recorded after it.
insert into engine.leases as l (name, holder, epoch, expires_at)
values (%(name)s, %(holder)s, 1, clock_timestamp() + make_interval(secs => %(ttl_s)s))
on conflict (name) do update
set holder = excluded.holder,
    epoch = case when l.holder = excluded.holder and l.expires_at > clock_timestamp() then l.epoch else l.epoch + 1 end,
    expires_at = clock_timestamp() + make_interval(secs => %(ttl_s)s)
where l.holder = excluded.holder or l.expires_at <= clock_timestamp()
returning epoch;

-- name: release_lease
-- A holder that stops lets the next one start at once.
update engine.leases set expires_at = clock_timestamp()
where name = %(name)s and holder = %(holder)s and epoch = %(epoch)s;
