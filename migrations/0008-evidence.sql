-- Evidence: whatever activity_logs comes to say is also appended to audit_entries, in the same statement, by triggers: no
-- writer can forget it, batches stay one statement, and a serving role needs no right on audit_entries at all.
-- A sealer (src/db/audit-seals.ts) chains the entries by hash afterwards, so that appending costs an insert and no more.

-- The text of a row, byte for byte the same in every session: fixed columns in a fixed order, times in UTC with microseconds,
-- jsonb as text. src/db/audit-chain.ts has the same expression, so that a verification does not ask this database how to verify.
create function audit_canonical(a activity_logs) returns text language sql stable parallel safe
return json_build_object(
  'id', a.id, 'org_id', a.org_id, 'workspace_id', a.workspace_id, 'activity_type', a.activity_type,
  'source_id', a.source_id, 'target_id', a.target_id, 'method', a.method, 'summary', a.summary,
  'request_body', a.request_body, 'response_body', a.response_body, 'tool_trace', a.tool_trace,
  'duration_ms', a.duration_ms, 'status', a.status, 'error_detail', a.error_detail, 'actor', a.actor,
  'request_id', a.request_id, 'replica', a.replica,
  'created_at', to_char(a.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
  'finished_at', to_char(a.finished_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
  'seq', a.seq
)::text;

-- opened: a row that runs. finished: all of a row that has ended, also of one that was written ended.
create table audit_entries (
  id bigint generated always as identity primary key,
  org_id text not null,
  activity_id uuid not null,
  kind text not null check (kind in ('opened', 'finished')),
  at timestamptz not null,
  body text not null
);

-- What is not sealed yet. Identities are given before a commit, so the latest sealed id says nothing of what is still to come;
-- a queue says it whatever order transactions end in, and stays small.
create table audit_unsealed (
  org_id text not null,
  entry_id bigint not null,
  primary key (org_id, entry_id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- The chain of an org: position 1, 2, 3… without gaps. hash: src/db/audit-chain.ts.
create table audit_seals (
  org_id text not null,
  position bigint not null check (position > 0),
  entry_id bigint not null unique,
  -- So that an entry that is gone can still be named.
  activity_id uuid not null,
  hash bytea not null check (length(hash) = 32),
  primary key (org_id, position)
);

-- Ed25519 over position and hash, so over everything before: src/access/checkpoint.ts.
create table audit_checkpoints (
  org_id text not null,
  position bigint not null,
  hash bytea not null check (length(hash) = 32),
  at timestamptz not null,
  kid text not null,
  signature bytea not null,
  primary key (org_id, position)
);

-- One row: rows of activity_logs up to this seq are from before there was evidence, and may have no entry.
create table audit_beginning (
  seq bigint not null,
  at timestamptz not null default now()
);
create unique index audit_beginning_once on audit_beginning ((true));
lock table activity_logs in share row exclusive mode;
insert into audit_beginning (seq) select coalesce(max(seq), 0) from activity_logs;

create function append_audit_entries() returns trigger language plpgsql security definer as $$
begin
  with entry as (
    insert into audit_entries (org_id, activity_id, kind, at, body)
    select a.org_id, a.id, case when a.status = 'running' then 'opened' else 'finished' end, clock_timestamp(), audit_canonical(a)
    from written a
    returning org_id, id
  )
  insert into audit_unsealed (org_id, entry_id) select org_id, id from entry;
  return null;
end
$$;
create trigger activity_logs_inserted after insert on activity_logs
  referencing new table as written for each statement execute function append_audit_entries();
create trigger activity_logs_updated after update on activity_logs
  referencing new table as written for each statement execute function append_audit_entries();

-- Otherwise a row could say something else between its two entries.
create function refuse_to_change_running_activity() returns trigger language plpgsql as $$
begin
  raise exception 'activity % runs and changes only by being finished', old.id using errcode = 'restrict_violation';
end
$$;
create trigger activity_logs_running_only_finishes before update on activity_logs
  for each row when (old.status = 'running' and new.status = 'running') execute function refuse_to_change_running_activity();

-- Against mistakes of the owner. Whoever owns the tables can also drop this; what that leaves is found by verification.
create function refuse_to_change_evidence() returns trigger language plpgsql as $$
begin
  if current_setting('sallyport.prunes', true) = 'on' and tg_op = 'DELETE' then return null; end if;
  raise exception '% is append-only', tg_table_name using errcode = 'restrict_violation';
end
$$;
create trigger audit_entries_append_only before update or delete or truncate on audit_entries
  for each statement execute function refuse_to_change_evidence();
create trigger audit_seals_append_only before update or delete or truncate on audit_seals
  for each statement execute function refuse_to_change_evidence();
create trigger audit_checkpoints_append_only before update or delete or truncate on audit_checkpoints
  for each statement execute function refuse_to_change_evidence();
create trigger audit_beginning_append_only before update or delete or truncate on audit_beginning
  for each statement execute function refuse_to_change_evidence();

-- Retention. Deletes what stands below a checkpoint and rows that were finished before p_before: their entries, their seals but
-- the one at the checkpoint itself, which then starts the chain, and the idempotency keys that were judged by those rows.
-- A row of which an entry stands above the checkpoint stays, as does one that runs. Whether the signature is right is asked
-- before (src/db/audit-prune.ts); that there is one, and that no row loses its evidence, here.
create function audit_prune(p_org text, p_position bigint, p_before timestamptz)
returns table (activities bigint, entries bigint) language plpgsql as $$
begin
  if not exists (
    select from audit_checkpoints c join audit_seals s using (org_id, position, hash)
    -- The first position starts a chain without a checkpoint, and with its entry.
    where c.org_id = p_org and c.position = p_position and c.position > 1
  ) then
    raise exception 'org % has no checkpoint at position %', p_org, p_position using errcode = 'restrict_violation';
  end if;
  create temp table pruned on commit drop as
    select e.activity_id as id, max(s.position) as last
    from audit_seals s join audit_entries e on e.id = s.entry_id
    where s.org_id = p_org group by e.activity_id having max(s.position) <= p_position;
  -- Finished, but not sealed yet: it stays.
  delete from pruned using audit_unsealed u join audit_entries e on e.id = u.entry_id
    where u.org_id = p_org and pruned.id = e.activity_id;
  if exists (
    select from activity_logs a join pruned using (id)
    where a.org_id = p_org and (a.finished_at is null or a.finished_at >= p_before)
  ) then
    raise exception 'below position % of org % are rows that are to stay', p_position, p_org using errcode = 'restrict_violation';
  end if;
  insert into pruned
    select a.id, null from activity_logs a
    where a.org_id = p_org and a.finished_at < p_before and a.seq <= (select seq from audit_beginning)
      and not exists (select from pruned where pruned.id = a.id)
      and not exists (select from audit_entries e join audit_seals s on s.entry_id = e.id where s.org_id = p_org and e.activity_id = a.id)
      and not exists (select from audit_entries e join audit_unsealed u on u.entry_id = e.id where u.org_id = p_org and e.activity_id = a.id);
  delete from idempotency_keys k using pruned where k.exec_id = pruned.id and k.org_id = p_org;
  delete from activity_logs a using pruned where a.id = pruned.id and a.org_id = p_org;
  get diagnostics activities = row_count;
  perform set_config('sallyport.prunes', 'on', true);
  delete from audit_entries e using audit_seals s
    where s.org_id = p_org and s.position <= p_position and e.id = s.entry_id;
  get diagnostics entries = row_count;
  delete from audit_seals where org_id = p_org and position < p_position;
  delete from audit_checkpoints where org_id = p_org and position < p_position;
  perform set_config('sallyport.prunes', 'off', true);
  return next;
end
$$;

-- A function of its own rights must not be talked into other tables, nor be hung on somebody's own: temporary tables come
-- last, and nobody but the owner may use it.
do $$
declare
  path text := format('pg_catalog, %I, pg_temp', current_schema());
begin
  execute 'alter function append_audit_entries() set search_path = ' || path;
  execute 'alter function audit_prune(text, bigint, timestamptz) set search_path = ' || path;
end
$$;
revoke execute on function append_audit_entries() from public;
revoke execute on function audit_prune(text, bigint, timestamptz) from public;
