import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { createServer } from 'node:net';
import fc from 'fast-check';
import { afterEach, expect, it } from 'vitest';
import { type Client, createClient } from '../../src/client/client.ts';
import { NoAnswerError, ProblemError, UnfinishedStreamError } from '../../src/client/problem.ts';
import { frameBytes, type WireFrame } from '../../src/client/wire.ts';
import {
  type Answer,
  beginFrames,
  EXEC_ID,
  errorFrame,
  exitFrame,
  outputFrame,
  sendFrames,
  sendJson,
  sendProblem,
  startWireServer,
  type WireServer,
} from './wire-server.ts';

const BODY = { cmd: ['true'] };
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function serve(answer: Answer): Promise<{ server: WireServer; client: Client }> {
  const server = await startWireServer(answer);
  cleanups.push(() => server.close());
  return { server, client: createClient({ url: server.url, token: 'secret' }) };
}

/** What came before the end, and the error that ended it, if any. */
async function readAll(frames: AsyncIterable<WireFrame>): Promise<{ frames: WireFrame[]; error: unknown }> {
  const seen: WireFrame[] = [];
  try {
    for await (const frame of frames) seen.push(frame);
    return { frames: seen, error: null };
  } catch (error) {
    return { frames: seen, error };
  }
}

async function framesOf(body: string): Promise<{ frames: WireFrame[]; error: unknown }> {
  const { client } = await serve((response) => {
    beginFrames(response);
    response.end(body);
  });
  const { frames } = await client.exec('ws-1', BODY);
  return await readAll(frames);
}

it('frames arrive as they were sent, wherever the chunks are cut', async () => {
  const sent = [outputFrame('stdout', 'grüße 👋\n'), outputFrame('stderr', '\u0000\n'), exitFrame({ exit_code: 3 })];
  const bytes = Buffer.from(sent.map((frame) => `${JSON.stringify(frame)}\n`).join(''));
  let cuts: number[] = [];
  const { client } = await serve((response) => {
    beginFrames(response);
    const edges = [0, ...cuts, bytes.length];
    for (const [index, edge] of edges.slice(1).entries()) response.write(bytes.subarray(edges[index], edge));
    response.end();
  });
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(fc.integer({ min: 1, max: bytes.length - 1 }), { maxLength: 40 }),
      async (places) => {
        cuts = places.toSorted((a, b) => a - b);
        const { frames } = await client.exec('ws-1', BODY);
        expect(await readAll(frames)).toEqual({ frames: sent, error: null });
      },
    ),
    { numRuns: 30 },
  );
});

it('an exec tells its ids and status before its frames', async () => {
  const { client, server } = await serve((response) => sendFrames(response, [exitFrame()]));
  const run = await client.exec('ws-1', { cmd: ['ls', '-l'], timeout_s: 5 }, { idempotencyKey: 'once' });
  expect(run).toMatchObject({ execId: EXEC_ID, requestId: 'request-1', status: 200 });
  expect(server.asked[0]).toMatchObject({ method: 'POST', path: '/workspaces/ws-1/exec' });
  expect(server.asked[0]?.headers).toMatchObject({
    accept: 'application/x-ndjson',
    authorization: 'Bearer secret',
    'content-type': 'application/json',
    'idempotency-key': 'once',
  });
  expect(JSON.parse(server.asked[0]?.body ?? '')).toEqual({ cmd: ['ls', '-l'], timeout_s: 5 });
  await readAll(run.frames);
});

it('every byte value survives, as text and as base64, in both directions', async () => {
  const all = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  const { client, server } = await serve((response) =>
    sendFrames(response, [
      outputFrame('stdout', all.toString('base64'), { encoding: 'base64' }),
      outputFrame('stdout', 'é\n'),
      exitFrame(),
    ]),
  );
  const binary = await readAll((await client.exec('ws-1', BODY, { stdin: all })).frames);
  expect(Buffer.concat(binary.frames.map(frameBytes))).toEqual(Buffer.concat([all, Buffer.from('é\n')]));
  await readAll((await client.exec('ws-1', BODY, { stdin: Buffer.from('é\u0000') })).frames);
  expect(JSON.parse(server.asked[0]?.body ?? '').stdin).toEqual({ base64: all.toString('base64') });
  expect(JSON.parse(server.asked[1]?.body ?? '').stdin).toBe('é\u0000');
});

it('a truncation marker is no output', () => {
  const marker = { stream: 'stdout', data: '\n[output truncated at 3 bytes]', truncated: true } as const;
  expect(frameBytes(marker)).toHaveLength(0);
});

it('blank lines are ignored', async () => {
  const { frames, error } = await framesOf(
    `\n\r\n${JSON.stringify(outputFrame('stdout', 'a'))}\n\n\n${JSON.stringify(exitFrame())}\n`,
  );
  expect(error).toBeNull();
  expect(frames).toHaveLength(2);
});

