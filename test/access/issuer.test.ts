/** What an issuer may answer that is not taken: every one of these is an outage of the issuer, never the caller's fault. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exportJWK, generateKeyPair, type JWK, type JWTVerifyGetKey } from 'jose';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createIssuerKeys, isTrustworthyUrl } from '../../src/access/issuer.ts';
import { ISSUER_ANSWER_MAX_BYTES } from '../../src/limits.ts';
import { failOnLeaks } from '../support/leaks.ts';

failOnLeaks();

let server: Server;
let url: string;
let key: JWK;
let answers: Record<string, (res: ServerResponse, req: IncomingMessage) => void>;
let asked: string[];
beforeAll(async () => {
  key = { ...(await exportJWK((await generateKeyPair('ES256', { extractable: true })).publicKey)), kid: 'one' };
  server = createServer((req, res) => {
    asked.push(req.url ?? '');
    const answer = answers[req.url ?? ''];
    if (answer === undefined) res.writeHead(404).end();
    else answer(res, req);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

const DOCUMENT = '/.well-known/openid-configuration';

const json =
  (body: unknown, type = 'application/json') =>
  (res: ServerResponse) => {
    res.writeHead(200, { 'content-type': type }).end(JSON.stringify(body));
  };

/** Asks for the key `one`; `change` replaces what a good issuer answers. */
async function ask(change: typeof answers = {}, issuer = url): Promise<unknown> {
  asked = [];
  answers = { [DOCUMENT]: json({ issuer, jwks_uri: `${url}/keys` }), '/keys': json({ keys: [key] }), ...change };
  return await keyOf(createIssuerKeys(issuer, { log: { warn() {} } }));
}

async function keyOf(keys: JWTVerifyGetKey): Promise<unknown> {
  return await keys({ alg: 'ES256', kid: 'one' }, { payload: '', signature: '' });
}

test('an issuer that answers well gives its key, found through its document', async () => {
  expect(await ask()).toMatchObject({ type: 'public' });
  expect(asked).toEqual([DOCUMENT, '/keys']);
});

test('a slash at its end is part of its name and not of its path', async () => {
  expect(await ask({}, `${url}/`)).toMatchObject({ type: 'public' });
});

test('the document lies below the path of the issuer', async () => {
  const document = json({ issuer: `${url}/realms/a`, jwks_uri: `${url}/keys` });
  expect(await ask({ [`/realms/a${DOCUMENT}`]: document }, `${url}/realms/a`)).toMatchObject({ type: 'public' });
});

test('a key set may have a media type of its own', async () => {
  expect(await ask({ '/keys': json({ keys: [key] }, 'application/jwk-set+json; charset=utf-8') })).toBeDefined();
});

describe('not taken is', () => {
  const cases: [string, () => typeof answers][] = [
    ['the document of another issuer', () => ({ [DOCUMENT]: json({ issuer: `${url}/`, jwks_uri: `${url}/keys` }) })],
    ['a document that does not say whose it is', () => ({ [DOCUMENT]: json({ jwks_uri: `${url}/keys` }) })],
    ['a document without keys', () => ({ [DOCUMENT]: json({ issuer: url }) })],
    ['keys at another machine without TLS', () => elsewhere('http://id.example/keys')],
    ['keys in a file', () => elsewhere('file:///etc/passwd')],
    ['a redirect of the document', () => ({ [DOCUMENT]: redirect('/moved'), '/moved': json({ issuer: url }) })],
    ['a redirect of the keys', () => ({ '/keys': redirect('/moved'), '/moved': json({ keys: [key] }) })],
    ['an error', () => ({ '/keys': (res) => res.writeHead(500).end() })],
    ['keys that are no JSON', () => ({ '/keys': json({ keys: [key] }, 'text/html') })],
    ['keys that say they are JSON', () => ({ '/keys': (res) => text(res, '<html>') })],
    ['keys in another form', () => ({ '/keys': json([key]) })],
    ['no keys at all', () => ({ '/keys': json({ keys: [] }) })],
    ['an endless answer', () => ({ '/keys': (res) => text(res, `"${'x'.repeat(ISSUER_ANSWER_MAX_BYTES)}"`) })],
    ['an answer that breaks off', () => ({ '/keys': (res) => breakOff(res) })],
  ];
  const elsewhere = (jwks_uri: string) => ({ [DOCUMENT]: json({ issuer: url, jwks_uri }) });
  const redirect = (location: string) => (res: ServerResponse) => res.writeHead(302, { location }).end();
  const text = (res: ServerResponse, body: string) =>
    res.writeHead(200, { 'content-type': 'application/json' }).end(body);
  const breakOff = (res: ServerResponse) => {
    res.writeHead(200, { 'content-type': 'application/json' });
    res.write('{"keys":[', () => res.destroy());
  };

  test.each(cases)('%s', async (_what, change) => {
    await expect(ask(change())).rejects.toMatchObject({ code: 'issuer_unavailable' });
    expect(asked).not.toContain('/moved');
  });

  test('an answer that does not come, and it is not waited for again', async () => {
    answers = { [DOCUMENT]: () => {} };
    asked = [];
    const keys = createIssuerKeys(url, { log: { warn() {} } });
    await expect(keyOf(keys)).rejects.toMatchObject({ code: 'issuer_unavailable' });
    await expect(keyOf(keys)).rejects.toMatchObject({ code: 'issuer_unavailable' });
    expect(asked).toEqual([DOCUMENT]);
  });
});

test('who asks while it is asked waits for the same answer', async () => {
  asked = [];
  answers = { [DOCUMENT]: json({ issuer: url, jwks_uri: `${url}/keys` }), '/keys': json({ keys: [key] }) };
  const keys = createIssuerKeys(url, { log: { warn() {} } });
  await Promise.all(Array.from({ length: 20 }, () => keyOf(keys)));
  expect(asked).toEqual([DOCUMENT, '/keys']);
});

test.each<[string, boolean]>([
  ['https://id.example', true],
  ['http://127.0.0.1:80', true],
  ['http://127.1', true],
  ['http://[::1]/', true],
  ['http://localhost:3', true],
  ['http://id.example', false],
  ['http://localhost.id.example', false],
  ['http://10.0.0.1', false],
  ['ftp://127.0.0.1', false],
])('%s can be believed: %s', (text, expected) => {
  expect(isTrustworthyUrl(new URL(text))).toBe(expected);
});
