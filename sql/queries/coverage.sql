-- The coverage ledger, run by indexer/store/coverage.py under the role capstan_indexer; always under lock_frontier.

-- name: select_touching
-- Ranges that overlap [from_slot, to_slot] or lie beside it.
select from_slot, to_slot, means from capstan.coverage
where program_id = %(program_id)s and from_slot <= %(to_slot)s + 1 and to_slot >= %(from_slot)s - 1
order by from_slot;

-- name: delete_ranges
delete from capstan.coverage where program_id = %(program_id)s and from_slot = any(%(from_slots)s::bigint[]);

-- name: insert_ranges
insert into capstan.coverage (program_id, from_slot, to_slot, means)
select %(program_id)s, i.from_slot, i.to_slot, i.means
from unnest(%(from_slots)s::bigint[], %(to_slots)s::bigint[], %(means)s::text[]) as i (from_slot, to_slot, means);

-- name: follow_coverage
-- The frontier is the end of the unbroken run from the start of history. It never moves back.
insert into capstan.frontiers as f (program_id, slot)
select %(program_id)s, upper(run.slots) - 1
from (select unnest(range_agg(int8range(from_slot, to_slot, '[]'))) as slots
      from capstan.coverage where program_id = %(program_id)s) run
where run.slots @> coalesce((select slot from capstan.history_starts where program_id = %(program_id)s), 0::bigint)
on conflict (program_id) do update set slot = excluded.slot, proven_at = now() where f.slot < excluded.slot;

-- name: select_start
select coalesce((select slot from capstan.history_starts where program_id = %(program_id)s), 0::bigint);

-- name: upsert_start
-- Where history starts may be said once, and earlier later on; what lies before it is proven by a backfill.
insert into capstan.history_starts as s (program_id, slot) values (%(program_id)s, %(slot)s)
on conflict (program_id) do update set slot = least(s.slot, excluded.slot);

-- name: select_coverage
select from_slot, to_slot, means from capstan.coverage where program_id = %(program_id)s order by from_slot;

-- name: select_uncovered
-- The parts of [from_slot, to_slot] that no range covers and no open backfill fills.
select lower(gap.slots), upper(gap.slots) - 1
from (select unnest(int8multirange(int8range(%(from_slot)s::bigint, %(to_slot)s::bigint, '[]'))
                    - coalesce(range_agg(int8range(known.from_slot, known.to_slot, '[]')), '{}'::int8multirange))
             as slots
      from (select from_slot, to_slot from capstan.coverage
            where program_id = %(program_id)s and to_slot >= %(from_slot)s
            union all
            select from_slot, to_slot from capstan.backfills
            where done_at is null and %(with_backfills)s and %(program_id)s = any(program_ids)) known) gap
order by 1;

-- name: select_cursor
-- A finalized signature above a slot, as near as there is one: a listing of what lies below may begin there.
select t.signature from capstan.mentions m join capstan.transactions t using (signature)
where m.program_id = %(program_id)s and m.slot > %(slot)s and t.slot = m.slot and t.commitment = 'finalized'
order by m.slot limit 1;
