/**
 * A first connection to an instance, against the same calls one after another. `npm run bench`.
 *
 * Both open a session to an instance of the lab whose way is not known yet, in turn, with a delay in every answer of the
 * lab. The longest chain is what nothing can overlap: describe, tunnel, SSH handshake and login.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Aws, type AwsCall, createAws } from '../../src/drivers/aws.ts';
import { createEc2Driver } from '../../src/drivers/ec2.ts';
import { openTunnel } from '../../src/drivers/eice-tunnel.ts';
import { establishTrust, type PinStore } from '../../src/drivers/host-keys.ts';
import { createLoginKey } from '../../src/drivers/login-key.ts';
import { endpointWay } from '../../src/drivers/route.ts';
import { openSshSession } from '../../src/drivers/ssh-session.ts';
import type { Step } from '../../src/errors.ts';
import { type Lab, startLab } from '../../src/lab/lab.ts';
import type { Session } from '../../src/sessions/session.ts';
import type { Workspace } from '../../src/workspace.ts';
import { anOpening } from '../support/opening.ts';

const LATENCIES_MS = [0, 50, 100];
const ROUNDS = 7;

type Instance = Lab['instances'][number];

const dataDir = mkdtempSync(join(tmpdir(), 'bench-'));
const lab = await startLab({ dataDir, instances: 12 });
Object.assign(process.env, {
  AWS_ENDPOINT_URL_EC2: lab.url,
  AWS_ENDPOINT_URL_EC2_INSTANCE_CONNECT: lab.url,
  AWS_ACCESS_KEY_ID: lab.accessKeyId,
  AWS_SECRET_ACCESS_KEY: lab.secretAccessKey,
  AWS_EC2_METADATA_DISABLED: 'true',
  AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true',
});
const aws = createAws({ log: { warn: () => {} } });
await aws.preload();
try {
  const rows = [];
  for (const latencyMs of LATENCIES_MS) rows.push(await compare(latencyMs));
  console.table(rows);
  console.log(JSON.stringify({ bench: 'cold-start', node: process.version, rounds: ROUNDS, rows }));
} finally {
  aws.close();
  await lab.stop();
  rmSync(dataDir, { recursive: true, force: true });
}

async function compare(latencyMs: number): Promise<Record<string, number>> {
  await setLatency(latencyMs);
  const times = { overlapped: [] as number[], sequential: [] as number[] };
  for (let round = 0; round <= ROUNDS; round += 1) {
    for (const [name, open] of [
      ['overlapped', openOverlapped],
      ['sequential', openSequentially],
    ] as const) {
      const from = performance.now();
      const session = await open(pick(round));
      // The first round warms up.
      if (round > 0) times[name].push(performance.now() - from);
      session.close();
      await session.closed;
    }
  }
  const [overlapped, sequential] = [median(times.overlapped), median(times.sequential)];
  return {
    latencyMs,
    overlappedMs: round1(overlapped),
    sequentialMs: round1(sequential),
    ratio: round1(overlapped / sequential, 100),
  };
}

/** A driver of its own each time: it knows no way and no pin. */
function openOverlapped(instance: Instance): Promise<Session> {
  const driver = createEc2Driver({ aws, pins: noPins(), hostKeys: 'console', route: 'endpoint', orgTag: null, lab });
  return driver.open(workspaceOf(instance), anOpening());
}

/** The same calls, each after the one before. */
async function openSequentially(instance: Instance): Promise<Session> {
  const opening = anOpening();
  const { signal } = opening;
  const call = (step: Step): AwsCall => ({ step, signal, retried: () => undefined });
  const found = await aws.describeInstance(lab.region, instance.id, call('instance'));
  if (found === null) throw new Error(`the lab has no instance ${instance.id}`);
  const way = endpointWay(found, await aws.listEndpoints(lab.region, call('endpoint')));
  if (way.kind !== 'endpoint') throw new Error('expected a way through the endpoint');
  const trust = await establishTrust({
    mode: 'console',
    pins: noPins(),
    region: lab.region,
    instanceId: instance.id,
    launchedAt: found.launchedAt,
    readConsole: ({ latest }) => aws.consoleOutput(lab.region, instance.id, { latest }, call('host_key')),
  });
  const key = createLoginKey();
  await push(aws, instance, { publicKey: key.publicLine, call: call('key_push') });
  const transport = await openTunnel({
    region: lab.region,
    endpointId: way.endpointId,
    dnsName: way.dnsName,
    address: way.address,
    port: 22,
    maxDurationS: 3600,
    credentials: await aws.credentials(lab.region, call('tunnel')),
    clockOffsetMs: aws.clockOffsetMs(lab.region),
    lab,
    signal,
  });
  return await openSshSession(
    {
      transport,
      username: instance.osUser,
      key: { pem: key.privatePem },
      beforeAuth: async () => undefined,
      hostKeyTypes: trust.types,
      verifyHostKey: (wireKey) => trust.verify(wireKey),
    },
    opening,
  );
}

function push(
  through: Aws,
  instance: Instance,
  { publicKey, call }: { publicKey: string; call: AwsCall },
): Promise<void> {
  return through.sendSshPublicKey(lab.region, { instanceId: instance.id, osUser: instance.osUser, publicKey }, call);
}

function workspaceOf({ id, osUser }: Instance): Workspace {
  const target = { driver: 'ec2', instanceId: id, region: lab.region, osUser, route: null } as const;
  return { id: `ws-${id}`, orgId: 'org', name: id, tier: 3, labels: {}, target };
}

function noPins(): PinStore {
  return { get: async () => [], put: async () => undefined };
}

function pick(round: number): Instance {
  const instance = lab.instances[round % lab.instances.length];
  if (instance === undefined) throw new Error('the lab has no instances');
  return instance;
}

async function setLatency(value: number): Promise<void> {
  await fetch(`${lab.url}/faults`, { method: 'DELETE' });
  if (value === 0) return;
  const answer = await fetch(`${lab.url}/faults`, {
    method: 'POST',
    body: JSON.stringify({ fault: 'latency_ms', value }),
  });
  if (!answer.ok) throw new Error(await answer.text());
}

function median(values: number[]): number {
  return values.sort((one, other) => one - other)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function round1(value: number, per = 10): number {
  return Math.round(value * per) / per;
}
