/** Who sees what: every way of asking for what is not one's own gets one answer, and the gates stand in their order. */
import { createHmac, createPublicKey, generateKeyPairSync, type KeyObject, randomUUID } from 'node:crypto';
import { decodeJwt, type JWTPayload, SignJWT } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SCOPES, type Scope } from '../../src/access/access.ts';
import { generateSigningKey, loadSigningKey } from '../../src/access/token.ts';
import { type Answer, type Ask, startTestGateway, type TestGateway, terminalOf } from '../support/gateway.ts';
import { waitUntil } from '../support/wait.ts';

let gateway: TestGateway;
let signingPem: string;
beforeAll(async () => {
  signingPem = await generateSigningKey();
  gateway = await startTestGateway({ SALLYPORT_SIGNING_KEY: signingPem });
  await gateway.ask('/workspaces/ws-gone', {
    method: 'PUT',
    token: 'admin',
    body: { org_id: 'org-demo', driver: 'ec2', region: 'us-east-1', os_user: 'x', tier: 3 },
  });
  const gone = await gateway.ask('/workspaces/ws-gone', { method: 'DELETE', token: 'admin' });
  expect(gone.status).toBe(204);
});
afterAll(() => gateway.stop());

interface Route {
  method: string;
  path(workspaceId: string): string;
  scope: Scope;
  body?: unknown;
}

const below = (rest: string) => (workspaceId: string) => `/workspaces/${workspaceId}${rest}`;
const OF_A_WORKSPACE: readonly Route[] = [
  { method: 'POST', path: below('/exec'), scope: 'exec', body: { cmd: ['true'] } },
  { method: 'GET', path: below('/execs'), scope: 'activity:read' },
  { method: 'DELETE', path: below(`/execs/${randomUUID()}`), scope: 'exec' },
  { method: 'GET', path: below('/activity'), scope: 'activity:read' },
  { method: 'GET', path: below(''), scope: 'workspaces:read' },
  { method: 'PUT', path: below(''), scope: 'workspaces:write', body: { name: 'mine' } },
  { method: 'PATCH', path: below(''), scope: 'workspaces:write', body: { name: 'mine' } },
  { method: 'DELETE', path: below(''), scope: 'workspaces:write' },
];
const OF_AN_ORG: readonly Route[] = [
  { method: 'GET', path: () => '/workspaces', scope: 'workspaces:read' },
  { method: 'GET', path: () => '/activity', scope: 'activity:read' },
  { method: 'GET', path: () => '/tokens', scope: 'tokens:write' },
  {
    method: 'POST',
    path: () => '/tokens',
    scope: 'tokens:write',
    body: { kind: 'org', name: 'x', scopes: ['tokens:write'], expires_in_s: 60 },
  },
  { method: 'DELETE', path: () => `/tokens/${randomUUID()}`, scope: 'tokens:write' },
];
const nameOf = ({ method, path }: Route): string => `${method} ${path(':id').replace(/[0-9a-f-]{36}/, ':other')}`;

/** Asks with a request id of its own, and of the same length as every other. */
let asked = 0;
async function askAs(route: Route, workspaceId: string, how: Ask = {}): Promise<Answer & { requestId: string }> {
  asked += 1;
  const requestId = `tenancy-${String(asked).padStart(6, '0')}`;
  const answer = await gateway.ask(route.path(workspaceId), {
    method: route.method,
    body: route.body,
    ...how,
    headers: { 'x-request-id': requestId, ...how.headers },
  });
  return { ...answer, requestId };
}

/** What a caller can tell two answers apart by: all of it but the request id and the time of day. */
function appearance({ status, headers, text }: Answer, requestId: string): object {
  const { date: _date, 'x-request-id': echoed, ...rest } = headers;
  expect(echoed).toBe(requestId);
  return { status, headers: rest, text: text.replaceAll(requestId, '(request id)') };
}

