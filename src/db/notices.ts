/**
 * The Notices port: NOTIFY and LISTEN, the latter on a connection of its own that is made again when it breaks.
 *
 * A pooler that shares sessions between transactions swallows them; what rests on a notice must hold without it.
 */
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import type { Notice, Notices } from '../exec/notices.ts';
import { LISTEN_CHECK_MS, LISTEN_PAUSE_FIRST_MS, LISTEN_PAUSE_MAX_MS } from '../limits.ts';
import type { Log } from './log.ts';
import type { Sql } from './sql.ts';

/** Migrations 0003 and 0006 have the same name. */
const CHANNEL = 'sallyport';
const CONNECT_MAX_MS = 3_000;
const ANSWER_MAX_MS = 5_000;

export function createNotices({ sql, url, log }: { sql: Sql; url: string; log: Log }): Notices {
  return {
    listen(heard) {
      const stopping = new AbortController();
      const listening = keepListening({ url, log, heard, signal: stopping.signal });
      return {
        stop() {
          stopping.abort();
          return listening;
        },
      };
    },
    async askToCancel({ orgId, workspaceId, execId, by }) {
      const payload = `cancel ${JSON.stringify({ orgId, workspaceId, execId, by })}`;
      await sql.run({ name: 'notify', text: 'select pg_notify($1, $2)', values: [CHANNEL, payload] });
    },
  };
}

interface Listening {
  url: string;
  log: Log;
  heard(notice: Notice): void;
  signal: AbortSignal;
}

/** Never rejects; resolves after the abort, with the connection closed. */
async function keepListening(listening: Listening): Promise<void> {
  const { log, signal } = listening;
  let pauseMs = LISTEN_PAUSE_FIRST_MS;
  while (!signal.aborted) {
    try {
      await listenOnce(listening, () => {
        pauseMs = LISTEN_PAUSE_FIRST_MS;
      });
    } catch (error) {
      if (!signal.aborted) log.warn({ err: error }, 'the connection for notices was lost');
    }
    // Aborted: the loop ends.
    await delay(pauseMs, undefined, { signal }).catch(() => {});
    pauseMs = Math.min(2 * pauseMs, LISTEN_PAUSE_MAX_MS);
  }
}

/** Until the abort, or rejects when the connection is lost. */
async function listenOnce({ url, heard, signal }: Listening, isUp: () => void): Promise<void> {
  const client = new pg.Client({
    connectionString: url,
    application_name: 'sallyport notices',
    connectionTimeoutMillis: CONNECT_MAX_MS,
    query_timeout: ANSWER_MAX_MS,
    keepAlive: true,
  });
  const broken = new AbortController();
  client.on('error', (error) => broken.abort(error));
  client.on('end', () => broken.abort(new Error('the server closed the connection')));
  client.on('notification', ({ payload }) => {
    const notice = parseNotice(payload ?? '');
    if (notice !== null) heard(notice);
  });
  try {
    await client.connect();
    await client.query(`listen ${CHANNEL}`);
    isUp();
    heard({ kind: 'gap' });
    const over = AbortSignal.any([broken.signal, signal]);
    while (!over.aborted) {
      // Aborted: looked at below.
      await delay(LISTEN_CHECK_MS, undefined, { signal: over }).catch(() => {});
      if (!over.aborted) await client.query('select');
    }
    if (broken.signal.aborted) throw broken.signal.reason;
  } finally {
    // A dead line may keep this waiting for long, and there is nothing to wait for.
    const closed = client.end().catch(() => {});
    if (!broken.signal.aborted) await Promise.race([closed, delay(CONNECT_MAX_MS, undefined, { ref: false })]);
  }
}

/** Null: of a version that this one does not know. */
export function parseNotice(payload: string): Notice | null {
  const space = payload.indexOf(' ');
  const [kind, rest] = [payload.slice(0, space), payload.slice(space + 1)];
  switch (kind) {
    case 'token':
    case 'org':
    case 'workspace':
    case 'replica':
    case 'host_keys':
      return { kind, id: rest };
    case 'person': {
      const [orgId = ''] = rest.split(' ', 1); // an id of an org has no blanks, a sub may
      return { kind, orgId, sub: rest.slice(orgId.length + 1) };
    }
    case 'cancel':
      return { kind, ...(JSON.parse(rest) as Omit<Extract<Notice, { kind: 'cancel' }>, 'kind'>) };
    default:
      return null;
  }
}
