/** Workspaces and orgs over the API: who may set what, and one instance for one tenant. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Ask, startTestGateway, type TestGateway, terminalOf } from '../support/gateway.ts';

let gateway: TestGateway;
let demo: Record<string, unknown>;
beforeAll(async () => {
  gateway = await startTestGateway();
  demo = (await gateway.ask('/workspaces/ws-demo')).body;
});
afterAll(() => gateway.stop());

const put = (id: string, body: object, how: Ask = {}) =>
  gateway.ask(`/workspaces/${id}`, { method: 'PUT', token: 'admin', body, ...how });
const patch = (id: string, body: object, how: Ask = {}) =>
  gateway.ask(`/workspaces/${id}`, { method: 'PATCH', body, ...how });
const get = async (id: string, token: Ask['token'] = 'admin') =>
  (await gateway.ask(`/workspaces/${id}`, { token })).body;

/** A workspace that nobody else's instance is in the way of. */
const EC2 = { org_id: 'org-demo', driver: 'ec2', region: 'eu-central-1', os_user: 'ec2-user', tier: 3 };
let made = 0;
const instance = () => {
  made += 1;
  return { ...EC2, instance_id: `i-${made}` };
};

describe('what a workspace is', () => {
  it('is shown to its org', () => {
    expect(demo).toEqual({
      id: 'ws-demo',
      org_id: 'org-demo',
      name: 'ws-demo',
      driver: 'ec2',
      instance_id: expect.stringMatching(/^i-[0-9a-f]+$/),
      region: expect.any(String),
      os_user: expect.any(String),
      tier: 3,
      labels: { role: 'demo' },
      status: 'active',
    });
  });

  it('is created, replaced, changed and deleted by the admin token', async () => {
    const created = await put('ws-new', { ...instance(), name: 'New', labels: { a: 'b' } });
    expect(created.status).toBe(201);
    expect(created.headers.location).toBe('/workspaces/ws-new');
    expect(created.body).toMatchObject({ id: 'ws-new', name: 'New', tier: 3, labels: { a: 'b' }, status: 'active' });
    const replaced = await put('ws-new', { ...EC2, tier: 1 });
    expect(replaced.status).toBe(200);
    // A PUT is the whole: what it leaves out is gone.
    expect(replaced.body).toMatchObject({
      name: 'ws-new',
      tier: 1,
      labels: {},
      instance_id: null,
      status: 'no_instance',
    });
    const changed = await patch('ws-new', { tier: 4, name: 'Newer' }, { token: 'admin' });
    expect(changed.body).toMatchObject({ name: 'Newer', tier: 4, region: 'eu-central-1' });
    expect((await gateway.ask('/workspaces/ws-new', { method: 'DELETE', token: 'admin' })).status).toBe(204);
    expect((await gateway.ask('/workspaces/ws-new', { token: 'admin' })).status).toBe(404);
  });

  it('runs nothing once it is deleted', async () => {
    const { instance_id: _none, ...body } = instance();
    await put('ws-short', body);
    await gateway.ask('/workspaces/ws-short', { method: 'DELETE' });
    expect((await gateway.exec({ cmd: ['true'] }, { workspace: 'ws-short' })).status).toBe(404);
  });

  it.each<[string, object]>([
    ['no driver', { driver: undefined }],
    ['an unknown driver', { driver: 'telnet' }],
    ['an address of another driver', { host: 'example.org' }],
    ['an instance id that is none', { instance_id: 'x; id' }],
    ['a region that is none', { region: 'somewhere/else' }],
    ['a user that is none', { os_user: '-oProxyCommand=id' }],
    ['half a tier', { tier: 2.5 }],
    ['an unknown field', { public_ip: '10.0.0.1' }],
    ['an org that does not exist', { org_id: 'org-nowhere' }],
    ['a label that is no text', { labels: { a: 1 } }],
    ['no name', { name: '' }],
  ])('is refused with %s', async (_name, wrong) => {
    const { status, body } = await put('ws-wrong', { ...instance(), ...wrong });
    expect({ status, code: body.code }).toEqual({ status: 400, code: 'invalid_request' });
    expect((await gateway.ask('/workspaces/ws-wrong', { token: 'admin' })).status).toBe(404);
  });

  it.each(['ws%2Fa', '.hidden', 'a'.repeat(64), 'ws%00'])('has no id such as %s', async (id) => {
    const { status } = await put(id, instance());
    expect(status).toBe(400);
  });
});

