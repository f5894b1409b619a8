/** Finds and ends the processes that the lab started, also those that left their session or their parent. */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const END_WITHIN_MS = 5_000;
/** Far below the smallest pid_max (32,768): the number of an ended session cannot come back before it is forgotten. */
const FORGET_EVERY = 256;

/** The sessions that were started here, for as long as one of their processes may live. */
export class ProgramSessions {
  readonly #homesDir: string;
  readonly #ids = new Set<number>();
  readonly #ended = new Set<number>();

  /** `homesDir` holds the home of every program started here, and of no other. */
  constructor(homesDir: string) {
    this.#homesDir = homesDir;
  }

  started(sessionId: number): void {
    this.#ended.delete(sessionId);
    this.#ids.add(sessionId);
  }

  /** The first process has ended; others of the session may live on. */
  leaderEnded(sessionId: number): void {
    this.#ended.add(sessionId);
    if (this.#ended.size >= FORGET_EVERY) this.#forgetEmpty();
  }

  /** Kills until nothing is left. Rejects when something will not go. Without /proc only process groups can be reached. */
  async endAll(): Promise<void> {
    await endProcesses((process) => this.#isOurs(process));
    for (const id of this.#ids) if (!this.#ended.has(id)) signalQuietly(-id, 'SIGKILL');
  }

  #isOurs({ pid, sessionId }: ProcessEntry): boolean {
    return (
      this.#ids.has(sessionId) || readEnvironment(pid).some((entry) => entry.startsWith(`HOME=${this.#homesDir}/`))
    );
  }

  #forgetEmpty(): void {
    const living = new Set(listProcesses().map(({ sessionId }) => sessionId));
    for (const id of this.#ended) if (!living.has(id)) this.#ids.delete(id);
    this.#ended.clear();
  }
}

export interface ProcessEntry {
  pid: number;
  parentPid: number;
  sessionId: number;
}

/** Kills what satisfies `test`, with all descendants, until nothing does. Rejects when something will not go. */
export async function endProcesses(test: (process: ProcessEntry) => boolean): Promise<void> {
  const deadlineMs = Date.now() + END_WITHIN_MS;
  for (;;) {
    const left = withDescendants(listProcesses(), test);
    if (left.length === 0) return;
    if (Date.now() > deadlineMs) throw new Error(`processes of the lab will not end: ${left.join(', ')}`);
    for (const pid of left) signalQuietly(pid, 'SIGKILL');
    await sleep(5);
  }
}

function withDescendants(all: readonly ProcessEntry[], test: (process: ProcessEntry) => boolean): number[] {
  const chosen = new Set(all.filter(test).map(({ pid }) => pid));
  let before = -1;
  while (chosen.size > before) {
    before = chosen.size;
    for (const { pid, parentPid } of all) if (chosen.has(parentPid)) chosen.add(pid);
  }
  return [...chosen];
}

/** Every process but this one and zombies. */
export function listProcesses(): ProcessEntry[] {
  const names = readQuietly(() => readdirSync('/proc')) ?? [];
  return names.flatMap((name) => {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) return [];
    return readStat(pid) ?? [];
  });
}

/** Null for a zombie. The name in parentheses may hold spaces and parentheses, so fields are counted from the last one. */
function readStat(pid: number): ProcessEntry | null {
  const text = readQuietly(() => readFileSync(`/proc/${pid}/stat`, 'latin1'));
  if (text === null) return null;
  const [state, parent, , session] = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return state === 'Z' ? null : { pid, parentPid: Number(parent), sessionId: Number(session) };
}

/** As the process was started; empty when it is another user's. */
export function readEnvironment(pid: number): string[] {
  return (readQuietly(() => readFileSync(`/proc/${pid}/environ`, 'latin1')) ?? '').split('\0');
}

/** `pid` may have ended by itself. */
export function signalQuietly(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // ESRCH.
  }
}

/** A process may end between being listed and being read. */
function readQuietly<T>(read: () => T): T | null {
  try {
    return read();
  } catch {
    return null;
  }
}
