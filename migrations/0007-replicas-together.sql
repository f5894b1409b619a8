-- What the replicas count and learn together. The tables are unlogged: a change costs no write-ahead log and waits for no
-- disk, and a database that crashed comes back with them empty, which gives every credential its minute again and lets
-- every replica say anew what it holds. Neither is a record of anything.

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

-- Host keys that an admin has set end the use of sessions that were opened by others, on every gateway. Rows are written
-- behind a lock of the table, so seq grows in the order of commits and each gateway can ask what came after the last it knows.
alter table host_keys add column seq bigint generated always as identity;
create index host_keys_set_by_admin on host_keys (seq) where source = 'admin';

create function tell_host_keys() returns trigger language plpgsql as $$
begin
  perform pg_notify('sallyport', 'host_keys ' || new.region || ' ' || new.instance_id);
  return null;
end
$$;
create trigger host_keys_set_by_admin after insert on host_keys for each row
  when (new.source = 'admin') execute function tell_host_keys();
