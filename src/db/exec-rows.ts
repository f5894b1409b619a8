/** The ExecRows port: how far one exec is, on whichever replica. */
import type { ExecRows } from '../exec/cancel.ts';
import type { Outcome } from '../outcome.ts';
import type { Sql } from './sql.ts';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

export function createExecRows({ kysely }: Sql): ExecRows {
  return {
    async find({ orgId, workspaceId, execId }) {
      if (!UUID.test(execId)) return null;
      const row = await kysely
        .selectFrom('activity_logs')
        .select(['status', 'response_body'])
        .where('id', '=', execId)
        .where('org_id', '=', orgId)
        .where('workspace_id', '=', workspaceId)
        .where('activity_type', '=', 'workspace_exec')
        .executeTakeFirst();
      if (row === undefined) return null;
      return { outcome: row.status === 'running' ? null : (row.response_body?.outcome as Outcome) };
    },
  };
}
