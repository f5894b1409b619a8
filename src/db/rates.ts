/**
 * The RateCounter port: requests per minute, counted in one row per credential that all replicas share.
 *
 * The library's statement adds and reads in one step under the row's lock, so the sum over all replicas is exact. It takes
 * the time from the gateway: where the clocks of two replicas differ by some time, a minute may be that much shorter.
 *
 * Decisions:
 * - Who has used up a minute is refused from memory until it ends, without asking: a loop costs the database one row lock
 *   per replica and minute, not one per request.
 * - A database that does not answer is `audit_unavailable`, never "go on": without it no exec starts either.
 * - Old rows are deleted on the way of a request, so that no timer has to be stopped.
 */
import { hash } from 'node:crypto';
import { RateLimiterPostgres, RateLimiterRes } from 'rate-limiter-flexible';
import type { RateCounter } from '../access/access.ts';
import type { Sql, Statement } from './sql.ts';

const WINDOW_S = 60;
const TIDY_EVERY_MS = 5 * 60_000;
/** Long after a minute has ended by anybody's clock. */
const KEPT_MS = 3_600_000;
const TIDY = 'delete from rates where expire < $1';

/** `perMin`: at least 1, the same on every replica. */
export function createRates(sql: Sql, perMin: number): RateCounter {
  const limiter = new RateLimiterPostgres({
    storeClient: { query: (statement: Statement) => sql.run(statement) },
    storeType: 'client',
    tableName: 'rates',
    tableCreated: true,
    clearExpiredByTimeout: false,
    keyPrefix: '',
    points: perMin,
    duration: WINDOW_S,
    inMemoryBlockOnConsumed: perMin,
  });
  let tidiedAtMs = Date.now();

  function tidy(): void {
    if (Date.now() - tidiedAtMs < TIDY_EVERY_MS) return;
    tidiedAtMs = Date.now();
    const deleted = sql.run({ name: 'rates_tidy', text: TIDY, values: [tidiedAtMs - KEPT_MS] });
    deleted.catch(() => {}); // What could not be deleted is deleted next time.
  }

  return {
    perMin,
    async take(key) {
      tidy();
      try {
        const { remainingPoints, msBeforeNext } = await limiter.consume(hash('sha256', key, 'base64url'));
        return { isOver: false, left: remainingPoints, resetMs: msBeforeNext };
      } catch (over) {
        // The library's way to say that it was one too many.
        if (over instanceof RateLimiterRes) return { isOver: true, left: 0, resetMs: over.msBeforeNext };
        throw over;
      }
    },
  };
}
