/** The audit log and what runs now, as lists. */
import type { RequestHandler } from 'express';
import { z } from 'zod';
import { SUB_MAX_CHARS } from '../limits.ts';
import { knownCall, workspaceCall } from './call.ts';
import { requireOrg } from './change.ts';
import type { HttpDeps } from './deps.ts';
import { listQuery, sendList } from './lists.ts';
import { textSchema, validate } from './validate.ts';

const STATUSES = ['running', 'ok', 'error', 'timeout', 'cancelled', 'refused', 'interrupted'] as const;
const timeSchema = z
  .union([z.iso.datetime({ offset: true }), z.iso.date()], { error: 'expected an ISO 8601 date, or time with offset' })
  .transform((text) => new Date(text));

export const activityQuery = listQuery.extend({
  type: textSchema(1, 100).optional(),
  status: z.enum(STATUSES).optional(),
  actor: textSchema(1, 'session:'.length + SUB_MAX_CHARS).optional(),
  since: timeSchema.optional(),
  until: timeSchema.optional(),
});

/** The columns of an audit row. Source: contract, section 3. */
const ACTIVITY_COLUMNS = [
  'id',
  'org_id',
  'workspace_id',
  'activity_type',
  'source_id',
  'target_id',
  'method',
  'summary',
  'request_body',
  'response_body',
  'tool_trace',
  'duration_ms',
  'status',
  'error_detail',
  'actor',
  'request_id',
  'replica',
  'created_at',
  'finished_at',
  'seq',
];
const RUNNING_COLUMNS = ['exec_id', 'argv', 'actor', 'started_at', 'outcome'];

/** Of the workspace in the call when there is one, which a workspace token always has; otherwise of the org. */
export function createActivityRoute({ audit }: HttpDeps): RequestHandler {
  return async (req, res) => {
    const { caller, workspace } = knownCall(res);
    const filter = { ...validate(activityQuery, req.query), orgId: requireOrg(res) };
    const workspaceId = workspace?.id ?? caller.workspaceId;
    const page = await audit.list(workspaceId === null ? filter : { ...filter, workspaceId });
    sendList(req, res, { ...page, columns: ACTIVITY_COLUMNS });
  };
}

export function createRunningRoute({ audit }: HttpDeps): RequestHandler {
  return async (req, res) => {
    validate(z.strictObject({}), req.query);
    const { workspace } = workspaceCall(res);
    const running = await audit.running(workspace.orgId, workspace.id);
    sendList(req, res, { items: running.map((exec) => ({ ...exec })), next: null, columns: RUNNING_COLUMNS });
  };
}
