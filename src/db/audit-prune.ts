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

export interface PruneResult {
  org_id: string;
  /** Null: nothing was deleted, `reason` says why. */
  pruned: { position: number; activities: number; entries: number } | null;
  /** Refused: there is something that old, and it may not be deleted. */
  refused: boolean;
  reason: string | null;
}

export interface PruneOptions {
  orgId: string;
  before: Date;
  check: SignatureCheck;
}

/** The newest checkpoint that no row that is to stay has its last entry at or below; and what there is to delete. */
const CANDIDATE = `
with last as (
  select e.activity_id, max(s.position) as position
  from audit_seals s join audit_entries e on e.id = s.entry_id where s.org_id = $1 group by e.activity_id
), waiting as (
  select e.activity_id from audit_unsealed u join audit_entries e on e.id = u.entry_id where u.org_id = $1
), kept as (
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

export async function pruneOrg(client: pg.Client, options: PruneOptions): Promise<PruneResult> {
  const { orgId, before, check } = options;
  const { report, candidate } = await inSnapshot(client, async () => ({
    report: await verifyOrg(client, { orgId, check, given: null }),
    candidate: (await client.query<CandidateRow>(CANDIDATE, [orgId, before])).rows[0],
  }));
  const refuse = (reason: string): PruneResult => ({ org_id: orgId, pruned: null, refused: true, reason });
  if (candidate === undefined || candidate.old_rows === 0)
    return { org_id: orgId, pruned: null, refused: false, reason: 'no row is that old' };
  const fault = faultOf(report);
  if (fault !== null) return refuse(`${fault}; see \`sallyport audit verify --org ${orgId}\``);
  if (candidate.position === null) {
    const { running } = candidate;
    const behind = running === null ? '' : `; activity ${running} still runs, and what was sealed after it stays`;
    return refuse(`no signed checkpoint stands between what may be deleted and what stays${behind}`);
  }
  return {
    org_id: orgId,
    refused: false,
    reason: null,
    pruned: await prune(client, options, Number(candidate.position)),
  };
}

function faultOf({ findings_total, not_checked }: OrgReport): string | null {
  if (findings_total > 0) return `its evidence has ${findings_total} faults, and deleting would hide them`;
  return not_checked[0] === undefined ? null : `not everything could be checked: ${not_checked[0]}`;
}

async function prune(client: pg.Client, { orgId, before }: PruneOptions, position: number) {
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
