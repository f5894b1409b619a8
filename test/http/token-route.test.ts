import request from 'supertest';
import { describe, expect, test } from 'vitest';
import { ADMIN_TOKEN, type FakeGateway, fakeGateway, workspaceOf } from './fake-gateway.ts';

const CI = { kind: 'workspace', workspace_id: 'ws-1', name: 'ci', scopes: ['exec'], expires_in_s: 60 };

async function create(gateway: FakeGateway, body: object, { token = '', headers = {} } = {}) {
  const bearer = token === '' ? await gateway.token() : token;
  return await request(gateway.app).post('/tokens').auth(bearer, { type: 'bearer' }).set(headers).send(body);
}

describe('a new token', () => {
  test('is shown once, works, and is in nobody’s list', async () => {
    const gateway = await fakeGateway();
    const issuer = await gateway.token();
    const response = await create(gateway, { ...CI, allow: [['ls', '**']] }, { token: issuer });
    expect(response.status).toBe(201);
    expect(response.body).toEqual({
      id: expect.any(String),
      token: expect.stringMatching(/^eyJ/),
      kind: 'workspace',
      name: 'ci',
      scopes: ['exec'],
      workspace_id: 'ws-1',
      allow: [['ls', '**']],
      created_at: expect.stringMatching(/Z$/),
      expires_at: expect.stringMatching(/Z$/),
    });
    const used = await request(gateway.app)
      .post('/workspaces/ws-1/exec')
      .auth(response.body.token, { type: 'bearer' })
      .send({ cmd: ['ls'] });
    expect(used.status).toBe(200);
    const list = await request(gateway.app).get('/tokens').auth(issuer, { type: 'bearer' });
    expect(list.body.items.map((item: { id: string }) => item.id)).toContain(response.body.id);
    expect(JSON.stringify([list.body, gateway.changed, gateway.logged])).not.toContain(response.body.token.slice(-20));
    expect(gateway.changed).toMatchObject([
      { activityType: 'token_create', targetId: response.body.id, orgId: 'org-a' },
    ]);
  });

  test('is not wider than the one that asks for it', async () => {
    const gateway = await fakeGateway();
    const token = await gateway.token({ scopes: ['tokens:write'] });
    expect((await create(gateway, CI, { token })).body).toMatchObject({ status: 403, code: 'scope_missing' });
  });

  test('is for a workspace that the caller can see', async () => {
    const gateway = await fakeGateway();
    gateway.workspaces.set('ws-2', workspaceOf({ id: 'ws-2' }));
    const bound = await gateway.token({ kind: 'workspace', workspaceId: 'ws-1' });
    expect((await create(gateway, { ...CI, workspace_id: 'ws-other' })).status).toBe(404);
    expect((await create(gateway, { ...CI, workspace_id: 'ws-none' })).status).toBe(404);
    expect((await create(gateway, { ...CI, workspace_id: 'ws-2' }, { token: bound })).status).toBe(404);
    expect((await create(gateway, { ...CI, workspace_id: 'ws-2' })).status).toBe(201);
  });

  test('of the admin token belongs to the org of its workspace, or to the one that is named', async () => {
    const gateway = await fakeGateway();
    const orgOf = (response: { body: { id: string } }) => gateway.records.get(response.body.id)?.orgId;
    const admin = { token: ADMIN_TOKEN };
    const org = { kind: 'org', name: 'x', scopes: ['exec'] };
    expect(orgOf(await create(gateway, { ...CI, workspace_id: 'ws-other' }, admin))).toBe('org-b');
    expect(orgOf(await create(gateway, { ...org, org_id: 'org-b' }, admin))).toBe('org-b');
    expect(orgOf(await create(gateway, org, { ...admin, headers: { 'x-org-id': 'org-a' } }))).toBe('org-a');
    expect((await create(gateway, org, admin)).status).toBe(400);
    expect((await create(gateway, { ...org, org_id: 'org-z' }, admin)).status).toBe(400);
    expect((await create(gateway, { ...CI, org_id: 'org-b' }, admin)).status).toBe(404);
  });

  test('of another org is 404', async () => {
    const gateway = await fakeGateway();
    expect((await create(gateway, { kind: 'org', name: 'x', scopes: ['exec'], org_id: 'org-b' })).status).toBe(404);
  });

  test('that is not well-formed is 400', async () => {
    const response = await create(await fakeGateway(), { ...CI, scope: 'exec' });
    expect(response.body).toMatchObject({ status: 400, detail: expect.stringContaining('scope') });
  });
});

describe('revoking', () => {
  const revoke = async (gateway: FakeGateway, id: string, token = '') =>
    (
      await request(gateway.app)
        .delete(`/tokens/${id}`)
        .auth(token === '' ? await gateway.token() : token, { type: 'bearer' })
    ).status;

  test('ends a token at its next use', async () => {
    const gateway = await fakeGateway();
    const { body } = await create(gateway, CI);
    expect(await revoke(gateway, body.id)).toBe(204);
    const used = await request(gateway.app).get('/workspaces/ws-1').auth(body.token, { type: 'bearer' });
    expect(used.status).toBe(401);
    expect(gateway.changed.map(({ activityType }) => activityType)).toEqual(['token_create', 'token_revoke']);
  });

  test('of a token that is foreign, unknown, or another workspace’s is 404', async () => {
    const gateway = await fakeGateway();
    gateway.workspaces.set('ws-2', workspaceOf({ id: 'ws-2' }));
    const { body } = await create(gateway, CI);
    const foreign = await gateway.token({ orgId: 'org-b' });
    const bound = await gateway.token({ kind: 'workspace', workspaceId: 'ws-2' });
    expect(await revoke(gateway, body.id, foreign)).toBe(404);
    expect(await revoke(gateway, body.id, bound)).toBe(404);
    expect(await revoke(gateway, 'token-none')).toBe(404);
    expect(await revoke(gateway, '%00')).toBe(404);
    expect(await revoke(gateway, body.id, ADMIN_TOKEN)).toBe(204);
  });
});

test('a workspace token lists the tokens of its workspace only', async () => {
  const gateway = await fakeGateway();
  await gateway.token({ jti: 'token-of-org' });
  const bound = await gateway.token({ jti: 'token-of-ws', kind: 'workspace', workspaceId: 'ws-1' });
  const response = await request(gateway.app).get('/tokens').auth(bound, { type: 'bearer' });
  expect(response.body.items.map((item: { id: string }) => item.id)).toEqual(['token-of-ws']);
});
