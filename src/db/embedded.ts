/**
 * The embedded database: a PostgreSQL server of our own on a Unix socket, started, watched and stopped with us.
 *
 * It does not migrate and opens no connection. Decisions:
 * - A real server, not an in-process engine: those have one session (locks and LISTEN do not work between clients) and
 *   two processes on one folder lose data silently.
 * - A shell stands between: it holds a pipe from us and stops the server when that closes, so the server ends with us
 *   even after `kill -9`; and it holds `flock` on the folder for as long as any process of the server lives. The lock, not
 *   the pid in postmaster.pid, says whether the folder is in use: after a container restart that pid is often somebody else.
 * - The server listens on no TCP port. Whoever may enter the run folder (0700) is the database's superuser.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { chmod, chown, mkdir, mkdtemp, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Log } from './log.ts';
import { type Binaries, chooseLauncher, findBinaries, type Launcher } from './postgres-binaries.ts';

/** Part of the folder's name: files of one major version are not readable by another. */
const MAJOR_VERSION = 18;
/** sun_path holds 108 bytes on Linux and 104 on macOS, with the closing NUL. */
const SOCKET_PATH_MAX_BYTES = 100;
const SOCKET_NAME = '.s.PGSQL.5432';
/** Crash recovery replays at most max_wal_size (1 GB). */
const READY_MAX_MS = 120_000;
/** A server whose owner was killed needs a moment to stop; `flock` waits this long for it. */
const LOCK_WAIT_S = 2;
/** The same when its pid file says that it is stopping: its last checkpoint may be long. */
const STOPPING_MAX_MS = 60_000;
/** From "stop, ending sessions" to "stop at once", and from there to KILL. */
const STOP_STEP_MS = 15_000;
const RESTART_MAX_MS = 5_000;
/** sysexits EX_TEMPFAIL, said by the shell below when the folder is locked. */
const LOCKED_STATUS = 75;

/** $1 the lock, $2 and $3 the server's own pid files (stale for whoever has the lock), then the command. */
const KEEPER = `
umask 077
exec 3<&0 </dev/null 4>>"$1"
if command -v flock >/dev/null; then
  flock -w ${LOCK_WAIT_S} 4 || exit ${LOCKED_STATUS}
  rm -f "$2" "$3"
fi
shift 3
"$@" 3<&- &
server=$!
(read -r line <&3; kill -INT $server) &
watcher=$!
exec 3<&-
wait $server; status=$?
kill $watcher 2>/dev/null
exit $status`;

export interface EmbeddedOptions {
  dataDir: string;
  log: Log;
  /** false, for tests: nothing is synced to disk, so a power cut loses the folder. */
  durable?: boolean;
  launcher?: Launcher;
}

export interface Embedded {
  url: string;
  /** Ends every session and stops the server. Safe to call twice. */
  stop(): Promise<void>;
}

interface Place {
  binaries: Binaries;
  launcher: Launcher;
  dataDir: string;
  /** Holds the cluster, its lock and, when the path is short enough, the socket. */
  home: string;
  cluster: string;
  runDir: string;
  durable: boolean;
  log: Log;
}

/**
 * Starts the server on `dataDir` (made when missing, 0700) and keeps it running: when it dies, it is started again.
 * Rejects with one sentence when the folder is in use by a living gateway or the server cannot run here.
 */
export async function startEmbedded(options: EmbeddedOptions): Promise<Embedded> {
  const binaries = await findBinaries();
  const launcher = options.launcher ?? (await chooseLauncher());
  const place = await preparePlace(options, binaries, launcher);
  const stopping = new AbortController();
  try {
    await createCluster(place);
    const server = await launchUnlocked(place, stopping.signal);
    const supervised = supervise(place, server, stopping.signal);
    return { url: urlOf(place), stop: () => stop(place, stopping, supervised) };
  } catch (error) {
    await removeRunDir(place);
    throw error;
  }
}

function urlOf(place: Place): string {
  return `postgresql://postgres@localhost/postgres?host=${encodeURIComponent(place.runDir)}&sslmode=disable`;
}

async function stop(place: Place, stopping: AbortController, supervised: Promise<void>): Promise<void> {
  stopping.abort();
  await supervised;
  await removeRunDir(place);
}

