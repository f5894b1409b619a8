/**
 * Rows 1 and 2: one exec of /bin/true where everything is open already, from the call to the end of its answer.
 *
 * The gateway does all that it does for a tenant (token, gates, audit row on a durable PostgreSQL, Express, bootstrap); its
 * caller keeps one HTTP connection. Row 2 puts 20 ms of round trip between the gateway, or the peer, and sshd.
 */
import { ASYNCSSH_MISSING, startAsyncssh } from './support/asyncssh.ts';
import type { CommandOps } from './support/command-worker.ts';
import { type Entrant, interleave } from './support/interleave.ts';
import { startBareSsh2, startBashServer, startControlMaster, startHttpCaller } from './support/peers.ts';
import { atMost, type RowResult, ratio, seriesOf } from './support/report.ts';
import type { World } from './support/world.ts';

const COMMAND = 'exec /bin/true';
/** Cold `ssh` takes forty times as long as the others. */
const COLD_EVERY = 10;
/** What has run for days has its hot code compiled: before the rounds everybody with a compiler gets a few seconds of load. */
const WARMING_CALLERS = 4;

export async function warmExec(world: World): Promise<RowResult> {
  const host = await world.sshd();
  const gateway = await world.gateway();
  const [http, commands] = [await startHttpCaller(world), await world.worker<CommandOps>('command-worker.ts')];
  const bare = await startBareSsh2(world, host);
  const bash = await startBashServer(world);
  const master = await startControlMaster(world, host, { name: 'near', commands });
  const cold = await world.sshArgs(host);
  const asyncssh = await startAsyncssh({ ...host, keyFile: await world.keyFile(), connections: 1 });
  if (asyncssh !== null) world.atEnd(() => asyncssh.stop());

  const entrants: Entrant[] = [
    { name: 'gateway', run: () => http.ask('once', gateway.exec('real', ['/bin/true'])) },
    { name: 'bare ssh2', run: () => bare.ask('once', { command: COMMAND }) },
    { name: 'local bash server', run: () => http.ask('once', bash('/bin/true')) },
    { name: 'ssh, ControlMaster', run: () => commands.ask('time', { file: 'ssh', args: [...master, COMMAND] }) },
    {
      name: 'ssh, cold',
      every: COLD_EVERY,
      run: () => commands.ask('time', { file: 'ssh', args: [...cold, COMMAND] }),
    },
  ];
  if (asyncssh !== null) entrants.push({ name: 'asyncssh', run: () => asyncssh.once(COMMAND) });
  const { quick, signal } = world;
  const warming = { callers: WARMING_CALLERS, forMs: quick ? 1_000 : 3_000 };
  await http.ask('load', { ...gateway.exec('real', ['/bin/true']), ...warming });
  await bare.ask('load', { command: COMMAND, ...warming });
  await http.ask('load', { ...bash('/bin/true'), ...warming });
  const samples = await interleave(entrants, { rounds: quick ? 60 : 300, warmUps: quick ? 20 : 50, signal });
  const series = seriesOf(samples, 'ms');
  return {
    row: 1,
    title: 'warm exec of /bin/true',
    series,
    ratios: [
      { what: 'gateway / bare ssh2', value: ratio(series, 'gateway', 'bare ssh2'), goal: atMost(1.5, 1.35) },
      {
        what: 'gateway / local bash server',
        value: ratio(series, 'gateway', 'local bash server'),
        goal: atMost(1),
      },
      ...entrants
        .filter(({ name }) => name !== 'gateway' && name !== 'bare ssh2')
        .map(({ name }) => ({ what: `${name} / bare ssh2`, value: ratio(series, name, 'bare ssh2'), goal: null })),
    ],
    notes: asyncssh === null ? [ASYNCSSH_MISSING] : [],
  };
}

export async function farExec(world: World): Promise<RowResult> {
  const host = await world.far();
  const gateway = await world.gateway();
  const [http, commands] = [await startHttpCaller(world), await world.worker<CommandOps>('command-worker.ts')];
  const bare = await startBareSsh2(world, host);
  const master = await startControlMaster(world, host, { name: 'far', commands });
  const entrants: Entrant[] = [
    { name: 'gateway', run: () => http.ask('once', gateway.exec('far', ['/bin/true'])) },
    { name: 'bare ssh2', run: () => bare.ask('once', { command: COMMAND }) },
    { name: 'ssh, ControlMaster', run: () => commands.ask('time', { file: 'ssh', args: [...master, COMMAND] }) },
  ];
  const { quick, signal } = world;
  const warming = { callers: WARMING_CALLERS, forMs: quick ? 1_000 : 3_000 };
  await http.ask('load', { ...gateway.exec('far', ['/bin/true']), ...warming });
  await bare.ask('load', { command: COMMAND, ...warming });
  const samples = await interleave(entrants, { rounds: quick ? 20 : 100, warmUps: quick ? 5 : 15, signal });
  const series = seriesOf(samples, 'ms');
  return {
    row: 2,
    title: 'the same over a link of 20 ms round trip',
    series,
    ratios: [
      { what: 'gateway / bare ssh2', value: ratio(series, 'gateway', 'bare ssh2'), goal: atMost(0.65, 0.57) },
      {
        what: 'ssh, ControlMaster / bare ssh2',
        value: ratio(series, 'ssh, ControlMaster', 'bare ssh2'),
        goal: null,
      },
    ],
    notes: [],
  };
}
