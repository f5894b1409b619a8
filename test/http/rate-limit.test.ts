import { RateLimiterMemory, type RateLimiterRes } from 'rate-limiter-flexible';
import request from 'supertest';
import { describe, expect, test } from 'vitest';
import type { Caller, RateCounter } from '../../src/access/access.ts';
import type { Verifier } from '../../src/access/token.ts';
import { SallyportError } from '../../src/errors.ts';
import { createRoom } from '../../src/exec/room.ts';
import { createRunningExecs } from '../../src/exec/running.ts';
import { createGuessLimit, createRateLimit } from '../../src/http/rate-limit.ts';
import { EXECS_PER_TOKEN_MAX, GUESS_ADDRESSES_MAX, GUESSES_PER_MIN } from '../../src/limits.ts';
import { aCaller } from '../access/a-caller.ts';
import { ADMIN_TOKEN, ALONE, type FakeGateway, fakeGateway } from './fake-gateway.ts';
import { listen } from './wire.ts';

const HUGE = 1_000_000;

async function gatewayWithRate(perMin: number): Promise<FakeGateway> {
  return await fakeGateway({ rates: rates(perMin) });
}

/** What the database does for all replicas, for one. */
function rates(perMin: number): RateCounter {
  const limiter = new RateLimiterMemory({ points: perMin, duration: 60 });
  return {
    perMin,
    take: (key) =>
      limiter.consume(key).then(
        ({ remainingPoints, msBeforeNext }) => ({ isOver: false, left: remainingPoints, resetMs: msBeforeNext }),
        ({ msBeforeNext }: RateLimiterRes) => ({ isOver: true, left: 0, resetMs: msBeforeNext }),
      ),
  };
}

/** Verifies `org.sub.anything` as the session of that person. */
const people: Verifier = {
  async verify(bearer) {
    const [orgId = '', sub = ''] = bearer.split('.');
    return aCaller({ kind: 'session', jti: null, orgId, sub, actor: `session:${sub}` });
  },
  remembers: () => true,
};

function get(gateway: FakeGateway, token: string, headers: Record<string, string> = {}) {
  return request(gateway.app).get('/workspaces').auth(token, { type: 'bearer' }).set(headers);
}

describe('the rate of a credential', () => {
  test('is told with every answer, and what is too much is 429 that says when to come back', async () => {
    const gateway = await gatewayWithRate(2);
    const token = await gateway.token();
    const first = await get(gateway, token);
    expect(first.status).toBe(200);
    expect(first.headers['ratelimit-policy']).toBe('"credential";q=2;w=60');
    expect(first.headers.ratelimit).toBe('"credential";r=1;t=60');
    await get(gateway, token);
    const third = await get(gateway, token);
    expect(third.status).toBe(429);
    expect(third.body).toMatchObject({
      code: 'rate_limited',
      retryable: true,
      error: 'this credential may make 2 requests per minute',
    });
    expect(third.headers.ratelimit).toMatch(/^"credential";r=0;t=\d+$/);
    expect(Number(third.headers['retry-after'])).toBeGreaterThan(50);
    expect(Number(third.headers['retry-after'])).toBeLessThanOrEqual(60);
  });

  test('is its own, whatever headers it sends', async () => {
    const gateway = await gatewayWithRate(1);
    const [one, other] = [await gateway.token(), await gateway.token()];
    expect((await get(gateway, one)).status).toBe(200);
    expect((await get(gateway, one, { 'x-forwarded-for': '192.0.2.1', 'x-org-id': 'org-a' })).status).toBe(429);
    expect((await get(gateway, other)).status).toBe(200);
    expect((await get(gateway, ADMIN_TOKEN)).status).not.toBe(429);
  });

  test('cannot be spent by who does not hold it', async () => {
    const gateway = await gatewayWithRate(1);
    const token = await gateway.token();
    const [head, claims] = token.split('.');
    expect((await get(gateway, `${head}.${claims}.${'A'.repeat(86)}`)).status).toBe(401);
    expect((await get(gateway, token)).status).toBe(200);
  });

  test('comes before any lookup, and its refusal is a row in the caller’s org', async () => {
    const gateway = await gatewayWithRate(1);
    const token = await gateway.token();
    await get(gateway, token);
    gateway.trace.length = 0;
    await get(gateway, token);
    expect(gateway.trace).toEqual(['verify']);
    expect(gateway.refused).toMatchObject([{ orgId: 'org-a', code: 'rate_limited' }]);
  });

  test('is one for all sessions of a person in an org', async () => {
    const gateway = await fakeGateway({ rates: rates(1), verifier: people });
    expect((await get(gateway, 'org-a.ada.1')).status).toBe(200);
    expect((await get(gateway, 'org-a.ada.2')).status).toBe(429);
    expect((await get(gateway, 'org-a.bob.1')).status).toBe(200);
    expect((await get(gateway, 'org-b.ada.1')).status).toBe(200);
  });

  test('of two orgs is counted apart, also where they call somebody by the same name', async () => {
    const keys: string[] = [];
    const counter: RateCounter = {
      perMin: 1,
      async take(key) {
        keys.push(key);
        return { isOver: false, left: 0, resetMs: 1 };
      },
    };
    const limit = createRateLimit(counter);
    const person = { jti: null, actor: 'session:ann' } as Caller;
    for (const orgId of ['org-a', 'org-b', 'org-a'])
      await limit.take({ ...person, orgId }, { appendHeader() {} } as never);
    expect(keys[0]).toBe(keys[2]);
    expect(keys[0]).not.toBe(keys[1]);
  });

  test('that nobody can count is 503, never unlimited', async () => {
    const down = new SallyportError('audit_unavailable', 'the database cannot answer now', { retryable: true });
    const gateway = await fakeGateway({ rates: { perMin: 1, take: () => Promise.reject(down) } });
    const { status, body } = await get(gateway, await gateway.token());
    expect({ status, code: body.code }).toEqual({ status: 503, code: 'audit_unavailable' });
    expect(gateway.trace).toEqual(['verify']);
  });

  test('without a limit stands in no header', async () => {
    const gateway = await fakeGateway();
    const { headers } = await get(gateway, await gateway.token());
    expect(headers).not.toHaveProperty('ratelimit');
  });
});

