-- view: sessions
-- needs: ephemeral_vault
-- One row a session, (vault, session_start), with everything that happened in it. state: cleaned once the vault is gone,
-- else revoked once access was, else expired by the cluster's clock, else active. Amounts in lamports.
with happened as (
    select vault, session_start,
           sum(amount) filter (where name = 'AutoDeposit') as deposited,
           count(*) filter (where name = 'AutoDeposit') as deposits,
           sum(amount) filter (where name = 'TradeExecuted') as spent,
           count(*) filter (where name = 'TradeExecuted') as trades,
           max(block_time) as last_activity_at,
           max(slot) as last_activity_slot,
           max(block_time) filter (where name = 'AccessRevoked') as revoked_at,
           bool_or(name = 'AccessRevoked') as revoked,
           max(block_time) filter (where name = 'VaultCleaned') as cleaned_at,
           bool_or(name = 'VaultCleaned') as cleaned,
           any_value(actor) filter (where name = 'VaultCleaned') as cleaner,
           any_value(amount) filter (where name = 'VaultCleaned') as reward
    from vault_transactions
    where session_start is not null
    group by vault, session_start
),
gone as (
    -- Where the cleanup's event was lost with its logs, the closed account still tells.
    select address as vault, session_start from {ephemeral_vault}.account_ephemeral_vault where closed_slot is not null
)
select l.vault, l.session_start, l.session_expiry, l.parent, l.ephemeral_wallet, l.max_deposit,
       coalesce(h.deposited, 0)::decimal(38, 0) as deposited, coalesce(h.deposits, 0) as deposits,
       coalesce(h.spent, 0)::decimal(38, 0) as spent, coalesce(h.trades, 0) as trades,
       l.created_slot, l.created_at, l.signature as created_signature,
       h.last_activity_slot, h.last_activity_at, h.revoked_at, h.cleaned_at, h.cleaner, h.reward,
       case when coalesce(h.cleaned, false) or g.vault is not null then 'cleaned'
            when coalesce(h.revoked, false) then 'revoked'
            when l.session_expiry <= (select unix_s from cluster_clock) then 'expired'
            else 'active' end as state
from vault_lives l
left join happened h using (vault, session_start)
left join gone g using (vault, session_start)

-- view: delegations
-- needs: ephemeral_vault
-- Delegations as they are now, one row an address; closed ones too.
select address, vault, delegate, approved_at, revoked_at, slot, closed_slot
from {ephemeral_vault}.account_vault_delegation
