/** Requests of a minute, counted together by two who share a database. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { RateCounter } from '../../src/access/access.ts';
import { type Database, openDatabase } from '../../src/db/database.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { silent } from '../support/database-url.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { runSql } from '../support/sql.ts';
import { waitUntil } from '../support/wait.ts';
import { type Line, openLine } from './line.ts';

failOnLeaks();
const PER_MIN = 20;

let db: TestDatabase;
let line: Line;
let other: Database;
let pair: [RateCounter, RateCounter];
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.drop());
beforeEach(async () => {
  line = await openLine(db.url);
  other = await openDatabase({
    url: line.url,
    migrateUrl: null,
    dataDir: '/nonexistent',
    replica: 'other',
    log: silent,
  });
  pair = [db.database.rates(PER_MIN), other.rates(PER_MIN)];
});
afterEach(async () => {
  await other.close();
  await line.close();
  await runSql(db.url, 'delete from rates');
});

const points = async () => Number((await runSql(db.url, 'select sum(points) as points from rates'))[0]?.points);

describe('two who count together', () => {
  test('let through exactly as many as one would, however they come', async () => {
    const taken = await Promise.all(Array.from({ length: 60 }, (_, n) => pair[n % 2 === 0 ? 0 : 1].take('key')));
    expect(taken.filter(({ isOver }) => !isOver)).toHaveLength(PER_MIN);
    const left = taken.filter(({ isOver }) => !isOver).map((one) => one.left);
    expect(left.sort((a, b) => a - b)).toEqual(Array.from({ length: PER_MIN }, (_, n) => n));
    for (const { resetMs } of taken) expect(resetMs).toBeGreaterThan(50_000);
    for (const { resetMs } of taken) expect(resetMs).toBeLessThanOrEqual(60_000);
  });

  test('count each key by itself, whatever text it is', async () => {
    for (const key of ['one', 'two', 'nul\0', '\ud800', 'x'.repeat(100_000)])
      expect(await pair[0].take(key)).toMatchObject({ isOver: false, left: PER_MIN - 1 });
    const rows = await runSql(db.url, 'select key from rates');
    for (const { key } of rows) expect(key).toMatch(/^[\w-]{43}$/);
  });

  test('do not ask about who has used up the minute', async () => {
    for (let n = 0; n < PER_MIN; n += 1) await pair[0].take('key');
    expect(await pair[0].take('key')).toMatchObject({ isOver: true, left: 0 });
    expect(await points()).toBe(PER_MIN);
    for (let n = 0; n < 10; n += 1) expect(await pair[1].take('key')).toMatchObject({ isOver: true, left: 0 });
    expect(await points()).toBe(PER_MIN + 1);
  });

  test('begin anew when the minute is over', async () => {
    for (let n = 0; n < PER_MIN - 1; n += 1) await pair[0].take('key');
    await runSql(db.url, 'update rates set expire = $1', [Date.now() - 1]);
    expect(await pair[1].take('key')).toMatchObject({ isOver: false, left: PER_MIN - 1 });
  });
});

test('a database that does not answer is no permission', async () => {
  await pair[1].take('key');
  line.cut();
  const unavailable = { code: 'audit_unavailable', details: { retryable: true } };
  await expect(pair[1].take('key')).rejects.toMatchObject(unavailable);
  line.mend();
  await waitUntil('it answers again', () =>
    pair[1].take('key').then(
      ({ isOver }) => !isOver,
      () => false,
    ),
  );
});
