/**
 * The SealStore port: the queue of what is not sealed, the chains, and their checkpoints.
 *
 * One transaction takes the org's lock, reads the end of its chain, adds to it and empties the queue, so a crash between
 * leaves all or nothing of a batch. Entries are chained in the order of their ids as far as they are committed; one that
 * is committed later comes later in the chain, whatever its id. A sealer that is stopped with the lock in its hands (a
 * frozen process) loses it after SEAL_IDLE_MAX_MS. Statements here look at every org: the gateway asks for itself.
 */
import { type Kysely, sql as raw, type Transaction } from 'kysely';
import type { SealStore } from '../exec/seal.ts';
import { SEAL_BATCH_MAX_BYTES, SEAL_BATCH_MAX_ENTRIES, SEAL_IDLE_MAX_MS, UNSEALED_COUNT_MAX } from '../limits.ts';
import { chainHash, chainStart, utcText } from './audit-chain.ts';
import type { Schema } from './schema.ts';
import type { Sql } from './sql.ts';

/** Any number that no other lock of this database has; the second one is the org. */
const LOCK_SEED = 7_255_968;

/** SQL for whoever must be alone with the chain of org $1. */
export const CHAIN_LOCK_ID = `hashtextextended($1, ${LOCK_SEED})`;

interface ChainEnd {
  position: number;
  hash: string;
}

/** From org to org by the index, whatever each of them has. */
const LOOK = `
with recursive first as (
  (select org_id, entry_id from audit_unsealed order by org_id, entry_id limit 1)
  union all
  select next.org_id, next.entry_id
  from first, lateral (
    select u.org_id, u.entry_id from audit_unsealed u where u.org_id > first.org_id order by u.org_id, u.entry_id limit 1
  ) next
)
select first.org_id, coalesce(extract(epoch from clock_timestamp() - e.at) * 1000, 0)::float8 as waited_ms,
  (select count(*)::int from (select from audit_unsealed limit ${UNSEALED_COUNT_MAX}) u) as entries
from first left join audit_entries e on e.id = first.entry_id`;

const DUE = `
with recursive org as (
  (select org_id from audit_seals order by org_id limit 1)
  union all
  select next.org_id
  from org, lateral (select s.org_id from audit_seals s where s.org_id > org.org_id order by s.org_id limit 1) next
)
select org.org_id
from org
cross join lateral (
  select position from audit_seals s where s.org_id = org.org_id order by s.position desc limit 1
) chain
left join lateral (
  select position, at from audit_checkpoints c where c.org_id = org.org_id order by c.position desc limit 1
) checkpoint on true
where checkpoint.position is null
  or (checkpoint.position < chain.position and checkpoint.at <= clock_timestamp() - $1::int * interval '1 ms')`;

