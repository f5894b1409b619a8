/**
 * The instance connect endpoint: a presigned websocket in, a TCP connection to an instance's SSH server out.
 *
 * What AWS publishes nothing about is chosen here, and nothing should be built on it: HTTP statuses of refused upgrades,
 * the answer over the quota, close codes, and that frames above FRAME_MAX_BYTES are refused.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import type { LabContext } from './lab-context.ts';
import { serviceNowMs } from './lab-context.ts';
import { parseQuery, SignatureError, splitTarget, verifyQuery } from './sigv4.ts';
import { Tunnel } from './tunnel.ts';

/** What the endpoint knows of an instance. */
export interface Target {
  id: string;
  privateIp: string;
  /** Where its SSH server listens on loopback now. */
  readonly sshPort: number;
}

export interface EndpointOptions {
  context: LabContext;
  targets: readonly Target[];
  /** Tunnels at once; AWS: 20, not adjustable. */
  maxTunnels: number;
}

/** The AWS CLI sends 65,000 at most. */
const FRAME_MAX_BYTES = 65_536;
const DURATION_MAX_S = 3600;
const EMPTY_BODY = Buffer.alloc(0);

class Refusal extends Error {
  readonly code: string;
  readonly status: number;
  constructor(code: string, message: string, status = 400) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

export class Endpoint {
  readonly #options: EndpointOptions;
  readonly #server = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: FRAME_MAX_BYTES });
  readonly #tunnels = new Set<Tunnel>();
  readonly #answering = new Set<Duplex>();

  constructor(options: EndpointOptions) {
    this.#options = options;
  }

  /** The listener for `upgrade` of the HTTP server. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    // A client that goes away in the middle of the handshake.
    socket.on('error', () => undefined);
    const latencyMs = this.#latencyMs(request);
    if (latencyMs === 0) {
      this.#answer(request, socket, head);
      return;
    }
    const timer = setTimeout(() => {
      this.#answering.delete(socket);
      this.#answer(request, socket, head);
    }, latencyMs);
    this.#answering.add(socket);
    socket.once('close', () => {
      this.#answering.delete(socket);
      clearTimeout(timer);
    });
  }

  /** Cuts the TCP connection of every tunnel, also of those about to open. */
  cutConnections(): void {
    for (const socket of this.#answering) socket.destroy();
    for (const tunnel of this.#tunnels) tunnel.cut();
  }

  /** As `cutConnections`, for one instance. */
  cutInstance(instanceId: string): void {
    for (const tunnel of this.#tunnels) if (tunnel.instanceId === instanceId) tunnel.cut();
  }

  #answer(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    try {
      const asked = this.#admit(request);
      this.#server.handleUpgrade(request, socket, head, (websocket) => this.#open(websocket, asked, socket as Socket));
    } catch (error) {
      this.#options.context.counters.tunnels.refused += 1;
      refuse(socket, toRefusal(error), serviceNowMs(this.#options.context));
    }
  }

  /** The handshake is a round trip like any other. Not counted here: the tunnel counts its link. */
  #latencyMs(request: IncomingMessage): number {
    const [, query] = splitTarget(request.url ?? '');
    const target = this.#findTarget(new Map(parseQuery(query)).get('privateIpAddress'));
    return this.#options.context.faults.peek('latency_ms', target?.id ?? null)?.value ?? 0;
  }

  #findTarget(privateIp: string | undefined): Target | null {
    return this.#options.targets.find((target) => target.privateIp === privateIp) ?? null;
  }

  #admit(request: IncomingMessage): Asked {
    const { context, maxTunnels } = this.#options;
    this.#requireSigned(request);
    const asked = parseAsked(request.url ?? '', context);
    const target = this.#findTarget(asked.privateIp);
    const bites = (name: 'tunnel_denied' | 'tunnel_refused' | 'endpoint_missing') =>
      context.faults.take(name, target?.id ?? null) !== null;
    if (bites('endpoint_missing')) throw notThere(asked.endpointId);
    if (bites('tunnel_denied')) throw denied(context);
    if (bites('tunnel_refused') || context.counters.tunnels.open >= maxTunnels) throw overQuota(maxTunnels);
    return { ...asked, target };
  }

  #requireSigned(request: IncomingMessage): void {
    const { world, sessionToken } = this.#options.context;
    if (request.headers.host !== world.endpoint.dnsName) {
      throw new Refusal('InvalidParameter', `No endpoint is named ${request.headers.host}`, 404);
    }
    verifyQuery(
      { method: request.method ?? '', target: request.url ?? '', rawHeaders: request.rawHeaders, body: EMPTY_BODY },
      {
        accessKeyId: world.accessKeyId,
        secretAccessKey: world.secretAccessKey,
        sessionToken,
        service: 'ec2-instance-connect',
        region: world.region,
        nowMs: serviceNowMs(this.#options.context),
      },
    );
  }

