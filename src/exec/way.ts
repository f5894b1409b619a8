/**
 * What one exec met on its way to a host: for its audit row as `tool_trace`, and as spans where somebody records.
 *
 * An opening serves many execs, so its steps are told to each that waited for it, afterwards and with their own times: a
 * step may have begun before the exec did. An exec that found a session open has no steps.
 */
import { TOOL_TRACE_STEPS_MAX } from '../limits.ts';
import type { Lease, Process } from '../sessions/session.ts';
import { ConnectTrace, type TraceStep } from '../sessions/trace.ts';
import { type RecordedSpan, type SpanError, watched } from '../span.ts';
import type { Workspace } from '../workspace.ts';
import type { ExecEnd } from './frame.ts';

/** One step as the audit row has it; no `detail`: addresses are not for everybody who may read rows. */
export interface ToolTraceStep {
  step: TraceStep['name'];
  /** null: it was under way when another one failed, or when the caller went. */
  ok: boolean | null;
  /** Counted from the exec's start; below 0 where the opening had begun for another exec. */
  started_ms: number;
  duration_ms: number | null;
  /** A code of the closed list, or `failed`. */
  error?: string;
}

export class Way {
  readonly #startedAtMs: number;
  readonly #openings: ConnectTrace[] = [];
  readonly #channel = new ConnectTrace();
  readonly #span: RecordedSpan | null;

  constructor(exec: { execId: string; workspace: Workspace; span?: RecordedSpan | null }, startedAtMs: number) {
    this.#startedAtMs = startedAtMs;
    this.#span = exec.span?.child('exec', attributesOf(exec), startedAtMs) ?? null;
  }

  /** `audit.open` or `session.wait`: how long it took is of interest to traces only. */
  watch<T>(name: string, run: () => Promise<T>): Promise<T> {
    return watched(this.#span, name, run);
  }

  /** The exec waits for this opening. */
  readonly joined = (opening: ConnectTrace): void => void this.#openings.push(opening);

  /** The last step, which every exec takes for itself. */
  async start({ session }: Lease, ...request: Parameters<Lease['session']['start']>): Promise<Process> {
    return await this.#channel.step('channel', undefined, () => session.start(...request));
  }

  /** To be called once, with the end of the exec. Null: a session was open, and took the program. */
  end(end: ExecEnd): ToolTraceStep[] | null {
    const endedAtMs = performance.now();
    const steps = this.#steps().map((step) => judged(step, end, endedAtMs));
    if (this.#span !== null) this.#record(this.#span, { steps, end, endedAtMs });
    if (this.#openings.length === 0 && steps.every(({ ok }) => ok === true)) return null;
    return steps.slice(-TOOL_TRACE_STEPS_MAX).map((step) => this.#toRow(step));
  }

  /** Of an opening that was overtaken by a free place on another session, only what had been done. */
  #steps(): TraceStep[] {
    const isThere = this.#channel.steps.length > 0;
    const opened = this.#openings.flatMap(({ steps }) => steps).filter(({ ok }) => ok !== null || !isThere);
    return [...opened, ...this.#channel.steps];
  }

  #toRow({ name, ok, startedAtMs, durationMs, code }: TraceStep): ToolTraceStep {
    return {
      step: name,
      ok,
      started_ms: tenths(startedAtMs - this.#startedAtMs),
      duration_ms: durationMs === null ? null : tenths(durationMs),
      ...(ok === false ? { error: code ?? 'failed' } : {}),
    };
  }

  #record(
    span: RecordedSpan,
    { steps, end, endedAtMs }: { steps: readonly TraceStep[]; end: ExecEnd; endedAtMs: number },
  ): void {
    for (const { name, ok, startedAtMs, durationMs, code, error, detail } of steps) {
      const stepError: SpanError = { type: code ?? 'failed', ...(error === undefined ? {} : { message: error }) };
      span.past(name, {
        startedAtMs,
        endedAtMs: durationMs === null ? endedAtMs : startedAtMs + durationMs,
        attributes: detail === undefined ? {} : { 'sallyport.detail': detail },
        error: ok === false ? stepError : null,
      });
    }
    const { outcome, exitCode, error } = end;
    span.end({
      attributes: {
        'sallyport.outcome': outcome,
        ...(exitCode === null ? {} : { 'sallyport.exit_code': exitCode }),
        ...(error?.details.failedStep === undefined ? {} : { 'sallyport.failed_step': error.details.failedStep }),
      },
      // The code alone: the text of a failure may name what was to run.
      error: error === null ? null : { type: error.code },
      atMs: endedAtMs,
    });
  }
}

/** The step that the end names is the one that failed, also when it was still waiting, and by that code. */
function judged(step: TraceStep, { error }: ExecEnd, endedAtMs: number): TraceStep {
  if (error === null || step.ok === true || step.name !== error.details.failedStep) return step;
  return { ...step, ok: false, durationMs: step.durationMs ?? endedAtMs - step.startedAtMs, code: error.code };
}

function attributesOf({
  execId,
  workspace,
}: {
  execId: string;
  workspace: Workspace;
}): Record<string, string | number> {
  return {
    'sallyport.exec_id': execId,
    'sallyport.org_id': workspace.orgId,
    'sallyport.workspace_id': workspace.id,
    'sallyport.driver': workspace.target.driver,
    'sallyport.tier': workspace.tier,
  };
}

function tenths(ms: number): number {
  return Math.round(ms * 10) / 10;
}
