/**
 * Row 9: what a person at a prompt waits for: `sallyport --version` and a whole exec, beside an empty node, the same exec
 * as a script of one `http.request` without any checks, which is the floor, and cold `ssh`.
 */
import { fileURLToPath } from 'node:url';
import type { CommandOps } from './support/command-worker.ts';
import { interleave } from './support/interleave.ts';
import { atMost, type RowResult, ratio, seriesOf } from './support/report.ts';
import type { World } from './support/world.ts';

const MAIN = fileURLToPath(new URL('../../dist/main.js', import.meta.url));

const ONE_REQUEST = `
const { hostname, port } = new URL(process.env.SALLYPORT_URL);
const body = '{"cmd":["/bin/true"]}';
const headers = { authorization: 'Bearer ' + process.env.SALLYPORT_TOKEN, accept: 'application/x-ndjson',
  'content-type': 'application/json', 'content-length': body.length };
const request = require('node:http').request({ hostname, port, path: '/workspaces/real/exec', method: 'POST', headers });
request.on('response', (response) => {
  let text = '';
  response.on('data', (chunk) => (text += chunk));
  response.on('end', () => process.exit(JSON.parse(text.trim().split('\\n').at(-1)).exit_code));
});
request.end(body);`;

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
    { name: 'one http.request', run: () => node('-e', ONE_REQUEST) },
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
      { what: 'exec / one http.request', value: against('sallyport exec', 'one http.request'), goal: null },
      { what: 'exec / ssh, cold', value: against('sallyport exec', 'ssh, cold'), goal: atMost(0.6) },
    ],
    notes: [],
  };
}
