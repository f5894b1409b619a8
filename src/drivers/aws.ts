/**
 * The AWS calls that the gateway makes, and the only file that imports the AWS SDK.
 *
 * Not its job: deciding anything. Answers are the few fields that are used; errors are named by aws-errors.ts.
 * - The clients are imported at the first call (0.3 s, 80 MB): a gateway without EC2 workspaces never pays.
 * - Credentials, endpoints, proxies and FIPS come from the SDK's own environment. One pair of clients per region.
 * - Retries are the SDK's; each failed attempt that may pass is told to the caller, so that a deadline that ends the
 *   retries can name what was retried. Mode `standard` for both clients: `adaptive` slows every later key push of the
 *   process, for every tenant, to 0.5 a second after one throttled answer, and a push that waits in that queue has no
 *   error to name.
 * - Instances are described by filter, never by id list: one bad id fails that whole call.
 */
import type { EC2Client, Instance as RawInstance } from '@aws-sdk/client-ec2';
import type { EC2InstanceConnectClient } from '@aws-sdk/client-ec2-instance-connect';
import { SallyportError, type Step } from '../errors.ts';
import { isPassing, nameAwsError } from './aws-errors.ts';
import { type Lookups, shareLookups } from './shared-lookups.ts';
import { untilAborted, type Waiter } from './together.ts';

export interface AwsCall extends Waiter {
  /** The `failedStep` of what goes wrong, unless the error itself says better. */
  step: Step;
}

export interface Instance {
  id: string;
  /** `pending`, `running`, `shutting-down`, `terminated`, `stopping`, `stopped`. */
  state: string;
  /** Why it went into that state, in AWS's words. */
  stateReason: string | null;
  privateIp: string | null;
  publicIp: string | null;
  ipv6: string | null;
  vpcId: string | null;
  subnetId: string | null;
  zone: string | null;
  launchedAt: Date | null;
  instanceType: string | null;
  imageId: string | null;
  securityGroupIds: readonly string[];
  /** Without the metadata service no pushed key can reach sshd. */
  metadataEnabled: boolean;
  tags: ReadonlyMap<string, string>;
}

export interface Endpoint {
  id: string;
  /** The FIPS name where FIPS is asked for; null: the endpoint has none. */
  dnsName: string | null;
  vpcId: string | null;
  subnetId: string | null;
  zone: string | null;
  ipAddressType: 'ipv4' | 'dualstack' | 'ipv6';
}

export interface InstanceStatus {
  state: string;
  /** `ok`, `impaired`, `initializing`, `insufficient-data`, `not-applicable`. */
  instance: string;
  system: string;
  events: { code: string; description: string; notBefore: Date | null }[];
}

export interface AwsCredentials {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken?: string;
}

/** Every method rejects with a SallyportError, or with the signal's reason. */
export interface Aws extends Lookups {
  /** Resolves when the key was taken; whether the instance accepts it shows only at login. */
  sendSshPublicKey(
    region: string,
    push: { instanceId: string; osUser: string; publicKey: string },
    call: AwsCall,
  ): Promise<void>;
  /**
   * At most the last 64 KiB; null: nothing was posted. `latest`: the buffer as it is now where the instance can (Nitro),
   * otherwise, and on instances that cannot, what was posted after the last change of state.
   */
  consoleOutput(
    region: string,
    instanceId: string,
    options: { latest: boolean },
    call: AwsCall,
  ): Promise<Buffer | null>;
  /** Null: no such instance. */
  instanceStatus(region: string, instanceId: string, call: AwsCall): Promise<InstanceStatus | null>;
  credentials(region: string, call: AwsCall): Promise<AwsCredentials>;
  /** AWS's clock minus ours, from the last answer; 0 before any. */
  clockOffsetMs(region: string): number;
  /** Imports the SDK, so that the first dial need not. */
  preload(): Promise<void>;
  /** Closes idle connections. */
  close(): void;
}

export interface AwsLog {
  warn(fields: object, message: string): void;
}

/** An endpoint that is being modified keeps serving its old configuration. Source: EC2 user guide, modify an EICE. */
const USABLE_ENDPOINT_STATES = ['create-complete', 'update-in-progress', 'update-failed', 'update-complete'];

/** Four throttled answers take 7.5 s on average and 15 s at most: within the default connect budget. */
const MAX_ATTEMPTS = 5;
/** A call that hangs is cut and retried well within a connect budget. */
const REQUEST_HANDLER = { connectionTimeout: 3_000, requestTimeout: 8_000, throwOnRequestTimeout: true };
const ENDPOINTS_PER_PAGE = 50;
/** More pages than any account has; ends a server that never stops giving tokens. */
const ENDPOINT_MAX_PAGES = 40;

