/** SendSSHPublicKey of EC2 Instance Connect, in AWS JSON 1.1. Limits are those of the service model of 2018-04-02. */
import type { LabContext } from './lab-context.ts';

export class EicError extends Error {
  readonly type: string;
  readonly status: number;
  constructor(type: string, message: string, status = 400) {
    super(message);
    this.type = type;
    this.status = status;
  }
}

export interface Push {
  instanceId: string;
  osUser: string;
  publicKey: string;
}

const OS_USER = /^(?!\d+$)[A-Za-z0-9@._-]{1,31}[A-Za-z0-9@$._-]?$/;
const AVAILABILITY_ZONE = /^(\w+-){2,3}\d+\w+$/;

/** Throws EicError. */
export function parsePush(body: Buffer): Push {
  const raw = parseObject(body);
  const instanceId = requireText(raw, 'InstanceId', { min: 10, max: 32, pattern: /^i-[a-f0-9]+$/ });
  const osUser = requireText(raw, 'InstanceOSUser', { min: 1, max: 32, pattern: OS_USER });
  const publicKey = requireText(raw, 'SSHPublicKey', { min: 80, max: 4096, pattern: /./ });
  if (raw.AvailabilityZone !== undefined) {
    requireText(raw, 'AvailabilityZone', { min: 6, max: 32, pattern: AVAILABILITY_ZONE });
  }
  return { instanceId, osUser, publicKey };
}

/** Keeps the key for the instance, or throws EicError. `Success: true` promises nothing about a login, as on AWS. */
export function sendPublicKey(push: Push, context: LabContext): void {
  const { instanceId } = push;
  const bites = (
    name: 'push_denied' | 'push_throttled' | 'push_unavailable' | 'instance_missing' | 'instance_stopped',
  ) => context.faults.take(name, instanceId) !== null;
  if (bites('push_denied')) throw denied(instanceId, context);
  if (bites('push_throttled'))
    throw new EicError('ThrottlingException', 'Server is busy! Please retry after a moment.', 429);
  const exists = context.world.instances.some((instance) => instance.id === instanceId);
  if (!exists || bites('instance_missing')) {
    throw new EicError('EC2InstanceNotFoundException', `Instance ${instanceId} was not found`, 404);
  }
  if (bites('instance_stopped')) {
    throw new EicError('EC2InstanceStateInvalidException', `Instance ${instanceId} is not running`, 400);
  }
  if (bites('push_unavailable')) {
    throw new EicError(
      'EC2InstanceUnavailableException',
      'The instance is currently unavailable. Wait a few minutes and try again.',
      503,
    );
  }
  if (!context.keys.push(push, push.publicKey)) {
    throw new EicError('InvalidArgsException', 'SSHPublicKey is not a public key of type ssh-ed25519 or ssh-rsa');
  }
  context.counters.instance(instanceId).pushes += 1;
}

function denied(instanceId: string, { world }: LabContext): EicError {
  const action = 'ec2-instance-connect:SendSSHPublicKey';
  return new EicError(
    'AccessDeniedException',
    `User: arn:aws:iam::${world.accountId}:user/lab is not authorized to perform: ${action} on resource: ` +
      `arn:aws:ec2:${world.region}:${world.accountId}:instance/${instanceId} because no identity-based policy allows the ${action} action`,
  );
}

function parseObject(body: Buffer): Record<string, unknown> {
  try {
    const parsed: unknown = JSON.parse(body.toString('utf8'));
    if (typeof parsed === 'object' && parsed !== null) return parsed as Record<string, unknown>;
  } catch {
    // Said below, with the same words as for JSON that is no object.
  }
  throw new EicError('SerializationException', 'The body is not a JSON object');
}

function requireText(
  raw: Record<string, unknown>,
  name: string,
  rule: { min: number; max: number; pattern: RegExp },
): string {
  const value = raw[name];
  if (typeof value !== 'string') throw new EicError('InvalidArgsException', `${name} is required and must be text`);
  if (value.length < rule.min || value.length > rule.max) {
    throw new EicError(
      'InvalidArgsException',
      `${name} must have ${rule.min} to ${rule.max} characters, not ${value.length}`,
    );
  }
  if (!rule.pattern.test(value))
    throw new EicError('InvalidArgsException', `${name} does not match ${rule.pattern.source}`);
  return value;
}
