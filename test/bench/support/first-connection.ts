/**
 * A first connection to an instance of the lab whose way is not known yet, by the driver `ec2` and by the same calls one
 * after another, with a delay in every answer of the lab.
 *
 * The longest chain is what nothing can overlap: describe, tunnel, SSH handshake and login, as the calls one after another
 * have shown them.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Aws, type AwsCall, createAws } from '../../../src/drivers/aws.ts';
import { createEc2Driver } from '../../../src/drivers/ec2.ts';
import { openTunnel } from '../../../src/drivers/eice-tunnel.ts';
import { establishTrust, type PinStore } from '../../../src/drivers/host-keys.ts';
import { createLoginKey } from '../../../src/drivers/login-key.ts';
import { endpointWay } from '../../../src/drivers/route.ts';
import { openSshSession } from '../../../src/drivers/ssh-session.ts';
import type { Step } from '../../../src/errors.ts';
import { type Lab, startLab } from '../../../src/lab/lab.ts';
import type { Session } from '../../../src/sessions/session.ts';
import type { Workspace } from '../../../src/workspace.ts';
import { anOpening } from '../../support/opening.ts';
import { answerAsks } from './worker.ts';

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

export interface FirstConnection {
  overlappedMs: number;
  sequentialMs: number;
  longestChainMs: number;
}

const ops = {
  async setLatency({ latencyMs }: { latencyMs: number }): Promise<void> {
    await setLatency(latencyMs);
  },

  /** Both ways once, to the same instance. `round`: which instance. */
  async measure({ round }: { round: number }): Promise<FirstConnection> {
    const instance = pick(round);
    const from = performance.now();
    const session = await openOverlapped(instance);
    const overlappedMs = performance.now() - from;
    await close(session);
    const { session: other, ...times } = await openSequentially(instance);
    await close(other);
    return { overlappedMs, ...times };
  },

  async stop(_: object): Promise<void> {
    aws.close();
    await lab.stop();
    rmSync(dataDir, { recursive: true, force: true });
  },
};

async function close(session: Session): Promise<void> {
  session.close();
  await session.closed;
}

/** A driver of its own each time: it knows no way and no pin. */
function openOverlapped(instance: Instance): Promise<Session> {
  const driver = createEc2Driver({ aws, pins: noPins(), hostKeys: 'console', route: 'endpoint', orgTag: null, lab });
  return driver.open(workspaceOf(instance), anOpening());
}

/** The same calls, each after the one before. */
async function openSequentially(
  instance: Instance,
): Promise<Omit<FirstConnection, 'overlappedMs'> & { session: Session }> {
  const opening = anOpening();
  const { signal, trace } = opening;
  const call = (step: Step): AwsCall => ({ step, signal, retried: () => undefined });
  const from = performance.now();
  const found = await trace.step('instance', undefined, () =>
    aws.describeInstance(lab.region, instance.id, call('instance')),
  );
  if (found === null) throw new Error(`the lab has no instance ${instance.id}`);
  const endpoints = await trace.step('endpoint', undefined, () => aws.listEndpoints(lab.region, call('endpoint')));
  const way = endpointWay(found, endpoints);
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
  const credentials = await aws.credentials(lab.region, call('tunnel'));
  const transport = await trace.step('tunnel', undefined, () =>
    openTunnel({
      region: lab.region,
      endpointId: way.endpointId,
      dnsName: way.dnsName,
      address: way.address,
      port: 22,
      maxDurationS: 3600,
      credentials,
      clockOffsetMs: aws.clockOffsetMs(lab.region),
      lab,
      signal,
    }),
  );
  const session = await openSshSession(
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
  const sequentialMs = performance.now() - from;
  const took = (name: Step): number => trace.steps.find((step) => step.name === name)?.durationMs ?? Number.NaN;
  const ssh = took('banner') + took('host_key') + took('login');
  return {
    session,
    sequentialMs,
    longestChainMs: Math.max(took('instance'), took('endpoint')) + took('tunnel') + ssh,
  };
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

export type FirstConnectionOps = typeof ops;
answerAsks(ops);
