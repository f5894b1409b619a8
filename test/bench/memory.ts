/**
 * Row 8: what a caller that does not read costs in the gateway, and what an idle connection to a host does.
 *
 * Measured is the resident memory of the gateway's process, which has it all: heaps, buffers outside of them, native code's
 * own. Each is a difference between few and many of a kind in a process that has never held more, because what a process
 * has had it does not give back. It collects its garbage four times a second, so that what is held is counted and not what
 * lies about.
 */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { waitUntil } from '../support/wait.ts';
import type { CommandOps } from './support/command-worker.ts';
import type { GatewayProcess } from './support/gateway-process.ts';
import { startControlMaster, startHttpCaller } from './support/peers.ts';
import { atMost, type Ratio, type RowResult, type Series, seriesOf } from './support/report.ts';
import type { StallingOps } from './support/stalling-worker.ts';
import { median } from './support/stats.ts';
import type { World } from './support/world.ts';

/**
 * Collecting so often, V8 would drop the bytecode of what has not run for a while, and its young generation breathes by tens
 * of MiB: more than 500 connections hold.
 */
const NODE_ARGS = [
  '--import',
  new URL('../fixtures/collect-garbage.mjs', import.meta.url).href,
  '--no-flush-bytecode',
  '--max-semi-space-size=1',
];
const READERS = 50;
/** There before, so that what is made once is not counted. */
const READERS_BEFORE = 10;
const IDLE_BEFORE = 50;
const IDLE = { full: 500, quick: 50 };
/** Far below what one host's connections allow. */
const AT_ONCE = 8;
const KIB = 1024;
const MIB = 1024 * KIB;
const SAMPLE_EVERY_MS = 250;
/** Still: for this long within this much; a process that is not still by then is taken as it is. */
const STILL_FOR_MS = { full: 2_000, quick: 1_000 };
const STILL_WITHIN_BYTES = MIB;
const STILL_MAX_MS = { full: 15_000, quick: 4_000 };

const PROGRAMS = [
  { name: 'endless output', script: 'exec yes' },
  { name: 'endless output, stderr trickling', script: 'while :; do echo x >&2; sleep 0.5; done & exec yes' },
];

export async function memory(world: World): Promise<RowResult> {
  const parts: Part[] = [];
  // The harder one of them is enough for a look.
  for (const program of world.quick ? PROGRAMS.slice(-1) : PROGRAMS) parts.push(await stalledReaders(world, program));
  parts.push(await idleConnections(world));
  return {
    row: 8,
    title: 'memory of the gateway: stalled readers, idle connections',
    series: parts.flatMap(({ series }) => series),
    ratios: parts.flatMap(({ ratios }) => ratios),
    notes: [
      `${READERS} readers beside ${READERS_BEFORE}, ${idleCount(world)} connections beside ${IDLE_BEFORE}; resident memory, garbage collected every 250 ms`,
      'ControlMaster: private memory of its process',
    ],
  };
}

interface Part {
  series: Series[];
  ratios: Ratio[];
}

function startGateway(world: World): Promise<GatewayProcess> {
  return world.newGateway({ nodeArgs: NODE_ARGS });
}

async function stalledReaders(world: World, { name, script }: (typeof PROGRAMS)[number]): Promise<Part> {
  const host = await world.sshd();
  const gateway = await startGateway(world);
  await gateway.addWorkspace('real', { port: host.port, osUser: host.username });
  const [http, stalling] = [await startHttpCaller(world), await world.worker<StallingOps>('stalling-worker.ts')];
  const [settleMs, watchMs] = world.quick ? [1_000, 2_000] : [4_000, 12_000];
  const target = gateway.exec('real', ['/bin/sh', '-c', script], { max_output_bytes: 2 ** 30, timeout_s: 120 });
  const stall = async (readers: number): Promise<void> => {
    await stalling.ask('stall', { ...target, readers });
    await pause(world, settleMs);
  };

  await http.ask('load', { ...gateway.exec('real', ['/bin/true']), callers: READERS_BEFORE, forMs: 1_500 });
  await stall(READERS_BEFORE);
  const before = await whenStill(world, gateway.pid);
  await stall(READERS);
  const held = (await watch(world, gateway.pid, watchMs)).map((bytes) => (bytes - before) / READERS / MIB);
  const running = await gateway.gauge('execs_running');
  if (running !== READERS_BEFORE + READERS) throw new Error(`expected every program to run, got ${running}`);
  await stalling.ask('hangUp', {});
  await waitUntil('no exec runs', async () => (await gateway.gauge('execs_running')) === 0, 30_000);
  await gateway.stop();

  const half = Math.floor(held.length / 2);
  return {
    series: seriesOf(new Map([[name, held]]), 'MiB/reader'),
    ratios: [
      { what: `${name}: MiB a reader`, value: median(held), goal: atMost(3) },
      {
        what: `${name}: MiB a reader, growth from the first to the second half of ${watchMs / 1000} s`,
        value: median(held.slice(half)) - median(held.slice(0, half)),
        goal: atMost(0.1),
      },
    ],
  };
}

