/** Tokens over the API: made, used, listed, revoked, and never wider than what made them. */
import { decodeJwt, decodeProtectedHeader } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SCOPES } from '../../src/access/access.ts';
import { type Ask, outputOf, startTestGateway, type TestGateway, terminalOf } from '../support/gateway.ts';
import { dumpDatabase } from '../support/sql.ts';
import { waitUntil } from '../support/wait.ts';

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await startTestGateway();
});
afterAll(() => gateway.stop());

type Token = Ask['token'];

async function create(body: object, token: Token = 'org') {
  return await gateway.ask('/tokens', { method: 'POST', body: { kind: 'org', name: 'a test', ...body }, token });
}

/** A token that is made, as a credential. */
async function issue(body: object, token: Token = 'org'): Promise<{ raw: string; id: string }> {
  const answer = await create(body, token);
  if (answer.status !== 201) throw new Error(answer.text);
  return { raw: String(answer.body.token), id: String(answer.body.id) };
}

const list = async (token: Token = 'org', query = 'limit=500') =>
  (await gateway.ask(`/tokens?${query}`, { token })).body.items as Record<string, unknown>[];

describe('a token', () => {
  it('is told once, and its row holds what it says', async () => {
    const answer = await create({ name: 'deploy', scopes: ['exec', 'activity:read', 'exec'], expires_in_s: 3600 });
    expect(answer.status).toBe(201);
    const { token, ...row } = answer.body;
    expect(row).toEqual({
      id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      kind: 'org',
      name: 'deploy',
      scopes: ['exec', 'activity:read'],
      workspace_id: null,
      allow: null,
      created_at: expect.any(String),
      expires_at: expect.any(String),
    });
    expect(decodeProtectedHeader(String(token))).toMatchObject({ alg: 'EdDSA' });
    const claims = decodeJwt(String(token));
    expect(claims).toMatchObject({ org: 'org-demo', kind: 'org', scopes: ['exec', 'activity:read'], jti: row.id });
    expect(Number(claims.exp) - Number(claims.iat)).toBe(3600);
    expect(claims.ws).toBeUndefined();
    const [newest] = await list();
    expect(newest).toEqual({
      ...row,
      org_id: 'org-demo',
      revoked_at: null,
      created_by: expect.stringMatching(/^org-token:/),
    });
    expect(await dumpDatabase(gateway.databaseUrl)).not.toContain(String(token).split('.')[2]);
  });

  it('of a workspace works there', async () => {
    const token = await issue({ kind: 'workspace', workspace_id: 'ws-demo', scopes: ['exec', 'activity:read'] });
    expect(decodeJwt(token.raw)).toMatchObject({ org: 'org-demo', kind: 'workspace', ws: 'ws-demo' });
    const { frames } = await gateway.exec({ cmd: ['true'] }, { token });
    expect(terminalOf(frames)).toMatchObject({ exit_code: 0 });
    const { body } = await gateway.ask('/activity?limit=1', { token });
    expect(body.items).toMatchObject([{ actor: 'workspace:ws-demo', workspace_id: 'ws-demo' }]);
  });

  it('lives a day unless told otherwise, and ninety at most', async () => {
    const { raw } = await issue({ scopes: ['exec'] });
    const { iat, exp } = decodeJwt(raw);
    expect(Number(exp) - Number(iat)).toBe(86_400);
    const long = await create({ scopes: ['exec'], expires_in_s: 90 * 86_400 + 1 }, 'admin');
    expect({ status: long.status, code: long.body.code }).toEqual({ status: 400, code: 'invalid_request' });
    const most = await create({ org_id: 'org-demo', scopes: ['exec'], expires_in_s: 90 * 86_400 }, 'admin');
    expect(most.status).toBe(201);
  });

  it('is of no use after its life', async () => {
    const token = await issue({ scopes: ['workspaces:read'], expires_in_s: 2 });
    const ask = () => gateway.ask('/workspaces', { token });
    expect((await ask()).status).toBe(200);
    const refused = await waitUntil('it is refused', async () => {
      const answer = await ask();
      return answer.status === 401 && answer;
    });
    expect(refused.body.code).toBe('unauthenticated');
    expect(Date.now()).toBeGreaterThanOrEqual(Number(decodeJwt(token.raw).exp) * 1000);
  });

  it('that is revoked is of no use, and a second time changes nothing', async () => {
    const token = await issue({ scopes: ['workspaces:read'] });
    expect((await gateway.ask('/workspaces', { token })).status).toBe(200);
    const revoke = () => gateway.ask(`/tokens/${token.id}`, { method: 'DELETE' });
    expect((await revoke()).status).toBe(204);
    expect((await gateway.ask('/workspaces', { token })).status).toBe(401);
    const revokedAt = async () => (await list()).find(({ id }) => id === token.id)?.revoked_at;
    const first = await revokedAt();
    expect(first).toEqual(expect.any(String));
    expect((await revoke()).status).toBe(204);
    expect(await revokedAt()).toBe(first);
  });

  it('may revoke itself', async () => {
    const token = await issue({ scopes: ['tokens:write'] });
    expect((await gateway.ask(`/tokens/${token.id}`, { method: 'DELETE', token })).status).toBe(204);
    expect((await gateway.ask('/tokens', { token })).status).toBe(401);
  });

  it('of another org is not there', async () => {
    const foreign = await issue({ scopes: ['exec'] }, 'other_org');
    expect((await list()).some(({ id }) => id === foreign.id)).toBe(false);
    expect((await gateway.ask(`/tokens/${foreign.id}`, { method: 'DELETE' })).status).toBe(404);
    expect((await gateway.exec({ cmd: ['true'] }, { workspace: 'ws-other', token: foreign })).status).toBe(200);
  });

  it('making and revoking one are rows', async () => {
    const { id } = await issue({ scopes: ['exec'] });
    await gateway.ask(`/tokens/${id}`, { method: 'DELETE' });
    const { body } = await gateway.ask('/activity?limit=2');
    expect(body.items).toMatchObject([
      { activity_type: 'token_revoke', target_id: id, status: 'ok', method: 'DELETE /tokens/:id' },
      { activity_type: 'token_create', target_id: id, status: 'ok', method: 'POST /tokens' },
    ]);
  });
});

