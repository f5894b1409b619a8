/**
 * The connections to PostgreSQL: a pool with deadlines, kysely on top of it, and raw prepared statements for the hot path.
 *
 * Every failure of the database leaves here as `audit_unavailable` (503) with the original as cause, so an outage never
 * looks like "not found" or "unauthenticated". It does not retry: who may repeat a statement is known only by its owner.
 */
import { Kysely, PostgresDialect, type PostgresPool, sql } from 'kysely';
import pg from 'pg';
import { SallyportError } from '../errors.ts';
import type { Log } from './log.ts';
import type { Schema } from './schema.ts';

/** Three statements at once for each of the hot three (batch.ts), and some for the rest. */
const CONNECTIONS = 12;
/** To connect, or to wait for a free connection. */
const CONNECT_MAX_MS = 3_000;
/** The server gives a statement up… */
const STATEMENT_MAX_MS = 4_000;
/** …and when not even that is heard, we give the connection up. */
const ANSWER_MAX_MS = 5_000;
const IDLE_MS = 60_000;

/** A named statement is parsed and planned once per connection; a pooler between must keep sessions together. */
export interface Statement {
  name: string;
  text: string;
  values: unknown[];
}

export interface Sql {
  /** For everything that is not on the way of every exec. */
  readonly kysely: Kysely<Schema>;
  run<Row extends pg.QueryResultRow>(statement: Statement): Promise<pg.QueryResult<Row>>;
  /** Statements under way are waited for; what comes later is refused. */
  end(): Promise<void>;
}

export function openSql(options: { url: string; log: Log }): Sql {
  const pool = new pg.Pool({
    connectionString: options.url,
    application_name: 'sallyport',
    max: CONNECTIONS,
    connectionTimeoutMillis: CONNECT_MAX_MS,
    idleTimeoutMillis: IDLE_MS,
    statement_timeout: STATEMENT_MAX_MS,
    query_timeout: ANSWER_MAX_MS,
    keepAlive: true,
    // Every statement here has its index. Without this, a plan made while a table was small scans it when it has grown.
    options: '-c enable_seqscan=off',
  });
  let ended = false;
  // Without a listener a server that goes away would end this process, also after `end`.
  pool.on('error', (error) => {
    if (!ended) options.log.warn({ reason: error.message }, 'an idle database connection was lost');
  });
  return {
    kysely: new Kysely<Schema>({ dialect: new PostgresDialect({ pool: kyselyPool(pool) }) }),
    async run<Row extends pg.QueryResultRow>(statement: Statement) {
      const connection = await checkOut(pool);
      try {
        return await connection.run<Row>(statement);
      } finally {
        connection.release();
      }
    },
    end() {
      ended = true;
      return pool.end();
    },
  };
}

class CheckedOut {
  readonly #client: pg.PoolClient;
  #broken: Error | undefined;
  readonly #onError = (error: Error) => {
    this.#broken = error;
  };

  constructor(client: pg.PoolClient) {
    this.#client = client;
    // The pool listens only while a client is idle; a connection lost between two statements would throw in nobody's stack.
    client.on('error', this.#onError);
  }

  run<Row extends pg.QueryResultRow>(statement: Statement): Promise<pg.QueryResult<Row>> {
    return this.#guard(this.#client.query<Row>(statement));
  }

  query(text: string, values: readonly unknown[]): Promise<pg.QueryResult> {
    return this.#guard(this.#client.query(text, [...values]));
  }

  release(): void {
    this.#client.off('error', this.#onError);
    this.#client.release(this.#broken);
  }

  async #guard<T>(answer: Promise<T>): Promise<T> {
    try {
      return await answer;
    } catch (cause) {
      // After a timeout the answer may still come, and the next user of this connection would wait behind it.
      if (!isRefusal(cause)) this.#broken = cause instanceof Error ? cause : new Error(String(cause));
      throw unavailable(cause);
    }
  }
}

/** The cause when no connection could be had: the statement was never sent. */
class NotSent extends Error {}

async function checkOut(pool: pg.Pool): Promise<CheckedOut> {
  try {
    return new CheckedOut(await pool.connect());
  } catch (cause) {
    throw unavailable(new NotSent('no connection to the database', { cause }));
  }
}

/** kysely's type also asks for cursors, which it uses for streaming only. */
function kyselyPool(pool: pg.Pool): PostgresPool {
  return { connect: () => checkOut(pool), end: () => pool.end() } as unknown as PostgresPool;
}

function unavailable(cause: unknown): SallyportError {
  return new SallyportError('audit_unavailable', 'the database cannot answer now', {
    retryable: true,
    retryAfterS: 1,
    cause,
  });
}

/** The server's own word that a statement failed, so that it left nothing behind; null for every other failure. */
export function refusalOf(error: unknown): { code: string; constraint: string | null } | null {
  const cause = error instanceof SallyportError ? error.cause : error;
  if (!(cause instanceof pg.DatabaseError) || cause.code === undefined) return null;
  // Sessions that are ended (57P), lose their line (08) or break inside (XX, 58) may have committed before.
  if (/^(08|57P|58|XX)/.test(cause.code)) return null;
  return { code: cause.code, constraint: cause.constraint ?? null };
}

export function isRefusal(error: unknown): boolean {
  return refusalOf(error) !== null;
}

/** True when a statement was sent and nobody said what became of it. */
export function mayHaveRun(error: unknown): boolean {
  const cause = error instanceof SallyportError ? error.cause : error;
  return refusalOf(error) === null && !(cause instanceof NotSent);
}

/** SQLSTATE, PostgreSQL manual, appendix A. */
export const UNIQUE_VIOLATION = '23505';
export const FOREIGN_KEY_VIOLATION = '23503';

/** The org that a statement compares `org_id` with; null, the admin's, equals every org. */
export function orgOrAny(orgId: string | null) {
  return sql<string>`coalesce(${orgId}::text, org_id)`;
}
