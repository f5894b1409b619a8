/**
 * Sessions that were opened by host keys which an admin has replaced take no new execs, on every replica.
 *
 * What was replaced is read from the database: at once by the replica that was told and, when a notice comes, by the
 * others; a lost notice costs them HOST_KEYS_POLL_MS. What runs goes on: the host that it runs on was the right one when
 * it began.
 */
import { isDeepStrictEqual } from 'node:util';
import { type PinPlace, pinPlaceOf } from '../drivers/host-keys.ts';
import type { Pool } from '../sessions/pool.ts';

export interface ReplacedKeys {
  /** Places whose keys an admin has set after `seq`, each with the latest. */
  after(seq: number): Promise<{ place: PinPlace; seq: number }[]>;
}

export interface HostKeyWatch {
  /** Resolves when sessions by keys that were replaced until now are retired here. Rejects `audit_unavailable`. */
  look(): Promise<void>;
}

export function createHostKeyWatch({ replaced, pool }: { replaced: ReplacedKeys; pool: Pool }): HostKeyWatch {
  // The first look finds all that were ever set, before there is a session.
  let seen = 0;
  return {
    async look() {
      const found = await replaced.after(seen);
      // Another look may have been faster: a session by the new keys is not to be retired by them.
      for (const { place } of found.filter(({ seq }) => seq > seen))
        pool.retire((target) => isDeepStrictEqual(pinPlaceOf(target), place));
      seen = Math.max(seen, ...found.map(({ seq }) => seq));
    },
  };
}