async function rowsOf(requestId: string): Promise<Record<string, unknown>[]> {
  return await gateway.sql(
    'select org_id, workspace_id, status, actor, response_body from activity_logs where request_id = $1',
    [requestId],
  );
}

async function issue(body: object, token: Ask['token'] = 'admin'): Promise<{ raw: string }> {
  const answer = await gateway.ask('/tokens', {
    method: 'POST',
    token,
    body: { kind: 'org', name: 'test', expires_in_s: 600, ...body },
  });
  expect(answer.text).toContain('"token"');
  return { raw: String(answer.body.token) };
}

describe('a workspace that is not the caller’s', () => {
  const STRANGERS: [string, string, Ask, string][] = [
    ['a foreign one', 'ws-other', {}, 'org-demo'],
    ['an unknown one', 'ws-never-was', {}, 'org-demo'],
    ['a deleted one', 'ws-gone', {}, 'org-demo'],
    ['an id that none can have', 'ws%20other', {}, 'org-demo'],
    ['another one of the org, with a workspace token', 'ws-fleet-01', { token: 'workspace' }, 'org-demo'],
    ['one’s own under another org’s X-Org-Id', 'ws-demo', { headers: { 'x-org-id': 'org-other' } }, 'org-demo'],
    ['a foreign one under its own X-Org-Id', 'ws-other', { headers: { 'x-org-id': 'org-other' } }, 'org-demo'],
    ['seen from the other org', 'ws-demo', { token: 'other_org' }, 'org-other'],
    [
      'seen by the admin token under another org’s X-Org-Id',
      'ws-demo',
      { token: 'admin', headers: { 'x-org-id': 'org-other' } },
      'org-other',
    ],
  ];

  // Refusals of one token get 60 rows in a minute: each route asks with tokens of its own.
  it.each(OF_A_WORKSPACE.map((route) => [nameOf(route), route] as const))('is one 404 on %s', async (_name, route) => {
    const [org, other, workspace] = await Promise.all([
      issue({ org_id: 'org-demo', scopes: SCOPES }),
      issue({ org_id: 'org-other', scopes: SCOPES }),
      issue({ kind: 'workspace', workspace_id: 'ws-demo', scopes: SCOPES }),
    ]);
    const tokens = { org, other_org: other, workspace, admin: 'admin', readonly: 'readonly' } as const;
    const appearances: object[] = [];
    for (const [name, workspaceId, how, ownOrg] of STRANGERS) {
      // To who may create workspaces, an id that is not there is no mistake.
      if (how.token === 'admin' && route.method === 'PUT') continue;
      const token = tokens[(how.token as keyof typeof tokens | undefined) ?? 'org'];
      const answer = await askAs(route, workspaceId, { ...how, token });
      expect({ name, status: answer.status, code: answer.body.code }).toEqual({ name, status: 404, code: 'not_found' });
      appearances.push(appearance(answer, answer.requestId));
      expect({ name, rows: await rowsOf(answer.requestId) }).toEqual({
        name,
        rows: [
          expect.objectContaining({
            org_id: ownOrg,
            status: 'refused',
            response_body: expect.objectContaining({ code: 'not_found' }),
          }),
        ],
      });
    }
    for (const other of appearances) expect(other).toEqual(appearances[0]);
  });

  it('is still as it was, and nothing was dialled', async () => {
    const { body } = await gateway.ask('/workspaces/ws-other', { token: 'admin' });
    expect(body).toMatchObject({ id: 'ws-other', name: 'ws-other', org_id: 'org-other' });
    const { instances } = await gateway.counters();
    expect(Object.values(instances).filter(({ logins, pushes }) => logins + pushes > 0)).toEqual([]);
  });

  it('lists show what is one’s own', async () => {
    const ids = async (token: Ask['token']) =>
      ((await gateway.ask('/workspaces', { token })).body.items as { id: string }[]).map(({ id }) => id);
    expect(await ids('other_org')).toEqual(['ws-other']);
    expect(await ids('workspace')).toEqual(['ws-demo']);
    expect(await ids('org')).not.toContain('ws-other');
    expect(await ids('org')).not.toContain('ws-gone');
    const orgs = async (token: Ask['token']) => {
      const { body } = await gateway.ask('/activity?limit=500', { token });
      return new Set((body.items as { org_id: string }[]).map(({ org_id }) => org_id));
    };
    expect(await orgs('org')).toEqual(new Set(['org-demo']));
    expect(await orgs('other_org')).toEqual(new Set(['org-other']));
  });

  it('routes of the admin token do not exist for others', async () => {
    const unknown = await askAs({ method: 'GET', path: () => '/no-such-route', scope: 'exec' }, '');
    expect(unknown.status).toBe(404);
    for (const [method, path, body] of [
      ['GET', '/orgs', undefined],
      ['GET', '/orgs/org-demo', undefined],
      ['PUT', '/orgs/org-demo', { name: 'mine' }],
      ['POST', '/orgs/org-demo/freeze', undefined],
      ['POST', '/orgs/org-demo/unfreeze', undefined],
    ] as const) {
      const answer = await askAs({ method, path: () => path, scope: 'exec', body }, '');
      expect(appearance(answer, answer.requestId)).toEqual(appearance(unknown, unknown.requestId));
    }
  });
});

