/** Entries, their sealing, and what a verification finds when somebody who owns the server spoils them. */
import { beforeEach, describe, expect, test } from 'vitest';
import { signCheckpoint } from '../../src/access/checkpoint.ts';
import { canonicalText } from '../../src/db/audit-chain.ts';
import { openDatabase } from '../../src/db/database.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { silent } from '../support/database-url.ts';
import { newSigner, type Signer, sealAll, sign, spoil, verifyAs, writeExecs } from '../support/evidence.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { runSql, withClient } from '../support/sql.ts';
import { waitUntil } from '../support/wait.ts';
import { execOf, exited, refusalOf } from './facts.ts';

failOnLeaks();

let db: TestDatabase;
let signer: Signer;
beforeEach(async () => {
  db = await createTestDatabase();
  signer = await newSigner();
  return () => db.drop();
});
const ask = (text: string, values: unknown[] = []) => runSql(db.url, text, values);
const kinds = async () => (await ask('select kind from audit_entries order by id')).map(({ kind }) => kind);

describe('every writer of activity_logs appends', () => {
  test('an exec appends when it is opened and when it is finished, a refusal and a change once', async () => {
    const { audit } = db.database;
    const entry = await audit.open(execOf());
    expect(await kinds()).toEqual(['opened']);
    await entry.close(exited());
    await audit.refused(refusalOf());
    await audit.changed({ ...refusalOf(), summary: 'x', targetId: null });
    await ((await audit.openOnce(execOf(), { key: 'k', bodyHash: 'h' })) as { entry: typeof entry }).entry.close(
      exited(),
    );
    expect(await kinds()).toEqual(['opened', 'finished', 'finished', 'finished', 'opened', 'finished']);
  });

  test('a row that another replica interrupts has an entry that says so', async () => {
    const facts = execOf();
    await db.database.audit.open(facts);
    await db.database.replicas.interrupt({ ...facts, workspace: null }, { survivors: null, reaped: 'unknown' });
    const [last] = await ask(
      `select kind, body::json->>'status' as status from audit_entries order by id desc limit 1`,
    );
    expect(last).toEqual({ kind: 'finished', status: 'interrupted' });
  });

  test('an entry is the whole row, as the verification writes it and in every session alike', async () => {
    const odd = execOf({ argv: ['printf', '"\\n\u2028é😀', '{}'], cwd: '/t"mp', envNames: ['A'] });
    await (await db.database.audit.open(odd)).close(exited({ toolTrace: [{ a: 1.5 }], errorDetail: 'x: "y"\n' }));
    await withClient(db.url, async (client) => {
      await client.query(
        `set timezone = 'Asia/Kathmandu'; set datestyle = 'German'; set intervalstyle = 'sql_standard'`,
      );
      const { rows } = await client.query(
        `select e.body, ${canonicalText('a')} as ours, audit_canonical(a) as theirs,
           extract(epoch from a.finished_at)::text as finished_s
         from activity_logs a join audit_entries e on e.activity_id = a.id and e.kind = 'finished'`,
      );
      expect(rows[0].ours).toBe(rows[0].body);
      expect(rows[0].theirs).toBe(rows[0].body);
      const parsed = JSON.parse(rows[0].body);
      expect(parsed).toMatchObject({ id: odd.execId, request_body: { argv: odd.argv }, error_detail: 'x: "y"\n' });
      expect(Object.keys(parsed)).toHaveLength(20);
      expect(Date.parse(parsed.finished_at)).toBe(Math.floor(Number(rows[0].finished_s) * 1000));
      expect(parsed.finished_at.slice(-7, -1)).toBe(rows[0].finished_s.slice(-6));
    });
  });

  test('every column of activity_logs is in the text, so that none can be changed unseen', async () => {
    const columns = await ask(
      `select column_name from information_schema.columns where table_name = 'activity_logs' order by ordinal_position`,
    );
    await db.database.audit.refused(refusalOf());
    const [entry] = await ask('select body from audit_entries');
    expect(Object.keys(JSON.parse(String(entry?.body))).sort()).toEqual(columns.map((row) => row.column_name).sort());
  });

  test('a row that runs changes only by being finished', async () => {
    const facts = execOf();
    await db.database.audit.open(facts);
    const change = ask(`update activity_logs set summary = 'x' where id = $1`, [facts.execId]);
    await expect(change).rejects.toThrow('changes only by being finished');
  });

  test.each(['audit_entries', 'audit_seals', 'audit_checkpoints', 'audit_beginning'])(
    '%s is append-only, for its owner too',
    async (table) => {
      await writeExecs(db.database, 1);
      await sealAll(db.database);
      await sign(db.database, signer);
      for (const statement of [`delete from ${table}`, `truncate ${table}`])
        await expect(ask(statement)).rejects.toThrow(`${table} is append-only`);
      const column =
        table === 'audit_entries' ? `kind = 'opened'` : table === 'audit_beginning' ? 'seq = 9' : 'position = 9';
      await expect(ask(`update ${table} set ${column}`)).rejects.toThrow('append-only');
    },
  );
});

