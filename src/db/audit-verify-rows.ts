/** The rows of one org beside the entries that tell of them, and entries that stand nowhere. */
import type pg from 'pg';
import { rowsOf } from './audit-access.ts';
import { canonicalText } from './audit-chain.ts';
import type { Findings } from './audit-findings.ts';

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

/** `before`: rows from before there was evidence; `differing`: rows that were found wrong. Needs a snapshot around it. */
export async function compareRows(client: pg.Client, orgId: string, findings: Findings) {
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

/** Entries without a place in chain or queue, and places without an entry. Needs a snapshot around it. */
export async function findStrays(client: pg.Client, orgId: string, findings: Findings): Promise<void> {
  for await (const { id, activity_id } of rowsOf<{ id: string; activity_id: string }>(client, STRAYS, [orgId]))
    findings.add('inserted', { activityId: activity_id }, `entry ${id} is neither sealed nor waits for it`);
  for await (const { entry_id } of rowsOf<{ entry_id: string }>(client, LOST, [orgId]))
    findings.add('removed', {}, `entry ${entry_id} was to be sealed and is gone`);
}
