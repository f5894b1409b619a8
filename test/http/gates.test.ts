import request from 'supertest';
import { describe, expect, test } from 'vitest';
import { SallyportError } from '../../src/errors.ts';
import type { Circle, Room } from '../../src/exec/room.ts';
import { waitUntil, waitUntilStill, within } from '../support/wait.ts';
import { ADMIN_TOKEN, type FakeGateway, fakeGateway, workspaceOf } from './fake-gateway.ts';
import { listen, post, rawSocket, textOf } from './wire.ts';

const PATH = '/workspaces/ws-1/exec';
const LS = { cmd: ['ls'] };

async function exec(gateway: FakeGateway, token: string, { path = PATH, body = LS as object, headers = {} } = {}) {
  return await request(gateway.app).post(path).auth(token, { type: 'bearer' }).set(headers).send(body);
}

describe('the gates of exec', () => {
  test('are passed in this order', async () => {
    const gateway = await fakeGateway();
    const response = await exec(gateway, await gateway.token());
    expect(response.status).toBe(200);
    expect(gateway.trace).toEqual(['verify', 'standing', 'audit', 'host']);
  });

  /** Everything is wrong at once; each repair shows the next gate. */
  test('refuse in this order', async () => {
    let draining = true;
    const gateway = await fakeGateway({ draining: () => draining });
    gateway.workspaces.delete('ws-1');
    gateway.orgs.set('org-a', { id: 'org-a', name: 'A', frozen: true });
    const bad = { scopes: ['activity:read' as const], jti: 'token-bad-0000' };
    const answers: string[] = [];
    let token = 'forged';
    let body: object = { cmd: 'ls' };
    const ask = async (headers = {}) => {
      const response = await exec(gateway, token, { body, headers });
      answers.push(`${response.status} ${response.body.code}`);
    };
    await ask({ 'x-org-id': 'org-b' });
    token = await gateway.token(bad);
    await ask({ 'x-org-id': 'org-b' });
    gateway.records.delete(bad.jti);
    await ask();
    token = await gateway.token(bad);
    await ask();
    gateway.workspaces.set('ws-1', workspaceOf({ tier: 2, target: { ...ec2, instanceId: null } }));
    await ask();
    gateway.orgs.set('org-a', { id: 'org-a', name: 'A', frozen: false });
    await ask();
    token = await gateway.token({ allow: [['df']], scopes: ['exec'] });
    await ask();
    body = LS;
    await ask();
    gateway.workspaces.set('ws-1', workspaceOf({ target: { ...ec2, instanceId: null } }));
    await ask();
    gateway.workspaces.set('ws-1', workspaceOf());
    await ask();
    body = { cmd: ['df'] };
    await ask();
    draining = false;
    await ask();
    expect(answers).toEqual([
      '401 unauthenticated',
      '404 not_found',
      '401 unauthenticated',
      '404 not_found',
      '403 exec_revoked',
      '403 scope_missing',
      '400 cmd_not_argv',
      '403 exec_tier_forbidden',
      '400 no_instance',
      '403 exec_command_forbidden',
      '503 draining',
      '200 undefined',
    ]);
    expect(gateway.trace.filter((step) => step === 'host')).toHaveLength(1);
  });

  const ec2 = { driver: 'ec2' as const, instanceId: 'i-1', region: 'eu-central-1', osUser: 'ec2-user', route: null };
});