describe('sealing', () => {
  test('positions have no gap, and nothing is left in the queue', async () => {
    await writeExecs(db.database, 3);
    expect(await db.database.seals.look()).toMatchObject({ orgIds: ['acme'], unsealed: { entries: 6 } });
    expect(await sealAll(db.database)).toBe(6);
    expect(await db.database.seals.look()).toEqual({ orgIds: [], unsealed: { entries: 0, oldestMs: 0 } });
    const seals = await ask('select position::int, entry_id::int from audit_seals order by position');
    expect(seals.map(({ position }) => position)).toEqual([1, 2, 3, 4, 5, 6]);
    await sign(db.database, signer);
    const report = await verifyAs(db.url, signer);
    expect(report).toMatchObject({ entries_checked: 6, activities_checked: 3, findings: [], not_checked: [] });
    expect(report).toMatchObject({ sealed: { from: 1, to: 6 }, checkpoints: { good: 1, last_position: 6 } });
  });

  test('an entry that commits late is sealed late, behind entries with higher ids; a long transaction stalls nobody', async () => {
    await withClient(db.url, async (slow) => {
      await slow.query('begin');
      await slow.query(
        `insert into activity_logs (id, org_id, activity_type, method, summary, actor, request_id, replica, status, finished_at)
         values (gen_random_uuid(), 'acme', 'x', 'x', 'late', 'x', 'r', 'test', 'ok', now())`,
      );
      await writeExecs(db.database, 2);
      expect(await sealAll(db.database)).toBe(4);
      await slow.query('commit');
    });
    expect(await sealAll(db.database)).toBe(1);
    const [last] = await ask('select entry_id from audit_seals order by position desc limit 1');
    expect(last).toEqual({ entry_id: '1' });
    expect((await verifyAs(db.url, signer)).findings).toEqual([]);
  });

  test('while another sealer is at an org it is left alone, and others are not', async () => {
    await writeExecs(db.database, 1);
    await writeExecs(db.database, 1, 'rival');
    await withClient(db.url, async (other) => {
      await other.query(`begin; select pg_advisory_xact_lock(hashtextextended('acme', 7255968))`);
      expect(await db.database.seals.seal('acme')).toBeNull();
      expect(await db.database.seals.seal('rival')).toBe(2);
      await other.query('rollback');
    });
    expect(await db.database.seals.seal('acme')).toBe(2);
  });

  test('many sealers at once on one org make one chain', async () => {
    const others = await Promise.all(
      ['b', 'c'].map((replica) => openDatabase({ url: db.url, migrateUrl: null, dataDir: '', replica, log: silent })),
    );
    const databases = [db.database, ...others];
    await Promise.all(databases.map((database) => writeExecs(database, 60)));
    await waitUntil('all is sealed', async () => {
      await Promise.all(databases.map(({ seals }) => seals.seal('acme')));
      return (await db.database.seals.look()).unsealed.entries === 0;
    });
    for (const other of others) await other.close();
    const report = await verifyAs(db.url, signer);
    expect(report).toMatchObject({ entries_checked: 360, sealed: { from: 1, to: 360 }, findings: [] });
  });

  test('a sealer that dies or freezes between its statements leaves nothing half done and gives the org up', async () => {
    await writeExecs(db.database, 2);
    await withClient(db.url, async (frozen) => {
      frozen.on('error', () => {});
      await frozen.query(`begin; set local idle_in_transaction_session_timeout = 200`);
      await frozen.query(`select pg_advisory_xact_lock(hashtextextended('acme', 7255968))`);
      await frozen.query(
        `insert into audit_seals select 'acme', 1, entry_id, gen_random_uuid(), sha256('') from audit_unsealed limit 1`,
      );
      expect(await db.database.seals.seal('acme')).toBeNull();
      await waitUntil('its lock is free', async () => (await db.database.seals.seal('acme')) === 4);
    });
    expect((await verifyAs(db.url, signer)).findings).toEqual([]);
  });

  test('a batch ends at its bytes, and one entry that is larger is sealed all the same', async () => {
    for (let index = 0; index < 45; index += 1) await db.database.audit.open(execOf({ argv: ['x'.repeat(131_000)] }));
    const first = await db.database.seals.seal('acme');
    expect(first).toBeGreaterThan(1);
    expect(first).toBeLessThan(45);
    expect(Number(first) + (await sealAll(db.database))).toBe(45);
    expect((await verifyAs(db.url, signer)).findings).toEqual([]);
  });

  test('a checkpoint is made when the chain has grown and the last one is old enough', async () => {
    const make = (everyMs: number) =>
      db.database.seals.checkpoint('acme', everyMs, (facts) => signCheckpoint(signer.key, facts));
    expect(await make(0)).toBeNull();
    await writeExecs(db.database, 1);
    await sealAll(db.database);
    expect(await db.database.seals.due(60_000)).toEqual(['acme']);
    expect(await make(60_000)).toMatchObject({ position: 2, kid: signer.key.kid });
    expect(await make(0)).toBeNull();
    await writeExecs(db.database, 1);
    await sealAll(db.database);
    expect(await db.database.seals.due(60_000)).toEqual([]);
    expect(await make(60_000)).toBeNull();
    expect(await db.database.seals.due(0)).toEqual(['acme']);
    expect(await make(0)).toMatchObject({ position: 4 });
  });
});

