/**
 * The HTTP edge: the Express app, and the server that listens for it.
 *
 * Nothing else knows Express. No body parser stands in front of the gates, and nothing is answered by Express itself:
 * every error is a problem document (problem.ts).
 */
import { randomUUID } from 'node:crypto';
import { createServer as createHttpServer, type RequestListener, type Server, type ServerOptions } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import express, { type Express, type RequestHandler } from 'express';
import { SallyportError } from '../errors.ts';
import {
  ANSWER_STALL_MAX_MS,
  CONNECTIONS_MAX,
  FAREWELL_MAX_MS,
  HEADERS_MAX_BYTES,
  HEADERS_MAX_MS,
  HEARTBEAT_MS,
  KEEP_ALIVE_MS,
  REQUEST_MAX_MS,
} from '../limits.ts';
import { newCall } from './call.ts';
import type { HttpDeps } from './deps.ts';
import { createMetricsRoute } from './health-route.ts';
import { problemBody } from './problem.ts';
import { createErrorHandler, unknownRoute } from './refusal.ts';
import { createRequestLog } from './request-log.ts';
import { createRequestSpan } from './request-span.ts';
import { addRoutes } from './router.ts';

export type { HttpDeps } from './deps.ts';

/** While closing: how often connections that have become idle are looked for. */
const IDLE_CHECK_MS = 50;

/** For tests, which cannot wait as long as a caller may. */
export interface AppPace {
  heartbeatMs?: number;
  answerStallMs?: number;
}

export function createApp(
  deps: HttpDeps,
  { heartbeatMs = HEARTBEAT_MS, answerStallMs = ANSWER_STALL_MAX_MS }: AppPace = {},
): Express {
  const app = bareApp(deps, answerStallMs);
  app.use(closeWhileDraining(deps));
  addRoutes(app, deps, { heartbeatMs });
  app.use(unknownRoute);
  app.use(createErrorHandler(deps));
  return app;
}

/** For a port of its own: nothing but the metrics. */
export function createMetricsApp(deps: HttpDeps): Express {
  const app = bareApp(deps, ANSWER_STALL_MAX_MS);
  app.get('/metrics', createMetricsRoute(deps));
  app.use(unknownRoute);
  app.use(createErrorHandler(deps));
  return app;
}

function bareApp(deps: HttpDeps, answerStallMs: number): Express {
  const app = express();
  // Express shows stacks to callers outside production; our error handler comes first, this is the second lock.
  app.set('env', 'production');
  app.set('query parser', 'simple');
  app.set('etag', false);
  app.set('trust proxy', trustOf(deps.trustProxy));
  app.enable('case sensitive routing');
  app.disable('x-powered-by');
  app.use(openCall);
  app.use(createRequestSpan(deps));
  app.use(createRequestLog(deps));
  app.use(limitStall(answerStallMs));
  return app;
}

/** Whoever asks a stopping gateway shall go to another one with the next request. */
function closeWhileDraining({ draining }: HttpDeps): RequestHandler {
  return (_req, res, next) => {
    if (draining()) res.setHeader('Connection', 'close');
    next();
  };
}

/**
 * Once an answer is complete only the caller's reading is waited for. Node counts every byte that leaves as activity, and
 * takes the limit away with the next request on the connection.
 */
function limitStall(stallMs: number): RequestHandler {
  return (req, res, next) => {
    res.once('prefinish', () => req.socket.setTimeout(stallMs));
    next();
  };
}

const openCall: RequestHandler = (req, res, next) => {
  const sent = req.get('x-request-id') ?? '';
  const requestId = /^[A-Za-z0-9._-]{1,128}$/.test(sent) ? sent : randomUUID();
  res.locals.call = newCall(requestId);
  res.setHeader('X-Request-Id', requestId);
  res.setHeader('Cache-Control', 'no-store');
  res.setHeader('X-Content-Type-Options', 'nosniff');
  next();
};

/** Express takes a number for "so many proxies", which an environment variable can only say as text. */
function trustOf(setting: HttpDeps['trustProxy']): string | boolean | number {
  if (typeof setting === 'string' && /^\d+$/.test(setting)) return Number(setting);
  return setting ?? false;
}

