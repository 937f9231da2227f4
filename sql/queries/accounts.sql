-- Account state, run by indexer/store/accounts.py under the role capstan_indexer. {table} and {others} are quoted names.

-- name: lock_accounts
-- Held until the transaction ends. The two keys: "accounts", and the program.
select pg_advisory_xact_lock(213490598, hashtext(encode(%(program_id)s, 'hex')));

-- name: closure_conflict
-- The newest closure of an address stays.
on conflict (program_id, address) do update set slot = excluded.slot where t.slot < excluded.slot;

-- name: delete_outlived_closures
-- At the same slot what was written last counts, and that is the state.
delete from capstan.closures c
using unnest(%(addresses)s::bytea[], %(slots)s::bigint[]) as i (address, slot)
where c.program_id = %(program_id)s and c.address = i.address and c.slot <= i.slot;

-- name: state_conflict
-- The newest slot wins, and in a slot what was written last. The same state at a newer slot is a change of its slot.
on conflict (address) do update set {sets}, closed_slot = null, updated_at = clock_timestamp()
where excluded.slot >= greatest(t.slot, coalesce(t.closed_slot, 0))
  and (({old}) is distinct from ({new}) or t.closed_slot is not null);

-- name: close_replaced
-- The address has just been seen as another type, so this row's life is over.
update {table} t set closed_slot = i.slot, updated_at = clock_timestamp()
from unnest(%(addresses)s::bytea[], %(slots)s::bigint[]) as i (address, slot)
where t.address = i.address and t.closed_slot is null and i.slot >= t.slot;

-- name: close_superseded
-- An open row whose address was seen closed at its slot or later, or as another type later ({others} count one less),
-- is closed.
update {table} t set closed_slot = newer.slot, updated_at = clock_timestamp()
from (
    select address, max(slot) as slot
    from (
        select address, slot from capstan.closures
        where program_id = %(program_id)s and address = any(%(addresses)s)
        {others}
    ) seen
    group by address
) newer
where t.address = newer.address and t.closed_slot is null and newer.slot >= t.slot;

-- name: select_not_in_snapshot
-- Open accounts that a snapshot taken at that slot should hold and does not.
select t.address from {table} t
where t.closed_slot is null and t.slot < %(slot)s
  and not exists (select from unnest(%(alive)s::bytea[]) as a (address) where a.address = t.address);

-- name: select_open
-- Those of the addresses that are open accounts of this type.
select address from {table} where address = any(%(addresses)s) and closed_slot is null;
