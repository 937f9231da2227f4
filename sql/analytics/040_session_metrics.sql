-- view: session_metrics
-- needs: ephemeral_vault
-- One row a day (UTC) of the chain: sessions begun and ended, what was deposited and spent. Lamports, seconds.
with begun as (
    select created_at::date as day, count(*) as created,
           avg(session_expiry - session_start)::bigint as duration_s_mean
    from vault_lives where created_at is not null group by day
),
moved as (
    select block_time::date as day,
           coalesce(sum(amount) filter (where name = 'AutoDeposit'), 0)::decimal(38, 0) as deposited,
           count(*) filter (where name = 'AutoDeposit') as deposits,
           coalesce(sum(amount) filter (where name = 'TradeExecuted'), 0)::decimal(38, 0) as spent,
           count(*) filter (where name = 'TradeExecuted') as trades,
           count(*) filter (where name = 'AccessRevoked') as revoked,
           count(*) filter (where name = 'VaultCleaned') as cleaned,
           coalesce(sum(amount) filter (where name = 'VaultCleaned'), 0)::decimal(38, 0) as rewards
    from vault_events where block_time is not null group by day
)
select day, coalesce(created, 0) as created, duration_s_mean, coalesce(deposited, 0)::decimal(38, 0) as deposited,
       coalesce(deposits, 0) as deposits, coalesce(spent, 0)::decimal(38, 0) as spent, coalesce(trades, 0) as trades,
       coalesce(revoked, 0) as revoked, coalesce(cleaned, 0) as cleaned,
       coalesce(rewards, 0)::decimal(38, 0) as rewards
from begun full join moved using (day)
