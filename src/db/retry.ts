/** Writes that must not be lost: repeated with growing pauses until they are durable or the database is closed. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from './log.ts';

const PAUSE_FIRST_MS = 50;
const PAUSE_MAX_MS = 5_000;

export interface RetriedWrites {
  /**
   * Resolves when `write` has succeeded, whose one rejection is logged. Rejects only when `close` came first; a caller
   * that does not wait for it need not handle that.
   */
  add(facts: object, write: () => Promise<void>): Promise<void>;
  /** How many are under way. */
  pending(): number;
  /** Resolves when nothing of what is under way now is left, or the signal aborts. */
  settled(signal: AbortSignal): Promise<void>;
  /** Gives up what is under way, and logs it. */
  close(): void;
}

export function createRetriedWrites(log: Log): RetriedWrites {
  const closed = new AbortController();
  const pending = new Map<Promise<void>, (reason: Error) => void>();

  async function repeat(facts: object, write: () => Promise<void>): Promise<void> {
    for (let pauseMs = PAUSE_FIRST_MS; ; pauseMs = Math.min(pauseMs * 2, PAUSE_MAX_MS)) {
      try {
        return await write();
      } catch (error) {
        if (pauseMs === PAUSE_FIRST_MS) log.warn({ err: error, ...facts }, 'an audit row is written later');
        // Jitter: after an outage many rows wait for few connections.
        await delay(pauseMs * (0.5 + Math.random() / 2), undefined, { signal: closed.signal });
      }
    }
  }

  return {
    add(facts, write) {
      let giveUp: (reason: Error) => void = () => {};
      const written = new Promise<void>((resolve, reject) => {
        giveUp = reject;
        repeat(facts, write).then(resolve, reject);
      });
      pending.set(written, giveUp);
      written.then(
        () => pending.delete(written),
        () => {
          pending.delete(written);
          log.error(facts, 'the database was closed before an audit row was written');
        },
      );
      return written;
    },

    pending: () => pending.size,

    async settled(signal) {
      if (pending.size === 0 || signal.aborted) return;
      const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
      await Promise.race([Promise.allSettled([...pending.keys()]), aborted]);
    },

    close() {
      closed.abort();
      for (const giveUp of pending.values()) giveUp(new Error('the database was closed before the row was written'));
    },
  };
}