describe('a credential that is none', () => {
  const FOREIGN_KEY = generateKeyPairSync('ed25519').privateKey;
  let claims: JWTPayload;
  let own: KeyObject;
  beforeAll(async () => {
    claims = decodeJwt(gateway.tokens.org);
    own = (await loadSigningKey(signingPem)).privateKey;
  });

  const jws = (payload: object, key: KeyObject, header: object = {}): Promise<string> =>
    new SignJWT(payload as JWTPayload).setProtectedHeader({ alg: 'EdDSA', typ: 'JWT', ...header }).sign(key);
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const hmac = (payload: object, secret: Buffer | string): string => {
    const head = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(payload)}`;
    return `${head}.${createHmac('sha256', secret).update(head).digest('base64url')}`;
  };
  const now = (): number => Math.floor(Date.now() / 1000);

  it('the same claims, signed here again, are taken', async () => {
    const { status } = await gateway.ask('/workspaces/ws-demo', { token: { raw: await jws(claims, own) } });
    expect(status).toBe(200);
  });

  const FORGERIES: [string, () => string | Promise<string>][] = [
    ['signed by another key', () => jws(claims, FOREIGN_KEY)],
    ['alg none', () => `${part({ alg: 'none', typ: 'JWT' })}.${part(claims)}.`],
    ['alg none with a signature', () => `${part({ alg: 'none', typ: 'JWT' })}.${part(claims)}.${'A'.repeat(86)}`],
    [
      'HS256 with the public key as PEM',
      () => hmac(claims, createPublicKey(own).export({ type: 'spki', format: 'pem' }).toString()),
    ],
    [
      'HS256 with the public key as DER',
      () => hmac(claims, createPublicKey(own).export({ type: 'spki', format: 'der' })),
    ],
    [
      'HS256 with the raw public key',
      () => hmac(claims, Buffer.from(String(createPublicKey(own).export({ format: 'jwk' }).x), 'base64url')),
    ],
    ['another audience', () => jws({ ...claims, aud: 'somebody' }, own)],
    ['no audience', () => jws({ ...claims, aud: undefined }, own)],
    ['another issuer', () => jws({ ...claims, iss: 'somebody' }, own)],
    ['expired', () => jws({ ...claims, iat: now() - 100, exp: now() - 1 }, own)],
    ['no expiry', () => jws({ ...claims, exp: undefined }, own)],
    ['a life beyond ninety days', () => jws({ ...claims, exp: Number(claims.iat) + 91 * 86_400 }, own)],
    ['issued in the future', () => jws({ ...claims, iat: now() + 3600, exp: now() + 7200 }, own)],
    ['a jti that no row knows', () => jws({ ...claims, jti: randomUUID() }, own)],
    ['a jti of another org', () => jws({ ...claims, org: 'org-other' }, own)],
    ['another kind', () => jws({ ...claims, kind: 'admin' }, own)],
    ['a scope that does not exist', () => jws({ ...claims, scopes: ['root'] }, own)],
    ['a claim that nobody knows', () => jws({ ...claims, only_on_sundays: true }, own)],
    [
      'its payload replaced',
      async () => (await jws(claims, own)).replace(/\..*\./, `.${part({ ...claims, sub: 'x' })}.`),
    ],
    ['cut', () => gateway.tokens.org.slice(0, -1)],
    ['a word', () => 'token'],
    ['the admin token cut', () => gateway.tokens.admin.slice(0, -1)],
    [
      'revoked',
      async () => {
        const { raw } = await issue({ org_id: 'org-demo', scopes: SCOPES });
        expect((await gateway.ask('/workspaces/ws-demo', { token: { raw } })).status).toBe(200);
        await gateway.ask(`/tokens/${decodeJwt(raw).jti}`, { method: 'DELETE' });
        return raw;
      },
    ],
  ];

  it('gets one 401, whatever the reason and whatever was asked for, and leaves no row', async () => {
    const [exec] = OF_A_WORKSPACE as [Route];
    const reference = await askAs(exec, 'ws-demo', { token: null });
    expect(reference.status).toBe(401);
    expect(reference.headers['www-authenticate']).toBe('Bearer');
    expect(reference.body).toMatchObject({ code: 'unauthenticated', request_id: reference.requestId });
    const expected = appearance(reference, reference.requestId);
    const answers = new Map<string, Answer & { requestId: string }>();
    for (const [name, forge] of FORGERIES) {
      const raw = await forge();
      answers.set(name, await askAs(exec, 'ws-demo', { token: { raw } }));
      answers.set(`${name}, foreign workspace`, await askAs(exec, 'ws-other', { token: { raw } }));
      answers.set(`${name}, unknown workspace`, await askAs(exec, 'ws-never-was', { token: { raw } }));
    }
    const header = (authorization: string): Ask => ({ token: null, headers: { authorization } });
    answers.set('another scheme', await askAs(exec, 'ws-demo', header(`Basic ${gateway.tokens.org}`)));
    answers.set('no token', await askAs(exec, 'ws-demo', header('Bearer ')));
    answers.set(
      'two tokens',
      await askAs(exec, 'ws-demo', header(`Bearer ${gateway.tokens.org} ${gateway.tokens.org}`)),
    );
    for (const [name, answer] of answers)
      expect({ name, ...appearance(answer, answer.requestId) }).toEqual({ name, ...expected });
    const ids = [...answers.values()].map(({ requestId }) => requestId);
    expect(await gateway.sql('select id from activity_logs where request_id = any($1)', [ids])).toEqual([]);
  });
});

describe('scopes', () => {
  it.each([...OF_A_WORKSPACE, ...OF_AN_ORG].map((route) => [nameOf(route), route] as const))(
    'without its scope %s is refused',
    async (_name, route) => {
      const without = await issue({ org_id: 'org-demo', scopes: SCOPES.filter((scope) => scope !== route.scope) });
      const refused = await askAs(route, 'ws-sandbox', { token: without });
      expect({ status: refused.status, code: refused.body.code }).toEqual({ status: 403, code: 'scope_missing' });
      expect(refused.body.detail).toContain(`"${route.scope}"`);
      expect(await rowsOf(refused.requestId)).toMatchObject([{ org_id: 'org-demo', status: 'refused' }]);
      const only = await issue({ org_id: 'org-demo', scopes: [route.scope] });
      // Not the DELETE of a workspace, which others still need.
      const id = route.method === 'DELETE' && route.scope === 'workspaces:write' ? 'ws-fleet-08' : 'ws-sandbox';
      const allowed = await askAs(route, id, { token: only });
      expect(allowed.body.code).not.toBe('scope_missing');
    },
  );
});

describe('the admin token', () => {
  it.each([
    ['ws-demo', 'org-demo'],
    ['ws-other', 'org-other'],
  ])('acts in the org of the workspace it names: %s', async (workspace, orgId) => {
    const requestId = `admin-in-${orgId}`;
    const { frames } = await gateway.exec(
      { cmd: ['true'] },
      { workspace, token: 'admin', headers: { 'x-request-id': requestId } },
    );
    expect(terminalOf(frames)).toMatchObject({ exit_code: 0 });
    await waitUntil('the row is closed', async () => (await rowsOf(requestId))[0]?.status === 'ok');
    expect(await rowsOf(requestId)).toMatchObject([{ org_id: orgId, workspace_id: workspace, actor: 'admin-token' }]);
  });

  it('must name an org where the path names none', async () => {
    const { status, body } = await gateway.ask('/activity', { token: 'admin' });
    expect({ status, code: body.code }).toEqual({ status: 400, code: 'invalid_request' });
    expect(body.detail).toContain('X-Org-Id');
    const named = await gateway.ask('/activity?limit=1', { token: 'admin', headers: { 'x-org-id': 'org-other' } });
    expect(named.body.items).toMatchObject([{ org_id: 'org-other' }]);
  });
});

describe('a frozen org', () => {
  it('may do nothing until it is unfrozen, and nobody else notices', async () => {
    const freeze = (verb: string) => gateway.ask(`/orgs/org-demo/${verb}`, { method: 'POST', token: 'admin' });
    expect((await freeze('freeze')).body).toEqual({ id: 'org-demo', name: 'Demo', frozen: true });
    try {
      for (const route of [...OF_A_WORKSPACE, ...OF_AN_ORG]) {
        const { status, body } = await askAs(route, 'ws-demo');
        expect({ route: nameOf(route), status, code: body.code }).toEqual({
          route: nameOf(route),
          status: 403,
          code: 'exec_revoked',
        });
      }
      expect((await gateway.exec({ cmd: ['true'] }, { token: 'admin' })).body.code).toBe('exec_revoked');
      expect((await gateway.ask('/workspaces/ws-demo', { token: 'admin' })).status).toBe(200);
      const other = await gateway.exec({ cmd: ['true'] }, { workspace: 'ws-other', token: 'other_org' });
      expect(terminalOf(other.frames)).toMatchObject({ exit_code: 0 });
      // A frozen org's foreign workspace is a foreign workspace.
      expect((await gateway.exec({ cmd: ['true'] }, { workspace: 'ws-other' })).status).toBe(404);
    } finally {
      await freeze('unfreeze');
    }
    expect(terminalOf((await gateway.exec({ cmd: ['true'] })).frames)).toMatchObject({ exit_code: 0 });
  });
});

describe('the order of the gates', () => {
  const BAD_BODY = { cmd: 'not an argv' };
  const POST: Ask = { method: 'POST' };

  beforeAll(async () => {
    const body = { org_id: 'org-demo', driver: 'ec2', region: 'us-east-1', os_user: 'x', tier: 2 };
    await gateway.ask('/workspaces/ws-low-and-empty', { method: 'PUT', token: 'admin', body });
  });

  it.each<[string, string, Ask & { rules?: boolean }, number, string]>([
    ['bad token before foreign workspace', 'ws-other', { token: { raw: 'x' }, body: BAD_BODY }, 401, 'unauthenticated'],
    [
      'bad token before another org’s header',
      'ws-demo',
      { token: { raw: 'x' }, headers: { 'x-org-id': 'org-other' } },
      401,
      'unauthenticated',
    ],
    ['foreign workspace before scope and body', 'ws-other', { token: 'readonly', body: BAD_BODY }, 404, 'not_found'],
    ['scope before body', 'ws-demo', { token: 'readonly', body: BAD_BODY }, 403, 'scope_missing'],
    ['scope before a body that is no JSON', 'ws-demo', { token: 'readonly', body: '{' }, 403, 'scope_missing'],
    ['body before tier', 'ws-low-and-empty', { body: BAD_BODY }, 400, 'cmd_not_argv'],
    ['tier before no instance', 'ws-low-and-empty', { body: { cmd: ['true'] } }, 403, 'exec_tier_forbidden'],
    ['no instance before rules', 'ws-no-instance', { rules: true, body: { cmd: ['true'] } }, 400, 'no_instance'],
    ['rules before limits', 'ws-demo', { rules: true, body: { cmd: ['true'] } }, 403, 'exec_command_forbidden'],
  ])('%s', async (_name, workspaceId, { rules = false, ...how }, status, code) => {
    const token = rules ? await issue({ org_id: 'org-demo', scopes: ['exec'], allow: [['uptime']] }) : how.token;
    const answer = await gateway.ask(`/workspaces/${workspaceId}/exec`, { ...POST, ...how, token });
    expect({ status: answer.status, code: answer.body.code }).toEqual({ status, code });
  });
});

describe('a process that serves one org', () => {
  let one: TestGateway;
  beforeAll(async () => {
    one = await startTestGateway({ SALLYPORT_ORG_ID: 'org-demo', SALLYPORT_MAX_EXECS_WORKSPACE: '1' });
  });
  afterAll(() => one.stop());

  it('answers credentials of another with the same 404 as for an unknown workspace', async () => {
    for (const route of OF_A_WORKSPACE) {
      const headers = { 'x-request-id': 'one' };
      const ask = (id: string, token: Ask['token']) =>
        one.ask(route.path(id), { method: route.method, body: route.body, token, headers });
      const unknown = await ask('ws-never-was', 'org');
      expect(unknown.status).toBe(404);
      for (const id of ['ws-other', 'ws-demo', 'ws-never-was']) {
        const answer = await ask(id, 'other_org');
        expect(appearance(answer, 'one')).toEqual(appearance(unknown, 'one'));
      }
    }
    for (const route of OF_AN_ORG) {
      const { status } = await one.ask(route.path(''), { method: route.method, body: route.body, token: 'other_org' });
      expect(status).toBe(404);
    }
  });

  it('binds the admin token to that org', async () => {
    const status = async (path: string) => (await one.ask(path, { token: 'admin' })).status;
    expect(await status('/workspaces/ws-other')).toBe(404);
    expect(await status('/orgs/org-other')).toBe(404);
    expect(await status('/workspaces/ws-demo')).toBe(200);
    expect(await status('/activity')).toBe(200);
  });

  it('serves its own org, and asks about rules before limits', async () => {
    const hold = new AbortController();
    const held = one.exec({ cmd: ['sh', '-c', 'echo held; sleep 60'] }, { signal: hold.signal });
    held.catch(() => undefined);
    await waitUntil('it runs', async () => {
      const { body } = await one.ask('/workspaces/ws-demo/execs');
      return (body.items as unknown[]).length === 1;
    });
    const full = await one.exec({ cmd: ['true'] });
    expect({ status: full.status, code: full.body.code }).toEqual({ status: 429, code: 'too_many_execs' });
    expect(full.headers).toMatchObject({
      'retry-after': expect.stringMatching(/^\d+$/),
      ratelimit: expect.any(String),
      'ratelimit-policy': expect.stringContaining('"workspace";q=1'),
    });
    const answer = await one.ask('/tokens', {
      method: 'POST',
      body: { kind: 'org', name: 'rules', scopes: ['exec'], allow: [['uptime']], expires_in_s: 60 },
    });
    const ruled = await one.exec({ cmd: ['true'] }, { token: { raw: String(answer.body.token) } });
    expect({ status: ruled.status, code: ruled.body.code }).toEqual({ status: 403, code: 'exec_command_forbidden' });
    hold.abort();
    await waitUntil('there is room again', async () => (await one.exec({ cmd: ['true'] })).status === 200);
  });
});