describe('a credential', () => {
  test.each([
    undefined,
    '',
    'Basic YTpi',
    'Bearer',
    'Bearer a b',
    'Bearer \u00e9',
    'Bearer x.y.z',
    `Bearer ${ADMIN_TOKEN}x`,
  ])('%j is 401 with one text for all, before any lookup', async (authorization) => {
    const gateway = await fakeGateway();
    const asked = request(gateway.app).post(PATH);
    if (authorization !== undefined) asked.set('authorization', Buffer.from(authorization).toString('latin1'));
    const response = await asked.send(LS);
    expect(response.status).toBe(401);
    expect(response.headers['www-authenticate']).toBe('Bearer');
    expect(response.body).toEqual({
      type: 'urn:sallyport:problem:unauthenticated',
      title: 'Not authenticated',
      status: 401,
      detail: 'a valid credential is required: Authorization: Bearer <token>',
      code: 'unauthenticated',
      error: 'a valid credential is required: Authorization: Bearer <token>',
      request_id: response.headers['x-request-id'],
      outcome: 'refused',
    });
    expect(gateway.trace).not.toContain('standing');
  });

  test('that was revoked or is unknown has the same answer as a forged one', async () => {
    const gateway = await fakeGateway();
    const token = await gateway.token({ jti: 'token-known' });
    const record = gateway.records.get('token-known');
    if (record) record.revokedAt = new Date();
    const revoked = await exec(gateway, token);
    gateway.records.clear();
    const unknown = await exec(gateway, token);
    const forged = await exec(gateway, `${token}x`);
    expect(revoked.status).toBe(401);
    expect({ ...revoked.body, request_id: '' }).toEqual({ ...forged.body, request_id: '' });
    expect({ ...unknown.body, request_id: '' }).toEqual({ ...forged.body, request_id: '' });
    expect(gateway.refused).toEqual([]);
    expect(gateway.logged.map(({ code, reason }) => ({ code, reason }))).toMatchObject([
      { code: 'unauthenticated', reason: 'the token is revoked' },
      { code: 'unauthenticated', reason: 'the token is unknown' },
      { code: 'unauthenticated' },
    ]);
  });

  test('never appears in a log line', async () => {
    const gateway = await fakeGateway();
    const token = await gateway.token();
    await exec(gateway, `${token}x`);
    await exec(gateway, token, { path: '/workspaces/nowhere/exec' });
    expect(JSON.stringify(gateway.logged)).not.toContain(token.slice(0, 60));
  });

  test('of the admin acts in the org of the workspace it names', async () => {
    const gateway = await fakeGateway();
    expect((await exec(gateway, ADMIN_TOKEN, { path: '/workspaces/ws-other/exec' })).status).toBe(200);
    expect((await exec(gateway, ADMIN_TOKEN, { headers: { 'x-org-id': 'org-b' } })).status).toBe(404);
  });
});

describe('a workspace that the caller may not see', () => {
  test('is 404 with one body, by one query, however it is out of reach', async () => {
    const gateway = await fakeGateway();
    gateway.workspaces.set('ws-2', workspaceOf({ id: 'ws-2' }));
    const org = await gateway.token();
    const bound = await gateway.token({ kind: 'workspace', workspaceId: 'ws-1' });
    const cases: [string, string, object][] = [
      [org, '/workspaces/ws-other/exec', {}],
      [org, '/workspaces/ws-unknown/exec', {}],
      [org, '/workspaces/%00/exec', {}],
      [org, `/workspaces/${'x'.repeat(500)}/exec`, {}],
      [bound, '/workspaces/ws-2/exec', {}],
      [org, PATH, { 'x-org-id': 'org-b' }],
      [org, PATH, { 'x-org-id': 'no such org' }],
    ];
    const bodies = new Set<string>();
    for (const [token, path, headers] of cases) {
      gateway.trace.length = 0;
      const response = await exec(gateway, token, { path, headers });
      expect(response.status, path).toBe(404);
      expect(response.headers['content-type']).toBe('application/problem+json');
      bodies.add(JSON.stringify({ ...response.body, request_id: '' }));
      expect(gateway.trace).toEqual('x-org-id' in headers ? ['verify'] : ['verify', 'standing']);
    }
    expect(bodies.size).toBe(1);
  });

  test('leaves a refused row in the org of the caller', async () => {
    const gateway = await fakeGateway();
    await exec(gateway, await gateway.token(), {
      path: '/workspaces/ws-other/exec',
      headers: { 'x-request-id': 'r-1' },
    });
    expect(gateway.refused).toEqual([
      {
        orgId: 'org-a',
        workspaceId: 'ws-other',
        actor: 'org-token:token-1-',
        requestId: 'r-1',
        method: 'POST /workspaces/:id/exec',
        code: 'not_found',
        message: 'not found, or not visible to this credential',
        activityType: 'workspace_exec',
      },
    ]);
  });

  test('is 404 for credentials of another org than the one this process serves', async () => {
    const gateway = await fakeGateway({ processOrgId: 'org-b' });
    expect((await exec(gateway, await gateway.token())).status).toBe(404);
    expect((await exec(gateway, ADMIN_TOKEN)).status).toBe(404);
    expect((await exec(gateway, ADMIN_TOKEN, { path: '/workspaces/ws-other/exec' })).status).toBe(200);
    expect(gateway.refused[0]).toMatchObject({ orgId: 'org-a' });
  });
});

