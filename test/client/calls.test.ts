import { Socket } from 'node:net';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { type Client, createClient } from '../../src/client/client.ts';
import { type Answer, sendJson, sendProblem, startWireServer, type WireServer } from './wire-server.ts';

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  vi.restoreAllMocks();
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function serve(answer: Answer, path = ''): Promise<{ server: WireServer; client: Client }> {
  const server = await startWireServer(answer);
  cleanups.push(() => server.close());
  return { server, client: createClient({ url: `${server.url}${path}`, token: 'secret' }) };
}

describe('where a token may go', () => {
  it.each([
    'http://192.0.2.1',
    'http://192.0.2.1:8080/prefix',
    'http://gateway.example',
    'http://localhost.example',
    'http://127.0.0.1.example',
    'http://[2001:db8::1]',
    'http://0.0.0.0',
    'http://[::]',
  ])('%s is refused, and nothing is dialled', (url) => {
    const connect = vi.spyOn(Socket.prototype, 'connect');
    expect(() => createClient({ url, token: 'secret' })).toThrow(/not sent over plain http/);
    expect(connect).not.toHaveBeenCalled();
  });

  it.each([
    'http://127.0.0.1:8080',
    'http://127.9.9.9',
    'http://2130706433',
    'http://[::1]:8080',
    'http://[::ffff:127.0.0.1]',
    'http://localhost',
    'http://LOCALHOST:1',
    'https://192.0.2.1',
    'https://gateway.example/prefix',
  ])('%s is taken', (url) => {
    expect(() => createClient({ url, token: 'secret' })).not.toThrow();
  });

  it.each([
    ['gateway.example', /must be an http:\/\/ or https:\/\/ URL/],
    ['ftp://gateway.example', /begins with "ftp:"/],
    ['https://user:word@gateway.example', /without user, password/],
    ['https://gateway.example/?a=b', /query/],
  ])('%s is no address of a gateway', (url, reason) => {
    expect(() => createClient({ url, token: 'secret' })).toThrow(reason);
  });

  it('a token that cannot stand in a header is refused and not repeated', () => {
    expect(() => createClient({ url: 'https://gateway.example', token: 'two words' })).toThrow(
      /^(?!.*two words).*visible ASCII/,
    );
  });
});

it('a path prefix is kept, and ids cannot change the path', async () => {
  const { client, server } = await serve((response) => sendJson(response, {}), '/sally/port/');
  await client.workspaces.get('a/../b?c#d');
  expect(server.asked[0]?.path).toBe('/sally/port/workspaces/a%2F..%2Fb%3Fc%23d');
  await expect(client.workspaces.get('..')).rejects.toThrow(/not an id/);
  await expect(client.exec('', { cmd: ['true'] })).rejects.toThrow(/not an id/);
  expect(server.asked).toHaveLength(1);
});

it('every call has its method, path and body', async () => {
  const { client, server } = await serve((response, { method }) => {
    if (method === 'DELETE') response.writeHead(204).end();
    else sendJson(response, { id: 'x' });
  });
  await client.workspaces.put('ws-1', { name: 'one', tier: 3 });
  await client.workspaces.patch('ws-1', { name: 'two' });
  await client.workspaces.delete('ws-1');
  await client.tokens.create({ kind: 'org', name: 'ci', scopes: ['exec'], expires_in_s: 60 });
  await client.tokens.revoke('t-1');
  await client.orgs.get('o-1');
  await client.orgs.put('o-1', { name: 'Org' });
  await client.orgs.freeze('o-1');
  await client.orgs.unfreeze('o-1');
  await client.orgs.freezePerson('o-1', 'auth0|ada');
  await client.orgs.unfreezePerson('o-1', 'auth0|ada');
  await client.execs('ws-1');
  await client.cancel('ws-1', 'e-1');
  expect(server.asked.map(({ method, path, body }) => `${method} ${path} ${body}`.trim())).toEqual([
    'PUT /workspaces/ws-1 {"name":"one","tier":3}',
    'PATCH /workspaces/ws-1 {"name":"two"}',
    'DELETE /workspaces/ws-1',
    'POST /tokens {"kind":"org","name":"ci","scopes":["exec"],"expires_in_s":60}',
    'DELETE /tokens/t-1',
    'GET /orgs/o-1',
    'PUT /orgs/o-1 {"name":"Org"}',
    'POST /orgs/o-1/freeze',
    'POST /orgs/o-1/unfreeze',
    'POST /orgs/o-1/people/auth0%7Cada/freeze',
    'POST /orgs/o-1/people/auth0%7Cada/unfreeze',
    'GET /workspaces/ws-1/execs',
    'DELETE /workspaces/ws-1/execs/e-1',
  ]);
});

it('a list is read page by page to its end, filters on every page', async () => {
  const { client, server } = await serve((response, { path }) =>
    path.includes('after=c1')
      ? sendJson(response, { items: [{ id: '3' }], next: null })
      : sendJson(response, { items: [{ id: '1' }, { id: '2' }], next: 'c1' }),
  );
  const ids: string[] = [];
  for await (const item of client.activity('ws-1').all({ status: 'ok', actor: 'session:a&b', limit: 2 }))
    ids.push(item.id);
  expect(ids).toEqual(['1', '2', '3']);
  expect(server.asked.map(({ path }) => path)).toEqual([
    '/workspaces/ws-1/activity?status=ok&actor=session%3Aa%26b&limit=2',
    '/workspaces/ws-1/activity?status=ok&actor=session%3Aa%26b&limit=2&after=c1',
  ]);
  await client.activity(null).list();
  expect(server.asked[2]?.path).toBe('/activity');
});

it('the org of an admin is named in a header', async () => {
  const { server } = await serve((response) => sendJson(response, { items: [], next: null }));
  await createClient({ url: server.url, token: 'secret', orgId: 'o-1' }).workspaces.list();
  expect(server.asked[0]?.headers['x-org-id']).toBe('o-1');
});

it('the health call carries no token', async () => {
  const { client, server } = await serve((response) => sendJson(response, { ok: true }));
  expect(await client.healthz()).toEqual({ ok: true });
  expect(server.asked[0]?.headers.authorization).toBeUndefined();
});

it('an answer that breaks off is no answer', async () => {
  const { client } = await serve((response) => {
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': '100' });
    response.write('{"id":', () => response.destroy());
  });
  await expect(client.workspaces.get('ws-1')).rejects.toMatchObject({ name: 'NoAnswerError', wasSent: true });
});

it('a problem of a plain call is thrown with its code', async () => {
  const { client } = await serve((response) =>
    sendProblem(response, 404, { code: 'not_found', detail: 'no such workspace' }),
  );
  await expect(client.workspaces.get('ws-1')).rejects.toMatchObject({
    status: 404,
    code: 'not_found',
    message: 'no such workspace',
  });
});