describe('what an org may set', () => {
  it('is name and labels', async () => {
    const changed = await patch('ws-fleet-01', { name: 'Renamed', labels: { team: 'ours' } });
    expect(changed.status).toBe(200);
    const before = await get('ws-fleet-01');
    expect(before).toMatchObject({ name: 'Renamed', labels: { team: 'ours' } });
    const replaced = await put('ws-fleet-01', { name: 'Again' }, { token: 'org' });
    expect(replaced.status).toBe(200);
    expect(await get('ws-fleet-01')).toEqual({ ...before, name: 'Again', labels: {} });
  });

  it.each<[string, unknown]>([
    ['org_id', 'org-other'],
    ['driver', 'ssh'],
    ['instance_id', 'i-0'],
    ['region', 'us-west-2'],
    ['route', 'direct'],
    ['os_user', 'root'],
    ['host', '127.0.0.1'],
    ['port', 22],
    ['container', 'db'],
    ['tier', 9],
  ])('is not %s, with any verb and any token of the org', async (field, value) => {
    const before = await get('ws-demo');
    for (const token of ['org', 'workspace'] as const) {
      for (const method of ['PUT', 'PATCH']) {
        const body = { name: 'x', [field]: value };
        const answer = await gateway.ask('/workspaces/ws-demo', { method, token, body });
        expect({ method, token, status: answer.status, code: answer.body.code }).toEqual({
          method,
          token,
          status: 403,
          code: 'scope_missing',
        });
        expect(answer.body.detail).toContain(`"${field}"`);
      }
    }
    expect(await get('ws-demo')).toEqual(before);
  });

  it('is not a new workspace', async () => {
    const { status } = await put('ws-of-my-own', { name: 'mine' }, { token: 'org' });
    expect(status).toBe(404);
  });

  it('may be its end', async () => {
    expect((await gateway.ask('/workspaces/ws-fleet-02', { method: 'DELETE' })).status).toBe(204);
    expect((await gateway.ask('/workspaces/ws-fleet-02')).status).toBe(404);
  });

  it('changes are rows in its log', async () => {
    await patch('ws-fleet-03', { name: 'Logged' });
    const { body } = await gateway.ask('/workspaces/ws-fleet-03/activity?limit=1');
    expect(body.items).toMatchObject([
      {
        activity_type: 'workspace_patch',
        status: 'ok',
        target_id: 'ws-fleet-03',
        actor: expect.stringMatching(/^org-token:/),
      },
    ]);
  });
});

describe('one instance', () => {
  it('has one workspace over all orgs, and who has it is not told', async () => {
    const { instance_id, region } = demo;
    const mine = { ...EC2, instance_id, region };
    const inOwn = await put('ws-second', mine);
    const inOther = await put('ws-second', { ...mine, org_id: 'org-other' });
    for (const { status, body, text } of [inOwn, inOther]) {
      expect({ status, code: body.code }).toEqual({ status: 400, code: 'invalid_request' });
      expect(body.detail).toContain('instance_id');
      expect(text).not.toMatch(/ws-demo|org-demo|org-other/);
    }
    const moved = await patch('ws-other', { instance_id, region }, { token: 'admin' });
    expect(moved.status).toBe(400);
    expect((await gateway.ask('/workspaces/ws-second', { token: 'admin' })).status).toBe(404);
  });

  it('of the same id in another region is another one', async () => {
    const { instance_id } = demo;
    expect((await put('ws-elsewhere', { ...EC2, instance_id, region: 'ap-south-1' })).status).toBe(201);
  });

  it('is free again when its workspace is deleted, and none at all is no instance', async () => {
    const body = instance();
    expect((await put('ws-a', body)).status).toBe(201);
    expect((await put('ws-b', body)).status).toBe(400);
    await gateway.ask('/workspaces/ws-a', { method: 'DELETE', token: 'admin' });
    expect((await put('ws-b', body)).status).toBe(201);
    expect((await put('ws-c', EC2)).status).toBe(201);
    expect((await put('ws-d', EC2)).status).toBe(201);
  });

  it('moves with its workspace: the old org sees it no more, and both have a row', async () => {
    const body = instance();
    await put('ws-moves', body);
    expect((await get('ws-moves', 'org')).id).toBe('ws-moves');
    expect((await put('ws-moves', { ...body, org_id: 'org-other' })).status).toBe(200);
    expect((await gateway.ask('/workspaces/ws-moves')).status).toBe(404);
    expect((await get('ws-moves', 'other_org')).id).toBe('ws-moves');
    for (const token of ['org', 'other_org'] as const) {
      const { body: log } = await gateway.ask('/activity?type=workspace_put&limit=1', { token });
      expect(log.items).toMatchObject([{ target_id: 'ws-moves', actor: 'admin-token' }]);
    }
  });

  it('the id of a deleted workspace is never another org’s', async () => {
    await put('ws-kept', EC2);
    await gateway.ask('/workspaces/ws-kept', { method: 'DELETE', token: 'admin' });
    expect((await put('ws-kept', { ...EC2, org_id: 'org-other' })).status).toBe(400);
    expect((await put('ws-kept', EC2)).status).toBe(201);
  });
});

