/**
 * Real OpenSSH servers on loopback, for tests.
 *
 * Each has its own host key, configuration and port, takes one key pair made for it, and logs in the user that runs the
 * tests (as root also any other user). Nothing of the machine's own sshd configuration is read.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { killNow, processTable } from './processes.ts';
import { isRoot } from './requirements.ts';
import { newKeyPair } from './ssh-keys.ts';
import { waitUntil } from './wait.ts';

const BINARY = '/usr/sbin/sshd';

export interface Sshd {
  port: number;
  /** The user that runs the tests. */
  username: string;
  /** OpenSSH PEM; accepted for every user. */
  privateKey: string;
  /** Wire bytes. */
  hostKey: Buffer;
  /** What it wrote to its log so far. */
  log(): string;
  /** Kills what serves the open connections, as a crash does; the programs they started live on. */
  cutConnections(): void;
  /** Ends the server. Close the sessions before: what serves a connection ends with its socket. */
  stop(): Promise<void>;
}

/** `config`: further lines for sshd_config, for instance `MaxSessions 3` or `ForceCommand /bin/true`. */
export async function startSshd(config: readonly string[] = []): Promise<Sshd> {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-sshd-'));
  const [userKey, hostKey] = [newKeyPair(), newKeyPair()];
  // Read by sshd with the rights of whoever logs in.
  execFileSync('chmod', ['755', folder]);
  writeFileSync(join(folder, 'authorized_keys'), `${userKey.publicKey}\n`, { mode: 0o644 });
  writeFileSync(join(folder, 'host_key'), hostKey.privateKey, { mode: 0o600 });
  // Where sshd confines its unprivileged half; Debian makes it at boot, which a container never does.
  if (isRoot()) mkdirSync('/run/sshd', { recursive: true, mode: 0o755 });

  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    writeFileSync(join(folder, 'sshd_config'), configText(folder, port, config));
    const server = spawn(BINARY, ['-D', '-e', '-f', join(folder, 'sshd_config')], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let log = '';
    server.stderr.setEncoding('utf8').on('data', (text: string) => (log += text));
    const listening = await waitUntil('sshd listens or ends', () => {
      if (server.exitCode !== null) return 'ended';
      return log.includes(`listening on 127.0.0.1 port ${port}`) ? 'listening' : null;
    });
    if (listening === 'ended') {
      // Somebody else may have taken the port since it was found free.
      if (log.includes('Address already in use') && attempt < 3) continue;
      rmSync(folder, { recursive: true });
      throw new Error(`sshd did not start: ${log}`);
    }
    return {
      port,
      username: userInfo().username,
      privateKey: userKey.privateKey,
      hostKey: Buffer.from(hostKey.publicKey.split(' ')[1] ?? '', 'base64'),
      log: () => log,
      cutConnections: () => serving(server.pid ?? 0).forEach(killNow),
      stop: () => stop(server, folder),
    };
  }
}

function configText(folder: string, port: number, config: readonly string[]): string {
  const lines = [
    // sshd takes the first value it meets, so what the test asks for stands first.
    ...config,
    `Port ${port}`,
    'ListenAddress 127.0.0.1',
    `HostKey ${join(folder, 'host_key')}`,
    `AuthorizedKeysFile ${join(folder, 'authorized_keys')}`,
    'AuthenticationMethods publickey',
    'PermitRootLogin prohibit-password',
    'StrictModes no',
    'UsePAM no',
    'PidFile none',
    'PrintMotd no',
    'MaxStartups 200',
    // A bash that sshd starts at the top level reads ~/.bashrc, and what stands in that of whoever runs the tests may
    // take longer than all the rest. One level down it does not; noisy rc files have tests of their own.
    'SetEnv SHLVL=1',
  ];
  return `${lines.join('\n')}\n`;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('bug: a TCP server has a port');
  return address.port;
}

/** sshd forks for each connection, and again below that for the user; both are named `sshd: …`. */
function serving(parent: number): number[] {
  const children = processTable().filter((row) => row.parent === parent && row.args[0]?.startsWith('sshd:'));
  return children.flatMap(({ pid }) => [...serving(pid), pid]);
}

async function stop(server: ChildProcess, folder: string): Promise<void> {
  if (server.exitCode === null) {
    server.kill('SIGTERM');
    await once(server, 'exit');
  }
  rmSync(folder, { recursive: true, force: true });
}
