/**
 * The broker for EC2 instances: instance → endpoint → tunnel → SSH session, with a key that lives for one connection.
 *
 * Not its job: keeping sessions (the pool), running programs (ssh-session.ts).
 * - Every dial reads instance and endpoint anew. A way that worked before lets the tunnel open meanwhile, but nobody
 *   logs in before the reading has confirmed it, and what is reported comes from the reading alone.
 * - Tunnel, key push, host-key lookup and SSH handshake run side by side; only authentication waits for the push.
 * - The key pair is made per connection and stays in memory: ed25519, the only modern type that the instance side takes.
 * - A diagnosis walks the same way one step after the other (`walk`), so that what comes before a failure was seen to work.
 * - Success of the push promises nothing about the login: everything else is checked on the instance, silently. So a
 *   refused login pushes once more and tries once more, then explains what to look at.
 */
import type { Duplex } from 'node:stream';
import { SallyportError, type Step } from '../errors.ts';
import type { Driver, Opening, ProbeEnd, Session } from '../sessions/session.ts';
import type { Route, Workspace } from '../workspace.ts';
import type { Aws, AwsCall, Instance } from './aws.ts';
import { createEc2Facts } from './ec2-facts.ts';
import { type LabDial, openTunnel, Tunnel } from './eice-tunnel.ts';
import { establishTrust, type HostKeyMode, type HostTrust, type PinStore } from './host-keys.ts';
import { explainFailure, type Host, requireUsable, secondTry } from './instance-failures.ts';
import { createLoginKey, type LoginKey } from './login-key.ts';
import { dialDirect, directWay, endpointWay, isDirect, requireDialable, sameWay, type Way } from './route.ts';
import { openSshSession } from './ssh-session.ts';
import { together, untilAborted } from './together.ts';

export type { LabDial } from './eice-tunnel.ts';

export interface Ec2Deps {
  aws: Aws;
  pins: PinStore;
  hostKeys: HostKeyMode;
  /** Where the workspace names none. */
  route: Route;
  /** The tag of the instance that must equal the org, or null. */
  orgTag: string | null;
  lab: LabDial | null;
  /** See SshLogin. */
  channelAhead?: boolean;
  /** 1 to 3600; AWS cuts a tunnel after an hour, IAM may ask for less. */
  maxTunnelDurationS?: number;
}

/** A way, and what is known of the instance beside it. */
interface Found {
  way: Way;
  instance: Instance;
}

const SSH_PORT = 22;
/** How a probe is stopped before anything logs in. */
const HOST_KEY_PROVED = new Error('the host has proved its key, and no login was asked for');
const TUNNEL_DURATION_DEFAULT_S = 3600;
/** Ways that worked; the oldest goes. */
const REMEMBERED_WAYS_MAX = 4096;

