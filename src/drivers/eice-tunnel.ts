/**
 * A TCP connection to port 22 of an instance through an EC2 Instance Connect Endpoint: a presigned websocket as a Duplex.
 *
 * Not its job: choosing the endpoint, and trying again.
 * - `openTunnel` is in no service model; the recipe is that of the AWS CLI, and the presigned URL equals the CLI's own
 *   test vector byte for byte. Each connection signs anew with AWS's clock: 60 s pass sooner than one thinks, and the
 *   URL is a bearer secret, so that it stands in no message and no log.
 * - A target that does not answer is no HTTP error: the upgrade succeeds, then the endpoint closes with a reason. That
 *   reason becomes the error of the stream.
 * - Half-close does not exist here: ending the stream closes the websocket.
 */
import type { ClientRequest, IncomingMessage } from 'node:http';
import { Duplex } from 'node:stream';
import { Sha256 } from '@aws-crypto/sha256-js';
import { HttpRequest } from '@smithy/protocol-http';
import { SignatureV4 } from '@smithy/signature-v4';
import { type ClientOptions, type RawData, WebSocket } from 'ws';
import { SallyportError } from '../errors.ts';
import type { AwsCredentials } from './aws.ts';
import { nameClosedTunnel, nameFailedHandshake, nameRefusedUpgrade } from './tunnel-errors.ts';

/** Where the lab's endpoint listens: dialled in place of `wss://<DnsName>:443`; the signature still covers DnsName. */
export interface LabDial {
  /** `ws://127.0.0.1:port` */
  tunnelUrl: string;
}

export interface TunnelRequest {
  region: string;
  endpointId: string;
  dnsName: string;
  /** A private IPv4 or an IPv6 address. */
  address: string;
  /** 22; the endpoint refuses everything but 22 and 3389. */
  port: number;
  /** 1 to 3600. Always sent: an IAM condition on it denies the call that leaves it out. */
  maxDurationS: number;
}

export interface TunnelOptions extends TunnelRequest {
  credentials: AwsCredentials;
  /** AWS's clock minus ours. */
  clockOffsetMs: number;
  lab: LabDial | null;
  /** Aborting it before the tunnel is open leaves nothing open; later it does nothing. */
  signal: AbortSignal;
}

/** The life of a presigned URL, as the AWS CLI signs it. */
const PRESIGN_LIFE_S = 60;
/** The endpoint answers in well under a second; a lost packet costs one or three. */
const HANDSHAKE_TIMEOUT_MS = 8_000;
/** What the AWS CLI sends and reads at most; whether the endpoint takes more is not public. */
const FRAME_MAX_BYTES = 65_000;
/** A frame from the endpoint beyond this is no tunnel data. */
const INCOMING_FRAME_MAX_BYTES = 4 * 1024 * 1024;
/** After our close frame the endpoint has this long to answer it. */
const CLOSE_TIMEOUT_MS = 1_000;
/** Buffered each way beside the socket's own buffers. */
const STREAM_BUFFER_BYTES = 128 * 1024;
const REFUSAL_MAX_BYTES = 16 * 1024;
const REFUSAL_READ_MS = 2_000;

/** Resolves when the upgrade was accepted, which does not say that the target answers. The caller destroys it. */
export async function openTunnel(options: TunnelOptions): Promise<Tunnel> {
  const { signal, lab, dnsName } = options;
  const signed = new URL(
    await presignTunnelUrl(options, options.credentials, new Date(Date.now() + options.clockOffsetMs)),
  );
  signal.throwIfAborted();
  const url = lab === null ? signed : new URL(`${signed.pathname}${signed.search}`, lab.tunnelUrl);
  const settings: ClientOptions & { closeTimeout: number } = {
    perMessageDeflate: false,
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    maxPayload: INCOMING_FRAME_MAX_BYTES,
    closeTimeout: CLOSE_TIMEOUT_MS,
    ...(lab === null ? {} : { headers: { Host: dnsName } }),
  };
  return await handshake(new WebSocket(url, settings), signal);
}

/** The `wss://` URL of one tunnel, signed for `date` and good for a minute. */
export async function presignTunnelUrl(
  request: TunnelRequest,
  credentials: AwsCredentials,
  date: Date,
): Promise<string> {
  const signer = new SignatureV4({
    service: 'ec2-instance-connect',
    region: request.region,
    credentials,
    sha256: Sha256,
  });
  const unsigned = new HttpRequest({
    method: 'GET',
    protocol: 'wss:',
    hostname: request.dnsName,
    path: '/openTunnel',
    headers: { host: request.dnsName },
    // In the order of the AWS CLI.
    query: {
      instanceConnectEndpointId: request.endpointId,
      remotePort: String(request.port),
      privateIpAddress: request.address,
      maxTunnelDuration: String(request.maxDurationS),
    },
  });
  const { query } = await signer.presign(unsigned, { expiresIn: PRESIGN_LIFE_S, signingDate: date });
  const pairs = Object.entries(query ?? {}).map(
    ([key, value]) => `${escapeRfc3986(key)}=${escapeRfc3986(String(value))}`,
  );
  return `wss://${request.dnsName}/openTunnel?${pairs.join('&')}`;
}

