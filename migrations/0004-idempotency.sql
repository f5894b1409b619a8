-- Requests that must not run twice. A key is taken in the transaction that opens the audit row of its exec; what became of
-- it is read from that row, so that no crash can part the two:
--   the row is running                    the first request is under way
--   answer is set                         the first request was answered so; it is answered so again
--   the row is interrupted                nobody can say how it ended; it is never run again
--   the row is finished without an answer the program was never asked to start, and the key is free
create table idempotency_keys (
  org_id text not null,
  workspace_id text not null,
  actor text not null,
  key text not null,
  -- Keyed: bodies hold secrets, and a plain digest of a short one can be guessed.
  body_hash text not null,
  exec_id uuid not null unique,
  -- Status and terminal frame as they were sent; never output.
  answer jsonb,
  created_at timestamptz not null default now(),
  primary key (org_id, workspace_id, actor, key)
);
create index idempotency_keys_by_age on idempotency_keys (org_id, created_at);
