/**
 * Verification of the evidence of one org: recomputes its chain, checks signatures, compares every row with its last entry.
 *
 * It trusts the database for nothing but its own rows: hashes and signatures are computed here, and the text of a row by
 * an expression of ours, not by the function that wrote it. Each hash is computed from the hash that is stored before it,
 * so that one changed entry is one finding and not all that follow; a chain that was computed anew from some entry on is
 * found at the next checkpoint. Decision: what was not checked is said beside what was found, and neither is success.
 *
 * Memory: one batch of rows, the findings up to FINDINGS_MAX, and the few faulty entries that are looked at together.
 */
import type pg from 'pg';
import type { Checkpoint, SignatureCheck } from '../access/checkpoint.ts';
import { utcText } from './audit-chain.ts';
import { createFindings, type Finding } from './audit-findings.ts';
import { walkChain } from './audit-verify-chain.ts';
import { compareRows, findStrays } from './audit-verify-rows.ts';

export interface OrgReport {
  org_id: string;
  /** Null: nothing is sealed. `from` above 1: what was before has been pruned. */
  sealed: { from: number; to: number } | null;
  entries_checked: number;
  activities_checked: number;
  unsealed: { entries: number; oldest_at: string | null };
  /** Rows from before there was evidence: nothing can be said of them. */
  before_evidence: number;
  checkpoints: { good: number; last_position: number | null; given: number };
  findings: Finding[];
  findings_total: number;
  /** Sentences; empty when everything could be checked. */
  not_checked: string[];
}

export interface VerifyOptions {
  orgId: string;
  /** Null: no key, so no signature is checked. */
  check: SignatureCheck | null;
  /** The newest checkpoint of this org from outside of the database, its signature found good; null: none was given. */
  given: Checkpoint | null;
}

const COUNTS = `
select (select count(*) from activity_logs where org_id = $1) as activities,
  (select count(*) from audit_unsealed where org_id = $1) as unsealed,
  (select ${utcText('min(e.at)')} from audit_unsealed u join audit_entries e on e.id = u.entry_id where u.org_id = $1) as oldest`;

/** Every org that anything here knows of. */
export async function orgsWithAudit(client: pg.Client): Promise<string[]> {
  const tables = ['activity_logs', 'audit_entries', 'audit_unsealed', 'audit_seals', 'audit_checkpoints'];
  const text = tables.map((table) => `select org_id from ${table}`).join(' union ');
  const { rows } = await client.query<{ org_id: string }>(
    `select org_id from (${text}) org order by org_id collate "C"`,
  );
  return rows.map(({ org_id }) => org_id);
}

/** Needs a snapshot around it (inSnapshot). */
export async function verifyOrg(client: pg.Client, options: VerifyOptions): Promise<OrgReport> {
  const { orgId } = options;
  const findings = createFindings();
  const chain = await walkChain(client, options, findings);
  const { before, differing } = await compareRows(client, orgId, findings);
  await findStrays(client, orgId, findings);
  const { rows } = await client.query<{ activities: string; unsealed: string; oldest: string | null }>(COUNTS, [orgId]);
  const [counts] = rows;
  return {
    org_id: orgId,
    sealed: chain.sealed,
    entries_checked: chain.entries,
    activities_checked: Number(counts?.activities ?? 0) - before - differing,
    unsealed: { entries: Number(counts?.unsealed ?? 0), oldest_at: counts?.oldest ?? null },
    before_evidence: before,
    checkpoints: chain.checkpoints,
    findings: findings.list,
    findings_total: findings.total(),
    not_checked: chain.notChecked,
  };
}
