-- What `capstan status` asks, run by indexer/store/status.py; Postgres alone, nothing is changed.

-- name: is_there
select to_regclass('capstan.coverage') is not null;

-- name: select_programs
-- Frontier and lag of each program. The tip is what the indexer saw last. Beside it slots with a known time, unix seconds:
-- the nearest stored ones on both sides of the frontier, and the tip's own by the cluster's clock.
select p.name, p.program_id, coalesce(s.slot, 0), f.slot, tip.slot - f.slot,
       extract(epoch from clock_timestamp() - f.proven_at)::float8,
       below.slot, extract(epoch from below.block_time)::float8,
       above.slot, extract(epoch from above.block_time)::float8,
       tip.slot, extract(epoch from tip.seen_at)::float8
from capstan.programs p
left join capstan.frontiers f using (program_id)
left join capstan.history_starts s using (program_id)
left join lateral (
    select slot, block_time from capstan.transactions t
    where t.slot <= f.slot and block_time is not null order by t.slot desc limit 1) below on true
left join lateral (
    select slot, block_time from capstan.transactions t
    where t.slot > f.slot and block_time is not null order by t.slot limit 1) above on true
cross join (select max(tip_slot) as slot,
                   (array_agg(tip_time order by tip_slot desc) filter (where tip_slot is not null))[1] as seen_at
            from capstan.heartbeats) tip
order by p.name;

-- name: select_gaps
-- What lies between the ranges of the ledger, from the start of history to the tip's last proven slot.
select p.name, lower(gap.slots), upper(gap.slots) - 1
from capstan.programs p
left join capstan.history_starts s using (program_id)
cross join (select greatest(max(tip_slot), (select max(to_slot) from capstan.coverage), 0) as slot
            from capstan.heartbeats) tip
cross join lateral (
    select unnest(int8multirange(int8range(least(coalesce(s.slot, 0), tip.slot), tip.slot, '[]'))
                  - coalesce(range_agg(int8range(c.from_slot, c.to_slot, '[]')), '{}'::int8multirange)) as slots
    from capstan.coverage c where c.program_id = p.program_id) gap
order by 1, 2;

-- name: select_backfills
select b.backfill_id, array(select coalesce(p.name, encode(i.id, 'hex')) from unnest(b.program_ids) as i (id)
                            left join capstan.programs p on p.program_id = i.id),
       b.means, b.from_slot, b.to_slot, b.listed_from,
       (select count(*) from capstan.jobs j where j.backfill_id = b.backfill_id and j.state = 'open'),
       (select count(*) from capstan.jobs j where j.backfill_id = b.backfill_id and j.state = 'open'
                                              and j.leased_until > clock_timestamp() and j.holder is not null),
       (select count(*) from capstan.jobs j where j.backfill_id = b.backfill_id and j.state = 'done'),
       coalesce(b.last_error, (select j.last_error from capstan.jobs j
                               where j.backfill_id = b.backfill_id and j.state = 'open' and j.last_error is not null
                               order by j.from_slot limit 1))
from capstan.backfills b where b.done_at is null order by 1;

-- name: select_incomplete
select count(*) from capstan.transactions where not complete;

-- name: select_problems
-- Counted before they are named: there may be many.
select coalesce(p.name, encode(q.program_id, 'hex')), q.kind, q.total, q.newest
from (select program_id, kind, count(*) as total, max(slot) as newest
      from capstan.problems group by program_id, kind) q
left join capstan.programs p using (program_id)
order by 1, 2;

-- name: select_parts
select name, tip_slot, extract(epoch from clock_timestamp() - beat_at)::float8, last_error,
       extract(epoch from clock_timestamp() - last_error_at)::float8
from capstan.heartbeats order by name;
