/**
 * The folders of the embedded database: where its cluster, its lock and its socket are, and how the cluster is made.
 *
 * `<dataDir>/postgres-18/` holds `data` (the cluster), `lock` and `run` (the socket). Nothing here runs a server.
 */
import { execFile } from 'node:child_process';
import { chmod, chown, mkdir, mkdtemp, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import type { Log } from './log.ts';
import type { Binaries, Launcher } from './postgres-binaries.ts';

/** Part of the folder's name: files of one major version are not readable by another. */
const MAJOR_VERSION = 18;
/** sun_path holds 108 bytes on Linux and 104 on macOS, with the closing NUL. */
const SOCKET_PATH_MAX_BYTES = 100;
export const SOCKET_NAME = '.s.PGSQL.5432';
const SIDE_PREFIX = 'data.new-';
const ABANDONED_MS = 10 * 60_000;

export interface Place {
  binaries: Binaries;
  launcher: Launcher;
  dataDir: string;
  /** Holds the cluster, its lock and, when the path is short enough, the socket. */
  home: string;
  cluster: string;
  runDir: string;
  /** false: nothing is synced to disk. */
  durable: boolean;
  log: Log;
}

/** Makes the folders. One that exists keeps its mode: it may be more than ours; what is ours in it is closed by itself. */
export async function preparePlace(
  options: Pick<Place, 'binaries' | 'launcher' | 'dataDir' | 'durable' | 'log'>,
): Promise<Place> {
  const dataDir = resolve(options.dataDir);
  const home = homeOf(dataDir);
  await mkdir(home, { recursive: true, mode: 0o700 });
  const runDir = await makeRunDir(home);
  await giveAway(options.launcher, [home, runDir]);
  // Another account passes through to its own folder, but may not list ours.
  if (options.launcher.user !== null) await chmod(dataDir, (await stat(dataDir)).mode | 0o011);
  return { ...options, dataDir, home, cluster: clusterFolder(dataDir), runDir };
}

function homeOf(dataDir: string): string {
  return join(dataDir, `postgres-${MAJOR_VERSION}`);
}

export function clusterFolder(dataDir: string): string {
  return join(homeOf(dataDir), 'data');
}

/** Folders that the server works in, when it runs as another account. */
async function giveAway({ user }: Launcher, paths: readonly string[]): Promise<void> {
  if (user === null) return;
  for (const path of paths) await chown(path, user.uid, user.gid);
}

async function makeRunDir(home: string): Promise<string> {
  const beside = join(home, 'run');
  if (Buffer.byteLength(join(beside, SOCKET_NAME)) >= SOCKET_PATH_MAX_BYTES) {
    return mkdtemp(join(tmpdir(), 'sallyport-'));
  }
  await mkdir(beside, { recursive: true, mode: 0o700 });
  return beside;
}

/** Made beside its place and renamed, so that a half-made cluster is never taken for a whole one. */
export async function createCluster(place: Place): Promise<void> {
  if (await hasCluster(place)) return;
  await removeAbandoned(place.home);
  const side = await mkdtemp(join(place.home, SIDE_PREFIX));
  try {
    await giveAway(place.launcher, [side]);
    await runInitdb(place, side);
    await rename(side, place.cluster);
  } catch (error) {
    await rm(side, { recursive: true, force: true });
    // Another process made the cluster meanwhile: the lock decides which of us gets to run it.
    if (await hasCluster(place)) return;
    throw error;
  }
  if (place.durable) await syncFolder(place.home);
}

async function hasCluster(place: Place): Promise<boolean> {
  return (await readdir(place.home)).includes(basename(place.cluster));
}

/** Left by a process that was killed in `initdb`, which takes seconds. */
async function removeAbandoned(home: string): Promise<void> {
  for (const name of await readdir(home)) {
    if (!name.startsWith(SIDE_PREFIX)) continue;
    const { mtimeMs } = await stat(join(home, name));
    if (Date.now() - mtimeMs > ABANDONED_MS) await rm(join(home, name), { recursive: true, force: true });
  }
}

async function runInitdb(place: Place, folder: string): Promise<void> {
  const settings = ['--username=postgres', '--encoding=UTF8', '--locale=C', '--no-instructions'];
  // Over the socket everybody who can reach it is let in: the folder's mode is the gate.
  const access = ['--auth-local=trust', '--auth-host=reject'];
  const sync = place.durable ? [] : ['--no-sync'];
  const [file, ...args] = command(place, [place.binaries.initdb, '-D', folder, ...settings, ...access, ...sync]);
  await promisify(execFile)(file, args, identity(place)).catch((cause: Error & { stderr?: string }) => {
    const reason = cause.stderr?.trim().split('\n').at(-1) || cause.message;
    throw new Error(`the embedded database could not be made in ${folder}: ${reason}; set DATABASE_URL instead`, {
      cause,
    });
  });
}

export function command(place: Place, words: [string, ...string[]]): [string, ...string[]] {
  const [first, ...rest] = place.launcher.prefix;
  return first === undefined ? words : [first, ...rest, ...words];
}

/** The gateway's own environment, with its secrets, stays here. */
export function identity(place: Place) {
  const env = { PATH: process.env.PATH ?? '/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' };
  return { cwd: '/', env, ...place.launcher.user };
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** The one in the data folder stays: after a refused start it is somebody else's. */
export async function removeRunDir(place: Place): Promise<void> {
  if (!place.runDir.startsWith(place.home)) await rm(place.runDir, { recursive: true, force: true });
}
