-- Transactions that are not complete: those whose logs were cut or absent, and those that were not read at all.
-- One writer for everything here: the indexer (role capstan_indexer).

-- Null: no node showed us the transaction, as its version is above what we ask for. Its row is not complete, and a
-- problem of the kind unsupported_version names it; the problem's ordinal is the version.
alter table capstan.transactions alter column fee drop not null;

-- What a newer version asks for again when it starts.
create index problems_unread on capstan.problems (subject) where kind = 'unsupported_version';

-- They are counted every half minute, and are few among many.
create index transactions_incomplete on capstan.transactions (slot) where not complete;
