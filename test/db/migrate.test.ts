import { randomBytes, randomUUID } from 'node:crypto';
import { copyFile, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { afterAll, beforeEach, expect, inject, test } from 'vitest';
import { openDatabase } from '../../src/db/database.ts';
import { migrateDatabase } from '../../src/db/migrate.ts';
import { databaseUrl, silent } from '../support/database-url.ts';
import { verifyAs } from '../support/evidence.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { execOf, exited, seed, workspaceOf } from './facts.ts';

failOnLeaks();

const REAL = fileURLToPath(new URL('../../migrations/', import.meta.url));

async function on(url: string, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

let url: string;
let folder: string;
const names: string[] = [];
const roles: string[] = [];
beforeEach(async () => {
  const name = `empty_${randomBytes(6).toString('hex')}`;
  names.push(name);
  await on(inject('clusterUrl'), `create database ${name} strategy file_copy`);
  url = databaseUrl(inject('clusterUrl'), name);
  folder = await mkdtemp(join(tmpdir(), 'sp-migrations-'));
  await writeFile(join(folder, '0001-a.sql'), 'create table a (n integer); insert into a values (1);');
  await writeFile(join(folder, '0002-b.sql'), 'create table b (n integer);');
  return () => rm(folder, { recursive: true });
});
afterAll(async () => {
  for (const name of names) await on(inject('clusterUrl'), `drop database ${name} with (force)`);
  for (const role of roles) await on(inject('clusterUrl'), `drop role ${role}`);
});

const migrate = () => migrateDatabase({ url, log: silent, folder });

test('pending files run in order, once, and are named', async () => {
  expect(await migrate()).toEqual(['0001-a.sql', '0002-b.sql']);
  expect(await migrate()).toEqual([]);
  await writeFile(join(folder, '0003-c.sql'), 'insert into a values (3);');
  expect(await migrate()).toEqual(['0003-c.sql']);
  expect(await on(url, 'select n from a order by n')).toEqual([{ n: 1 }, { n: 3 }]);
});

test('two migrators at once: one does the work, the other waits and finds none', async () => {
  await writeFile(join(folder, '0003-slow.sql'), 'select pg_sleep(0.2); insert into a values (2);');
  const applied = await Promise.all([migrate(), migrate()]);
  expect(applied.map((files) => files.length).sort()).toEqual([0, 3]);
  expect(await on(url, 'select n from a order by n')).toEqual([{ n: 1 }, { n: 2 }]);
});

test('an edited file is refused and nothing after it runs', async () => {
  await migrate();
  await writeFile(join(folder, '0001-a.sql'), 'create table a (n bigint);');
  await writeFile(join(folder, '0003-c.sql'), 'create table c (n integer);');
  await expect(migrate()).rejects.toThrow('migration 0001-a.sql was edited after it had been applied');
  expect(await on(url, `select to_regclass('c') as c`)).toEqual([{ c: null }]);
});

test('a database that is newer than the code is refused', async () => {
  await migrate();
  await rm(join(folder, '0002-b.sql'));
  await expect(migrate()).rejects.toThrow('the database is newer than this version: it has 0002-b.sql');
});

test('a file numbered below one that has run is refused', async () => {
  await migrate();
  await writeFile(join(folder, '0001-z.sql'), 'select 1;');
  await expect(migrate()).rejects.toThrow('migration 0001-z.sql comes before 0002-b.sql');
});

test('a file that fails leaves nothing of itself, and keeps what ran before it', async () => {
  await writeFile(join(folder, '0002-b.sql'), 'create table b (n integer); select nonsense;');
  await expect(migrate()).rejects.toThrow('migration 0002-b.sql failed: column "nonsense" does not exist');
  expect(await on(url, `select to_regclass('a') is not null as a, to_regclass('b') as b`)).toEqual([
    { a: true, b: null },
  ]);
  await writeFile(join(folder, '0002-b.sql'), 'create table b (n integer);');
  expect(await migrate()).toEqual(['0002-b.sql']);
});

test('the files of this repository apply to an empty database', async () => {
  expect(await migrateDatabase({ url, log: silent })).toEqual((await readdir(REAL)).sort());
});

test('a database in use gets evidence from now on: what runs is finished with an entry, what ended before is counted', async () => {
  const earlier = (await readdir(REAL)).filter((name) => name < '0008');
  for (const name of ['0001-a.sql', '0002-b.sql']) await rm(join(folder, name));
  for (const name of earlier) await copyFile(join(REAL, name), join(folder, name));
  await migrate();
  const [running, done] = [randomUUID(), randomUUID()];
  await on(
    url,
    `insert into activity_logs (id, org_id, activity_type, method, summary, actor, request_id, replica, status, finished_at)
     values ('${running}', 'acme', 'x', 'x', 'x', 'x', 'r', 'test', 'running', null),
            ('${done}', 'acme', 'x', 'x', 'x', 'x', 'r', 'test', 'ok', now())`,
  );
  expect(await migrateDatabase({ url, log: silent })).toContain('0008-evidence.sql');
  expect(await verifyAs(url, null)).toMatchObject({ before_evidence: 2, findings: [], sealed: null });
  await on(url, `update activity_logs set status = 'ok', finished_at = now() where id = '${running}'`);
  expect(await verifyAs(url, null)).toMatchObject({ before_evidence: 1, activities_checked: 1, findings: [] });
});

test('a weaker role serves what a stronger one migrated: it can neither delete audit rows nor make tables', async () => {
  const role = `server_${randomBytes(6).toString('hex')}`;
  roles.push(role);
  await on(inject('clusterUrl'), `create role ${role} login`);
  const weak = new URL(url);
  weak.username = role;
  const options = { url: weak.href, dataDir: '', replica: 'test', log: silent };
  await expect(openDatabase({ ...options, migrateUrl: null })).rejects.toThrow('permission denied');

  for (let start = 0; start < 2; start += 1) {
    const database = await openDatabase({ ...options, migrateUrl: url });
    await seed(database);
    await (await database.audit.open(execOf())).close(exited());
    await database.pins.put('eu', 'i-1', [{ type: 't', blob: 'b' }], 'admin');
    await database.registry.putWorkspace(workspaceOf());
    await database.close();
  }
  await expect(on(weak.href, 'delete from activity_logs')).rejects.toThrow('permission denied');
  await expect(on(weak.href, 'truncate activity_logs')).rejects.toThrow('permission denied');
  await expect(on(weak.href, 'create table x ()')).rejects.toThrow('permission denied');
  await expect(on(weak.href, 'delete from schema_migrations')).rejects.toThrow('permission denied');
  const database = await openDatabase({ ...options, migrateUrl: null });
  await database.close();
});
