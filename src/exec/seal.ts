/**
 * The sealer: chains what was appended to the audit log by hash, and signs checkpoints of the chain.
 *
 * Every replica has one, and looks once a second; a lock of the database lets one at a time work on an org. It holds
 * nothing that is not in the database, so one that is killed loses nothing: the next one goes on from the last commit.
 * Decision: sealing stands apart from writing, so that an exec waits for no hash and no other writer of its org.
 */
import { type Checkpoint, type CheckpointFacts, checkpointLine, signCheckpoint } from '../access/checkpoint.ts';
import type { SigningKey } from '../access/token.ts';
import { CHECKPOINT_EVERY_MS, CHECKPOINT_LOOK_EVERY_MS, SEAL_EVERY_MS, SEAL_STOP_MAX_MS } from '../limits.ts';
import { repeat } from './repeat.ts';

export interface Unsealed {
  /** At most what the store counts to. */
  entries: number;
  /** How long the oldest has waited. */
  oldestMs: number;
}

export interface SealStore {
  /** The orgs that have something to seal, and how much there is in all. */
  look(): Promise<{ orgIds: string[]; unsealed: Unsealed }>;
  /** Seals one batch and resolves with its size. Null: another sealer is at this org. */
  seal(orgId: string): Promise<number | null>;
  /** Orgs whose chain has grown since their last checkpoint, if that is older than `everyMs`. */
  due(everyMs: number): Promise<string[]>;
  /** Keeps a checkpoint of the end of the chain, as `sign` makes it. Null: not due, or another sealer is at this org. */
  checkpoint(orgId: string, everyMs: number, sign: (facts: CheckpointFacts) => Checkpoint): Promise<Checkpoint | null>;
}

interface Log {
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
}

export interface Sealer {
  /** As of the last look; when nobody could look since, the time that has passed counts as waited. */
  unsealed(): Unsealed;
  /** Seals and signs what is there, but not for longer than SEAL_STOP_MAX_MS. */
  stop(): Promise<void>;
}

export interface SealerDeps {
  store: SealStore;
  key: SigningKey;
  log: Log;
  everyMs?: number;
  checkpointEveryMs?: number;
}

export function startSealer(deps: SealerDeps): Sealer {
  const { store, key, log, everyMs = SEAL_EVERY_MS, checkpointEveryMs = CHECKPOINT_EVERY_MS } = deps;
  const sign = (facts: CheckpointFacts): Checkpoint => signCheckpoint(key, facts);
  let seen = { entries: 0, oldestMs: 0, atMs: performance.now() };
  let isOver = (): boolean => false;
  let looksForDueAtMs = 0;

  /** In turns, so that one org that writes a lot keeps none of the others waiting. */
  async function sealAll(): Promise<void> {
    for (let progress = true; progress && !isOver(); ) {
      const { orgIds, unsealed } = await store.look();
      seen = { ...unsealed, atMs: performance.now() };
      progress = false;
      // Replicas that begin with different orgs are not at the same ones.
      for (const orgId of shuffled(orgIds)) {
        if (isOver()) return;
        if ((await sealOne(orgId)) > 0) progress = true;
      }
    }
  }

  /** One org that cannot be sealed keeps none of the others from it. */
  async function sealOne(orgId: string): Promise<number> {
    try {
      return (await store.seal(orgId)) ?? 0;
    } catch (error) {
      log.warn({ err: error, org: orgId }, 'audit entries could not be sealed');
      return 0;
    }
  }

  async function checkpointAll(dueAfterMs: number): Promise<void> {
    for (const orgId of await store.due(dueAfterMs)) {
      if (isOver()) return;
      const checkpoint = await store.checkpoint(orgId, dueAfterMs, sign);
      if (checkpoint !== null) log.info(checkpointLine(checkpoint), 'audit checkpoint');
    }
  }

  async function work(): Promise<void> {
    try {
      await sealAll();
      if (performance.now() < looksForDueAtMs) return;
      looksForDueAtMs = performance.now() + Math.min(CHECKPOINT_LOOK_EVERY_MS, checkpointEveryMs);
      await checkpointAll(checkpointEveryMs);
    } catch (error) {
      log.warn({ err: error }, 'nobody could look for audit entries to seal');
    }
  }

  const working = repeat(everyMs, work);
  return {
    unsealed() {
      const sinceMs = performance.now() - seen.atMs;
      // Between two looks there is nothing to tell.
      const unseenMs = sinceMs > 2 * everyMs + 1_000 ? sinceMs : 0;
      return { entries: seen.entries, oldestMs: seen.oldestMs + unseenMs };
    },
    async stop() {
      const untilMs = performance.now() + SEAL_STOP_MAX_MS;
      isOver = () => performance.now() > untilMs;
      await working.stop();
      try {
        await sealAll();
        await checkpointAll(0);
      } catch (error) {
        log.warn({ err: error }, 'the last audit entries are left to be sealed by another');
      }
    },
  };
}

function shuffled<T>(items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, key: Math.random() }))
    .sort((a, b) => a.key - b.key)
    .map(({ item }) => item);
}
