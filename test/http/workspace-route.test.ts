import request from 'supertest';
import { describe, expect, test } from 'vitest';
import { SallyportError } from '../../src/errors.ts';
import { ADMIN_TOKEN, type FakeGateway, fakeGateway, workspaceOf } from './fake-gateway.ts';

type Method = 'get' | 'put' | 'patch' | 'delete';

async function ask(
  gateway: FakeGateway,
  method: Method,
  path: string,
  { token = '', body = undefined as unknown } = {},
) {
  const asked = request(gateway.app)
    [method](path)
    .auth(token === '' ? await gateway.token() : token, { type: 'bearer' });
  return await (body === undefined ? asked : asked.send(body as object));
}

const EC2 = { org_id: 'org-a', driver: 'ec2', instance_id: 'i-0abc', region: 'us-east-1', os_user: 'ubuntu', tier: 3 };

describe('the representation', () => {
  test('has the members of the contract', async () => {
    const response = await ask(await fakeGateway(), 'get', '/workspaces/ws-1');
    expect(response.body).toEqual({
      id: 'ws-1',
      org_id: 'org-a',
      name: 'first',
      driver: 'ec2',
      instance_id: 'i-0123456789abcdef0',
      region: 'eu-central-1',
      os_user: 'ec2-user',
      tier: 3,
      labels: {},
      status: 'active',
    });
  });

  test('shows the address of a host to the admin token only', async () => {
    const gateway = await fakeGateway();
    const target = { driver: 'ssh' as const, host: '10.0.0.9', port: 2222, osUser: 'root' };
    gateway.workspaces.set('ws-1', workspaceOf({ target }));
    expect((await ask(gateway, 'get', '/workspaces/ws-1', { token: ADMIN_TOKEN })).body).toMatchObject({
      host: '10.0.0.9',
      port: 2222,
    });
    for (const path of ['/workspaces/ws-1', '/workspaces'])
      expect(JSON.stringify((await ask(gateway, 'get', path)).body)).not.toContain('10.0.0.9');
  });
});

describe('the list', () => {
  const idsOf = async (gateway: FakeGateway, token: string) =>
    (await ask(gateway, 'get', '/workspaces', { token })).body.items.map((item: { id: string }) => item.id);

  test('has what the caller may see', async () => {
    const gateway = await fakeGateway();
    gateway.workspaces.set('ws-2', workspaceOf({ id: 'ws-2' }));
    expect(await idsOf(gateway, await gateway.token())).toEqual(['ws-1', 'ws-2']);
    expect(await idsOf(gateway, await gateway.token({ kind: 'workspace', workspaceId: 'ws-2' }))).toEqual(['ws-2']);
    expect(await idsOf(gateway, ADMIN_TOKEN)).toEqual(['ws-1', 'ws-2', 'ws-other']);
  });

  test('goes on after its cursor', async () => {
    const gateway = await fakeGateway();
    gateway.workspaces.set('ws-2', workspaceOf({ id: 'ws-2' }));
    const first = (await ask(gateway, 'get', '/workspaces?limit=1')).body;
    const second = (await ask(gateway, 'get', `/workspaces?limit=1&after=${first.next}`)).body;
    expect([first.items[0].id, second.items[0].id, second.next]).toEqual(['ws-1', 'ws-2', null]);
  });
});

