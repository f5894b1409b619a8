/** A lab, the AWS clients that talk to it, and drivers over both. */
import { type Aws, createAws } from '../../src/drivers/aws.ts';
import { createEc2Driver, type Ec2Deps } from '../../src/drivers/ec2.ts';
import type { PinStore, StoredPin } from '../../src/drivers/host-keys.ts';
import type { LabOptions } from '../../src/lab/lab.ts';
import type { Driver } from '../../src/sessions/session.ts';
import type { Workspace } from '../../src/workspace.ts';
import { type TestLab, withLab } from '../support/lab.ts';
import { waitUntil } from '../support/wait.ts';

export const ORG = 'org-a';

export type Ec2Target = Extract<Workspace['target'], { driver: 'ec2' }>;

export interface Ec2Rig extends TestLab {
  aws: Aws;
  /** Pins in memory, console mode, through the endpoint, unless said otherwise. */
  driver(deps?: Partial<Ec2Deps>): Driver;
  workspace(index?: number, target?: Partial<Ec2Target>): Workspace;
  instanceId(index: number): string;
  noTunnels(): Promise<void>;
}

/** Points the environment of this process at the lab. */
export async function startEc2Rig(options: Omit<LabOptions, 'dataDir'>): Promise<Ec2Rig> {
  const lab = await withLab(options);
  process.env.AWS_ENDPOINT_URL_EC2 = lab.lab.url;
  process.env.AWS_ENDPOINT_URL_EC2_INSTANCE_CONNECT = lab.lab.url;
  process.env.AWS_ACCESS_KEY_ID = lab.lab.accessKeyId;
  process.env.AWS_SECRET_ACCESS_KEY = lab.lab.secretAccessKey;
  process.env.AWS_EC2_METADATA_DISABLED = 'true';
  const aws = createAws({ log: { warn: () => {} } });
  await aws.preload();

  const instance = (index: number) => {
    const found = lab.lab.instances[index];
    if (found === undefined) throw new Error(`bug: the lab has no instance ${index}`);
    return found;
  };
  return {
    ...lab,
    aws,
    driver: (deps = {}) =>
      createEc2Driver({
        aws,
        pins: createPins(),
        hostKeys: 'console',
        route: 'endpoint',
        orgTag: null,
        lab: { tunnelUrl: lab.lab.tunnelUrl },
        ...deps,
      }),
    workspace: (index = 0, target = {}) => ({
      id: `ws-${index}`,
      orgId: ORG,
      name: 'test',
      tier: 3,
      labels: {},
      target: {
        driver: 'ec2',
        instanceId: instance(index).id,
        region: lab.lab.region,
        osUser: instance(index).osUser,
        route: null,
        ...target,
      },
    }),
    instanceId: (index) => instance(index).id,
    noTunnels: async () => {
      await waitUntil('no tunnel is open', async () => (await lab.counters()).tunnels.open === 0);
    },
    stop: async () => {
      aws.close();
      await lab.stop();
    },
  };
}

export function createPins(): PinStore & { stored: Map<string, StoredPin[]> } {
  const stored = new Map<string, StoredPin[]>();
  return {
    stored,
    get: async (region, instanceId) => stored.get(`${region} ${instanceId}`) ?? [],
    put: async (region, instanceId, pins, source) => {
      stored.set(
        `${region} ${instanceId}`,
        pins.map((pin) => ({ ...pin, source })),
      );
    },
  };
}
