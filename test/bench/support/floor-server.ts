/**
 * The floor: the least that keeps the gateway's promise in as many hops. A `node:http` server that commits one row for each
 * request to a durable PostgreSQL, and only then runs the command over bare ssh2 on a connection that is open already.
 *
 * No token, no gates, no bootstrap, no frames, no digests, no end of the row, no Express. What a gateway takes on top of it
 * is the gateway's own; what it takes on top of bare ssh2 nobody can save who keeps the promise so: one commit per request.
 * Asked for `lines` it streams stdout as NDJSON with its digest, and no more: no limit of output, no whole characters.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import pg from 'pg';
import type { Client } from 'ssh2';
import { EXECS_PER_SESSION, UNSENT_MAX_BYTES } from '../../../src/limits.ts';
import { logIn, run, type SshLogin } from './ssh2-client.ts';
import { answerAsks } from './worker.ts';

const POOL_CONNECTIONS = 10;
const TABLE = `create table floor_execs (
  id bigint generated always as identity primary key, at timestamptz not null default now(), command text not null)`;
const INSERT = { name: 'insert', text: 'insert into floor_execs (command) values ($1)' };

interface Connection {
  client: Client;
  channels: number;
}

let pool: pg.Pool | null = null;
/** By path, which is `/` and the port. */
const hosts = new Map<string, Connection[]>();

const ops = {
  /** `database`: where the table is made. */
  async listen({ database }: { database: string }): Promise<{ url: string }> {
    // Idle ones stay: none is to be opened again while something is measured.
    pool = new pg.Pool({ connectionString: database, max: POOL_CONNECTIONS, idleTimeoutMillis: 0 });
    await pool.query(TABLE);
    const server = createServer((req, res) => {
      answer(req, res).catch((error: unknown) => {
        res.statusCode = 500;
        res.end(String(error));
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
  },

  /** Opens connections to a host, once. */
  async connect({ connections, ...login }: SshLogin & { connections: number }): Promise<void> {
    const path = `/${login.port}`;
    if (hosts.has(path)) return;
    const opened: Connection[] = [];
    for (let count = 0; count < connections; count += 1) opened.push({ client: await logIn(login), channels: 0 });
    hosts.set(path, opened);
  },
};

/** `lines`: what stdout becomes; absent: one document with both outputs. */
interface Asked {
  command: string;
  lines?: 'text' | 'base64';
}

async function answer(req: IncomingMessage, res: ServerResponse): Promise<void> {
  const { command, lines } = JSON.parse(await readText(req)) as Asked;
  if (pool === null) throw new Error('bug: no database');
  await pool.query({ ...INSERT, values: [command] });
  const connection = freeOf(hosts.get(req.url ?? '') ?? []);
  connection.channels += 1;
  try {
    if (lines === undefined) await sendDocument(res, connection.client, command);
    else await sendLines(res, connection.client, { command, lines });
  } finally {
    connection.channels -= 1;
  }
}

async function sendDocument(res: ServerResponse, client: Client, command: string): Promise<void> {
  const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []];
  const code = await run(client, command, {
    stdout: (chunk) => void stdout.push(chunk),
    stderr: (chunk) => void stderr.push(chunk),
  });
  const [out, err] = [Buffer.concat(stdout).toString(), Buffer.concat(stderr).toString()];
  const body = JSON.stringify({ exit_code: code, stdout: out, stderr: err });
  res.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) }).end(body);
}

async function sendLines(res: ServerResponse, client: Client, { command, lines }: Required<Asked>): Promise<void> {
  res.writeHead(200, { 'Content-Type': 'application/x-ndjson' });
  const hash = createHash('sha256');
  let bytes = 0;
  const code = await run(client, command, {
    stdout(chunk, channel) {
      bytes += chunk.length;
      hash.update(chunk);
      const data = lines === 'text' ? JSON.stringify(chunk.toString('latin1')) : `"${chunk.toString('base64')}"`;
      if (res.write(`{"data":${data}}\n`, 'latin1') || res.writableLength < UNSENT_MAX_BYTES) return;
      channel.pause();
      res.once('drain', () => channel.resume());
    },
  });
  res.end(
    `${JSON.stringify({ exit_code: code, stdout_bytes: bytes, stdout_sha256: hash.digest('hex'), complete: true })}\n`,
  );
}

function readText(req: IncomingMessage): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    req.setEncoding('utf8');
    req.on('data', (piece: string) => {
      text += piece;
    });
    req.on('end', () => resolve(text));
    req.on('error', reject);
  });
}

/** The first that has room: one caller always gets the same. */
function freeOf(connections: readonly Connection[]): Connection {
  const free = connections.find(({ channels }) => channels < EXECS_PER_SESSION);
  if (free === undefined) throw new Error(`no room on ${connections.length} connections`);
  return free;
}

export type FloorOps = typeof ops;
answerAsks(ops);
