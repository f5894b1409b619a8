/**
 * The AuditLog port: rows of `activity_logs`, one per exec, refusal and change.
 *
 * It does not mask (done before) and never sees output. An exec's row is one INSERT that is committed when `open`
 * resolves, and one conditional UPDATE that can only finish a running row. Decision: what became of an INSERT whose
 * answer was lost is not asked but settled, by an upsert of the same id as failed. If the INSERT is still under way, the
 * upsert waits for it; if it comes later, it fails on the id. Either way no row says `running` that nobody will finish.
 */
import { randomUUID } from 'node:crypto';
import type { AuditLog, ChangeFacts, ExecRequestFacts, ExecResultFacts, OpenEntry, RefusalFacts } from '../audit.ts';
import { SallyportError } from '../errors.ts';
import { SUMMARY_MAX_CHARS } from '../limits.ts';
import { auditStatus } from '../outcome.ts';
import type { Log } from './log.ts';
import { createRefusalBudget } from './refusal-budget.ts';
import { createRetriedWrites } from './retry.ts';
import { refusalOf, type Sql } from './sql.ts';
import { cutText, storableJson, storableText } from './storable.ts';

/** Ids, methods and routes as they came: an odd one must not be too long for an index. */
const WORD_MAX_CHARS = 200;
const DETAIL_MAX_CHARS = 2_000;

const OPEN = `
insert into activity_logs
  (id, org_id, workspace_id, activity_type, source_id, target_id, method, summary, request_body, status, actor, request_id, replica)
values ($1::uuid, $2, $3, 'workspace_exec', $1::text, $3, 'exec', $4, $5, 'running', $6, $7, $8)`;

const CLOSE = `
update activity_logs
set status = $3, response_body = $4, tool_trace = $5, duration_ms = $6, error_detail = $7, finished_at = now()
where org_id = $1 and id = $2 and status = 'running'`;

/** OPEN's columns and parameters, then $9 what is known of the end. */
const DISOWN = `
insert into activity_logs
  (id, org_id, workspace_id, activity_type, source_id, target_id, method, summary, request_body, status, actor, request_id, replica,
   response_body, error_detail, finished_at)
values ($1::uuid, $2, $3, 'workspace_exec', $1::text, $3, 'exec', $4, $5, 'error', $6, $7, $8,
   '{"outcome":"unreachable"}', 'audit_unavailable: the row could not be confirmed in time, so nothing was run', now())
on conflict (id) do update
set status = excluded.status, response_body = excluded.response_body, error_detail = excluded.error_detail, finished_at = now()
where activity_logs.org_id = excluded.org_id and activity_logs.status = 'running'`;

/** A row that is finished from the start. */
const FINISHED = `
insert into activity_logs
  (id, org_id, workspace_id, activity_type, target_id, method, summary, request_body, response_body, status, error_detail,
   actor, request_id, replica, finished_at)
values ($1::uuid, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, now())`;

export interface ClosableAuditLog extends AuditLog {
  /** Nothing is retried any more; logs the refusals that got no row. */
  end(): void;
}