describe('lists of tokens', () => {
  it('come in pages, newest first', async () => {
    for (const name of ['one', 'two', 'three']) await issue({ name, scopes: ['exec'] });
    const first = await gateway.ask('/tokens?limit=2');
    expect(first.body.items).toMatchObject([{ name: 'three' }, { name: 'two' }]);
    const second = await gateway.ask(`/tokens?limit=1&after=${first.body.next}`);
    expect(second.body.items).toMatchObject([{ name: 'one' }]);
    expect(first.text).not.toContain('eyJ');
  });

  it('show a workspace token those of its workspace', async () => {
    const token = await issue({ kind: 'workspace', workspace_id: 'ws-fleet-03', scopes: ['tokens:write', 'exec'] });
    const own = await issue({ kind: 'workspace', workspace_id: 'ws-fleet-03', scopes: ['exec'] }, token);
    const stranger = await issue({ kind: 'workspace', workspace_id: 'ws-fleet-04', scopes: ['exec'] });
    const seen = (await list(token)).map(({ id }) => id);
    expect(seen).toEqual([own.id, token.id]);
    expect((await gateway.ask(`/tokens/${stranger.id}`, { method: 'DELETE', token })).status).toBe(404);
    expect((await gateway.ask(`/tokens/${own.id}`, { method: 'DELETE', token })).status).toBe(204);
  });
});

