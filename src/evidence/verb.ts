/** What the verbs of `sallyport audit` share: streams, the settings and the database, arguments. */
import type { Output } from '../cli/output.ts';
import { type Config, ConfigError, readConfig } from '../config/config.ts';
import { type AuditConnection, openAuditConnection } from '../db/audit-access.ts';
import { createLog } from '../log.ts';
import { UsageError } from './usage.ts';

export interface Io {
  env: NodeJS.ProcessEnv;
  /** Opened only by who reads it. */
  stdin: () => NodeJS.ReadableStream;
  output: Output;
}

/** Throws with one sentence for each setting that is wrong. */
export function configOf(env: NodeJS.ProcessEnv): Config {
  try {
    return readConfig(env, { needsSigningKey: false });
  } catch (error) {
    throw error instanceof ConfigError ? new Error(error.message, { cause: error }) : error;
  }
}

/** `migrating`: as the role that migrates, where one is set. */
export async function connect(config: Config, as: 'serving' | 'migrating'): Promise<AuditConnection> {
  const migrateUrl = as === 'migrating' ? config.migrateDatabaseUrl : null;
  return await openAuditConnection({
    url: migrateUrl ?? config.databaseUrl,
    setting: migrateUrl === null ? 'DATABASE_URL' : 'SALLYPORT_MIGRATE_DATABASE_URL',
    dataDir: config.dataDir,
    log: createLog('warn'),
  });
}

/** Null where the option was not given. Throws UsageError for what is no time. */
export function timeOf(option: string, text: string | undefined): Date | null {
  if (text === undefined) return null;
  const time = /^\d{4}-\d\d-\d\d(T.*(Z|[+-]\d\d:\d\d))?$/.test(text) ? new Date(text) : new Date(Number.NaN);
  if (!Number.isNaN(time.getTime())) return time;
  throw new UsageError(`${option} takes an ISO 8601 date, or time with offset; not "${text}"`);
}

/** Throws, because an org with a typing error in it would be found whole. */
export function requireKnown(orgId: string, known: readonly string[]): void {
  if (!known.includes(orgId)) throw new Error(`org ${orgId} has neither audit rows nor evidence`);
}
