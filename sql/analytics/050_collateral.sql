-- view: vaults
-- needs: collateral_vault
-- Collateral vaults as they are now, one row an address; closed ones too. Base units of the mint (1e-6 USDT).
select address as vault, owner, token_account, total_balance, locked_balance, available_balance, total_deposited,
       total_withdrawn, created_at, next_request, slot, closed_slot
from {collateral_vault}.account_collateral_vault

-- view: collateral_moves
-- needs: collateral_vault
-- What changed a vault's total, one row a vault and event: a transfer has two. Signed, 1e-6 USDT.
select vault, user as owner, 'deposit' as cause, amount::decimal(38, 0) as amount, signature, kind, ordinal, slot,
       block_time
from {collateral_vault}.event_deposit_event
union all
select vault, user, 'withdrawal', -amount::decimal(38, 0), signature, kind, ordinal, slot, block_time
from {collateral_vault}.event_withdraw_event
union all
select from_vault, from_user, 'transfer_out', -amount::decimal(38, 0), signature, kind, ordinal, slot, block_time
from {collateral_vault}.event_transfer_event
union all
select to_vault, to_user, 'transfer_in', amount::decimal(38, 0), signature, kind, ordinal, slot, block_time
from {collateral_vault}.event_transfer_event

-- view: balance_snapshots
-- needs: collateral_vault
-- A vault's total at the end of every slot that changed it: the sum of everything up to there. Whole slots, as the order
-- of transactions inside one is not known.
select vault, any_value(owner) as owner, slot, max(block_time) as block_time, sum(amount)::decimal(38, 0) as change,
       sum(sum(amount)) over (partition by vault order by slot)::decimal(38, 0) as total_balance
from collateral_moves group by vault, slot