/** The one in the data folder stays: after a refused start it is somebody else's. */
async function removeRunDir(place: Place): Promise<void> {
  if (!place.runDir.startsWith(place.home)) await rm(place.runDir, { recursive: true, force: true });
}

async function preparePlace(options: EmbeddedOptions, binaries: Binaries, launcher: Launcher): Promise<Place> {
  const dataDir = resolve(options.dataDir);
  const home = join(dataDir, `postgres-${MAJOR_VERSION}`);
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  // Another account must be able to pass through to its own folder, but may not list ours.
  await chmod(dataDir, launcher.user === null ? 0o700 : 0o711);
  await mkdir(home, { recursive: true, mode: 0o700 });
  const runDir = await makeRunDir(home);
  if (launcher.user !== null) {
    for (const path of [home, runDir]) await chown(path, launcher.user.uid, launcher.user.gid);
  }
  const durable = options.durable ?? true;
  return { binaries, launcher, dataDir, home, cluster: join(home, 'data'), runDir, durable, log: options.log };
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
async function createCluster(place: Place): Promise<void> {
  if ((await readdir(place.home)).includes('data')) return;
  const side = join(place.home, `data.new-${process.pid}`);
  await removeAbandoned(place.home);
  try {
    await runInitdb(place, side);
    await rename(side, place.cluster);
  } catch (error) {
    await rm(side, { recursive: true, force: true });
    // Another process made the cluster meanwhile: the lock decides which of us gets to run it.
    if ((await readdir(place.home)).includes('data')) return;
    throw error;
  }
  if (place.durable) await syncFolder(place.home);
}

/** Left by a process that was killed in `initdb`. */
async function removeAbandoned(home: string): Promise<void> {
  for (const name of await readdir(home)) {
    const pid = Number(/^data\.new-(\d+)$/.exec(name)?.[1] ?? Number.NaN);
    if (Number.isNaN(pid) || (pid !== process.pid && isAlive(pid))) continue;
    await rm(join(home, name), { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
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

function command(place: Place, words: [string, ...string[]]): [string, ...string[]] {
  const [first, ...rest] = place.launcher.prefix;
  return first === undefined ? words : [first, ...rest, ...words];
}

/** The gateway's own environment, with its secrets, stays here. */
function identity(place: Place) {
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

interface Server {
  /** Resolves with the last line that the server wrote, when it has ended. Never rejects. */
  ended: Promise<string>;
}

class Locked extends Error {}

/** Waits for a server that is stopping; a folder that stays in use is refused. */
async function launchUnlocked(place: Place, signal: AbortSignal): Promise<Server> {
  const deadline = Date.now() + STOPPING_MAX_MS;
  while (true) {
    try {
      return await launch(place, signal);
    } catch (error) {
      if (!(error instanceof Locked)) throw error;
      if ((await serverState(place)) !== 'stopping' || Date.now() > deadline) throw error;
      await delay(100, undefined, { signal });
    }
  }
}

/** Line 8 of postmaster.pid. Source: PostgreSQL, src/include/utils/pidfile.h. */
async function serverState(place: Place): Promise<string | undefined> {
  const text = await readFile(join(place.cluster, 'postmaster.pid'), 'utf8').catch(() => '');
  return text.split('\n')[7]?.trim();
}

/** Resolves when the server takes connections. Aborting `signal` stops it, at any time. */
async function launch(place: Place, signal: AbortSignal): Promise<Server> {
  signal.throwIfAborted();
  const child = spawnKeeper(place);
  const stop = () => void shutDown(child, place.log);
  signal.addEventListener('abort', stop, { once: true });
  const tail: string[] = [];
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code) => resolve(code === LOCKED_STATUS ? 'locked' : (tail.at(-1) ?? `exit status ${code}`)));
  }).finally(() => signal.removeEventListener('abort', stop));
  const ready = readLog(child, place, tail, signal);
  const late = AbortSignal.timeout(READY_MAX_MS);
  late.addEventListener('abort', stop, { once: true });
  const failure = await Promise.race([ready, ended]);
  late.removeEventListener('abort', stop);
  if (failure === undefined) return { ended };
  signal.throwIfAborted();
  throw startFailure(place, failure, tail);
}

function startFailure(place: Place, failure: string, tail: readonly string[]): Error {
  if (failure === 'locked' || tail.some((line) => /lock file .* already exists|shared memory block/.test(line))) {
    return new Locked(
      `the data folder ${place.dataDir} is in use by another running gateway: stop it first, or set SALLYPORT_DATA_DIR to another folder`,
    );
  }
  return new Error(`the embedded database in ${place.home} did not start: ${failure}`);
}

function spawnKeeper(place: Place): ChildProcess {
  const pidFiles = [join(place.cluster, 'postmaster.pid'), join(place.runDir, `${SOCKET_NAME}.lock`)];
  const server = [place.binaries.postgres, '-D', place.cluster, ...settings(place).flatMap((pair) => ['-c', pair])];
  const [file, ...args] = command(place, [
    '/bin/sh',
    '-c',
    KEEPER,
    'sh',
    join(place.home, 'lock'),
    ...pidFiles,
    ...server,
  ]);
  // Detached: Ctrl-C in a terminal is for us alone. The database stops last, after the audit rows are closed.
  return spawn(file, args, { ...identity(place), detached: true, stdio: ['pipe', 'ignore', 'pipe'] });
}

function settings(place: Place): string[] {
  return [
    'listen_addresses=',
    `unix_socket_directories=${place.runDir}`,
    'unix_socket_permissions=0700',
    'max_connections=100',
    'shared_buffers=32MB',
    // Fewer processes for a server with one client: no replication, no parallel query, no I/O workers.
    'wal_level=minimal',
    'max_wal_senders=0',
    'max_logical_replication_workers=0',
    'max_parallel_workers=0',
    'io_method=sync',
    'jit=off',
    'lc_messages=C',
    // Its log becomes ours: no statement and no value of a tenant may be in it.
    'log_min_messages=log',
    'log_error_verbosity=terse',
    'log_min_error_statement=panic',
    'log_checkpoints=off',
    ...(place.durable ? [] : ['fsync=off', 'synchronous_commit=off', 'full_page_writes=off']),
  ];
}

/** Resolves with undefined at the line that says the server is ready; keeps the last lines for an error message. */
function readLog(child: ChildProcess, place: Place, tail: string[], signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (child.stderr === null) throw new Error('bug: the server was started without a pipe for its log');
    createInterface({ input: child.stderr }).on('line', (line) => {
      tail.push(line.replace(/^.*?\b(?=LOG:|FATAL:|PANIC:|HINT:)/, ''));
      if (tail.length > 20) tail.shift();
      if (line.includes('database system is ready to accept connections')) resolve(undefined);
      else if (!signal.aborted && /FATAL:|PANIC:|terminated by signal/.test(line)) place.log.warn({ line }, 'postgres');
    });
  });
}

