/** The Directory port: what stands of a caller's rights, in one query on the way of every request. */
import type { Directory, Standing, StandingQuery } from '../access/access.ts';
import { createBatch } from './batch.ts';
import { isRefusal, type Sql } from './sql.ts';
import { storableJson } from './storable.ts';
import { toWorkspace, WORKSPACE_COLUMNS, type WorkspaceRow } from './workspace-row.ts';

/**
 * A foreign, an unknown and a deleted workspace take the same way through it: a row is found by its primary key or not,
 * and then has to fit. Written so that the planner has no choice but the primary keys (`limit 1` keeps the other conditions
 * and joins out): what it believes of the tables' sizes when a connection is new would be kept for the connection's life.
 *
 * The expiry of a token is not looked at: it is in the token itself, and this is also asked about execs that run past it.
 */
const STANDING = `
select
  asked.n, t.id is not null as token_known, t.revoked_at is not null as token_revoked,
  p.sub is not null as person_frozen, o.id as o_id, o.name as o_name, o.frozen as o_frozen,
  ${WORKSPACE_COLUMNS.map((column) => `w.${column}`).join(', ')}
from json_to_recordset($1::json) as asked (n integer, org_id text, jti text, sub text, workspace_id text)
left join lateral (select * from tokens where id = asked.jti limit 1) t on t.org_id = asked.org_id
left join lateral (select sub from frozen_people where org_id = asked.org_id and sub = asked.sub limit 1) p on true
left join lateral (select * from workspaces where id = asked.workspace_id limit 1) w
  on w.org_id = coalesce(asked.org_id, w.org_id) and w.deleted_at is null
left join lateral (select * from orgs where id = coalesce(asked.org_id, w.org_id) limit 1) o on true`;

interface StandingRow {
  n: number;
  token_known: boolean;
  token_revoked: boolean;
  person_frozen: boolean;
  o_id: string | null;
  o_name: string;
  o_frozen: boolean;
}

export function createDirectory(sql: Sql): Directory {
  const ask = createBatch<StandingQuery, Standing>({
    run: (queries) => readStanding(sql, queries),
    mayDivide: isRefusal,
  });
  return { standing: ask };
}

async function readStanding(sql: Sql, queries: readonly StandingQuery[]): Promise<Standing[]> {
  const asked = queries.map(({ orgId, jti, sub, workspaceId }, n) => ({
    ...{ n, org_id: orgId, jti, sub, workspace_id: workspaceId },
  }));
  const { rows } = await sql.run<StandingRow & (WorkspaceRow | { id: null })>({
    name: 'standing',
    text: STANDING,
    values: [storableJson(asked)],
  });
  const byNumber = new Map(rows.map((row) => [row.n, row]));
  return queries.map(({ jti }, n) => {
    const row = byNumber.get(n);
    if (row === undefined) throw new Error('bug: the standing query left somebody out');
    return {
      token: jti === null ? 'none' : tokenState(row),
      org: row.o_id === null ? null : { id: row.o_id, name: row.o_name, frozen: row.o_frozen },
      personFrozen: row.person_frozen,
      workspace: row.id === null ? null : toWorkspace(row),
    };
  });
}

function tokenState(row: StandingRow): 'active' | 'revoked' | 'unknown' {
  if (!row.token_known) return 'unknown';
  return row.token_revoked ? 'revoked' : 'active';
}
