import request from 'supertest';
import { describe, expect, test } from 'vitest';
import { SallyportError } from '../../src/errors.ts';
import { createApp } from '../../src/http/server.ts';
import { createLog } from '../../src/log.ts';
import { waitUntil } from '../support/wait.ts';
import { endOf, type FakeGateway, fakeGateway, output } from './fake-gateway.ts';
import { listen, post } from './wire.ts';

const TRACE_ID = '0af7651916cd43dd8448eb211c80319c';
const TRACEPARENT = `00-${TRACE_ID}-b7ad6b7169203331-01`;

/** The log of the program itself, collected. */
async function loggingGateway(level = 'info'): Promise<FakeGateway & { text(): string }> {
  const lines: string[] = [];
  const log = createLog(level, { write: (line) => void lines.push(line) });
  const gateway = await fakeGateway({ log });
  return { ...gateway, text: () => lines.join('') };
}

describe('the request log', () => {
  test('has one line per finished request', async () => {
    const gateway = await fakeGateway();
    const token = await gateway.token({ jti: 'abcdefgh-1' });
    const response = await request(gateway.app)
      .post('/workspaces/ws-1/exec')
      .set({ authorization: `Bearer ${token}`, 'x-request-id': 'r-1', traceparent: TRACEPARENT })
      .send({ cmd: ['ls'] });
    expect(gateway.logged).toMatchObject([
      {
        msg: 'request',
        request_id: 'r-1',
        trace_id: TRACE_ID,
        method: 'POST',
        route: '/workspaces/:id/exec',
        status: 200,
        duration_ms: expect.any(Number),
        actor: 'org-token:abcdefgh',
        org: 'org-a',
        exec_id: response.headers['x-exec-id'],
        outcome: 'exited',
      },
    ]);
    expect(gateway.logged[0]).not.toHaveProperty('code');
    expect(gateway.logged[0]).not.toHaveProperty('cut_off');
  });

  test('says why a request was refused, and where a stranger came from', async () => {
    const gateway = await fakeGateway();
    await request(gateway.app).get('/activity').set('authorization', 'Bearer forged');
    await request(gateway.app).get('/nowhere');
    expect(gateway.logged).toMatchObject([
      { status: 401, code: 'unauthenticated', reason: 'not a token of ours', ip: '127.0.0.1', route: '/activity' },
      { status: 404, code: 'not_found', route: null },
    ]);
  });

  test('has the code of a terminal frame, where the status was 200', async () => {
    const gateway = await fakeGateway();
    gateway.script.current = async function* (run) {
      yield output('first');
      yield endOf(run, { outcome: 'timed_out', error: new SallyportError('exec_timeout', 'over'), exitCode: null });
    };
    await request(gateway.app)
      .post('/workspaces/ws-1/exec')
      .auth(await gateway.token(), { type: 'bearer' })
      .send({ cmd: ['ls'] });
    expect(gateway.logged).toMatchObject([{ status: 200, code: 'exec_timeout', outcome: 'timed_out' }]);
  });

  test('has a line for a caller who hung up', async () => {
    const gateway = await fakeGateway();
    gateway.script.current = async function* (run) {
      await new Promise((resolve) => run.signal.addEventListener('abort', resolve));
      yield endOf(run);
    };
    const { url } = await listen(gateway.app);
    const { request: sent } = post(`${url}/workspaces/ws-1/exec`, {
      token: await gateway.token(),
      body: { cmd: ['ls'] },
    });
    await waitUntil('the exec runs', () => gateway.runs.length === 1);
    sent.destroy();
    await waitUntil('the line', () => gateway.logged.length > 0);
    expect(gateway.logged).toMatchObject([{ status: null, cut_off: true, exec_id: gateway.runs[0]?.execId }]);
  });

  test('is quiet about probes', async () => {
    const gateway = await fakeGateway();
    for (const path of ['/healthz', '/readyz', '/metrics']) await request(gateway.app).get(path);
    expect(gateway.logged).toEqual([]);
  });

  test('never shows credentials, bodies, argv, output or made-up paths', async () => {
    const gateway = await loggingGateway('trace');
    gateway.script.current = async function* (run) {
      yield output('canary-output');
      yield endOf(run);
    };
    const { app } = gateway;
    const token = await gateway.token();
    const body = { cmd: ['canary-argv', '--password=canary-pw'], env: { A: 'canary-env' }, stdin: 'canary-stdin' };
    const headers = { cookie: 'canary-cookie', 'x-canary': 'canary-header', 'idempotency-key': 'canary-key' };
    const ask = (method: 'get' | 'post', path: string) =>
      request(app)[method](path).set(headers).auth(token, { type: 'bearer' });
    expect((await ask('post', '/workspaces/ws-1/exec').send(body)).status).toBe(200);
    await ask('post', '/workspaces/ws-1/exec').send({ ...body, canary: 1 });
    await ask('post', '/workspaces/ws-1/exec').type('json').send('{"canary-json');
    await ask('get', '/workspaces?canary-query=1');
    await ask('get', '/canary-path');
    await request(app).get('/activity').auth('canary-token', { type: 'bearer' });
    await request(app).get('/activity').auth(`${token}x`, { type: 'bearer' });
    gateway.script.current = () => {
      throw new Error('failed with Authorization: Bearer canary-error');
    };
    await ask('post', '/workspaces/ws-1/exec').send(body);
    expect(gateway.text().split('\n').length).toBeGreaterThan(8);
    expect(gateway.text()).not.toContain('canary');
    expect(gateway.text()).not.toContain(token.slice(20, 60));
  });

  test('believes a forwarded address only from a proxy that is trusted', async () => {
    for (const [trustProxy, ip] of [
      ['loopback', '192.0.2.1'],
      [null, '127.0.0.1'],
    ] as const) {
      const { app, logged } = await fakeGateway({ trustProxy });
      await request(app).get('/activity').set('x-forwarded-for', '192.0.2.1');
      expect(logged).toMatchObject([{ ip }]);
    }
  });

  test('a forwarded address cannot carry controls into the log', async () => {
    const lines: string[] = [];
    const log = createLog('info', { write: (line) => void lines.push(line) });
    const { deps } = await fakeGateway();
    const app = createApp({ ...deps, log, trustProxy: true });
    await request(app).get('/activity').set('x-forwarded-for', Buffer.from('\u009b31mred').toString('latin1'));
    expect(lines.join('').trimEnd()).toMatch(/^[^\p{Cc}]*$/u);
    expect(lines).toHaveLength(1);
  });
});
