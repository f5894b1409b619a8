/**
 * Row 0: where the time of a warm exec goes that runs alone, step by step, and where the gateway's CPU goes when there are
 * many. No peers and no goals: it says what stands behind the figures of the other rows.
 *
 * The steps are the gateway's own spans (OpenTelemetry), from a gateway that records them; the CPU is a profile of V8, from
 * one that is profiled. Both cost something themselves, so the sums are a little above what rows 1 and 6 measure.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ReceivedSpan, startTraceReceiver } from '../support/trace-receiver.ts';
import { type CpuProfile, type PartOf, partsOf } from './support/cpu-profile.ts';
import type { GatewayProcess } from './support/gateway-process.ts';
import type { HttpOps } from './support/http-worker.ts';
import { CALLERS } from './support/peers.ts';
import { type RowResult, type Series, seriesOf } from './support/report.ts';
import type { Worker } from './support/worker.ts';
import type { World } from './support/world.ts';

const WARM_CALLS = { full: 10_000, quick: 2_000 };
const LONE_EXECS = { full: 200, quick: 40 };
/** Between two: a caller that comes now and then. */
const PAUSE_MS = 20;
const LOAD_MS = { full: 5_000, quick: 1_000 };

export async function whereItGoes(world: World): Promise<RowResult> {
  const http = await world.worker<HttpOps>('http-worker.ts');
  return {
    row: 0,
    title: `where a warm exec of /bin/true goes: alone, and the gateway’s CPU with ${CALLERS} callers`,
    series: await stepsAlone(world, http),
    ratios: [],
    cpuUsPerExec: await cpuAmongMany(world, http),
    notes: ['steps: medians, which need not add up to that of the whole; CPU: µs of an exec, by part of the gateway'],
  };
}

async function stepsAlone(world: World, http: Worker<HttpOps>): Promise<Series[]> {
  const [host, answering] = [await world.sshd(), await world.answering()];
  const receiver = await startTraceReceiver();
  world.atEnd(() => receiver.stop());
  const gateway = await world.newGateway({ env: { OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url } });
  await gateway.addWorkspace('real', { port: host.port, osUser: host.username });
  await gateway.addWorkspace('answering', { port: answering.port, osUser: answering.username });
  await warm(world, gateway, http);
  const target = gateway.exec('real', ['/bin/true']);
  await http.ask('once', target); // Opens the connection.
  const fromMs = Date.now();
  const wholeMs: number[] = [];
  for (let left = LONE_EXECS[sizeOf(world)]; left > 0; left -= 1) {
    world.signal.throwIfAborted();
    wholeMs.push(await http.ask('once', target));
    await sleep(PAUSE_MS);
  }
  await gateway.stop(); // Sends the last spans.
  const steps = stepsOf(receiver.spans().filter((span) => span.fromMs >= fromMs));
  return seriesOf(new Map([...steps, ['the whole, as its caller sees it', wholeMs]]), 'ms');
}

/** ms of each step, exec by exec. */
function stepsOf(spans: readonly ReceivedSpan[]): Map<string, number[]> {
  const steps = new Map<string, number[]>();
  for (const request of spans.filter(({ name }) => name === 'POST /workspaces/:id/exec')) {
    const { traceId } = request;
    const span = (name: string): ReceivedSpan => {
      const found = spans.find((one) => one.traceId === traceId && one.name === name);
      if (found === undefined) throw new Error(`expected a span ${name} in trace ${traceId}`);
      return found;
    };
    const [rights, open, channel] = [span('rights'), span('audit.open'), span('channel')];
    const times = {
      'request read: token, rate, org guard': rights.fromMs - request.fromMs,
      'PostgreSQL: rights and workspace': rights.toMs - rights.fromMs,
      'other gates, body, command': open.fromMs - rights.toMs,
      'PostgreSQL: audit row committed': open.toMs - open.fromMs,
      'host: from the request sent to the pid': channel.toMs - open.toMs,
      'host: the program, to its end and the answer': request.toMs - channel.toMs,
    };
    for (const [step, ms] of Object.entries(times)) steps.set(step, [...(steps.get(step) ?? []), ms]);
  }
  return steps;
}

/** µs of an exec by part of the gateway. */
async function cpuAmongMany(world: World, http: Worker<HttpOps>): Promise<Record<string, number>> {
  const host = await world.answering();
  const folder = join(world.folder, 'profile');
  const gateway = await world.newGateway({ nodeArgs: ['--cpu-prof', `--cpu-prof-dir=${folder}`] });
  await gateway.addWorkspace('answering', { port: host.port, osUser: host.username });
  await warm(world, gateway, http);
  const fromUs = nowUs();
  const how = { callers: CALLERS, forMs: LOAD_MS[sizeOf(world)] };
  const { calls } = await http.ask('load', { ...gateway.exec('answering', ['/bin/true']), ...how });
  const toUs = nowUs();
  await gateway.stop(); // Writes the profile.
  const [file = ''] = readdirSync(folder);
  const profile = JSON.parse(readFileSync(join(folder, file), 'utf8')) as CpuProfile;
  const parts = partsOf(profile, { partOf, rest: 'Node besides', fromUs, toUs });
  return Object.fromEntries([...parts].map(([part, us]) => [part, Math.round(us / calls)]));
}

/** By files of dist/gateway, packages, and modules of Node, the first that fits. */
const PARTS: readonly [RegExp, string][] = [
  [/node_modules\/(pg|pg-[a-z]+|kysely)\/|gateway\/db\//, 'database'],
  [
    /node_modules\/(pino|sonic-boom|prom-client)\/|gateway\/(log|http\/metrics|http\/request-log)\.js/,
    'log and metrics',
  ],
  [/gateway\/http\/(ndjson|json-escape)\.js/, 'frames'],
  [
    /gateway\/access\/|gateway\/http\/(gates|rate-limit|body)\.js|gateway\/exec\/(command|room)\.js/,
    'token, gates, body',
  ],
  [/node_modules\/ssh2\/|gateway\/(drivers|sessions)\//, 'SSH and bootstrap'],
  [/gateway\/exec\//, 'exec'],
  [/node_modules\/|gateway\/http\//, 'Express and routes'],
  [/^node:_?http/, 'node:http'],
];
/** Names of Node’s own, without a file. */
const WRITES = /^(write(v|Buffer|String|.*String)|shutdown)$/;

const partOf: PartOf = ({ functionName, url }) => {
  if (functionName === '(garbage collector)') return 'garbage collector';
  if (url === '' && WRITES.test(functionName)) return 'system calls that write';
  return PARTS.find(([files]) => files.test(url))?.[1] ?? null;
};

async function warm(world: World, gateway: GatewayProcess, http: Worker<HttpOps>): Promise<void> {
  const calls = WARM_CALLS[sizeOf(world)];
  await http.ask('warm', { ...gateway.exec('answering', ['/bin/true']), callers: CALLERS, calls });
}

function sizeOf({ quick }: World): 'quick' | 'full' {
  return quick ? 'quick' : 'full';
}

function nowUs(): number {
  return Number(process.hrtime.bigint() / 1000n);
}
