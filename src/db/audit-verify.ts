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
import { rowsOf } from './audit-access.ts';
import { type ChainedEntry, canonicalText, chainHash, chainStart, utcText } from './audit-chain.ts';

/** Of one org; further ones are counted. */
const FINDINGS_MAX = 1_000;
/** Faulty positions that are tried against each other, with every hash before them: 12 cubed hashes take milliseconds. */
const SUSPECTS_MAX = 12;

export interface Finding {
  kind: 'edited' | 'removed' | 'inserted' | 'swapped' | 'forged';
  activity_id: string | null;
  position: number | null;
  detail: string;
}

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

interface SealRow {
  position: string;
  hash: string;
  sealed_activity: string;
  entry_id: string;
  id: string | null;
  org_id: string;
  activity_id: string;
  kind: string;
  at: string;
  body: string;
  checkpoint_hash: string | null;
  checkpoint_at: string;
  checkpoint_kid: string;
  checkpoint_signature: string;
}

/** A chain with its entries and checkpoints, where they are there. */
const SEALED = `
select s.position, encode(s.hash, 'hex') as hash, s.activity_id as sealed_activity, s.entry_id,
  e.id, e.org_id, e.activity_id, e.kind, ${utcText('e.at')} as at, e.body,
  encode(c.hash, 'hex') as checkpoint_hash, ${utcText('c.at')} as checkpoint_at, c.kid as checkpoint_kid,
  replace(encode(c.signature, 'base64'), E'\\n', '') as checkpoint_signature
from audit_seals s
left join audit_entries e on e.id = s.entry_id
left join audit_checkpoints c on c.org_id = s.org_id and c.position = s.position
where s.org_id = $1`;

/** Every row of the org beside its last entry, where one of them is missing or they differ; and entries too many. */
const DIFFERENCES = `
with entry as (
  select e.id, e.activity_id, e.kind, e.body, s.position
  from audit_seals s join audit_entries e on e.id = s.entry_id where s.org_id = $1
  union all
  select e.id, e.activity_id, e.kind, e.body, null
  from audit_unsealed u join audit_entries e on e.id = u.entry_id where u.org_id = $1
), last as (
  select distinct on (activity_id) activity_id, position, sha256(convert_to(body, 'UTF8')) as digest
  from entry order by activity_id, id desc
), tally as (
  select activity_id, count(*) filter (where kind = 'opened') as opened, count(*) filter (where kind = 'finished') as finished
  from entry group by activity_id
), activity as (
  select a.id, a.seq, sha256(convert_to(${canonicalText('a')}, 'UTF8')) as digest from activity_logs a where a.org_id = $1
)
select coalesce(activity.id, last.activity_id) as activity_id, last.position, activity.id is not null as has_row,
  last.activity_id is not null as has_entry, activity.digest = last.digest as same, tally.opened, tally.finished,
  coalesce(activity.seq <= (select seq from audit_beginning), false) as is_older
from activity full join last on last.activity_id = activity.id
left join tally on tally.activity_id = last.activity_id
where activity.digest is distinct from last.digest or tally.opened > 1 or tally.finished > 1`;

interface DifferenceRow {
  activity_id: string;
  position: string | null;
  has_row: boolean;
  has_entry: boolean;
  same: boolean | null;
  opened: string | null;
  finished: string | null;
  is_older: boolean;
}

const STRAYS = `
select e.id, e.activity_id from audit_entries e
where e.org_id = $1
  and not exists (select from audit_seals s where s.entry_id = e.id)
  and not exists (select from audit_unsealed u where u.org_id = e.org_id and u.entry_id = e.id)`;

const LOST = `
select u.entry_id from audit_unsealed u
where u.org_id = $1 and not exists (select from audit_entries e where e.id = u.entry_id)`;

const LOOSE_CHECKPOINTS = `
select c.position, encode(c.hash, 'hex') as hash, ${utcText('c.at')} as at, c.kid,
  replace(encode(c.signature, 'base64'), E'\\n', '') as signature
from audit_checkpoints c
where c.org_id = $1 and not exists (select from audit_seals s where s.org_id = c.org_id and s.position = c.position)`;

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

interface Findings {
  readonly list: Finding[];
  total(): number;
  add(kind: Finding['kind'], where: { activityId?: string | null; position?: number | null }, detail: string): void;
}

