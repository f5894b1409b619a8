import { describe, expect, it } from 'vitest';
import { SallyportError } from '../../src/errors.ts';
import { EXECS_PER_SESSION } from '../../src/limits.ts';
import { deferred } from '../../src/sessions/deferred.ts';
import { createPool, type Pool } from '../../src/sessions/pool.ts';
import type { Driver, Lease, Opening, Session } from '../../src/sessions/session.ts';
import type { ConnectTrace } from '../../src/sessions/trace.ts';
import type { Workspace } from '../../src/workspace.ts';

const workspace: Workspace = {
  id: 'ws-1',
  orgId: 'org-1',
  name: 'one',
  tier: 3,
  labels: {},
  target: { driver: 'ssh', host: 'h', port: 22, osUser: 'u' },
};

/** The part of a driver that the pool's sessions have nothing to do with. */
const unasked = {
  probe: () => Promise.reject(new Error('not used here')),
  inspect: () => Promise.reject(new Error('not used here')),
  readConsole: () => Promise.reject(new Error('not used here')),
};

/** A driver whose openings the test settles by hand. */
function handDriver() {
  const openings: { call: Opening; succeed(session?: FakeSession): FakeSession; fail(error: Error): void }[] = [];
  const driver: Driver = {
    ...unasked,
    name: 'ssh',
    key: (who) => (who.target.driver === 'ssh' ? who.target.host : ''),
    open(_workspace, call) {
      const opened = deferred<Session>();
      call.signal.addEventListener('abort', () => opened.reject(call.signal.reason));
      openings.push({
        call,
        succeed(session = fakeSession()) {
          opened.resolve(session);
          return session;
        },
        fail: (error) => opened.reject(error),
      });
      return opened.promise;
    },
  };
  return { driver, openings };
}

interface FakeSession extends Session {
  capacity: number;
  closes: number;
  die(): void;
}

function fakeSession(capacity = EXECS_PER_SESSION): FakeSession {
  const closed = deferred<Error | null>();
  const never = (): Promise<never> => Promise.reject(new Error('not used here'));
  return {
    capacity,
    closes: 0,
    closed: closed.promise,
    close() {
      this.closes += 1;
      closed.resolve(null);
    },
    die: () => closed.resolve(new Error('cut')),
    start: never,
    reap: never,
  };
}

function setup(options: { idleMs?: number; maxAgeMs?: number } = {}) {
  const hand = handDriver();
  const pool = createPool({ drivers: new Map([['ssh', hand.driver]]), ...options });
  return { ...hand, pool };
}

const lease = (pool: Pool, timeoutMs = 5000, signal = new AbortController().signal): Promise<Lease> =>
  pool.lease(workspace, { signal, timeoutMs });
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const at = <T>(list: readonly T[], index: number): T => {
  const item = list[index];
  if (item === undefined) throw new Error(`nothing at ${index}`);
  return item;
};

