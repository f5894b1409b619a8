/** The limits on execs at once, of several replicas over one store in memory; over PostgreSQL in test/replicas. */
import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { createRoom, type Holding, type Room, type ShareStore } from '../../src/exec/room.ts';
import type { Runner } from '../../src/exec/running.ts';
import { createRunningExecs, type RunningExecs } from '../../src/exec/running.ts';
import { EXECS_PER_TOKEN_MAX } from '../../src/limits.ts';

const RUNNER: Runner = { orgId: 'org-1', workspaceId: 'ws-1', jti: 'token-1', sub: 'ann' };
const HUGE = 1_000_000;

/** What replicas share: one exchange at a time, each takes a few turns. */
class Table {
  readonly rows = new Map<string, Holding>();
  exchanges = 0;
  reads = 0;
  isDown = false;
  #lock: Promise<unknown> = Promise.resolve();

  of(name: string): ShareStore {
    return {
      read: async () => {
        this.reads += 1;
        await turn();
        return this.rows.has(name) ? this.#others(name) : null;
      },
      exchange: async (decide) => {
        const mine = this.#lock.then(async () => {
          this.exchanges += 1;
          await turn();
          if (this.isDown) throw new Error('the table is away');
          const held = decide(this.#others(name));
          await turn();
          this.rows.set(name, held);
        });
        this.#lock = mine.catch(() => {}); // whoever waits for it is told
        await mine;
        await turn();
      },
    };
  }

  #others(name: string): Holding[] {
    return [...this.rows].filter(([other]) => other !== name).map(([, held]) => held);
  }
}

interface Replica {
  running: RunningExecs;
  room: Room;
  /** As the gate does: claims, looks, registers. Null: refused. */
  start(runner?: Runner): Promise<(() => void) | null>;
}

let ids = 0;
async function replica(table: Table, name: string, most: { workspace?: number; org?: number }): Promise<Replica> {
  const running = createRunningExecs();
  const limits = { maxExecsWorkspace: most.workspace ?? HUGE, maxExecsOrg: most.org ?? HUGE };
  const room = createRoom({ running, limits, store: table.of(name) });
  await room.refresh();
  return {
    running,
    room,
    async start(runner = RUNNER) {
      const claimed = room.claim(runner);
      if (claimed !== null) await claimed;
      if (room.full(runner) !== null) return null;
      ids += 1;
      return running.add({ ...runner, execId: `e-${ids}`, end() {} });
    },
  };
}

async function replicas(count: number, most: { workspace?: number; org?: number }) {
  const table = new Table();
  const all = [];
  for (let n = 0; n < count; n += 1) all.push(await replica(table, `r-${n}`, most));
  for (const { room } of all) await room.refresh();
  return { table, all };
}

const sum = (all: readonly Replica[]) => all.reduce((total, { running }) => total + running.size, 0);
const at = (all: readonly Replica[], n: number): Replica => all[n % all.length] as Replica;

describe('a replica that is alone', () => {
  test('fills the whole limit and asks nobody', async () => {
    const { table, all } = await replicas(1, { workspace: 5 });
    const asked = table.exchanges;
    const started = await Promise.all(Array.from({ length: 9 }, () => at(all, 0).start()));
    expect(started.filter((end) => end !== null)).toHaveLength(5);
    started[0]?.();
    expect(await at(all, 0).start()).not.toBeNull();
    expect(table.exchanges).toBe(asked);
  });
});

