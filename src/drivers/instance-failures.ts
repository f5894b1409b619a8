/** What stands between the gateway and an instance, in words that say what to do; and which of it is worth a second try. */
import { SallyportError } from '../errors.ts';
import type { Route } from '../workspace.ts';
import type { Instance } from './aws.ts';
import { TunnelLostError } from './tunnel-errors.ts';

/** The workspace's target, once it is known to be an instance. */
export interface Host {
  orgId: string;
  region: string;
  instanceId: string;
  osUser: string;
  route: Route;
}

/** "Unable to connect to target" means "not yet" for so long after launch. */
const BOOT_MS = 5 * 60_000;

/** The instance, when it is there and the org's. */
export function requireOwn(instance: Instance | null, host: Host, orgTag: string | null): Instance {
  if (instance === null) {
    throw new SallyportError('host_unreachable', `there is no instance ${host.instanceId} in ${host.region}`, {
      failedStep: 'instance',
      remedy:
        'check instance id and region of the workspace, and that the gateway uses the AWS account of the instance',
    });
  }
  if (orgTag !== null && instance.tags.get(orgTag) !== host.orgId) {
    throw new SallyportError('host_unreachable', `instance ${instance.id} is not tagged ${orgTag}=${host.orgId}`, {
      failedStep: 'instance',
      remedy: 'tag the instance with its org, or correct the instance id of the workspace',
    });
  }
  return instance;
}

/** The instance, when it is there, is the org's and runs. */
export function requireUsable(seen: Instance | null, host: Host, orgTag: string | null): Instance {
  const instance = requireOwn(seen, host, orgTag);
  if (instance.state === 'running') return instance;
  const starting = instance.state === 'pending';
  throw new SallyportError('instance_not_running', `instance ${instance.id} is ${instance.state}, not running`, {
    failedStep: 'instance',
    retryable: starting,
    remedy: starting ? 'wait until the instance is running' : 'start the instance',
  });
}

/** Why one more try has a point, or null. */
export function secondTry(error: unknown): 'lost' | 'login' | null {
  if (error instanceof TunnelLostError) return error.afterFirstByte ? null : 'lost';
  return error instanceof SallyportError && error.code === 'login_refused' && error.details.failedStep === 'login'
    ? 'login'
    : null;
}

export function explainFailure(error: unknown, host: Host, instance: Instance): unknown {
  if (!(error instanceof SallyportError)) return error;
  if (error.code === 'login_refused' && error.details.failedStep === 'login') {
    return new SallyportError('login_refused', `the host refused the key that was pushed for ${host.osUser}, twice`, {
      ...error.details,
      remedy: loginRemedy(host, instance),
      cause: error,
    });
  }
  const young = instance.launchedAt !== null && Date.now() - instance.launchedAt.getTime() < BOOT_MS;
  if (young && error.code === 'host_unreachable' && error.details.failedStep === 'tunnel') {
    return new SallyportError(
      'host_unreachable',
      `${error.message}; the instance was launched less than five minutes ago`,
      {
        ...error.details,
        retryable: true,
        cause: error,
      },
    );
  }
  return error;
}

/** What is checked on the instance and fails without a word. Source: aws-ec2-instance-connect-config, src/bin. */
function loginRemedy(host: Host, instance: Instance): string {
  if (!instance.metadataEnabled) return 'the metadata service of the instance is off, and pushed keys come through it';
  return [
    `look on the instance: does the user ${host.osUser} exist`,
    'is the package ec2-instance-connect installed',
    'does another AuthorizedKeysCommand or sshd override stand in its way',
    'is its clock right (a key is good for 60 s)',
    'may sshd reach the metadata service',
  ].join('; ');
}
