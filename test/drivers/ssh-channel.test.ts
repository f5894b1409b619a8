import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { type AddressInfo, connect } from 'node:net';
import { Client, Server, type ServerChannel } from 'ssh2';
import { afterEach, describe, expect, it } from 'vitest';
import { ChannelRefused } from '../../src/drivers/channel.ts';
import { openChannel, type SshChannel } from '../../src/drivers/ssh-channel.ts';
import { OUTPUT_BUFFER_MAX_BYTES } from '../../src/limits.ts';
import { deferred } from '../../src/sessions/deferred.ts';
import { newKeyPair } from '../support/ssh-keys.ts';
import { waitUntil } from '../support/wait.ts';

interface Request {
  command: string;
  channel: ServerChannel;
}

let cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups) cleanup();
  cleanups = [];
});

/** A server that hands every exec request to the test, and a client that is logged in. */
async function setup({ refuse = false } = {}) {
  const requests: Request[] = [];
  const server = new Server({ hostKeys: [newKeyPair().privateKey] }, (connection) => {
    connection.on('error', () => undefined);
    connection.on('authentication', (context) => context.accept());
    connection.on('session', (accept, reject) => {
      if (refuse) {
        reject();
        return;
      }
      accept().on('exec', (acceptExec, _rejectExec, { command }) => requests.push({ command, channel: acceptExec() }));
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve());
  });
  const { port } = server.address() as AddressInfo;
  const sock = connect({ port, host: '127.0.0.1', noDelay: true });
  const client = new Client();
  const ready = new Promise<void>((resolve) => {
    client.once('ready', () => resolve());
  });
  client.on('error', () => undefined);
  client.connect({ sock, username: 'u', password: 'p' });
  await ready;
  cleanups.push(() => {
    client.destroy();
    server.close();
  });
  return { client, requests };
}

/** Collects what a channel says. */
function listen(channel: SshChannel, command: string, input: Buffer[]) {
  const seen = { stdout: 0, stderr: 0, eof: 0, exits: [] as unknown[], closed: deferred<boolean>() };
  channel.exec(Buffer.from(command), input, {
    data: (stream, bytes) => {
      seen[stream] += bytes.length;
    },
    eof: () => {
      seen.eof += 1;
    },
    exit: (end) => seen.exits.push(end),
    closed: (refused) => seen.closed.resolve(refused),
  });
  return seen;
}

const open = (client: Client): Promise<SshChannel> => openChannel(client, new AbortController().signal);
const requestOf = async (requests: Request[]): Promise<Request> => {
  await waitUntil('a request came', () => requests.length > 0);
  const [request] = requests;
  if (request === undefined) throw new Error('no request came');
  return request;
};

describe('ssh channel', () => {
  it('is written for one version of ssh2, which is the one installed', () => {
    const installed = createRequire(import.meta.url)('ssh2/package.json') as { version: string };
    const ours = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
    expect(ours.dependencies.ssh2).toBe('1.17.0');
    expect(installed.version).toBe('1.17.0');
  });

  it('small input travels with the request, before any reply', async () => {
    const { client, requests } = await setup();
    const seen = listen(await open(client), 'cmd', [Buffer.from('line\n'), Buffer.from('rest')]);
    const { command, channel } = await requestOf(requests);
    let input = '';
    channel.stdin.on('data', (chunk: Buffer) => {
      input += chunk;
    });
    await new Promise((resolve) => channel.stdin.once('end', resolve));
    expect({ command, input }).toEqual({ command: 'cmd', input: 'line\nrest' });
    channel.exit(3);
    channel.end();
    expect(await seen.closed.promise).toBe(false);
    expect(seen).toMatchObject({ eof: 1, exits: [{ kind: 'exited', code: 3 }] });
  });

  it('large input follows whole', async () => {
    const { client, requests } = await setup();
    const size = 3 * 1024 * 1024;
    listen(await open(client), 'cmd', [Buffer.alloc(size, 'x')]);
    const { channel } = await requestOf(requests);
    let bytes = 0;
    for await (const chunk of channel.stdin) bytes += chunk.length;
    expect(bytes).toBe(size);
  });

  it('a signal is told by its name without SIG', async () => {
    const { client, requests } = await setup();
    const seen = listen(await open(client), 'cmd', []);
    const { channel } = await requestOf(requests);
    channel.exit('TERM');
    channel.end();
    await seen.closed.promise;
    expect(seen.exits).toEqual([{ kind: 'signaled', signal: 'TERM' }]);
  });

  it('unread output stops at the window, also while stderr trickles', async () => {
    const { client, requests } = await setup();
    const seen = listen(await open(client), 'cmd', []);
    const { channel } = await requestOf(requests);
    channel.write(Buffer.alloc(8 * OUTPUT_BUFFER_MAX_BYTES));
    await waitUntil('the window is full', () => seen.stdout + seen.stderr >= OUTPUT_BUFFER_MAX_BYTES);
    for (let n = 0; n < 200; n += 1) channel.stderr.write('trickle\n');
    // A round trip on the connection: whatever the server could send by now has arrived.
    await open(client);
    expect(seen.stdout + seen.stderr).toBe(OUTPUT_BUFFER_MAX_BYTES);
  });

  it('granted bytes are sent again, so nothing is lost', async () => {
    const { client, requests } = await setup();
    const channel = await open(client);
    const size = 5 * OUTPUT_BUFFER_MAX_BYTES;
    let bytes = 0;
    const closed = deferred();
    channel.exec(Buffer.from('cmd'), [], {
      data: (_stream, chunk) => {
        bytes += chunk.length;
        channel.grant(chunk.length);
      },
      eof: () => undefined,
      exit: () => undefined,
      closed: () => closed.resolve(),
    });
    const request = await requestOf(requests);
    request.channel.end(Buffer.alloc(size));
    await closed.promise;
    expect(bytes).toBe(size);
  });

  it('a dead connection closes the channel without an exit', async () => {
    const { client, requests } = await setup();
    const seen = listen(await open(client), 'cmd', []);
    await requestOf(requests);
    client.destroy();
    expect(await seen.closed.promise).toBe(false);
    expect(seen.exits).toEqual([]);
  });

  it('a refused channel is told from a dead connection', async () => {
    const { client } = await setup({ refuse: true });
    await expect(open(client)).rejects.toBeInstanceOf(ChannelRefused);
  });

  it('runs one command', async () => {
    const { client } = await setup();
    const channel = await open(client);
    listen(channel, 'one', []);
    expect(() => listen(channel, 'two', [])).toThrow('bug: a channel runs one command');
  });

  it('an aborted opening rejects with the reason', async () => {
    const { client } = await setup();
    const abort = new AbortController();
    const opening = openChannel(client, abort.signal);
    abort.abort(new Error('changed my mind'));
    await expect(opening).rejects.toThrow('changed my mind');
  });
});
