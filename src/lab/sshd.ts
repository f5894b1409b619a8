/**
 * A real OpenSSH server behind an instance, for what only the real one shows: its quirks, its login shells, its speed.
 *
 * It asks the lab which keys are pushed and has no keys of its own. It listens on loopback and runs programs as the users
 * of this machine. Decision: the AuthorizedKeysCommand is bash with a script on its command line, because sshd refuses a
 * command below a folder that others may write to, and every temporary folder is below one.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { endProcesses, listProcesses, readEnvironment, signalQuietly } from './processes.ts';
import type { HostKey } from './world.ts';

export interface SshdOptions {
  instanceId: string;
  hostKeys: readonly HostKey[];
  /** Of its own, for its configuration. */
  dir: string;
  /** Where GET /keys/<instance>/<user> answers. */
  labPort: number;
  onLog(event: SshdEvent): void;
}

export type SshdEvent = 'login' | 'login_failure' | 'channel';

export interface Sshd {
  readonly port: number;
  countConnections(): number;
  cutConnections(): void;
  /** Ends the server, its connections and every program that was started through it. */
  stop(): Promise<void>;
}

const SSHD = '/usr/sbin/sshd';
const BASH = '/bin/bash';
/** Ends sshd when this process is killed; part of util-linux. */
const SETPRIV = '/usr/bin/setpriv';
/** sshd looks for it when it starts; Debian makes it at boot. */
const PRIVSEP_DIR = '/run/sshd';
const START_ATTEMPTS = 5;

/** Null: a real sshd can run here; else the reason why not. */
export function canRunSshd(): string | null {
  if (process.platform !== 'linux') return `it needs Linux, this is ${process.platform}`;
  const missing = [SSHD, BASH].find((path) => !isExecutable(path));
  return missing === undefined ? null : `${missing} is not here (Debian: apt-get install openssh-server)`;
}

/** Resolves when it takes connections. */
export async function startSshd(options: SshdOptions): Promise<Sshd> {
  const reason = canRunSshd();
  if (reason !== null) throw new Error(`no real sshd for ${options.instanceId}: ${reason}`);
  if (isRoot()) mkdirSync(PRIVSEP_DIR, { recursive: true, mode: 0o755 });
  for (let attempt = 1; ; attempt++) {
    const port = await findFreePort();
    const child = launch(writeConfig(options, port));
    const failure = await listening(child, options.onLog);
    if (failure === null) return running(child, port);
    // Another process may take the port between our look and sshd's.
    if (attempt === START_ATTEMPTS || !failure.includes('Address already in use')) {
      throw new Error(`sshd for ${options.instanceId} did not start: ${failure}`);
    }
  }
}

function running(child: ChildProcess, port: number): Sshd {
  const pid = child.pid ?? 0;
  const connections = () => listProcesses().filter((process) => process.parentPid === pid);
  return {
    port,
    countConnections: () => connections().length,
    cutConnections: () => {
      for (const connection of connections()) signalQuietly(connection.pid, 'SIGTERM');
    },
    stop: async () => {
      // Programs keep the variable when their connection is long gone; the port has been ours for all that time.
      const startedHere = (entry: string) =>
        entry.startsWith('SSH_CONNECTION=') && entry.endsWith(` 127.0.0.1 ${port}`);
      await endProcesses((process) => process.pid === pid || readEnvironment(process.pid).some(startedHere));
    },
  };
}

function launch(configPath: string): ChildProcess {
  const command = [SSHD, '-D', '-e', '-f', configPath];
  const [file = SSHD, ...args] = isExecutable(SETPRIV) ? [SETPRIV, '--pdeathsig', 'TERM', ...command] : command;
  return spawn(file, args, { stdio: ['ignore', 'ignore', 'pipe'], env: { PATH: '/usr/bin:/bin' }, detached: true });
}

/** Null when it listens; else what it said before it ended. */
async function listening(child: ChildProcess, onLog: (event: SshdEvent) => void): Promise<string | null> {
  const said: string[] = [];
  const { stderr } = child;
  if (stderr === null) throw new Error('bug: sshd was started without a pipe for its log');
  const ready = new Promise<null>((resolve) => {
    createInterface({ input: stderr }).on('line', (line) => {
      if (said.length < 50) said.push(line);
      if (line.startsWith('Server listening on')) resolve(null);
      const event = readEvent(line);
      if (event !== null) onLog(event);
    });
  });
  const ended = once(child, 'close').then(
    () => said.join('; '),
    (error: Error) => error.message,
  );
  return Promise.race([ready, ended]);
}

function readEvent(line: string): SshdEvent | null {
  if (line.startsWith('Accepted publickey for ')) return 'login';
  if (line.startsWith('Failed publickey for ')) return 'login_failure';
  return line.startsWith('Starting session: ') ? 'channel' : null;
}

function writeConfig(options: SshdOptions, port: number): string {
  mkdirSync(options.dir, { recursive: true, mode: 0o700 });
  const hostKeyPaths = options.hostKeys.map(({ type, privateKey }) => {
    const path = join(options.dir, type);
    writeFileSync(path, privateKey, { mode: 0o600 });
    return path;
  });
  const path = join(options.dir, 'sshd_config');
  writeFileSync(
    path,
    configLines(options, { port, hostKeyPaths })
      .map((line) => `${line}\n`)
      .join(''),
  );
  return path;
}

function configLines(options: SshdOptions, own: { port: number; hostKeyPaths: readonly string[] }): string[] {
  // sshd skips what is not a key, so the lines of the HTTP header may stay.
  const ask = `exec 3<>/dev/tcp/127.0.0.1/${options.labPort}; printf "GET /keys/${options.instanceId}/%%s HTTP/1.0\\r\\n\\r\\n" "$1" >&3; exec cat <&3`;
  return [
    `Port ${own.port}`,
    'ListenAddress 127.0.0.1',
    ...own.hostKeyPaths.map((path) => `HostKey ${path}`),
    'PidFile none',
    'UsePAM no',
    'StrictModes no',
    'LogLevel VERBOSE',
    'PermitRootLogin yes',
    'AuthenticationMethods publickey',
    'AuthorizedKeysFile none',
    `AuthorizedKeysCommand ${BASH} -c '${ask}' lab-keys %u`,
    `AuthorizedKeysCommandUser ${isRoot() ? 'nobody' : userInfo().username}`,
    'MaxStartups 100',
    'PrintMotd no',
  ];
}

async function findFreePort(): Promise<number> {
  const server = createServer().listen({ host: '127.0.0.1', port: 0 });
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (typeof address !== 'object' || address === null) throw new Error('bug: a TCP server has a port');
  return address.port;
}

function isRoot(): boolean {
  return process.getuid?.() === 0;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