describe('several replicas', () => {
  test.each([2, 3, 5])('%i of them run exactly the limit together, when more come at once', async (count) => {
    for (const workspace of [1, 2, 7, 20, 128]) {
      const { all } = await replicas(count, { workspace });
      const started = await Promise.all(Array.from({ length: 3 * workspace }, (_, n) => at(all, n).start()));
      expect(started.filter((end) => end !== null)).toHaveLength(workspace);
    }
  });

  test('one of them may run the whole limit while the others run nothing', async () => {
    const { all } = await replicas(3, { workspace: 100 });
    const shares = 2 * Math.floor(100 / 6);
    const started = [];
    for (let n = 0; n < 120; n += 1) started.push(await at(all, 0).start());
    // What the others may start without asking is theirs.
    expect(started.filter((end) => end !== null)).toHaveLength(100 - shares);
  });

  test.each([
    ['token', { jti: 'token-1' }, EXECS_PER_TOKEN_MAX],
    ['session', { orgId: 'org-1', jti: null, sub: 'ann' }, EXECS_PER_TOKEN_MAX],
    ['org', { orgId: 'org-1' }, 30],
    ['workspace', { workspaceId: 'ws-1' }, 20],
  ] as const)('count per %s', async (policy, same, most) => {
    const limits = policy === 'token' || policy === 'session' ? {} : { [policy]: most };
    const { all } = await replicas(2, limits);
    let n = 0;
    const runner = (): Runner => {
      n += 1;
      return { orgId: `org-${n}`, workspaceId: `ws-${n}`, jti: `token-${n}`, sub: `p-${n}`, ...same };
    };
    const started = await Promise.all(Array.from({ length: 2 * most }, (_, k) => at(all, k).start(runner())));
    expect(started.filter((end) => end !== null)).toHaveLength(most);
    expect(at(all, 0).room.full(runner())).toMatchObject({ policy, most });
    expect(at(all, 0).room.full({ orgId: 'org-x', workspaceId: 'ws-x', jti: null, sub: null })).toBeNull();
  });

  test('ask nothing for the first quarter of the limit, and rarely after it', async () => {
    const { table, all } = await replicas(2, { workspace: 400 });
    const asked = table.exchanges;
    for (let n = 0; n < 200; n += 1) await at(all, n).start();
    expect(table.exchanges).toBe(asked);
    for (let n = 0; n < 160; n += 1) expect(await at(all, n).start()).not.toBeNull();
    expect(table.exchanges - asked).toBeLessThan(20);
  });

  test('get what another has claimed and does not need after its next refresh', async () => {
    const { all } = await replicas(2, { workspace: 40 });
    const [one, other] = [at(all, 0), at(all, 1)];
    const ends = [];
    for (let n = 0; n < 30; n += 1) ends.push(await one.start());
    for (const end of ends) end?.();
    await one.room.refresh();
    const started = await Promise.all(Array.from({ length: 30 }, () => other.start()));
    expect(started.filter((end) => end !== null)).toHaveLength(30);
  });

  test('who is refused in a loop costs the store little', async () => {
    const { table, all } = await replicas(2, { workspace: 4 });
    await Promise.all(Array.from({ length: 12 }, (_, n) => at(all, n).start()));
    const [asked, fromMs] = [table.exchanges, performance.now()];
    for (let n = 0; n < 1_000; n += 1) expect(await at(all, n).start()).toBeNull();
    const mayAsk = 2 * (1 + (performance.now() - fromMs) / 100);
    expect(table.exchanges - asked).toBeLessThanOrEqual(mayAsk);
  });

  test('never exceed the limit, whatever starts and ends where and when', async () => {
    const workspace = 24;
    const { all } = await replicas(3, { workspace });
    const running: (() => void)[] = [];
    let most = 0;
    const note = () => {
      most = Math.max(most, sum(all));
    };
    const caller = async (n: number) => {
      for (let round = 0; round < 150; round += 1) {
        const dice = Math.random();
        if (dice < 0.55) {
          const end = await at(all, n).start();
          note();
          if (end !== null) running.push(end);
        } else if (dice < 0.9) running.splice(Math.floor(Math.random() * running.length), 1)[0]?.();
        else if (dice < 0.95) await at(all, n).room.refresh();
        else await turn();
      }
    };
    await Promise.all(Array.from({ length: 60 }, (_, n) => caller(n)));
    expect(most).toBeLessThanOrEqual(workspace);
    expect(most).toBeGreaterThan(workspace / 2);
  });

  test('a newcomer gets its share although another has filled the limit, and no more', async () => {
    const { table, all } = await replicas(1, { workspace: 40 });
    for (let n = 0; n < 40; n += 1) await at(all, 0).start();
    const newcomer = await replica(table, 'new', { workspace: 40 });
    const early = await Promise.all(Array.from({ length: 20 }, () => newcomer.start()));
    expect(early.filter((end) => end !== null).length).toBeLessThanOrEqual(30);
    for (const end of early) end?.();
    await at(all, 0).room.refresh();
    await newcomer.room.refresh();
    expect(await newcomer.start()).toBeNull();
    expect(await at(all, 0).start()).toBeNull();
  });
});

describe('a store that does not answer', () => {
  test('refuses who would need more, and nobody else', async () => {
    const { table, all } = await replicas(2, { workspace: 8 });
    table.isDown = true;
    for (let n = 0; n < 4; n += 1) expect(await at(all, n).start()).not.toBeNull();
    await expect(at(all, 0).start()).rejects.toThrow('away');
    table.isDown = false;
    expect(await at(all, 0).start()).not.toBeNull();
  });
});
