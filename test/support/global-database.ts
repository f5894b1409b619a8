/** One PostgreSQL cluster for a whole test run, with one migrated database that every test database is copied from. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import type { TestProject } from 'vitest/node';
import { startEmbedded } from '../../src/db/embedded.ts';
import { migrateDatabase } from '../../src/db/migrate.ts';
import { databaseUrl, silent, TEMPLATE } from './database-url.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    /** The cluster's own database, for making others. */
    clusterUrl: string;
  }
}

export default async function startCluster(project: TestProject): Promise<() => Promise<void>> {
  const dataDir = await mkdtemp(join(tmpdir(), 'sallyport-db-'));
  try {
    const server = await startEmbedded({ dataDir, log: silent, durable: false });
    await createTemplate(server.url);
    project.provide('clusterUrl', server.url);
    return async () => {
      await server.stop();
      await rm(dataDir, { recursive: true });
    };
  } catch (error) {
    await rm(dataDir, { recursive: true });
    throw error;
  }
}

async function createTemplate(clusterUrl: string): Promise<void> {
  const client = new pg.Client({ connectionString: clusterUrl });
  await client.connect();
  await client.query(`create database ${TEMPLATE}`);
  await client.end();
  await migrateDatabase({ url: databaseUrl(clusterUrl, TEMPLATE), log: silent });
}
