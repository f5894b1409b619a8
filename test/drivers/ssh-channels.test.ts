/** Channels opened ahead, against an SSH server that counts what is opened on it. */
import { type AddressInfo, connect } from 'node:net';
import { Client, Server } from 'ssh2';
import { afterEach, expect, it } from 'vitest';
import type { SshChannel } from '../../src/drivers/ssh-channel.ts';
import { createSshChannels } from '../../src/drivers/ssh-channels.ts';
import { EXECS_PER_SESSION } from '../../src/limits.ts';
import { deferred } from '../../src/sessions/deferred.ts';
import { newKeyPair } from '../support/ssh-keys.ts';
import { waitUntil } from '../support/wait.ts';

let cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups) cleanup();
  cleanups = [];
});

interface Host {
  /** Sessions that were asked for, also those refused. */
  asked: number;
  /** Open now. */
  open: Set<object>;
  /** Takes no more than these at once. */
  most: number;
  closeIdle(): void;
}

/** The library's server cannot close a session that runs nothing, as sshd does to idle ones. */
function closeFromHost(connection: object, session: object): void {
  const { _protocol: protocol } = connection as { _protocol: { channelClose(id: number): void } };
  const { _chanInfo: channel } = session as { _chanInfo: { outgoing: { id: number } } };
  protocol.channelClose(channel.outgoing.id);
}

async function setup({ ahead = true, most = Number.POSITIVE_INFINITY } = {}) {
  const host: Host = { asked: 0, open: new Set(), most, closeIdle: () => {} };
  const server = new Server({ hostKeys: [newKeyPair().privateKey] }, (connection) => {
    connection.on('error', () => undefined);
    connection.on('authentication', (context) => context.accept());
    connection.on('session', (accept, reject) => {
      host.asked += 1;
      if (host.open.size >= host.most) {
        reject();
        return;
      }
      const session = accept();
      host.open.add(session);
      session.on('close', () => host.open.delete(session));
      host.closeIdle = () => closeFromHost(connection, session);
      session.on('exec', (acceptExec) => {
        const channel = acceptExec();
        channel.stdin.resume();
        channel.stdin.on('end', () => {
          channel.exit(0);
          channel.end();
        });
      });
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve());
  });
  const { port } = server.address() as AddressInfo;
  const client = new Client();
  const ready = new Promise<void>((resolve) => {
    client.once('ready', () => resolve());
  });
  client.on('error', () => undefined);
  client.connect({ sock: connect({ port, host: '127.0.0.1', noDelay: true }), username: 'u', password: 'p' });
  await ready;
  const channels = createSshChannels(client, { ahead });
  cleanups.push(() => {
    channels.stop();
    client.destroy();
    server.close();
  });
  return { host, channels, open: () => channels.open(new AbortController().signal) };
}

/** Resolves when the command has ended and its channel is gone. */
async function run(channel: SshChannel): Promise<void> {
  const closed = deferred();
  channel.exec(Buffer.from('cmd'), [Buffer.from('input')], {
    data: () => undefined,
    eof: () => undefined,
    exit: () => undefined,
    closed: () => closed.resolve(),
  });
  await closed.promise;
}

const settled = () => new Promise((resolve) => setTimeout(resolve, 100));

it('after an exec the next channel is open before it is asked for', async () => {
  const { host, open } = await setup();
  await run(await open());
  await waitUntil('one is opened ahead', () => host.asked === 2 && host.open.size === 1);
  const channel = await open();
  expect(host.asked).toBe(2);
  await run(channel);
});

it('while a program runs on, the next channel is opened ahead as well', async () => {
  const { host, open } = await setup();
  await open();
  await waitUntil('one is opened ahead', () => host.open.size === 2);
});

it('switched off, channels are opened when they are asked for', async () => {
  const { host, open } = await setup({ ahead: false });
  await run(await open());
  await settled();
  expect(host).toMatchObject({ asked: 1, open: new Set() });
});

it('with all its execs a connection has no channel more than they need', async () => {
  const { host, open } = await setup();
  for (let n = 0; n < EXECS_PER_SESSION; n += 1) await open();
  await settled();
  expect(host.asked).toBe(EXECS_PER_SESSION);
});

it('one that the host has closed meanwhile is not handed out', async () => {
  const { host, open } = await setup();
  await run(await open());
  await waitUntil('one is opened ahead', () => host.asked === 2 && host.open.size === 1);
  host.closeIdle();
  await waitUntil('it is closed', () => host.open.size === 0);
  await run(await open());
  expect(host.asked).toBeGreaterThanOrEqual(3);
});

it('one that the host refuses is nobody’s failure, and is not asked for again and again', async () => {
  const { host, open } = await setup({ most: 2 });
  const [one, two] = [await open(), await open()];
  await settled();
  expect(host.asked).toBeLessThanOrEqual(3);
  await run(one);
  await run(two);
  await run(await open());
});

it('who leaves while the one ahead is being opened gets the reason, and nothing stays open', async () => {
  const { host, channels, open } = await setup();
  const closed = run(await open());
  const leaving = new AbortController();
  await closed;
  // Let the one ahead be asked for, and leave before the host has answered.
  await new Promise(setImmediate);
  const opening = channels.open(leaving.signal);
  leaving.abort(new Error('changed my mind'));
  await expect(opening).rejects.toThrow('changed my mind');
  channels.stop();
  await waitUntil('nothing is open', () => host.open.size === 0);
});
