/**
 * The use case: audit row → session → program → events → row closed, session given back.
 *
 * The row is committed before anything of the request reaches the host; a session that is open already may open its
 * channel meanwhile, a new one is dialled only after the commit. Whatever happens, the last event is one `end`, the row
 * is closed once, and nothing is left running that could be reached. Nothing here knows HTTP or SSH.
 */
import type { OpenEntry } from '../audit.ts';
import { SallyportError } from '../errors.ts';
import type { Outcome } from '../outcome.ts';
import type { Pool } from '../sessions/pool.ts';
import type { Lease, Process, ProcessMarker, Survivors } from '../sessions/session.ts';
import type { Workspace } from '../workspace.ts';
import type { Command } from './command.ts';
import { auditFacts, endWithout } from './end.ts';
import type { ExecEnd, ExecEvent } from './frame.ts';
import { reapForRow, reapOnce } from './reap.ts';
import { run } from './run.ts';

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
  /** Told once, when the row is closed and durable: nothing of this exec is left to do. */
  onSettled: (outcome: Outcome) => void;
}

/** Never throws; to be iterated to its end. */
export type RunExec = (exec: ExecRun) => AsyncIterable<ExecEvent>;

export function createExec({ pool }: { pool: Pool }): RunExec {
  return async function* execute(exec) {
    const startedAtMs = performance.now();
    const { signal } = exec;
    const entry = exec.entry();
    let started: { process: Process; lease: Lease };
    try {
      started = await start(pool, exec, entry);
    } catch (reason) {
      const end = endWithout(exec, { durationMs: performance.now() - startedAtMs, reason });
      void closeRow(pool, exec, entry, end);
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
    void ended.then((end) => {
      lease.release();
      return closeRow(pool, exec, entry, end, process.marker);
    });
    yield* events;
    yield await ended;
  };
}

/** Connecting, within its own budget: the clock of the program starts when the host has answered with its pid. */
async function start(
  pool: Pool,
  exec: ExecRun,
  entry: Promise<OpenEntry>,
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
      const lease = await takeLease(pool, workspace, { entry, signal, timeoutMs: deadlineMs - performance.now() });
      try {
        const process = await lease.session.start(
          { ...command, execId: exec.execId, fixedPath: exec.fixedPath },
          { signal: budget.signal, committed: entry },
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
  { entry, signal, timeoutMs }: { entry: Promise<OpenEntry>; signal: AbortSignal; timeoutMs: number },
): Promise<Lease> {
  const open = pool.leaseOpen(workspace);
  if (open !== null) return open;
  await entry;
  return await pool.lease(workspace, { signal, timeoutMs });
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
  opening: Promise<OpenEntry>,
  end: ExecEnd,
  marker: ProcessMarker = { execId: exec.execId, session: null },
): Promise<void> {
  try {
    const entry = await opening;
    const reaping = end.outcome === 'connection_lost' ? await reapForRow(pool, exec.workspace, marker) : {};
    await entry.close(auditFacts(end, reaping));
  } catch {
    // The row was never opened: the caller has been told audit_unavailable.
  } finally {
    exec.onSettled(end.outcome);
  }
}
