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

-- What each replica holds of the limits on execs at once, beyond its own share of them (src/exec/room.ts).
create unlogged table exec_shares (
  replica text primary key,
  held jsonb not null
);

-- Tells every gateway that one has come or gone, so that all know soon how many share a limit.
create function tell_replica() returns trigger language plpgsql as $$
begin
  perform pg_notify('sallyport', 'replica ' || coalesce(new.replica, old.replica));
  return null;
end
$$;
create trigger exec_shares_replicas after insert or delete on exec_shares for each row execute function tell_replica();
