-- What the pages ask, run by indexer/store/reader.py in DuckDB over the views of sql/analytics/ (lake and hot rows
-- together, everything once). Amounts in lamports, times UTC; keys and signatures leave the reader in base58.

-- name: overview_counts
-- One row: sessions by state, and what all of them moved.
select count(*) filter (where state = 'active') as active,
       count(*) filter (where state = 'expired') as expired,
       count(*) filter (where state = 'revoked') as revoked,
       count(*) filter (where state = 'cleaned') as cleaned,
       coalesce(sum(deposited), 0)::decimal(38, 0) as deposited,
       coalesce(sum(spent), 0)::decimal(38, 0) as fees,
       count(cleaner) as cleanups,
       coalesce(sum(reward), 0)::decimal(38, 0) as rewards
from sessions;

-- name: deposits_per_day
-- Days (UTC) with deposits, oldest first.
select block_time::date as day, sum(amount)::decimal(38, 0) as lamports, count(*) as deposits
from vault_events where name = 'AutoDeposit' and block_time is not null group by day order by day;

-- name: fees_per_day
-- Days (UTC) with trades, oldest first.
select block_time::date as day, sum(amount)::decimal(38, 0) as lamports, count(*) as trades
from vault_events where name = 'TradeExecuted' and block_time is not null group by day order by day;

-- name: cleanups_per_day
-- Days (UTC) with cleanups, those that were rewarded and those that only cost their fee, oldest first.
select block_time::date as day, count(*) filter (where amount > 0) as rewarded,
       count(*) filter (where amount = 0) as unrewarded
from vault_events where name = 'VaultCleaned' and block_time is not null group by day order by day;

-- name: recent_cleanups
-- params: limit int
-- The newest cleanups, newest first. session_start is null where the session's creation is not known.
select vault, session_start, cleaner, reward, signature, slot, block_time as "when"
from cleanup_events order by slot desc, signature limit $limit;

-- name: freshness
-- One row: how new the numbers are. Seconds are null where nothing was reported yet.
select (select max(slot) from transactions) as newest_slot,
       (select max(tip_slot) from hot.capstan.heartbeats where name = 'indexer') as tip_slot,
       (select min(slot) from hot.capstan.frontiers) as frontier_slot,
       (select greatest(epoch(max(tip_time)) - epoch((select max(block_time) from transactions)), 0)
        from hot.capstan.heartbeats where name = 'indexer') as behind_s,
       (select epoch(now()) - epoch(max(beat_at)) from hot.capstan.heartbeats where name = 'indexer') as beat_age_s,
       (select epoch(max(expires_at)) - epoch(now()) from hot.engine.leases) as engine_lease_left_s,
       (select any_value(last_error) from hot.capstan.heartbeats
        where name = 'indexer' and last_error_at > now() - interval '5 minutes') as last_error;

-- name: sessions
-- params: state text, text key_prefix, parent key_prefix, limit int, offset int
-- One page of sessions, newest first. `text` is the beginning of the vault's or the parent's address, `parent` of the
-- parent's; empty or null filters nothing.
select vault, session_start, session_expiry, parent, ephemeral_wallet, state, max_deposit, deposited, spent, trades
from sessions s
where ($state is null or state = $state)
  and ($text is null
       or len(list_filter($text, lambda r: s.vault between r.first and r.last or s.parent between r.first and r.last)) > 0)
  and ($parent is null or len(list_filter($parent, lambda r: s.parent between r.first and r.last)) > 0)
order by created_slot desc, vault limit $limit offset $offset;

-- name: count_sessions
-- params: state text, text key_prefix, parent key_prefix
-- How many sessions `sessions` would page through.
select count(*) as n
from sessions s
where ($state is null or state = $state)
  and ($text is null
       or len(list_filter($text, lambda r: s.vault between r.first and r.last or s.parent between r.first and r.last)) > 0)
  and ($parent is null or len(list_filter($parent, lambda r: s.parent between r.first and r.last)) > 0);

-- name: session
-- params: vault pubkey, session_start int
-- One session, or no row.
select vault, session_start, session_expiry, parent, ephemeral_wallet, state, max_deposit, deposited, spent, trades
from sessions where vault = $vault and session_start = $session_start;

-- name: session_story
-- params: vault pubkey, session_start int
-- The events of one session in their order. Inside a slot the order of transactions is not known: creation comes first,
-- cleanup last, and events of one transaction stay together in their own order.
select name, signature, slot, block_time as "when", amount, total, actor
from vault_transactions
where vault = $vault and session_start = $session_start
order by slot, phase = 5, phase <> 0, min(phase) over (partition by slot, signature), signature, ordinal;
