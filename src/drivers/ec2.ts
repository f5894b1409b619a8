/**
 * The broker for EC2 instances: instance → endpoint → tunnel → SSH session, with a key that lives for one connection.
 *
 * Not its job: keeping sessions (the pool), running programs (ssh-session.ts).
 * - Every dial reads instance and endpoint anew. A way that worked before lets the tunnel open meanwhile, but nobody
 *   logs in before the reading has confirmed it, and what is reported comes from the reading alone.
 * - Tunnel, key push, host-key lookup and SSH handshake run side by side; only authentication waits for the push.
 * - The key pair is made per connection and stays in memory: ed25519, the only modern type that the instance side takes.
 * - Success of the push promises nothing about the login: everything else is checked on the instance, silently. So a
 *   refused login pushes once more and tries once more, then explains what to look at.
 */
import type { Duplex } from 'node:stream';
import { SallyportError, type Step } from '../errors.ts';
import type { Driver, Opening, Session } from '../sessions/session.ts';
import type { Route, Workspace } from '../workspace.ts';
import type { Aws, AwsCall, Instance } from './aws.ts';
import { type LabDial, openTunnel, Tunnel } from './eice-tunnel.ts';
import { establishTrust, type HostKeyMode, type PinStore } from './host-keys.ts';
import { explainFailure, type Host, requireUsable, secondTry } from './instance-failures.ts';
import { createLoginKey } from './login-key.ts';
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
  /** 1 to 3600; AWS cuts a tunnel after an hour, IAM may ask for less. */
  maxTunnelDurationS?: number;
}

/** A way, and what is known of the instance beside it. */
interface Found {
  way: Way;
  instance: Instance;
}

const SSH_PORT = 22;
const TUNNEL_DURATION_DEFAULT_S = 3600;
/** Ways that worked; the oldest goes. */
const REMEMBERED_WAYS_MAX = 4096;

export function createEc2Driver(deps: Ec2Deps): Driver {
  const { aws, orgTag, lab } = deps;
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
    const session = await connect(host, found, opening, Promise.resolve());
    remember(found);
    return session;
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
      return await connect(host, known, opening, confirmed);
    } catch (error) {
      opening.signal.throwIfAborted();
      const found = await reading;
      if (sameWay(found.way, known.way)) throw error;
      const session = await connect(host, found, opening, Promise.resolve());
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
      const way = isDirect(host.route, instance)
        ? directWay(instance)
        : await trace.step('endpoint', instance.vpcId ?? undefined, async () =>
            endpointWay(instance, await (early ?? list())),
          );
      if (lab === null) requireDialable(way.address);
      return { way, instance };
    });
  }

  /** Opens the session, and a second time where that has a point. */
  async function connect(host: Host, found: Found, opening: Opening, confirmed: Promise<void>): Promise<Session> {
    const left = new Set<'lost' | 'login'>(['lost', 'login']);
    for (;;) {
      try {
        return await dial(host, found, opening, confirmed);
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
      const { trace } = opening;
      void part(confirmed);
      // Before the push: its key lives for a minute.
      if (way.kind === 'endpoint') await untilAborted(opening.reserve(way.endpointId), signal);
      const key = createLoginKey();
      const pushed = part(
        trace.step('key_push', undefined, () =>
          aws.sendSshPublicKey(
            host.region,
            { instanceId: host.instanceId, osUser: host.osUser, publicKey: key.publicLine },
            callOf('key_push', opening, signal),
          ),
        ),
      );
      const trusted = part(
        establishTrust({
          mode: deps.hostKeys,
          pins: deps.pins,
          region: host.region,
          instanceId: host.instanceId,
          launchedAt: instance.launchedAt,
          readConsole: ({ latest }) =>
            trace.step('host_key', `console output${latest ? '' : ' after boot'}`, () =>
              aws.consoleOutput(host.region, host.instanceId, { latest }, callOf('host_key', opening, signal)),
            ),
        }),
      );
      const transported = part(
        trace.step('tunnel', wayText(way), async () => {
          const transport = await openTransport(host, way, opening, signal);
          // The endpoint's close frame may have come with its 101.
          if (transport.destroyed) throw transportError(transport);
          transport.once('error', () => fail(transportError(transport)));
          return transport;
        }),
      );
      try {
        const [transport, trust] = await untilAborted(Promise.all([transported, trusted]), signal);
        const session = await openSshSession(
          {
            transport,
            username: host.osUser,
            privateKey: key.privatePem,
            beforeAuth: Promise.all([pushed, confirmed]).then(() => {}),
            hostKeyTypes: trust.types,
            verifyHostKey: (wireKey) => trust.verify(wireKey),
          },
          { ...opening, signal },
        );
        try {
          await trust.confirm();
        } catch (error) {
          session.close();
          throw error;
        }
        return session;
      } catch (error) {
        fail(error);
        // Opened in the same moment, or still opening and about to give up.
        transported.then((transport) => transport.destroy()).catch(() => {});
        throw error;
      }
    });
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