describe('a token never makes a wider one', () => {
  const RULES = [
    ['systemctl', 'status', '*'],
    ['journalctl', '**'],
  ];
  const makers: Record<string, { raw: string }> = {};
  beforeAll(async () => {
    makers.few = await issue({ scopes: ['tokens:write', 'exec'] });
    makers.short = await issue({ scopes: ['tokens:write', 'exec'], expires_in_s: 100 });
    makers.workspace = await issue({ kind: 'workspace', workspace_id: 'ws-demo', scopes: ['tokens:write', 'exec'] });
  });

  it.each<[string, string, object, number, string]>([
    ['in scopes', 'few', { scopes: ['exec', 'activity:read'] }, 403, 'scope_missing'],
    ['in scopes it never had', 'few', { scopes: [...SCOPES] }, 403, 'scope_missing'],
    ['in life', 'short', { scopes: ['exec'], expires_in_s: 101 }, 403, 'scope_missing'],
    ['beyond its workspace', 'workspace', { scopes: ['exec'] }, 403, 'scope_missing'],
    [
      'in another workspace',
      'workspace',
      { kind: 'workspace', workspace_id: 'ws-fleet-01', scopes: ['exec'] },
      404,
      'not_found',
    ],
    ['in another org', 'few', { org_id: 'org-other', scopes: ['exec'] }, 404, 'not_found'],
    [
      'in a foreign workspace',
      'few',
      { kind: 'workspace', workspace_id: 'ws-other', scopes: ['exec'] },
      404,
      'not_found',
    ],
  ])('%s', async (_name, maker, body, status, code) => {
    const before = (await list()).length;
    const answer = await create(body, makers[maker]);
    expect({ status: answer.status, code: answer.body.code }).toEqual({ status, code });
    expect((await list()).length).toBe(before);
  });

  it('without asking for a life gets what is left of the maker’s', async () => {
    const { raw } = await issue({ scopes: ['exec'] }, makers.short);
    expect(Number(decodeJwt(raw).exp)).toBeLessThanOrEqual(Number(decodeJwt(makers.short?.raw ?? '').exp));
  });

  it('with command rules it makes none at all', async () => {
    const asked = await create({ scopes: ['tokens:write', 'exec'], allow: RULES });
    expect({ status: asked.status, code: asked.body.code }).toEqual({ status: 400, code: 'invalid_request' });
    expect(asked.body.detail).toContain('tokens:write');
  });

  it.each<[string, object]>([
    ['no scopes', { scopes: [] }],
    ['a scope that does not exist', { scopes: ['root'] }],
    ['an unknown field', { scopes: ['exec'], admin: true }],
    ['a workspace token without workspace', { kind: 'workspace', scopes: ['exec'] }],
    ['an org token with a workspace', { workspace_id: 'ws-demo', scopes: ['exec'] }],
    ['a kind that nobody issues', { kind: 'admin', scopes: ['exec'] }],
    ['no life', { scopes: ['exec'], expires_in_s: 0 }],
    ['a name with a line break', { name: 'a\nb', scopes: ['exec'] }],
    ['rules that allow nothing', { scopes: ['exec'], allow: [] }],
    ['a rule with ** in the middle', { scopes: ['exec'], allow: [['a', '**', 'b']] }],
  ])('nor one that means nothing: %s', async (_name, body) => {
    const { status, body: answer } = await create(body);
    expect({ status, code: answer.code }).toEqual({ status: 400, code: 'invalid_request' });
  });
});

