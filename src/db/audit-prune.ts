/**
 * Retention: deletes old rows of one org with their evidence, up to a signed checkpoint, which then starts the chain.
 *
 * First everything is verified: deleting from a chain that does not hold would delete the evidence of that. The checkpoint
 * is the last one below which no row is to stay; a row that still runs stays, and what stands above it. The deletion
 * itself is a row of activity_logs, in the same transaction, so the chain that goes on tells of it.
 */
import type pg from 'pg';
import type { SignatureCheck } from '../access/checkpoint.ts';
import { inSnapshot } from './audit-access.ts';
import { CHAIN_LOCK_ID } from './audit-seals.ts';
import { type OrgReport, verifyOrg } from './audit-verify.ts';

/** `position`: where the chain starts afterwards. */
interface Pruned {
  position: number;
  activities: number;
  entries: number;
}

interface Verdict {
  org_id: string;
  /** Refused: there is something that old, and it may not be deleted. */
  refused: boolean;
  /** Null where there is something to delete. */
  reason: string | null;
}

export interface PrunePlan extends Verdict {
  would_prune: Pruned | null;
}

export interface PruneResult extends Verdict {
  /** Null: nothing was deleted, `reason` says why. */
  pruned: Pruned | null;
}

export interface PruneOptions {
  orgId: string;
  before: Date;
  check: SignatureCheck;
}

/** Where each row has its last entry in the chain, and which rows have one that waits to be sealed. */
const LAST_AND_WAITING = `
last as (
  select e.activity_id, max(s.position) as position
  from audit_seals s join audit_entries e on e.id = s.entry_id where s.org_id = $1 group by e.activity_id
), waiting as (
  select e.activity_id from audit_unsealed u join audit_entries e on e.id = u.entry_id where u.org_id = $1
)`;

/** The newest checkpoint that no row that is to stay has its last entry at or below. */
const CANDIDATE = `
with ${LAST_AND_WAITING}, kept as (
  select last.position, a.id, a.status from last join activity_logs a on a.id = last.activity_id and a.org_id = $1
  where (a.finished_at is null or a.finished_at >= $2) and a.id not in (select activity_id from waiting)
  order by last.position limit 1
)
select (
    select max(c.position) from audit_checkpoints c join audit_seals s using (org_id, position, hash)
    where c.org_id = $1 and c.position > (select min(position) from audit_seals where org_id = $1)
      and c.position < coalesce((select position from kept), 9223372036854775807)
  ) as position,
  (select count(*)::int from activity_logs where org_id = $1 and finished_at < $2) as old_rows,
  (select id from kept where status = 'running') as running`;

interface CandidateRow {
  position: string | null;
  old_rows: number;
  running: string | null;
}

/** How much audit_prune (migrations/0008-evidence.sql) deletes at position $3. */
const EXTENT = `
with ${LAST_AND_WAITING}, pruned as (
  select activity_id as id from last where position <= $3 and activity_id not in (select activity_id from waiting)
  union
  select a.id from activity_logs a
  where a.org_id = $1 and a.finished_at < $2 and a.seq <= (select seq from audit_beginning)
    and a.id not in (select activity_id from last) and a.id not in (select activity_id from waiting)
)
select (select count(*)::int from activity_logs a join pruned using (id) where a.org_id = $1) as activities,
  (select count(*)::int from audit_entries e join audit_seals s on s.entry_id = e.id
    where s.org_id = $1 and s.position <= $3) as entries`;

/** What a prune would do now. Reads in a transaction in which the server lets nothing be written; selecting is enough. */
export async function planPrune(client: pg.Client, options: PruneOptions): Promise<PrunePlan> {
  const { orgId, before, check } = options;
  const nothing = (refused: boolean, reason: string) => ({ org_id: orgId, would_prune: null, refused, reason });
  return await inSnapshot(client, async () => {
    const report = await verifyOrg(client, { orgId, check, given: null });
    const [candidate] = (await client.query<CandidateRow>(CANDIDATE, [orgId, before])).rows;
    if (candidate === undefined || candidate.old_rows === 0) return nothing(false, 'no row is that old');
    const fault = faultOf(report);
    if (fault !== null) return nothing(true, `${fault}; see \`sallyport audit verify --org ${orgId}\``);
    if (candidate.position === null) return nothing(true, noCheckpoint(candidate));
    const position = Number(candidate.position);
    const { rows } = await client.query<Omit<Pruned, 'position'>>(EXTENT, [orgId, before, position]);
    const { activities = 0, entries = 0 } = rows[0] ?? {};
    return { org_id: orgId, would_prune: { position, activities, entries }, refused: false, reason: null };
  });
}

/** Needs the role that migrates. */
export async function pruneOrg(client: pg.Client, options: PruneOptions): Promise<PruneResult> {
  const { org_id, would_prune: planned, refused, reason } = await planPrune(client, options);
  const pruned = planned === null ? null : await prune(client, options, planned.position);
  return { org_id, pruned, refused, reason };
}

function noCheckpoint({ running }: CandidateRow): string {
  const behind = running === null ? '' : `; activity ${running} still runs, and what was sealed after it stays`;
  return `no signed checkpoint stands between what may be deleted and what stays${behind}`;
}

function faultOf({ findings_total, not_checked }: OrgReport): string | null {
  if (findings_total > 0) return `its evidence has ${findings_total} faults, and deleting would hide them`;
  return not_checked[0] === undefined ? null : `not everything could be checked: ${not_checked[0]}`;
}

async function prune(client: pg.Client, { orgId, before }: PruneOptions, position: number): Promise<Pruned> {
  await client.query('begin');
  try {
    await client.query(`select pg_advisory_xact_lock(${CHAIN_LOCK_ID})`, [orgId]);
    const { rows } = await client.query<{ activities: string; entries: string }>(
      'select activities, entries from audit_prune($1, $2, $3)',
      [orgId, position, before],
    );
    const activities = Number(rows[0]?.activities);
    const summary = `deleted ${activities} rows finished before ${before.toISOString()}, up to position ${position}`;
    await client.query(TELL, [orgId, summary, JSON.stringify({ before, position, activities })]);
    await client.query('commit');
    return { position, activities, entries: Number(rows[0]?.entries) };
  } catch (error) {
    await client.query('rollback');
    throw error;
  }
}

const TELL = `
insert into activity_logs
  (id, org_id, activity_type, method, summary, request_body, actor, request_id, replica, status, finished_at)
values (gen_random_uuid(), $1, 'audit_prune', 'audit prune', $2, $3, 'operator', gen_random_uuid()::text, 'audit prune', 'ok', now())`;
