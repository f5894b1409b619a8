/** What is promised while the database is away, slow to answer, or answers into a dead line. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Database, openDatabase } from '../../src/db/database.ts';
import { type Embedded, startEmbedded } from '../../src/db/embedded.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { silent } from '../support/database-url.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { runSql } from '../support/sql.ts';
import { waitUntil } from '../support/wait.ts';
import { execOf, exited, refusalOf, seed, workspaceOf } from './facts.ts';
import { type Line, openLine } from './line.ts';
import { createLogged } from './logged.ts';

failOnLeaks();

const unavailable = { code: 'audit_unavailable', details: { retryable: true, retryAfterS: 1 } };

describe('the server is gone', () => {
  const log = createLogged();
  let dataDir: string;
  let server: Embedded;
  let database: Database;

  beforeAll(async () => {
    dataDir = await mkdtemp(join(tmpdir(), 'sp-'));
    server = await startEmbedded({ dataDir, log: silent, durable: false });
    database = await openDatabase({ url: server.url, migrateUrl: null, dataDir, replica: 'test', log });
    await seed(database);
  });
  afterAll(async () => {
    await database.close();
    await server.stop();
    await rm(dataDir, { recursive: true });
  });

  test('everything is audit_unavailable, nothing is not found, and it works again when the server is back', async () => {
    const entry = await database.audit.open(execOf({ execId: '11111111-1111-4111-8111-111111111111' }));
    await server.stop();

    await expect(database.audit.open(execOf())).rejects.toMatchObject(unavailable);
    await expect(
      database.directory.standing({ orgId: 'acme', jti: null, sub: null, workspaceId: 'ws-1' }),
    ).rejects.toMatchObject(unavailable);
    await expect(database.registry.getOrg('acme')).rejects.toMatchObject(unavailable);
    await expect(database.tokens.get('acme', 'x')).rejects.toMatchObject(unavailable);
    await expect(database.pins.get('eu-west-1', 'i-ws-1')).rejects.toMatchObject(unavailable);
    await expect(database.registry.putWorkspace(workspaceOf())).rejects.toMatchObject(unavailable);
    await expect(database.ping(AbortSignal.timeout(5_000))).rejects.toMatchObject(unavailable);
    await expect(database.audit.refused(refusalOf())).resolves.toBeUndefined();

    let isDurable = false;
    const closed = entry.close(exited({ exitCode: 3 })).then(() => {
      isDurable = true;
    });
    await waitUntil('the failed completion is logged', () => log.messages().includes('an audit row is written later'));
    await database.audit.flush(AbortSignal.timeout(1));
    expect(isDurable).toBe(false);

    server = await startEmbedded({ dataDir, log: silent, durable: false });
    await closed;
    await database.audit.flush(AbortSignal.timeout(5_000));
    const { items } = await database.audit.list({ orgId: 'acme', limit: 10 });
    expect(items.filter((row) => row.status === 'error')).toMatchObject([{ id: entry.execId }]);
    expect(items.filter((row) => row.status === 'running')).toEqual([]);
    await database.ping(AbortSignal.timeout(5_000));
  });
});

describe('a line that breaks', () => {
  const log = createLogged();
  let db: TestDatabase;
  let line: Line;
  let database: Database;

  beforeAll(async () => {
    db = await createTestDatabase();
    line = await openLine(db.url);
    database = await openDatabase({ url: line.url, migrateUrl: null, dataDir: '', replica: 'test', log });
  });
  beforeEach(async () => {
    line.mend();
    // A connection that was cut is noticed by its first use.
    await waitUntil('the line is whole', () =>
      database.ping(AbortSignal.timeout(1_000)).then(
        () => true,
        () => false,
      ),
    );
  });
  afterAll(async () => {
    await database.close();
    await line.close();
    await db.drop();
  });

  const statusOf = async (id: string) => {
    const { items } = await db.database.audit.list({ orgId: 'acme', limit: 500 });
    return items.filter((row) => row.id === id).map((row) => row.status);
  };

  test('a row whose commit was not heard of does not stay running', async () => {
    const facts = execOf({ argv: ['shutdown'] });
    line.loseNextAnswer();
    await expect(database.audit.open(facts)).rejects.toMatchObject(unavailable);
    expect(await statusOf(facts.execId)).toEqual(['running']);

    line.mend();
    await database.audit.flush(AbortSignal.timeout(5_000));
    expect(await statusOf(facts.execId)).toEqual(['error']);
    const { items } = await db.database.audit.list({ orgId: 'acme', limit: 1 });
    expect(items[0]).toMatchObject({
      request_body: { argv: ['shutdown'] },
      response_body: { outcome: 'unreachable' },
      error_detail: expect.stringContaining('audit_unavailable'),
    });
  });

  test('a row that is committed only after its caller was refused does not stay running either', async () => {
    const facts = execOf();
    const blocker = new pg.Client({ connectionString: db.url });
    const watcher = new pg.Client({ connectionString: db.url });
    await Promise.all([blocker.connect(), watcher.connect()]);
    const waiting = async (count: number) => {
      const { rows } = await watcher.query(
        `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
      );
      return rows.length === count;
    };
    await blocker.query('begin');
    await blocker.query('lock table activity_logs in share mode');
    const opened = database.audit.open(facts);
    opened.catch(() => {
      // Looked at below.
    });
    await waitUntil('the insert waits for the lock', () => waiting(1));
    line.cut();
    await expect(opened).rejects.toMatchObject(unavailable);
    line.mend();
    await waitUntil('its settlement waits behind it', () => waiting(2));
    await blocker.query('commit');
    await Promise.all([blocker.end(), watcher.end()]);

    await database.audit.flush(AbortSignal.timeout(5_000));
    expect(await statusOf(facts.execId)).toEqual(['error']);
  });

  test('a request that never reached the server leaves nothing behind', async () => {
    const facts = execOf();
    line.cut();
    // The pool notices its dead connections at their next use, or before.
    await waitUntil('no connection is left', () =>
      database.ping(AbortSignal.timeout(1_000)).then(
        () => false,
        (error) => error.cause?.message === 'no connection to the database',
      ),
    );
    await expect(database.audit.open(facts)).rejects.toMatchObject(unavailable);
    line.mend();
    await database.audit.flush(AbortSignal.timeout(5_000));
    expect(await statusOf(facts.execId)).toEqual([]);
  });

  test('a completion whose answer was lost is not written twice', async () => {
    const facts = execOf();
    const entry = await database.audit.open(facts);
    line.loseNextAnswer();
    const closed = entry.close(exited({ exitCode: 1 }));
    await waitUntil('the first try has been committed', async () => (await statusOf(facts.execId))[0] === 'error');
    line.mend();
    await closed;
    expect(log.messages()).toContain('an audit row was finished already');
  });

  test('a row with a key is finished together with its answer: nobody is told an end that the row does not know', async () => {
    const facts = execOf();
    const answer = { status: 200, frame: { outcome: 'exited', exit_code: 0 } };
    const opened = await database.audit.openOnce(facts, { key: 'one', bodyHash: 'x' });
    if (!('entry' in opened)) throw new Error('the key is new');
    line.loseNextAnswer();
    const closed = opened.entry.close(exited({ answer }));
    // What a gateway that dies now has left is the first statement and nothing else.
    await waitUntil('the first try has been committed', async () => (await statusOf(facts.execId))[0] !== 'running');
    expect(await statusOf(facts.execId)).toEqual(['ok']);
    const again = await db.database.audit.openOnce(execOf(), { key: 'one', bodyHash: 'x' });
    expect(again).toMatchObject({ answer: { execId: facts.execId, ...answer } });
    line.mend();
    await closed;
  });

  test('an answer to what another has finished is not kept', async () => {
    const facts = execOf();
    const opened = await database.audit.openOnce(facts, { key: 'two', bodyHash: 'x' });
    if (!('entry' in opened)) throw new Error('the key is new');
    await runSql(
      db.url,
      `update activity_logs set status = 'interrupted', response_body = '{"outcome":"interrupted"}', finished_at = now() where id = $1`,
      [facts.execId],
    );
    await opened.entry.close(exited({ answer: { status: 200, frame: { outcome: 'exited' } } }));
    const again = await database.audit.openOnce(execOf(), { key: 'two', bodyHash: 'x' });
    expect(again).toMatchObject({ answer: { frame: { outcome: 'interrupted' } } });
  });

  test('a line lost inside a transaction ends the transaction, not the process', async () => {
    await seed(db.database);
    line.loseNextAnswer();
    await expect(
      database.pins.put('eu-west-1', 'i-ws-1', [{ type: 'ssh-ed25519', blob: 'AAAA' }], 'console'),
    ).rejects.toMatchObject(unavailable);
    expect(await db.database.pins.get('eu-west-1', 'i-ws-1')).toEqual([]);
  });

  test('a database that is closed stops waiting and says which row was not written', async () => {
    const impatient = await openDatabase({ url: line.url, migrateUrl: null, dataDir: '', replica: 'test', log });
    const entry = await impatient.audit.open(execOf());
    line.cut();
    const closed = entry.close(exited());
    await waitUntil('the first try has failed', () => log.messages().includes('an audit row is written later'));
    await impatient.close();
    await expect(closed).rejects.toThrow();
    expect(log.lines).toContainEqual({
      level: 'error',
      facts: expect.objectContaining({ execId: entry.execId }),
      message: 'the database was closed before an audit row was written',
    });
  });
});

test('a server that cannot be reached stops the start with one sentence', async () => {
  await expect(
    openDatabase({
      url: 'postgresql://u:secret@127.0.0.1:1/x',
      migrateUrl: null,
      dataDir: '',
      replica: 'test',
      log: silent,
    }),
  ).rejects.toThrow(
    /^DATABASE_URL: the database cannot be reached to migrate it: connect ECONNREFUSED 127\.0\.0\.1:1$/,
  );
});