describe('wrong credentials from one address', () => {
  test('are none while nobody can say whether they are', async () => {
    const down: Verifier = {
      verify: () => Promise.reject(new SallyportError('issuer_unavailable', 'the issuer cannot be asked')),
      remembers: () => false,
    };
    const gateway = await fakeGateway({ verifier: down });
    const { url } = await listen(gateway.app);
    const ask = () => request(url).get('/workspaces').auth('x.y.z', { type: 'bearer' });
    for (let count = 0; count <= GUESSES_PER_MIN; count += 100) {
      const answers = await Promise.all(Array.from({ length: 100 }, ask));
      for (const { status, headers } of answers) expect([status, headers['retry-after']]).toEqual([503, '5']);
    }
  });

  test('are not looked at any more after too many, while known credentials go on', async () => {
    const gateway = await fakeGateway();
    const [known, fresh] = [await gateway.token(), await gateway.token()];
    expect((await get(gateway, known)).status).toBe(200);
    const { url } = await listen(gateway.app);
    const guess = (count: number) => request(url).get('/workspaces').auth(`wrong-${count}`, { type: 'bearer' });
    for (let count = 0; count < GUESSES_PER_MIN; count += 100) {
      const answers = await Promise.all(Array.from({ length: 100 }, (_, index) => guess(count + index)));
      expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([401]));
    }
    const refused = await get(gateway, 'wrong-again');
    expect(refused.status).toBe(429);
    expect(refused.body.code).toBe('rate_limited');
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0);
    expect(refused.headers['ratelimit-policy']).toBe(`"address";q=${GUESSES_PER_MIN};w=60`);
    gateway.trace.length = 0;
    expect((await get(gateway, fresh)).status).toBe(429);
    expect(gateway.trace).toEqual([]);
    expect((await get(gateway, known)).status).toBe(200);
    expect((await get(gateway, ADMIN_TOKEN)).status).toBe(200);
    expect((await get(gateway, 'wrong', { 'x-forwarded-for': '192.0.2.1' })).status).toBe(429);
  });

  const unlucky = () => false;
  const response = { appendHeader() {} } as never;

  test('are forgiven after a minute', () => {
    let nowMs = 0;
    const guesses = createGuessLimit({ now: () => nowMs, most: 2 });
    const ask = () => guesses.require('192.0.2.1', response, unlucky);
    guesses.note('192.0.2.1');
    ask();
    guesses.note('192.0.2.1');
    expect(ask).toThrow('too many wrong credentials');
    nowMs = 59_999;
    expect(ask).toThrow('too many wrong credentials');
    nowMs = 60_000;
    ask();
  });

  test.each([
    ['2001:db8:1:2::1', '2001:db8:1:2:ffff::9', true],
    ['2001:db8:1:2::1', '2001:db8:1:3::1', false],
    ['::1', '::2', true],
    ['fe80::1%eth0', 'fe80::2%eth1', true],
    ['::ffff:192.0.2.1', '::ffff:192.0.2.2', false],
    ['192.0.2.1', '192.0.2.2', false],
    ['made up', 'x'.repeat(10_000), true],
  ])('from %s and %s are counted together: %s', (one, other, together) => {
    const guesses = createGuessLimit({ most: 1 });
    guesses.note(one);
    const ask = () => guesses.require(other, response, unlucky);
    if (together) expect(ask).toThrow();
    else expect(ask).not.toThrow();
  });

  test('are remembered of so many addresses only, the oldest is forgotten first', () => {
    const guesses = createGuessLimit({ most: 1 });
    const address = (index: number) => `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`;
    for (let index = 0; index <= GUESS_ADDRESSES_MAX; index += 1) guesses.note(address(index));
    expect(() => guesses.require(address(0), response, unlucky)).not.toThrow();
    expect(() => guesses.require(address(1), response, unlucky)).toThrow();
  });
});

