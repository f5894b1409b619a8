import request from 'supertest';
import { describe, expect, test } from 'vitest';
import { BODY_MAX_BYTES } from '../../src/limits.ts';
import { waitUntil, within } from '../support/wait.ts';
import { type FakeGateway, fakeGateway } from './fake-gateway.ts';
import { listen, rawSocket } from './wire.ts';

const PATH = '/workspaces/ws-1/exec';

async function send(gateway: FakeGateway, body: string | Buffer, headers: Record<string, string> = {}) {
  const asked = request(gateway.app)
    .post(PATH)
    .auth(await gateway.token(), { type: 'bearer' })
    .set({ 'content-type': 'application/json', ...headers });
  return await asked.serialize((value: unknown) => value as string).send(body);
}

function head(token: string, more: string): string {
  return `POST ${PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nContent-Type: application/json\r\n${more}\r\n\r\n`;
}

describe('the content type', () => {
  test.each([
    'text/plain',
    'application/x-www-form-urlencoded',
    'application/json; charset=latin1',
    'application/jsonx',
    '',
  ])('%j is 415', async (type) => {
    const response = await send(await fakeGateway(), '{"cmd":["ls"]}', { 'content-type': type });
    expect(response.body).toMatchObject({ status: 415, code: 'unsupported_media_type' });
  });

  test.each(['application/json', 'Application/JSON; charset=UTF-8', 'application/json;charset="utf-8"'])(
    '%j is read',
    async (type) => {
      expect((await send(await fakeGateway(), '{"cmd":["ls"]}', { 'content-type': type })).status).toBe(200);
    },
  );

  test('a compressed body is 415', async () => {
    const response = await send(await fakeGateway(), '{"cmd":["ls"]}', { 'content-encoding': 'gzip' });
    expect(response.body).toMatchObject({ status: 415, detail: expect.stringContaining('Content-Encoding') });
  });
});

describe('a body that is not JSON', () => {
  test.each([
    ['', 'the body must be a JSON object, got nothing'],
    [' \n', 'the body must be a JSON object, got nothing'],
    ['{"cmd":["ls"],}', 'the body is not valid JSON at line 1, column 15'],
    ['{\n  "cmd": [ls]\n}', 'the body is not valid JSON at line 2, column 11'],
    ['{"cmd":["ls"]', 'the body is not valid JSON at line 1, column 14'],
    ['{"cmd":["ls"],"__proto__":{"timeout_s":1}}', 'the key __proto__ is not accepted in a body'],
    ['{"cmd":["ls"],"env":{"__pro\\u0074o__":"x"}}', 'the key __proto__ is not accepted in a body'],
  ])('%j is 400 and says where', async (body, detail) => {
    const response = await send(await fakeGateway(), body);
    expect(response.body).toMatchObject({ status: 400, code: 'invalid_request', detail });
  });

  test.each([
    [Buffer.concat([Buffer.from('{"cmd":["caf'), Buffer.from([0xe9]), Buffer.from('"]}')]), 12],
    [Buffer.concat([Buffer.from('{"cmd":["\ufffd'), Buffer.from([0xed, 0xa0, 0x80]), Buffer.from('"]}')]), 12],
    [Buffer.from([0xff]), 0],
    [Buffer.concat([Buffer.from('{"cmd":["é'), Buffer.from([0xf0, 0x9f])]), 11],
  ])('bytes that are not UTF-8 are 400 and say where (%#)', async (body, at) => {
    const response = await send(await fakeGateway(), body);
    expect(response.body).toMatchObject({ status: 400, detail: `the body is not valid UTF-8 at byte ${at}` });
  });

  test('is not quoted in the answer nor in the refused row', async () => {
    const gateway = await fakeGateway();
    const response = await send(gateway, '{"cmd":["ls"],"env":{"PASSWORD": canary}}');
    expect(response.status).toBe(400);
    expect(JSON.stringify([response.body, gateway.refused, gateway.logged])).not.toContain('canary');
  });
});

