/** Ends what a lost connection left running, over a connection of its own, found by its marker. */
import { setTimeout as sleep } from 'node:timers/promises';
import { KILL_BUDGET_MS, REAP_MAX_MS, REAP_ROW_MAX_MS } from '../limits.ts';
import type { Pool } from '../sessions/pool.ts';
import type { ProcessMarker, Survivors } from '../sessions/session.ts';
import type { Workspace } from '../workspace.ts';

const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 20_000;

/** Null when no session could be had or nobody could look. Never rejects. */
export async function reapOnce(pool: Pool, workspace: Workspace, marker: ProcessMarker): Promise<Survivors> {
  try {
    const lease = await pool.lease(workspace, { signal: new AbortController().signal, timeoutMs: KILL_BUDGET_MS });
    try {
      return await lease.session.reap(marker);
    } finally {
      lease.release();
    }
  } catch {
    return null; // The host cannot be reached, so nobody can say what is left: that is what null means.
  }
}

/** Tries until somebody could look, for REAP_MAX_MS, with growing pauses: the way to the host may come back. */
export async function reapPersistently(pool: Pool, workspace: Workspace, marker: ProcessMarker): Promise<Survivors> {
  const untilMs = performance.now() + REAP_MAX_MS;
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
    const survivors = await reapOnce(pool, workspace, marker);
    if (survivors !== null || pool.closed || performance.now() + pauseMs > untilMs) return survivors;
    await sleep(pauseMs, undefined, { ref: false });
  }
}

/** As an audit row says it. A row waits REAP_ROW_MAX_MS at most; the trying goes on without it. Never rejects. */
export async function reapForRow(
  pool: Pool,
  workspace: Workspace,
  marker: ProcessMarker,
): Promise<{ survivors: Survivors; reaped: boolean | 'unknown' }> {
  const tooLate = sleep(REAP_ROW_MAX_MS, null, { ref: false });
  const survivors = await Promise.race([reapPersistently(pool, workspace, marker), tooLate]);
  return { survivors, reaped: survivors === null ? 'unknown' : survivors.length === 0 };
}
