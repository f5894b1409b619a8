/** Sealing: one chain per org without a gap, whoever seals, and checkpoints when they are due. */
import { describe, expect, test } from 'vitest';
import { signCheckpoint } from '../../src/access/checkpoint.ts';
import { openDatabase } from '../../src/db/database.ts';
import { silent } from '../support/database-url.ts';
import { writeExecs } from '../support/evidence.ts';
import { withClient } from '../support/sql.ts';
import { waitUntil } from '../support/wait.ts';
import { withEvidence } from './evidence.ts';
import { execOf } from './facts.ts';

const evidence = withEvidence();

describe('sealing', () => {
  test('positions have no gap, and nothing is left in the queue', async () => {
    await evidence.write(3);
    expect(await evidence.database.seals.look()).toMatchObject({ orgIds: ['acme'], unsealed: { entries: 6 } });
    expect(await evidence.seal()).toBe(6);
    expect(await evidence.database.seals.look()).toEqual({ orgIds: [], unsealed: { entries: 0, oldestMs: 0 } });
    const seals = await evidence.ask('select position::int, entry_id::int from audit_seals order by position');
    expect(seals.map(({ position }) => position)).toEqual([1, 2, 3, 4, 5, 6]);
    await evidence.sign();
    const report = await evidence.verify();
    expect(report).toMatchObject({ entries_checked: 6, activities_checked: 3, findings: [], not_checked: [] });
    expect(report).toMatchObject({ sealed: { from: 1, to: 6 }, checkpoints: { good: 1, last_position: 6 } });
  });

  test('an entry that commits late is sealed late, behind entries with higher ids; a long transaction stalls nobody', async () => {
    await withClient(evidence.url, async (slow) => {
      await slow.query('begin');
      await slow.query(
        `insert into activity_logs (id, org_id, activity_type, method, summary, actor, request_id, replica, status, finished_at)
         values (gen_random_uuid(), 'acme', 'x', 'x', 'late', 'x', 'r', 'test', 'ok', now())`,
      );
      await evidence.write(2);
      expect(await evidence.seal()).toBe(4);
      await slow.query('commit');
    });
    expect(await evidence.seal()).toBe(1);
    const [last] = await evidence.ask('select entry_id from audit_seals order by position desc limit 1');
    expect(last).toEqual({ entry_id: '1' });
    expect((await evidence.verify()).findings).toEqual([]);
  });

  test('while another sealer is at an org it is left alone, and others are not', async () => {
    await evidence.write(1);
    await evidence.write(1, 'rival');
    await withClient(evidence.url, async (other) => {
      await other.query(`begin; select pg_advisory_xact_lock(hashtextextended('acme', 7255968))`);
      expect(await evidence.database.seals.seal('acme')).toBeNull();
      expect(await evidence.database.seals.seal('rival')).toBe(2);
      await other.query('rollback');
    });
    expect(await evidence.database.seals.seal('acme')).toBe(2);
  });

  test('many sealers at once on one org make one chain', async () => {
    const others = await Promise.all(
      ['b', 'c'].map((replica) =>
        openDatabase({ url: evidence.url, migrateUrl: null, dataDir: '', replica, log: silent }),
      ),
    );
    const databases = [evidence.database, ...others];
    await Promise.all(databases.map((database) => writeExecs(database, 60)));
    await waitUntil('all is sealed', async () => {
      await Promise.all(databases.map(({ seals }) => seals.seal('acme')));
      return (await evidence.database.seals.look()).unsealed.entries === 0;
    });
    for (const other of others) await other.close();
    const report = await evidence.verify();
    expect(report).toMatchObject({ entries_checked: 360, sealed: { from: 1, to: 360 }, findings: [] });
  });

  test('a sealer that dies or freezes between its statements leaves nothing half done and gives the org up', async () => {
    await evidence.write(2);
    await withClient(evidence.url, async (frozen) => {
      frozen.on('error', () => {});
      await frozen.query(`begin; set local idle_in_transaction_session_timeout = 200`);
      await frozen.query(`select pg_advisory_xact_lock(hashtextextended('acme', 7255968))`);
      await frozen.query(
        `insert into audit_seals select 'acme', 1, entry_id, gen_random_uuid(), sha256('') from audit_unsealed limit 1`,
      );
      expect(await evidence.database.seals.seal('acme')).toBeNull();
      await waitUntil('its lock is free', async () => (await evidence.database.seals.seal('acme')) === 4);
    });
    expect((await evidence.verify()).findings).toEqual([]);
  });

  test('a batch ends at its bytes, and one entry that is larger is sealed all the same', async () => {
    for (let index = 0; index < 45; index += 1)
      await evidence.database.audit.open(execOf({ argv: ['x'.repeat(131_000)] }));
    const first = await evidence.database.seals.seal('acme');
    expect(first).toBeGreaterThan(1);
    expect(first).toBeLessThan(45);
    expect(Number(first) + (await evidence.seal())).toBe(45);
    expect((await evidence.verify()).findings).toEqual([]);
  });

  test('a checkpoint is made when the chain has grown and the last one is old enough', async () => {
    const make = (everyMs: number) =>
      evidence.database.seals.checkpoint('acme', everyMs, (facts) => signCheckpoint(evidence.signer.key, facts));
    expect(await make(0)).toBeNull();
    await evidence.write(1);
    await evidence.seal();
    expect(await evidence.database.seals.due(60_000)).toEqual(['acme']);
    expect(await make(60_000)).toMatchObject({ position: 2, kid: evidence.signer.key.kid });
    expect(await make(0)).toBeNull();
    await evidence.write(1);
    await evidence.seal();
    expect(await evidence.database.seals.due(60_000)).toEqual([]);
    expect(await make(60_000)).toBeNull();
    expect(await evidence.database.seals.due(0)).toEqual(['acme']);
    expect(await make(0)).toMatchObject({ position: 4 });
  });
});
