-- Backfills and their jobs, run by indexer/store/jobs.py under the role capstan_indexer. The database's clock decides
-- over leases.

-- name: insert_backfills
insert into capstan.backfills (program_ids, means, from_slot, to_slot)
select %(program_ids)s, %(means)s, i.from_slot, i.to_slot
from unnest(%(from_slots)s::bigint[], %(to_slots)s::bigint[]) as i (from_slot, to_slot);

-- name: select_open_backfills
-- Those of programs that this process knows.
select backfill_id, program_ids, means, from_slot, to_slot, listed_from, cursor
from capstan.backfills where done_at is null and program_ids <@ %(program_ids)s::bytea[]
order by backfill_id;

-- name: claim_listing
-- The listing of one open backfill that nobody walks and that is not too far ahead of its jobs.
update capstan.backfills b
set holder = %(holder)s, leased_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
where b.backfill_id = (
    select backfill_id from capstan.backfills c
    where done_at is null and program_ids <@ %(program_ids)s::bytea[]
      and listed_from is distinct from from_slot
      and (leased_until is null or leased_until < clock_timestamp() or holder = %(holder)s)
      and (select count(*) from capstan.jobs j where j.backfill_id = c.backfill_id and j.state = 'open')
          < %(jobs_ahead_max)s
    order by backfill_id limit 1 for update skip locked)
returning backfill_id, program_ids, means, from_slot, to_slot, listed_from, cursor;

-- name: note_listing
-- One step of a listing; no row where somebody else walks it by now.
update capstan.backfills
set listed_from = %(from_slot)s, cursor = %(cursor)s, last_error = null,
    leased_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
where backfill_id = %(backfill_id)s and holder = %(holder)s and done_at is null
  and coalesce(listed_from - 1, to_slot) = %(to_slot)s
returning (select count(*) from capstan.jobs j
           where j.backfill_id = %(backfill_id)s and j.state = 'open') < %(jobs_ahead_max)s;

-- name: release_listing
update capstan.backfills set holder = null, leased_until = null, last_error = coalesce(%(error)s::text, last_error)
where backfill_id = %(backfill_id)s and holder = %(holder)s;

-- name: insert_job
insert into capstan.jobs (backfill_id, from_slot, to_slot, signatures, slots, transactions)
values (%(backfill_id)s, %(from_slot)s, %(to_slot)s, %(signatures)s, %(slots)s, %(transactions)s);

-- name: claim_job
-- The lowest open piece that nobody holds: the frontier follows from below.
update capstan.jobs j
set holder = %(holder)s, attempts = attempts + 1,
    leased_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
from capstan.backfills b
where b.backfill_id = j.backfill_id and j.job_id = (
    select c.job_id from capstan.jobs c join capstan.backfills d using (backfill_id)
    where c.state = 'open' and d.done_at is null and d.program_ids <@ %(program_ids)s::bytea[]
      and (c.leased_until is null or c.leased_until < clock_timestamp())
    order by c.backfill_id, c.from_slot limit 1 for update of c skip locked)
returning j.job_id, j.backfill_id, b.program_ids, b.means, j.from_slot, j.to_slot, j.signatures, j.slots;

-- name: renew_job
update capstan.jobs set leased_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
where job_id = %(job_id)s and holder = %(holder)s and state = 'open'
returning job_id;

-- name: release_job
update capstan.jobs
set holder = null, last_error = %(error)s,
    leased_until = clock_timestamp() + make_interval(secs => least(attempts, 10) * %(pause_s)s)
where job_id = %(job_id)s and holder = %(holder)s and state = 'open';

-- name: complete_job
-- No row where the lease went to somebody else, and with it the right to say that this is done.
update capstan.jobs
set state = 'done', done_at = clock_timestamp(), signatures = null, slots = null, leased_until = null,
    transactions = %(transactions)s, last_error = null
where job_id = %(job_id)s and holder = %(holder)s and state = 'open'
returning job_id;

-- name: finish_backfills
-- Everything is listed and every job is done.
with finished as (
    update capstan.backfills b
    set done_at = clock_timestamp(), holder = null, leased_until = null,
        transactions = (select coalesce(sum(j.transactions), 0) from capstan.jobs j
                        where j.backfill_id = b.backfill_id)
    where b.done_at is null and b.listed_from = b.from_slot and b.program_ids <@ %(program_ids)s::bytea[]
      and not exists (select from capstan.jobs j where j.backfill_id = b.backfill_id and j.state = 'open')
    returning b.backfill_id),
gone as (delete from capstan.jobs j using finished f where j.backfill_id = f.backfill_id)
select backfill_id from finished;

-- name: select_progress
-- All open backfills together: slots asked for, listed and done; transactions listed and done; jobs open.
select coalesce(sum(b.to_slot - b.from_slot + 1), 0)::bigint,
       coalesce(sum(case when b.listed_from is null then 0 else b.to_slot - b.listed_from + 1 end), 0)::bigint,
       coalesce(sum(j.slots_done), 0)::bigint,
       coalesce(sum(j.listed), 0)::bigint,
       coalesce(sum(j.done), 0)::bigint,
       coalesce(sum(j.open), 0)::bigint,
       count(*)
from capstan.backfills b
left join lateral (
    select sum(to_slot - from_slot + 1) filter (where state = 'done') as slots_done,
           sum(transactions) as listed,
           sum(transactions) filter (where state = 'done') as done,
           count(*) filter (where state = 'open') as open
    from capstan.jobs where backfill_id = b.backfill_id) j on true
where b.done_at is null and b.program_ids <@ %(program_ids)s::bytea[];
