/** Writes that must not be lost: repeated with growing pauses until they are durable or the database is closed. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from './log.ts';

const PAUSE_FIRST_MS = 50;
const PAUSE_MAX_MS = 5_000;

export interface RetriedWrites {
  /**
   * Resolves when `write` has succeeded. Rejects only when `closed` aborts first; a caller that does not wait for it
   * need not handle that.
   */
  add(facts: object, write: () => Promise<void>): Promise<void>;
  /** Resolves when nothing is under way, or the signal aborts. */
  settled(signal: AbortSignal): Promise<void>;
}

export function createRetriedWrites(options: { log: Log; closed: AbortSignal }): RetriedWrites {
  const { log, closed } = options;
  const pending = new Set<Promise<void>>();

  async function repeat(facts: object, write: () => Promise<void>): Promise<void> {
    for (let pauseMs = PAUSE_FIRST_MS; ; pauseMs = Math.min(pauseMs * 2, PAUSE_MAX_MS)) {
      try {
        return await write();
      } catch (error) {
        if (pauseMs === PAUSE_FIRST_MS) log.warn({ err: error, ...facts }, 'an audit row is written later');
        // Jitter: after an outage many rows wait for few connections.
        await delay(pauseMs * (0.5 + Math.random() / 2), undefined, { signal: closed });
      }
    }
  }

  return {
    add(facts, write) {
      const written = repeat(facts, write);
      pending.add(written);
      written
        .catch((error: unknown) =>
          log.error({ err: error, ...facts }, 'the database was closed before an audit row was written'),
        )
        .finally(() => pending.delete(written));
      return written;
    },
    async settled(signal) {
      const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
      while (pending.size > 0 && !signal.aborted) await Promise.race([Promise.allSettled(pending), aborted]);
    },
  };
}
