/**
 * Idempotency keys: taken together with the audit row, in one statement, and judged by that row.
 *
 * There is no separate mark for "asked to start": the row is committed before any byte is sent, and a key whose row is
 * finished without an answer was never asked. So requests with a key make no round trip more than others.
 */
import type { GivenAnswer, OnceKey } from '../audit.ts';
import { SallyportError } from '../errors.ts';
import { IDEMPOTENCY_LIFE_S } from '../limits.ts';
import type { Entry, Result } from './audit-rows.ts';
import type { Sql } from './sql.ts';
import { storableJson } from './storable.ts';

/** More than two must be lost in a row to other requests with the same key; then they are under way. */
const TRIES = 3;

/** $1: the entry, as one element of an array; $2: key; $3: hash. Each new key takes two old ones of its org away. */
const takeKey = (insertRow: string, entrySource: string): string => `
with asked as (
  select id, org_id, workspace_id, actor
  from json_to_recordset($1::json) as entry (id uuid, org_id text, workspace_id text, actor text)
), taken as (
  insert into idempotency_keys as k (org_id, workspace_id, actor, key, body_hash, exec_id)
  select org_id, workspace_id, actor, $2, $3, id from asked
  on conflict (org_id, workspace_id, actor, key) do update
  set body_hash = excluded.body_hash, exec_id = excluded.exec_id, answer = null, created_at = now()
  where exists (
    select from activity_logs a
    where a.id = k.exec_id and a.org_id = k.org_id and a.finished_at is not null
      and (k.created_at < now() - interval '${IDEMPOTENCY_LIFE_S} s' or (k.answer is null and a.status <> 'interrupted'))
  )
  returning exec_id
), forgotten as (
  delete from idempotency_keys where exec_id in (
    select old.exec_id from idempotency_keys old, asked
    where old.org_id = asked.org_id and old.created_at < now() - interval '${2 * IDEMPOTENCY_LIFE_S} s' and old.key <> $2
    order by old.created_at limit 2
    for update of old skip locked
  )
)
${insertRow}${entrySource} where entry.id in (select exec_id from taken)
returning id`;

const FIRST = `
select k.body_hash, k.exec_id, k.answer, a.status, a.response_body
from idempotency_keys k join activity_logs a on a.id = k.exec_id and a.org_id = k.org_id
where k.org_id = $1 and k.workspace_id = $2 and k.actor = $3 and k.key = $4`;

/** $3: the answer. Kept by the statement that finishes the row, or not at all: another has said then how it ended. */
const completeWithAnswer = (completeRow: string): string => `
with completed as (${completeRow}), kept as (
  update idempotency_keys k set answer = $3 from completed where k.exec_id = completed.id and k.org_id = completed.org_id
)
select id from completed`;

interface FirstRow {
  body_hash: string;
  exec_id: string;
  answer: Omit<GivenAnswer, 'execId'> | null;
  status: string;
  response_body: Record<string, unknown> | null;
}

export interface Once {
  /** Null: the key is taken and the row is open. Otherwise what the first request was answered. */
  take(entry: Entry, once: OnceKey): Promise<GivenAnswer | null>;
  /** Finishes the row and keeps the answer, both or neither. False: the row was finished already. */
  complete(result: Result, answer: Omit<GivenAnswer, 'execId'>): Promise<boolean>;
}

/** `insertRow`, `entrySource` and `completeRow`: the audit log's own, the last with the parameters $1 and $2. */
export function createOnce(options: { sql: Sql; insertRow: string; entrySource: string; completeRow: string }): Once {
  const { sql, completeRow } = options;
  const completing = completeWithAnswer(completeRow);
  const text = takeKey(options.insertRow, options.entrySource);

  return {
    async take(entry, { key, bodyHash }) {
      const { org_id, workspace_id, actor } = entry;
      for (let tries = 0; tries < TRIES; tries += 1) {
        const values = [storableJson([entry]), key, bodyHash];
        if ((await sql.run({ name: 'once_take', text, values })).rows.length > 0) return null;
        const keyValues = [org_id, workspace_id, actor, key];
        const { rows } = await sql.run<FirstRow>({ name: 'once_first', text: FIRST, values: keyValues });
        const [first] = rows;
        if (first === undefined) continue; // Forgotten between the two statements.
        if (first.body_hash !== bodyHash) throw mismatch();
        // Also while its row is about to be finished: the program has ended.
        if (first.answer !== null) return { execId: first.exec_id, ...first.answer };
        if (first.status === 'running') throw inProgress();
        if (first.status === 'interrupted') return interrupted(first);
        // It ended without being asked to start, just now: the key is free.
      }
      throw inProgress();
    },
    async complete(result, answer) {
      const values = [[result.id], storableJson([result]), storableJson(answer)];
      return (await sql.run({ name: 'once_complete', text: completing, values })).rows.length > 0;
    },
  };
}

function mismatch(): SallyportError {
  return new SallyportError(
    'idempotency_mismatch',
    'Idempotency-Key: this key was used with another body; a key belongs to one request',
  );
}

function inProgress(): SallyportError {
  return new SallyportError('idempotency_in_progress', 'Idempotency-Key: the first request with this key still runs', {
    retryable: true,
  });
}

/** The first request got no answer that anybody knows of; this is what its row says. */
function interrupted({ exec_id, response_body }: FirstRow): GivenAnswer {
  const { outcome, survivors } = response_body ?? {};
  const frame = {
    error: 'the gateway that ran this died; how the program ended is not known',
    code: 'internal',
    outcome,
    exec_id,
    complete: false,
    survivors,
    replayed: true,
  };
  return { execId: exec_id, status: 500, frame };
}
