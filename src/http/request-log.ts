/**
 * One log line and one count per finished request; nothing of its headers, body, argv or output.
 *
 * A caller who hangs up finishes the request as well. `trace_id` is that of the caller (W3C Trace Context), so that a line
 * can be found from their side, or of the span that was recorded here (request-span.ts).
 */
import type { Request, RequestHandler, Response } from 'express';
import { callOf } from './call.ts';
import type { HttpDeps } from './deps.ts';
import { isProbe } from './probes.ts';
import { methodOf } from './refusal.ts';

export function createRequestLog({ log, metrics }: Pick<HttpDeps, 'log' | 'metrics'>): RequestHandler {
  return (req, res, next) => {
    const fromMs = performance.now();
    let isSent = false;
    res.once('finish', () => {
      // Node says so too when what was still to be written is given up with the connection.
      isSent = !req.socket.destroyed;
    });
    res.once('close', () => {
      const level = isProbe(req.route?.path) ? 'debug' : 'info';
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
  const { requestId, traceId, caller, orgId, workspace, execId, code, outcome, unrecorded } = callOf(res);
  return {
    request_id: requestId,
    trace_id: traceId ?? undefined,
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
