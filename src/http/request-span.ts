/**
 * One SERVER span per request, where somebody records traces; child of the caller's span, where one was named.
 *
 * Attributes are those of OpenTelemetry's stable HTTP conventions, but for `url.path`: paths of strangers hold anything,
 * and the route with the ids beside it says as much. Probes have none; they would drown the rest.
 */
import { type Context, context, SpanKind, type Tracer, trace } from '@opentelemetry/api';
import type { Request, RequestHandler, Response } from 'express';
import { openSpan, type RecordedSpan, type SpanAttributes } from '../span.ts';
import { callOf } from './call.ts';
import { isProbe } from './probes.ts';
import { methodOf } from './refusal.ts';
import { contextOf, readTraceContext } from './trace-context.ts';

const METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE']);

export function createRequestSpan({ tracer }: { tracer: Tracer }): RequestHandler {
  return (req, res, next) => {
    const call = callOf(res);
    const sent = readTraceContext(req.get('traceparent'), req.get('tracestate'));
    call.traceId = sent?.traceId ?? null;
    const span = isProbe(req.path) ? null : open(tracer, req, contextOf(sent));
    if (span === null) return next();
    call.span = span;
    call.traceId = span.traceId;
    res.once('close', () => end(span, req, res));
    next();
  };
}

/** A program around this one may have opened a span of its own for the request: that one is the server's. */
function open(tracer: Tracer, { method, protocol }: Request, sent: Context): RecordedSpan | null {
  const around = context.active();
  const isAround = trace.getSpan(around) !== undefined;
  const isKnown = METHODS.has(method);
  return openSpan(tracer, isKnown ? method : 'HTTP', {
    kind: isAround ? SpanKind.INTERNAL : SpanKind.SERVER,
    attributes: { 'http.request.method': isKnown ? method : '_OTHER', 'url.scheme': protocol },
    parent: isAround ? around : sent,
  });
}

function end(span: RecordedSpan, req: Request, res: Response): void {
  const { requestId, orgId, workspace, caller, code } = callOf(res);
  const route: unknown = req.route?.path;
  const attributes: SpanAttributes = { 'sallyport.request_id': requestId };
  if (typeof route === 'string') {
    span.rename(methodOf(req));
    attributes['http.route'] = route;
  }
  const org = caller?.orgId ?? workspace?.orgId ?? orgId;
  if (org !== null) attributes['sallyport.org_id'] = org;
  if (workspace !== null) attributes['sallyport.workspace_id'] = workspace.id;
  if (res.headersSent) attributes['http.response.status_code'] = res.statusCode;
  const isOurs = res.headersSent && res.statusCode >= 500;
  span.end({ attributes, error: isOurs ? { type: code ?? String(res.statusCode) } : null });
}