describe('a refusal', () => {
  test('of the admin token is a row in the org of the workspace, if there is one', async () => {
    const gateway = await fakeGateway();
    gateway.workspaces.set('ws-other', workspaceOf({ id: 'ws-other', orgId: 'org-b', tier: 1 }));
    await exec(gateway, ADMIN_TOKEN, { path: '/workspaces/ws-other/exec' });
    await exec(gateway, ADMIN_TOKEN, { path: '/workspaces/ws-none/exec' });
    expect(gateway.refused).toMatchObject([{ orgId: 'org-b', actor: 'admin-token', code: 'exec_tier_forbidden' }]);
    expect(gateway.logged).toMatchObject([
      { code: 'exec_tier_forbidden' },
      { code: 'not_found', reason: expect.stringContaining('not visible') },
    ]);
  });

  test('is answered when its row is written', async () => {
    const { deps } = await fakeGateway();
    let written = () => {};
    const writing = new Promise<void>((resolve) => {
      written = resolve;
    });
    const gateway = await fakeGateway({ audit: { ...deps.audit, refused: () => writing } });
    const { url } = await listen(gateway.app);
    const { response } = post(`${url}/workspaces/none/exec`, { token: await gateway.token(), body: LS });
    let answered = false;
    void response.then(() => {
      answered = true;
    });
    await waitUntil('the lookup', () => gateway.trace.includes('standing'));
    await waitUntilStill('time', () => answered, 50);
    expect(answered).toBe(false);
    written();
    expect((await response).statusCode).toBe(404);
  });

  test('for a missing scope comes before the body is read', async () => {
    const gateway = await fakeGateway();
    const { port } = await listen(gateway.app);
    const token = await gateway.token({ scopes: ['workspaces:read'] });
    const { socket, received } = rawSocket(port);
    socket.write(
      `POST ${PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n`,
    );
    await within(
      'the answer',
      new Promise<void>((resolve) => {
        socket.on('data', () => {
          if (received().includes('scope_missing')) resolve();
        });
      }),
    );
    expect(received()).toMatch(/^HTTP\/1\.1 403 /);
  });

  test('of a database that does not answer is 503, never 401 or 404', async () => {
    const gateway = await fakeGateway({
      directory: {
        standing: async () => {
          throw new SallyportError('audit_unavailable', 'the database does not answer');
        },
      },
    });
    const response = await exec(gateway, await gateway.token());
    expect(response.status).toBe(503);
    expect(response.headers['retry-after']).toBe('2');
    expect(response.body).toMatchObject({ code: 'audit_unavailable', retryable: true });
    expect(response.body).not.toHaveProperty('outcome');
    expect(gateway.refused).toEqual([]);
  });

  test('of an audit log that cannot be written is 503, and no host is dialled', async () => {
    const { deps } = await fakeGateway();
    const open = async () => {
      throw new SallyportError('audit_unavailable', 'no row, no exec');
    };
    const gateway = await fakeGateway({
      audit: { ...deps.audit, open },
      exec: (run) =>
        (async function* () {
          const error = await run.entry().then(
            () => null,
            (reason: SallyportError) => reason,
          );
          run.onSettled('exited');
          const { endOf } = await import('./fake-gateway.ts');
          yield endOf(run, { outcome: 'unreachable', exitCode: null, error });
        })(),
    });
    const response = await exec(gateway, await gateway.token());
    expect(response.status).toBe(503);
    expect(response.body).toMatchObject({ code: 'audit_unavailable', outcome: 'unreachable' });
  });
});

describe('a frozen org', () => {
  test('is refused to its own credentials everywhere', async () => {
    const gateway = await fakeGateway();
    gateway.orgs.set('org-a', { id: 'org-a', name: 'A', frozen: true });
    const token = await gateway.token();
    for (const path of ['/workspaces', '/workspaces/ws-1', '/activity', '/tokens', '/workspaces/ws-1/execs']) {
      const response = await request(gateway.app).get(path).auth(token, { type: 'bearer' });
      expect(response.body, path).toMatchObject({ status: 403, code: 'exec_revoked' });
    }
  });

  test('runs nothing for the admin token either, but lets it look', async () => {
    const gateway = await fakeGateway();
    gateway.orgs.set('org-a', { id: 'org-a', name: 'A', frozen: true });
    expect((await exec(gateway, ADMIN_TOKEN)).body).toMatchObject({ status: 403, code: 'exec_revoked' });
    const look = await request(gateway.app).get('/workspaces/ws-1').auth(ADMIN_TOKEN, { type: 'bearer' });
    expect(look.status).toBe(200);
  });
});

