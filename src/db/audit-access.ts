/**
 * A connection for whoever looks after the evidence: verification, export, retention. Not the gateway's pool: these read
 * whole tables, with cursors, in one transaction.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { clusterFolder } from './cluster.ts';
import { startEmbedded, urlOfSocket } from './embedded.ts';
import type { Log } from './log.ts';

const CONNECT_MAX_MS = 10_000;
/** Rows of a cursor that are here at once; a body is some 300 KiB at most. */
const FETCH_ROWS = 200;
const UNDEFINED_TABLE = '42P01';

export interface AuditConnection {
  client: pg.Client;
  close(): Promise<void>;
}

/** `url` null: the embedded database, that of a gateway which runs on the same folder included. Rejects with one sentence. */
export async function openAuditConnection(options: {
  url: string | null;
  setting: string;
  dataDir: string;
  log: Log;
}): Promise<AuditConnection> {
  const { url, setting, dataDir, log } = options;
  if (url !== null) return await opened(url, setting);
  const running = await socketFolderOf(dataDir);
  if (running !== null) {
    const connection = await opened(urlOfSocket(running), 'SALLYPORT_DATA_DIR').catch(() => null);
    // The file of a server that is gone says nothing.
    if (connection !== null) return connection;
  }
  const server = await startEmbedded({ dataDir, log });
  try {
    const { client } = await opened(server.url, 'SALLYPORT_DATA_DIR');
    return {
      client,
      async close() {
        await client.end();
        await server.stop();
      },
    };
  } catch (error) {
    await server.stop();
    throw error;
  }
}

async function opened(url: string, setting: string): Promise<AuditConnection> {
  const client = new pg.Client({
    connectionString: url,
    application_name: 'sallyport audit',
    connectionTimeoutMillis: CONNECT_MAX_MS,
    keepAlive: true,
  });
  // A connection that dies between two statements is reported by the next statement.
  client.on('error', () => {});
  try {
    await client.connect();
    await client.query('select from audit_beginning');
    return { client, close: () => client.end() };
  } catch (cause) {
    await client.end().catch(() => {}); // it never was a connection
    throw new Error(`${setting}: ${reasonOf(cause)}`, { cause });
  }
}

function reasonOf(cause: unknown): string {
  const { message, code } = cause as NodeJS.ErrnoException;
  if (code === UNDEFINED_TABLE) return 'this database has no evidence yet: run `sallyport migrate` first';
  return `the database cannot be read: ${message || code}`;
}

/** Where the server of `dataDir` listens, by its pid file; null when it has none. */
async function socketFolderOf(dataDir: string): Promise<string | null> {
  try {
    const lines = (await readFile(join(clusterFolder(dataDir), 'postmaster.pid'), 'utf8')).split('\n');
    return lines[4] || null;
  } catch {
    return null; // no server, or one that may not be looked at: starting one says why
  }
}

/** Rows as they come; needs an open transaction. `text` names its parameters $1, $2… */
export async function* rowsOf<Row extends pg.QueryResultRow>(
  client: pg.Client,
  text: string,
  values: unknown[],
): AsyncGenerator<Row> {
  await client.query(`declare audit_rows no scroll cursor for ${text}`, values);
  for (;;) {
    const { rows } = await client.query<Row>(`fetch ${FETCH_ROWS} from audit_rows`);
    yield* rows;
    if (rows.length < FETCH_ROWS) break;
  }
  await client.query('close audit_rows');
}

/** One state of the database for everything that `read` asks, and nothing is written. */
export async function inSnapshot<T>(client: pg.Client, read: () => Promise<T>): Promise<T> {
  await client.query('begin transaction isolation level repeatable read read only');
  try {
    return await read();
  } finally {
    await client.query('rollback');
  }
}