function idleCount({ quick }: World): number {
  return quick ? IDLE.quick : IDLE.full;
}

async function idleConnections(world: World): Promise<Part> {
  const host = await world.answering();
  const gateway = await startGateway(world);
  const callers = await Promise.all(Array.from({ length: AT_ONCE }, () => startHttpCaller(world)));
  const commands = await world.worker<CommandOps>('command-worker.ts');
  const count = idleCount(world);
  const inLanes = (
    from: number,
    to: number,
    act: (index: number, http: (typeof callers)[number]) => Promise<unknown>,
  ) =>
    Promise.all(
      callers.map(async (http, lane) => {
        for (let index = from + lane; index < to; index += AT_ONCE) {
          world.signal.throwIfAborted();
          await act(index, http);
        }
      }),
    );
  const open = (from: number, to: number): Promise<unknown> =>
    inLanes(from, to, (index, http) => http.ask('once', gateway.exec(`idle-${index}`, ['/bin/true'])));
  await inLanes(0, IDLE_BEFORE + count, (index) => {
    const address = `127.1.${Math.floor(index / 250)}.${1 + (index % 250)}`;
    return gateway.addWorkspace(`idle-${index}`, { host: address, port: host.port, osUser: host.username });
  });
  await open(0, IDLE_BEFORE);
  await callers[0]?.ask('load', { ...gateway.exec('idle-0', ['/bin/true']), callers: AT_ONCE, forMs: 1_500 });
  const before = await whenStill(world, gateway.pid);
  const sessionsBefore = await gateway.gauge('pool_sessions');
  await open(IDLE_BEFORE, IDLE_BEFORE + count);
  await whenStill(world, gateway.pid);
  const after = await watch(world, gateway.pid, 2_500);
  const opened = (await gateway.gauge('pool_sessions')) - sessionsBefore;
  if (opened !== count) throw new Error(`expected ${count} connections more, got ${opened}`);

  await gateway.stop();
  const held = after.map((bytes) => (bytes - before) / count / KIB);
  if (median(held) <= 0) throw new Error(`expected ${count} connections to hold memory, got ${median(held)} KiB each`);
  const master = await masterBytes(world, commands);
  const samples = new Map([
    ['idle connection', held],
    ['ssh, ControlMaster', [master / KIB]],
  ]);
  return {
    series: seriesOf(samples, 'KiB'),
    ratios: [{ what: 'an idle connection, KiB', value: median(held), goal: atMost(64) }],
  };
}

/** Private memory of one process that holds one connection. */
async function masterBytes(world: World, commands: Parameters<typeof startControlMaster>[2]['commands']) {
  const words = await startControlMaster(world, await world.sshd(), { name: 'idle', commands });
  const { stderr } = await promisify(execFile)('ssh', ['-O', 'check', ...words]);
  const pid = /pid=(\d+)/.exec(stderr)?.[1];
  if (pid === undefined) throw new Error(`expected the pid of the ControlMaster, got ${stderr}`);
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const kib = [...rollup.matchAll(/^Private_(?:Clean|Dirty): +(\d+) kB$/gm)].map(([, text]) => Number(text));
  return kib.reduce((sum, one) => sum + one, 0) * KIB;
}

/** Resident memory when it has stopped to change much. */
async function whenStill(world: World, pid: number): Promise<number> {
  const size = world.quick ? 'quick' : 'full';
  const lateMs = performance.now() + STILL_MAX_MS[size];
  for (;;) {
    const samples = await watch(world, pid, STILL_FOR_MS[size]);
    const range = Math.max(...samples) - Math.min(...samples);
    if (range <= STILL_WITHIN_BYTES || performance.now() > lateMs) return median(samples);
  }
}

/** Resident memory of a process, again and again for a while. Source: proc_pid_status(5). */
async function watch(world: World, pid: number, forMs: number): Promise<number[]> {
  const samples: number[] = [];
  for (const until = performance.now() + forMs; performance.now() < until; ) {
    const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    samples.push(Number(kib) * KIB);
    await pause(world, SAMPLE_EVERY_MS);
  }
  return samples;
}

/** Rejects when the run is broken off. */
async function pause({ signal }: World, ms: number): Promise<void> {
  await sleep(ms, undefined, { signal });
}
