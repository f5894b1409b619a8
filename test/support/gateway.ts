/** A whole gateway for one test file: real database, lab, HTTP server; the demo's orgs, workspaces and tokens in it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ndjson from 'ndjson';
import { pino } from 'pino';
import { generateSigningKey } from '../../src/access/token.ts';
import { readConfig } from '../../src/config/config.ts';
import type { Database } from '../../src/db/database.ts';
import { type DemoFile, startDemo } from '../../src/demo.ts';
import type { FaultName } from '../../src/lab/faults.ts';
import type { Pool } from '../../src/sessions/pool.ts';
import { createTestDatabase } from './database.ts';
import { type Row, runSql } from './sql.ts';

export type Frame = Record<string, unknown>;
export type TokenName = keyof DemoFile['tokens'];

export interface Answer {
  status: number;
  headers: IncomingMessage['headers'];
  /** The JSON document, or null for a stream. */
  body: Record<string, unknown>;
  /** The frames of a stream; empty for a document. */
  frames: Frame[];
  text: string;
}

export interface Ask {
  method?: string;
  token?: TokenName | { raw: string } | null;
  headers?: Record<string, string>;
  body?: unknown;
  signal?: AbortSignal;
}

export interface TestGateway extends DemoFile {
  dataDir: string;
  database: Database;
  /** Its URL, for whoever comes to it from outside. */
  databaseUrl: string;
  pool: Pool;
  /** Asks the database directly, over a connection of its own. */
  sql(text: string, values?: unknown[]): Promise<Row[]>;
  /** Sends a request and reads the answer whole. */
  ask(path: string, how?: Ask): Promise<Answer>;
  /** Runs a command in ws-demo, or in `workspace`, as the org token, and reads every frame. */
  exec(body: object, how?: Ask & { workspace?: string }): Promise<Answer>;
  fault(fault: FaultName, how?: { instance_id?: string; times?: number; value?: number }): Promise<void>;
  clearFaults(): Promise<void>;
  /** The instance writes this on its console. */
  writeConsole(instanceId: string, text: string): Promise<void>;
  cutConnections(): Promise<void>;
  counters(): Promise<{
    tunnels: { open: number; peak: number };
    instances: Record<string, { logins: number; channels: number; pushes: number }>;
  }>;
  stop(): Promise<void>;
}

export async function startTestGateway(env: Record<string, string> = {}): Promise<TestGateway> {
  const dataDir = await mkdtemp(join(tmpdir(), 'gateway-'));
  const { url: databaseUrl, drop } = await createTestDatabase();
  const config = readConfig({
    DATABASE_URL: databaseUrl,
    SALLYPORT_SIGNING_KEY: await generateSigningKey(),
    SALLYPORT_DATA_DIR: dataDir,
    SALLYPORT_PORT: '0',
    ...env,
  });
  const demo = await startDemo(config, { log: pino({ level: 'silent' }), env: process.env });
  const { file, gateway } = demo;
  const lab = async (method: string, path: string, body?: object): Promise<unknown> => {
    const answer = await send(file.lab.url + path, {
      method,
      headers: {},
      body: body === undefined ? null : JSON.stringify(body),
    });
    if (answer.status >= 400) throw new Error(`${method} ${path}: ${answer.status} ${answer.text}`);
    return answer.body;
  };
  const ask = createAsk(file);
  return {
    ...file,
    dataDir,
    database: gateway.database,
    databaseUrl,
    sql: (text, values) => runSql(databaseUrl, text, values),
    pool: gateway.pool,
    ask,
    exec: (body, { workspace = 'ws-demo', ...how } = {}) =>
      ask(`/workspaces/${workspace}/exec`, { method: 'POST', body, ...how }),
    fault: async (fault, how = {}) => void (await lab('POST', '/faults', { fault, ...how })),
    writeConsole: async (instance_id, text) => void (await lab('POST', '/console', { instance_id, text })),
    clearFaults: async () => void (await lab('DELETE', '/faults')),
    cutConnections: async () => void (await lab('DELETE', '/connections')),
    counters: async () => (await lab('GET', '/counters')) as Awaited<ReturnType<TestGateway['counters']>>,
    async stop() {
      await demo.stop(0);
      await drop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

/** For any gateway of which URL and tokens are known, also one in another process. */
export function createAsk({ url, tokens }: Pick<DemoFile, 'url' | 'tokens'>): TestGateway['ask'] {
  return (path, { token = 'org', ...how } = {}) => {
    const credential = token === null ? null : typeof token === 'string' ? tokens[token] : token.raw;
    return send(url + path, sendingOf(credential, how));
  };
}

export function sendingOf(
  credential: string | null,
  { method = 'GET', headers = {}, body, signal }: Omit<Ask, 'token'>,
): Sending {
  return {
    method,
    headers: {
      ...(credential === null ? {} : { authorization: `Bearer ${credential}` }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers,
    },
    body: body === undefined ? null : typeof body === 'string' ? body : JSON.stringify(body),
    ...(signal === undefined ? {} : { signal }),
  };
}

export interface Sending {
  method: string;
  headers: Record<string, string>;
  body: string | null;
  signal?: AbortSignal;
  /** Certificate to trust; for https. */
  ca?: string;
}

/** One request; the answer is read whole. */
export function send(url: string, { method, headers, body, signal, ca }: Sending): Promise<Answer> {
  const request = url.startsWith('https:') ? httpsRequest : httpRequest;
  const options = { method, headers, ...(signal === undefined ? {} : { signal }), ...(ca === undefined ? {} : { ca }) };
  return new Promise((resolve, reject) => {
    const sent = request(url, options, (response) => {
      readAnswer(response).then(resolve, reject);
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

async function readAnswer(response: IncomingMessage): Promise<Answer> {
  const type = response.headers['content-type'] ?? '';
  const status = response.statusCode ?? 0;
  if (!type.startsWith('application/x-ndjson')) {
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk as Buffer);
    const text = Buffer.concat(chunks).toString();
    const body = type.includes('json') && text !== '' ? (JSON.parse(text) as Record<string, unknown>) : {};
    return { status, headers: response.headers, body, frames: [], text };
  }
  const frames: Frame[] = [];
  for await (const frame of response.pipe(ndjson.parse())) frames.push(frame as Frame);
  return { status, headers: response.headers, body: {}, frames, text: '' };
}

/** What a program wrote to one stream, exactly; markers left out. */
export function outputOf(frames: readonly Frame[], stream: 'stdout' | 'stderr'): Buffer {
  return Buffer.concat(
    frames
      .filter((frame) => frame.stream === stream && frame.truncated !== true)
      .map((frame) => Buffer.from(String(frame.data), frame.encoding === 'base64' ? 'base64' : 'utf8')),
  );
}

export function terminalOf(frames: readonly Frame[]): Frame {
  const terminal = frames.at(-1);
  if (terminal === undefined || 'stream' in terminal) throw new Error('the stream has no terminal frame');
  return terminal;
}
