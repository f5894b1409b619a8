/** Hosts that are reached directly, as real OpenSSH servers on this machine. */
import { execFileSync, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { createSshDriver, type SshDeps } from '../../src/drivers/ssh.ts';
import { readKeyFile } from '../../src/drivers/ssh-key.ts';
import type { Opening, Session } from '../../src/sessions/session.ts';
import { ConnectTrace } from '../../src/sessions/trace.ts';
import type { Workspace } from '../../src/workspace.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { anOpening } from '../support/opening.ts';
import { type MemoryPins, memoryPins, pinOf } from '../support/pins.ts';
import { requireProgram, requireSshd } from '../support/requirements.ts';
import { newKeyPair } from '../support/ssh-keys.ts';
import { closeSession } from '../support/ssh-login.ts';
import { type Sshd, startSshd } from '../support/sshd.ts';
import { waitUntil } from '../support/wait.ts';
import { driverContract } from './contract.ts';

failOnLeaks();

const folder = mkdtempSync(join(tmpdir(), 'ssh-driver-'));
afterAll(() => rmSync(folder, { recursive: true }));

function workspace(port: number, { host = '127.0.0.1', osUser = 'root' } = {}): Workspace {
  const target = { driver: 'ssh', host, port, osUser } as const;
  return { id: 'ws', orgId: 'org', name: 'ws', tier: 3, labels: {}, target };
}

function file(name: string, text: string, mode = 0o600): string {
  const path = join(folder, name);
  writeFileSync(path, text, { mode });
  return path;
}

/** Passes the suite that every driver passes, and says of each failure at which step it was. */
describe.skipIf(!requireSshd())('a host with OpenSSH', () => {
  driverContract('ssh', async () => {
    const sshd = await startSshd();
    const pins = memoryPins();
    await pins.put('ssh', `127.0.0.1:${sshd.port}`, [pinOf(sshd.hostKey)], 'admin');
    const driver = createSshDriver({
      key: { pem: sshd.privateKey },
      pins,
      hostKeys: 'console',
      knownHosts: null,
      loopback: true,
    });
    const session = await driver.open(workspace(sshd.port, { osUser: sshd.username }), anOpening());
    return {
      session,
      async close() {
        await closeSession(session);
        await sshd.stop();
      },
    };
  });

  describe('on the way to a host', () => {
    let sshd: Sshd;
    let pins: MemoryPins;
    const opened: Session[] = [];
    beforeAll(async () => {
      sshd = await startSshd(['LogLevel VERBOSE']);
    });
    afterAll(() => sshd.stop());
    afterEach(async () => {
      for (const session of opened.splice(0)) await closeSession(session);
    });

    function known(...keys: string[]): string {
      return file(`known_hosts-${randomUUID()}`, keys.map((key) => `${key}\n`).join(''));
    }

    function lineOf(hostKey = sshd.hostKey, { name = `[127.0.0.1]:${sshd.port}`, marker = '' } = {}): string {
      return `${marker}${name} ssh-ed25519 ${hostKey.toString('base64')}`;
    }

    /** Trusts the server by a file, unless told otherwise. */
    async function open(
      deps: Partial<SshDeps> = {},
      where: { host?: string; port?: number; osUser?: string } & Partial<Opening> = {},
    ): Promise<Session> {
      pins = deps.pins === undefined ? memoryPins() : pins;
      const { host, port = sshd.port, osUser = sshd.username, ...opening } = where;
      const driver = createSshDriver({
        key: { pem: sshd.privateKey },
        pins,
        hostKeys: 'pinned',
        knownHosts: known(lineOf()),
        loopback: true,
        ...deps,
      });
      const session = await driver.open(workspace(port, { osUser, ...(host ? { host } : {}) }), anOpening(opening));
      opened.push(session);
      return session;
    }

    function at(failedStep: string, code: string) {
      return { name: 'SallyportError', code, details: { failedStep } };
    }

    describe('the address', () => {
      test.each([
        ['that a name does not have', { host: 'x'.repeat(64) }, {}],
        ['of this machine, unless that is allowed', { host: '127.0.0.1' }, { loopback: false }],
        ['of this machine by name', { host: 'localhost' }, { loopback: false }],
        ['of this machine, mapped', { host: '::ffff:127.0.0.1' }, { loopback: false }],
        ['of a metadata service', { host: '169.254.169.254' }, {}],
        ['of a metadata service, mapped', { host: '::ffff:169.254.169.254' }, {}],
        ['that means any', { host: '0.0.0.0' }, {}],
        ['of a link', { host: 'fe80::1' }, {}],
      ])('%s is no endpoint', async (_what, where, deps) => {
        await expect(open(deps, where)).rejects.toMatchObject(at('endpoint', 'host_unreachable'));
      });

      test('is another one of the name when the first does not answer', async () => {
        const knownHosts = known(lineOf(sshd.hostKey, { name: `[localhost]:${sshd.port}` }));
        const trace = new ConnectTrace();
        await open({ knownHosts }, { host: 'localhost', trace });
        expect(trace.steps.map(({ name, ok }) => ({ name, ok }))).toEqual(
          ['endpoint', 'tunnel', 'banner', 'host_key', 'login'].map((name) => ({ name, ok: true })),
        );
      });
    });

    test('a port that nobody listens on is a tunnel that cannot be', async () => {
      const server = createServer().listen(0, '127.0.0.1');
      await once(server, 'listening');
      const { port } = server.address() as AddressInfo;
      server.close();
      await once(server, 'close');
      await expect(open({}, { port })).rejects.toMatchObject(at('tunnel', 'host_unreachable'));
    });

    describe('the banner', () => {
      const sockets = new Set<Socket>();
      const server = createServer((socket) => sockets.add(socket.resume()));
      beforeAll(() => once(server.listen(0, '127.0.0.1'), 'listening'));
      afterEach(() => {
        for (const socket of sockets) socket.destroy();
        sockets.clear();
      });
      afterAll(() => server.close());
      const port = () => (server.address() as AddressInfo).port;

      test('that never comes leaves that step open, and nothing else', async () => {
        const [abort, trace] = [new AbortController(), new ConnectTrace()];
        const opening = open({}, { port: port(), signal: abort.signal, trace }).catch((error: unknown) => error);
        await waitUntil('the banner is waited for', () => trace.current() === 'banner');
        abort.abort(new Error('too long'));
        expect(await opening).toMatchObject({ message: 'too long' });
        await waitUntil('the connection is closed', () =>
          [...sockets].every(({ readableEnded, destroyed }) => readableEnded || destroyed),
        );
      });

      test('that is a goodbye is a host that cannot be reached', async () => {
        server.once('connection', (socket: Socket) => socket.end());
        await expect(open({}, { port: port() })).rejects.toMatchObject(at('banner', 'host_unreachable'));
      });
    });

    describe('the host key', () => {
      const mismatch = at('host_key', 'host_key_mismatch');
      const foreign = Buffer.from(newKeyPair().publicKey.split(' ')[1] ?? '', 'base64');

      test.each(['console', 'pinned'] as const)(
        'that nobody named is refused in mode %s, shown, with the remedy',
        async (hostKeys) => {
          const error = await open({ hostKeys, knownHosts: null }).catch((e: unknown) => e);
          expect(error).toMatchObject(mismatch);
          expect(error).toMatchObject({
            message: expect.stringMatching(/ssh-ed25519 SHA256:/),
            details: { remedy: expect.stringMatching(/PUT \/workspaces\/:id\/host-keys.*SALLYPORT_KNOWN_HOSTS/s) },
          });
          expect(pins.all()).toEqual([]);
        },
      );

      test('that an admin stored is believed in every mode', async () => {
        pins = memoryPins();
        await pins.put('ssh', `127.0.0.1:${sshd.port}`, [pinOf(sshd.hostKey)], 'admin');
        for (const hostKeys of ['console', 'pinned', 'first-use'] as const)
          await open({ hostKeys, knownHosts: null, pins });
      });

      test('that differs from the one an admin stored is refused', async () => {
        pins = memoryPins();
        await pins.put('ssh', `127.0.0.1:${sshd.port}`, [pinOf(foreign)], 'admin');
        for (const hostKeys of ['console', 'pinned', 'first-use'] as const)
          await expect(open({ hostKeys, knownHosts: null, pins })).rejects.toMatchObject(mismatch);
      });

      test('that differs from the one in the file is refused, also on first use', async () => {
        for (const hostKeys of ['console', 'pinned', 'first-use'] as const)
          await expect(open({ hostKeys, knownHosts: known(lineOf(foreign)) })).rejects.toMatchObject(mismatch);
        expect(pins.all()).toEqual([]);
      });

      test('of the first use is pinned after the login, holds from then on, and only in that mode', async () => {
        pins = memoryPins();
        await open({ hostKeys: 'first-use', knownHosts: null, pins });
        expect(pins.all()).toEqual([{ ...pinOf(sshd.hostKey), source: 'first-use' }]);
        await open({ hostKeys: 'first-use', knownHosts: null, pins });
        await expect(open({ hostKeys: 'pinned', knownHosts: null, pins })).rejects.toMatchObject(mismatch);
        await pins.put('ssh', `127.0.0.1:${sshd.port}`, [pinOf(foreign)], 'first-use');
        await expect(open({ hostKeys: 'first-use', knownHosts: null, pins })).rejects.toMatchObject(mismatch);
      });

      test('of a host that refuses the login is not pinned', async () => {
        const key = { pem: newKeyPair().privateKey };
        await expect(open({ hostKeys: 'first-use', knownHosts: null, key })).rejects.toMatchObject(
          at('login', 'login_refused'),
        );
        expect(pins.all()).toEqual([]);
      });

      test('that is revoked is refused, whoever else names it', async () => {
        const knownHosts = known(lineOf(), lineOf(sshd.hostKey, { name: '*', marker: '@revoked ' }));
        await expect(open({ knownHosts })).rejects.toMatchObject({
          ...mismatch,
          message: expect.stringContaining('revoked'),
        });
        await expect(
          open({ knownHosts: known(lineOf(sshd.hostKey, { name: '*', marker: '@revoked ' })), hostKeys: 'first-use' }),
        ).rejects.toMatchObject(mismatch);
      });

      test('that only an authority vouches for is refused in words, in every mode', async () => {
        for (const hostKeys of ['console', 'pinned', 'first-use'] as const) {
          const knownHosts = known(lineOf(foreign, { marker: '@cert-authority ' }));
          await expect(open({ hostKeys, knownHosts })).rejects.toMatchObject({
            ...mismatch,
            message: expect.stringContaining('host certificates are not supported'),
          });
        }
        await open({ knownHosts: known(lineOf(foreign, { marker: '@cert-authority ' }), lineOf()) });
      });

      test('is refused when the file cannot be read', async () => {
        await expect(open({ knownHosts: join(folder, 'missing') })).rejects.toMatchObject(mismatch);
      });
    });

    describe('the login', () => {
      const refused = at('login', 'login_refused');

      test('by a key that the host does not know is refused', async () => {
        await expect(open({ key: { pem: newKeyPair().privateKey } })).rejects.toMatchObject(refused);
      });

      test('as a user that the host does not have is refused', async () => {
        await expect(open({}, { osUser: 'nobody-of-this-name' })).rejects.toMatchObject(refused);
      });

      test('by an agent that is not there is refused, and says so', async () => {
        await expect(open({ key: { agent: join(folder, 'no-agent') } })).rejects.toMatchObject({
          ...refused,
          message: expect.stringContaining('agent'),
        });
      });
    });

    describe.skipIf(!requireProgram('/usr/bin/ssh-agent', 'openssh-client'))('an agent', () => {
      test('logs in with a key that the gateway never sees, also when it is not its first', async () => {
        const socket = join(folder, 'agent');
        const agent = spawn('/usr/bin/ssh-agent', ['-D', '-a', socket], { stdio: ['ignore', 'pipe', 'ignore'] });
        try {
          await once(agent.stdout, 'data');
          for (const pem of [newKeyPair().privateKey, sshd.privateKey])
            execFileSync('/usr/bin/ssh-add', ['-q', '-'], { input: pem, env: { SSH_AUTH_SOCK: socket } });
          await open({ key: { agent: socket } });
        } finally {
          agent.kill();
          await once(agent, 'exit');
        }
      });
    });

    test('a shell that runs no commands fails at the channel', async () => {
      const closed = await startSshd(['ForceCommand /bin/false']);
      try {
        const knownHosts = known(lineOf(closed.hostKey, { name: `[127.0.0.1]:${closed.port}` }));
        const session = await open({ knownHosts, key: { pem: closed.privateKey } }, { port: closed.port });
        const spec = { execId: 'x', argv: ['true'], env: {}, cwd: null, stdin: null, fixedPath: false } as const;
        const how = { signal: AbortSignal.timeout(10_000), committed: Promise.resolve() };
        await expect(session.start(spec, how)).rejects.toMatchObject(at('channel', 'shell_unsupported'));
        await closeSession(session);
      } finally {
        await closed.stop();
      }
    });

    test('a probe up to the host key logs nobody in; one up to the login does', async () => {
      const accepted = () => sshd.log().split('Accepted publickey').length;
      const driver = createSshDriver({
        key: { pem: sshd.privateKey },
        pins: memoryPins(),
        hostKeys: 'pinned',
        knownHosts: known(lineOf()),
        loopback: true,
      });
      const before = accepted();
      const target = workspace(sshd.port, { osUser: sshd.username });
      expect(await driver.probe(target, anOpening(), 'host_key')).toBeNull();
      const session = await driver.probe(target, anOpening(), 'login');
      if (session === null) throw new Error('a probe up to the login has a session');
      opened.push(session);
      await waitUntil('the server has logged it', () => accepted() === before + 1);
    });
  });
});

describe('the gateway’s own key', () => {
  const { privateKey, publicKey } = newKeyPair();

  test('is read from a file that only its owner may read', () => {
    expect(readKeyFile(file('key', privateKey))).toBe(privateKey);
  });

  test.each([
    ['others may read it', () => file('key-open', privateKey, 0o640), /owner only/],
    ['it is a public key', () => file('key-public', publicKey), /private key/],
    ['it is none', () => file('key-none', 'hunter2'), /private key/],
    ['it is not there', () => join(folder, 'key-missing'), /ENOENT/],
  ])('is refused when %s', (_what, path, message) => {
    expect(() => readKeyFile(path())).toThrow(message);
  });
});
