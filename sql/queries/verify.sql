-- What `capstan verify` and `capstan repair` ask and change, run by indexer/store/verify.py under the role
-- capstan_indexer. The hot_ and lake_ queries are DuckDB's; {names} are quoted by the caller.

-- name: select_stored_range
-- Everything of a program that is stored in [from_slot, to_slot].
select t.signature, t.slot, t.err, t.complete, t.commitment, t.fee is not null
from capstan.mentions m join capstan.transactions t on t.signature = m.signature and t.slot = m.slot
where m.program_id = %(program_id)s and m.slot between %(from_slot)s and %(to_slot)s;

-- name: select_stored_elsewhere
select signature, slot, err, complete, commitment, fee is not null from capstan.transactions
where signature = any(%(signatures)s);

-- name: delete_wrong_transactions
-- What the finalized chain does not have there, whatever was believed of it.
delete from capstan.transactions t
using unnest(%(signatures)s::bytea[], %(slots)s::bigint[]) as i (signature, slot)
where t.signature = i.signature and t.slot = i.slot
returning t.signature;

-- name: note_wrong_transactions
-- The exporter takes these out of the lake, and writes what is stored of them now.
insert into capstan.late_transactions (signature) select unnest(%(signatures)s::bytea[])
on conflict (signature) do update set noted_at = clock_timestamp();
