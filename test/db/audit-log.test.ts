import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ActivityRow } from '../../src/audit.ts';
import { REFUSED_ROWS_PER_MINUTE } from '../../src/limits.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { execOf, exited, refusalOf } from './facts.ts';
import { createLogged } from './logged.ts';

failOnLeaks();

const log = createLogged();
let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase(log);
});
afterAll(() => db.drop());

async function rowOf(id: string, orgId = 'acme'): Promise<ActivityRow | undefined> {
  const { items } = await db.database.audit.list({ orgId, limit: 500 });
  return items.find((row) => row.id === id);
}

async function onServer(text: string, values: unknown[] = []): Promise<pg.QueryResult> {
  const client = new pg.Client({ connectionString: db.url });
  await client.connect();
  try {
    return await client.query(text, values);
  } finally {
    await client.end();
  }
}

describe('one exec, one row', () => {
  test('open commits a running row that other connections see, with everything the contract names', async () => {
    const facts = execOf({ argv: ['ls', '-l'], cwd: '/tmp', envNames: ['LANG'], stdinBytes: 7, timeoutS: 1.5 });
    await db.database.audit.open(facts);
    const { rows } = await onServer('select * from activity_logs where id = $1', [facts.execId]);
    expect(rows).toEqual([
      {
        id: facts.execId,
        org_id: 'acme',
        workspace_id: 'ws-1',
        activity_type: 'workspace_exec',
        source_id: facts.execId,
        target_id: 'ws-1',
        method: 'exec',
        summary: 'ls -l',
        request_body: {
          actor: 'org-token:abc',
          argv: ['ls', '-l'],
          cwd: '/tmp',
          env_names: ['LANG'],
          stdin_bytes: 7,
          timeout_s: 1.5,
          driver: 'ec2',
        },
        response_body: null,
        tool_trace: null,
        duration_ms: null,
        status: 'running',
        error_detail: null,
        actor: 'org-token:abc',
        request_id: facts.requestId,
        replica: 'test',
        created_at: expect.any(Date),
        finished_at: null,
        seq: expect.stringMatching(/^\d+$/),
      },
    ]);
  });

  test('close completes the row once, by the clock of the database', async () => {
    const facts = execOf();
    const entry = await db.database.audit.open(facts);
    const trace = [{ name: 'tunnel', ok: true, durationMs: 1.5 }];
    await entry.close(exited({ durationMs: 12.4, survivors: [7], reaped: 'unknown', toolTrace: trace }));
    const row = await rowOf(facts.execId);
    expect(row).toMatchObject({
      status: 'ok',
      duration_ms: 12,
      tool_trace: trace,
      error_detail: null,
      response_body: {
        exit_code: 0,
        signal: null,
        outcome: 'exited',
        duration_ms: 12,
        stdout_bytes: 3,
        stderr_bytes: 0,
        survivors: [7],
        reaped: 'unknown',
      },
    });
    expect(Date.parse(row?.finished_at as string)).toBeGreaterThanOrEqual(Date.parse(row?.created_at as string));
  });

  test('survivors and reaped are absent when nobody looked, and survivors null when nobody could', async () => {
    const [silent, blind] = [execOf(), execOf()];
    await (await db.database.audit.open(silent)).close(exited());
    await (await db.database.audit.open(blind)).close(exited({ survivors: null }));
    expect(Object.keys((await rowOf(silent.execId))?.response_body as object)).not.toContain('survivors');
    expect((await rowOf(blind.execId))?.response_body).toMatchObject({ survivors: null });
  });

  test.each([
    ['exited', 0, 'ok'],
    ['exited', 3, 'error'],
    ['signaled', 143, 'error'],
    ['timed_out', null, 'timeout'],
    ['cancelled', null, 'cancelled'],
    ['connection_lost', null, 'error'],
  ] as const)('the outcome %s with exit code %s is stored as %s', async (outcome, exitCode, status) => {
    const facts = execOf();
    const entry = await db.database.audit.open(facts);
    await entry.close(exited({ outcome, exitCode, errorDetail: status === 'ok' ? null : 'code: text' }));
    expect(await rowOf(facts.execId)).toMatchObject({ status, response_body: { outcome } });
  });

  test('a second close throws and changes nothing', async () => {
    const facts = execOf();
    const entry = await db.database.audit.open(facts);
    const first = entry.close(exited());
    expect(() => entry.close(exited({ outcome: 'timed_out' }))).toThrow('bug:');
    await first;
    expect(await rowOf(facts.execId)).toMatchObject({ status: 'ok' });
  });

  test('a finished row cannot be changed by anybody', async () => {
    const facts = execOf();
    await (await db.database.audit.open(facts)).close(exited());
    await expect(onServer(`update activity_logs set summary = 'x' where id = $1`, [facts.execId])).rejects.toThrow(
      'never changes',
    );
  });

  test('a row that another replica has finished stays as it is when its own close comes', async () => {
    const facts = execOf();
    const entry = await db.database.audit.open(facts);
    await onServer(`update activity_logs set status = 'interrupted', finished_at = now() where id = $1`, [
      facts.execId,
    ]);
    await entry.close(exited());
    expect(await rowOf(facts.execId)).toMatchObject({ status: 'interrupted', response_body: null });
    expect(log.messages()).toContain('an audit row was finished already');
  });

  test('a status outside the list is refused by the table', async () => {
    const facts = execOf();
    await db.database.audit.open(facts);
    await expect(
      onServer(`update activity_logs set status = 'fine', finished_at = now() where id = $1`, [facts.execId]),
    ).rejects.toThrow('activity_logs_status');
  });

  test('an id that is taken is audit_unavailable for its caller and nobody else', async () => {
    const taken = execOf();
    await db.database.audit.open(taken);
    const others = Array.from({ length: 40 }, () => execOf());
    const results = await Promise.allSettled([...others, taken].map((facts) => db.database.audit.open(facts)));
    expect(results.map(({ status }) => status)).toEqual([...others.map(() => 'fulfilled'), 'rejected']);
    expect(results.at(-1)).toMatchObject({ reason: { code: 'audit_unavailable' } });
    // The running row of that id is somebody's: it was not touched.
    expect(await rowOf(taken.execId)).toMatchObject({ status: 'running' });
  });

  test('many at once each get their own row and their own end', async () => {
    const execs = Array.from({ length: 300 }, (_, n) => execOf({ orgId: 'crowd', argv: ['exit', `${n}`] }));
    await Promise.all(
      execs.map(async (facts, exitCode) => (await db.database.audit.open(facts)).close(exited({ exitCode }))),
    );
    const { items } = await db.database.audit.list({ orgId: 'crowd', limit: 500 });
    const ends = items.map((row) => [row.id, (row.response_body as { exit_code: number }).exit_code]);
    expect(new Map(ends as [string, number][])).toEqual(new Map(execs.map(({ execId }, n) => [execId, n])));
  });
});