async function shutDown(child: ChildProcess, log: Log): Promise<void> {
  const ended = new Promise((resolve) => child.once('exit', resolve));
  // The keeper's own end may break the pipe first.
  child.stdin?.on('error', () => {}).end();
  for (const signal of ['SIGQUIT', 'SIGKILL'] as const) {
    const waited = new AbortController();
    const done = await Promise.race([
      ended.then(() => true),
      delay(STOP_STEP_MS, false, { signal: waited.signal, ref: false }).catch(() => true),
    ]);
    waited.abort();
    if (done || child.pid === undefined) return;
    log.error({ signal }, 'the embedded database does not stop');
    // The group is the keeper and the server; sessions of the server end by themselves when it is gone.
    process.kill(-child.pid, signal);
  }
}

/** Ends when `signal` aborts and the server is gone. */
async function supervise(place: Place, first: Server, signal: AbortSignal): Promise<void> {
  let server: Server | null = first;
  while (server !== null) {
    const reason = await server.ended;
    if (signal.aborted) return;
    place.log.error({ reason }, 'the embedded database ended by itself and is started again');
    server = await relaunch(place, signal);
  }
}

async function relaunch(place: Place, signal: AbortSignal): Promise<Server | null> {
  for (let waitMs = 100; !signal.aborted; waitMs = Math.min(waitMs * 2, RESTART_MAX_MS)) {
    try {
      return await launch(place, signal);
    } catch (error) {
      if (signal.aborted) return null;
      place.log.error({ err: error }, 'the embedded database could not be started again');
      // Aborted: the loop ends.
      await delay(waitMs, undefined, { signal }).catch(() => {});
    }
  }
  return null;
}