describe('pool', () => {
  it('opens once for all who wait', async () => {
    const { pool, openings } = setup();
    const waiting = Array.from({ length: EXECS_PER_SESSION }, () => lease(pool));
    await turn();
    expect(openings).toHaveLength(1);
    const session = at(openings, 0).succeed();
    const leases = await Promise.all(waiting);
    expect(leases.every((one) => one.session === session)).toBe(true);
  });

  it('tells each who waits for an opening of it, also who came later; nobody who found a session open', async () => {
    const { pool, openings } = setup();
    const told: [string, ConnectTrace][] = [];
    const waitAs = (who: string): Promise<Lease> => {
      const joined = (trace: ConnectTrace): void => void told.push([who, trace]);
      return pool.lease(workspace, { signal: new AbortController().signal, timeoutMs: 5000, joined });
    };
    const first = waitAs('first');
    await turn();
    const second = waitAs('second');
    await turn();
    const { trace } = at(openings, 0).call;
    at(openings, 0).succeed();
    await Promise.all([first, second]);
    await waitAs('third');
    expect(told).toEqual([
      ['first', trace],
      ['second', trace],
    ]);
    expect(told.every(([, seen]) => seen === trace)).toBe(true);
  });

  it('opens a second session for the ninth exec, and reuses a place that was given back', async () => {
    const { pool, openings } = setup();
    const first = Promise.all(Array.from({ length: EXECS_PER_SESSION }, () => lease(pool)));
    await turn();
    at(openings, 0).succeed();
    const leases = await first;
    const ninth = lease(pool);
    await turn();
    expect(openings).toHaveLength(2);
    at(leases, 0).release();
    await expect(ninth).resolves.toMatchObject({ session: at(leases, 0).session });
  });

  it('gives up an opening that nobody waits for any more', async () => {
    const { pool, openings } = setup();
    const hangUp = new AbortController();
    const waiting = lease(pool, 5000, hangUp.signal);
    await turn();
    hangUp.abort(new Error('the caller hung up'));
    await expect(waiting).rejects.toThrow('the caller hung up');
    expect(at(openings, 0).call.signal.aborted).toBe(true);
  });

  it('nobody joins an opening that was given up', async () => {
    const { pool, openings } = setup();
    const hangUp = new AbortController();
    const gone = lease(pool, 5000, hangUp.signal);
    await turn();
    hangUp.abort(new Error('the caller hung up'));
    const next = lease(pool);
    await expect(gone).rejects.toThrow('the caller hung up');
    await turn();
    const session = at(openings, 1).succeed();
    await expect(next).resolves.toMatchObject({ session });
  });

  it('one caller hanging up spoils nothing for the others', async () => {
    const { pool, openings } = setup();
    const hangUp = new AbortController();
    const gone = lease(pool, 5000, hangUp.signal);
    const stays = lease(pool);
    await turn();
    hangUp.abort(new Error('the caller hung up'));
    await expect(gone).rejects.toThrow('the caller hung up');
    const session = at(openings, 0).succeed();
    await expect(stays).resolves.toMatchObject({ session });
    expect(openings).toHaveLength(1);
  });

  it('a failed opening fails those who waited for it and is not remembered', async () => {
    const { pool, openings } = setup();
    const both = [lease(pool), lease(pool)];
    await turn();
    at(openings, 0).fail(new SallyportError('login_refused', 'no'));
    for (const one of both) await expect(one).rejects.toMatchObject({ code: 'login_refused' });
    const next = lease(pool);
    await turn();
    at(openings, 1).succeed();
    await expect(next).resolves.toBeDefined();
  });

  it('a timeout names the step that hung', async () => {
    const { pool, openings } = setup();
    const waiting = lease(pool, 100);
    await turn();
    void at(openings, 0).call.trace.step('banner', undefined, () => new Promise(() => undefined));
    await expect(waiting).rejects.toMatchObject({
      code: 'connect_timeout',
      details: { failedStep: 'banner', timeoutS: 0.1 },
    });
  });

  it('a timeout while a named error is being retried reports that error', async () => {
    const { pool, openings } = setup();
    const waiting = lease(pool, 30);
    await turn();
    at(openings, 0).call.trace.retried = new SallyportError('aws_throttled', 'slow down', { failedStep: 'key_push' });
    await expect(waiting).rejects.toMatchObject({ code: 'aws_throttled' });
  });

  it('a dead session leaves the pool', async () => {
    const { pool, openings } = setup();
    const first = lease(pool);
    await turn();
    const session = at(openings, 0).succeed();
    (await first).release();
    session.die();
    await turn();
    expect(pool.leaseOpen(workspace)).toBeNull();
    expect(pool.stats()).toEqual({ sessions: 0, leases: 0, openings: 0, waiting: 0, tunnels: 0 });
  });

  it('an idle session is closed', async () => {
    const { pool, openings } = setup({ idleMs: 5 });
    const first = lease(pool);
    await turn();
    const session = at(openings, 0).succeed();
    (await first).release();
    await session.closed;
    expect(session.closes).toBe(1);
    expect(pool.stats().sessions).toBe(0);
  });

  it('an old session takes no new execs and closes with its last one', async () => {
    const { pool, openings } = setup({ maxAgeMs: 0 });
    const first = lease(pool);
    await turn();
    // At once too old: it serves nobody, so the pool dials again and again only while somebody waits.
    at(openings, 0).succeed();
    await turn();
    pool.close();
    await expect(first).rejects.toMatchObject({ code: 'draining' });
  });

  it('a second release throws', async () => {
    const { pool, openings } = setup();
    const first = lease(pool);
    await turn();
    at(openings, 0).succeed();
    const one = await first;
    one.release();
    expect(() => one.release()).toThrow('bug: a lease is released once');
  });

  it('follows a session whose host takes fewer channels', async () => {
    const { pool, openings } = setup();
    const first = lease(pool);
    await turn();
    at(openings, 0).succeed(fakeSession(1));
    await first;
    const second = lease(pool);
    await turn();
    expect(openings).toHaveLength(2);
    at(openings, 1).succeed(fakeSession(1));
    await expect(second).resolves.toBeDefined();
  });

  it('close ends sessions, openings and waiters', async () => {
    const { pool, openings } = setup();
    const first = lease(pool);
    await turn();
    const session = at(openings, 0).succeed();
    await first;
    const more = Array.from({ length: EXECS_PER_SESSION }, () => lease(pool));
    await turn();
    pool.close();
    const results = await Promise.allSettled(more);
    expect(results.filter((one) => one.status === 'rejected')).toHaveLength(1);
    expect(session.closes).toBeGreaterThan(0);
    expect(at(openings, 1).call.signal.aborted).toBe(true);
    await expect(lease(pool)).rejects.toMatchObject({ code: 'draining' });
  });

  it('a driver that is not enabled is named', async () => {
    const pool = createPool({ drivers: new Map() });
    await expect(lease(pool)).rejects.toMatchObject({ code: 'host_unreachable', details: { failedStep: 'endpoint' } });
  });

  it('knows nothing of a host after its last session is gone', async () => {
    const { pool, openings } = setup();
    for (let round = 0; round < 3; round += 1) {
      const waiting = lease(pool);
      await turn();
      const session = at(openings, round).succeed();
      (await waiting).release();
      session.die();
      await turn();
    }
    expect(pool.stats()).toEqual({ sessions: 0, leases: 0, openings: 0, waiting: 0, tunnels: 0 });
  });

  describe('with a scarce way to many hosts', () => {
    const to = (host: string, orgId = 'org-1'): Workspace => ({
      ...workspace,
      orgId,
      target: { driver: 'ssh', host, port: 22, osUser: 'u' },
    });
    /** A driver whose openings succeed as soon as they have a place. */
    function scarce(tunnelsMax: number) {
      let open = 0;
      let peak = 0;
      const driver: Driver = {
        ...unasked,
        name: 'ssh',
        key: (who) => (who.target.driver === 'ssh' ? who.target.host : ''),
        async open(_workspace, { reserve }) {
          await reserve('way');
          open += 1;
          peak = Math.max(peak, open);
          const session = fakeSession();
          void session.closed.then(() => {
            open -= 1;
          });
          return session;
        },
      };
      const pool = createPool({ drivers: new Map([['ssh', driver]]), tunnelsMax });
      const leaseTo = (host: string, timeoutMs = 5000): Promise<Lease> =>
        pool.lease(to(host), { signal: new AbortController().signal, timeoutMs });
      return { pool, leaseTo, peak: () => peak };
    }

    it('an idle session makes room for another host', async () => {
      const { leaseTo, peak } = scarce(1);
      (await leaseTo('a')).release();
      await expect(leaseTo('b')).resolves.toBeDefined();
      expect(peak()).toBe(1);
    });

    it('a session closes with its last exec when others wait', async () => {
      const { leaseTo, peak } = scarce(1);
      const held = await leaseTo('a');
      const waiting = leaseTo('b');
      await turn();
      held.release();
      await expect(waiting).resolves.toBeDefined();
      expect(peak()).toBe(1);
    });

    it('whose time ends while it waits for a place is told so', async () => {
      const { leaseTo } = scarce(1);
      await leaseTo('a');
      await expect(leaseTo('b', 50)).rejects.toMatchObject({
        code: 'capacity',
        details: { failedStep: 'tunnel', retryAfterS: expect.any(Number) },
      });
    });

    it('many hosts share few places, and everybody is served', async () => {
      const { leaseTo, peak, pool } = scarce(3);
      const run = async (n: number): Promise<void> => {
        const held = await leaseTo(`host-${n % 12}`);
        await turn();
        held.release();
      };
      await Promise.all(Array.from({ length: 120 }, (_, n) => run(n)));
      expect(peak()).toBe(3);
      expect(pool.stats().waiting).toBe(0);
    });
  });
});