describe('any argv is storable', () => {
  test('a summary is cut at 200 characters, not inside one', async () => {
    const facts = execOf({ argv: ['echo', '😀'.repeat(300)] });
    await db.database.audit.open(facts);
    const row = await rowOf(facts.execId);
    expect(row?.summary).toBe(`echo ${'😀'.repeat(195)}`);
    expect(row?.request_body).toMatchObject({ argv: ['echo', '😀'.repeat(300)] });
  });

  test('a pair that the cut would split is left out whole', async () => {
    const facts = execOf({ argv: [`${'a'.repeat(199)}😀`, 'b'] });
    await db.database.audit.open(facts);
    expect((await rowOf(facts.execId))?.summary).toBe(`${'a'.repeat(199)}😀`);
  });

  test.each([
    ['NUL', 'a\0b', 'a\uFFFDb'],
    ['half a pair', 'a\uD83Db', 'a\uFFFDb'],
    ['the other half', '\uDE00', '\uFFFD'],
    ['a backslash that looks like an escape', 'a\\u0000\\ud83d', 'a\\u0000\\ud83d'],
    ['quotes, braces and newlines', '{"\',}\n\t$1', '{"\',}\n\t$1'],
  ])('%s', async (_what, argument, stored) => {
    const facts = execOf({ argv: ['printf', argument] });
    await (await db.database.audit.open(facts)).close(exited({ errorDetail: argument, toolTrace: [argument] }));
    expect(await rowOf(facts.execId)).toMatchObject({
      status: 'ok',
      summary: `printf ${stored}`,
      request_body: { argv: ['printf', stored] },
      error_detail: stored,
      tool_trace: [stored],
    });
  });

  test('128 KiB in 256 arguments', async () => {
    const facts = execOf({ argv: Array.from({ length: 256 }, () => 'é'.repeat(256)) });
    await db.database.audit.open(facts);
    expect((await rowOf(facts.execId))?.request_body).toMatchObject({ argv: facts.argv });
  });
});

