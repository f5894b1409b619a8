/** A small HTTP server that speaks the gateway's wire as each test scripts it, and remembers what it was asked. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';

export interface Asked {
  method: string;
  path: string;
  headers: IncomingMessage['headers'];
  body: string;
}

export interface WireServer {
  url: string;
  asked: Asked[];
  /** Connections taken so far. */
  connections(): number;
  /** Resolves with the first request, past or to come, that matches. */
  seen(matches: (asked: Asked) => boolean): Promise<Asked>;
  close(): Promise<void>;
}

export type Answer = (response: ServerResponse, asked: Asked) => void;

export async function startWireServer(answer: Answer, tls?: { cert: string; key: string }): Promise<WireServer> {
  const asked: Asked[] = [];
  const waiting = new Set<() => void>();
  let connections = 0;

  const take = async (request: IncomingMessage, response: ServerResponse) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString('utf8');
    const one = { method: request.method ?? '', path: request.url ?? '', headers: request.headers, body };
    asked.push(one);
    for (const look of waiting) look();
    answer(response, one);
  };
  const listener = (request: IncomingMessage, response: ServerResponse) => {
    take(request, response).catch(() => response.destroy());
  };
  const server = tls === undefined ? createServer(listener) : createTlsServer(tls, listener);
  server.on('connection', () => {
    connections += 1;
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;

  return {
    url: `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`,
    asked,
    connections: () => connections,
    seen: (matches) =>
      new Promise((resolve) => {
        const look = () => {
          const found = asked.find(matches);
          if (found === undefined) return;
          waiting.delete(look);
          resolve(found);
        };
        waiting.add(look);
        look();
      }),
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

export const EXEC_ID = '0199aaaa-bbbb-7ccc-8ddd-eeeeffff0000';

export function beginFrames(response: ServerResponse): void {
  response.writeHead(200, {
    'content-type': 'application/x-ndjson',
    'x-exec-id': EXEC_ID,
    'x-request-id': 'request-1',
  });
}

export function sendFrames(response: ServerResponse, frames: readonly object[]): void {
  beginFrames(response);
  response.end(frames.map((frame) => `${JSON.stringify(frame)}\n`).join(''));
}

export function sendProblem(response: ServerResponse, status: number, members: object): void {
  response.writeHead(status, { 'content-type': 'application/problem+json', 'x-request-id': 'request-1' });
  response.end(JSON.stringify({ type: 'about:blank', status, ...members }));
}

export function sendJson(response: ServerResponse, document: unknown, status = 200): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(document));
}

export function outputFrame(stream: 'stdout' | 'stderr', data: string, more: object = {}): object {
  return { stream, data, truncated: false, ...more };
}

export function exitFrame(members: object = {}): object {
  return {
    exit_code: 0,
    outcome: 'exited',
    signal: null,
    duration_ms: 12,
    exec_id: EXEC_ID,
    stdout_bytes: 0,
    stderr_bytes: 0,
    stdout_sha256: 'x',
    stderr_sha256: 'x',
    complete: true,
    ...members,
  };
}

export function errorFrame(members: object = {}): object {
  return {
    error: 'the program was ended at its deadline',
    code: 'exec_timeout',
    outcome: 'timed_out',
    timeout_s: 1,
    duration_ms: 1000,
    exec_id: EXEC_ID,
    stdout_bytes: 0,
    stderr_bytes: 0,
    complete: false,
    ...members,
  };
}