it('an error frame is terminal', async () => {
  const { frames, error } = await framesOf(`${JSON.stringify(errorFrame())}\n`);
  expect(error).toBeNull();
  expect(frames).toEqual([errorFrame()]);
});

it.each([
  ['ends without a terminal frame', '', /without a terminal frame/],
  ['ends inside a line', '{"stream":"stdo', /without a terminal frame/],
  ['holds a line that is not JSON', 'oops\n', /a line cannot be read: .*oops/],
  ['holds null', 'null\n', /without a terminal frame/],
  ['holds a frame of an unknown kind', '{"weather":"fine"}\n', /is not a frame: \{"weather":"fine"\}/],
  ['holds output of an unknown stream', '{"stream":"video","data":"x","truncated":false}\n', /is not a frame/],
  ['holds an endless line', `{"stream":"stdout","data":"${'x'.repeat(2_000_000)}`, /a line cannot be read: maximum/],
])('a stream that %s is unfinished, and what came before is kept', async (_, rest, reason) => {
  const { frames, error } = await framesOf(`${JSON.stringify(outputFrame('stdout', 'kept'))}\n${rest}`);
  expect(error).toBeInstanceOf(UnfinishedStreamError);
  expect((error as UnfinishedStreamError).execId).toBe(EXEC_ID);
  expect((error as Error).message).toMatch(reason);
  expect((error as Error).message).toContain(EXEC_ID);
  expect(frames).toEqual([outputFrame('stdout', 'kept')]);
});

it('a connection that breaks leaves an unfinished exec, and what came before is kept', async () => {
  const { client } = await serve((response) => {
    beginFrames(response);
    response.write(`${JSON.stringify(outputFrame('stdout', 'kept'))}\n{"stream"`, () => response.destroy());
  });
  const { frames, error } = await readAll((await client.exec('ws-1', BODY)).frames);
  expect(error).toBeInstanceOf(UnfinishedStreamError);
  expect((error as Error).message).toMatch(/the connection broke/);
  expect(frames).toEqual([outputFrame('stdout', 'kept')]);
});

it('a connection that broke before anybody read is unfinished too', async () => {
  const { client } = await serve((response) => {
    beginFrames(response);
    response.write('\n', () => response.destroy());
  });
  const { frames } = await client.exec('ws-1', BODY);
  // A second exec takes longer than the break of the first, which nobody watches meanwhile.
  await client.exec('ws-1', BODY);
  expect((await readAll(frames)).error).toBeInstanceOf(UnfinishedStreamError);
});

it('nothing is read after the terminal frame', async () => {
  const { frames, error } = await framesOf(
    `${JSON.stringify(exitFrame())}\n${JSON.stringify(outputFrame('stdout', 'late'))}\n`,
  );
  expect(error).toBeNull();
  expect(frames).toEqual([exitFrame()]);
});

it('a connection that stays open after the terminal frame holds nobody up', async () => {
  const { client } = await serve((response) => {
    beginFrames(response);
    response.write(`${JSON.stringify(exitFrame())}\n`);
  });
  expect((await readAll((await client.exec('ws-1', BODY)).frames)).frames).toEqual([exitFrame()]);
});

it('a reader that does not read slows the gateway', async () => {
  const line = `${JSON.stringify(outputFrame('stdout', 'x'.repeat(48 * 1024)))}\n`;
  const total = 2_000;
  let written = 0;
  let stalled = () => {};
  const stall = new Promise<void>((resolve) => {
    stalled = resolve;
  });
  const { client } = await serve((response) => {
    beginFrames(response);
    const more = () => {
      while (written < total) {
        written += 1;
        if (!response.write(line)) {
          // Nobody is waiting for a drain any more once the socket takes nothing for this long.
          const timer = setTimeout(stalled, 300);
          response.once('drain', () => {
            clearTimeout(timer);
            more();
          });
          return;
        }
      }
      response.end(`${JSON.stringify(exitFrame())}\n`);
    };
    more();
  });
  const { frames } = await client.exec('ws-1', BODY);
  const iterator = frames[Symbol.asyncIterator]();
  await iterator.next();
  await stall;
  expect(written).toBeLessThan(total / 2);
  let count = 1;
  for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) count += 1;
  expect(count).toBe(total + 1);
});

it('leaving the loop early hangs up', async () => {
  let hungUp = () => {};
  const closed = new Promise<void>((resolve) => {
    hungUp = resolve;
  });
  const { client } = await serve((response) => {
    response.on('close', hungUp);
    beginFrames(response);
    response.write(`${JSON.stringify(outputFrame('stdout', 'a'))}\n`);
  });
  for await (const _ of (await client.exec('ws-1', BODY)).frames) break;
  await closed;
});

