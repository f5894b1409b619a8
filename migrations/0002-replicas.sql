-- The gateways that share this database, and who ends what a dead one has left. All times are this server's.

-- steady_since: since when it has renewed its presence without a gap. After an outage nobody has, so nobody takes the
-- others for dead before they had the time to come back. over_at: declared over by another; never taken back.
create table replicas (
  id text primary key,
  started_at timestamptz not null default now(),
  seen_at timestamptz not null default now(),
  steady_since timestamptz not null default now(),
  over_at timestamptz
);

-- Running rows of replicas that are over, each claimed by the one that ends the program and finishes the row. A claim
-- lasts as long as its claimer's presence.
create table reaps (
  exec_id uuid primary key,
  org_id text not null,
  replica text not null
);

-- When the workspace got its host: what ran before is not to be looked for on this one.
alter table workspaces add column placed_at timestamptz not null default now();

create function note_placement() returns trigger language plpgsql as $$
begin
  new.placed_at := clock_timestamp();
  return new;
end
$$;
create trigger workspaces_placed before update on workspaces for each row when (
  (old.driver, old.instance_id, old.region, old.os_user, old.host, old.port, old.container)
  is distinct from (new.driver, new.instance_id, new.region, new.os_user, new.host, new.port, new.container)
) execute function note_placement();
