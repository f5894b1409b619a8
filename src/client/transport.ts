/**
 * One HTTP request to the gateway and its answer.
 *
 * Built on node's own http and https: `fetch` would cost the command line 90 ms of start-up. Redirects are never
 * followed, because they would carry the token elsewhere, and nothing is sent twice: an exec must not run twice.
 * TLS trusts what node trusts, plus NODE_EXTRA_CA_CERTS.
 */
import http, { type IncomingMessage } from 'node:http';
import type { RequestOptions } from 'node:https';
import { BlockList, isIP } from 'node:net';
import { SallyportError } from '../errors.ts';
import { NoAnswerError, ProblemError } from './problem.ts';
import type { Problem } from './wire.ts';

/** Two streams at the largest cap the gateway has, as JSON escapes them in the worst case. */
const ANSWER_MAX_BYTES = 256 * 1024 * 1024;
/** Lets the kernel notice a peer that vanished while nobody is reading. */
const TCP_KEEPALIVE_MS = 15_000;
/** The gateway's own address, not a host behind it: an answer to the first packet is a matter of milliseconds. */
const CONNECT_MAX_MS = 10_000;

export interface Gateway {
  readonly origin: URL;
  /** Without a slash at the end; empty for none. */
  readonly pathPrefix: string;
  readonly token: string;
  readonly orgId: string | null;
  readonly keepAlive: boolean;
}

export interface Call {
  method: string;
  /** Begins with a slash; every segment already encoded. */
  path: string;
  accept: string;
  body?: unknown;
  headers?: Record<string, string>;
  /** The call fails when nothing at all comes from the gateway for this long. */
  silenceMs: number;
  signal?: AbortSignal;
  /** No token is sent. */
  anonymous?: boolean;
}

export type Send = (call: Call) => Promise<IncomingMessage>;

/** Where to send to. Throws `invalid_request` for an address to which a token must not go; dials nothing. */
export function parseGateway(options: { url: string; token: string; orgId?: string; keepAlive?: boolean }): Gateway {
  const origin = parseUrl(options.url);
  if (origin.protocol === 'http:' && !isLoopback(origin.hostname)) {
    throw new SallyportError(
      'invalid_request',
      `the token is not sent over plain http to ${origin.hostname}: only a loopback address may go without TLS`,
      { remedy: 'use an https:// address' },
    );
  }
  if (!/^[\x21-\x7e]+$/.test(options.token)) {
    throw new SallyportError(
      'invalid_request',
      'the token must be visible ASCII without spaces; what was given is not',
    );
  }
  return {
    origin,
    pathPrefix: origin.pathname.replace(/\/+$/, ''),
    token: options.token,
    orgId: options.orgId ?? null,
    keepAlive: options.keepAlive ?? false,
  };
}

function parseUrl(rawUrl: string): URL {
  const expected = 'the gateway address must be an http:// or https:// URL';
  if (!URL.canParse(rawUrl)) throw new SallyportError('invalid_request', `${expected}; "${rawUrl}" is none`);
  const url = new URL(rawUrl);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new SallyportError('invalid_request', `${expected}; this one begins with "${url.protocol}"`);
  }
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') {
    throw new SallyportError('invalid_request', `${expected} without user, password, query or fragment`);
  }
  return url;
}

/** `localhost` counts (RFC 6761, section 6.3); other names do not, whatever they resolve to now. */
function isLoopback(hostname: string): boolean {
  if (hostname === 'localhost' || hostname === '127.0.0.1') return true;
  const address = hostname.replace(/^\[|\]$/g, '');
  const version = isIP(address);
  if (version === 0) return false;
  const loopback = new BlockList();
  loopback.addSubnet('127.0.0.0', 8);
  loopback.addAddress('::1', 'ipv6');
  return loopback.check(address, version === 6 ? 'ipv6' : 'ipv4');
}

/** Sends requests to one gateway; `close` lets go of idle connections. */
export function createTransport(gateway: Gateway): { send: Send; close(): void } {
  const { origin } = gateway;
  let agent: http.Agent | null = null;

  function scheme(): typeof http {
    // https alone costs every plain call its start-up; its module has the same shape.
    const module =
      origin.protocol === 'https:' ? (process.getBuiltinModule('node:https') as unknown as typeof http) : http;
    agent ??= new module.Agent({ keepAlive: gateway.keepAlive, noDelay: true });
    return module;
  }

  async function send(call: Call): Promise<IncomingMessage> {
    call.signal?.throwIfAborted();
    const body = call.body === undefined ? null : Buffer.from(JSON.stringify(call.body));
    const module = scheme();
    const options: RequestOptions = {
      protocol: origin.protocol,
      hostname: origin.hostname.replace(/^\[|\]$/g, ''),
      port: origin.port === '' ? undefined : origin.port,
      path: `${gateway.pathPrefix}${call.path}`,
      method: call.method,
      headers: headersOf(gateway, call, body),
      agent: agent ?? undefined,
      signal: call.signal,
    };
    return await answerTo(module.request(options), call, { body, where: origin.host });
  }

  return { send, close: () => agent?.destroy() };
}

