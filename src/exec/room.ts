/**
 * Room for one more exec, counted over all replicas: per workspace, token and org.
 *
 * Every replica has a share of each limit that it fills without asking anybody: all of it while it is alone, otherwise a
 * part of one half. The other half is claimed: what a replica holds beyond its share stands in the database, where one
 * replica after the other raises it, never beyond what the rest have left. So an exec asks the database nothing until its
 * workspace, token or org runs a quarter of the limit here (two replicas), and then once for many.
 *
 * What is promised:
 * - The sum over all replicas never exceeds the limit, except while a replica that has come or gone is not known to all: a
 *   notice tells them at once, and without it they find out within ROOM_EVERY_MS. What it starts in that time may come on
 *   top, as if every replica had a limit of its own.
 * - A caller may be refused below the limit: each other replica's share is kept for it, and what another has claimed and
 *   does not need any more comes back within ROOM_EVERY_MS. `Retry-After` is a second for that reason.
 * - What a dead replica held counts until its rows are finished, because its programs may still run.
 *
 * Tried on paper and left: counting rows of others about every second (each replica then fills the whole limit within that
 * second), and counting them with every request (as much so for those that come at once, and paid by every exec).
 */
import { EXECS_PER_TOKEN_MAX, ROOM_ASK_AGAIN_MS } from '../limits.ts';
import { type Runner, type RunningExecs, runnerKeys } from './running.ts';

/** One limit that an exec is counted in. */
export interface Circle {
  policy: 'workspace' | 'token' | 'session' | 'org';
  most: number;
}

/** What one replica holds beyond its share, by circle. */
export type Holding = Readonly<Record<string, number>>;

export interface ShareStore {
  /** What the others hold, one each, also when it is nothing; null: this replica is not among those they know of. */
  read(): Promise<readonly Holding[] | null>;
  /** Stores what `decide` makes of the holdings of the others. One replica at a time does so. */
  exchange(decide: (others: readonly Holding[]) => Holding): Promise<void>;
}

export interface Room {
  /**
   * Claims room where this replica's own is used up. Null: nothing to wait for, neither when there is room nor when there
   * is none to be had. Rejects `audit_unavailable` when nobody can say.
   */
  claim(runner: Runner): Promise<void> | null;
  /** The smallest circle that is full; null: there is room, for who registers in the same turn. */
  full(runner: Runner): Circle | null;
  /** To be called about every ROOM_EVERY_MS: learns what others hold, gives back what is not needed. */
  refresh(): Promise<void>;
}

interface Limits {
  maxExecsWorkspace: number;
  maxExecsOrg: number;
}

export function createRoom(deps: { running: RunningExecs; limits: Limits; store: ShareStore }): Room {
  const { running, limits, store } = deps;
  let others: readonly Holding[] = [];
  let mine: Holding = {};
  let readAtMs = Number.NEGATIVE_INFINITY;
  const waiting = new Set<Runner>();

  const shareOf = (most: number): number => {
    const replicas = others.length + 1;
    return replicas === 1 ? most : Math.floor(most / (2 * replicas));
  };
  /** What the others leave of it. */
  const leftOf = ({ key, most }: KeyedCircle): number => {
    const share = shareOf(most);
    return others.reduce((left, held) => left - Math.max(held[key] ?? 0, share), most);
  };
  const isFull = (circle: KeyedCircle): boolean => {
    const own = Math.max(shareOf(circle.most), mine[circle.key] ?? 0);
    return running.count(circle.key) >= Math.min(own, leftOf(circle));
  };

  /** What is needed here, and while much is free some more, so that a burst need not ask for each. */
  const decide = (found: readonly Holding[]): Holding => {
    others = found;
    readAtMs = performance.now();
    const next: Record<string, number> = {};
    for (const [key, { circle, runs, waits }] of needs([...running.all()], [...waiting], limits)) {
      const needed = runs + waits;
      if (needed <= shareOf(circle.most)) continue;
      const left = leftOf(circle);
      const ahead = Math.max(0, Math.floor((left - needed) / (2 * (others.length + 1))));
      next[key] = Math.max(runs, Math.min(left, needed + ahead));
    }
    return next;
  };
  const exchange = async (): Promise<void> => {
    let next: Holding = {};
    await store.exchange((found) => {
      next = decide(found);
      // What is given back is not used from now on, what is claimed not before it is stored.
      mine = lower(mine, next);
      return next;
    });
    mine = next;
  };

  // The one that has not begun serves all who come meanwhile; two at once could end in the wrong order.
  let underWay: Promise<void> = Promise.resolve();
  let upcoming: Promise<void> | null = null;
  const joinExchange = (): Promise<void> => {
    upcoming ??= underWay
      .catch(() => {}) // its own callers were told
      .then(() => {
        upcoming = null;
        underWay = exchange();
        return underWay;
      });
    return upcoming;
  };

  return {
    claim(runner) {
      const full = circlesOf(runner, limits).filter(isFull);
      if (full.length === 0) return null;
      const isHopeless = full.some((circle) => running.count(circle.key) >= leftOf(circle));
      if (isHopeless && (others.length === 0 || performance.now() - readAtMs < ROOM_ASK_AGAIN_MS)) return null;
      const waiter = { ...runner }; // two may come with one object
      waiting.add(waiter);
      return joinExchange().finally(() => waiting.delete(waiter));
    },
    full: (runner) => circlesOf(runner, limits).find(isFull) ?? null,
    async refresh() {
      const found = await store.read();
      if (found === null || !isSame(decide(found), mine)) await joinExchange();
    },
  };
}

interface KeyedCircle extends Circle {
  key: string;
}

/** From the smallest outwards, so that a refusal names the one the caller can do most about. */
function circlesOf(runner: Runner, { maxExecsWorkspace, maxExecsOrg }: Limits): KeyedCircle[] {
  const { workspace, credential, org } = runnerKeys(runner);
  const circles: KeyedCircle[] = [{ policy: 'workspace', most: maxExecsWorkspace, key: workspace }];
  if (credential !== null)
    circles.push({ policy: runner.jti === null ? 'session' : 'token', most: EXECS_PER_TOKEN_MAX, key: credential });
  circles.push({ policy: 'org', most: maxExecsOrg, key: org });
  return circles;
}

interface Need {
  circle: KeyedCircle;
  runs: number;
  waits: number;
}

function needs(running: readonly Runner[], waiting: readonly Runner[], limits: Limits): Map<string, Need> {
  const found = new Map<string, Need>();
  const count = (runner: Runner, what: 'runs' | 'waits'): void => {
    for (const circle of circlesOf(runner, limits)) {
      const need = found.get(circle.key) ?? { circle, runs: 0, waits: 0 };
      need[what] += 1;
      found.set(circle.key, need);
    }
  };
  for (const runner of running) count(runner, 'runs');
  for (const runner of waiting) count(runner, 'waits');
  return found;
}

/** Of each circle the smaller of the two; what stands in one only is not held. */
function lower(one: Holding, other: Holding): Holding {
  const both = Object.entries(one).filter(([key]) => other[key] !== undefined);
  return Object.fromEntries(both.map(([key, held]) => [key, Math.min(held, other[key] ?? 0)]));
}

function isSame(one: Holding, other: Holding): boolean {
  const keys = Object.keys(one);
  return keys.length === Object.keys(other).length && keys.every((key) => one[key] === other[key]);
}