function createFindings(): Findings {
  const list: Finding[] = [];
  let total = 0;
  return {
    list,
    total: () => total,
    add(kind, { activityId = null, position = null }, detail) {
      total += 1;
      if (list.length < FINDINGS_MAX) list.push({ kind, activity_id: activityId, position, detail });
    },
  };
}

/** A seal whose hash does not follow from what stands before it. */
interface Suspect {
  position: number;
  stored: string;
  previous: string;
  entry: ChainedEntry;
}

async function walkChain(client: pg.Client, { orgId, check, given }: VerifyOptions, findings: Findings) {
  const suspects: Suspect[] = [];
  const checkpoints = { good: 0, last_position: null as number | null, given: 0 };
  const unknownKids = new Set<string>();
  let sealed: OrgReport['sealed'] = null;
  let entries = 0;
  /** Null: what stands before is not there. */
  let previous: string | null = chainStart(orgId);

  function checkSignature(checkpoint: Checkpoint): boolean {
    const { position, kid } = checkpoint;
    const verdict = check === null ? 'unchecked' : check(checkpoint);
    if (verdict === 'bad') findings.add('forged', { position }, 'the signature of its checkpoint is wrong');
    if (verdict === 'unknown key') unknownKids.add(kid);
    return verdict === 'good';
  }

  /** Whether a checkpoint stands here whose signature is good and whose hash is the seal's. */
  function readCheckpoint(row: SealRow, position: number): boolean {
    if (row.checkpoint_hash === null) return false;
    const { checkpoint_hash: hash, checkpoint_at: at, checkpoint_kid: kid, checkpoint_signature: signature } = row;
    const isGood = checkSignature({ orgId, position, hash, at, kid, signature });
    if (hash !== row.hash) {
      findings.add('edited', { position }, 'the chain up to here is not the one that its checkpoint says');
      return false;
    }
    if (isGood) {
      checkpoints.good += 1;
      checkpoints.last_position = position;
    }
    return isGood;
  }

  function readEntry(row: SealRow, position: number): void {
    const { activity_id: activityId, entry_id: entryId, kind, at, body } = row;
    if (row.id === null) {
      const detail = `its entry ${entryId} is gone from audit_entries`;
      findings.add('removed', { activityId: row.sealed_activity, position }, detail);
      return;
    }
    entries += 1;
    if (row.org_id !== orgId)
      findings.add('edited', { activityId, position }, `entry ${entryId} was given to another org`);
    if (previous === null) return;
    const entry = { position, entryId, activityId, kind, at, body };
    if (chainHash(previous, entry) === row.hash) return;
    if (suspects.length < SUSPECTS_MAX) suspects.push({ position, stored: row.hash, previous, entry });
    else findings.add('edited', { activityId, position }, misfit(entry));
  }

  for await (const row of rowsOf<SealRow>(client, `${SEALED} order by s.position`, [orgId])) {
    const position = Number(row.position);
    const last: number = sealed === null ? 0 : sealed.to;
    const isSigned = readCheckpoint(row, position);
    const isStart: boolean = sealed === null && position > 1;
    if (isStart && !isSigned) {
      const why =
        check === null ? 'whether a signed checkpoint starts it was not checked' : 'no signed checkpoint starts it';
      findings.add('removed', { position: position - 1 }, `the chain begins at position ${position}, and ${why}`);
    }
    if (!isStart && position !== last + 1) {
      const detail =
        position === last + 2 ? 'this position is gone' : `positions ${last + 1} to ${position - 1} are gone`;
      findings.add('removed', { position: last + 1 }, detail);
      previous = null;
    }
    // The seal at which a chain was pruned is kept without its entry.
    if (!isStart) readEntry(row, position);
    if (given?.position === position && given.hash !== row.hash)
      findings.add('edited', { position }, 'the chain up to here is not the one that the given checkpoint says');
    if (given?.position === position) checkpoints.given = position;
    sealed = { from: sealed === null ? position : sealed.from, to: position };
    previous = row.hash;
  }
  explain(suspects, findings);

  const end = sealed === null ? 0 : (sealed as { from: number; to: number }).to;
  const loose = await client.query<{ position: string; hash: string; at: string; kid: string; signature: string }>(
    LOOSE_CHECKPOINTS,
    [orgId],
  );
  for (const row of loose.rows) {
    const position = Number(row.position);
    checkSignature({ ...row, orgId, position });
    findings.add('removed', { position }, `a checkpoint was made at this position; the chain ends at ${end}`);
  }
  if (given !== null && given.position > end) {
    const detail = `the given checkpoint was made at this position; the chain ends at ${end}`;
    findings.add('removed', { position: given.position }, detail);
  }
  const notChecked = notCheckedOf({ check, sealed, given, checkpoints, unknownKids });
  return { sealed, entries, checkpoints, notChecked };
}

