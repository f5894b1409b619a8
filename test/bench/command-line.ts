/** Row 9: what a person at a prompt waits for: `sallyport --version` and a whole exec, beside an empty node and cold `ssh`. */
import { fileURLToPath } from 'node:url';
import type { CommandOps } from './support/command-worker.ts';
import { interleave } from './support/interleave.ts';
import { atMost, type RowResult, ratio, seriesOf } from './support/report.ts';
import type { World } from './support/world.ts';

const MAIN = fileURLToPath(new URL('../../dist/main.js', import.meta.url));

export async function commandLine(world: World): Promise<RowResult> {
  const host = await world.sshd();
  const gateway = await world.gateway();
  const commands = await world.worker<CommandOps>('command-worker.ts');
  const ssh = await world.sshArgs(host);
  const env = { SALLYPORT_URL: gateway.url, SALLYPORT_TOKEN: gateway.token };
  const node = (...args: string[]): Promise<number> => commands.ask('time', { file: process.execPath, args, env });
  const entrants = [
    { name: 'node -e 0', run: () => node('-e', '0') },
    { name: 'sallyport --version', run: () => node(MAIN, '--version') },
    { name: 'sallyport exec', run: () => node(MAIN, 'exec', 'real', '--', '/bin/true') },
    { name: 'ssh, cold', run: () => commands.ask('time', { file: 'ssh', args: [...ssh, 'exec /bin/true'] }) },
  ];
  const { quick, signal } = world;
  const samples = await interleave(entrants, { rounds: quick ? 10 : 40, warmUps: 3, signal });
  const series = seriesOf(samples, 'ms');
  const against = (name: string, of: string): number => ratio(series, name, of);
  return {
    row: 9,
    title: 'the command line',
    series,
    ratios: [
      { what: '--version / empty node', value: against('sallyport --version', 'node -e 0'), goal: atMost(1.2) },
      { what: 'exec / empty node', value: against('sallyport exec', 'node -e 0'), goal: atMost(1.35) },
      { what: 'exec / ssh, cold', value: against('sallyport exec', 'ssh, cold'), goal: atMost(0.6) },
    ],
    notes: [],
  };
}
