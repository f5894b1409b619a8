import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ActivityReader, ActivityRow } from '../../src/audit.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { execOf, exited, refusalOf } from './facts.ts';

failOnLeaks();

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.drop());

async function addExecs(orgId: string, names: string[], facts: Parameters<typeof execOf>[0] = {}): Promise<void> {
  for (const name of names) {
    const entry = await db.database.audit.open(execOf({ orgId, argv: [name], ...facts }));
    await entry.close(exited());
  }
}

const summaries = (items: ActivityRow[]) => items.map((row) => row.summary);

async function list(filter: Parameters<ActivityReader['list']>[0]) {
  return summaries((await db.database.audit.list(filter)).items);
}

describe('pages', () => {
  test('are newest first, and rows that come meanwhile move nothing', async () => {
    await addExecs('paging', ['1', '2', '3', '4', '5']);
    const first = await db.database.audit.list({ orgId: 'paging', limit: 2 });
    await addExecs('paging', ['6']);
    const second = await db.database.audit.list({ orgId: 'paging', limit: 2, after: first.next ?? '' });
    await addExecs('paging', ['7']);
    const third = await db.database.audit.list({ orgId: 'paging', limit: 2, after: second.next ?? '' });
    expect([first, second, third].map(({ items }) => summaries(items))).toEqual([['5', '4'], ['3', '2'], ['1']]);
    expect(third.next).toBeNull();
  });

  test('a page that holds exactly the rest has no next', async () => {
    await addExecs('exact', ['1', '2']);
    expect((await db.database.audit.list({ orgId: 'exact', limit: 2 })).next).toBeNull();
  });

  test('an org sees no row of another, also with the cursor of another', async () => {
    await addExecs('left', ['l1', 'l2']);
    await addExecs('right', ['r1', 'r2']);
    const { next } = await db.database.audit.list({ orgId: 'right', limit: 1 });
    expect(await list({ orgId: 'left', limit: 10, after: next ?? '' })).toEqual(['l2', 'l1']);
  });

  test.each(['', 'x', 'c2VxOjE=', Buffer.from('seq:1 or 1=1').toString('base64url'), '../..'])(
    'the cursor %j, which nobody gave out, is invalid_request',
    async (after) => {
      await expect(db.database.audit.list({ orgId: 'left', limit: 10, after })).rejects.toMatchObject({
        code: 'invalid_request',
        message: expect.stringContaining('after'),
      });
    },
  );

  test.each(['seq:9223372036854775808', 'id:ws-1'])('the cursor of %s is invalid_request', async (text) => {
    const after = Buffer.from(text).toString('base64url');
    await expect(db.database.audit.list({ orgId: 'left', limit: 10, after })).rejects.toMatchObject({
      code: 'invalid_request',
    });
  });
});

describe('filters', () => {
  const orgId = 'filtered';
  beforeAll(async () => {
    await addExecs(orgId, ['a'], { workspaceId: 'ws-1', actor: 'session:ann' });
    await addExecs(orgId, ['b'], { workspaceId: 'ws-2', actor: 'session:bob' });
    await db.database.audit.open(execOf({ orgId, argv: ['c'], workspaceId: 'ws-2', actor: 'session:ann' }));
    await db.database.audit.refused(refusalOf({ orgId, message: 'm', code: 'd', activityType: 'workspace_files' }));
  });

  test.each([
    ['workspace', { workspaceId: 'ws-2' }, ['c', 'b']],
    ['type', { type: 'workspace_files' }, ['d: m']],
    ['status', { status: 'running' }, ['c']],
    ['actor', { actor: 'session:ann' }, ['c', 'a']],
    ['two of them', { actor: 'session:ann', workspaceId: 'ws-2' }, ['c']],
    ['a value that no row has', { status: 'nonsense\0' }, []],
  ])('by %s', async (_what, filter, expected) => {
    expect(await list({ orgId, limit: 10, ...filter })).toEqual(expected);
  });

  test('since takes a row of that moment in, until leaves it out', async () => {
    const all = (await db.database.audit.list({ orgId, limit: 10 })).items;
    const moment = new Date(Date.parse(all.find((row) => row.summary === 'b')?.created_at as string) + 1);
    const [since, until] = [
      await list({ orgId, limit: 10, since: moment }),
      await list({ orgId, limit: 10, until: moment }),
    ];
    expect(until).toContain('a');
    expect(until).toContain('b');
    expect([...since, ...until].sort()).toEqual(summaries(all).map(String).sort());
  });
});

describe('what runs now', () => {
  test('is told newest first, of this org and workspace only, until it has ended', async () => {
    const at = { orgId: 'runner', workspaceId: 'ws-1' };
    const [one, two] = [execOf({ ...at, argv: ['sleep', '9'] }), execOf({ ...at, actor: 'admin-token' })];
    const first = await db.database.audit.open(one);
    await db.database.audit.open(two);
    await db.database.audit.open(execOf({ ...at, workspaceId: 'ws-2' }));
    await db.database.audit.open(execOf({ ...at, orgId: 'other' }));
    expect(await db.database.audit.running('runner', 'ws-1')).toEqual([
      { exec_id: two.execId, argv: ['true'], actor: 'admin-token', started_at: expect.any(String), outcome: null },
      {
        exec_id: one.execId,
        argv: ['sleep', '9'],
        actor: 'org-token:abc',
        started_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
        outcome: null,
      },
    ]);
    await first.close(exited());
    expect((await db.database.audit.running('runner', 'ws-1')).map((exec) => exec.exec_id)).toEqual([two.execId]);
  });
});