test('a character split over two chunks reaches the program whole', async () => {
  const gateway = await fakeGateway();
  const { port } = await listen(gateway.app);
  const { socket, received } = rawSocket(port);
  const body = Buffer.from('{"cmd":["echo","日本😀"]}');
  const chunked = (bytes: Buffer) =>
    Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')]);
  socket.write(head(await gateway.token(), 'Transfer-Encoding: chunked\r\nConnection: close'));
  for (const byte of body) socket.write(chunked(Buffer.from([byte])));
  socket.write('0\r\n\r\n');
  await waitUntil('the answer', () => received().includes('"exit_code"'));
  expect(gateway.runs[0]?.command.argv).toEqual(['echo', '日本😀']);
});

describe('a body over the limit', () => {
  test('is 413 at once when it says its size', async () => {
    const gateway = await fakeGateway();
    const { port } = await listen(gateway.app);
    const { socket, received, closed } = rawSocket(port);
    socket.write(head(await gateway.token(), `Content-Length: ${BODY_MAX_BYTES + 1}`));
    await waitUntil('the answer', () => received().includes('too_large'));
    expect(received()).toMatch(/^HTTP\/1\.1 413 /);
    expect(received()).toMatch(/\r\nConnection: close\r\n/i);
    // The rest never comes: the wait for it has an end.
    await within('the end of the connection', closed, 4_000);
  });

  test('is an answer that a client can read that sends everything first', async () => {
    const gateway = await fakeGateway();
    const { port } = await listen(gateway.app);
    const { socket, received } = rawSocket(port);
    const size = 6 * 1024 * 1024;
    socket.pause();
    socket.write(head(await gateway.token(), `Content-Length: ${size}`));
    await within('everything is sent', new Promise((resolve) => socket.write(Buffer.alloc(size, 'x'), resolve)));
    socket.resume();
    await waitUntil('the answer', () => received().includes('too_large'));
    expect(received()).toMatch(/^HTTP\/1\.1 413 /);
    expect(gateway.runs).toEqual([]);
  });

  test('in chunks is cut off when it does not end', async () => {
    const gateway = await fakeGateway();
    const { port } = await listen(gateway.app);
    const { socket, received, closed } = rawSocket(port);
    socket.write(head(await gateway.token(), 'Transfer-Encoding: chunked'));
    const block = Buffer.concat([Buffer.from('100000\r\n'), Buffer.alloc(0x100000, 'x'), Buffer.from('\r\n')]);
    let sent = 0;
    const pour = () => {
      while (!socket.destroyed && sent < 200) {
        sent += 1;
        if (!socket.write(block)) return;
      }
    };
    socket.on('drain', pour);
    pour();
    await within('the end of the connection', closed, 10_000);
    expect(received()).toContain('too_large');
    // 2 MiB of the limit, 8 MiB that are drained, and what the sockets on both sides hold.
    expect(sent).toBeLessThan(40);
  });

  test('of exactly the limit is read', async () => {
    const body = `{"cmd":["ls"],"stdin":"","x":"${'x'.repeat(BODY_MAX_BYTES)}`.slice(0, BODY_MAX_BYTES - 2);
    const response = await send(await fakeGateway(), `${body}"}`);
    expect(response.body).toMatchObject({ status: 400, detail: expect.stringContaining('unknown field "x"') });
  });
});

test('a connection is used again after a refusal whose body had arrived', async () => {
  const gateway = await fakeGateway();
  const { port } = await listen(gateway.app);
  const { socket, received } = rawSocket(port);
  const token = await gateway.token({ scopes: ['workspaces:read'] });
  const body = '{"cmd":["ls"]}';
  socket.write(`${head(token, `Content-Length: ${body.length}`)}${body}`);
  await waitUntil('the refusal', () => received().includes('scope_missing'));
  expect(received()).not.toMatch(/Connection: close/i);
  socket.write('GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  await waitUntil('the second answer', () => received().includes('{"ok":true}'));
});

test('a caller who breaks off in the middle of the body starts nothing', async () => {
  const gateway = await fakeGateway();
  const { port } = await listen(gateway.app);
  const { socket } = rawSocket(port);
  socket.write(`${head(await gateway.token(), 'Content-Length: 100')}{"cmd":["ls"]`);
  await waitUntil('the gates before', () => gateway.trace.includes('standing'));
  socket.destroy();
  await waitUntil('the refused row', () => gateway.refused.length === 1);
  expect(gateway.runs).toEqual([]);
});
