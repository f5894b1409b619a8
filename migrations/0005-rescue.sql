-- Evidence from hosts that failed: masked before it comes here, the latest few of a workspace. Found by org and workspace
-- together, so that a workspace that moves leaves its evidence with the org it was collected in.
create table rescues (
  id uuid primary key,
  org_id text not null,
  workspace_id text not null,
  actor text not null,
  diagnosis jsonb not null,
  sections jsonb not null,
  created_at timestamptz not null default now(),
  seq bigint generated always as identity
);
create index rescues_of_workspace on rescues (org_id, workspace_id, seq desc);
