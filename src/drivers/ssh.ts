/**
 * The driver for hosts that are reached directly: name → address → TCP → SSH session, with the gateway's own key.
 *
 * Host, port and user are set by the admin token only. Not its job: keys and console output of a platform (ec2.ts).
 * - Every address that a name resolves to is checked and dialled as it was checked, so that a name cannot lead to the
 *   gateway's own loopback or to a metadata service.
 * - Steps: `endpoint` the name has an address that may be dialled, `tunnel` TCP, then as for every SSH session.
 */
import { lookup } from 'node:dns/promises';
import { BlockList, isIPv4, type Socket } from 'node:net';
import { SallyportError } from '../errors.ts';
import type { Driver, Opening, ProbeEnd, Session } from '../sessions/session.ts';
import type { Workspace } from '../workspace.ts';
import { type HostKeyMode, type PinStore, pinPlaceOf } from './host-keys.ts';
import { dialDirect, requireDialable } from './route.ts';
import type { SshKey } from './ssh-key.ts';
import { openSshSession } from './ssh-session.ts';
import { establishSshTrust } from './ssh-trust.ts';
import { untilAborted } from './together.ts';

export interface SshDeps {
  key: SshKey;
  pins: PinStore;
  hostKeys: HostKeyMode;
  /** Path of an OpenSSH file of known hosts. */
  knownHosts: string | null;
  /** Whether 127.0.0.0/8 and ::1 may be dialled: the gateway's own machine. */
  loopback: boolean;
  /** See SshLogin. */
  channelAhead?: boolean;
}

interface Host {
  host: string;
  port: number;
  osUser: string;
}

/** What ends a probe that must not log in. */
const HOST_KEY_PROVED = new Error('the host has proved its key');

/** An address that swallows packets must not use up the time of the next one. */
const ADDRESS_TRY_MS = 3_000;

export function createSshDriver(deps: SshDeps): Driver {
  async function open(workspace: Workspace, opening: Opening, until: ProbeEnd = 'login'): Promise<Session> {
    const host = hostOf(workspace);
    const { signal, trace } = opening;
    const addresses = await trace.step('endpoint', host.host, () => resolve(host, deps.loopback, signal));
    const transport = await trace.step('tunnel', addresses.join(', '), () => dial(host, addresses, signal));
    try {
      return await logIn(workspace, host, { transport, opening, until });
    } catch (error) {
      transport.destroy();
      throw error;
    }
  }

  async function logIn(
    workspace: Workspace,
    { host, port, osUser }: Host,
    { transport, opening, until }: { transport: Socket; opening: Opening; until: ProbeEnd },
  ): Promise<Session> {
    const place = pinPlaceOf(workspace.target);
    if (place === null) throw new Error('bug: an SSH host without a place for its pins');
    const { hostKeys: mode, pins, knownHosts, key } = deps;
    const trusting = establishSshTrust({ mode, pins, place, host, port, knownHosts });
    const trust = await untilAborted(trusting, opening.signal);
    const login = {
      transport,
      username: osUser,
      key,
      hostKeyTypes: trust.types,
      verifyHostKey: (wireKey: Buffer) => trust.verify(wireKey),
      channelAhead: deps.channelAhead,
      async beforeAuth() {
        if (until === 'host_key') throw HOST_KEY_PROVED;
      },
    };
    const session = await openSshSession(login, opening).catch((error: unknown) => {
      throw explain(error, osUser);
    });
    try {
      await trust.confirm();
      return session;
    } catch (error) {
      session.close();
      throw error;
    }
  }

  return {
    name: 'ssh',
    key(workspace) {
      const { host, port, osUser } = hostOf(workspace);
      return [workspace.orgId, host, port, osUser].join(' ');
    },
    open,
    async probe(workspace, opening, until) {
      try {
        return await open(workspace, opening, until);
      } catch (error) {
        if (error === HOST_KEY_PROVED) return null;
        throw error;
      }
    },
    inspect: async () => ({
      instance: null,
      health: { ok: null, detail: 'no platform is asked about a host of driver "ssh"', durationMs: null },
      clockOffsetMs: 0,
    }),
    readConsole: async () => {
      throw new SallyportError('invalid_request', 'a workspace of driver "ssh" has no serial console');
    },
  };
}

function hostOf({ target }: Workspace): Host {
  if (target.driver !== 'ssh') throw new Error(`bug: the ssh driver was given a workspace of driver ${target.driver}`);
  return target;
}

/** The addresses that may be dialled, in the order of the system's resolver. */
async function resolve({ host }: Host, loopback: boolean, signal: AbortSignal): Promise<string[]> {
  const found = await untilAborted(lookup(host, { all: true }), signal).catch((error: unknown) => {
    throw signal.aborted ? signal.reason : unresolved(error);
  });
  const allowed = found.map(({ address }) => address).filter((address) => isDialable(address, loopback));
  if (allowed.length > 0) return allowed;
  throw new SallyportError('host_unreachable', 'the host has no address that may be dialled', {
    failedStep: 'endpoint',
    outcome: 'unreachable',
    remedy:
      'Link-local, metadata and multicast addresses are never dialled, and those of the gateway’s own machine only with SALLYPORT_SSH_LOOPBACK=on.',
  });
}

function unresolved(cause: unknown): SallyportError {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'error';
  return new SallyportError('host_unreachable', `the name of the host has no address (${code})`, {
    failedStep: 'endpoint',
    outcome: 'unreachable',
    retryable: code === 'EAI_AGAIN',
    remedy: 'Check the host of the workspace, and the resolver of the gateway’s machine.',
    cause,
  });
}

function isDialable(address: string, loopback: boolean): boolean {
  if (loopback && isLoopback(address)) return true;
  try {
    requireDialable(address);
    return true;
  } catch {
    return false; // Says so of every address that no host can have.
  }
}

function isLoopback(address: string): boolean {
  const own = new BlockList();
  own.addSubnet('127.0.0.0', 8, 'ipv4');
  own.addAddress('::1', 'ipv6');
  return own.check(address, isIPv4(address) ? 'ipv4' : 'ipv6');
}

/** The first address that takes the connection; each but the last has ADDRESS_TRY_MS. */
async function dial({ port }: Host, addresses: readonly string[], signal: AbortSignal): Promise<Socket> {
  let last: unknown;
  for (const [index, address] of addresses.entries()) {
    const isLast = index === addresses.length - 1;
    const late = new AbortController();
    const timer = isLast ? undefined : setTimeout(() => late.abort(), ADDRESS_TRY_MS);
    try {
      return await dialDirect(address, port, AbortSignal.any([signal, late.signal]));
    } catch (error) {
      signal.throwIfAborted();
      last = error;
    } finally {
      clearTimeout(timer);
    }
  }
  const cause = last instanceof SallyportError ? last.cause : last;
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'error';
  throw new SallyportError('host_unreachable', `port ${port} of the host cannot be reached (${code})`, {
    failedStep: 'tunnel',
    outcome: 'unreachable',
    retryable: true,
    remedy: 'sshd must be running there, and firewalls on the way must admit the gateway.',
    cause,
  });
}

function explain(error: unknown, osUser: string): unknown {
  if (!(error instanceof SallyportError) || error.code !== 'login_refused') return error;
  if (error.details.remedy !== undefined) return error;
  return new SallyportError('login_refused', `the host refused the gateway’s key for ${osUser}`, {
    ...error.details,
    remedy: `The public half of the gateway’s key belongs into ~/.ssh/authorized_keys of ${osUser}; the user must exist, and sshd must let it log in.`,
    cause: error,
  });
}
