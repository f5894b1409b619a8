/** What replicas count together, seen by callers of two gateway processes on one database. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EXECS_PER_SESSION, ROOM_EVERY_MS } from '../../src/limits.ts';
import type { Answer } from '../support/gateway.ts';
import { nowAndThen, type Replica, type Replicas, startReplicas } from '../support/replicas.ts';
import { waitUntil } from '../support/wait.ts';

const PER_MIN = 20;
const AT_ONCE = 6;
const PACE = { presenceBeatMs: 300, presenceMaxMs: 3_000, reconcileEveryMs: 500 };

let replicas: Replicas;
let pair: [Replica, Replica];
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'limits-'));
  replicas = await startReplicas({
    env: { SALLYPORT_RATE_PER_MIN: String(PER_MIN), SALLYPORT_MAX_EXECS_WORKSPACE: String(AT_ONCE) },
  });
  pair = [await replicas.start(PACE), await replicas.start(PACE)];
  expect(AT_ONCE).toBeLessThanOrEqual(EXECS_PER_SESSION);
});
afterAll(async () => {
  await replicas.stop();
  await rm(folder, { recursive: true });
});

describe('requests per minute', () => {
  it(`${PER_MIN} of 60 pass, whichever replica they come to, and every answer says what is left`, async () => {
    const { token } = await replicas.issue(pair[0]);
    const answers = await Promise.all(
      Array.from({ length: 60 }, (_, n) => pair[n % 2 === 0 ? 0 : 1].ask('/workspaces', { token })),
    );
    const [passed, refused] = [200, 429].map((wanted) => answers.filter(({ status }) => status === wanted));
    expect(passed).toHaveLength(PER_MIN);
    expect(refused).toHaveLength(60 - PER_MIN);
    const left = passed?.map(({ headers }) =>
      Number(/^"credential";r=(\d+);t=\d+$/.exec(String(headers.ratelimit))?.[1]),
    );
    expect(left?.sort((one, other) => one - other)).toEqual(Array.from({ length: PER_MIN }, (_, n) => n));
    for (const { headers, body } of refused ?? []) {
      expect(headers['ratelimit-policy']).toBe(`"credential";q=${PER_MIN};w=60`);
      expect(headers.ratelimit).toMatch(/^"credential";r=0;t=\d+$/);
      expect(Number(headers['retry-after'])).toBeGreaterThan(30);
      expect(Number(headers['retry-after'])).toBeLessThanOrEqual(60);
      expect(body.code).toBe('rate_limited');
    }
    // Also later, also for who had asked less of this replica.
    for (const replica of pair) expect((await replica.ask('/workspaces', { token })).status).toBe(429);
    const other = await replicas.issue(pair[1]);
    for (const replica of pair) expect((await replica.ask('/workspaces', { token: other.token })).status).toBe(200);
  });
});

describe('execs at once', () => {
  let files = 0;
  /** Starts so many that run until `release`. */
  async function startMany(
    count: number,
    on: readonly Replica[],
  ): Promise<{ asked: Promise<Answer>[]; release(): Promise<void> }> {
    files += 1;
    const file = join(folder, `go-${files}`);
    const cmd = ['sh', '-c', 'until test -e "$0"; do sleep 0.05; done', file];
    const asked: Promise<Answer>[] = [];
    let token = '';
    for (let n = 0; n < count; n += 1) {
      if (n % 10 === 0) token = (await replicas.issue(pair[1])).token;
      const replica = on[n % on.length] as Replica;
      asked.push(replica.exec({ cmd, timeout_s: 60 }, { token }));
    }
    return { asked, release: () => writeFile(file, '') };
  }

  const rowsRunning = async () =>
    (await replicas.sql(`select from activity_logs where method = 'exec' and status = 'running'`)).length;

  /** How many of them were let in; the others are refused. */
  async function countStarted({ asked, release }: Awaited<ReturnType<typeof startMany>>): Promise<number> {
    let refused = 0;
    for (const answer of asked)
      void answer.then(({ status }) => {
        if (status === 429) refused += 1;
      });
    await waitUntil(
      'all are let in or refused',
      nowAndThen(async () => (await rowsRunning()) + refused === asked.length, 20),
      20_000,
    );
    await release();
    const statuses = (await Promise.all(asked)).map(({ status }) => status);
    await waitUntil(
      'no row is running',
      nowAndThen(async () => (await rowsRunning()) === 0, 20),
    );
    await waitUntil(
      'what they held is given back',
      nowAndThen(async () => (await replicas.sql(`select from exec_shares where held <> '{}'`)).length === 0, 20),
    );
    return statuses.filter((status) => status === 200).length;
  }

  it(`of a workspace are ${AT_ONCE}, whichever replica they come to`, async () => {
    const many = await startMany(3 * AT_ONCE, pair);
    expect(await countStarted(many)).toBe(AT_ONCE);
    const refused = (await Promise.all(many.asked)).find(({ status }) => status === 429);
    expect(refused).toMatchObject({
      headers: {
        'retry-after': '1',
        ratelimit: expect.stringMatching(/^"credential";r=\d+;t=\d+, "workspace";r=0;t=1$/),
        'ratelimit-policy': `"credential";q=${PER_MIN};w=60, "workspace";q=${AT_ONCE};qu="concurrent-requests"`,
      },
      body: { code: 'too_many_execs', retryable: true },
    });
  });

  it('of a replica that died count until they are ended; then the whole limit is free again', async () => {
    const [dying, living] = pair;
    const left = await startMany(3, [dying]);
    for (const answer of left.asked) answer.catch(() => {}); // it dies before it answers
    await waitUntil(
      'three run',
      nowAndThen(async () => (await rowsRunning()) === 3, 20),
      20_000,
    );
    await dying.kill();
    const many = await startMany(AT_ONCE, [living]);
    const refused: number[] = [];
    for (const answer of many.asked) void answer.then(({ status }) => refused.push(status));
    await waitUntil('the rest is refused', () => refused.length === 3, 20_000);
    expect(refused).toEqual([429, 429, 429]);

    await many.release();
    await waitUntil(
      'what the dead one ran is ended',
      nowAndThen(async () => (await rowsRunning()) === 0),
      30_000,
    );
    await waitUntil(
      'the dead one is forgotten',
      nowAndThen(async () => (await replicas.sql('select from exec_shares')).length === 1),
      ROOM_EVERY_MS * 10,
    );
    // The living one has read the same, or does with its next refresh.
    await waitUntil(
      'the whole limit is free',
      async () => (await countStarted(await startMany(AT_ONCE, [living]))) === AT_ONCE,
      ROOM_EVERY_MS * 10,
    );
  }, 60_000);
});
