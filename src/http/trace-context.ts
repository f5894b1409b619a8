/**
 * `traceparent` and `tracestate` of a request: where in the caller's trace it stands. Source: W3C Trace Context, 3.
 *
 * Of somebody else's making and believed for one thing only: under which id this request is recorded, and, by the
 * sampler's choice, whether. What is not valid counts as not sent, as the recommendation says.
 */
import { type Context, createTraceState, ROOT_CONTEXT, type SpanContext, trace } from '@opentelemetry/api';

/** Null: none that is valid. A header that came twice is none: Node joins them with a comma. */
export function readTraceContext(traceparent: string | undefined, tracestate: string | undefined): SpanContext | null {
  if (traceparent === undefined) return null;
  // Later versions may have more behind the flags.
  const match = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/.exec(traceparent);
  const [, version, traceId = '', spanId = '', flags = '', rest] = match ?? [];
  if (match === null || version === 'ff' || (version === '00' && rest !== undefined)) return null;
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return null;
  return {
    traceId,
    spanId,
    traceFlags: Number.parseInt(flags, 16),
    isRemote: true,
    ...(tracestate === undefined ? {} : { traceState: createTraceState(tracestate) }),
  };
}

export function contextOf(sent: SpanContext | null): Context {
  return sent === null ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, sent);
}
