/**
 * What AWS says of an instance to somebody who does not log in: state, status checks, console.
 *
 * An instance that is not the org's shows nothing: facts and console of a foreign machine are as secret as a login.
 */
import { SallyportError } from '../errors.ts';
import type { ConsoleLog, Health, HostFacts } from '../sessions/session.ts';
import type { Aws, AwsCall, Instance, InstanceStatus } from './aws.ts';
import { type Host, requireOwn } from './instance-failures.ts';

export interface Ec2Facts {
  inspect(host: Host, signal: AbortSignal): Promise<HostFacts>;
  readConsole(host: Host, signal: AbortSignal): Promise<ConsoleLog>;
}

export function createEc2Facts({ aws, orgTag }: { aws: Aws; orgTag: string | null }): Ec2Facts {
  async function requireInstance({ region, instanceId, ...host }: Host, signal: AbortSignal): Promise<Instance> {
    const seen = await aws.describeInstance(region, instanceId, callOf('instance', signal));
    return requireOwn(seen, { region, instanceId, ...host }, orgTag);
  }

  async function readHealth({ region, instanceId }: Host, signal: AbortSignal) {
    const startedAtMs = performance.now();
    const took = () => ({ durationMs: performance.now() - startedAtMs });
    try {
      const status = await aws.instanceStatus(region, instanceId, callOf('status', signal));
      return { status, health: { ...healthOf(status), ...took() } };
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof SallyportError)) throw error;
      // Not the instance's fault, and no exec needs these checks.
      return { status: null, health: { ok: null, detail: `not read: ${error.message}`, ...took() } };
    }
  }

  return {
    async inspect(host, signal) {
      const [instance, { status, health }] = await Promise.all([
        requireInstance(host, signal),
        readHealth(host, signal),
      ]);
      return {
        instance: { ...describe(instance, host), ...describeStatus(status) },
        health,
        clockOffsetMs: aws.clockOffsetMs(host.region),
      };
    },

    async readConsole(host, signal) {
      const { region, instanceId } = host;
      if (orgTag !== null) await requireInstance(host, signal);
      const read = (latest: boolean) => aws.consoleOutput(region, instanceId, { latest }, callOf('instance', signal));
      return { instanceId, output: (await read(true)) ?? (await read(false)) };
    },
  };
}

function callOf(step: AwsCall['step'], signal: AbortSignal): AwsCall {
  return { step, signal, retried: () => {} };
}

function describe(instance: Instance, { region }: Host): Record<string, unknown> {
  return {
    id: instance.id,
    region,
    state: instance.state,
    state_reason: instance.stateReason,
    type: instance.instanceType,
    availability_zone: instance.zone,
    launch_time: instance.launchedAt?.toISOString() ?? null,
    private_ip: instance.privateIp,
    public_ip: instance.publicIp,
    ipv6: instance.ipv6,
    vpc_id: instance.vpcId,
    subnet_id: instance.subnetId,
    security_group_ids: instance.securityGroupIds,
    image_id: instance.imageId,
    metadata_service: instance.metadataEnabled ? 'enabled' : 'disabled',
  };
}

function describeStatus(status: InstanceStatus | null): Record<string, unknown> {
  if (status === null) return { instance_status: null, system_status: null, events: [] };
  return {
    instance_status: status.instance,
    system_status: status.system,
    events: status.events.map(({ code, description, notBefore }) => ({
      code,
      description,
      not_before: notBefore?.toISOString() ?? null,
    })),
  };
}

function healthOf(status: InstanceStatus | null): Omit<Health, 'durationMs'> {
  if (status === null) return { ok: null, detail: 'AWS has no status checks of this instance' };
  const { instance, system, events } = status;
  const scheduled = events.map(({ code, notBefore }) => `; scheduled: ${code} ${notBefore?.toISOString() ?? ''}`);
  const detail = `instance check ${instance}, system check ${system}${scheduled.join('').trimEnd()}`;
  if (instance === 'impaired' || system === 'impaired') return { ok: false, detail };
  return { ok: instance === 'ok' && system === 'ok' ? true : null, detail };
}
