/**
 * A span that is recorded: one piece of work in a trace. Only OpenTelemetry's API stands behind it; who records, if
 * anybody, is telemetry.ts' business, or that of a program around this one.
 *
 * Where nobody records there is no span: `openSpan` answers null, and a gateway without traces pays for that one question.
 *
 * Decisions:
 * - Parents are handed on as values, never by an ambient context: an AsyncLocalStorage would cost every await of every
 *   exec, traced or not.
 * - Times are those of performance.now(), so that what is told afterwards (the steps of an opening that served many) has its
 *   own. All spans of a request are placed in the time of the world by one reading of its clock: children lie within.
 * - Never argv, environment values, stdin or output in a name, an attribute or a status.
 */
import {
  type Attributes,
  type Context,
  type Span,
  type SpanKind,
  SpanStatusCode,
  type Tracer,
  trace,
} from '@opentelemetry/api';

export type SpanAttributes = Attributes;

/** Why a piece of work failed: a word of a closed list, and what an operator may read. */
export interface SpanError {
  type: string;
  message?: string;
}

export interface PastSpan {
  startedAtMs: number;
  endedAtMs: number;
  attributes?: SpanAttributes;
  error?: SpanError | null;
}

interface Clock {
  tracer: Tracer;
  /** The time of the world when performance.now() was 0. */
  zeroMs: number;
}

export class RecordedSpan {
  readonly traceId: string;
  readonly #clock: Clock;
  readonly #span: Span;
  readonly #context: Context;

  constructor(clock: Clock, span: Span, parent: Context) {
    this.#clock = clock;
    this.#span = span;
    this.#context = trace.setSpan(parent, span);
    this.traceId = span.spanContext().traceId;
  }

  child(name: string, attributes: SpanAttributes, startedAtMs = performance.now()): RecordedSpan {
    const { tracer, zeroMs } = this.#clock;
    const span = tracer.startSpan(name, { attributes, startTime: zeroMs + startedAtMs }, this.#context);
    return new RecordedSpan(this.#clock, span, this.#context);
  }

  /** A child that is over. */
  past(name: string, { startedAtMs, endedAtMs, attributes = {}, error = null }: PastSpan): void {
    this.child(name, attributes, startedAtMs).end({ error, atMs: endedAtMs });
  }

  rename(name: string): void {
    this.#span.updateName(name);
  }

  /** To be called once; what comes afterwards is lost. */
  end({
    attributes = {},
    error = null,
    atMs = performance.now(),
  }: {
    attributes?: SpanAttributes;
    error?: SpanError | null;
    atMs?: number;
  } = {}): void {
    this.#span.setAttributes(attributes);
    if (error !== null) {
      this.#span.setAttribute('error.type', error.type);
      this.#span.setStatus({ code: SpanStatusCode.ERROR, message: error.message ?? error.type });
    }
    this.#span.end(this.#clock.zeroMs + atMs);
  }
}

/** Null: nobody records it. */
export function openSpan(
  tracer: Tracer,
  name: string,
  { kind, attributes, parent }: { kind: SpanKind; attributes: SpanAttributes; parent: Context },
): RecordedSpan | null {
  const startedAtMs = performance.now();
  const zeroMs = Date.now() - startedAtMs;
  const span = tracer.startSpan(name, { kind, attributes, startTime: zeroMs + startedAtMs }, parent);
  return span.isRecording() ? new RecordedSpan({ tracer, zeroMs }, span, parent) : null;
}

/** The promise of `run`; how long it took becomes a child of the span, where there is one. */
export function watched<T>(span: RecordedSpan | null, name: string, run: () => Promise<T>): Promise<T> {
  if (span === null) return run();
  const startedAtMs = performance.now();
  const promise = run();
  const told = (error: SpanError | null): void => {
    span.past(name, { startedAtMs, endedAtMs: performance.now(), error });
  };
  promise.then(
    () => told(null),
    (error: unknown) => told(spanErrorOf(error)),
  );
  return promise;
}

/** By its code, where it has one; the message of any other may hold what does not belong in a trace. */
function spanErrorOf(error: unknown): SpanError {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return { type: typeof code === 'string' ? code : 'failed' };
}