describe('the admin token', () => {
  test('creates, then replaces', async () => {
    const gateway = await fakeGateway();
    const created = await ask(gateway, 'put', '/workspaces/ws-new', { token: ADMIN_TOKEN, body: EC2 });
    expect(created.status).toBe(201);
    expect(created.headers.location).toBe('/workspaces/ws-new');
    expect(created.body).toMatchObject({
      id: 'ws-new',
      name: 'ws-new',
      instance_id: 'i-0abc',
      labels: {},
      route: null,
    });
    const body = { ...EC2, name: 'n', labels: { a: 'b' }, instance_id: null };
    const replaced = await ask(gateway, 'put', '/workspaces/ws-new', { token: ADMIN_TOKEN, body });
    expect(replaced.status).toBe(200);
    expect(replaced.body).toMatchObject({ name: 'n', labels: { a: 'b' }, status: 'no_instance' });
    expect(gateway.changed).toMatchObject([
      { orgId: 'org-a', workspaceId: 'ws-new', activityType: 'workspace_put', method: 'PUT /workspaces/:id' },
      { orgId: 'org-a', workspaceId: 'ws-new', actor: 'admin-token' },
    ]);
  });

  test.each([
    [{ ...EC2, driver: 'ssh' }, 'host: expected a host name'],
    [{ ...EC2, host: '10.0.0.1' }, 'unknown field "host"'],
    [{ ...EC2, driver: 'vm' }, 'driver: '],
    [{ ...EC2, region: 'us-east-1.evil.example' }, 'region: expected a region such as "eu-central-1"'],
    [{ ...EC2, instance_id: 'i-../x' }, 'instance_id: expected an instance id'],
    [{ ...EC2, tier: '3' }, 'tier: '],
    [{ ...EC2, labels: { a: 'x\0' } }, 'labels: expected text without NUL'],
    [{ ...EC2, org_id: 'org-z' }, 'there is no org "org-z"'],
    [{ ...EC2, org_id: undefined }, '"org_id": expected the org'],
    [
      { driver: 'ssh', org_id: 'org-a', tier: 3, os_user: 'u', host: 'a b' },
      'host: expected a host name or an address',
    ],
    [{ driver: 'ssh', org_id: 'org-a', tier: 3, os_user: 'u', host: 'h', port: 0 }, 'port: '],
    [{ driver: 'docker', org_id: 'org-a', tier: 3, os_user: 'u', container: '-x' }, 'container: '],
    [[], 'the request: '],
  ])('is refused %j', async (body, detail) => {
    const gateway = await fakeGateway();
    const response = await ask(gateway, 'put', '/workspaces/ws-new', { token: ADMIN_TOKEN, body });
    expect(response.body).toMatchObject({ status: 400, detail: expect.stringContaining(detail) });
    expect(gateway.changed).toEqual([]);
  });

  test.each([
    { driver: 'ssh', host: 'host.example', os_user: 'u' },
    { driver: 'ssh', host: '::1', port: 2222, os_user: 'u' },
    { driver: 'docker', container: 'c_1', os_user: 'u' },
    { driver: 'local', os_user: 'u' },
  ])('creates %j', async (body) => {
    const gateway = await fakeGateway();
    const whole = { ...body, org_id: 'org-a', tier: 3 };
    const response = await ask(gateway, 'put', '/workspaces/ws-new', { token: ADMIN_TOKEN, body: whole });
    expect(response.status).toBe(201);
    expect(response.body).toMatchObject(whole);
  });

  test('may lower a tier, and keeps the rest', async () => {
    const gateway = await fakeGateway();
    const response = await ask(gateway, 'patch', '/workspaces/ws-1', { token: ADMIN_TOKEN, body: { tier: 1 } });
    expect(response.status).toBe(200);
    expect(gateway.workspaces.get('ws-1')).toEqual(workspaceOf({ tier: 1 }));
  });

  test('takes nothing of the old address along to another driver', async () => {
    const gateway = await fakeGateway();
    const body = { driver: 'ssh', host: 'h.example' };
    await ask(gateway, 'patch', '/workspaces/ws-1', { token: ADMIN_TOKEN, body });
    expect(gateway.workspaces.get('ws-1')?.target).toEqual({
      driver: 'ssh',
      host: 'h.example',
      port: 22,
      osUser: 'ec2-user',
    });
  });

  test('moves a workspace, and both orgs find it in their log', async () => {
    const gateway = await fakeGateway();
    await ask(gateway, 'patch', '/workspaces/ws-1', { token: ADMIN_TOKEN, body: { org_id: 'org-b' } });
    expect(gateway.workspaces.get('ws-1')?.orgId).toBe('org-b');
    expect(gateway.changed.map(({ orgId }) => orgId)).toEqual(['org-a', 'org-b']);
  });

  test('bound to one org neither creates in another nor takes from another', async () => {
    const gateway = await fakeGateway({ processOrgId: 'org-a' });
    const put = async (id: string, body: object) =>
      (await ask(gateway, 'put', `/workspaces/${id}`, { token: ADMIN_TOKEN, body })).status;
    expect(await put('ws-new', { ...EC2, org_id: 'org-b' })).toBe(404);
    expect(await put('ws-other', EC2)).toBe(400);
    expect(await put('ws-new', { ...EC2, org_id: undefined })).toBe(201);
    expect(gateway.workspaces.get('ws-other')?.orgId).toBe('org-b');
  });

  test('cannot give an id that is none', async () => {
    const response = await ask(await fakeGateway(), 'put', '/workspaces/a%20b', { token: ADMIN_TOKEN, body: EC2 });
    expect(response.status).toBe(400);
  });
});