export function createSealStore(sql: Sql): SealStore {
  return {
    async look() {
      const { rows } = await sql.run<{ org_id: string; waited_ms: number; entries: number }>({
        name: 'audit_look',
        text: LOOK,
        values: [],
      });
      const oldestMs = Math.max(0, ...rows.map(({ waited_ms }) => waited_ms));
      return { orgIds: rows.map(({ org_id }) => org_id), unsealed: { entries: rows[0]?.entries ?? 0, oldestMs } };
    },

    async seal(orgId) {
      return await alone(sql.kysely, orgId, async (transaction) => {
        const entries = await readUnsealed(transaction, orgId);
        if (entries.length === 0) return 0;
        let end = (await readEnd(transaction, orgId)) ?? { position: 0, hash: chainStart(orgId) };
        const seals = entries.map(({ entry_id: entryId, activity_id: activityId, kind, at, body }) => {
          const position = end.position + 1;
          end = { position, hash: chainHash(end.hash, { position, entryId, activityId, kind, at, body }) };
          return { position, entry_id: entryId, activity_id: activityId, hash: end.hash };
        });
        await raw`
          with sealed as (
            insert into audit_seals (org_id, position, entry_id, activity_id, hash)
            select ${orgId}, position, entry_id, activity_id, decode(hash, 'hex')
            from json_to_recordset(${JSON.stringify(seals)}::json)
              as seal (position bigint, entry_id bigint, activity_id uuid, hash text)
            returning entry_id
          )
          delete from audit_unsealed where org_id = ${orgId} and entry_id in (select entry_id from sealed)
        `.execute(transaction);
        return seals.length;
      });
    },

    async due(everyMs) {
      const { rows } = await sql.run<{ org_id: string }>({ name: 'audit_due', text: DUE, values: [everyMs] });
      return rows.map(({ org_id }) => org_id);
    },

    async checkpoint(orgId, everyMs, sign) {
      return await alone(sql.kysely, orgId, async (transaction) => {
        const end = await readEnd(transaction, orgId);
        if (end === null) return null;
        const { rows } = await raw<{ now: string; is_due: boolean }>`
          select ${raw.raw(utcText('now.at'))} as now,
            not exists (
              select from audit_checkpoints c
              where c.org_id = ${orgId} and (c.position >= ${end.position} or c.at > now.at - ${everyMs}::int * interval '1 ms')
            ) as is_due
          from (select clock_timestamp() as at) now
        `.execute(transaction);
        const [clock] = rows;
        if (clock === undefined || !clock.is_due) return null;
        const checkpoint = sign({ orgId, ...end, at: clock.now });
        const { position, hash, at, kid, signature } = checkpoint;
        await raw`
          insert into audit_checkpoints (org_id, position, hash, at, kid, signature)
          values (${orgId}, ${position}, decode(${hash}, 'hex'), ${at}::timestamptz, ${kid}, decode(${signature}, 'base64'))
        `.execute(transaction);
        return checkpoint;
      });
    },
  };
}

/** Null: another has the org's lock. The lock ends with the transaction, after what it did can be seen. */
async function alone<T>(
  kysely: Kysely<Schema>,
  orgId: string,
  use: (transaction: Transaction<Schema>) => Promise<T>,
): Promise<T | null> {
  return await kysely.transaction().execute(async (transaction) => {
    const { rows } = await raw<{ is_mine: boolean }>`
      select set_config('idle_in_transaction_session_timeout', ${String(SEAL_IDLE_MAX_MS)}, true),
        pg_try_advisory_xact_lock(hashtextextended(${orgId}, ${raw.lit(LOCK_SEED)})) as is_mine
    `.execute(transaction);
    return rows[0]?.is_mine === true ? await use(transaction) : null;
  });
}

interface UnsealedRow {
  entry_id: string;
  activity_id: string;
  kind: string;
  at: string;
  body: string;
}

/** At most SEAL_BATCH_MAX_ENTRIES, and so many that their bodies stay below SEAL_BATCH_MAX_BYTES, but one. */
async function readUnsealed(transaction: Transaction<Schema>, orgId: string): Promise<UnsealedRow[]> {
  const { rows } = await raw<UnsealedRow>`
    select entry_id, activity_id, kind, ${raw.raw(utcText('at'))} as at, body
    from (
      select u.entry_id, e.activity_id, e.kind, e.at, e.body,
        sum(octet_length(e.body)) over (order by u.entry_id) - octet_length(e.body) as bytes_before
      from (
        select entry_id from audit_unsealed
        where org_id = ${orgId} order by entry_id limit ${SEAL_BATCH_MAX_ENTRIES}
      ) u
      join audit_entries e on e.id = u.entry_id and e.org_id = ${orgId}
    ) entry
    where bytes_before < ${SEAL_BATCH_MAX_BYTES}
    order by entry_id
  `.execute(transaction);
  return rows;
}

async function readEnd(transaction: Transaction<Schema>, orgId: string): Promise<ChainEnd | null> {
  const { rows } = await raw<{ position: string; hash: string }>`
    select position, encode(hash, 'hex') as hash from audit_seals where org_id = ${orgId} order by position desc limit 1
  `.execute(transaction);
  const [end] = rows;
  return end === undefined ? null : { position: Number(end.position), hash: end.hash };
}