export function createEc2Driver(deps: Ec2Deps): Driver {
  const { aws, orgTag, lab } = deps;
  const facts = createEc2Facts(deps);
  const remembered = new Map<string, Found>();

  async function open(workspace: Workspace, asked: Opening): Promise<Session> {
    const opening = withOnePlace(asked);
    const host = requireHost(workspace, deps.route);
    const key = keyOf(host);
    // A tag that changed its org must keep even the tunnel shut.
    const known = orgTag === null ? remembered.get(key) : undefined;
    const remember = (found: Found) => {
      remembered.delete(key);
      remembered.set(key, found);
      for (const oldest of remembered.keys()) {
        if (remembered.size <= REMEMBERED_WAYS_MAX) break;
        remembered.delete(oldest);
      }
    };
    if (known !== undefined) return await openByMemory(host, known, opening, remember);
    const found = await find(host, opening);
    const session = await connect(host, found, opening, () => dial(host, found, opening, Promise.resolve()));
    remember(found);
    return session;
  }

  async function probe(workspace: Workspace, asked: Opening, until: ProbeEnd): Promise<Session | null> {
    const opening = withOnePlace(asked);
    const host = requireHost(workspace, deps.route);
    const found = await find(host, opening);
    try {
      return await connect(host, found, opening, () => walk(host, found, opening, until));
    } catch (error) {
      if (error === HOST_KEY_PROVED) return null;
      throw error;
    }
  }

  async function openByMemory(
    host: Host,
    known: Found,
    opening: Opening,
    remember: (found: Found) => void,
  ): Promise<Session> {
    const reading = find(host, opening);
    const confirmed = reading.then((found) => {
      if (!sameWay(found.way, known.way)) throw new Error('the way to the instance has changed');
    });
    confirmed.catch(() => {}); // Told by `reading`, below.
    try {
      return await connect(host, known, opening, () => dial(host, known, opening, confirmed));
    } catch (error) {
      opening.signal.throwIfAborted();
      const found = await reading;
      if (sameWay(found.way, known.way)) throw error;
      const session = await connect(host, found, opening, () => dial(host, found, opening, Promise.resolve()));
      remember(found);
      return session;
    }
  }

  function callOf(step: Step, { trace }: Opening, signal: AbortSignal): AwsCall {
    return {
      step,
      signal,
      retried: (error) => {
        trace.retried = error;
      },
    };
  }

  /** Reads the instance and, where the route needs one, its endpoint. Rejects with what is wrong with them. */
  function find(host: Host, opening: Opening): Promise<Found> {
    return together(opening.signal, async ({ signal }) => {
      const { trace } = opening;
      const list = () => aws.listEndpoints(host.region, callOf('endpoint', opening, signal));
      // Beside the instance, although its VPC is not known yet: a region holds a handful of endpoints.
      const early = host.route === 'endpoint' ? list() : null;
      early?.catch(() => {}); // Told below, after what is wrong with the instance.
      const instance = await trace.step('instance', host.instanceId, async () => {
        const seen = await aws.describeInstance(host.region, host.instanceId, callOf('instance', opening, signal));
        return requireUsable(seen, host, orgTag);
      });
      const direct = isDirect(host.route, instance);
      const way = await trace.step('endpoint', direct ? 'none: direct' : (instance.vpcId ?? undefined), async () =>
        direct ? directWay(instance) : endpointWay(instance, await (early ?? list())),
      );
      if (lab === null) requireDialable(way.address);
      return { way, instance };
    });
  }

  /** Opens the session, and a second time where that has a point. */
  async function connect(host: Host, found: Found, opening: Opening, go: () => Promise<Session>): Promise<Session> {
    const left = new Set<'lost' | 'login'>(['lost', 'login']);
    for (;;) {
      try {
        return await go();
      } catch (error) {
        const reason = secondTry(error);
        if (opening.signal.aborted || reason === null || !left.delete(reason))
          throw explainFailure(error, host, found.instance);
        if (error instanceof SallyportError) opening.trace.retried = error;
      }
    }
  }

  function dial(host: Host, { way, instance }: Found, opening: Opening, confirmed: Promise<void>): Promise<Session> {
    return together(opening.signal, async ({ signal, part, fail }) => {
      void part(confirmed);
      // Before the push: its key lives for a minute.
      if (way.kind === 'endpoint') await untilAborted(opening.reserve(way.endpointId), signal);
      const key = createLoginKey();
      const pushed = part(push(host, key, opening, signal));
      const trusted = part(trust(host, instance, opening, signal));
      const transported = part(transport(host, way, opening, { signal, fail }));
      try {
        const [stream, trusts] = await untilAborted(Promise.all([transported, trusted]), signal);
        const beforeAuth = () => Promise.all([pushed, confirmed]).then(() => {});
        return await logIn(host, { stream, trusts, key, beforeAuth }, { ...opening, signal });
      } catch (error) {
        fail(error);
        // Opened in the same moment, or still opening and about to give up.
        transported.then((stream) => stream.destroy()).catch(() => {});
        throw error;
      }
    });
  }

  /** As `dial`, each step after the one before. Rejects with HOST_KEY_PROVED where that is the end. */
  function walk(host: Host, { way, instance }: Found, opening: Opening, until: ProbeEnd): Promise<Session> {
    return together(opening.signal, async ({ signal, fail }) => {
      if (way.kind === 'endpoint') await untilAborted(opening.reserve(way.endpointId), signal);
      const stream = await transport(host, way, opening, { signal, fail });
      try {
        await opening.trace.step('banner', undefined, () => untilAborted(firstBytes(stream), signal));
        const trusts = await untilAborted(trust(host, instance, opening, signal), signal);
        const key = createLoginKey();
        const beforeAuth = async () => {
          if (until === 'host_key') throw HOST_KEY_PROVED;
          await push(host, key, opening, signal);
        };
        return await logIn(host, { stream, trusts, key, beforeAuth }, { ...opening, signal });
      } catch (error) {
        stream.destroy();
        throw error;
      }
    });
  }

  function push(host: Host, key: LoginKey, opening: Opening, signal: AbortSignal): Promise<void> {
    const { region, instanceId, osUser } = host;
    const call = callOf('key_push', opening, signal);
    return opening.trace.step('key_push', undefined, () =>
      aws.sendSshPublicKey(region, { instanceId, osUser, publicKey: key.publicLine }, call),
    );
  }

  function trust(host: Host, instance: Instance, opening: Opening, signal: AbortSignal): Promise<HostTrust> {
    const { region, instanceId } = host;
    return establishTrust({
      mode: deps.hostKeys,
      pins: deps.pins,
      region,
      instanceId,
      launchedAt: instance.launchedAt,
      readConsole: ({ latest }) =>
        opening.trace.step('host_key', `console output${latest ? '' : ' after boot'}`, () =>
          aws.consoleOutput(region, instanceId, { latest }, callOf('host_key', opening, signal)),
        ),
    });
  }

  /** `fail` is told when the stream breaks later. */
  function transport(
    host: Host,
    way: Way,
    opening: Opening,
    { signal, fail }: { signal: AbortSignal; fail(error: unknown): void },
  ): Promise<Duplex> {
    return opening.trace.step('tunnel', wayText(way), async () => {
      const stream = await openTransport(host, way, opening, signal);
      // The endpoint's close frame may have come with its 101.
      if (stream.destroyed) throw transportError(stream);
      stream.once('error', () => fail(transportError(stream)));
      return stream;
    });
  }

  async function logIn(
    host: Host,
    how: { stream: Duplex; trusts: HostTrust; key: LoginKey; beforeAuth(): Promise<void> },
    opening: Opening,
  ): Promise<Session> {
    const { stream, trusts, key, beforeAuth } = how;
    const session = await openSshSession(
      {
        transport: stream,
        username: host.osUser,
        key: { pem: key.privatePem },
        beforeAuth,
        hostKeyTypes: trusts.types,
        verifyHostKey: (wireKey) => trusts.verify(wireKey),
        channelAhead: deps.channelAhead,
      },
      opening,
    );
    try {
      await trusts.confirm();
    } catch (error) {
      session.close();
      throw error;
    }
    return session;
  }

  async function openTransport(host: Host, way: Way, opening: Opening, signal: AbortSignal): Promise<Duplex> {
    if (way.kind === 'direct') return await dialDirect(way.address, SSH_PORT, signal);
    return await openTunnel({
      region: host.region,
      endpointId: way.endpointId,
      dnsName: way.dnsName,
      address: way.address,
      port: SSH_PORT,
      maxDurationS: deps.maxTunnelDurationS ?? TUNNEL_DURATION_DEFAULT_S,
      credentials: await aws.credentials(host.region, callOf('tunnel', opening, signal)),
      clockOffsetMs: aws.clockOffsetMs(host.region),
      lab,
      signal,
    });
  }

  return {
    name: 'ec2',
    key: (workspace) => keyOf(requireHost(workspace, deps.route)),
    open,
    probe,
    inspect: async (workspace, signal) => facts.inspect(requireHost(workspace, deps.route), signal),
    readConsole: async (workspace, signal) => facts.readConsole(requireHost(workspace, deps.route), signal),
  };
}

