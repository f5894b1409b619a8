/**
 * Rows 1 and 2: one exec of /bin/true where everything is open already, from the call to the end of its answer.
 *
 * The gateway does all that it does for a tenant (token, gates, audit row on a durable PostgreSQL, Express, bootstrap); its
 * caller keeps one HTTP connection. Row 2 puts 20 ms of round trip between the gateway, or the peer, and sshd.
 */
import { ASYNCSSH_MISSING, startAsyncssh } from './support/asyncssh.ts';
import type { CommandOps } from './support/command-worker.ts';
import { type Entrant, interleave, type Rounds } from './support/interleave.ts';
import { startControlMaster } from './support/peers.ts';
import { atMost, type RowResult, ratio, type Series, seriesOf } from './support/report.ts';
import { FLOOR } from './support/warm.ts';
import type { SshHost, World } from './support/world.ts';

const COMMAND = 'exec /bin/true';
/** Cold `ssh` takes forty times as long as the others. */
const COLD_EVERY = 10;

export async function warmExec(world: World): Promise<RowResult> {
  const host = await world.sshd();
  const { http, bash, floor, notes } = await world.warm();
  const common = await commonEntrants(world, { workspace: 'real', host });
  const [cold, keyFile] = [await world.sshArgs(host), await world.keyFile()];
  const asyncssh = await startAsyncssh({ ...host, keyFile, connections: 1 });
  if (asyncssh !== null) world.atEnd(() => asyncssh.stop());

  const atFloor = (await floor(host))(COMMAND);
  const others: Entrant[] = [
    { name: 'local bash server', run: () => http.ask('once', bash('/bin/true')) },
    { name: FLOOR, run: () => http.ask('once', atFloor) },
    { name: 'ssh, cold', every: COLD_EVERY, run: () => common.time([...cold, COMMAND]) },
  ];
  if (asyncssh !== null) others.push({ name: 'asyncssh', run: () => asyncssh.once(COMMAND) });
  const { quick } = world;
  const entrants = [...common.entrants, ...others];
  const series = await measure(world, entrants, { rounds: quick ? 40 : 300, warmUps: quick ? 20 : 50 });
  const peers = ['local bash server', 'ssh, ControlMaster', 'ssh, cold', ...(asyncssh === null ? [] : ['asyncssh'])];
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
      { what: 'floor / bare ssh2', value: ratio(series, FLOOR, 'bare ssh2'), goal: null },
      { what: 'gateway / floor', value: ratio(series, 'gateway', FLOOR), goal: null },
      ...peers.map((name) => ({ what: `${name} / bare ssh2`, value: ratio(series, name, 'bare ssh2'), goal: null })),
    ],
    notes: asyncssh === null ? [...notes, ASYNCSSH_MISSING] : notes,
  };
}

export async function farExec(world: World): Promise<RowResult> {
  const host = await world.far();
  const { notes } = await world.warm();
  const { entrants } = await commonEntrants(world, { workspace: 'far', host });
  const { quick } = world;
  const series = await measure(world, entrants, { rounds: quick ? 20 : 100, warmUps: quick ? 5 : 15 });
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
    notes,
  };
}

/** Who is measured in both rows; `time`: an `ssh` of this machine. */
async function commonEntrants(
  world: World,
  { workspace, host }: { workspace: string; host: SshHost },
): Promise<{ entrants: Entrant[]; time(args: string[]): Promise<number> }> {
  const warm = await world.warm();
  const commands = await world.worker<CommandOps>('command-worker.ts');
  const bare = await warm.bare(host);
  const master = await startControlMaster(world, host, { name: workspace, commands });
  const target = warm.gateway.exec(workspace, ['/bin/true']);
  const time = (args: string[]): Promise<number> => commands.ask('time', { file: 'ssh', args });
  return {
    time,
    entrants: [
      { name: 'gateway', run: () => warm.http.ask('once', target) },
      { name: 'bare ssh2', run: () => bare.ask('once', { command: COMMAND }) },
      { name: 'ssh, ControlMaster', run: () => time([...master, COMMAND]) },
    ],
  };
}

async function measure(world: World, entrants: Entrant[], rounds: Omit<Rounds, 'signal'>): Promise<Series[]> {
  return seriesOf(await interleave(entrants, { ...rounds, signal: world.signal }), 'ms');
}
