/** The Directory port: what stands of a caller's rights, in one query on the way of every request. */
import type { Directory, Standing } from '../access/access.ts';
import type { Sql } from './sql.ts';
import { storableText } from './storable.ts';
import { toWorkspace, WORKSPACE_COLUMNS, type WorkspaceRow } from './workspace-row.ts';

/**
 * $1 org (null: admin), $2 jti, $3 workspace. A foreign, an unknown and a deleted workspace take the same way through it:
 * the row is found by its primary key or not, and then has to fit. The expiry of a token is not looked at: it is in the
 * token itself, and this query is also asked about execs that run on past it.
 */
const STANDING = `
select
  t.id is not null as token_known, t.revoked_at is not null as token_revoked,
  o.id as o_id, o.name as o_name, o.frozen as o_frozen,
  ${WORKSPACE_COLUMNS.map((column) => `w.${column}`).join(', ')}
from (select $1::text as org_id, $2::text as jti, $3::text as workspace_id) asked
left join tokens t on t.id = asked.jti and t.org_id = asked.org_id
left join workspaces w
  on w.id = asked.workspace_id and w.org_id = coalesce(asked.org_id, w.org_id) and w.deleted_at is null
left join orgs o on o.id = coalesce(asked.org_id, w.org_id)`;

interface StandingRow {
  token_known: boolean;
  token_revoked: boolean;
  o_id: string | null;
  o_name: string;
  o_frozen: boolean;
}

export function createDirectory(sql: Sql): Directory {
  return {
    async standing({ orgId, jti, workspaceId }): Promise<Standing> {
      const { rows } = await sql.run<StandingRow & (WorkspaceRow | { id: null })>({
        name: 'standing',
        text: STANDING,
        // An id with a NUL in it is as unknown as any other.
        values: [orgId, jti, workspaceId].map((id) => id && storableText(id)),
      });
      const [row] = rows;
      if (row === undefined) throw new Error('bug: the standing query gave no row');
      return {
        token: jti === null ? 'none' : tokenState(row),
        org: row.o_id === null ? null : { id: row.o_id, name: row.o_name, frozen: row.o_frozen },
        workspace: row.id === null ? null : toWorkspace(row),
      };
    },
  };
}

function tokenState(row: StandingRow): 'active' | 'revoked' | 'unknown' {
  if (!row.token_known) return 'unknown';
  return row.token_revoked ? 'revoked' : 'active';
}
