/** Retention, and rows from before there was evidence. */
import { beforeEach, describe, expect, test } from 'vitest';
import { createSignatureCheck } from '../../src/access/checkpoint.ts';
import { type PruneResult, planPrune, pruneOrg } from '../../src/db/audit-prune.ts';
import { newSigner } from '../support/evidence.ts';
import { withClient } from '../support/sql.ts';
import { withEvidence } from './evidence.ts';
import { execOf, exited } from './facts.ts';

const evidence = withEvidence();
/** Everything that a prune could delete or write. */
const everything = async () =>
  await Promise.all(
    ['activity_logs', 'audit_entries', 'audit_seals', 'audit_checkpoints', 'audit_unsealed', 'idempotency_keys'].map(
      (table) => evidence.ask(`select * from ${table} t order by t::text`),
    ),
  );
/** Each time after a dry run, which says the same and changes nothing. */
async function prune(before: Date, by = evidence.signer): Promise<PruneResult> {
  const options = { orgId: 'acme', before, check: createSignatureCheck([by.key]) };
  const untouched = await everything();
  const { would_prune, ...plan } = await withClient(evidence.url, (client) => planPrune(client, options));
  expect(await everything()).toEqual(untouched);
  const result = await withClient(evidence.url, (client) => pruneOrg(client, options));
  expect({ ...plan, pruned: would_prune }).toEqual(result);
  return result;
}
/** By the server's clock. */
const now = async () => (await evidence.ask('select clock_timestamp() as now'))[0]?.now as Date;
const idsLeft = async () => (await evidence.ask('select id from activity_logs order by seq')).map(({ id }) => id);

