/**
 * The use case: audit row → session → program → events → row closed, session given back.
 *
 * The row is committed before anything of the request reaches the host; a session that is open already may open its
 * channel meanwhile, a new one is dialled only after the commit. Whatever happens, the last event is one `end`, the row
 * is closed once, and nothing is left running that could be reached. Nothing here knows HTTP or SSH.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { GivenAnswer, OpenEntry } from '../audit.ts';
import { SallyportError } from '../errors.ts';
import { ANSWER_KEPT_MAX_MS } from '../limits.ts';
import type { Outcome } from '../outcome.ts';
import type { Pool } from '../sessions/pool.ts';
import type { Lease, Process, ProcessMarker, Survivors } from '../sessions/session.ts';
import type { RecordedSpan } from '../span.ts';
import type { Workspace } from '../workspace.ts';
import type { Command } from './command.ts';
import { auditFacts, endWithout } from './end.ts';
import type { ExecEnd, ExecEvent } from './frame.ts';
import { reapForRow, reapOnce } from './reap.ts';
import { run } from './run.ts';
import { Way } from './way.ts';

export interface ExecRun {
  execId: string;
  workspace: Workspace;
  command: Command;
  /** A token with command rules gets a PATH that its holder cannot have prepared. */
  fixedPath: boolean;
  /** Commits the audit row; called once. */
  entry: () => Promise<OpenEntry>;
  /** Its reason is an EndCause. */
  signal: AbortSignal;
  /** What the caller is answered, to be kept for replays; absent: the request has no idempotency key. */
  answerOf?: (end: ExecEnd) => Omit<GivenAnswer, 'execId'>;
  /** Told once, when the row is closed and durable: nothing of this exec is left to do. */
  onSettled: (outcome: Outcome) => void;
  /** The request's; absent or null: nobody records it. */
  span?: RecordedSpan | null;
}

/** Never throws; to be iterated to its end. */
export type RunExec = (exec: ExecRun) => AsyncIterable<ExecEvent>;

export function createExec({ pool }: { pool: Pool }): RunExec {
  return async function* execute(exec) {
    const startedAtMs = performance.now();
    const { signal } = exec;
    const way = new Way(exec, startedAtMs);
    const entry = way.watch('audit.open', exec.entry);
    entry.catch(() => undefined); // Thrown below, by whoever waits for it.
    // The row leaves at the end of this turn of the event loop (db/batch.ts); what can be made ready meanwhile comes after it.
    await new Promise(setImmediate);
    let wasAsked = false;
    const sending = (): void => {
      wasAsked = true;
    };
    let started: { process: Process; lease: Lease };
    try {
      started = await start(pool, exec, { entry, sending, way });
    } catch (reason) {
      const end = endWithout(exec, { durationMs: performance.now() - startedAtMs, reason });
      await toldAfter(exec, closeRow(pool, exec, { entry, end, wasAsked, way }));
      yield end;
      return;
    }
    const { process, lease } = started;
    const reapElsewhere = (marker: ProcessMarker): Promise<Survivors> => reapOnce(pool, exec.workspace, marker);
    const { events, ended } = run(process, {
      execId: exec.execId,
      command: exec.command,
      signal,
      startedAtMs,
      reapElsewhere,
    });
    const closed = ended.then(async (end) => {
      // The answer leaves first: channel, place and row cost writes of their own, a third of what is left to do.
      if (exec.answerOf === undefined) await new Promise(setImmediate);
      process.release();
      lease.release();
      await closeRow(pool, exec, { entry, end, wasAsked, way, marker: process.marker });
    });
    yield* events;
    const end = await ended;
    await toldAfter(exec, closed);
    yield end;
  };
}

/**
 * Who has read the answer to a request with a key gets it again, from any replica: it is told when it is kept. Others need
 * not wait for the database at their end.
 */
async function toldAfter(exec: ExecRun, closed: Promise<void>): Promise<void> {
  if (exec.answerOf !== undefined) await Promise.race([closed, sleep(ANSWER_KEPT_MAX_MS, undefined, { ref: false })]);
}

/** Connecting, within its own budget: the clock of the program starts when the host has answered with its pid. */
async function start(
  pool: Pool,
  exec: ExecRun,
  { entry, sending, way }: { entry: Promise<OpenEntry>; sending: () => void; way: Way },
): Promise<{ process: Process; lease: Lease }> {
  const { workspace, command, signal } = exec;
  const deadlineMs = performance.now() + command.connectTimeoutS * 1000;
  const budget = new AbortController();
  const stop = (reason: unknown): void => budget.abort(reason);
  const onAbort = (): void => stop(signal.reason);
  const timer = setTimeout(() => stop(noAnswer(command.connectTimeoutS)), command.connectTimeoutS * 1000);
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    for (;;) {
      const timeoutMs = deadlineMs - performance.now();
      const lease = await takeLease(pool, workspace, { entry, signal, timeoutMs, way });
      try {
        const process = await way.start(
          lease,
          { ...command, execId: exec.execId, fixedPath: exec.fixedPath },
          { signal: budget.signal, committed: entry, sending },
        );
        return { process, lease };
      } catch (error) {
        lease.release();
        if (!wasNotSent(error) || performance.now() >= deadlineMs) throw error;
      }
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', onAbort);
  }
}

/** An open session may be taken while the row is being committed; dialling waits for it. */
async function takeLease(
  pool: Pool,
  workspace: Workspace,
  { entry, signal, timeoutMs, way }: { entry: Promise<OpenEntry>; signal: AbortSignal; timeoutMs: number; way: Way },
): Promise<Lease> {
  const open = pool.leaseOpen(workspace);
  if (open !== null) return open;
  await entry;
  return await way.watch('session.wait', () => pool.lease(workspace, { signal, timeoutMs, joined: way.joined }));
}

/** The session said that the request never left: another session may take it. */
function wasNotSent(error: unknown): boolean {
  return error instanceof SallyportError && error.code === 'connection_lost' && error.details.failedStep === 'channel';
}

function noAnswer(timeoutS: number): SallyportError {
  return new SallyportError('connect_timeout', `the host did not start the program within ${timeoutS} s`, {
    failedStep: 'channel',
    outcome: 'unreachable',
    retryable: true,
    timeoutS,
  });
}

/** Never rejects. After a lost connection the program may live on: it is ended first, so that the row can say so. */
async function closeRow(
  pool: Pool,
  exec: ExecRun,
  how: { entry: Promise<OpenEntry>; end: ExecEnd; wasAsked: boolean; way: Way; marker?: ProcessMarker },
): Promise<void> {
  const { end, wasAsked, way, marker = { execId: exec.execId, session: null } } = how;
  const toolTrace = way.end(end);
  try {
    const entry = await how.entry;
    const reaping = end.outcome === 'connection_lost' ? await reapForRow(pool, exec.workspace, marker) : {};
    // Without an answer the key of the request is free again.
    const answer = wasAsked ? exec.answerOf?.(end) : undefined;
    await entry.close({ ...auditFacts(end, reaping), toolTrace, ...(answer === undefined ? {} : { answer }) });
  } catch {
    // The row was never opened: the caller has been told audit_unavailable.
  } finally {
    exec.onSettled(end.outcome);
  }
}