it('aborting hangs up and throws the reason, before and after the answer begins', async () => {
  let hungUp = 0;
  let answers = true;
  const { client, server } = await serve((response) => {
    response.on('close', () => {
      hungUp += 1;
    });
    if (!answers) return;
    beginFrames(response);
    response.write(`${JSON.stringify(outputFrame('stdout', 'a'))}\n`);
  });
  const reading = new AbortController();
  const { frames } = await client.exec('ws-1', BODY, { signal: reading.signal });
  const read = readAll(frames);
  reading.abort(new Error('enough'));
  expect((await read).error).toMatchObject({ message: 'enough' });

  answers = false;
  const waiting = new AbortController();
  const exec = client.exec('ws-1', BODY, { signal: waiting.signal });
  await server.seen(() => server.asked.length === 2);
  waiting.abort(new Error('too slow'));
  await expect(exec).rejects.toThrow('too slow');
  await expect.poll(() => hungUp).toBe(2);
});

it('a problem is thrown with its status, code and exec id', async () => {
  const members = { code: 'host_unreachable', detail: 'no route', failed_step: 'tunnel', exec_id: EXEC_ID };
  const { client } = await serve((response) => sendProblem(response, 502, members));
  const error = await client.exec('ws-1', BODY).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(ProblemError);
  expect(error).toMatchObject({ status: 502, code: 'host_unreachable', message: 'no route', execId: EXEC_ID });
  expect((error as ProblemError).problem.failed_step).toBe('tunnel');
});

it.each([
  [200, 'text/html', '<html>log in</html>'],
  [502, 'text/html', '<html>Bad Gateway</html>'],
  [503, 'application/json', '"sorry"'],
])('an answer %i of %s is not taken for the gateway', async (status, type, text) => {
  const { client } = await serve((response) => {
    response.writeHead(status, { 'content-type': type });
    response.end(text);
  });
  const error = await client.exec('ws-1', BODY).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ name: 'ProblemError', status, code: null });
  expect((error as Error).message).toContain('not a Sallyport gateway');
});

it('a redirect is not followed: the token stays here', async () => {
  const { server: other } = await serve((response) => sendJson(response, {}));
  const { client } = await serve((response) => {
    response.writeHead(307, { location: `${other.url}/workspaces/ws-1/exec` });
    response.end();
  });
  await expect(client.exec('ws-1', BODY)).rejects.toThrow(/redirecting to .*not followed/);
  expect(other.asked).toHaveLength(0);
});

it('nobody listening means that nothing was sent', async () => {
  const closed = createServer().listen(0, '127.0.0.1');
  await once(closed, 'listening');
  const { port } = closed.address() as { port: number };
  closed.close();
  await once(closed, 'close');
  const client = createClient({ url: `http://127.0.0.1:${port}`, token: 'secret' });
  const error = await client.exec('ws-1', BODY).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(NoAnswerError);
  expect(error).toMatchObject({ wasSent: false });
});

it('a gateway that goes away without an answer may have run the program', async () => {
  const { client, server } = await serve((response) => response.destroy());
  const error = await client.exec('ws-1', BODY).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(NoAnswerError);
  expect(error).toMatchObject({ wasSent: true });
  expect(server.asked).toHaveLength(1);
});

it('a kept connection is used again after a finished exec', async () => {
  const { server } = await serve((response) => {
    beginFrames(response);
    // The end of the body comes after the reader has left.
    response.write(`${JSON.stringify(exitFrame())}\n`, () => setTimeout(() => response.end(), 20));
  });
  const client = createClient({ url: server.url, token: 'secret', keepAlive: true });
  cleanups.push(() => client.close());
  const newConnections = async () => {
    const before = server.connections();
    await readAll((await client.exec('ws-1', BODY)).frames);
    return server.connections() - before;
  };
  expect(await newConnections()).toBe(1);
  await expect.poll(newConnections).toBe(0);
});

it('an answer that comes while the request is still being sent is the answer', async () => {
  const server = createHttpServer((request, response) => {
    sendProblem(response, 413, { code: 'too_large', detail: 'too much' });
    request.resume();
  }).listen(0, '127.0.0.1');
  cleanups.push(() => server.close());
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  const client = createClient({ url: `http://127.0.0.1:${port}`, token: 'secret' });
  const exec = client.exec('ws-1', BODY, { stdin: Buffer.alloc(8 * 1024 * 1024) });
  await expect(exec).rejects.toMatchObject({ status: 413, code: 'too_large' });
});

it('the whole run as one document', async () => {
  const document = { exec_id: EXEC_ID, exit_code: 4, stdout: 'a', stderr: '', complete: true };
  const { client, server } = await serve((response) => sendJson(response, document));
  expect(await client.execJson('ws-1', BODY)).toEqual(document);
  expect(server.asked[0]?.headers.accept).toBe('application/json');
});
