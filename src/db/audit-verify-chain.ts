/** The chain of one org as it is stored: every hash from the one before it, every signature, and what is missing between. */
import type pg from 'pg';
import type { Checkpoint, SignatureCheck } from '../access/checkpoint.ts';
import { rowsOf } from './audit-access.ts';
import { chainHash, chainStart, utcText } from './audit-chain.ts';
import type { Findings } from './audit-findings.ts';
import { explain, misfit, SUSPECTS_MAX, type Suspect } from './audit-suspects.ts';
import type { OrgReport, VerifyOptions } from './audit-verify.ts';

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

const LOOSE_CHECKPOINTS = `
select c.position, encode(c.hash, 'hex') as hash, ${utcText('c.at')} as at, c.kid,
  replace(encode(c.signature, 'base64'), E'\\n', '') as signature
from audit_checkpoints c
where c.org_id = $1 and not exists (select from audit_seals s where s.org_id = c.org_id and s.position = c.position)`;

/** Needs a snapshot around it (inSnapshot). */
export async function walkChain(client: pg.Client, { orgId, check, given }: VerifyOptions, findings: Findings) {
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