describe('orgs', () => {
  const org = (method: string, path: string, body?: object) => gateway.ask(path, { method, token: 'admin', body });

  it('are made, named, listed', async () => {
    const made = await org('PUT', '/orgs/org-new', { name: 'New' });
    expect({ status: made.status, body: made.body }).toEqual({
      status: 201,
      body: { id: 'org-new', name: 'New', frozen: false },
    });
    expect((await org('PUT', '/orgs/org-new', { name: 'Newer' })).status).toBe(200);
    expect((await org('GET', '/orgs/org-new')).body).toEqual({ id: 'org-new', name: 'Newer', frozen: false });
    const { items } = (await org('GET', '/orgs')).body;
    expect((items as { id: string }[]).map(({ id }) => id)).toEqual(['org-demo', 'org-new', 'org-other']);
    expect((await org('GET', '/orgs/org-nowhere')).status).toBe(404);
    expect((await org('PUT', '/orgs/org-new', { name: 'x', frozen: true })).status).toBe(400);
  });

  it('are frozen and unfrozen, which naming them does not change', async () => {
    expect((await org('POST', '/orgs/org-other/freeze')).body).toMatchObject({ frozen: true });
    expect((await org('POST', '/orgs/org-other/freeze')).body).toMatchObject({ frozen: true });
    const exec = () => gateway.exec({ cmd: ['true'] }, { workspace: 'ws-other', token: 'other_org' });
    const { status, body } = await exec();
    expect({ status, code: body.code }).toEqual({ status: 403, code: 'exec_revoked' });
    expect((await org('PUT', '/orgs/org-other', { name: 'Still frozen' })).body).toMatchObject({ frozen: true });
    expect((await org('POST', '/orgs/org-other/unfreeze')).body).toEqual({
      id: 'org-other',
      name: 'Still frozen',
      frozen: false,
    });
    expect(terminalOf((await exec()).frames)).toMatchObject({ exit_code: 0 });
    expect((await org('POST', '/orgs/org-nowhere/freeze')).status).toBe(404);
  });

  it('changes are rows in their log', async () => {
    const { body } = await gateway.ask('/activity?limit=500', { token: 'other_org' });
    const rows = body.items as { activity_type: string; target_id: string; actor: string }[];
    const about = rows.filter(({ target_id, actor }) => target_id === 'org-other' && actor === 'admin-token');
    expect(about.map(({ activity_type }) => activity_type)).toEqual(
      expect.arrayContaining(['org_freeze', 'org_put', 'org_unfreeze']),
    );
  });
});

describe('lists of workspaces', () => {
  it('come in pages, by id, in any format', async () => {
    const ids: unknown[] = [];
    for (let after: unknown = ''; after !== null; ) {
      const { body } = await gateway.ask(`/workspaces?limit=3${after === '' ? '' : `&after=${after}`}`);
      ids.push(...(body.items as { id: string }[]).map(({ id }) => id));
      after = body.next;
    }
    expect(ids).toEqual([...ids].sort());
    expect(new Set(ids).size).toBe(ids.length);
    const { body } = await gateway.ask('/workspaces');
    expect((body.items as { id: string }[]).map(({ id }) => id)).toEqual(ids);
    const { text } = await gateway.ask('/workspaces', { headers: { accept: 'text/csv' } });
    expect(text.split('\r\n')[0]).toBe('id,org_id,name,driver,instance_id,region,os_user,tier,labels,status');
    expect(text.split('\r\n')).toHaveLength(ids.length + 2);
    const { frames } = await gateway.ask('/workspaces', { headers: { accept: 'application/x-ndjson' } });
    expect(frames).toEqual(body.items);
  });

  it('of the admin token are of every org, or of the one it names', async () => {
    const orgs = async (headers: Record<string, string>) => {
      const { body } = await gateway.ask('/workspaces', { token: 'admin', headers });
      return [...new Set((body.items as { org_id: string }[]).map(({ org_id }) => org_id))].sort();
    };
    expect(await orgs({})).toEqual(['org-demo', 'org-other']);
    expect(await orgs({ 'x-org-id': 'org-other' })).toEqual(['org-other']);
  });
});
