/**
 * What a dead replica has left: its programs are ended, then their rows become `interrupted`.
 *
 * Every replica looks; a row is claimed by one, and the claim is worth as much as its claimer's presence. The row waits for
 * the reaping, so that it can say what became of the program, but no longer than any other row does. It may be finished
 * by its own replica meanwhile, which was asleep: the first to finish it wins, and nothing changes it afterwards.
 */
import { RECONCILE_EVERY_MS, RECONCILE_ROWS_MAX } from '../limits.ts';
import type { Pool } from '../sessions/pool.ts';
import type { Survivors } from '../sessions/session.ts';
import type { Workspace } from '../workspace.ts';
import { reapForRow } from './reap.ts';
import { repeat } from './repeat.ts';

export interface Orphan {
  execId: string;
  orgId: string;
  /** Where it ran, also when the workspace is deleted now; null: it has got another host since. */
  workspace: Workspace | null;
}

export interface Reaping {
  survivors: Survivors;
  reaped: boolean | 'unknown';
}

export interface OrphanStore {
  /** Declares over who was not heard for long, then claims at most `limit` rows for this replica. */
  claim(limit: number): Promise<Orphan[]>;
  /** Finishes the row as `interrupted`, unless it was finished meanwhile. Retried; rejects when the database was closed. */
  interrupt(orphan: Orphan, reaping: Reaping): Promise<void>;
}

interface Log {
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
}

export interface Reconciler {
  stop(): Promise<void>;
}

export function startReconciler(deps: { store: OrphanStore; pool: Pool; log: Log; everyMs?: number }): Reconciler {
  const { store, pool, log, everyMs = RECONCILE_EVERY_MS } = deps;
  let stopped = false;

  const settle = async (orphan: Orphan): Promise<void> => {
    const reaping = await reap(pool, orphan);
    // A pool that was closed has not looked: the claim ends with this replica's presence, and another one looks.
    if (stopped) return;
    await store.interrupt(orphan, reaping);
    log.info({ exec_id: orphan.execId, reaped: reaping.reaped }, 'an exec of a replica that is over was interrupted');
  };
  const look = async (): Promise<void> => {
    try {
      let claimed: Orphan[];
      do {
        claimed = await store.claim(RECONCILE_ROWS_MAX);
        for (const orphan of claimed) {
          settle(orphan).catch((error: unknown) => {
            log.warn({ err: error, exec_id: orphan.execId }, 'an interrupted exec is left to another replica');
          });
        }
      } while (claimed.length === RECONCILE_ROWS_MAX && !stopped);
    } catch (error) {
      log.warn({ err: error }, 'nobody could look for what other replicas have left');
    }
  };
  const looking = repeat(everyMs, look);
  return {
    async stop() {
      stopped = true;
      await looking.stop();
    },
  };
}

async function reap(pool: Pool, { execId, workspace }: Orphan): Promise<Reaping> {
  if (workspace === null) return { survivors: null, reaped: 'unknown' };
  return await reapForRow(pool, workspace, { execId, session: null });
}