export interface RunningServer {
  url: string;
  /** Accepts nothing new, lets what runs end for `graceMs`, then cuts it. Resolves when every connection is closed. */
  close(graceMs: number): Promise<void>;
}

export interface ServerSettings {
  host: string;
  port: number;
  tls: { cert: string; key: string } | null;
  /** Told of connections that were refused because there were too many. */
  onFull?: () => void;
  /** For tests, which cannot wait as long as a slow client may. */
  slow?: { headersMs?: number; requestMs?: number; keepAliveMs?: number; connections?: number };
}

export async function startServer(app: Express, options: ServerSettings): Promise<RunningServer> {
  const server = createServer(app, options);
  server.on('clientError', answerClientError);
  // Nothing can be said to a client before its handshake is done.
  server.on('tlsClientError', (_error: Error, socket: Socket) => socket.destroy());
  if (options.onFull !== undefined) server.on('drop', options.onFull);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, () => {
      server.off('error', reject);
      resolve();
    });
  });
  const { address, family, port } = server.address() as AddressInfo;
  const host = family === 'IPv6' ? `[${address}]` : address;
  return {
    url: `${options.tls === null ? 'http' : 'https'}://${host}:${port}`,
    close: (graceMs) => close(server, graceMs),
  };
}

function createServer(app: Express, { tls, slow = {} }: ServerSettings): Server {
  const { headersMs = HEADERS_MAX_MS, requestMs = REQUEST_MAX_MS } = slow;
  const { keepAliveMs = KEEP_ALIVE_MS, connections = CONNECTIONS_MAX } = slow;
  const limits: ServerOptions = {
    headersTimeout: headersMs,
    requestTimeout: requestMs,
    keepAliveTimeout: keepAliveMs,
    maxHeaderSize: HEADERS_MAX_BYTES,
    connectionsCheckingInterval: headersMs / 4,
  };
  const listener = inOriginForm(app);
  const server =
    tls === null
      ? createHttpServer(limits, listener)
      : createHttpsServer({ ...limits, ...tls, handshakeTimeout: headersMs }, listener);
  server.maxConnections = connections;
  return server;
}

/**
 * `GET http://host/path` is legal (RFC 9112, 3.2.2), but Express answers one that does not parse with a page of its
 * own, before any handler of ours.
 */
function inOriginForm(app: Express): RequestListener {
  return (req, res) => {
    const target = req.url ?? '/';
    if (!target.startsWith('/') && URL.canParse(target)) {
      const { pathname, search } = new URL(target);
      req.url = `${pathname}${search}`;
    } else if (!target.startsWith('/')) req.url = '/*';
    app(req, res);
  };
}

/** What Node could not read as a request. The connection is of no further use. */
function answerClientError(error: NodeJS.ErrnoException, socket: Socket): void {
  // After the first bytes of another answer on this connection, ours would be read as part of it.
  if (error.code === 'ECONNRESET' || !socket.writable || socket.bytesWritten > 0) return void socket.destroy();
  const [status, what] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? ['431 Request Header Fields Too Large', `the headers must be at most ${HEADERS_MAX_BYTES} bytes`]
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? ['408 Request Timeout', 'the request did not arrive in time']
        : ['400 Bad Request', 'this is not a valid HTTP request'];
  const problem = problemBody(new SallyportError('invalid_request', what), { requestId: randomUUID(), execId: null });
  const body = JSON.stringify({ ...problem, status: Number.parseInt(status, 10) });
  const head = `HTTP/1.1 ${status}\r\nContent-Type: application/problem+json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n`;
  socket.end(head + body);
  // Whoever never closes their side would keep the connection, and with it a file descriptor, for ever.
  const farewell = setTimeout(() => socket.destroy(), FAREWELL_MAX_MS);
  socket.once('close', () => clearTimeout(farewell));
}

async function close(server: Server, graceMs: number): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  const cut = setTimeout(() => server.closeAllConnections(), graceMs);
  // A connection that is busy when the server closes is kept alive afterwards unless somebody looks again.
  const idle = setInterval(() => server.closeIdleConnections(), IDLE_CHECK_MS);
  await closed;
  clearTimeout(cut);
  clearInterval(idle);
}
