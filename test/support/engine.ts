/**
 * A real container engine for tests: Debian's podman with runc, which serves the Docker Engine API on a unix socket.
 *
 * Everything of it lies in a folder of its own and goes with it. There is no registry: the images are made here.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { FIXTURES } from './fixtures.ts';
import { killNow, processTable } from './processes.ts';
import { isRoot, requireProgram, requireRoot } from './requirements.ts';
import { waitUntil } from './wait.ts';

const PODMAN = '/usr/bin/podman';
const BUSYBOX = '/usr/bin/busybox';
const BARE = ['sh', 'cat', 'sleep', 'grep', 'ls', 'readlink'];
const APPLETS = [...BARE, 'awk', 'setsid', 'kill', 'env', 'true', 'id', 'ps', 'yes', 'pwd'];

export interface Engine {
  socketPath: string;
  /** Starts a container and resolves with its name. */
  run(image: Image, options?: readonly string[]): Promise<string>;
  /** The engine's own command line. */
  podman(...args: string[]): Promise<string>;
  /** Kills the service; containers live on. */
  kill(): Promise<void>;
  stop(): Promise<void>;
}

/**
 * `here`: sees the programs, the files of tests and the processes of this machine, so that a test can look from outside.
 * `busybox`: nothing but busybox, in a world of its own, with a user named `user`. `bare`: the same with a shell and hardly
 * more. `empty`: not even a shell.
 */
export type Image = 'here' | 'busybox' | 'bare' | 'empty';

/** What a test file needs for it. */
export function requireEngine(): boolean {
  return [
    isRoot() || requireRoot(),
    requireProgram(PODMAN, 'podman'),
    requireProgram('/usr/sbin/runc', 'runc'),
    requireProgram(BUSYBOX, 'busybox-static'),
  ].every(Boolean);
}

export async function startEngine(): Promise<Engine> {
  const folder = mkdtempSync(join(tmpdir(), 'engine-'));
  const socketPath = join(folder, 'api.sock');
  // After each exec a process of the engine waits, five minutes by default, to start a cleanup: here until the end.
  const settings = ['[containers]', 'default_ulimits=[]', '[engine]', 'exit_command_delay=86400'];
  writeFileSync(join(folder, 'containers.conf'), `${settings.join('\n')}\n`);
  const env = { ...process.env, CONTAINERS_CONF: join(folder, 'containers.conf') };
  const options = [
    ...['--root', join(folder, 'store'), '--runroot', join(folder, 'run')],
    ...['--storage-driver', 'vfs', '--cgroup-manager', 'cgroupfs', '--runtime', 'runc'],
  ];
  const podman: Engine['podman'] = async (...args) => {
    const { stdout } = await promisify(execFile)(PODMAN, [...options, ...args], { env, cwd: folder });
    return stdout.trim();
  };
  const service = spawn(PODMAN, [...options, 'system', 'service', '--time=0', `unix://${socketPath}`], {
    env,
    // conmon leaves an empty file `oom` where it was started, when a container ran out of memory.
    cwd: folder,
    stdio: 'ignore',
  });
  await Promise.all([
    importImage(podman, folder, 'busybox'),
    importImage(podman, folder, 'here'),
    importImage(podman, folder, 'bare'),
    importImage(podman, folder, 'empty'),
    waitUntil('the engine answers', () => answers(socketPath)),
  ]);
  const kill = async (): Promise<void> => {
    if (service.exitCode !== null || service.signalCode !== null) return;
    service.kill('SIGKILL');
    await once(service, 'exit');
  };
  let count = 0;
  return {
    socketPath,
    podman,
    kill,
    async run(image, more = []) {
      const name = `${image}-${++count}`;
      const how = [
        '--network',
        'none',
        '--ulimit',
        'host',
        '--no-hosts',
        ...(image === 'here' ? viewOfThisMachine() : []),
      ];
      const init = image === 'empty' ? ['/init', 'sleep', '1000000'] : ['sleep', '1000000'];
      await podman('run', '--detach', '--name', name, ...how, ...more, `localhost/${image}`, ...init);
      return name;
    },
    async stop() {
      await podman('rm', '--all', '--force', '--time', '0');
      await kill();
      for (const { pid, args } of processTable()) if (args.some((arg) => arg.startsWith(`${folder}/`))) killNow(pid);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function viewOfThisMachine(): string[] {
  const readOnly = ['/usr', '/etc', FIXTURES].flatMap((path) => ['--volume', `${path}:${path}:ro`]);
  return ['--pid', 'host', ...readOnly, '--volume', `${tmpdir()}:${tmpdir()}`, '--workdir', userInfo().homedir];
}

async function importImage(podman: Engine['podman'], folder: string, image: Image): Promise<void> {
  const root = join(folder, image);
  for (const dir of ['bin', 'etc', 'proc', 'dev', 'tmp', 'home/user']) mkdirSync(join(root, dir), { recursive: true });
  if (image === 'busybox' || image === 'bare') {
    copyFileSync(BUSYBOX, join(root, 'bin/busybox'));
    for (const applet of image === 'bare' ? BARE : APPLETS) symlinkSync('busybox', join(root, 'bin', applet));
    writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n');
  } else if (image === 'empty') {
    copyFileSync(BUSYBOX, join(root, 'init'));
    writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0::/:/bin/sh\n');
  } else {
    rmSync(join(root, 'bin'), { recursive: true });
    for (const name of ['bin', 'lib', 'lib64', 'sbin']) symlinkSync(`usr/${name}`, join(root, name));
    mkdirSync(join(root, userInfo().homedir), { recursive: true });
  }
  const tar = `${root}.tar`;
  await promisify(execFile)('tar', ['-C', root, '-cf', tar, '.']);
  await podman('import', '--quiet', tar, `localhost/${image}`);
}

function answers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const asked = request({ socketPath, path: '/_ping', agent: false }, (answer) => {
      answer.resume();
      resolve(answer.statusCode === 200);
    });
    asked.on('error', () => resolve(false));
    asked.end();
  });
}
