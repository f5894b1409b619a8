/** With a role that migrates and one that serves: what the serving one cannot do to the evidence, on the real server. */
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { type Database, openDatabase } from '../../src/db/database.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { silent } from '../support/database-url.ts';
import { newSigner, sealAll, sign, verifyAs, writeExecs } from '../support/evidence.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { runSql } from '../support/sql.ts';
import { execOf } from './facts.ts';

failOnLeaks();

const role = `server_${randomBytes(6).toString('hex')}`;
let db: TestDatabase;
let weakUrl: string;
let serving: Database;
let finished: string;
beforeAll(async () => {
  db = await createTestDatabase();
  await runSql(inject('clusterUrl'), `create role ${role} login`);
  const url = new URL(db.url);
  url.username = role;
  weakUrl = url.href;
  // As an earlier version left it, which gave more.
  await runSql(db.url, `grant select, insert, update, delete on all tables in schema public to ${role}`);
  serving = await openDatabase({ url: weakUrl, migrateUrl: db.url, dataDir: '', replica: 'test', log: silent });
  [finished = ''] = await writeExecs(serving, 2);
});
afterAll(async () => {
  await serving.close();
  await db.drop();
  await runSql(inject('clusterUrl'), `drop role ${role}`);
});

test('the serving role writes, seals and signs, and reads everything for a verification', async () => {
  const signer = await newSigner();
  await serving.audit.open(execOf());
  expect(await sealAll(serving)).toBe(5);
  await sign(serving, signer);
  await writeExecs(serving, 1);
  expect(await verifyAs(weakUrl, signer)).toMatchObject({
    findings: [],
    not_checked: [],
    unsealed: { entries: 2 },
    checkpoints: { good: 1 },
  });
});

const DENIED = [
  'delete from activity_logs',
  'truncate activity_logs',
  `update activity_logs set summary = 'x'`,
  `update activity_logs set request_body = null where status = 'running'`,
  'update activity_logs set created_at = now()',
  'alter table activity_logs disable trigger all',
  'alter table activity_logs disable trigger activity_logs_inserted',
  'drop trigger activity_logs_updated on activity_logs',
  'create or replace function append_audit_entries() returns trigger language plpgsql as $$ begin return null; end $$',
  'create or replace function audit_canonical(activity_logs) returns text language sql as $$ select null::text $$',
  'set session_replication_role = replica',
  `insert into audit_entries (org_id, activity_id, kind, at, body) values ('acme', gen_random_uuid(), 'finished', now(), '')`,
  `update audit_entries set body = ''`,
  'delete from audit_entries',
  'truncate audit_entries',
  `update audit_seals set hash = sha256('')`,
  'delete from audit_seals',
  'truncate audit_seals',
  `update audit_checkpoints set kid = ''`,
  'delete from audit_checkpoints',
  `insert into audit_unsealed values ('acme', 1)`,
  'update audit_unsealed set entry_id = 1',
  'insert into audit_beginning values (9)',
  'update audit_beginning set seq = 99',
  'delete from audit_beginning',
  `select audit_prune('acme', 1, now())`,
];

test.each(DENIED)('it may not: %s', async (statement) => {
  await expect(runSql(weakUrl, statement)).rejects.toThrow(/permission denied|must be owner/);
});

test('it may not even touch a finished row with what a running one is finished with', async () => {
  const change = runSql(weakUrl, `update activity_logs set status = 'error' where id = $1`, [finished]);
  await expect(change).rejects.toThrow('never changes');
});

test('it cannot hang the function that appends on a table of its own, and so forge entries', async () => {
  await expect(
    runSql(
      weakUrl,
      `create temp table mine (like activity_logs);
       create trigger forge after insert on mine referencing new table as written
         for each statement execute function append_audit_entries()`,
    ),
  ).rejects.toThrow('permission denied for function append_audit_entries');
});

test('a temporary table of the same name catches no entry', async () => {
  const before = await runSql(db.url, 'select count(*)::int as entries from audit_entries');
  await runSql(
    weakUrl,
    `create temp table audit_entries (like public.audit_entries including all);
     create temp table audit_unsealed (like public.audit_unsealed);
     insert into activity_logs (id, org_id, activity_type, method, summary, actor, request_id, replica, status, finished_at)
     values (gen_random_uuid(), 'acme', 'x', 'x', 'x', 'x', 'r', 'test', 'ok', now())`,
  );
  const after = await runSql(db.url, 'select count(*)::int as entries from audit_entries');
  expect(Number(after[0]?.entries)).toBe(Number(before[0]?.entries) + 1);
});