/** However often it is dialled, an opening takes one place, and keeps it. */
function withOnePlace(opening: Opening): Opening {
  let place: Promise<void> | null = null;
  return {
    ...opening,
    reserve: (resource) => {
      place ??= opening.reserve(resource);
      return place;
    },
  };
}

function requireHost(workspace: Workspace, defaultRoute: Route): Host {
  const { target, orgId } = workspace;
  if (target.driver !== 'ec2') throw new Error(`bug: the ec2 driver was given a workspace of driver ${target.driver}`);
  const { instanceId, region, osUser, route } = target;
  if (instanceId === null) throw new SallyportError('no_instance', 'the workspace names no instance');
  return { orgId, region, instanceId, osUser, route: route ?? defaultRoute };
}

/** With the org: an instance that moves to another org must not take an open session along. */
function keyOf(host: Host): string {
  return [host.orgId, host.region, host.instanceId, host.osUser, host.route].join(' ');
}

/** Resolves when the host has said something; leaves it in the stream for whoever reads next. */
function firstBytes(stream: Duplex): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (finish: () => void): void => {
      stream.off('readable', onReadable).off('close', onEnd).off('end', onEnd);
      finish();
    };
    const onEnd = (): void => settle(() => reject(silentEnd(stream)));
    const onReadable = (): void => {
      if (stream.readableLength > 0) settle(resolve);
      else if (stream.readableEnded || stream.destroyed) onEnd();
    };
    stream.on('readable', onReadable).on('close', onEnd).on('end', onEnd);
    onReadable();
  });
}

function silentEnd(stream: Duplex): SallyportError {
  if (stream instanceof Tunnel && stream.failure !== null) return stream.failure;
  return new SallyportError('host_unreachable', 'the host closed the connection before its SSH version line', {
    failedStep: 'banner',
    retryable: true,
  });
}

function transportError(transport: Duplex): SallyportError {
  if (transport instanceof Tunnel && transport.failure !== null) return transport.failure;
  return new SallyportError('host_unreachable', 'the connection to the host broke', {
    failedStep: 'tunnel',
    retryable: true,
    cause: transport.errored,
  });
}

function wayText(way: Way): string {
  return way.kind === 'direct' ? way.address : `${way.endpointId} to ${way.address}`;
}
