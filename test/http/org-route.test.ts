import request from 'supertest';
import { describe, expect, test } from 'vitest';
import { ADMIN_TOKEN, type FakeGateway, fakeGateway } from './fake-gateway.ts';

type Method = 'get' | 'put' | 'post';

async function ask(
  gateway: FakeGateway,
  method: Method,
  path: string,
  { token = ADMIN_TOKEN, body = {} as object } = {},
) {
  const asked = request(gateway.app)[method](path).auth(token, { type: 'bearer' });
  return await (method === 'put' ? asked.send(body) : asked);
}

test('the admin token creates, renames, lists and reads orgs', async () => {
  const gateway = await fakeGateway();
  const created = await ask(gateway, 'put', '/orgs/org-c', { body: { name: 'C' } });
  expect([created.status, created.headers.location]).toEqual([201, '/orgs/org-c']);
  expect(created.body).toEqual({ id: 'org-c', name: 'C', frozen: false });
  expect((await ask(gateway, 'put', '/orgs/org-c', { body: { name: 'CC' } })).status).toBe(200);
  expect((await ask(gateway, 'get', '/orgs/org-c')).body.name).toBe('CC');
  expect((await ask(gateway, 'get', '/orgs')).body.items).toHaveLength(3);
  expect((await ask(gateway, 'get', '/orgs/org-z')).status).toBe(404);
  expect((await ask(gateway, 'put', '/orgs/a%2Fb', { body: { name: 'x' } })).status).toBe(400);
  expect((await ask(gateway, 'put', '/orgs/org-c', { body: { name: 'x', frozen: true } })).status).toBe(400);
});

test('freezing stops the credentials of an org, unfreezing lets them go on, and a rename keeps it frozen', async () => {
  const gateway = await fakeGateway();
  const token = await gateway.token();
  const look = async () => (await ask(gateway, 'get', '/workspaces', { token })).status;
  expect((await ask(gateway, 'post', '/orgs/org-a/freeze')).body).toEqual({ id: 'org-a', name: 'A', frozen: true });
  expect((await ask(gateway, 'put', '/orgs/org-a', { body: { name: 'AA' } })).body.frozen).toBe(true);
  expect(await look()).toBe(403);
  expect((await ask(gateway, 'post', '/orgs/org-a/unfreeze')).body.frozen).toBe(false);
  expect(await look()).toBe(200);
  expect(gateway.changed.map(({ activityType, orgId }) => [activityType, orgId])).toEqual([
    ['org_freeze', 'org-a'],
    ['org_put', 'org-a'],
    ['org_unfreeze', 'org-a'],
  ]);
  expect((await ask(gateway, 'post', '/orgs/org-z/freeze')).status).toBe(404);
});

test('freezing a person stops the tokens they have made in that org, and nobody else', async () => {
  const gateway = await fakeGateway();
  const [token, other] = [await gateway.token({ sub: 'auth0|ada' }), await gateway.token({ sub: 'bob' })];
  const foreign = await gateway.token({ sub: 'auth0|ada', orgId: 'org-b' });
  const look = async (bearer: string) => await ask(gateway, 'get', '/workspaces', { token: bearer });
  const person = { org_id: 'org-a', sub: 'auth0|ada' };
  const frozen = await ask(gateway, 'post', '/orgs/org-a/people/auth0%7Cada/freeze');
  expect([frozen.status, frozen.body]).toEqual([200, { ...person, frozen: true }]);
  const { items } = (await ask(gateway, 'get', '/orgs/org-a/people')).body;
  expect(items).toEqual([{ ...person, frozen: true, frozen_at: expect.any(String) }]);
  const refused = await look(token);
  expect(refused.body).toMatchObject({
    status: 403,
    code: 'exec_revoked',
    error: expect.stringMatching(/person is frozen/),
  });
  expect([(await look(other)).status, (await look(foreign)).status]).toEqual([200, 200]);
  const unfrozen = await ask(gateway, 'post', '/orgs/org-a/people/auth0%7Cada/unfreeze');
  expect(unfrozen.body).toEqual({ ...person, frozen: false });
  expect((await look(token)).status).toBe(200);
  expect(gateway.changed.map(({ activityType, orgId, targetId }) => [activityType, orgId, targetId])).toEqual([
    ['person_freeze', 'org-a', 'auth0|ada'],
    ['person_unfreeze', 'org-a', 'auth0|ada'],
  ]);
});

test('a person is frozen in an org that exists, by a sub that can be one', async () => {
  const gateway = await fakeGateway();
  expect((await ask(gateway, 'post', '/orgs/org-z/people/ada/freeze')).status).toBe(404);
  const { body } = await ask(gateway, 'post', '/orgs/org-a/people/a%0Ab/freeze');
  expect(body).toMatchObject({
    code: 'invalid_request',
    error: expect.stringMatching(/^sub: expected .* got "a\\nb"$/),
  });
  expect(gateway.changed).toEqual([]);
});

describe('to everybody else', () => {
  test.each([
    ['get', '/orgs'],
    ['get', '/orgs/org-a'],
    ['put', '/orgs/org-a'],
    ['post', '/orgs/org-a/freeze'],
    ['post', '/orgs/org-a/unfreeze'],
    ['get', '/orgs/org-a/people'],
    ['post', '/orgs/org-a/people/ada/freeze'],
    ['post', '/orgs/org-a/people/ada/unfreeze'],
  ] as [Method, string][])('%s %s is 404', async (method, path) => {
    const gateway = await fakeGateway();
    const response = await ask(gateway, method, path, { token: await gateway.token() });
    expect(response.body).toMatchObject({ status: 404, code: 'not_found' });
    expect(gateway.refused).toHaveLength(1);
  });
});

test('a process that serves one org knows no other', async () => {
  const gateway = await fakeGateway({ processOrgId: 'org-a' });
  expect((await ask(gateway, 'get', '/orgs')).body.items).toEqual([{ id: 'org-a', name: 'A', frozen: false }]);
  expect((await ask(gateway, 'get', '/orgs/org-b')).status).toBe(404);
  expect((await ask(gateway, 'put', '/orgs/org-b', { body: { name: 'x' } })).status).toBe(404);
  expect((await ask(gateway, 'post', '/orgs/org-b/freeze')).status).toBe(404);
});
