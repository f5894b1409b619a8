import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { get } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import request from 'supertest';
import { describe, expect, onTestFinished, test } from 'vitest';
import { startServer } from '../../src/http/server.ts';
import { waitUntil, within } from '../support/wait.ts';
import { fakeGateway, output, playing } from './fake-gateway.ts';
import { listen, post, rawSocket, textOf } from './wire.ts';

describe('what is no request of ours', () => {
  test.each([
    ['a route that is not there', 'GET /nowhere HTTP/1.1', 404, 'not_found'],
    ['another method on a route', 'POST /healthz HTTP/1.1', 404, 'not_found'],
    ['OPTIONS', 'OPTIONS /workspaces HTTP/1.1', 404, 'not_found'],
    ['OPTIONS *', 'OPTIONS * HTTP/1.1', 404, 'not_found'],
    ['broken percent-encoding', 'GET /workspaces/%zz HTTP/1.1', 400, 'invalid_request'],
    ['half a character, percent-encoded', 'GET /workspaces/%c3 HTTP/1.1', 400, 'invalid_request'],
    ['an absolute target that does not parse', 'GET http://[ HTTP/1.1', 404, 'not_found'],
    ['another letter case', 'GET /HEALTHZ HTTP/1.1', 404, 'not_found'],
    ['no HTTP at all', '\x16\x03\x01 hello', 400, 'invalid_request'],
    ['headers without end', `GET / HTTP/1.1\r\nX: ${'x'.repeat(20_000)}`, 431, 'invalid_request'],
  ])('%s is answered with a problem', async (_what, line, status, code) => {
    const { port } = await listen((await fakeGateway()).app);
    const { socket, received, closed } = rawSocket(port);
    socket.write(`${line}\r\nHost: x\r\nConnection: close\r\n\r\n`, 'latin1');
    await within('the answer', closed);
    const [head = '', body = ''] = received().split('\r\n\r\n');
    expect(head).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(head).toMatch(/content-type: application\/problem\+json/i);
    expect(JSON.parse(body)).toMatchObject({ status, code });
    expect(body).not.toContain('node_modules');
  });

  test('an absolute target is read as its path', async () => {
    const { port } = await listen((await fakeGateway()).app);
    const { socket, received, closed } = rawSocket(port);
    socket.write('GET http://gateway.example/healthz?x=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    await within('the answer', closed);
    expect(received()).toContain('{"ok":true}');
  });
});

test('what follows in the middle of an answer is not answered into it', async () => {
  const gateway = await fakeGateway();
  gateway.script.current = async function* (run) {
    yield output('first');
    await new Promise((resolve) => run.signal.addEventListener('abort', resolve));
    yield* playing()(run);
  };
  const { port } = await listen(gateway.app);
  const { socket, received, closed } = rawSocket(port);
  const body = '{"cmd":["ls"]}';
  const head = `Host: x\r\nAuthorization: Bearer ${await gateway.token()}\r\nContent-Type: application/json`;
  socket.write(`POST /workspaces/ws-1/exec HTTP/1.1\r\n${head}\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
  await waitUntil('the output', () => received().includes('first'));
  socket.write('\x00\x01 nonsense\r\n\r\n');
  await within('the end of the connection', closed);
  expect(received().match(/HTTP\/1\.1/g)).toHaveLength(1);
  await waitUntil('the exec is over', () => gateway.deps.running.size === 0);
});

describe('every response', () => {
  test('has a request id: the caller’s where it is harmless, a new one otherwise', async () => {
    const { app } = await fakeGateway();
    const idFor = async (sent: string) =>
      (await request(app).get('/healthz').set('x-request-id', sent)).headers['x-request-id'];
    expect(await idFor('a.B_9-')).toBe('a.B_9-');
    for (const odd of ['a b', 'x'.repeat(129), '<script>', '']) expect(await idFor(odd)).toMatch(/^[0-9a-f-]{36}$/);
  });

  test('is not cached, not sniffed, and does not say what made it', async () => {
    const { headers } = await request((await fakeGateway()).app).get('/nowhere');
    expect(headers).toMatchObject({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' });
    expect(headers).not.toHaveProperty('x-powered-by');
    expect(headers).not.toHaveProperty('etag');
  });
});

describe('health', () => {
  test('is live as long as it answers', async () => {
    const response = await request((await fakeGateway()).app).get('/healthz');
    expect(response.body).toEqual({ ok: true });
  });

  test('is ready, or says every reason why not', async () => {
    let state = { ok: true, reasons: [] as string[] };
    const { app } = await fakeGateway({ ready: async () => state });
    expect((await request(app).get('/readyz')).status).toBe(200);
    state = { ok: false, reasons: ['the database does not answer', 'draining'] };
    const response = await request(app).get('/readyz');
    expect(response.status).toBe(503);
    expect(response.body).toEqual(state);
  });
});

describe('closing', () => {
  test('lets what runs end, and drops idle connections', async () => {
    const gateway = await fakeGateway();
    let finish = () => {};
    const finished = new Promise<void>((resolve) => {
      finish = resolve;
    });
    gateway.script.current = async function* (run) {
      await finished;
      yield* playing()(run);
    };
    const server = await startServer(gateway.app, { host: '127.0.0.1', port: 0, tls: null });
    const idle = rawSocket(Number(new URL(server.url).port));
    idle.socket.write('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n');
    await waitUntil('the first answer', () => idle.received().includes('{"ok":true}'));
    const busy = rawSocket(Number(new URL(server.url).port));
    const body = '{"cmd":["ls"]}';
    const head = `Host: x\r\nAuthorization: Bearer ${await gateway.token()}\r\nContent-Type: application/json`;
    busy.socket.write(
      `POST /workspaces/ws-1/exec HTTP/1.1\r\n${head}\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    await waitUntil('the exec runs', () => gateway.runs.length === 1);
    const closed = server.close(60_000);
    await within('the end of the idle connection', idle.closed);
    finish();
    await within('the end of the busy connection', busy.closed);
    expect(busy.received()).toContain('"exit_code":0');
    await within('the end of the server', closed);
  });

  test('cuts what does not end within the grace', async () => {
    const gateway = await fakeGateway();
    gateway.script.current = async function* (run) {
      await new Promise((resolve) => run.signal.addEventListener('abort', resolve));
      yield* playing()(run);
    };
    const server = await startServer(gateway.app, { host: '127.0.0.1', port: 0, tls: null });
    const { response } = post(`${server.url}/workspaces/ws-1/exec`, {
      token: await gateway.token(),
      body: { cmd: ['ls'] },
    });
    const failed = expect(response).rejects.toThrow();
    await waitUntil('the exec runs', () => gateway.runs.length === 1);
    await within('the end of the server', server.close(50));
    await failed;
    await waitUntil('the exec is over', () => gateway.deps.running.size === 0);
  });
});

describe('listening', () => {
  test('rejects with the reason when the port is taken', async () => {
    const { app } = await fakeGateway();
    const { port } = await listen(app);
    await expect(startServer(app, { host: '127.0.0.1', port, tls: null })).rejects.toThrow('EADDRINUSE');
  });

  test('speaks TLS with the given certificate', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sallyport-tls-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const [keyFile, certFile] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
    const subject = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1', '-days', '1'];
    const newKey = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
    execFileSync('openssl', [...newKey, '-keyout', keyFile, '-out', certFile, ...subject], { stdio: 'ignore' });
    const [key, cert] = [readFileSync(keyFile, 'utf8'), readFileSync(certFile, 'utf8')];
    const { app } = await fakeGateway();
    const server = await startServer(app, { host: '127.0.0.1', port: 0, tls: { key, cert } });
    onTestFinished(() => server.close(0));
    expect(server.url).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/);
    const body = await within(
      'the answer',
      new Promise<string>((resolve, reject) => {
        const asked = get(`${server.url}/healthz`, { ca: cert, agent: false }, (res) => resolve(textOf(res)));
        asked.on('error', reject);
      }),
    );
    expect(body).toBe('{"ok":true}');
  });
});
