/**
 * The real process table of this machine, from /proc. Source: proc_pid_stat(5).
 *
 * Zombies count as gone: they run nothing, and in a container nobody may ever collect them.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { waitUntil } from './wait.ts';

export interface ProcessRow {
  pid: number;
  parent: number;
  group: number;
  session: number;
  /** Arguments as the kernel shows them; the command name in brackets where there are none. */
  args: string[];
}

/** Everything that runs now. */
export function processTable(): ProcessRow[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => processRow(Number(name)))
    .filter((row) => row !== null);
}

/** Null: there is no such process, or only its zombie. */
export function processRow(pid: number): ProcessRow | null {
  const stat = readProc(pid, 'stat');
  if (stat === null) return null;
  // The command name stands in parentheses and may hold anything, so fields are counted from the last of them.
  const [state, parent, group, session] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  if (state === 'Z' || state === 'X') return null;
  const args = readProc(pid, 'cmdline')?.split('\0').slice(0, -1) ?? [];
  if (args.length === 0) args.push(`[${stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'))}]`);
  return { pid, parent: Number(parent), group: Number(group), session: Number(session), args };
}

export function isAlive(pid: number): boolean {
  return processRow(pid) !== null;
}

/** Pids of what carries `EXEC_ID=<execId>` in the environment it was started with. */
export function carryingExecId(execId: string): number[] {
  return processTable()
    .map(({ pid }) => pid)
    .filter((pid) => environmentOf(pid).includes(`EXEC_ID=${execId}`));
}

/** `NAME=value` entries as the program got them; empty when it is gone or not ours to read. */
export function environmentOf(pid: number): string[] {
  return readProc(pid, 'environ')?.split('\0').slice(0, -1) ?? [];
}

/** Bytes the process has written so far, to whatever. */
export function bytesWritten(pid: number): number {
  return Number(/^wchar: (\d+)$/m.exec(readProc(pid, 'io') ?? '')?.[1] ?? 0);
}

export async function waitUntilGone(pids: readonly number[], withinMs = 5_000): Promise<void> {
  const left = (): number[] => pids.filter(isAlive);
  await waitUntil(`processes ${pids.join(', ')} are gone`, () => left().length === 0, withinMs).catch(
    (error: Error) => {
      const rows = left().map((pid) => JSON.stringify(processRow(pid)));
      throw new Error(`${error.message}; still there: ${rows.join(' ')}`);
    },
  );
}

/** Ends what a test left on purpose. Returns the pids that had to be killed. */
export function killCarrying(execId: string): number[] {
  const pids = carryingExecId(execId);
  for (const pid of pids) killNow(pid);
  return pids;
}

export function killNow(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    // Ended by itself since we looked.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

function readProc(pid: number, name: string): string | null {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'utf8');
  } catch {
    // Gone since the directory was read, or not ours to look at: both mean that nothing can be said about it.
    return null;
  }
}
