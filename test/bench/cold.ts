/**
 * Row 3: the first exec on a host to which nothing is open, against `ssh` started anew.
 *
 * Storing a host's keys anew retires the gateway's session to it, so every round of it begins with TCP; the caller's own
 * HTTP connection is open, as that of a tool that has asked before. The second half opens EC2 instances of the lab: how near
 * the overlapped calls come to the longest chain among them.
 */
import type { CommandOps } from './support/command-worker.ts';
import type { FirstConnectionOps } from './support/first-connection.ts';
import { type Entrant, interleave } from './support/interleave.ts';
import { startHttpCaller } from './support/peers.ts';
import { atMost, type Ratio, type RowResult, ratio, type Series, seriesOf } from './support/report.ts';
import type { Ssh2Ops } from './support/ssh2-worker.ts';
import type { World } from './support/world.ts';

const COMMAND = 'exec /bin/true';
const LATENCIES_MS = { full: [0, 50, 100], quick: [0, 50] };

export async function coldExec(world: World): Promise<RowResult> {
  const direct = await coldHost(world);
  const lab = await coldInstance(world);
  return {
    row: 3,
    title: 'first exec on a cold host',
    series: [...direct.series, ...lab.series],
    ratios: [...direct.ratios, ...lab.ratios],
    notes: ['lab: +n ms stands for a delay of n ms in every answer of the lab'],
  };
}

interface Part {
  series: Series[];
  ratios: Ratio[];
}

async function coldHost(world: World): Promise<Part> {
  const host = await world.sshd();
  // Of its own, so that no session of another row is open.
  const gateway = await world.newGateway();
  await gateway.addWorkspace('real', { port: host.port, osUser: host.username });
  const [http, commands] = [await startHttpCaller(world), await world.worker<CommandOps>('command-worker.ts')];
  const bare = await world.worker<Ssh2Ops>('ssh2-worker.ts');
  const ssh = await world.sshArgs(host);
  const target = gateway.exec('real', ['/bin/true']);
  const entrants: Entrant[] = [
    {
      name: 'gateway',
      async run() {
        await gateway.admin('PUT', '/workspaces/real/host-keys', { keys: [world.hostKeyLine()] });
        if ((await gateway.gauge('pool_sessions')) !== 0)
          throw new Error('expected no open session before a cold exec');
        return await http.ask('once', target);
      },
    },
    { name: 'ssh', run: () => commands.ask('time', { file: 'ssh', args: [...ssh, COMMAND] }) },
    { name: 'bare ssh2, tuned', run: () => bare.ask('cold', { ...host, command: COMMAND, tuned: true }) },
    { name: 'bare ssh2, by default', run: () => bare.ask('cold', { ...host, command: COMMAND, tuned: false }) },
  ];
  const { quick, signal } = world;
  await http.ask('load', { ...target, callers: 4, forMs: quick ? 1_000 : 3_000 });
  const samples = await interleave(entrants, { rounds: quick ? 10 : 30, warmUps: quick ? 3 : 8, signal });
  const series = seriesOf(samples, 'ms');
  return {
    series,
    ratios: [
      { what: 'gateway / ssh', value: ratio(series, 'gateway', 'ssh'), goal: atMost(0.3, 0.2) },
      { what: 'gateway / bare ssh2, tuned', value: ratio(series, 'gateway', 'bare ssh2, tuned'), goal: null },
    ],
  };
}

async function coldInstance(world: World): Promise<Part> {
  const { quick, signal } = world;
  const lab = await world.worker<FirstConnectionOps>('first-connection.ts');
  const part: Part = { series: [], ratios: [] };
  try {
    for (const latencyMs of quick ? LATENCIES_MS.quick : LATENCIES_MS.full) {
      await lab.ask('setLatency', { latencyMs });
      const ways = { overlapped: [] as number[], 'one after another': [] as number[], 'longest chain': [] as number[] };
      for (let round = -1; round < (quick ? 3 : 9); round += 1) {
        signal.throwIfAborted();
        const { overlappedMs, sequentialMs, longestChainMs } = await lab.ask('measure', { round: round + 1 });
        if (round < 0) continue; // Warms up.
        ways.overlapped.push(overlappedMs);
        ways['one after another'].push(sequentialMs);
        ways['longest chain'].push(longestChainMs);
      }
      const named = Object.entries(ways).map(([way, times]): [string, number[]] => [
        `lab +${latencyMs} ms, ${way}`,
        times,
      ]);
      const series = seriesOf(new Map(named), 'ms');
      const [overlapped, sequential, chain] = named.map(([name]) => name) as [string, string, string];
      part.series.push(...series);
      part.ratios.push(
        {
          what: `lab +${latencyMs} ms, overlapped / longest chain`,
          value: ratio(series, overlapped, chain),
          // Without delays it is all computing in one process, which nothing overlaps.
          goal: latencyMs === 0 ? null : atMost(1.15),
        },
        {
          what: `lab +${latencyMs} ms, overlapped / one after another`,
          value: ratio(series, overlapped, sequential),
          goal: null,
        },
      );
    }
  } finally {
    await lab.ask('stop', {});
  }
  return part;
}