describe('the limits', () => {
  /** Fills the registry as running execs would. */
  function occupy(gateway: FakeGateway, ...places: [orgId: string, workspaceId: string][]): void {
    for (const [index, [orgId, workspaceId]] of places.entries())
      gateway.deps.running.add({ execId: `e-${index}`, orgId, workspaceId, jti: null, sub: null, end() {} });
  }

  test.each([
    [
      'workspace',
      2,
      [
        ['org-a', 'ws-1'],
        ['org-a', 'ws-1'],
      ],
    ],
    [
      'org',
      3,
      [
        ['org-a', 'ws-1'],
        ['org-a', 'ws-2'],
        ['org-a', 'ws-3'],
      ],
    ],
  ] as [string, number, [string, string][]][])(
    'of the %s is 429 with the time and the quota',
    async (policy, most, places) => {
      const gateway = await fakeGateway();
      occupy(gateway, ...places);
      const response = await exec(gateway, await gateway.token());
      expect(response.status).toBe(429);
      expect(response.headers['retry-after']).toBe('1');
      expect(response.headers['ratelimit-policy']).toBe(`"${policy}";q=${most};qu="concurrent-requests"`);
      expect(response.headers.ratelimit).toBe(`"${policy}";r=0;t=1`);
      expect(response.body).toMatchObject({ code: 'too_many_execs', outcome: 'refused', retryable: true });
      expect(gateway.opened).toEqual([]);
      expect(gateway.refused).toHaveLength(1);
    },
  );

  /** One that is full until the others have given something back. */
  function waitingRoom() {
    let give = () => {};
    let asked = 0;
    let full: Circle | null = { policy: 'workspace', most: 2 };
    const given = new Promise<void>((resolve) => {
      give = () => {
        full = null;
        resolve();
      };
    });
    const room: Room = {
      full: () => full,
      claim: () => {
        asked += 1;
        return given;
      },
      refresh: async () => {},
    };
    return { room, give: () => give(), asked: () => asked };
  }

  test('wait for what other replicas give back', async () => {
    const { room, give, asked } = waitingRoom();
    const gateway = await fakeGateway({ room });
    const answer = exec(gateway, await gateway.token());
    answer.catch(() => {});
    await waitUntil('it is asked for', () => asked() === 1);
    expect(gateway.runs).toEqual([]);
    give();
    expect((await answer).status).toBe(200);
  });

  test('start nothing for who has gone while waiting', async () => {
    const { room, give, asked } = waitingRoom();
    const gateway = await fakeGateway({ room });
    const { url } = await listen(gateway.app);
    const { request: sent, response } = post(url + PATH, { token: await gateway.token(), body: LS });
    response.catch(() => {}); // it is cut off by us
    await waitUntil('it is asked for', () => asked() === 1);
    sent.destroy();
    await waitUntil('the end of the request', () => gateway.logged.length === 1);
    give();
    expect((await exec(gateway, await gateway.token())).status).toBe(200);
    expect(gateway.runs).toHaveLength(1);
    expect(gateway.deps.running.size).toBe(0);
  });

  test('of the gateway is 503 capacity', async () => {
    const gateway = await fakeGateway();
    occupy(gateway, ['org-b', '1'], ['org-b', '2'], ['org-c', '3'], ['org-c', '4']);
    const response = await exec(gateway, await gateway.token());
    expect(response.body).toMatchObject({ status: 503, code: 'capacity' });
    expect(response.headers['retry-after']).toBe('1');
  });

  test('hold for requests that come at once', async () => {
    const gateway = await fakeGateway();
    const token = await gateway.token();
    let finish = () => {};
    const finished = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const { playing } = await import('./fake-gateway.ts');
    gateway.script.current = async function* (run) {
      await finished;
      yield* playing()(run);
    };
    const { url } = await listen(gateway.app);
    const exchanges = Array.from({ length: 10 }, () => post(url + PATH, { token, body: LS }));
    const refused = await within(
      'eight refusals',
      new Promise<number>((resolve) => {
        let count = 0;
        for (const { response } of exchanges)
          void response.then(({ statusCode }) => {
            if (statusCode === 429) count += 1;
            if (count === 8) resolve(count);
          });
      }),
    );
    expect(refused).toBe(8);
    finish();
    const statuses = await Promise.all(exchanges.map(async ({ response }) => (await response).statusCode));
    expect(statuses.filter((status) => status === 200)).toHaveLength(2);
    await Promise.all(exchanges.map(async ({ response }) => textOf(await response)));
  });
});
