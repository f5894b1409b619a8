/** A migrated PostgreSQL database for one test file, in the cluster that the run started (global-database.ts). */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { inject } from 'vitest';
import { type Database, openDatabase } from '../../src/db/database.ts';
import type { Log } from '../../src/db/log.ts';
import { databaseUrl, silent, TEMPLATE } from './database-url.ts';

export interface TestDatabase {
  /** For `DATABASE_URL`: a gateway may be started on it beside `database`. */
  url: string;
  database: Database;
  /** Closes `database` and ends every other session on it. */
  drop(): Promise<void>;
}

/** About 70 ms. `log`: gets what the database layer would log. */
export async function createTestDatabase(log: Log = silent): Promise<TestDatabase> {
  const name = `test_${randomBytes(6).toString('hex')}`;
  await onCluster(`create database ${name} template ${TEMPLATE} strategy file_copy`);
  const url = databaseUrl(inject('clusterUrl'), name);
  const database = await openDatabase({ url, migrateUrl: null, dataDir: '/nonexistent', replica: 'test', log });
  return {
    url,
    database,
    async drop() {
      await database.close();
      await onCluster(`drop database ${name} with (force)`);
    },
  };
}

async function onCluster(statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: inject('clusterUrl') });
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}