interface Clients {
  ec2: EC2Client;
  eic: EC2InstanceConnectClient;
}

/** Node remembers the modules: after the first time this costs a turn of the event loop. */
async function load() {
  const [ec2, eic] = await Promise.all([import('@aws-sdk/client-ec2'), import('@aws-sdk/client-ec2-instance-connect')]);
  return { ec2, eic };
}

/** What an SDK command offers for watching its attempts; structural, because the SDK keeps the type to itself. */
interface Watchable {
  middlewareStack: {
    add(
      middleware: <A, R>(next: (args: A) => Promise<R>) => (args: A) => Promise<R>,
      options: { step: 'finalizeRequest'; name: string },
    ): void;
  };
}

export function createAws({ log }: { log: AwsLog }): Aws {
  const clients = new Map<string, Clients>();

  async function connect(region: string) {
    const sdk = await load();
    let pair = clients.get(region);
    if (pair === undefined) {
      const settings = {
        region,
        maxAttempts: MAX_ATTEMPTS,
        retryMode: 'standard',
        requestHandler: REQUEST_HANDLER,
      };
      pair = { ec2: new sdk.ec2.EC2Client(settings), eic: new sdk.eic.EC2InstanceConnectClient(settings) };
      clients.set(region, pair);
    }
    return { sdk, ...pair };
  }

  function clockOffsetMs(region: string): number {
    return clients.get(region)?.ec2.config.systemClockOffset ?? 0;
  }

  /** Runs one call: its failed attempts told as they happen, its last failure named. */
  async function send<T>(
    at: { action: string; region: string; call: AwsCall },
    command: Watchable | null,
    run: (options: { abortSignal: AbortSignal }) => Promise<T>,
  ): Promise<T> {
    const { action, region, call } = at;
    const name = (error: unknown) =>
      nameAwsError(error, { action, region, step: call.step, clockOffsetMs: clockOffsetMs(region) });
    command?.middlewareStack.add(
      (next) => async (args) => {
        try {
          return await next(args);
        } catch (error) {
          const named = name(error);
          if (!call.signal.aborted && isPassing(named)) {
            log.warn({ action, region, code: named.code, err: error }, 'an AWS call failed and may be tried again');
            call.retried(named);
          }
          throw error;
        }
      },
      { step: 'finalizeRequest', name: 'tellFailedAttempt' },
    );
    call.signal.throwIfAborted();
    try {
      // The SDK does not abort while it looks for credentials.
      return await untilAborted(run({ abortSignal: call.signal }), call.signal);
    } catch (error) {
      if (call.signal.aborted) throw call.signal.reason;
      throw name(error);
    }
  }

  async function describeAll(region: string, ids: string[], call: AwsCall): Promise<Map<string, Instance>> {
    const { sdk, ec2 } = await connect(region);
    const command = new sdk.ec2.DescribeInstancesCommand({ Filters: [{ Name: 'instance-id', Values: ids }] });
    const answer = await send({ action: 'ec2:DescribeInstances', region, call }, command, (o) => ec2.send(command, o));
    const found = (answer.Reservations ?? []).flatMap((reservation) => reservation.Instances ?? []).map(readInstance);
    return new Map(found.map((instance) => [instance.id, instance]));
  }

  async function listAll(region: string, call: AwsCall): Promise<Endpoint[]> {
    const { sdk, ec2 } = await connect(region);
    const fips = await ec2.config.useFipsEndpoint();
    const endpoints: Endpoint[] = [];
    let nextToken: string | undefined;
    for (let page = 0; page < ENDPOINT_MAX_PAGES; page += 1) {
      const command = new sdk.ec2.DescribeInstanceConnectEndpointsCommand({
        Filters: [{ Name: 'state', Values: USABLE_ENDPOINT_STATES }],
        MaxResults: ENDPOINTS_PER_PAGE,
        NextToken: nextToken,
      });
      const at = { action: 'ec2:DescribeInstanceConnectEndpoints', region, call };
      const answer = await send(at, command, (o) => ec2.send(command, o));
      for (const raw of answer.InstanceConnectEndpoints ?? []) {
        endpoints.push({
          id: raw.InstanceConnectEndpointId ?? '',
          // Empty counts as none, and FIPS never falls back to the other name.
          dnsName: (fips ? raw.FipsDnsName : raw.DnsName) || null,
          vpcId: raw.VpcId ?? null,
          subnetId: raw.SubnetId ?? null,
          zone: raw.AvailabilityZone ?? null,
          // Older endpoints name none; the service then decides by the address.
          ipAddressType: raw.IpAddressType ?? 'dualstack',
        });
      }
      nextToken = answer.NextToken;
      if (!nextToken) break;
    }
    return endpoints;
  }

  const lookups = shareLookups({ describeAll, listAll });

  return {
    ...lookups,
    clockOffsetMs,

    async sendSshPublicKey(region, { instanceId, osUser, publicKey }, call) {
      const { sdk, eic } = await connect(region);
      const command = new sdk.eic.SendSSHPublicKeyCommand({
        InstanceId: instanceId,
        InstanceOSUser: osUser,
        SSHPublicKey: publicKey,
      });
      const at = { action: 'ec2-instance-connect:SendSSHPublicKey', region, call };
      const answer = await send(at, command, (o) => eic.send(command, o));
      if (answer.Success === true) return;
      throw new SallyportError('aws_unavailable', 'EC2 Instance Connect answered, but did not take the key', {
        failedStep: call.step,
        retryable: true,
      });
    },

    async consoleOutput(region, instanceId, { latest }, call) {
      const { sdk, ec2 } = await connect(region);
      const read = async (options: { Latest?: true }) => {
        const command = new sdk.ec2.GetConsoleOutputCommand({ InstanceId: instanceId, ...options });
        const at = { action: 'ec2:GetConsoleOutput', region, call };
        const { Output } = await send(at, command, (o) => ec2.send(command, o));
        return Output === undefined ? null : Buffer.from(Output, 'base64');
      };
      if (!latest) return read({});
      try {
        return await read({ Latest: true });
      } catch (error) {
        // Only Nitro has the latest buffer, and what others answer is not documented.
        if (!(error instanceof SallyportError) || error.code !== 'aws_denied') throw error;
        return read({});
      }
    },

    async instanceStatus(region, instanceId, call) {
      const { sdk, ec2 } = await connect(region);
      const command = new sdk.ec2.DescribeInstanceStatusCommand({
        InstanceIds: [instanceId],
        IncludeAllInstances: true,
      });
      const at = { action: 'ec2:DescribeInstanceStatus', region, call };
      const answer = await send(at, command, (o) => ec2.send(command, o)).catch((error: unknown) => {
        if (error instanceof SallyportError && error.code === 'host_unreachable') return null;
        throw error;
      });
      const raw = answer?.InstanceStatuses?.find((status) => status.InstanceId === instanceId);
      if (raw === undefined) return null;
      return {
        state: raw.InstanceState?.Name ?? 'unknown',
        instance: raw.InstanceStatus?.Status ?? 'unknown',
        system: raw.SystemStatus?.Status ?? 'unknown',
        events: (raw.Events ?? []).map((event) => ({
          code: event.Code ?? 'unknown',
          description: event.Description ?? '',
          notBefore: event.NotBefore ?? null,
        })),
      };
    },

    async credentials(region, call) {
      const { ec2 } = await connect(region);
      const at = { action: 'ec2-instance-connect:OpenTunnel', region, call };
      return send(at, null, () => ec2.config.credentials());
    },

    async preload() {
      await load();
    },

    close() {
      for (const { ec2, eic } of clients.values()) {
        ec2.destroy();
        eic.destroy();
      }
      clients.clear();
    },
  };
}

function readInstance(raw: RawInstance): Instance {
  return {
    id: raw.InstanceId ?? '',
    state: raw.State?.Name ?? 'unknown',
    stateReason: raw.StateTransitionReason || null,
    privateIp: raw.PrivateIpAddress ?? null,
    publicIp: raw.PublicIpAddress ?? null,
    ipv6: raw.Ipv6Address ?? null,
    vpcId: raw.VpcId ?? null,
    subnetId: raw.SubnetId ?? null,
    zone: raw.Placement?.AvailabilityZone ?? null,
    launchedAt: raw.LaunchTime ?? null,
    instanceType: raw.InstanceType ?? null,
    imageId: raw.ImageId ?? null,
    securityGroupIds: (raw.SecurityGroups ?? []).map((group) => group.GroupId ?? ''),
    metadataEnabled: raw.MetadataOptions?.HttpEndpoint !== 'disabled',
    tags: new Map((raw.Tags ?? []).map((tag) => [tag.Key ?? '', tag.Value ?? ''])),
  };
}
