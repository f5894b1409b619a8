/** How many `refused` rows one actor may cause per minute, so that a loop of refused requests cannot fill the disk. */
import { REFUSED_ROWS_PER_MINUTE } from '../limits.ts';
import type { Log } from './log.ts';

const WINDOW_MS = 60_000;
/** Beyond this many actors in one minute no more are told apart: they get no rows. Bounds the memory. */
const ACTORS_MAX = 10_000;

export interface RefusalBudget {
  /** False: no row for this one; it is counted and the count is logged when the minute ends. */
  take(actorKey: string): boolean;
  /** Ends the minute now. */
  end(): void;
}

export function createRefusalBudget(log: Log): RefusalBudget {
  const rows = new Map<string, number>();
  let dropped = 0;
  let timer: NodeJS.Timeout | null = null;

  function end(): void {
    if (timer !== null) clearTimeout(timer);
    if (dropped > 0) log.warn({ dropped, actors: rows.size }, 'refusals without an audit row in the last minute');
    timer = null;
    dropped = 0;
    rows.clear();
  }

  return {
    take(actorKey) {
      timer ??= setTimeout(end, WINDOW_MS).unref();
      const used = rows.get(actorKey) ?? 0;
      const isFull = used >= REFUSED_ROWS_PER_MINUTE || (used === 0 && rows.size >= ACTORS_MAX);
      if (isFull) dropped += 1;
      else rows.set(actorKey, used + 1);
      return !isFull;
    },
    end,
  };
}
