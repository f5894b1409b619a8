-- Tenants, their workspaces and tokens, the audit log, and the host keys that were pinned.

create table orgs (
  id text primary key,
  name text not null,
  frozen boolean not null default false,
  created_at timestamptz not null default now()
);

-- A deleted workspace stays as a row: its id is never given to another org, and old audit rows still name something.
create table workspaces (
  id text primary key,
  org_id text not null references orgs (id),
  name text not null,
  tier integer not null,
  labels jsonb not null default '{}',
  driver text not null,
  instance_id text,
  region text,
  os_user text not null,
  host text,
  port integer,
  container text,
  route text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  constraint workspaces_target check (
    case driver
      when 'ec2' then region is not null
      when 'ssh' then host is not null and port is not null
      when 'docker' then container is not null
      when 'local' then true
      else false
    end
  )
);
create index workspaces_of_org on workspaces (org_id, id);
-- One instance has one tenant, over all orgs. Rows without an instance id do not take part (nulls are distinct).
create unique index workspaces_instance on workspaces (region, instance_id) where deleted_at is null;

-- The claims of a token, never the token.
create table tokens (
  id text primary key,
  org_id text not null references orgs (id),
  workspace_id text references workspaces (id),
  kind text not null check (kind in ('org', 'workspace')),
  name text not null,
  scopes jsonb not null,
  allow jsonb,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  revoked_at timestamptz,
  created_by text not null,
  seq bigint generated always as identity
);
create index tokens_of_org on tokens (org_id, seq desc);

-- id: the exec id for execs. source_id: the exec id for execs, null for everything else. target_id: what was acted on,
-- for execs the workspace. method: 'exec' for execs, otherwise HTTP method and route.
-- No foreign keys: a refused row names ids that may not exist, and the insert is on the way of every exec.
create table activity_logs (
  id uuid primary key,
  org_id text not null,
  workspace_id text,
  activity_type text not null,
  source_id text,
  target_id text,
  method text not null,
  summary text not null,
  request_body jsonb,
  response_body jsonb,
  tool_trace jsonb,
  duration_ms integer,
  status text not null,
  error_detail text,
  actor text not null,
  request_id text not null,
  replica text not null,
  created_at timestamptz not null default now(),
  finished_at timestamptz,
  seq bigint generated always as identity,
  constraint activity_logs_status check (
    status in ('running', 'ok', 'error', 'timeout', 'cancelled', 'refused', 'interrupted')
  ),
  constraint activity_logs_finished check ((status = 'running') = (finished_at is null))
);
create index activity_logs_of_org on activity_logs (org_id, seq desc);
create index activity_logs_of_workspace on activity_logs (org_id, workspace_id, seq desc);
-- Not "where status = 'running'": the statement that finishes a row by its id says that, and would be planned over all
-- running rows while they are few.
create index activity_logs_running on activity_logs (org_id, workspace_id) where finished_at is null;

create function refuse_to_change_finished_activity() returns trigger language plpgsql as $$
begin
  raise exception 'activity % is finished and never changes', old.id using errcode = 'restrict_violation';
end
$$;
create trigger activity_logs_finished_never_changes before update on activity_logs
  for each row when (old.status <> 'running') execute function refuse_to_change_finished_activity();

-- An instance's keys, whoever's it is: (region, instance id) is unique over all orgs.
create table host_keys (
  region text not null,
  instance_id text not null,
  type text not null,
  blob text not null,
  source text not null check (source in ('console', 'first-use', 'admin')),
  pinned_at timestamptz not null default now(),
  primary key (region, instance_id, type, blob)
);