/** encodeURIComponent leaves five characters that the canonical query escapes. */
function escapeRfc3986(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

function handshake(socket: WebSocket, signal: AbortSignal): Promise<Tunnel> {
  // Before `open`: the SSH banner can ride in the packet that carries the 101.
  const tunnel = new Tunnel(socket);
  return new Promise((resolve, reject) => {
    const refuse = (error: unknown) => {
      signal.removeEventListener('abort', onAbort);
      reject(error);
      tunnel.destroy();
    };
    const onAbort = () => refuse(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    socket.once('open', () => {
      signal.removeEventListener('abort', onAbort);
      resolve(tunnel);
    });
    socket.once('unexpected-response', (request: ClientRequest, response: IncomingMessage) => {
      void readRefusal(request, response).then((body) => refuse(nameRefusedUpgrade(response.statusCode ?? 0, body)));
    });
    socket.once('error', (error) => refuse(nameFailedHandshake(error)));
  });
}

/** The body of a refused upgrade as far as it comes; never rejects. */
function readRefusal(request: ClientRequest, response: IncomingMessage): Promise<string> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const done = () => {
      clearTimeout(timer);
      resolve(Buffer.concat(chunks).toString('utf8', 0, REFUSAL_MAX_BYTES));
      request.destroy();
    };
    const timer = setTimeout(done, REFUSAL_READ_MS);
    response.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes >= REFUSAL_MAX_BYTES) done();
    });
    response.on('close', done);
    // `close` follows; without a listener it would end the process.
    response.on('error', done);
  });
}

export class Tunnel extends Duplex {
  /** Bytes that came from the target. */
  bytesIn = 0;
  /** Why it ended, unless we ended it or the target did in good order. */
  failure: SallyportError | null = null;
  readonly #socket: WebSocket;
  /** Of a write that found the websocket closing: its close code, a moment later, says what that means. */
  #unsent: (() => void) | null = null;

  constructor(socket: WebSocket) {
    super({
      allowHalfOpen: false,
      readableHighWaterMark: STREAM_BUFFER_BYTES,
      writableHighWaterMark: STREAM_BUFFER_BYTES,
    });
    this.#socket = socket;
    // Whoever reads looks at `failure`; an error before anybody listens must not end the process.
    this.on('error', () => {});
    socket.on('message', (data, isBinary) => this.#receive(data, isBinary));
    socket.on('close', (code, reason) => this.#closed(code, reason.toString('utf8')));
    // Of an open websocket: `close` follows and says what it means. Before that, handshake() listens too.
    socket.on('error', (error) => {
      if (socket.readyState !== WebSocket.CONNECTING) this.#fail(protocolError(error.message, error));
    });
  }

  // What ssh2 asks of a socket. ws has set TCP_NODELAY already; keep-alives are SSH's own.
  setNoDelay(): this {
    return this;
  }
  setKeepAlive(): this {
    return this;
  }
  setTimeout(): this {
    return this;
  }

  override _read(): void {
    if (this.#socket.isPaused) this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#send(chunk, done);
  }

  override _writev(chunks: { chunk: Buffer }[], done: (error?: Error | null) => void): void {
    this.#send(Buffer.concat(chunks.map(({ chunk }) => chunk)), done);
  }

  override _final(done: (error?: Error | null) => void): void {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.close(1000);
    // A reader that went to sleep would keep the answer to the close frame from being seen.
    this.#socket.resume();
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    // The close frame leaves with the kernel's next packet, so that the endpoint's slot is free at once.
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.close(1000);
    this.#socket.terminate();
    done(error);
  }

  #receive(data: RawData, isBinary: boolean): void {
    if (this.destroyed) return;
    if (!isBinary) {
      this.#fail(protocolError('a text frame came'));
      return;
    }
    // ws gives one Buffer unless told otherwise.
    const bytes = data as Buffer;
    if (bytes.length === 0) return;
    this.bytesIn += bytes.length;
    if (!this.push(bytes)) this.#socket.pause();
  }

  #send(bytes: Buffer, done: () => void): void {
    const sent = (error?: Error | null) => {
      if (!error) return done();
      if (this.#socket.readyState === WebSocket.CLOSED) return done();
      this.#unsent = done;
    };
    let at = 0;
    for (; bytes.length - at > FRAME_MAX_BYTES; at += FRAME_MAX_BYTES) {
      // Errors repeat in the callback of the last frame.
      this.#socket.send(bytes.subarray(at, at + FRAME_MAX_BYTES), () => {});
    }
    this.#socket.send(at === 0 ? bytes : bytes.subarray(at), sent);
  }

  #closed(code: number, reason: string): void {
    const orderly = code === 1000 || code === 1005;
    if (orderly || this.writableEnded) this.push(null);
    else this.#fail(nameClosedTunnel(code, reason, this.bytesIn > 0));
    this.#unsent?.();
  }

  #fail(error: SallyportError): void {
    if (this.destroyed) return;
    this.failure = error;
    this.destroy(error);
  }
}

function protocolError(what: string, cause?: Error): SallyportError {
  return new SallyportError('host_unreachable', `the endpoint broke the rules of the tunnel: ${what}`, {
    failedStep: 'tunnel',
    cause,
  });
}
