import request from 'supertest';
import { describe, expect, test } from 'vitest';
import { csvTable } from '../../src/http/lists.ts';
import { ADMIN_TOKEN, type FakeGateway, fakeGateway, workspaceOf } from './fake-gateway.ts';

async function get(gateway: FakeGateway, path: string, { token = '', accept = '*/*' } = {}) {
  const bearer = token === '' ? await gateway.token() : token;
  return await request(gateway.app)
    .get(path)
    .auth(bearer, { type: 'bearer' })
    .set('accept', accept)
    .buffer(true)
    .parse((res, done) => {
      const chunks: Buffer[] = [];
      res.on('data', (chunk: Buffer) => chunks.push(chunk));
      res.on('end', () => done(null, Buffer.concat(chunks).toString()));
    });
}

async function gatewayWithActivity(): Promise<FakeGateway> {
  const gateway = await fakeGateway();
  gateway.activity.push(
    { id: 'a-2', seq: '2', org_id: 'org-a', workspace_id: 'ws-1', summary: '=1+1', request_body: { argv: ['a,b'] } },
    { id: 'a-1', seq: '1', org_id: 'org-a', workspace_id: 'ws-2', summary: 'ls "x"', request_body: null },
    { id: 'b-1', seq: '3', org_id: 'org-b', workspace_id: 'ws-other', summary: 'secret' },
  );
  return gateway;
}

describe('a list', () => {
  test('is an object with items and next by default', async () => {
    const response = await get(await gatewayWithActivity(), '/activity?limit=1');
    expect(response.headers['content-type']).toBe('application/json');
    expect(JSON.parse(response.body)).toMatchObject({ items: [{ id: 'a-2' }], next: 'more' });
    expect(response.headers.link).toBe('</activity?limit=1&after=more>; rel="next"');
  });

  test('is a line per item as application/x-ndjson', async () => {
    const response = await get(await gatewayWithActivity(), '/activity', { accept: 'application/x-ndjson' });
    expect(response.headers['content-type']).toBe('application/x-ndjson');
    expect(response.body.split('\n').map((line: string) => line && JSON.parse(line).id)).toEqual(['a-2', 'a-1', '']);
    expect(response.headers.link).toBeUndefined();
  });

  test('is a table as text/csv', async () => {
    const response = await get(await gatewayWithActivity(), '/activity', { accept: 'text/csv' });
    expect(response.headers['content-type']).toBe('text/csv; charset=utf-8');
    const [columns, first, second] = response.body.split('\r\n');
    expect(columns).toBe(
      'id,org_id,workspace_id,activity_type,source_id,target_id,method,summary,request_body,response_body,tool_trace,' +
        'duration_ms,status,error_detail,actor,request_id,replica,created_at,finished_at,seq',
    );
    expect(first).toBe(`a-2,org-a,ws-1,,,,,'=1+1,"{""argv"":[""a,b""]}",,,,,,,,,,,2`);
    expect(second).toBe('a-1,org-a,ws-2,,,,,"ls ""x""",,,,,,,,,,,,1');
  });

  test.each(['/workspaces', '/tokens', '/workspaces/ws-1/execs', '/workspaces/ws-1/activity'])(
    '%s answers in all three ways',
    async (path) => {
      const gateway = await gatewayWithActivity();
      for (const accept of ['application/json', 'application/x-ndjson', 'text/csv']) {
        const response = await get(gateway, path, { accept });
        expect(response.status).toBe(200);
        expect(response.headers['content-type']).toContain(accept);
      }
    },
  );

  test('answers HEAD with the headers of GET', async () => {
    const gateway = await fakeGateway();
    const response = await request(gateway.app)
      .head('/workspaces')
      .auth(await gateway.token(), { type: 'bearer' });
    expect(response.status).toBe(200);
    expect(response.headers['content-type']).toBe('application/json');
  });
});