function headersOf(gateway: Gateway, call: Call, body: Buffer | null): Record<string, string | number> {
  return {
    accept: call.accept,
    ...(call.anonymous === true ? {} : { authorization: `Bearer ${gateway.token}` }),
    ...(gateway.orgId === null ? {} : { 'x-org-id': gateway.orgId }),
    ...(body === null ? {} : { 'content-type': 'application/json', 'content-length': body.length }),
    ...call.headers,
  };
}

function answerTo(request: http.ClientRequest, call: Call, how: { body: Buffer | null; where: string }) {
  return new Promise<IncomingMessage>((resolve, reject) => {
    let wasSent = false;
    const giveUp = (ms: number) =>
      setTimeout(() => request.destroy(new Error(`nothing came for ${Math.round(ms / 1000)} s`)), ms);
    const silence = giveUp(call.silenceMs);
    request.once('socket', (socket) => {
      socket.setKeepAlive(true, TCP_KEEPALIVE_MS);
      if (!socket.connecting) return;
      const dial = giveUp(CONNECT_MAX_MS);
      socket.once('connect', () => clearTimeout(dial));
      socket.once('close', () => clearTimeout(dial));
    });
    request.once('finish', () => {
      wasSent = true;
    });
    request.once('response', (response) => {
      // From here on whoever reads the answer decides how long silence may last.
      clearTimeout(silence);
      resolve(response);
    });
    // Stays for the life of the request: an early answer can be followed by an error of writing the rest.
    request.on('error', (error) => {
      clearTimeout(silence);
      reject(call.signal?.aborted === true ? call.signal.reason : noAnswer(error, { wasSent, where: how.where }));
    });
    request.end(how.body ?? undefined);
  });
}

function noAnswer(error: NodeJS.ErrnoException, how: { wasSent: boolean; where: string }): NoAnswerError {
  const reason = error.message === '' ? (error.code ?? 'unknown reason') : error.message;
  const said = how.wasSent
    ? `the connection to the gateway at ${how.where} broke before it answered: ${reason}`
    : `the gateway at ${how.where} cannot be reached: ${reason}`;
  return new NoAnswerError(said, { wasSent: how.wasSent, cause: error });
}

/** The JSON document of a successful answer; rejects with what went wrong otherwise. */
export async function readDocument(response: IncomingMessage, silenceMs: number): Promise<unknown> {
  const bytes = await readAll(response, silenceMs);
  const status = response.statusCode ?? 0;
  if (status < 200 || status > 299) throw problemFrom(response, bytes);
  if (bytes.length === 0) return null;
  const document = parseJson(bytes);
  if (document === undefined) throw notOurs(response);
  return document;
}

/** The answer as the problem it is. */
export async function readProblem(response: IncomingMessage, silenceMs: number): Promise<ProblemError> {
  return problemFrom(response, await readAll(response, silenceMs));
}

function problemFrom(response: IncomingMessage, bytes: Buffer): ProblemError {
  const document = parseJson(bytes);
  if (typeof document !== 'object' || document === null || Array.isArray(document)) return notOurs(response);
  const execId = headerOf(response, 'x-exec-id');
  return new ProblemError(response.statusCode ?? 0, document as Problem, { execId });
}

function notOurs(response: IncomingMessage): ProblemError {
  const { location } = response.headers;
  const type = response.headers['content-type'] ?? 'no content type';
  const target = location === undefined ? '' : `, redirecting to ${location} (not followed, the token stays here)`;
  return new ProblemError(
    response.statusCode ?? 0,
    {},
    {
      execId: headerOf(response, 'x-exec-id'),
      message: `what answered is not a Sallyport gateway: ${response.statusCode} ${response.statusMessage} (${type})${target}`,
    },
  );
}

export function headerOf(response: IncomingMessage, name: string): string | null {
  const value = response.headers[name];
  return typeof value === 'string' ? value : null;
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    // The caller says what came instead; the text itself may be anything.
    return undefined;
  }
}

async function readAll(response: IncomingMessage, silenceMs: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  const silence = setTimeout(() => {
    response.destroy(new Error(`nothing came for ${Math.round(silenceMs / 1000)} s`));
  }, silenceMs);
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      silence.refresh();
      length += chunk.length;
      if (length > ANSWER_MAX_BYTES) throw new Error(`it is larger than ${ANSWER_MAX_BYTES} bytes`);
      chunks.push(chunk);
    }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new NoAnswerError(`the gateway's answer broke off: ${reason}`, { wasSent: true, cause: error });
  } finally {
    clearTimeout(silence);
  }
  return Buffer.concat(chunks, length);
}
