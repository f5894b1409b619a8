/**
 * Brings a database to the schema of this version: runs the files of migrations/ that have not run yet, in order.
 *
 * Plain SQL and our own runner: the tools lack the checksum or the lock. Nothing goes back; a mistake is mended by the
 * next file. Two migrators at once are safe: the second waits, then finds nothing to do.
 */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import type { Log } from './log.ts';

/** The same from src/db and from dist/db. */
const FOLDER = fileURLToPath(new URL('../../migrations/', import.meta.url));
/** Any number that nothing else in this database takes as an advisory lock. */
const LOCK_KEY = 7_255_967;
const CONNECT_MAX_MS = 10_000;

export interface MigrateOptions {
  url: string;
  log: Log;
  /** How the gateway will connect. When that is another role, it is given what serving needs. */
  servingUrl?: string | null;
  /** Another folder of NNNN-name.sql files; for tests. */
  folder?: string;
}

interface Migration {
  name: string;
  sha256: string;
  sql: string;
}

/**
 * Applies what is pending, one transaction per file, and resolves with the names of the applied files. Rejects, having
 * changed nothing, when a file was edited after it ran or when the database knows files that this version does not.
 */
export async function migrateDatabase(options: MigrateOptions): Promise<string[]> {
  const files = await readMigrations(options.folder ?? FOLDER);
  const otherUrl = options.servingUrl === options.url ? null : (options.servingUrl ?? null);
  const client = await connect(options.url, otherUrl === null ? 'DATABASE_URL' : 'SALLYPORT_MIGRATE_DATABASE_URL');
  try {
    await client.query('select pg_advisory_lock($1)', [LOCK_KEY]);
    const pending = pendingOf(files, await readApplied(client));
    for (const file of pending) await apply(client, file);
    if (otherUrl !== null) await grantServing(client, otherUrl);
    if (pending.length > 0) options.log.info({ files: pending.map((file) => file.name) }, 'database migrated');
    return pending.map((file) => file.name);
  } finally {
    // Ending the session also ends the lock.
    await client.end();
  }
}

/** `setting`: where the URL was given, for the message. */
async function connect(url: string, setting: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: CONNECT_MAX_MS });
  // A connection that dies between two statements is reported by the next statement.
  client.on('error', () => {});
  try {
    await client.connect();
  } catch (cause) {
    const { message, code } = cause as NodeJS.ErrnoException;
    throw new Error(`${setting}: the database cannot be reached to migrate it: ${message || code}`, { cause });
  }
  return client;
}

async function readMigrations(folder: string): Promise<Migration[]> {
  const names = (await readdir(folder)).filter((name) => /^\d{4}-[a-z0-9-]+\.sql$/.test(name)).sort();
  return Promise.all(
    names.map(async (name) => {
      const sql = await readFile(`${folder}/${name}`, 'utf8');
      return { name, sql, sha256: createHash('sha256').update(sql).digest('hex') };
    }),
  );
}

async function readApplied(client: pg.Client): Promise<{ name: string; sha256: string }[]> {
  const known = await client.query("select to_regclass('schema_migrations') is not null as known");
  // Asked first: a role that may only serve cannot create tables and need not.
  if (!known.rows[0]?.known) {
    await client.query(
      'create table schema_migrations (name text primary key, sha256 text not null, applied_at timestamptz not null default now())',
    );
  }
  return (await client.query('select name, sha256 from schema_migrations order by name')).rows;
}

function pendingOf(files: Migration[], applied: { name: string; sha256: string }[]): Migration[] {
  for (const [index, row] of applied.entries()) {
    const file = files.find(({ name }) => name === row.name);
    if (file === undefined) {
      throw new Error(
        `the database is newer than this version: it has ${row.name}, which is unknown here; upgrade first`,
      );
    }
    if (file.sha256 !== row.sha256) {
      throw new Error(
        `migration ${row.name} was edited after it had been applied: restore it and add a new file instead`,
      );
    }
    if (files[index] !== file) {
      throw new Error(
        `migration ${files[index]?.name} comes before ${row.name}, which has been applied: number it higher`,
      );
    }
  }
  return files.slice(applied.length);
}

async function apply(client: pg.Client, file: Migration): Promise<void> {
  try {
    await client.query('begin');
    await client.query(file.sql);
    await client.query('insert into schema_migrations (name, sha256) values ($1, $2)', [file.name, file.sha256]);
    await client.query('commit');
  } catch (cause) {
    throw new Error(`migration ${file.name} failed: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
}

/** What finishing a row sets; the rest of a row is only ever inserted. */
const FINISH_COLUMNS = 'status, response_body, tool_trace, duration_ms, error_detail, finished_at';

/**
 * Everything but what an audit log must not allow, and what only a migration may do. Entries of evidence are written by a
 * trigger with the owner's rights; the sealer, which serves, adds to the chain and takes from the queue.
 */
async function grantServing(client: pg.Client, servingUrl: string): Promise<void> {
  const role = await roleOf(servingUrl);
  const { rows } = await client.query('select current_user = $1 as same, current_schema() as schema', [role]);
  if (rows[0]?.same) return;
  const schema = pg.escapeIdentifier(rows[0]?.schema);
  const grantee = pg.escapeIdentifier(role);
  await client.query(`
    grant usage on schema ${schema} to ${grantee};
    grant select, insert, update, delete on all tables in schema ${schema} to ${grantee};
    revoke update, delete on ${schema}.activity_logs from ${grantee};
    grant update (${FINISH_COLUMNS}) on ${schema}.activity_logs to ${grantee};
    revoke insert, update, delete on ${schema}.audit_entries, ${schema}.audit_beginning from ${grantee};
    revoke update, delete on ${schema}.audit_seals, ${schema}.audit_checkpoints from ${grantee};
    revoke insert, update on ${schema}.audit_unsealed from ${grantee};
    revoke insert, update, delete on ${schema}.schema_migrations from ${grantee};
  `);
}

async function roleOf(url: string): Promise<string> {
  const client = await connect(url, 'DATABASE_URL');
  try {
    return (await client.query('select current_user as role')).rows[0]?.role;
  } finally {
    await client.end();
  }
}