function notCheckedOf(facts: {
  check: SignatureCheck | null;
  sealed: OrgReport['sealed'];
  given: Checkpoint | null;
  checkpoints: OrgReport['checkpoints'];
  unknownKids: ReadonlySet<string>;
}): string[] {
  const { check, sealed, given, checkpoints, unknownKids } = facts;
  const said: string[] = [];
  if (check === null)
    said.push('signatures: no key was given, so whoever may write to the database may have made this chain');
  for (const kid of unknownKids) said.push(`signatures of the key ${kid}: its public key was not given`);
  if (check !== null && sealed !== null && checkpoints.last_position === null)
    said.push('the chain as a whole: no checkpoint that is signed by a given key stands in it yet');
  if (given !== null && sealed !== null && given.position < sealed.from)
    said.push(`the given checkpoint: position ${given.position} was pruned`);
  return said;
}

/**
 * What became of the entries that do not fit where they stand: one that fits at another suspect's position, whatever
 * hashes were moved, was moved there from here. What fits nowhere was edited.
 */
function explain(suspects: readonly Suspect[], findings: Findings): void {
  for (const suspect of suspects) {
    const { position, entry } = suspect;
    const home = homeOf(suspect, suspects);
    // Only what stands before it was changed, and that is a suspect itself.
    if (home === position) continue;
    const where = { activityId: entry.activityId, position };
    if (home === null) findings.add('edited', where, misfit(entry));
    else
      findings.add('swapped', where, `entry ${entry.entryId} was sealed at position ${home} and stands at ${position}`);
  }
}

function misfit({ entryId, position }: ChainedEntry): string {
  return `entry ${entryId} does not follow from position ${position - 1}: it, or a seal beside it, is not what was sealed`;
}

/** The position at which one of the hashes that are stored was made of this entry. */
function homeOf({ entry }: Suspect, suspects: readonly Suspect[]): number | null {
  const stored = new Set(suspects.map((suspect) => suspect.stored));
  // Also what should have been stored before it.
  const computed = suspects.map((suspect) => chainHash(suspect.previous, suspect.entry));
  for (const { position, previous, entry: there } of suspects) {
    // Rows may have changed their ids, or the rest of what they say.
    for (const entryId of new Set([entry.entryId, there.entryId])) {
      const moved = { ...entry, position, entryId };
      if ([previous, ...stored, ...computed].some((before) => stored.has(chainHash(before, moved)))) return position;
    }
  }
  return null;
}

async function compareRows(client: pg.Client, orgId: string, findings: Findings) {
  let before = 0;
  let differing = 0;
  for await (const row of rowsOf<DifferenceRow>(client, DIFFERENCES, [orgId])) {
    const where = { activityId: row.activity_id, position: row.position === null ? null : Number(row.position) };
    if (!row.has_entry && row.is_older) {
      before += 1;
      continue;
    }
    if (row.has_row) differing += 1;
    if (!row.has_entry) findings.add('inserted', where, 'this row of activity_logs has no entry');
    else if (!row.has_row) findings.add('removed', where, 'its row is gone from activity_logs');
    else if (row.same !== true)
      findings.add('edited', where, 'its row in activity_logs is not what its last entry says');
    if (Number(row.opened) > 1 || Number(row.finished) > 1)
      findings.add('inserted', where, `it has ${row.opened} entries of its beginning and ${row.finished} of its end`);
  }
  return { before, differing };
}

async function findStrays(client: pg.Client, orgId: string, findings: Findings): Promise<void> {
  for await (const { id, activity_id } of rowsOf<{ id: string; activity_id: string }>(client, STRAYS, [orgId]))
    findings.add('inserted', { activityId: activity_id }, `entry ${id} is neither sealed nor waits for it`);
  for await (const { entry_id } of rowsOf<{ entry_id: string }>(client, LOST, [orgId]))
    findings.add('removed', {}, `entry ${entry_id} was to be sealed and is gone`);
}
