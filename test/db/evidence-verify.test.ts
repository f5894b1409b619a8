/** What a verification finds when somebody who owns the server spoils the evidence. */
import { beforeEach, describe, expect, test } from 'vitest';
import { signCheckpoint } from '../../src/access/checkpoint.ts';
import { newSigner, verifyAs } from '../support/evidence.ts';
import { withEvidence } from './evidence.ts';

const evidence = withEvidence();

describe('a verification finds and names', () => {
  let ids: string[];
  beforeEach(async () => {
    ids = await evidence.write(4);
    await evidence.sealAndSign();
  });
  const findings = async (...statements: string[]) => {
    await evidence.spoil(...statements);
    return (await evidence.verify()).findings;
  };

  test('nothing, where nothing was spoiled', async () => {
    expect(await findings()).toEqual([]);
  });

  test.each([
    [`summary = 'x'`],
    [`request_body = request_body || '{"argv":["false"]}'`],
    [`created_at = created_at - interval '1 microsecond'`],
    [`status = 'running', finished_at = null`],
    [`seq = default`],
  ])('a row that was edited: %s', async (change) => {
    const found = await findings(`update activity_logs set ${change} where id = '${ids[1]}'`);
    expect(found).toEqual([
      expect.objectContaining({
        kind: 'edited',
        activity_id: ids[1],
        position: 4,
        detail: expect.stringContaining('its row'),
      }),
    ]);
  });

  test('a row that was given to another org', async () => {
    const found = await findings(`update activity_logs set org_id = 'rival' where id = '${ids[1]}'`);
    expect(found).toEqual([expect.objectContaining({ kind: 'removed', activity_id: ids[1], position: 4 })]);
    const [rival] = (await evidence.verify({ orgId: 'rival' })).findings;
    expect(rival).toMatchObject({ kind: 'inserted', activity_id: ids[1] });
  });

  test('a row that was edited together with its entry', async () => {
    const found = await findings(
      `update activity_logs set summary = 'x' where id = '${ids[1]}'`,
      `update audit_entries e set body = audit_canonical(a) from activity_logs a where a.id = e.activity_id and e.kind = 'finished' and a.id = '${ids[1]}'`,
    );
    expect(found).toEqual([expect.objectContaining({ kind: 'edited', activity_id: ids[1], position: 4 })]);
  });

  test.each(['kind', 'at', 'activity_id', 'org_id'])('an entry whose %s was edited', async (column) => {
    const values = {
      kind: `'opened'`,
      at: `at + interval '1 microsecond'`,
      activity_id: 'gen_random_uuid()',
      org_id: `'rival'`,
    };
    const value = values[column as keyof typeof values];
    const found = await findings(`update audit_entries set ${column} = ${value} where id = 4`);
    expect(found).toContainEqual(expect.objectContaining({ kind: 'edited', position: 4 }));
  });

  test('a row that was removed, and one that was removed with its entries', async () => {
    const found = await findings(`delete from activity_logs where id = '${ids[1]}'`);
    expect(found).toEqual([expect.objectContaining({ kind: 'removed', activity_id: ids[1], position: 4 })]);
    const more = await findings(`delete from audit_entries where activity_id = '${ids[1]}'`);
    expect(more.map(({ kind, activity_id, position }) => [kind, activity_id, position])).toEqual([
      ['removed', ids[1], 3],
      ['removed', ids[1], 4],
    ]);
  });

  test('positions that were removed', async () => {
    const found = await findings(
      `delete from activity_logs where id = '${ids[1]}'`,
      `delete from audit_entries where activity_id = '${ids[1]}'`,
      'delete from audit_seals where position in (3, 4)',
    );
    expect(found).toEqual([{ kind: 'removed', activity_id: null, position: 3, detail: 'positions 3 to 4 are gone' }]);
  });

  test.each([
    [
      'entries that changed places',
      `update audit_entries e set (activity_id, kind, at, body) =
         (select activity_id, kind, at, body from audit_entries o where o.id = 9 - e.id) where id in (3, 6)`,
    ],
    [
      'seals that changed places',
      `update audit_seals set position = case position when 3 then 106 else 103 end where position in (3, 6)`,
      `update audit_seals set position = position - 100 where position > 100`,
    ],
    [
      'neighbours that changed places',
      `update audit_seals set position = case position when 3 then 104 else 103 end where position in (3, 4)`,
      `update audit_seals set position = position - 100 where position > 100`,
    ],
  ])('%s', async (what, ...statements) => {
    const found = (await findings(...statements)).filter(({ kind }) => kind !== 'forged');
    const swapped = found.filter(({ kind }) => kind === 'swapped').map(({ position }) => position);
    expect(swapped).toEqual(what.startsWith('neighbours') ? [3, 4] : [3, 6]);
    expect(found.filter(({ kind, detail }) => kind === 'edited' && detail.includes('does not follow'))).toEqual([]);
  });

  test('a row that was inserted past the triggers', async () => {
    const insert = `insert into activity_logs select (jsonb_populate_record(a, '{"id":"00000000-0000-4000-8000-000000000001"}')).* from activity_logs a limit 1`;
    const fake = '00000000-0000-4000-8000-000000000001';
    await evidence.spoil(
      insert.replace('insert into activity_logs', 'insert into activity_logs overriding system value'),
    );
    expect((await evidence.verify()).findings).toEqual([
      expect.objectContaining({ kind: 'inserted', activity_id: fake }),
    ]);
  });

  test('an entry that was inserted beside the chain, and a second end of a row', async () => {
    const found = await findings(
      `insert into audit_entries (org_id, activity_id, kind, at, body) select org_id, activity_id, kind, at, body from audit_entries where id = 4`,
    );
    expect(found).toEqual([
      expect.objectContaining({ kind: 'inserted', activity_id: ids[1], detail: expect.stringContaining('neither') }),
    ]);
    const more = await findings(`insert into audit_unsealed select org_id, id from audit_entries where id > 8`);
    expect(more).toEqual([
      expect.objectContaining({
        kind: 'inserted',
        activity_id: ids[1],
        detail: expect.stringContaining('2 of its end'),
      }),
    ]);
  });

  test('an entry that was taken out of the queue', async () => {
    await evidence.write(1);
    const found = await findings('delete from audit_unsealed where entry_id = 9');
    expect(found).toEqual([expect.objectContaining({ kind: 'inserted', detail: expect.stringContaining('entry 9') })]);
  });

  test('a chain that was computed anew, at its next checkpoint', async () => {
    // As an attacker who can write everything but has no key: forget the chain, edit, and let the sealer do it again.
    await evidence.spoil(
      `update activity_logs set summary = 'x' where id = '${ids[0]}'`,
      `update audit_entries e set body = audit_canonical(a) from activity_logs a where a.id = e.activity_id and e.kind = 'finished'`,
      `insert into audit_unsealed select org_id, entry_id from audit_seals`,
      'delete from audit_seals',
    );
    await evidence.seal();
    expect((await evidence.verify()).findings).toEqual([
      {
        kind: 'edited',
        activity_id: null,
        position: 8,
        detail: 'the chain up to here is not the one that its checkpoint says',
      },
    ]);
    await evidence.spoil(
      'update audit_checkpoints c set hash = s.hash from audit_seals s where s.position = c.position',
    );
    expect((await evidence.verify()).findings).toEqual([expect.objectContaining({ kind: 'forged', position: 8 })]);
    expect((await verifyAs(evidence.url, null)).findings).toEqual([]);
  });

  test('an end that was cut off: by the checkpoint in the database, and without that by one from outside', async () => {
    const checkpoint = { ...(await evidence.verify()).checkpoints };
    const [row] = await evidence.ask(`select encode(hash, 'hex') as hash from audit_checkpoints`);
    expect(checkpoint.last_position).toBe(8);
    const cut = [
      `delete from activity_logs where id = '${ids[3]}'`,
      `delete from audit_entries where activity_id = '${ids[3]}'`,
      'delete from audit_seals where position > 6',
    ];
    expect(await findings(...cut)).toEqual([expect.objectContaining({ kind: 'removed', position: 8 })]);
    await evidence.spoil('delete from audit_checkpoints');
    const alone = await evidence.verify();
    expect(alone.findings).toEqual([]);
    expect(alone.not_checked).toEqual([expect.stringContaining('no checkpoint')]);
    const given = signCheckpoint(evidence.signer.key, {
      orgId: 'acme',
      position: 8,
      hash: String(row?.hash),
      at: '2026-01-01T00:00:00.000000Z',
    });
    expect((await evidence.verify({ given })).findings).toEqual([
      {
        kind: 'removed',
        activity_id: null,
        position: 8,
        detail: 'the given checkpoint was made at this position; the chain ends at 6',
      },
    ]);
  });

  test('a beginning that was cut off', async () => {
    const found = await findings(
      `delete from activity_logs where id = '${ids[0]}'`,
      `delete from audit_entries where activity_id = '${ids[0]}'`,
      'delete from audit_seals where position < 3',
    );
    expect(found).toEqual([
      {
        kind: 'removed',
        activity_id: null,
        position: 2,
        detail: 'the chain begins at position 3, and no signed checkpoint starts it',
      },
    ]);
  });

  test('a checkpoint that somebody else has signed', async () => {
    const stranger = await newSigner();
    const report = await verifyAs(evidence.url, stranger);
    expect(report.not_checked).toEqual([
      expect.stringContaining(`signatures of the key ${evidence.signer.key.kid}`),
      expect.stringContaining('no checkpoint that is signed by a given key'),
    ]);
    await evidence.spoil(`update audit_checkpoints set kid = '${stranger.key.kid}'`);
    expect((await verifyAs(evidence.url, stranger)).findings).toEqual([
      expect.objectContaining({ kind: 'forged', position: 8 }),
    ]);
  });

  test('how many are not sealed yet, and that no key is no success', async () => {
    await evidence.write(2);
    expect(await evidence.verify()).toMatchObject({ unsealed: { entries: 4 }, findings: [], not_checked: [] });
    expect((await verifyAs(evidence.url, null)).not_checked).toEqual([expect.stringContaining('no key was given')]);
  });
});