export function createAuditLog(options: { sql: Sql; replica: string; log: Log }): ClosableAuditLog {
  const { sql, replica, log } = options;
  const closed = new AbortController();
  const writes = createRetriedWrites({ log, closed: closed.signal });
  const refusals = createRefusalBudget(log);

  async function insert(facts: ExecRequestFacts): Promise<void> {
    const values = openValues(facts, replica);
    const connection = await sql.connect();
    try {
      await connection.run({ name: 'audit_open', text: OPEN, values });
    } catch (error) {
      if (refusalOf(error) === null) settle(facts.execId, values);
      throw error;
    } finally {
      connection.release();
    }
  }

  function settle(execId: string, values: unknown[]): void {
    void writes
      .add({ execId }, async () => {
        await sql.run({ name: 'audit_disown', text: DISOWN, values });
      })
      // Logged there; there is nobody to tell.
      .catch(() => {});
  }

  async function complete(facts: ExecRequestFacts, values: unknown[]): Promise<void> {
    const { rowCount } = await sql.run({ name: 'audit_close', text: CLOSE, values });
    // An earlier try whose answer was lost, or another replica took this one for dead. The row stands either way.
    if (rowCount === 0) log.warn({ execId: facts.execId }, 'an audit row was finished already');
  }

  function entryOf(facts: ExecRequestFacts): OpenEntry {
    let isClosed = false;
    return {
      execId: facts.execId,
      close(result) {
        if (isClosed) throw new Error(`bug: the audit entry of exec ${facts.execId} was closed twice`);
        isClosed = true;
        const values = closeValues(facts, result);
        return writes.add({ execId: facts.execId }, () => complete(facts, values));
      },
    };
  }

  return {
    async open(facts) {
      try {
        await insert(facts);
      } catch (cause) {
        throw notWritten(cause);
      }
      return entryOf(facts);
    },

    async refused(facts) {
      if (!refusals.take(`${facts.orgId} ${facts.actor}`)) return;
      try {
        await sql.run({ name: 'audit_finished', text: FINISHED, values: refusalValues(facts, replica) });
      } catch (error) {
        log.warn({ err: error, requestId: facts.requestId, code: facts.code }, 'a refusal has no audit row');
      }
    },

    async changed(facts) {
      try {
        await sql.run({ name: 'audit_finished', text: FINISHED, values: changeValues(facts, replica) });
      } catch (cause) {
        throw notWritten(cause);
      }
    },

    flush: (signal) => writes.settled(signal),

    end() {
      closed.abort();
      refusals.end();
    },
  };
}

function notWritten(cause: unknown): SallyportError {
  return new SallyportError('audit_unavailable', 'the audit row could not be written, so nothing was done', {
    retryable: true,
    retryAfterS: 1,
    cause,
  });
}

/** Contract, section 3: names of environment variables, never values; the size of stdin, never its bytes. */
function openValues(facts: ExecRequestFacts, replica: string): unknown[] {
  const { actor, argv, cwd, envNames, stdinBytes, timeoutS, driver } = facts;
  const body = { actor, argv, cwd, env_names: envNames, stdin_bytes: stdinBytes, timeout_s: timeoutS, driver };
  return [
    facts.execId,
    facts.orgId,
    facts.workspaceId,
    cutText(argv.join(' '), SUMMARY_MAX_CHARS),
    storableJson(body),
    storableText(actor),
    storableText(facts.requestId),
    replica,
  ];
}

function closeValues(facts: ExecRequestFacts, result: ExecResultFacts): unknown[] {
  const durationMs = Math.round(result.durationMs);
  const body = {
    exit_code: result.exitCode,
    signal: result.signal,
    outcome: result.outcome,
    duration_ms: durationMs,
    stdout_bytes: result.stdoutBytes,
    stderr_bytes: result.stderrBytes,
    // JSON leaves out what is undefined: nobody had to look.
    survivors: result.survivors,
    reaped: result.reaped,
  };
  return [
    facts.orgId,
    facts.execId,
    auditStatus(result.outcome, result.exitCode),
    storableJson(body),
    result.toolTrace === undefined ? null : storableJson(result.toolTrace),
    durationMs,
    result.errorDetail === null ? null : cutText(result.errorDetail, DETAIL_MAX_CHARS),
  ];
}

function refusalValues(facts: RefusalFacts, replica: string): unknown[] {
  const detail = `${facts.code}: ${facts.message}`;
  const workspaceId = facts.workspaceId === null ? null : cutText(facts.workspaceId, WORD_MAX_CHARS);
  return [
    randomUUID(),
    facts.orgId,
    workspaceId,
    facts.activityType,
    workspaceId,
    cutText(facts.method, WORD_MAX_CHARS),
    cutText(detail, SUMMARY_MAX_CHARS),
    storableJson({ actor: facts.actor }),
    storableJson({ outcome: 'refused', code: facts.code }),
    'refused',
    cutText(detail, DETAIL_MAX_CHARS),
    storableText(facts.actor),
    storableText(facts.requestId),
    replica,
  ];
}

function changeValues(facts: ChangeFacts, replica: string): unknown[] {
  return [
    randomUUID(),
    facts.orgId,
    facts.workspaceId,
    facts.activityType,
    facts.targetId,
    cutText(facts.method, WORD_MAX_CHARS),
    cutText(facts.summary, SUMMARY_MAX_CHARS),
    storableJson({ actor: facts.actor }),
    null,
    'ok',
    null,
    storableText(facts.actor),
    storableText(facts.requestId),
    replica,
  ];
}
