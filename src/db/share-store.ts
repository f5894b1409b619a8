/**
 * The ShareStore port: what each replica holds of the limits on execs, one row per replica.
 *
 * An exchange is a transaction behind one lock, because what it reads must still be so when it writes. The rows are read
 * by a statement of their own: the one that waits for the lock sees what was there before it waited.
 */
import { sql as raw } from 'kysely';
import type { Holding, ShareStore } from '../exec/room.ts';
import type { Sql } from './sql.ts';
import { storableJson } from './storable.ts';

/** Any number that nothing else in this database takes as an advisory lock. */
const LOCK_KEY = 7_255_968;

/** Forgets who has gone and left nothing running; who is over, or unknown, counts as long as a row of it runs. */
const FORGET = `
delete from exec_shares s
where s.replica <> $1
  and not exists (select from replicas r where r.id = s.replica and r.over_at is null)
  and not exists (select from activity_logs a where a.finished_at is null and a.replica = s.replica)`;

const READ = 'select replica, held from exec_shares';

interface ShareRow {
  replica: string;
  held: Holding;
}

/** `replica`: the name of this process' presence now. */
export function createShareStore({ sql, replica }: { sql: Sql; replica: () => string }): ShareStore {
  return {
    async read() {
      const name = replica();
      await sql.run({ name: 'shares_forget', text: FORGET, values: [name] });
      const { rows } = await sql.run<ShareRow>({ name: 'shares_read', text: READ, values: [] });
      return rows.some((row) => row.replica === name) ? heldByOthers(rows, name) : null;
    },

    async exchange(decide) {
      const name = replica();
      await sql.kysely.transaction().execute(async (transaction) => {
        await raw`select pg_advisory_xact_lock(${LOCK_KEY}::bigint)`.execute(transaction);
        const rows = await transaction.selectFrom('exec_shares').select(['replica', 'held']).execute();
        const held = storableJson(decide(heldByOthers(rows, name)));
        await transaction
          .insertInto('exec_shares')
          .values({ replica: name, held })
          .onConflict((found) => found.column('replica').doUpdateSet({ held }))
          .execute();
      });
    },
  };
}

function heldByOthers(rows: readonly ShareRow[], name: string): Holding[] {
  return rows.filter((row) => row.replica !== name).map((row) => row.held);
}
