/** What a diagnosis and a change of host keys ask of the pool. */
import { describe, expect, it } from 'vitest';
import { deferred } from '../../src/sessions/deferred.ts';
import { createPool, type Pool } from '../../src/sessions/pool.ts';
import type { Driver, Opening, Session } from '../../src/sessions/session.ts';
import { ConnectTrace } from '../../src/sessions/trace.ts';
import type { Workspace } from '../../src/workspace.ts';

const workspace: Workspace = {
  id: 'ws-1',
  orgId: 'org-1',
  name: 'one',
  tier: 3,
  labels: {},
  target: { driver: 'ssh', host: 'h', port: 22, osUser: 'u' },
};

type FakeSession = Session & { closes: number };

function fakeSession(): FakeSession {
  const closed = deferred<Error | null>();
  const unused = (): Promise<never> => Promise.reject(new Error('not used here'));
  return {
    capacity: 8,
    closes: 0,
    closed: closed.promise,
    close() {
      this.closes += 1;
      closed.resolve(null);
    },
    start: unused,
    reap: unused,
  };
}

/** Openings and probes take a place on one way, and then wait for the test. */
function setup(tunnelsMax = 20) {
  const openings: { succeed(session: Session): void; fail(error: Error): void }[] = [];
  const probes: { finish(session: Session | null): void; fail(error: Error): void }[] = [];
  const unused = (): Promise<never> => Promise.reject(new Error('not used here'));
  const take = async <T>(call: Opening, add: (settled: ReturnType<typeof deferred<T>>) => void): Promise<T> => {
    await call.reserve('way');
    const settled = deferred<T>();
    call.signal.addEventListener('abort', () => settled.reject(call.signal.reason));
    add(settled);
    return await settled.promise;
  };
  const driver: Driver = {
    name: 'ssh',
    key: () => 'h',
    open: (_workspace, call) =>
      take<Session>(call, ({ resolve, reject }) => openings.push({ succeed: resolve, fail: reject })),
    probe: (_workspace, call) =>
      take<Session | null>(call, ({ resolve, reject }) => probes.push({ finish: resolve, fail: reject })),
    inspect: unused,
    readConsole: unused,
  };
  return { pool: createPool({ drivers: new Map([['ssh', driver]]), tunnelsMax }), openings, probes };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const lease = (pool: Pool) => pool.lease(workspace, { signal: new AbortController().signal, timeoutMs: 5_000 });
const probe = (pool: Pool, trace = new ConnectTrace()) =>
  pool.probe(workspace, { trace, signal: new AbortController().signal }, 'login');

function first<T>(items: readonly T[], index = 0): T {
  const item = items[index];
  if (item === undefined) throw new Error(`there is no item ${index}`);
  return item;
}

describe('a probe', () => {
  it('is no session of the pool, and takes a place on the way while it is open', async () => {
    const { pool, probes } = setup();
    const probing = probe(pool);
    await turn();
    const session = fakeSession();
    first(probes).finish(session);
    await expect(probing).resolves.toBe(session);
    expect(pool.leaseOpen(workspace)).toBeNull();
    expect(pool.stats()).toMatchObject({ sessions: 0, tunnels: 1 });
    session.close();
    await turn();
    expect(pool.stats()).toMatchObject({ tunnels: 0 });
  });

  it('that ends without a session, or fails, gives its place back', async () => {
    const { pool, probes } = setup();
    const ended = probe(pool);
    await turn();
    first(probes).finish(null);
    await expect(ended).resolves.toBeNull();
    const failing = probe(pool);
    await turn();
    first(probes, 1).fail(new Error('broken'));
    await expect(failing).rejects.toThrow('broken');
    expect(pool.stats()).toMatchObject({ tunnels: 0 });
  });

  it('waits for a place, and its trace says so', async () => {
    const { pool, probes } = setup(1);
    const one = probe(pool);
    await turn();
    const trace = new ConnectTrace();
    const other = probe(pool, trace);
    await turn();
    expect(probes).toHaveLength(1);
    expect(trace.retried).toMatchObject({ code: 'capacity', details: { failedStep: 'tunnel' } });
    first(probes).finish(null);
    await one;
    await turn();
    expect(trace.retried).toBeNull();
    first(probes, 1).finish(null);
    await expect(other).resolves.toBeNull();
  });

  it('ends with the pool', async () => {
    const { pool } = setup();
    const probing = probe(pool);
    await turn();
    pool.close();
    await expect(probing).rejects.toMatchObject({ code: 'draining' });
    await expect(probe(pool)).rejects.toMatchObject({ code: 'draining' });
  });
});

describe('a host whose keys were replaced', () => {
  it('has no session that takes anybody; what runs on one goes on', async () => {
    const { pool, openings } = setup();
    const leasing = lease(pool);
    await turn();
    const old = fakeSession();
    first(openings).succeed(old);
    const held = await leasing;
    pool.retire((target) => target === workspace.target);
    expect(pool.leaseOpen(workspace)).toBeNull();
    expect(old.closes).toBe(0);
    held.release();
    expect(old.closes).toBe(1);
  });

  it('is dialled again for those whose opening began before', async () => {
    const { pool, openings } = setup();
    const leasing = lease(pool);
    await turn();
    pool.retire((target) => target === workspace.target);
    const old = fakeSession();
    first(openings).succeed(old);
    await turn();
    expect(old.closes).toBe(1);
    const fresh = fakeSession();
    first(openings, 1).succeed(fresh);
    await expect(leasing).resolves.toMatchObject({ session: fresh });
  });

  it('is dialled again also where the opening failed by the old keys, and nobody joins that one', async () => {
    const { pool, openings } = setup();
    const leasing = lease(pool);
    await turn();
    pool.retire((target) => target === workspace.target);
    const later = lease(pool);
    await turn();
    expect(openings).toHaveLength(2);
    first(openings).fail(new Error('the host key has changed'));
    await turn();
    const fresh = fakeSession();
    first(openings, 1).succeed(fresh);
    await expect(later).resolves.toMatchObject({ session: fresh });
    await expect(leasing).resolves.toMatchObject({ session: fresh });
  });

  it('leaves the sessions of others alone', async () => {
    const { pool, openings } = setup();
    const leasing = lease(pool);
    await turn();
    const session = fakeSession();
    first(openings).succeed(session);
    const held = await leasing;
    pool.retire((target) => target !== workspace.target);
    held.release();
    const again = pool.leaseOpen(workspace);
    expect(again?.session).toBe(session);
    again?.release();
    expect(session.closes).toBe(0);
  });
});
