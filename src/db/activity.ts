/**
 * The ActivityReader port: pages of the audit log, and what runs now.
 *
 * A caller who has just read its terminal frame finds its finished row: reading waits for the closes that this process
 * has under way, for a moment.
 */
import type { Selectable } from 'kysely';
import type { ActivityFilter, ActivityReader, ActivityRow, AuditLog } from '../audit.ts';
import type { AuditStatus } from '../outcome.ts';
import { decodeCursor, encodeCursor, pageOf } from './cursor.ts';
import type { ActivityTable } from './schema.ts';
import type { Sql } from './sql.ts';
import { storableText } from './storable.ts';

/** Longer than a write takes, shorter than anybody minds. */
const CLOSES_MAX_MS = 1_000;

export function createActivityReader({ kysely }: Sql, closes: Pick<AuditLog, 'flush'>): ActivityReader {
  const readOwnWrites = (): Promise<void> => closes.flush(AbortSignal.timeout(CLOSES_MAX_MS));
  return {
    /** By seq, not by time: a page ends at a row, and rows that come meanwhile are newer than every page. */
    async list(filter) {
      await readOwnWrites();
      const rows = await kysely
        .selectFrom('activity_logs')
        .selectAll()
        .where('org_id', '=', filter.orgId)
        .where((where) => where.and(conditions(filter)))
        .$if(filter.since !== undefined, (query) => query.where('created_at', '>=', filter.since ?? new Date(0)))
        .$if(filter.until !== undefined, (query) => query.where('created_at', '<', filter.until ?? new Date(0)))
        .$if(filter.after !== undefined, (query) => query.where('seq', '<', decodeCursor('seq', filter.after ?? '')))
        .orderBy('seq', 'desc')
        .limit(filter.limit + 1)
        .execute();
      return pageOf(rows, filter.limit, { item: toActivity, cursor: (row) => encodeCursor('seq', row.seq) });
    },

    async running(orgId, workspaceId) {
      await readOwnWrites();
      const rows = await kysely
        .selectFrom('activity_logs')
        .select(['id', 'request_body', 'actor', 'created_at'])
        .where('org_id', '=', orgId)
        .where('workspace_id', '=', workspaceId)
        .where('activity_type', '=', 'workspace_exec')
        .where('finished_at', 'is', null)
        .orderBy('seq', 'desc')
        .execute();
      return rows.map((row) => ({
        exec_id: row.id,
        argv: row.request_body?.argv as string[],
        actor: row.actor,
        started_at: row.created_at.toISOString(),
        outcome: null,
      }));
    },
  };
}

/** The filters that ask for equality. */
function conditions(filter: ActivityFilter): Record<string, string> {
  const { workspaceId, type, status, actor } = filter;
  const asked = { workspace_id: workspaceId, activity_type: type, status: status as AuditStatus, actor };
  const given = Object.entries(asked).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return Object.fromEntries(given.map(([column, value]) => [column, storableText(value)]));
}

function toActivity(row: Selectable<ActivityTable>): ActivityRow {
  return { ...row, created_at: row.created_at.toISOString(), finished_at: row.finished_at?.toISOString() ?? null };
}
