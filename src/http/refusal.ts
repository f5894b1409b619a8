/**
 * The last handlers of the app: whatever a gate or a route threw becomes a row or part of the log line, then the answer.
 *
 * After authentication a refusal is an audit row in the caller's own org, whatever org was asked for; before it there
 * is no org to write in, and a stranger must not be able to fill a tenant's log, so the request's log line has to do.
 */
import type { ErrorRequestHandler, Request, RequestHandler, Response } from 'express';
import { notFound } from '../access/tenant.ts';
import { asSallyportError, type ErrorCode, SallyportError } from '../errors.ts';
import { callOf } from './call.ts';
import type { HttpDeps } from './deps.ts';
import { sendProblem, statusOf } from './problem.ts';

/** A gate said no although nothing is wrong with the request. */
const REFUSALS_WITH_5XX: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['draining', 'capacity']);

/** An IPv6 address with a zone. */
const IP_MAX_CHARS = 64;

export const unknownRoute: RequestHandler = () => {
  throw notFound();
};

export function createErrorHandler(deps: HttpDeps): ErrorRequestHandler {
  // Four parameters make it an error handler in Express.
  return async (raw: unknown, req, res, _next) => {
    const error = explain(raw);
    const isRefusal = statusOf(error.code) < 500 || REFUSALS_WITH_5XX.has(error.code);
    if (isRefusal) await recordRefusal(deps, { error, req, res });
    else deps.log.error({ err: raw, request_id: callOf(res).requestId, method: methodOf(req) }, 'request failed');
    const isExec = isRefusal && callOf(res).activity === 'workspace_exec';
    if (isExec) callOf(res).outcome = 'refused';
    await sendProblem(res, error, isExec ? { outcome: 'refused' } : {});
  };
}

/** Method and route as audit rows name them; ids stay in their own columns. */
export function methodOf(req: Request): string {
  return `${req.method} ${req.route?.path ?? '(no route)'}`;
}

async function recordRefusal(
  deps: HttpDeps,
  { error, req, res }: { error: SallyportError; req: Request; res: Response },
): Promise<void> {
  const call = callOf(res);
  const { caller, orgId, workspace, activity, askedWorkspaceId, requestId } = call;
  const ownOrg = caller?.orgId ?? workspace?.orgId ?? orgId;
  if (caller === null || ownOrg === null || error.code === 'unauthenticated') {
    // Why an authentication failed is for the operator only; the caller gets one text for every reason.
    const reason = error.cause === undefined ? error.message : String(error.cause);
    // Where every proxy is trusted, the address is what the caller says it is.
    call.unrecorded = { reason, ip: req.ip?.slice(0, IP_MAX_CHARS) };
    return;
  }
  await deps.audit.refused({
    orgId: ownOrg,
    workspaceId: askedWorkspaceId,
    actor: caller.actor,
    requestId,
    method: methodOf(req),
    code: error.code,
    message: error.message,
    activityType: activity,
  });
}

/** Express throws its own for a path that does not decode; they carry a status. */
function explain(raw: unknown): SallyportError {
  const isBadPath = raw instanceof URIError && 'status' in raw && raw.status === 400;
  return isBadPath
    ? new SallyportError('invalid_request', 'the path is not valid percent-encoded UTF-8', { cause: raw })
    : asSallyportError(raw);
}
