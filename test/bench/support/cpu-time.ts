/**
 * What processes spend in CPU time, user and system, with those that they started. Source: proc_pid_stat(5); only Linux
 * tells it, elsewhere nothing is told.
 */
import { readdirSync, readFileSync } from 'node:fs';

/** The unit of /proc: USER_HZ is 100 wherever Linux runs Node. */
const TICK_US = 10_000;

export interface ProcessTimes {
  pid: number;
  name: string;
  parent: number;
  /** Its own, and that of those of its children that have ended and that it has waited for. */
  cpuUs: number;
}

/** A line of /proc/PID/stat. */
export function parseStat(stat: string): ProcessTimes {
  // The name stands in parentheses and may hold anything, so fields are counted from the last of them.
  const [open, close] = [stat.indexOf('('), stat.lastIndexOf(')')];
  const fields = stat.slice(close + 2).split(' ');
  const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
  const [pid, parent] = [Number(stat.slice(0, open)), Number(fields[1])];
  return { pid, name: stat.slice(open + 1, close), parent, cpuUs: ticks * TICK_US };
}

/** Of a process and all below it; 0 when it is gone. */
export function cpuUsOf(root: number, processes: readonly ProcessTimes[]): number {
  return treeOf(root, processes).reduce((sum, { cpuUs }) => sum + cpuUs, 0);
}

/** The first process of that name below this one, which has started it, perhaps through others. Null: none is to be seen. */
export function startedHere(name: string): number | null {
  return treeOf(process.pid, readProcesses()).find((one) => one.name === name)?.pid ?? null;
}

/** Each before those that it started. */
function treeOf(root: number, processes: readonly ProcessTimes[]): ProcessTimes[] {
  const below = processes.filter(({ parent }) => parent === root);
  return [...processes.filter(({ pid }) => pid === root), ...below.flatMap(({ pid }) => treeOf(pid, processes))];
}

function readProcesses(): ProcessTimes[] {
  if (process.platform !== 'linux') return [];
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        return [parseStat(readFileSync(`/proc/${pid}/stat`, 'utf8'))];
      } catch {
        return []; // Gone since the folder was read.
      }
    });
}

export interface CpuMeter {
  /** Runs a load and reads what it costs each of the processes. */
  during<T extends { calls: number }>(run: () => Promise<T>): Promise<T>;
  /** Of each, µs a call; of all loads but the first `skipped`. Null where nothing is told. */
  perCallUs(skipped: number): Record<string, number> | null;
}

/** `pids`: by the name under which it is told. */
export function createCpuMeter(pids: Readonly<Record<string, number | null>>): CpuMeter {
  const loads: { calls: number; cpuUs: number[] }[] = [];
  const read = (): number[] => {
    const processes = readProcesses();
    return Object.values(pids).map((pid) => (pid === null ? 0 : cpuUsOf(pid, processes)));
  };
  return {
    async during(run) {
      const before = read();
      const load = await run();
      loads.push({ calls: load.calls, cpuUs: read().map((cpuUs, index) => cpuUs - (before[index] ?? 0)) });
      return load;
    },
    perCallUs(skipped) {
      if (Object.values(pids).includes(null)) return null;
      const counted = loads.slice(skipped);
      const calls = counted.reduce((sum, load) => sum + load.calls, 0);
      const spent = (index: number): number => counted.reduce((sum, { cpuUs }) => sum + (cpuUs[index] ?? 0), 0);
      return Object.fromEntries(Object.keys(pids).map((who, index) => [who, Math.round(spent(index) / calls)]));
    },
  };
}
