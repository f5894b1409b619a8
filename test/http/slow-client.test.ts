import { connect, type Socket } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import { startServer } from '../../src/http/server.ts';
import { FAREWELL_MAX_MS } from '../../src/limits.ts';
import { selfSigned } from '../client/self-signed.ts';
import { waitUntil, within } from '../support/wait.ts';
import { type FakeGateway, fakeGateway, output, playing } from './fake-gateway.ts';
import { listen, rawSocket } from './wire.ts';

type Slow = Parameters<typeof startServer>[1]['slow'];

async function serving(slow: Slow): Promise<{ gateway: FakeGateway; url: string; port: number }> {
  const gateway = await fakeGateway();
  const server = await startServer(gateway.app, { host: '127.0.0.1', port: 0, tls: null, slow });
  onTestFinished(() => server.close(0));
  return { gateway, url: server.url, port: Number(new URL(server.url).port) };
}

/** Writes one byte again and again until it is cut off. */
function drip(socket: Socket, everyMs = 20): void {
  const timer = setInterval(() => socket.write('x'), everyMs);
  socket.once('close', () => clearInterval(timer));
}

describe('a client is cut off that', () => {
  test('is slow with its headers, however steadily they drip', async () => {
    const { port } = await serving({ headersMs: 200 });
    const { socket, received, closed } = rawSocket(port);
    socket.write('GET /healthz HTTP/1.1\r\nX-Slow: ');
    drip(socket);
    const fromMs = performance.now();
    await within('the end', closed);
    expect(performance.now() - fromMs).toBeGreaterThan(150);
    expect(received()).toMatch(/^HTTP\/1\.1 408 /);
  });

  test('says nothing at all', async () => {
    const { port } = await serving({ headersMs: 200 });
    await within('the end', rawSocket(port).closed);
  });

  test('does not finish its TLS handshake', async () => {
    const { app } = await fakeGateway();
    const { cert, key } = selfSigned();
    const settings = { host: '127.0.0.1', port: 0, tls: { cert, key }, slow: { headersMs: 200 } };
    const server = await startServer(app, settings);
    onTestFinished(() => server.close(0));
    await within('the end', rawSocket(Number(new URL(server.url).port)).closed, FAREWELL_MAX_MS / 2);
  });

  test('is slow with its body', async () => {
    const { gateway, port } = await serving({ headersMs: 200, requestMs: 400 });
    const { socket, closed } = rawSocket(port);
    const head = `Host: x\r\nAuthorization: Bearer ${await gateway.token()}\r\nContent-Type: application/json`;
    socket.write(`POST /workspaces/ws-1/exec HTTP/1.1\r\n${head}\r\nContent-Length: 1000\r\n\r\n{"cmd":`);
    drip(socket);
    await within('the end', closed);
    expect(gateway.runs).toEqual([]);
  });

  test('never closes its own side after it was refused', async () => {
    const { port } = await serving({});
    const open = () => process.getActiveResourcesInfo().filter((kind) => kind === 'TCPSocketWrap').length;
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    onTestFinished(() => void socket.destroy());
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk.toString();
    });
    socket.on('error', () => {}); // the reset is what is waited for
    socket.write('GARBAGE\r\n\r\n');
    await waitUntil('the answer', () => text.includes('invalid_request'));
    // This side and the gateway's; what is left in the end is ours.
    const both = open();
    await waitUntil('the end', () => open() < both, FAREWELL_MAX_MS + 2_000);
    expect(socket.destroyed).toBe(false);
  });

  test('reads nothing of an answer that is complete', async () => {
    const gateway = await fakeGateway({}, { answerStallMs: 300 });
    const { port } = await listen(gateway.app);
    gateway.script.current = playing(output('x'.repeat(12 * 1024 * 1024)));
    const { socket } = rawSocket(port);
    socket.pause();
    socket.write(await execRequest(gateway, 'Accept: application/json\r\n'));
    await waitUntil('the end of the request', () => gateway.logged.length > 0);
    expect(gateway.logged).toMatchObject([{ status: 200, cut_off: true }]);
  });
});

test('a slow reader of a complete answer who goes on reading gets all of it', async () => {
  const stallMs = 700;
  const gateway = await fakeGateway({}, { answerStallMs: stallMs });
  const { port } = await listen(gateway.app);
  const size = 32 * 1024 * 1024;
  gateway.script.current = playing(output('x'.repeat(size)));
  const { socket } = rawSocket(port);
  let read = 0;
  socket.on('data', (chunk) => {
    read += chunk.length;
    socket.pause();
  });
  // 64 KiB each time: the whole takes several times as long as standing still may.
  const pull = setInterval(() => socket.resume(), 2);
  onTestFinished(() => clearInterval(pull));
  const fromMs = performance.now();
  socket.write(await execRequest(gateway, 'Accept: application/json\r\n'));
  await waitUntil('the whole answer', () => read > size || gateway.logged.length > 0, 15_000);
  await waitUntil('the rest', () => read > size, 15_000);
  expect(performance.now() - fromMs).toBeGreaterThan(2 * stallMs);
  expect(gateway.logged[0]).not.toHaveProperty('cut_off');
});

test('a request after a stalled one on the same connection has time again', async () => {
  const gateway = await fakeGateway({}, { answerStallMs: 100 });
  const { port } = await listen(gateway.app);
  let finish = () => {};
  gateway.script.current = async function* (run) {
    await new Promise<void>((resolve) => {
      finish = resolve;
    });
    yield* playing(output('late'))(run);
  };
  const { socket, received } = rawSocket(port);
  socket.write('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n');
  await waitUntil('the first answer', () => received().includes('{"ok":true}'));
  socket.write(await execRequest(gateway));
  await waitUntil('the exec runs', () => gateway.runs.length === 1);
  const untilMs = performance.now() + 300;
  await waitUntil('longer than an answer may stall', () => performance.now() > untilMs);
  finish();
  await waitUntil('the output', () => received().includes('late'));
});

test('more connections than the gateway takes are closed as they come, and the others go on', async () => {
  const { app } = await fakeGateway();
  let told = 0;
  const onFull = () => {
    told += 1;
  };
  const server = await startServer(app, { host: '127.0.0.1', port: 0, tls: null, onFull, slow: { connections: 2 } });
  onTestFinished(() => server.close(0));
  const port = Number(new URL(server.url).port);
  const ask = (socket: Socket) => socket.write('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n');
  const [one, other] = [rawSocket(port), rawSocket(port)];
  for (const { socket, received } of [one, other]) {
    ask(socket);
    await waitUntil('an answer', () => received().includes('{"ok":true}'));
  }
  await within('the refusal', rawSocket(port).closed);
  expect(told).toBe(1);
  ask(one.socket);
  await waitUntil('a second answer', () => one.received().match(/"ok":true/g)?.length === 2);
  other.socket.end();
  await within('the place is free', other.closed);
  const next = rawSocket(port);
  ask(next.socket);
  await waitUntil('an answer', () => next.received().includes('{"ok":true}'));
});

async function execRequest(gateway: FakeGateway, headers = ''): Promise<string> {
  const body = '{"cmd":["ls"]}';
  const head = `Host: x\r\n${headers}Authorization: Bearer ${await gateway.token()}\r\nContent-Type: application/json`;
  return `POST /workspaces/ws-1/exec HTTP/1.1\r\n${head}\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
}
