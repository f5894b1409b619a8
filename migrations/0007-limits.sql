-- What the replicas count together. Both tables are unlogged: a change costs no write-ahead log and waits for no disk, and
-- a database that crashed comes back with them empty, which gives every credential its minute again and lets every
-- replica say anew what it holds. Neither is a record of anything.

-- Requests of a credential in its present minute. Columns and their order are those of rate-limiter-flexible; expire in ms
-- since 1970. The key is a digest, so no name of a person stands here.
create unlogged table rates (
  key text primary key,
  points integer not null,
  expire bigint not null
);
