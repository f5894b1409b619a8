/**
 * What a failure means and what to do about it, for a person who was woken by it.
 *
 * The errors of the drivers name most of it already. Added here: what a hang at each step usually is, AWS's own reason and
 * the command for a stopped instance, a clock that is wrong, and what the console says of the machine.
 */
import { type ErrorCode, type SallyportError, STEPS, type Step } from '../errors.ts';
import type { Health } from '../sessions/session.ts';
import type { Workspace } from '../workspace.ts';

export interface Evidence {
  workspace: Workspace;
  /** What the platform says of the host. */
  instance: Readonly<Record<string, unknown>> | null;
  health: Health | null;
  clockOffsetMs: number;
  /** Already safe to show. */
  consoleText: string | null;
}

export interface Explanation {
  cause: string;
  remedy: string;
}

/** The usual reasons for a step that does not end. */
const HANGS: Readonly<Record<Step, Explanation>> = {
  instance: {
    cause: 'AWS did not say what the instance is doing',
    remedy: 'look at the way from the gateway to the EC2 API (network, proxy, VPC endpoint) and at the AWS health page',
  },
  status: {
    cause: 'AWS did not answer for the status checks',
    remedy: 'look at the AWS health page',
  },
  endpoint: {
    cause: 'the way to the host was not found in time',
    remedy: 'look at the way from the gateway to the EC2 API and at the AWS health page',
  },
  tunnel: {
    cause: 'the connection to the host did not come about',
    remedy: 'packets are dropped on the way: the security groups and network ACLs must admit port 22 to the instance',
  },
  banner: {
    cause: 'port 22 of the host takes connections, but sshd does not say its version line',
    remedy:
      'sshd hangs, or the machine is too busy to run it (memory, disk, processes): look at the console and the metrics of the instance; if nothing moves, reboot it',
  },
  host_key: {
    cause: 'the SSH key exchange did not finish',
    remedy:
      'the machine may be too busy, or large packets are lost on the way (MTU): look at its console and metrics, and at path MTU discovery in the network ACLs',
  },
  key_push: {
    cause: 'EC2 Instance Connect did not take the key in time',
    remedy: 'look at the way from the gateway to the EC2 Instance Connect API and at the AWS health page',
  },
  login: {
    cause: 'sshd does not decide about the login',
    remedy:
      'on the host: does the directory (sssd, LDAP) answer, is the disk full, does PAM or the AuthorizedKeysCommand hang; the console may say',
  },
  channel: {
    cause: 'the login succeeded, but no program starts',
    remedy:
      'on the host: an rc file of the login shell that waits, a home on a dead network disk, no process or memory left',
  },
};

/** Failures in which the machine itself is the suspect, from the tunnel on. */
const MACHINE_CODES: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'connect_timeout',
  'host_unreachable',
  'login_refused',
  'shell_unsupported',
  'connection_lost',
]);

/** What a console says in passing, and what it means. */
const SIGNS: readonly (readonly [pattern: RegExp, meaning: string])[] = [
  [/^.*Kernel panic.*$/im, 'its kernel panicked'],
  [/^.*(?:Unable to mount root fs|VFS: Cannot open root device).*$/im, 'it cannot mount its root file system'],
  [/^.*(?:emergency mode|Give root password for maintenance).*$/im, 'it stopped in emergency mode (often /etc/fstab)'],
  [/^.*(?:Out of memory: Kill|oom-kill|oom_reaper).*$/im, 'it ran out of memory'],
  [/^.*No space left on device.*$/im, 'a disk is full'],
  [/^.*(?:EXT4-fs error|XFS .*[Cc]orrupt|I\/O error).*$/m, 'a disk has errors'],
  [/^.*Failed to start .*(?:OpenSSH|[Ss][Ss][Hh]).*$/m, 'sshd could not start'],
];
const SIGN_MAX_CHARS = 160;
/** Below this a clock is only slow. */
const CLOCK_WRONG_MS = 30_000;

