/**
 * That this replica is here: renewed every few seconds in the database, by the database's clock.
 *
 * Whoever was not heard for PRESENCE_MAX_MS may be declared over by another replica, which then ends its programs and
 * finishes its rows. A replica that was only asleep learns of it here: what it runs is no longer its own, so it ends that
 * and begins a new presence. Clocks of two machines are never compared.
 */
import { PRESENCE_BEAT_MS } from '../limits.ts';
import { EndCause } from './cause.ts';
import { repeat } from './repeat.ts';
import type { RunningExecs } from './running.ts';

export interface PresenceStore {
  /** Begins a presence of a new name; rows that this process opens from now on carry it. */
  begin(): Promise<void>;
  /** False: it is over, others have declared it so. Rejects when the database cannot answer. */
  renew(): Promise<boolean>;
  /** Ends it: what is still running is left to others. */
  end(): Promise<void>;
}

export interface Presence {
  /** Rejects when the database cannot answer; others find out by themselves then. */
  stop(): Promise<void>;
}

interface Log {
  warn(facts: object, message: string): void;
}

/** Rejects when there is no beginning. */
export async function keepPresence(deps: {
  store: PresenceStore;
  running: RunningExecs;
  log: Log;
  beatMs?: number;
}): Promise<Presence> {
  const { store, running, log, beatMs = PRESENCE_BEAT_MS } = deps;
  await store.begin();

  const beat = async (): Promise<void> => {
    try {
      if (await store.renew()) return;
      log.warn({ execs: running.size }, 'this replica was taken for dead: it ends what it runs and begins anew');
      void running.endAll(new EndCause('interrupted', 'another replica had taken this one for dead'));
      await store.begin();
    } catch (error) {
      // Until the database is back nobody can take this replica for dead either.
      log.warn({ err: error }, 'the presence of this replica could not be renewed');
    }
  };
  const beating = repeat(beatMs, beat);
  return {
    async stop() {
      await beating.stop();
      await store.end();
    },
  };
}
