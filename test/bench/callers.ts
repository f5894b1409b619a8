/**
 * Rows 5 and 6: a hundred callers at once, each with one kept-alive connection.
 *
 * Row 5 on real sshd, which is the limit there. Row 6 against a server that only answers: what is left is the cost of the
 * gateway itself, and that of everything it asks (PostgreSQL) on the same cores.
 */
import { ASYNCSSH_MISSING, startAsyncssh } from './support/asyncssh.ts';
import type { CommandOps } from './support/command-worker.ts';
import { type CpuMeter, createCpuMeter } from './support/cpu-time.ts';
import { type Entrant, interleave } from './support/interleave.ts';
import { type Load, perSecond } from './support/load.ts';
import { CALLERS, CONNECTIONS, startControlMaster } from './support/peers.ts';
import { atLeast, atMost, type RowResult, ratio, seriesOf } from './support/report.ts';
import { summarize } from './support/stats.ts';
import { FLOOR, type Warm } from './support/warm.ts';
import type { World } from './support/world.ts';

const COMMAND = 'exec /bin/true';

export async function manyCallers(world: World): Promise<RowResult> {
  const { quick, signal } = world;
  const forMs = quick ? 500 : 2_500;
  const host = await world.sshd();
  const warm = await world.warm();
  const { gateway, http, bash } = warm;
  const commands = await world.worker<CommandOps>('command-worker.ts');
  const [bare, floor] = [await warm.bare(host, CONNECTIONS), await warm.floor(host)];
  const master = await startControlMaster(world, host, { name: 'many', commands });
  const keyFile = await world.keyFile();
  const asyncssh = await startAsyncssh({ ...host, keyFile, connections: CONNECTIONS });
  if (asyncssh !== null) world.atEnd(() => asyncssh.stop());

  const how = { callers: CALLERS, forMs };
  const cpu = meterOf(world, warm, 'sshd');
  const rateOf = async (load: Promise<Load>): Promise<number> => perSecond(await load);
  const warmUps = 1;
  const runs = quick ? 150 : 800;
  const entrants: Entrant[] = [
    {
      name: 'gateway',
      run: () => rateOf(cpu.during(() => http.ask('load', { ...gateway.exec('real', ['/bin/true']), ...how }))),
    },
    { name: 'bare ssh2', run: () => rateOf(bare.ask('load', { ...how, command: COMMAND })) },
    { name: 'local bash server', run: () => rateOf(http.ask('load', { ...bash('/bin/true'), ...how })) },
    { name: FLOOR, run: () => rateOf(http.ask('load', { ...floor(COMMAND), ...how })) },
    {
      name: 'xargs -P 100 ssh, ControlMaster',
      async run() {
        const args = ['-P', String(CALLERS), '-I{}', 'ssh', ...master, `${COMMAND} {}`];
        const input = Array.from({ length: runs }, (_, index) => `${index}\n`).join('');
        return runs / ((await commands.ask('time', { file: 'xargs', args, input })) / 1000);
      },
    },
  ];
  if (asyncssh !== null)
    entrants.push({ name: 'asyncssh', run: () => rateOf(asyncssh.load({ ...how, command: COMMAND })) });
  const samples = await interleave(entrants, { rounds: quick ? 1 : 5, warmUps, signal });
  const series = seriesOf(samples, 'exec/s');
  const against = (name: string): number => ratio(series, 'gateway', name);
  return {
    row: 5,
    title: `${CALLERS} callers on real sshd`,
    series,
    ratios: [
      { what: 'gateway / bare ssh2', value: against('bare ssh2'), goal: atLeast(0.85) },
      { what: 'gateway / local bash server', value: against('local bash server'), goal: atLeast(1.4) },
      {
        what: 'gateway / xargs + ControlMaster',
        value: against('xargs -P 100 ssh, ControlMaster'),
        goal: atLeast(3),
      },
      { what: 'floor / bare ssh2', value: ratio(series, FLOOR, 'bare ssh2'), goal: null },
      { what: 'gateway / floor', value: against(FLOOR), goal: null },
      ...(asyncssh === null ? [] : [{ what: 'gateway / asyncssh', value: against('asyncssh'), goal: null }]),
    ],
    ...spentPerExec(cpu, warmUps),
    notes: asyncssh === null ? [...warm.notes, ASYNCSSH_MISSING] : warm.notes,
  };
}

export async function ownCost(world: World): Promise<RowResult> {
  const { quick, signal } = world;
  const how = { callers: CALLERS, forMs: quick ? 700 : 3_000 };
  const host = await world.answering();
  const warm = await world.warm();
  const { gateway, http } = warm;
  const [bare, floor] = [await warm.bare(host, CONNECTIONS), await warm.floor(host)];

  const loads = new Map<string, Load[]>();
  const entrant = (name: string, load: () => Promise<Load>): Entrant => ({
    name,
    async run() {
      const done = await load();
      loads.set(name, [...(loads.get(name) ?? []), done]);
      return perSecond(done);
    },
  });
  const cpu = meterOf(world, warm, 'answering');
  const entrants = [
    entrant('gateway', () =>
      cpu.during(() => http.ask('load', { ...gateway.exec('answering', ['/bin/true']), ...how })),
    ),
    entrant(FLOOR, () => http.ask('load', { ...floor(COMMAND), ...how })),
    entrant('bare ssh2', () => bare.ask('load', { ...how, command: COMMAND })),
  ];
  const warmUps = quick ? 1 : 2;
  const rates = await interleave(entrants, { rounds: quick ? 3 : 5, warmUps, signal });
  const latencies = new Map(
    entrants.map(({ name }) => [
      name,
      (loads.get(name) ?? []).slice(warmUps).flatMap(({ latenciesMs }) => latenciesMs),
    ]),
  );
  const series = [...seriesOf(rates, 'exec/s'), ...seriesOf(latencies, 'ms')];
  const { p99, median } = summarize(latencies.get('gateway') ?? []);
  return {
    row: 6,
    title: `the gateway's own cost: ${CALLERS} callers, a server that only answers`,
    series,
    ratios: [
      { what: 'gateway / bare ssh2', value: ratio(series, 'gateway', 'bare ssh2'), goal: atLeast(0.25, 0.45) },
      { what: 'gateway, p99 / p50', value: p99 / median, goal: atMost(2.5) },
      { what: 'floor / bare ssh2', value: ratio(series, FLOOR, 'bare ssh2'), goal: null },
      { what: 'gateway / floor', value: ratio(series, 'gateway', FLOOR), goal: null },
    ],
    ...spentPerExec(cpu, warmUps),
    notes: warm.notes,
  };
}

/** Of all that takes part when the gateway is asked. */
function meterOf(world: World, { gateway, http }: Warm, sshServer: 'sshd' | 'answering'): CpuMeter {
  return createCpuMeter({
    gateway: gateway.pid,
    PostgreSQL: world.serverPid('postgres'),
    'SSH server': world.serverPid(sshServer),
    caller: http.pid,
  });
}

function spentPerExec(cpu: CpuMeter, skipped: number): Pick<RowResult, 'cpuUsPerExec'> {
  const cpuUsPerExec = cpu.perCallUs(skipped);
  return cpuUsPerExec === null ? {} : { cpuUsPerExec };
}