/** `step`: where the failure happened. */
export function explain(failure: SallyportError, step: Step, evidence: Evidence): Explanation {
  const { cause, remedy } = wordsOf(failure, step, evidence);
  const { clockOffsetMs } = evidence;
  const onHost = STEPS.indexOf(step) >= STEPS.indexOf('tunnel') && MACHINE_CODES.has(failure.code);
  const signs = onHost ? signsOf(evidence.consoleText) : [];
  const clock =
    Math.abs(clockOffsetMs) >= CLOCK_WRONG_MS && failure.code === 'aws_denied' ? [clockText(clockOffsetMs)] : [];
  const groups = onHost && step === 'tunnel' ? groupsOf(evidence.instance) : [];
  return { cause: [cause, ...clock].join('; '), remedy: [remedy, ...groups, ...signs].join('. ') };
}

/** For status checks that failed, alone or before something else that did. */
export function explainHealth(health: Health, later: Explanation | null, evidence: Evidence): Explanation {
  const system = evidence.instance?.system_status === 'impaired';
  const cause = `AWS's status checks of the instance fail (${health.detail})`;
  const remedy = system
    ? 'the hardware or network below the instance is broken: stop and start it, which moves it to another machine, or wait for AWS'
    : 'the system on the machine does not answer AWS: look at the console; a reboot helps unless it is a full disk, /etc/fstab or the network configuration';
  if (later === null) {
    const reachable = 'The way to it works all the same: collect evidence with a rescue first';
    return { cause, remedy: [remedy, reachable, ...signsOf(evidence.consoleText)].join('. ') };
  }
  return { cause: `${cause}; ${later.cause}`, remedy: `${remedy}. Also: ${later.remedy}` };
}

function wordsOf(failure: SallyportError, step: Step, evidence: Evidence): Explanation {
  const { code, message, details } = failure;
  const fallback = HANGS[step];
  if (code === 'connect_timeout')
    return { cause: `${fallback.cause}, for ${details.timeoutS} s`, remedy: fallback.remedy };
  if (code === 'no_instance')
    return { cause: message, remedy: 'an admin sets the instance id of the workspace when the instance exists' };
  if (code === 'instance_not_running') return stopped(failure, evidence);
  if (code === 'internal')
    return { cause: 'something went wrong inside the gateway', remedy: "look for the request id in the gateway's log" };
  return { cause: message, remedy: details.remedy ?? fallback.remedy };
}

function stopped({ message, details }: SallyportError, { instance, workspace }: Evidence): Explanation {
  const reason = typeof instance?.state_reason === 'string' ? ` (AWS says: ${instance.state_reason})` : '';
  const { target } = workspace;
  const isStopped = instance?.state === 'stopped' && target.driver === 'ec2';
  const command = isStopped
    ? `start it: aws ec2 start-instances --region ${target.region} --instance-ids ${target.instanceId}`
    : null;
  return { cause: `${message}${reason}`, remedy: command ?? details.remedy ?? 'start the instance' };
}

function clockText(offsetMs: number): string {
  return `the gateway's clock is ${Math.round(Math.abs(offsetMs) / 1000)} s ${offsetMs > 0 ? 'slow' : 'fast'}`;
}

function groupsOf(instance: Evidence['instance']): string[] {
  const ids = instance?.security_group_ids;
  return Array.isArray(ids) && ids.length > 0 ? [`Security groups of the instance: ${ids.join(', ')}`] : [];
}

function signsOf(consoleText: string | null): string[] {
  if (consoleText === null) return [];
  return SIGNS.flatMap(([pattern, meaning]) => {
    const line = pattern.exec(consoleText)?.[0].trim();
    return line === undefined ? [] : [`The console says that ${meaning}: "${line.slice(0, SIGN_MAX_CHARS)}"`];
  });
}
