-- What a comparison with another witness reads, run by indexer/store/audit.py. Reads only.

-- name: progress
-- The lowest frontier, all transactions, and those that are not finalized yet.
select (select min(f.slot) from capstan.programs p left join capstan.frontiers f using (program_id)
        having count(*) = count(f.slot)),
       count(*), count(*) filter (where commitment = 'confirmed')
from capstan.transactions;

-- name: transactions
select signature, slot, err is not null, commitment = 'finalized',
       (extract(epoch from indexed_at) * 1000000)::bigint * 1000
from capstan.transactions;

-- name: problems
select count(*) from capstan.problems;

-- name: typed_tables
select p.name, t.type_name, t.schema_name, t.table_name, t.columns
from capstan.typed_tables t join capstan.programs p using (schema_name)
where t.kind = %(kind)s
order by t.schema_name, t.table_name;

-- name: intents
select state, count(*) from engine.intents group by state;
