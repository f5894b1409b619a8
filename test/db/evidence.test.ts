/** Entries: whatever writes activity_logs appends them, and what has been appended stays. */
import { describe, expect, test } from 'vitest';
import { canonicalText } from '../../src/db/audit-chain.ts';
import { withClient } from '../support/sql.ts';
import { withEvidence } from './evidence.ts';
import { execOf, exited, refusalOf } from './facts.ts';

const evidence = withEvidence();
const kinds = async () => (await evidence.ask('select kind from audit_entries order by id')).map(({ kind }) => kind);

describe('every writer of activity_logs appends', () => {
  test('an exec appends when it is opened and when it is finished, a refusal and a change once', async () => {
    const { audit } = evidence.database;
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
    await evidence.database.audit.open(facts);
    await evidence.database.replicas.interrupt({ ...facts, workspace: null }, { survivors: null, reaped: 'unknown' });
    const [last] = await evidence.ask(
      `select kind, body::json->>'status' as status from audit_entries order by id desc limit 1`,
    );
    expect(last).toEqual({ kind: 'finished', status: 'interrupted' });
  });

  test('an entry is the whole row, as the verification writes it and in every session alike', async () => {
    const odd = execOf({ argv: ['printf', '"\\n\u2028é😀', '{}'], cwd: '/t"mp', envNames: ['A'] });
    await (await evidence.database.audit.open(odd)).close(exited({ toolTrace: [{ a: 1.5 }], errorDetail: 'x: "y"\n' }));
    await withClient(evidence.url, async (client) => {
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
    const columns = await evidence.ask(
      `select column_name from information_schema.columns where table_name = 'activity_logs' order by ordinal_position`,
    );
    await evidence.database.audit.refused(refusalOf());
    const [entry] = await evidence.ask('select body from audit_entries');
    expect(Object.keys(JSON.parse(String(entry?.body))).sort()).toEqual(columns.map((row) => row.column_name).sort());
  });

  test('a row that runs changes only by being finished', async () => {
    const facts = execOf();
    await evidence.database.audit.open(facts);
    const change = evidence.ask(`update activity_logs set summary = 'x' where id = $1`, [facts.execId]);
    await expect(change).rejects.toThrow('changes only by being finished');
  });

  test.each(['audit_entries', 'audit_seals', 'audit_checkpoints', 'audit_beginning'])(
    '%s is append-only, for its owner too',
    async (table) => {
      await evidence.write(1);
      await evidence.seal();
      await evidence.sign();
      for (const statement of [`delete from ${table}`, `truncate ${table}`])
        await expect(evidence.ask(statement)).rejects.toThrow(`${table} is append-only`);
      const column =
        table === 'audit_entries' ? `kind = 'opened'` : table === 'audit_beginning' ? 'seq = 9' : 'position = 9';
      await expect(evidence.ask(`update ${table} set ${column}`)).rejects.toThrow('append-only');
    },
  );
});