describe('refusals and changes', () => {
  test("a refusal is a finished row in the caller's own org", async () => {
    const facts = refusalOf({ orgId: 'refuser', workspaceId: 'ws-of-nobody' });
    await db.database.audit.refused(facts);
    const { items } = await db.database.audit.list({ orgId: 'refuser', limit: 10 });
    expect(items).toMatchObject([
      {
        status: 'refused',
        activity_type: 'workspace_exec',
        workspace_id: 'ws-of-nobody',
        target_id: 'ws-of-nobody',
        source_id: null,
        method: 'POST /workspaces/:id/exec',
        summary: 'exec_tier_forbidden: this workspace has tier 1, 3 is needed',
        error_detail: 'exec_tier_forbidden: this workspace has tier 1, 3 is needed',
        request_body: { actor: 'org-token:abc' },
        response_body: { outcome: 'refused', code: 'exec_tier_forbidden' },
        request_id: facts.requestId,
        finished_at: expect.any(String),
      },
    ]);
  });

  test('a refusal with an id of odd and endless text is stored', async () => {
    const odd = `\0\uD83D${'€'.repeat(9_000)}`;
    await db.database.audit.refused(refusalOf({ orgId: 'odd', workspaceId: odd, method: odd, message: odd }));
    const { items } = await db.database.audit.list({ orgId: 'odd', limit: 10 });
    expect(items).toMatchObject([{ workspace_id: `\uFFFD\uFFFD${'€'.repeat(198)}` }]);
  });

  test('one actor gets a bounded number of refused rows per minute; the rest is counted, and others are not affected', async () => {
    const noisy = await createTestDatabase(log);
    const { audit } = noisy.database;
    const loud = Array.from({ length: REFUSED_ROWS_PER_MINUTE + 5 }, () => audit.refused(refusalOf()));
    await Promise.all([...loud, audit.refused(refusalOf({ actor: 'session:somebody-else' }))]);
    const { items } = await audit.list({ orgId: 'acme', limit: 500 });
    await noisy.drop();
    expect(items.filter((row) => row.actor === 'org-token:abc')).toHaveLength(REFUSED_ROWS_PER_MINUTE);
    expect(items.filter((row) => row.actor === 'session:somebody-else')).toHaveLength(1);
    expect(log.lines).toContainEqual(expect.objectContaining({ facts: { dropped: 5, actors: 2 } }));
  });

  test('a change is an ok row', async () => {
    const requestId = randomUUID();
    await db.database.audit.changed({
      orgId: 'changer',
      workspaceId: 'ws-1',
      actor: 'admin-token',
      requestId,
      activityType: 'workspace_change',
      method: 'PUT /workspaces/:id',
      summary: 'tier 1 → 3',
      targetId: 'ws-1',
    });
    const { items } = await db.database.audit.list({ orgId: 'changer', limit: 10 });
    expect(items).toMatchObject([
      {
        status: 'ok',
        activity_type: 'workspace_change',
        summary: 'tier 1 → 3',
        target_id: 'ws-1',
        request_id: requestId,
      },
    ]);
  });
});
