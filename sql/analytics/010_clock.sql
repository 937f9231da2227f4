-- view: cluster_clock
-- The cluster's own time, unix seconds: of the newest slot the indexer has seen. Local clocks decide nothing.
select coalesce(
    (select max(epoch(tip_time)) from hot.capstan.heartbeats where name = 'indexer'),
    (select max(epoch(block_time)) from transactions)
)::bigint as unix_s
