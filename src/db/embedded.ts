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
import { type ChildProcess, spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { command, createCluster, identity, type Place, preparePlace, removeRunDir, SOCKET_NAME } from './cluster.ts';
import type { Log } from './log.ts';
import { chooseLauncher, findBinaries, type Launcher } from './postgres-binaries.ts';

/** Crash recovery replays at most max_wal_size (1 GB). */
const READY_MAX_MS = 120_000;
/** A server whose owner was killed needs a moment to stop; `flock` waits this long for it. */
const LOCK_WAIT_S = 1;
/** The same when its pid file says that it is stopping: its last checkpoint may be long. */
const STOPPING_MAX_MS = 60_000;
/** From "stop, ending sessions" to "stop at once", and from there to KILL. */
const STOP_STEP_MS = 15_000;
const RESTART_MAX_MS = 5_000;
/** sysexits EX_TEMPFAIL, said by the shell below when the folder is locked. */
const LOCKED_STATUS = 75;

/**
 * $1 the lock, $2 and $3 the server's own pid files (stale for whoever has the lock), then the command. INT asks for a fast
 * shutdown; it is repeated because a server that has only just been forked does not hear it. The watcher keeps neither our
 * end of the log nor the lock, so both say when the server itself is gone.
 */
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
(read -r line <&3; while kill -INT $server; do sleep 1; done) 2>/dev/null 4>&- &
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
  /** How to run the programs; found out when absent. */
  launcher?: Launcher;
}

export interface Embedded {
  url: string;
  /** Ends every session and stops the server. Safe to call twice. */
  stop(): Promise<void>;
}

/**
 * Starts the server on `dataDir` (made when missing, 0700) and keeps it running: when it dies, it is started again.
 * Rejects with one sentence when the folder is in use by a living gateway or the server cannot run here.
 */
export async function startEmbedded(options: EmbeddedOptions): Promise<Embedded> {
  const { dataDir, log, durable = true } = options;
  const binaries = await findBinaries();
  const launcher = options.launcher ?? (await chooseLauncher());
  const place = await preparePlace({ dataDir, log, durable, binaries, launcher });
  const stopping = new AbortController();
  try {
    await createCluster(place);
    const server = await launchUnlocked(place, stopping.signal);
    const supervised = supervise(place, server, stopping.signal);
    return { url: urlOfSocket(place.runDir), stop: () => stop(place, stopping, supervised) };
  } catch (error) {
    await removeRunDir(place);
    throw error;
  }
}

/** Of the server whose socket is in `folder`. */
export function urlOfSocket(folder: string): string {
  return `postgresql://postgres@localhost/postgres?host=${encodeURIComponent(folder)}&sslmode=disable`;
}

async function stop(place: Place, stopping: AbortController, supervised: Promise<void>): Promise<void> {
  stopping.abort();
  await supervised;
  await removeRunDir(place);
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
    // Not `exit`: the log is read to its end, and every process of the server is gone.
    child.once('close', (code) => resolve(code === LOCKED_STATUS ? 'locked' : (tail.at(-1) ?? `exit status ${code}`)));
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
  const child = spawn(file, args, { ...identity(place), detached: true, stdio: ['pipe', 'ignore', 'pipe'] });
  // Nothing is ever written to it; that the keeper has closed its end is told by its exit.
  child.stdin.on('error', () => {});
  return child;
}

function settings(place: Place): string[] {
  return [
    'listen_addresses=',
    // A list: quoted, so that a comma or a space in the path is part of it.
    `unix_socket_directories="${place.runDir.replaceAll('"', '""')}"`,
    'unix_socket_permissions=0700',
    'max_connections=200',
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
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('close', resolve));
  child.stdin?.end();
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
    killGroup(child.pid, signal);
  }
}

function killGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch (error) {
    // It ended since we looked.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
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
