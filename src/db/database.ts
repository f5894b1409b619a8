/**
 * The database as the rest sees it: the ports of audit, access and host keys, over one pool.
 *
 * Opening it starts the embedded server when no URL is given, migrates, and connects. Every statement on tenant data names
 * `org_id`; a failure of the database is `audit_unavailable`, never "not found".
 */
import type { Directory, RateCounter, Registry, TokenStore } from '../access/access.ts';
import type { ActivityReader, AuditLog } from '../audit.ts';
import type { RescueStore } from '../diagnose/rescue.ts';
import type { PinStore } from '../drivers/host-keys.ts';
import type { ExecRows } from '../exec/cancel.ts';
import type { ReplacedKeys } from '../exec/host-keys.ts';
import type { Notices } from '../exec/notices.ts';
import type { PresenceStore } from '../exec/presence.ts';
import type { OrphanStore } from '../exec/reconcile.ts';
import type { ShareStore } from '../exec/room.ts';
import type { SealStore } from '../exec/seal.ts';
import { PRESENCE_MAX_MS } from '../limits.ts';
import { createActivityReader } from './activity.ts';
import { createAuditLog } from './audit-log.ts';
import { createSealStore } from './audit-seals.ts';
import { createDirectory } from './directory.ts';
import { startEmbedded } from './embedded.ts';
import { createExecRows } from './exec-rows.ts';
import type { Log } from './log.ts';
import { migrateDatabase } from './migrate.ts';
import { createNotices } from './notices.ts';
import { createPinStore } from './pin-store.ts';
import { createRates } from './rates.ts';
import { createRegistry } from './registry.ts';
import { createReplicas } from './replicas.ts';
import { createRescueStore } from './rescue-store.ts';
import { createShareStore } from './share-store.ts';
import { openSql, type Sql } from './sql.ts';
import { createTokenStore } from './token-store.ts';

export interface Database {
  audit: AuditLog & ActivityReader;
  directory: Directory;
  tokens: TokenStore;
  registry: Registry;
  pins: PinStore & ReplacedKeys;
  rescues: RescueStore;
  replicas: PresenceStore & OrphanStore;
  execs: ExecRows;
  notices: Notices;
  seals: SealStore;
  shares: ShareStore;
  /** Counts requests of a minute together with every replica; `perMin` at least 1. */
  rates(perMin: number): RateCounter;
  /** Audit rows that are not durable yet. */
  auditPending(): number;
  /** Rejects with the reason when the database cannot answer now, or with the signal's when it aborts first. */
  ping(signal: AbortSignal): Promise<void>;
  /** Flushes nothing (see `audit.flush`); ends the pool and, when embedded, the server. Safe to call twice. */
  close(): Promise<void>;
}

export interface DatabaseOptions {
  /** null: embedded, in `dataDir`. */
  url: string | null;
  /** For a role that may create tables, when the one in `url` may not; that one is then given what serving needs. */
  migrateUrl: string | null;
  dataDir: string;
  /** Name of this process in the rows it writes. */
  replica: string;
  /** Default: PRESENCE_MAX_MS. The same for every replica on one database. */
  presenceMaxMs?: number;
  log: Log;
}

/** Rejects with one sentence when the database cannot be started, reached or migrated; nothing is left running then. */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  const { log, dataDir, replica } = options;
  const embedded = options.url === null ? await startEmbedded({ dataDir, log }) : null;
  const url = embedded?.url ?? (options.url as string);
  const migrateUrl = (embedded === null ? options.migrateUrl : null) ?? url;
  const sql = openSql({ url, log });
  const stop = async () => {
    await sql.end();
    await embedded?.stop();
  };
  try {
    await migrateDatabase({ url: migrateUrl, servingUrl: url, log });
  } catch (error) {
    await stop();
    throw error;
  }
  return createDatabase({ sql, url, replica, presenceMaxMs: options.presenceMaxMs ?? PRESENCE_MAX_MS, log, stop });
}

function createDatabase(parts: {
  sql: Sql;
  url: string;
  replica: string;
  presenceMaxMs: number;
  log: Log;
  stop(): Promise<void>;
}): Database {
  const { sql, url, replica, presenceMaxMs, log } = parts;
  const replicas = createReplicas({ sql, name: replica, maxMs: presenceMaxMs, log });
  const auditLog = createAuditLog({ sql, replica: replicas.name, log });
  let closing: Promise<void> | null = null;
  return {
    audit: { ...auditLog, ...createActivityReader(sql, auditLog) },
    directory: createDirectory(sql),
    tokens: createTokenStore(sql),
    registry: createRegistry(sql),
    pins: createPinStore(sql),
    rescues: createRescueStore(sql),
    replicas,
    execs: createExecRows(sql),
    notices: createNotices({ sql, url, log }),
    seals: createSealStore(sql),
    shares: createShareStore({ sql, replica: replicas.name }),
    rates: (perMin) => createRates(sql, perMin),
    auditPending: () => auditLog.pending(),
    ping: (signal) => ping(sql, signal),
    close() {
      auditLog.end();
      replicas.close();
      closing ??= parts.stop();
      return closing;
    },
  };
}

async function ping(sql: Sql, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  let onAbort = () => {};
  const aborted = new Promise<never>((_resolve, reject) => {
    onAbort = () => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    await Promise.race([sql.run({ name: 'ping', text: 'select', values: [] }), aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