  #open(websocket: WebSocket, asked: Asked, tcp: Socket): void {
    const { context } = this.#options;
    context.counters.tunnelOpened();
    const tunnel = new Tunnel({
      websocket,
      tcp,
      instanceId: asked.target?.id ?? null,
      maxDurationMs: asked.maxDurationS * 1000,
      dial: () => this.#dial(asked.target),
      faults: context.faults,
    });
    this.#tunnels.add(tunnel);
    websocket.once('close', () => {
      this.#tunnels.delete(tunnel);
      context.counters.tunnels.open -= 1;
    });
  }

  /** Null: nobody answers at that address. */
  #dial(target: Target | null): Socket | null {
    const { faults } = this.#options.context;
    if (target === null) return null;
    const down = (['instance_missing', 'instance_stopped', 'target_down'] as const).some(
      (name) => faults.take(name, target.id) !== null,
    );
    return down ? null : connect({ host: '127.0.0.1', port: target.sshPort, noDelay: true });
  }
}

interface Asked {
  endpointId: string;
  privateIp: string;
  maxDurationS: number;
  target: Target | null;
}

function parseAsked(url: string, { world }: LabContext): Omit<Asked, 'target'> {
  const [path, rawQuery] = splitTarget(url);
  if (path !== '/openTunnel') throw new Refusal('InvalidParameter', `Unknown operation ${path}`, 404);
  const query = new Map(parseQuery(rawQuery));
  const endpointId = query.get('instanceConnectEndpointId') ?? '';
  if (endpointId !== world.endpoint.id) throw notThere(endpointId);
  if (query.get('remotePort') !== '22') {
    throw new Refusal(
      'InvalidParameter',
      'The specified RemotePort is not valid. Specify either 22 or 3389 as the RemotePort and retry your request.',
    );
  }
  const privateIp = query.get('privateIpAddress') ?? '';
  if (!/^10\.0\.[12]\.\d{1,3}$/.test(privateIp)) {
    throw new Refusal('InvalidParameter', `The specified PrivateIpAddress ${privateIp} is not valid in this VPC.`);
  }
  return { endpointId, privateIp, maxDurationS: parseDuration(query.get('maxTunnelDuration')) };
}

function parseDuration(raw: string | undefined): number {
  if (raw === undefined) return DURATION_MAX_S;
  const seconds = Number(raw);
  if (/^\d+$/.test(raw) && seconds >= 1 && seconds <= DURATION_MAX_S) return seconds;
  throw new Refusal(
    'InvalidParameter',
    `The specified MaxTunnelDuration must be 1 to ${DURATION_MAX_S} seconds, not ${raw}.`,
  );
}

function notThere(endpointId: string): Refusal {
  return new Refusal(
    'InvalidInstanceConnectEndpointId.NotFound',
    `The instance connect endpoint ID '${endpointId}' does not exist`,
    404,
  );
}

function denied({ world }: LabContext): Refusal {
  const action = 'ec2-instance-connect:OpenTunnel';
  return new Refusal(
    'AccessDeniedException',
    `User: arn:aws:iam::${world.accountId}:user/lab is not authorized to perform: ${action} on resource: ` +
      `arn:aws:ec2:${world.region}:${world.accountId}:instance-connect-endpoint/${world.endpoint.id} because no identity-based policy allows the ${action} action`,
    403,
  );
}

function overQuota(maxTunnels: number): Refusal {
  return new Refusal(
    'ServiceQuotaExceededException',
    `The endpoint has reached its quota of ${maxTunnels} concurrent connections.`,
  );
}

function toRefusal(error: unknown): Refusal {
  if (error instanceof Refusal) return error;
  if (error instanceof SignatureError) return new Refusal(`${error.fault}Exception`, error.message, 403);
  throw error;
}

function refuse(socket: Duplex, refusal: Refusal, nowMs: number): void {
  const body = JSON.stringify({ ErrorCode: refusal.code, Message: refusal.message });
  const headers = [
    `HTTP/1.1 ${refusal.status} ${refusal.code}`,
    'content-type: application/json',
    `content-length: ${Buffer.byteLength(body)}`,
    `x-amzn-RequestId: ${randomUUID()}`,
    `date: ${new Date(nowMs).toUTCString()}`,
    'connection: close',
  ];
  socket.end(`${headers.join('\r\n')}\r\n\r\n${body}`);
}
