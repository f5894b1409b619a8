/**
 * One log line and one count per finished request; nothing of its headers, body, argv or output.
 *
 * A caller who hangs up finishes the request as well. Trace ids of others are taken over (W3C Trace Context) so that a
 * line can be found from the caller's side; no spans are made and nothing is passed on.
 */
import type { Request, RequestHandler, Response } from 'express';
import { callOf } from './call.ts';
import type { HttpDeps } from './deps.ts';
import { methodOf } from './refusal.ts';

/** Asked every few seconds by machines: their lines would drown the rest. */
const PROBES: ReadonlySet<string> = new Set(['/healthz', '/readyz', '/metrics']);

export function createRequestLog({ log, metrics }: Pick<HttpDeps, 'log' | 'metrics'>): RequestHandler {
  return (req, res, next) => {
    const fromMs = performance.now();
    let isSent = false;
    res.once('finish', () => {
      // Node says so too when what was still to be written is given up with the connection.
      isSent = !req.socket.destroyed;
    });
    res.once('close', () => {
      const level = PROBES.has(req.route?.path) ? 'debug' : 'info';
      const facts = factsOf(req, res, performance.now() - fromMs);
      log[level](isSent ? facts : { ...facts, cut_off: true }, 'request');
      const { code, outcome, execId, workspace } = callOf(res);
      metrics.countRequest({
        route: req.route === undefined ? null : methodOf(req),
        status: statusOf(res),
        code,
        refusedExec: outcome === 'refused' && execId === null ? { workspace } : null,
      });
    });
    next();
  };
}

function factsOf(req: Request, res: Response, durationMs: number): Record<string, unknown> {
  const { requestId, caller, orgId, workspace, execId, code, outcome, unrecorded } = callOf(res);
  return {
    request_id: requestId,
    trace_id: traceIdOf(req.get('traceparent')),
    method: req.method,
    route: req.route?.path ?? null,
    status: statusOf(res),
    duration_ms: Math.round(durationMs * 10) / 10,
    actor: caller?.actor,
    org: caller?.orgId ?? workspace?.orgId ?? orgId ?? undefined,
    exec_id: execId ?? undefined,
    code: code ?? undefined,
    outcome: outcome ?? undefined,
    ...unrecorded,
  };
}

/** Null: the caller had gone before there was one. */
function statusOf(res: Response): number | null {
  return res.headersSent ? res.statusCode : null;
}

/** The trace id of a `traceparent` that is valid; later versions may have more behind. Source: W3C Trace Context, 3.2. */
export function traceIdOf(header: string | undefined): string | undefined {
  const match = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?$/.exec(header ?? '');
  const [, version, traceId, parentId, rest] = match ?? [];
  if (version === 'ff' || (version === '00' && rest !== undefined)) return undefined;
  return /^0+$/.test(traceId ?? '0') || /^0+$/.test(parentId ?? '0') ? undefined : traceId;
}