describe('a query', () => {
  test.each([
    ['limit=0', 'limit: expected a whole number from 1 to 500, got "0"'],
    ['limit=ten', 'limit: expected a whole number from 1 to 500, got "ten"'],
    ['limit=1&limit=2', 'limit: '],
    ['limits=1', 'unknown field "limits"'],
    ['status=done', 'status: '],
    ['since=yesterday', 'since: expected an ISO 8601 date, or time with offset, got "yesterday"'],
    ['actor=%00', 'actor: expected text without NUL and lone surrogates'],
    ['after=bad', 'not a cursor of this list'],
  ])('%s is 400 and says why', async (query, detail) => {
    const response = await get(await fakeGateway(), `/activity?${query}`);
    expect(JSON.parse(response.body)).toMatchObject({
      code: 'invalid_request',
      detail: expect.stringContaining(detail),
    });
  });

  test('for more than a page holds gets a full page', async () => {
    const gateway = await fakeGateway();
    for (let index = 0; index < 510; index += 1)
      gateway.workspaces.set(`w-${index}`, workspaceOf({ id: `w-${index}` }));
    const itemsOf = async (query: string) => JSON.parse((await get(gateway, `/workspaces${query}`)).body).items.length;
    expect(await itemsOf('?limit=9999')).toBe(500);
    expect(await itemsOf('')).toBe(100);
  });

  test('hands the filters on', async () => {
    const { deps } = await fakeGateway();
    const asked: unknown[] = [];
    const list: typeof deps.audit.list = async (filter) => {
      asked.push(filter);
      return { items: [], next: null };
    };
    const gateway = await fakeGateway({ audit: { ...deps.audit, list } });
    await get(
      gateway,
      '/activity?type=workspace_exec&status=ok&actor=admin-token&since=2026-01-01&until=2026-02-01T00:00:00%2B01:00&after=c',
    );
    expect(asked).toEqual([
      {
        orgId: 'org-a',
        limit: 100,
        type: 'workspace_exec',
        status: 'ok',
        actor: 'admin-token',
        since: new Date('2026-01-01T00:00:00Z'),
        until: new Date('2026-01-31T23:00:00Z'),
        after: 'c',
      },
    ]);
  });
});

describe('activity', () => {
  const idsOf = async (gateway: FakeGateway, path: string, token: string) =>
    JSON.parse((await get(gateway, path, { token })).body).items?.map((row: { id: string }) => row.id);

  test('of an org is all of it; of a workspace, and to a workspace token, only that workspace', async () => {
    const gateway = await gatewayWithActivity();
    const bound = await gateway.token({ kind: 'workspace', workspaceId: 'ws-1' });
    expect(await idsOf(gateway, '/activity', await gateway.token())).toEqual(['a-2', 'a-1']);
    expect(await idsOf(gateway, '/workspaces/ws-1/activity', await gateway.token())).toEqual(['a-2']);
    expect(await idsOf(gateway, '/activity', bound)).toEqual(['a-2']);
  });

  test('for the admin token needs an org', async () => {
    const gateway = await gatewayWithActivity();
    const response = await get(gateway, '/activity', { token: ADMIN_TOKEN });
    expect(JSON.parse(response.body)).toMatchObject({ status: 400, detail: expect.stringContaining('X-Org-Id') });
    expect(await idsOf(gateway, '/workspaces/ws-other/activity', ADMIN_TOKEN)).toEqual(['b-1']);
  });
});

describe('a table', () => {
  test.each([
    ['=HYPERLINK("http://x")', `"'=HYPERLINK(""http://x"")"`],
    ['+1', "'+1"],
    ['-1', "'-1"],
    ['@SUM(A1)', "'@SUM(A1)"],
    ['\tx', "'\tx"],
    ['\r=1', `"'\r=1"`],
    [' =1', "' =1"],
    ['＝1', "'＝1"],
    ['a=1', 'a=1'],
    [-1, '-1'],
    ['a,b', '"a,b"'],
    ['a"b', '"a""b"'],
    ['a\nb', '"a\nb"'],
    [' a ', '" a "'],
    [null, ''],
    [undefined, ''],
    [true, 'true'],
    [['-x'], '"[""-x""]"'],
  ])('writes %j as %s', (value, cell) => {
    expect(csvTable(['c'], [{ c: value }])).toBe(`c\r\n${cell}\r\n`);
  });

  test('without items still names its columns', () => {
    expect(csvTable(['a', 'b'], [])).toBe('a,b\r\n');
  });
});
