/** Requests on real sockets, for what supertest cannot do: read a stream as it comes, hang up, stand still. */
import { type ClientRequest, type IncomingMessage, request } from 'node:http';
import { connect, type Socket } from 'node:net';
import ndjson from 'ndjson';
import { onTestFinished } from 'vitest';
import type { createApp } from '../../src/http/server.ts';
import { startServer } from '../../src/http/server.ts';

/** Listening until the test ends. */
export async function listen(app: ReturnType<typeof createApp>): Promise<{ url: string; port: number }> {
  const server = await startServer(app, { host: '127.0.0.1', port: 0, tls: null });
  onTestFinished(() => server.close(0));
  return { url: server.url, port: Number(new URL(server.url).port) };
}

export interface Exchange {
  request: ClientRequest;
  /** Resolves with the headers. */
  response: Promise<IncomingMessage>;
}

export function post(
  url: string,
  how: { token: string; body?: unknown; headers?: Record<string, string | number>; method?: string },
): Exchange {
  const text = how.body === undefined ? undefined : JSON.stringify(how.body);
  const sent = request(url, {
    method: how.method ?? 'POST',
    agent: false,
    headers: {
      authorization: `Bearer ${how.token}`,
      'content-type': 'application/json',
      ...(text === undefined ? {} : { 'content-length': Buffer.byteLength(text) }),
      ...how.headers,
    },
  });
  const response = new Promise<IncomingMessage>((resolve, reject) => {
    sent.on('response', resolve);
    sent.on('error', reject);
  });
  // A test that hangs up on purpose does not look at the response.
  response.catch(() => {});
  if (text !== undefined) sent.end(text);
  return { request: sent, response };
}

export async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}

export async function framesOf(response: IncomingMessage): Promise<Record<string, unknown>[]> {
  const frames: Record<string, unknown>[] = [];
  for await (const frame of response.pipe(ndjson.parse())) frames.push(frame as Record<string, unknown>);
  return frames;
}

/** A connection on which a test writes bytes of its own; `received` is what has come back. */
export function rawSocket(port: number): { socket: Socket; received(): string; closed: Promise<void> } {
  const socket = connect(port, '127.0.0.1');
  onTestFinished(() => {
    socket.destroy();
  });
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1');
  });
  // The gateway may cut us off: that is what some tests are about.
  socket.on('error', () => {});
  return { socket, received: () => text, closed: new Promise((resolve) => socket.on('close', () => resolve())) };
}
