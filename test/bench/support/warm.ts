/**
 * The gateway and its peers as they are after days of service. V8 compiles what has run often: in its first 10,000 execs the
 * CPU time that the gateway takes for one falls to less than half, while its peers have little code to compile. So before
 * the first row that measures warm execs each gets as many, against the server that only answers.
 *
 * The local bash server gets fewer: it forks, and has the least code of its own.
 */
import type { BashServerOps } from './bash-server.ts';
import type { FloorOps } from './floor-server.ts';
import type { GatewayProcess } from './gateway-process.ts';
import type { HttpOps } from './http-worker.ts';
import { CALLERS, CONNECTIONS } from './peers.ts';
import type { HttpTarget } from './raw-http.ts';
import type { Ssh2Ops } from './ssh2-worker.ts';
import type { Worker } from './worker.ts';
import type { SshHost, World } from './world.ts';

const CALLS = { full: 10_000, quick: 2_000 };
const BASH_CALLS = { full: 2_000, quick: 200 };
const COMMAND = 'exec /bin/true';

export const FLOOR = 'node:http + one committed row + bare ssh2';

export interface Warm {
  gateway: GatewayProcess;
  /** The caller of all that speak HTTP. */
  http: Worker<HttpOps>;
  /** Bare ssh2, from now on connected to this host. */
  bare(host: SshHost, connections?: number): Promise<Worker<Ssh2Ops>>;
  /** What to send to the server that runs bash on this machine. */
  bash(command: string): HttpTarget;
  /** What to send to the floor for this host; its connections are open. */
  floor(host: SshHost): Promise<(command: string) => HttpTarget>;
  /** How all were warmed, and what the floor is. */
  notes: string[];
}

export async function startWarm(world: World): Promise<Warm> {
  const host = await world.answering();
  const gateway = await world.gateway();
  const http = await world.worker<HttpOps>('http-worker.ts');
  const ssh2 = await world.worker<Ssh2Ops>('ssh2-worker.ts');
  const bash = await startBashServer(world);
  const floor = await startFloor(world);
  const bare: Warm['bare'] = async (to, connections = 1) => {
    await ssh2.ask('connect', { ...to, connections });
    return ssh2;
  };

  const size = world.quick ? 'quick' : 'full';
  const [calls, bashCalls] = [CALLS[size], BASH_CALLS[size]];
  const atFloor = (await floor(host))(COMMAND);
  const direct = await bare(host, CONNECTIONS);
  const loads = [
    () => http.ask('warm', { ...gateway.exec('answering', ['/bin/true']), callers: CALLERS, calls }),
    () => http.ask('warm', { ...atFloor, callers: CALLERS, calls }),
    () => direct.ask('warm', { command: COMMAND, callers: CALLERS, calls }),
    () => http.ask('warm', { ...bash('/bin/true'), callers: CALLERS, calls: bashCalls }),
  ];
  for (const load of loads) {
    world.signal.throwIfAborted();
    await load();
  }
  const [many, fewer] = [calls, bashCalls].map((count) => count.toLocaleString('en'));
  return {
    gateway,
    http,
    bare,
    bash,
    floor,
    notes: [
      `warmed before: ${many} execs each for the gateway, the floor and bare ssh2, against a server that only answers; ${fewer} for the local bash server, which forks`,
      'the floor: what keeps the same promise in as many hops with the least, one commit for each request and no more around it',
    ],
  };
}

async function startBashServer(world: World): Promise<Warm['bash']> {
  const server = await world.worker<BashServerOps>('bash-server.ts');
  const { url } = await server.ask('listen', {});
  return (command) => ({ url, path: '/exec', token: 'none', body: { command } });
}

async function startFloor(world: World): Promise<Warm['floor']> {
  const server = await world.worker<FloorOps>('floor-server.ts');
  const { url } = await server.ask('listen', { database: await world.newDatabase() });
  return async (host) => {
    await server.ask('connect', { ...host, connections: CONNECTIONS });
    return (command) => ({ url, path: `/${host.port}`, token: 'none', body: { command } });
  };
}