describe('an org token', () => {
  test('sets name and labels', async () => {
    const gateway = await fakeGateway();
    const patched = await ask(gateway, 'patch', '/workspaces/ws-1', { body: { labels: { team: 'x' } } });
    expect(patched.body).toMatchObject({ name: 'first', labels: { team: 'x' } });
    const put = await ask(gateway, 'put', '/workspaces/ws-1', { body: { name: 'second' } });
    expect(put.body).toMatchObject({ name: 'second', labels: {} });
    expect(gateway.workspaces.get('ws-1')?.target).toEqual(workspaceOf().target);
  });

  test.each(['put', 'patch'] as const)('may %s nothing that names an address or a tier', async (method) => {
    const gateway = await fakeGateway();
    for (const field of [
      'org_id',
      'driver',
      'instance_id',
      'region',
      'route',
      'os_user',
      'host',
      'port',
      'container',
      'tier',
    ]) {
      const response = await ask(gateway, method, '/workspaces/ws-1', { body: { name: 'n', [field]: 'x' } });
      expect(response.body, field).toMatchObject({
        status: 403,
        code: 'scope_missing',
        detail: `set by the admin token only: "${field}"`,
      });
    }
    expect(gateway.changed).toEqual([]);
    expect(gateway.refused).toHaveLength(10);
  });

  test('is told of a field that nobody knows', async () => {
    const response = await ask(await fakeGateway(), 'patch', '/workspaces/ws-1', { body: { nmae: 'x' } });
    expect(response.body).toMatchObject({ status: 400, detail: 'unknown field "nmae"' });
  });

  test('creates nothing: an id that is not there is 404', async () => {
    const response = await ask(await fakeGateway(), 'put', '/workspaces/ws-new', { body: { name: 'n' } });
    expect(response.status).toBe(404);
  });

  test('deletes a workspace once', async () => {
    const gateway = await fakeGateway();
    expect((await ask(gateway, 'delete', '/workspaces/ws-1')).status).toBe(204);
    expect((await ask(gateway, 'delete', '/workspaces/ws-1')).status).toBe(404);
    expect(gateway.changed).toHaveLength(1);
  });

  test('needs the scope to write', async () => {
    const gateway = await fakeGateway();
    const token = await gateway.token({ scopes: ['workspaces:read'] });
    expect((await ask(gateway, 'delete', '/workspaces/ws-1', { token })).body.code).toBe('scope_missing');
  });
});

test('nothing changes when the audit log cannot be written', async () => {
  const { deps } = await fakeGateway();
  const changed = async () => {
    throw new SallyportError('audit_unavailable', 'no row');
  };
  const gateway = await fakeGateway({ audit: { ...deps.audit, changed } });
  const asks: [Method, string, unknown][] = [
    ['put', '/workspaces/ws-new', EC2],
    ['patch', '/workspaces/ws-1', { name: 'x' }],
    ['delete', '/workspaces/ws-1', undefined],
    ['put', '/orgs/org-c', { name: 'C' }],
  ];
  for (const [method, path, body] of asks)
    expect((await ask(gateway, method, path, { token: ADMIN_TOKEN, body })).status, path).toBe(503);
  expect(gateway.workspaces.get('ws-1')).toEqual(workspaceOf());
  expect(gateway.workspaces.has('ws-new')).toBe(false);
  expect(gateway.orgs.has('org-c')).toBe(false);
});