describe('execs at once', () => {
  test('of one person are limited over all their sessions', async () => {
    const { deps } = await fakeGateway();
    const running = createRunningExecs();
    const room = createRoom({ running, limits: { maxExecsWorkspace: HUGE, maxExecsOrg: HUGE }, store: ALONE });
    const limits = { ...deps.limits, maxExecsGateway: HUGE };
    const gateway = await fakeGateway({ limits, running, room, verifier: people });
    const run = { orgId: 'org-a', workspaceId: 'ws-2', jti: null, sub: 'ada', end() {} };
    for (let index = 0; index < EXECS_PER_TOKEN_MAX; index += 1)
      gateway.deps.running.add({ ...run, execId: `e-${index}` });
    const exec = (bearer: string) =>
      request(gateway.app)
        .post('/workspaces/ws-1/exec')
        .auth(bearer, { type: 'bearer' })
        .send({ cmd: ['ls'] });
    const refused = await exec('org-a.ada.2');
    expect(refused.body).toMatchObject({
      code: 'too_many_execs',
      error: expect.stringMatching(/^the session has no room/),
    });
    expect((await exec('org-a.bob.1')).status).toBe(200);
  });

  test('of one token are limited, others go on', async () => {
    const { deps } = await fakeGateway();
    const running = createRunningExecs();
    const room = createRoom({ running, limits: { maxExecsWorkspace: HUGE, maxExecsOrg: HUGE }, store: ALONE });
    const limits = { ...deps.limits, maxExecsGateway: HUGE };
    const gateway = await fakeGateway({ limits, running, room });
    const token = await gateway.token({ jti: 'token-busy' });
    const run = { orgId: 'org-a', workspaceId: 'ws-2', jti: 'token-busy', sub: 'ada', end() {} };
    const ended: (() => void)[] = [];
    for (let index = 0; index < EXECS_PER_TOKEN_MAX; index += 1)
      ended.push(gateway.deps.running.add({ ...run, execId: `e-${index}` }));
    const exec = (bearer: string) =>
      request(gateway.app)
        .post('/workspaces/ws-1/exec')
        .auth(bearer, { type: 'bearer' })
        .send({ cmd: ['ls'] });
    const refused = await exec(token);
    expect(refused.status).toBe(429);
    expect(refused.body).toMatchObject({ code: 'too_many_execs', outcome: 'refused' });
    expect(refused.headers).toMatchObject({
      'retry-after': '1',
      'ratelimit-policy': `"token";q=${EXECS_PER_TOKEN_MAX};qu="concurrent-requests"`,
      ratelimit: '"token";r=0;t=1',
    });
    expect((await exec(await gateway.token())).status).toBe(200);
    ended[0]?.();
    expect((await exec(token)).status).toBe(200);
  });
});
