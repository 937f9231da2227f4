-- view: vault_lives
-- needs: ephemeral_vault
-- One row a session: its creation. A vault address can live again, so a session is (vault, session_start).
select vault, session_start, session_expiry, parent, ephemeral_wallet, max_deposit,
       signature, ordinal, slot as created_slot, block_time as created_at
from {ephemeral_vault}.event_vault_created
qualify row_number() over (partition by vault, session_start order by slot, ordinal) = 1

-- view: vault_events
-- needs: ephemeral_vault
-- Every event of the program in one shape. phase: created first, cleaned last, what is between by its order there.
select 'VaultCreated' as name, 0 as phase, vault, signature, ordinal, slot, block_time, max_deposit as amount,
       null::ubigint as total, parent as actor
from {ephemeral_vault}.event_vault_created
union all
select 'DelegateApproved', 1, vault, signature, ordinal, slot, block_time, null, null, delegate
from {ephemeral_vault}.event_delegate_approved
union all
select 'AutoDeposit', 2, vault, signature, ordinal, slot, block_time, amount, total_deposited, null
from {ephemeral_vault}.event_auto_deposit
union all
select 'TradeExecuted', 3, vault, signature, ordinal, slot, block_time, fee_paid, total_spent, delegate
from {ephemeral_vault}.event_trade_executed
union all
select 'AccessRevoked', 4, vault, signature, ordinal, slot, block_time, null, null, parent
from {ephemeral_vault}.event_access_revoked
union all
select 'VaultCleaned', 5, vault, signature, ordinal, slot, block_time, reward, null, cleaner
from {ephemeral_vault}.event_vault_cleaned

-- view: vault_transactions
-- needs: ephemeral_vault
-- Every event with the session it belongs to; session_start is null where the creation is not known. An event belongs to
-- the vault's newest session at its slot; a cleanup to the one that began in an earlier slot, as the session that begins
-- in the same slot begins after it.
with begun as (select vault, session_start, created_slot from vault_lives),
bounded as (
    select *, case when phase = 5 then slot - 1 else slot end as begun_by from vault_events
),
placed as (
    select e.*, b.session_start
    from bounded e asof left join begun b on e.vault = b.vault and e.begun_by >= b.created_slot
)
select p.name, p.vault, coalesce(p.session_start, b.session_start) as session_start, p.signature, p.ordinal, p.slot,
       p.block_time, p.amount, p.total, p.actor, p.phase
from placed p
left join begun b on p.phase = 5 and p.session_start is null and b.vault = p.vault and b.created_slot = p.slot

-- view: cleanup_events
-- needs: ephemeral_vault
-- One row a cleanup, with the session it ended.
select t.vault, t.session_start, e.parent, e.cleaner, e.reward, t.signature, t.slot, t.block_time
from vault_transactions t
join {ephemeral_vault}.event_vault_cleaned e using (signature, ordinal)
where t.phase = 5