describe('a verification finds and names', () => {
  let ids: string[];
  beforeEach(async () => {
    ids = await writeExecs(db.database, 4);
    await sealAll(db.database);
    await sign(db.database, signer);
  });
  const findings = async (...statements: string[]) => {
    await spoil(db.url, ...statements);
    return (await verifyAs(db.url, signer)).findings;
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
    const [rival] = (await verifyAs(db.url, signer, { orgId: 'rival' })).findings;
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
    await spoil(
      db.url,
      insert.replace('insert into activity_logs', 'insert into activity_logs overriding system value'),
    );
    expect((await verifyAs(db.url, signer)).findings).toEqual([
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
    await writeExecs(db.database, 1);
    const found = await findings('delete from audit_unsealed where entry_id = 9');
    expect(found).toEqual([expect.objectContaining({ kind: 'inserted', detail: expect.stringContaining('entry 9') })]);
  });

  test('a chain that was computed anew, at its next checkpoint', async () => {
    // As an attacker who can write everything but has no key: forget the chain, edit, and let the sealer do it again.
    await spoil(
      db.url,
      `update activity_logs set summary = 'x' where id = '${ids[0]}'`,
      `update audit_entries e set body = audit_canonical(a) from activity_logs a where a.id = e.activity_id and e.kind = 'finished'`,
      `insert into audit_unsealed select org_id, entry_id from audit_seals`,
      'delete from audit_seals',
    );
    await sealAll(db.database);
    expect((await verifyAs(db.url, signer)).findings).toEqual([
      {
        kind: 'edited',
        activity_id: null,
        position: 8,
        detail: 'the chain up to here is not the one that its checkpoint says',
      },
    ]);
    await spoil(
      db.url,
      'update audit_checkpoints c set hash = s.hash from audit_seals s where s.position = c.position',
    );
    expect((await verifyAs(db.url, signer)).findings).toEqual([
      expect.objectContaining({ kind: 'forged', position: 8 }),
    ]);
    expect((await verifyAs(db.url, null)).findings).toEqual([]);
  });

  test('an end that was cut off: by the checkpoint in the database, and without that by one from outside', async () => {
    const checkpoint = { ...(await verifyAs(db.url, signer)).checkpoints };
    const [row] = await ask(`select encode(hash, 'hex') as hash from audit_checkpoints`);
    expect(checkpoint.last_position).toBe(8);
    const cut = [
      `delete from activity_logs where id = '${ids[3]}'`,
      `delete from audit_entries where activity_id = '${ids[3]}'`,
      'delete from audit_seals where position > 6',
    ];
    expect(await findings(...cut)).toEqual([expect.objectContaining({ kind: 'removed', position: 8 })]);
    await spoil(db.url, 'delete from audit_checkpoints');
    const alone = await verifyAs(db.url, signer);
    expect(alone.findings).toEqual([]);
    expect(alone.not_checked).toEqual([expect.stringContaining('no checkpoint')]);
    const given = signCheckpoint(signer.key, {
      orgId: 'acme',
      position: 8,
      hash: String(row?.hash),
      at: '2026-01-01T00:00:00.000000Z',
    });
    expect((await verifyAs(db.url, signer, { given })).findings).toEqual([
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
    const report = await verifyAs(db.url, stranger);
    expect(report.not_checked).toEqual([
      expect.stringContaining(`signatures of the key ${signer.key.kid}`),
      expect.stringContaining('no checkpoint that is signed by a given key'),
    ]);
    await spoil(db.url, `update audit_checkpoints set kid = '${stranger.key.kid}'`);
    expect((await verifyAs(db.url, stranger)).findings).toEqual([
      expect.objectContaining({ kind: 'forged', position: 8 }),
    ]);
  });

  test('how many are not sealed yet, and that no key is no success', async () => {
    await writeExecs(db.database, 2);
    expect(await verifyAs(db.url, signer)).toMatchObject({ unsealed: { entries: 4 }, findings: [], not_checked: [] });
    expect((await verifyAs(db.url, null)).not_checked).toEqual([expect.stringContaining('no key was given')]);
  });
});
