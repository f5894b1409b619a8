/**
 * The AuditLog port: rows of `activity_logs`, one per exec, refusal and change.
 *
 * It does not mask (done before) and never sees output. An exec's row is one INSERT that is committed when `open`
 * resolves, and one conditional UPDATE that can only finish a running row. Decision: what became of an INSERT whose
 * answer was lost is not asked but settled, by an upsert of the same id as failed. If the INSERT is still under way, the
 * upsert waits for it; if it comes later, it fails on the id. Either way no row says `running` that nobody will finish.
 */
import { sql as raw } from 'kysely';
import type { AuditLog, OpenEntry } from '../audit.ts';
import { SallyportError } from '../errors.ts';
import { changeRow, type Entry, entryOf, type Result, refusalRow, resultOf } from './audit-rows.ts';
import { createBatch } from './batch.ts';
import type { Log } from './log.ts';
import { createOnce } from './once.ts';
import { createRefusalBudget } from './refusal-budget.ts';
import { createRetriedWrites } from './retry.ts';
import { isRefusal, mayHaveRun, type Sql } from './sql.ts';
import { storableJson } from './storable.ts';

/** What OPEN and DISOWN read from $1, and where it goes. */
const ENTRY = `
insert into activity_logs
  (id, org_id, workspace_id, activity_type, source_id, target_id, method, summary, request_body, actor, request_id, replica,
   status, response_body, error_detail, finished_at)
select
  id, org_id, workspace_id, activity_type, id::text, workspace_id, method, summary, request_body, actor, request_id, replica`;
const ENTRY_SOURCE = `
from json_to_recordset($1::json) as entry
  (id uuid, org_id text, workspace_id text, activity_type text, method text, summary text, request_body jsonb, actor text, request_id text, replica text)`;

const RUNNING = `${ENTRY}, 'running', null, null, null`;
const OPEN = `${RUNNING}${ENTRY_SOURCE}`;

const DISOWN = `${ENTRY}, 'error', '{"outcome":"unreachable"}',
  'audit_unavailable: the row could not be confirmed in time, so nothing was run', now()${ENTRY_SOURCE}
on conflict (id) do update
set status = excluded.status, response_body = excluded.response_body, error_detail = excluded.error_detail, finished_at = now()
where activity_logs.org_id = excluded.org_id and activity_logs.status = 'running'`;

/** Found by `any`, not by a join: a join is planned by what is believed of the table's size when the connection is new. */
const CLOSE = `
update activity_logs
set (status, response_body, tool_trace, duration_ms, error_detail, finished_at) = (
  select status, response_body, tool_trace, duration_ms, error_detail, now()
  from json_to_recordset($2::json) as result
    (id uuid, org_id text, status text, response_body jsonb, tool_trace jsonb, duration_ms integer, error_detail text)
  where result.id = activity_logs.id and result.org_id = activity_logs.org_id
)
where id = any($1::uuid[]) and status = 'running'
returning id, org_id`;

export interface ClosableAuditLog extends AuditLog {
  /** Rows that are not durable yet. */
  pending(): number;
  /** Nothing is retried any more; logs the refusals that got no row. */
  end(): void;
}

