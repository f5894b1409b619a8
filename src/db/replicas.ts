/**
 * The ports of presence and reconciling: who is here, who is over, and the rows that those have left.
 *
 * Every comparison of times is made by the server, of its own times. Statements here look at rows of every org: the
 * gateway asks for itself, and answers no caller with them.
 */
import type { PresenceStore } from '../exec/presence.ts';
import type { Orphan, OrphanStore } from '../exec/reconcile.ts';
import { EXEC_TIER } from '../workspace.ts';
import type { Log } from './log.ts';
import { createRetriedWrites } from './retry.ts';
import type { Sql } from './sql.ts';
import { storableJson } from './storable.ts';
import { toWorkspace, WORKSPACE_COLUMNS, type WorkspaceRow } from './workspace-row.ts';

const BEGIN = `
with gone as (delete from replicas where over_at < now() - interval '1 day')
insert into replicas (id) values ($1) on conflict (id) do nothing`;

/** $2: the longest gap in ms that still counts as steady. */
const RENEW = `
update replicas
set steady_since = case when seen_at < now() - $2::int * interval '1 ms' then now() else steady_since end, seen_at = now()
where id = $1 and over_at is null
returning id`;

const END = 'delete from replicas where id = $1';

/**
 * Only who was here all the while may say that another one was not: after an outage of the database nobody was. Its own
 * last beat is looked at as well, for a jump of the server's clock makes everybody late at once.
 */
const DECLARE = `
update replicas set over_at = now()
where over_at is null and seen_at < now() - $2::int * interval '1 ms'
  and exists (
    select from replicas me
    where me.id = $1 and me.over_at is null
      and me.steady_since < now() - $2::int * interval '1 ms' and me.seen_at > now() - $3::int * interval '1 ms'
  )`;

/**
 * A row whose replica is unknown is old enough to be nobody's: its replica has gone without finishing it.
 * The workspace is found by id alone, also deleted or moved to another org: its host is where the program is. Below the
 * tier for logins only an exec has left one, from before the tier was lowered; anything else had nothing to log in for.
 */
const CLAIM = `
with orphan as (
  select a.id, a.org_id
  from activity_logs a
  left join replicas r on r.id = a.replica
  where a.finished_at is null
    and (r.over_at is not null or (r.id is null and a.created_at < now() - $2::int * interval '1 ms'))
    and not exists (
      select from reaps p join replicas claimer on claimer.id = p.replica
      where p.exec_id = a.id and claimer.over_at is null
    )
  limit $3
), claimed as (
  insert into reaps as p (exec_id, org_id, replica)
  select id, org_id, $1 from orphan
  on conflict (exec_id) do update set replica = excluded.replica
  where not exists (select from replicas claimer where claimer.id = p.replica and claimer.over_at is null)
  returning exec_id, org_id
)
select claimed.exec_id, claimed.org_id as exec_org_id, ${WORKSPACE_COLUMNS.map((column) => `w.${column}`).join(', ')}
from claimed
join activity_logs a on a.id = claimed.exec_id and a.org_id = claimed.org_id
left join workspaces w on w.id = a.workspace_id and w.placed_at <= a.created_at
  and (a.activity_type = 'workspace_exec' or w.tier >= ${EXEC_TIER})`;

const INTERRUPT = `
with given_back as (delete from reaps where exec_id = $1 and org_id = $2)
update activity_logs
set status = 'interrupted', response_body = $3, finished_at = now(),
  error_detail = 'internal: the gateway that ran this died; how the program ended is not known'
where id = $1 and org_id = $2 and status = 'running'`;

type ClaimRow = { exec_id: string; exec_org_id: string } & (WorkspaceRow | { id: null });

export interface Replicas extends PresenceStore, OrphanStore {
  /** Of the presence that this process has now. */
  name(): string;
  /** Nothing is retried any more. */
  close(): void;
}

export function createReplicas(options: { sql: Sql; name: string; maxMs: number; log: Log }): Replicas {
  const { sql, maxMs, log } = options;
  const steadyGapMs = Math.floor(maxMs / 2);
  const writes = createRetriedWrites(log);
  let begun = 0;
  const name = (): string => (begun <= 1 ? options.name : `${options.name}.${begun}`);

  return {
    name,
    async begin() {
      begun += 1;
      await sql.run({ name: 'replica_begin', text: BEGIN, values: [name()] });
    },
    async renew() {
      const { rows } = await sql.run({ name: 'replica_renew', text: RENEW, values: [name(), steadyGapMs] });
      return rows.length > 0;
    },
    async end() {
      await sql.run({ name: 'replica_end', text: END, values: [name()] });
    },

    async claim(limit) {
      await sql.run({ name: 'replica_declare', text: DECLARE, values: [name(), maxMs, steadyGapMs] });
      const { rows } = await sql.run<ClaimRow>({ name: 'orphan_claim', text: CLAIM, values: [name(), maxMs, limit] });
      return rows.map(toOrphan);
    },
    interrupt({ execId, orgId }, { survivors, reaped }) {
      const body = storableJson({ ...NOT_KNOWN, survivors, reaped });
      return writes.add({ execId }, async () => {
        await sql.run({ name: 'orphan_interrupt', text: INTERRUPT, values: [execId, orgId, body] });
      });
    },
    close: () => writes.close(),
  };
}

/** What only the dead gateway could have told. */
const NOT_KNOWN = {
  exit_code: null,
  signal: null,
  outcome: 'interrupted',
  duration_ms: null,
  stdout_bytes: null,
  stderr_bytes: null,
};

function toOrphan(row: ClaimRow): Orphan {
  return {
    execId: row.exec_id,
    orgId: row.exec_org_id,
    workspace: row.id === null ? null : toWorkspace(row),
  };
}
