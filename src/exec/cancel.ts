/**
 * Cancels an exec wherever it runs, and says how it has ended.
 *
 * One of this process is ended here. For any other the replicas are asked, and its row tells when it has ended: no replica
 * has to know who runs what. A lost order is repeated. Of a replica that is dead the answer may not come in time; its row
 * is then finished by the reconciler.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { CANCEL_ASK_EVERY_MS, CANCEL_LOOK_EVERY_MS, CANCEL_WAIT_MAX_MS } from '../limits.ts';
import type { Outcome } from '../outcome.ts';
import { EndCause } from './cause.ts';
import type { CancelOrder, Notices } from './notices.ts';
import type { RunningExecs } from './running.ts';

export interface ExecRows {
  /** Null: no exec of that id in this org and workspace. `outcome` null: it runs. */
  find(key: Omit<CancelOrder, 'by'>): Promise<{ outcome: Outcome | null } | null>;
}

/** Null: no such exec runs. `outcome` null: it was asked for, and has not ended in time. */
export type CancelExec = (order: CancelOrder) => Promise<{ outcome: Outcome | null } | null>;

export function createCancel(deps: {
  running: RunningExecs;
  rows: ExecRows;
  notices: Pick<Notices, 'askToCancel'>;
}): CancelExec {
  const { running, rows, notices } = deps;

  async function elsewhere(order: CancelOrder): Promise<{ outcome: Outcome | null } | null> {
    let row = await rows.find(order);
    if (row === null || row.outcome !== null) return null;
    const startedAtMs = performance.now();
    for (let askAtMs = startedAtMs; performance.now() < startedAtMs + CANCEL_WAIT_MAX_MS; ) {
      if (performance.now() >= askAtMs) {
        await notices.askToCancel(order);
        askAtMs += CANCEL_ASK_EVERY_MS;
      }
      await sleep(CANCEL_LOOK_EVERY_MS);
      row = await rows.find(order);
      if (row?.outcome !== null) return row;
    }
    return row;
  }

  return async (order) => {
    const here = cancelHere(running, order);
    return here === null ? await elsewhere(order) : { outcome: await here };
  };
}

/** Null: it does not run in this process. */
export function cancelHere(running: RunningExecs, order: CancelOrder): Promise<Outcome> | null {
  return running.cancel(order, new EndCause('cancelled', `cancelled by ${order.by}`));
}