describe('a token with command rules', () => {
  const ALLOW = [
    ['echo', '*'],
    ['printenv', '**'],
    ['sh', '-c', 'command -v tool'],
  ];
  let ruled: { raw: string };
  beforeAll(async () => {
    ruled = await issue({ scopes: ['exec', 'workspaces:read', 'activity:read'], allow: ALLOW });
  });

  it('carries them', async () => {
    expect(decodeJwt(ruled.raw).allow).toEqual(ALLOW);
    expect((await list()).find(({ allow }) => allow !== null)?.allow).toEqual(ALLOW);
  });

  it.each([[['echo', 'one']], [['echo', '; id']], [['printenv', 'HOME']]])('runs %j', async (cmd) => {
    const { frames } = await gateway.exec({ cmd }, { token: ruled });
    expect(terminalOf(frames)).toMatchObject({ exit_code: 0 });
    if (cmd[0] === 'echo') expect(outputOf(frames, 'stdout').toString()).toBe(`${cmd[1]}\n`);
  });

  it.each([
    [['echo']],
    [['echo', 'one', 'two']],
    [['/bin/echo', 'one']],
    [['Echo', 'one']],
    [['sh', '-c', 'echo one']],
    [['sh', '-c', 'command -v tool; id']],
    [['id']],
  ])('does not run %j', async (cmd) => {
    const { status, body } = await gateway.exec({ cmd }, { token: ruled });
    expect({ status, code: body.code }).toEqual({ status: 403, code: 'exec_command_forbidden' });
  });

  it.each([
    ['env', { env: { LD_PRELOAD: '/tmp/x.so' } }],
    ['cwd', { cwd: '/tmp' }],
  ])('sets no %s', async (field, more) => {
    const { status, body } = await gateway.exec({ cmd: ['echo', 'x'], ...more }, { token: ruled });
    expect({ status, code: body.code }).toEqual({ status: 403, code: 'exec_command_forbidden' });
    expect(body.detail).toContain(field);
  });

  it('says in a dry run which rule decided, and runs nothing', async () => {
    const dry = (cmd: string[], token: Token) => gateway.exec({ cmd, dry_run: true }, { token });
    const { logins } = await totals();
    expect((await dry(['printenv', 'HOME'], ruled)).body).toMatchObject({
      decision: 'allowed',
      rule: ['printenv', '**'],
    });
    expect((await dry(['id'], ruled)).body.code).toBe('exec_command_forbidden');
    expect((await dry(['id'], 'org')).body).toMatchObject({ decision: 'allowed', rule: null });
    expect((await totals()).logins).toBe(logins);
  });

  it('refusals are rows of its own', async () => {
    await gateway.exec({ cmd: ['id'] }, { token: ruled });
    const row = await waitUntil('the row', async () => {
      const { body } = await gateway.ask('/activity?limit=1&status=refused');
      return (body.items as Record<string, unknown>[])[0];
    });
    expect(row).toMatchObject({
      actor: `org-token:${String(decodeJwt(ruled.raw).jti).slice(0, 8)}`,
      activity_type: 'workspace_exec',
      response_body: { outcome: 'refused', code: 'exec_command_forbidden' },
      workspace_id: 'ws-demo',
    });
  });

  it.each(['tokens:write', 'workspaces:write', 'files:read', 'files:write', 'terminal', 'fleet:run'])(
    'has no %s',
    async (scope) => {
      const { status, body } = await create({ scopes: ['exec', scope], allow: ALLOW });
      expect({ status, code: body.code }).toEqual({ status: 400, code: 'invalid_request' });
    },
  );

  async function totals(): Promise<{ logins: number }> {
    const { instances } = await gateway.counters();
    return { logins: Object.values(instances).reduce((sum, { channels }) => sum + channels, 0) };
  }
});

describe('the admin token', () => {
  it('names the org of a token, by body, by header or by the workspace', async () => {
    const without = await create({ scopes: ['exec'] }, 'admin');
    expect({ status: without.status, code: without.body.code }).toEqual({ status: 400, code: 'invalid_request' });
    const orgOf = (raw: unknown) => decodeJwt(String(raw)).org;
    expect(orgOf((await create({ org_id: 'org-other', scopes: ['exec'] }, 'admin')).body.token)).toBe('org-other');
    const workspace = { kind: 'workspace', workspace_id: 'ws-other', scopes: ['exec'] };
    expect(orgOf((await create(workspace, 'admin')).body.token)).toBe('org-other');
    const header = await gateway.ask('/tokens', {
      method: 'POST',
      token: 'admin',
      headers: { 'x-org-id': 'org-other' },
      body: { kind: 'org', name: 'by header', scopes: ['exec'] },
    });
    expect(orgOf(header.body.token)).toBe('org-other');
    const nowhere = await create({ org_id: 'org-nowhere', scopes: ['exec'] }, 'admin');
    expect(nowhere.status).toBe(400);
    const contradiction = await create({ ...workspace, org_id: 'org-demo' }, 'admin');
    expect(contradiction.status).toBe(404);
  });
});