/** `replica`: the name of this process' presence now. */
export function createAuditLog(options: { sql: Sql; replica: () => string; log: Log }): ClosableAuditLog {
  const { sql, replica, log } = options;
  const writes = createRetriedWrites(log);
  const refusals = createRefusalBudget(log);
  const once = createOnce({ sql, insertRow: RUNNING, entrySource: ENTRY_SOURCE, completeRow: CLOSE });

  const insert = createBatch({ run: (entries: readonly Entry[]) => insertAll(sql, entries), mayDivide: isRefusal });
  const complete = createBatch({
    run: (results: readonly Result[]) => completeAll(sql, results),
    mayDivide: isRefusal,
  });

  function openEntry({ execId, orgId }: { execId: string; orgId: string }): OpenEntry {
    let isClosed = false;
    return {
      execId,
      close(result) {
        if (isClosed) throw new Error(`bug: the audit entry of exec ${execId} was closed twice`);
        isClosed = true;
        const row = resultOf({ execId, orgId }, result);
        return writes.add({ execId }, async () => {
          const isCompleted =
            result.answer === undefined ? await complete(row) : await once.complete(row, result.answer);
          // Finished by an earlier try whose answer was lost, or another replica took this one for dead.
          if (!isCompleted) log.warn({ execId }, 'an audit row was finished already');
        });
      },
    };
  }

  function settle(entry: Entry): void {
    // Kept until the database is back: without argv, which may be long. The row has it already, or the summary has to do.
    const kept = { ...entry, request_body: { actor: entry.actor } };
    // What goes wrong is logged there, and nobody waits for it.
    void writes.add({ execId: entry.id }, () => disown(sql, kept)).catch(() => {});
  }

  /** What `insert` resolves with; when nobody says what became of it, the row is settled. */
  async function confirmed<T>(entry: Entry, insert: () => Promise<T>): Promise<T> {
    try {
      return await insert();
    } catch (cause) {
      if (isSaidNo(cause)) throw cause;
      if (mayHaveRun(cause)) settle(entry);
      throw notWritten(cause);
    }
  }

  return {
    async open(facts) {
      const entry = entryOf(facts, replica());
      await confirmed(entry, () => insert(entry));
      return openEntry(facts);
    },

    async openOnce(facts, key) {
      const entry = entryOf(facts, replica());
      const answer = await confirmed(entry, () => once.take(entry, key));
      return answer === null ? { entry: openEntry(facts) } : { answer };
    },

    async refused(facts) {
      if (!refusals.take(`${facts.orgId} ${facts.actor}`)) return;
      try {
        await insertFinished(sql, refusalRow(facts, replica()));
      } catch (error) {
        log.warn({ err: error, requestId: facts.requestId, code: facts.code }, 'a refusal has no audit row');
      }
    },

    async changed(facts) {
      try {
        await insertFinished(sql, changeRow(facts, replica()));
      } catch (cause) {
        throw notWritten(cause);
      }
    },

    flush: (signal) => writes.settled(signal),

    pending: () => writes.pending(),

    end() {
      writes.close();
      refusals.end();
    },
  };
}

/** The key is another request's: nothing was written. */
function isSaidNo(error: unknown): boolean {
  return error instanceof SallyportError && error.code !== 'audit_unavailable';
}

function notWritten(cause: unknown): SallyportError {
  return new SallyportError('audit_unavailable', 'the audit row could not be written, so nothing was done', {
    retryable: true,
    retryAfterS: 1,
    cause,
  });
}

async function insertAll(sql: Sql, entries: readonly Entry[]): Promise<undefined[]> {
  await sql.run({ name: 'audit_open', text: OPEN, values: [storableJson(entries)] });
  return [];
}

async function disown(sql: Sql, entry: Omit<Entry, 'request_body'>): Promise<void> {
  await sql.run({ name: 'audit_disown', text: DISOWN, values: [storableJson([entry])] });
}

/** Per result: whether its row was running until now. */
async function completeAll(sql: Sql, results: readonly Result[]): Promise<boolean[]> {
  const values = [results.map(({ id }) => id), storableJson(results)];
  const { rows } = await sql.run<{ id: string }>({ name: 'audit_close', text: CLOSE, values });
  const completed = new Set(rows.map(({ id }) => id));
  return results.map(({ id }) => completed.has(id));
}

async function insertFinished(
  sql: Sql,
  row: ReturnType<typeof refusalRow> | ReturnType<typeof changeRow>,
): Promise<void> {
  await sql.kysely
    .insertInto('activity_logs')
    .values({ ...row, finished_at: raw<Date>`now()` })
    .execute();
}
