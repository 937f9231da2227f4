-- Transactions that are there and that no node shows us, as their version is above what we ask for.
-- One writer for everything here: the indexer (role capstan_indexer).

-- Null: the transaction was not read. Its row is not complete, and a problem of the kind unsupported_version names it.
alter table capstan.transactions alter column fee drop not null;

-- What a newer version asks for again when it starts.
create index problems_unread on capstan.problems (subject) where kind = 'unsupported_version';