describe('pruning', () => {
  test('deletes up to the last signed checkpoint below what stays; the chain goes on from there and tells of it', async () => {
    await evidence.write(3);
    expect(await evidence.sealAndSign()).toBe(6);
    const between = await now();
    const later = await evidence.write(2);
    await evidence.sealAndSign();
    expect(await prune(between)).toEqual({
      org_id: 'acme',
      pruned: { position: 6, activities: 3, entries: 6 },
      refused: false,
      reason: null,
    });
    const left = await idsLeft();
    expect(left.slice(0, 2)).toEqual(later);
    expect(
      await evidence.ask(`select activity_type, actor, status from activity_logs where not id = any($1)`, [later]),
    ).toEqual([{ activity_type: 'audit_prune', actor: 'operator', status: 'ok' }]);
    await evidence.write(1);
    await evidence.sealAndSign();
    expect(await evidence.verify()).toMatchObject({
      sealed: { from: 6, to: 13 },
      findings: [],
      not_checked: [],
      activities_checked: 4,
    });
    expect(await prune(between)).toMatchObject({ pruned: null, refused: false, reason: 'no row is that old' });
  });

  test('again and again, also when nothing is left above', async () => {
    for (let round = 0; round < 3; round += 1) {
      await evidence.write(2);
      await evidence.sealAndSign();
      expect(await prune(await now())).toMatchObject({ pruned: expect.anything() });
      await evidence.sealAndSign();
      expect((await evidence.verify()).findings).toEqual([]);
    }
  });

  test('a row that runs stays with everything that was sealed after it', async () => {
    await evidence.write(2);
    await evidence.sealAndSign();
    const running = execOf();
    const entry = await evidence.database.audit.open(running);
    await evidence.write(2);
    await evidence.sealAndSign();
    expect(await prune(await now())).toMatchObject({ pruned: { position: 4, activities: 2 } });
    expect(await prune(await now())).toMatchObject({ refused: true, reason: expect.stringContaining(running.execId) });
    await entry.close(exited());
    await evidence.sealAndSign();
    expect(await prune(await now())).toMatchObject({ pruned: { activities: 4 } });
    await evidence.sealAndSign();
    expect((await evidence.verify()).findings).toEqual([]);
  });

  test('a row that ended after the checkpoint below which it began stays whole', async () => {
    const facts = execOf();
    const entry = await evidence.database.audit.open(facts);
    await evidence.write(1);
    await evidence.seal();
    await entry.close(exited());
    await evidence.sign();
    expect(await prune(await now())).toMatchObject({ pruned: { position: 3, activities: 1 } });
    expect(await idsLeft()).toContain(facts.execId);
    await evidence.sealAndSign();
    expect((await evidence.verify()).findings).toEqual([]);
  });

  test('is refused without a signed checkpoint, with one of another key, and where the evidence has faults', async () => {
    const ids = await evidence.write(2);
    await evidence.seal();
    expect(await prune(await now())).toMatchObject({ refused: true, reason: expect.stringContaining('no checkpoint') });
    await evidence.sign();
    expect(await prune(await now(), await newSigner())).toMatchObject({ refused: true });
    await evidence.spoil(`update activity_logs set summary = 'x' where id = '${ids[0]}'`);
    expect(await prune(await now())).toMatchObject({ refused: true, reason: expect.stringContaining('1 faults') });
    expect(await idsLeft()).toEqual(ids);
  });

  test('the function itself refuses a position without a checkpoint, and rows that are to stay', async () => {
    await evidence.write(2);
    await evidence.sealAndSign();
    await expect(evidence.ask(`select audit_prune('acme', 3, now())`)).rejects.toThrow('no checkpoint at position 3');
    await expect(evidence.ask(`select audit_prune('acme', 4, now() - interval '1 day')`)).rejects.toThrow(
      'are to stay',
    );
    expect(await idsLeft()).toHaveLength(2);
  });

  test('another org is not touched', async () => {
    await evidence.write(2);
    await evidence.write(2, 'rival');
    await evidence.sealAndSign();
    await evidence.sealAndSign('rival');
    await prune(await now());
    expect(await evidence.verify({ orgId: 'rival' })).toMatchObject({ activities_checked: 2, findings: [] });
  });

  test('an idempotency key of a row that is deleted is free, and works', async () => {
    const { audit } = evidence.database;
    const first = await audit.openOnce(execOf(), { key: 'k', bodyHash: 'h' });
    if ('answer' in first) throw new Error('the key was taken');
    await first.entry.close(exited({ answer: { status: 200, frame: {} } }));
    await evidence.sealAndSign();
    expect(await audit.openOnce(execOf(), { key: 'k', bodyHash: 'h' })).toHaveProperty('answer');
    await prune(await now());
    expect(await audit.openOnce(execOf(), { key: 'k', bodyHash: 'h' })).toHaveProperty('entry');
  });
});

describe('rows from before there was evidence', () => {
  beforeEach(async () => {
    await evidence.write(3);
    // As the migration finds a database in use.
    await evidence.spoil(
      ...['audit_entries', 'audit_unsealed', 'audit_beginning'].map((table) => `delete from ${table}`),
      'insert into audit_beginning (seq) select max(seq) from activity_logs',
    );
  });

  test('are counted, not taken for inserted; later ones without an entry are', async () => {
    await evidence.write(1);
    await evidence.sealAndSign();
    expect(await evidence.verify()).toMatchObject({ before_evidence: 3, activities_checked: 1, findings: [] });
    await evidence.spoil('delete from audit_entries', 'delete from audit_seals', 'delete from audit_checkpoints');
    expect(await evidence.verify()).toMatchObject({ before_evidence: 3, findings: [{ kind: 'inserted' }] });
  });

  test('are deleted with what is as old and has a checkpoint', async () => {
    await evidence.write(1);
    await evidence.sealAndSign();
    expect(await prune(await now())).toMatchObject({ pruned: { activities: 4, entries: 2 } });
    await evidence.sealAndSign();
    expect(await evidence.verify()).toMatchObject({ before_evidence: 0, findings: [] });
  });
});
