/**
 * What happened on the way to a host, step by step, as it happens.
 *
 * Steps may overlap (the key push runs beside the tunnel). When a deadline ends an opening, the trace says which step
 * was open and which named error was being retried.
 */
import { type ErrorCode, SallyportError, STEPS, type Step } from '../errors.ts';

export interface TraceStep {
  name: Step;
  /** null while it runs. */
  ok: boolean | null;
  startedAtMs: number;
  durationMs: number | null;
  error?: string;
  /** Of an error that had one. */
  code?: ErrorCode;
  /** What was tried: ids and addresses for diagnose, never shown to callers of exec. */
  detail?: string;
}

export class ConnectTrace {
  readonly steps: TraceStep[] = [];
  /** The last named error of an attempt that is being retried; cleared when the step succeeds. */
  retried: SallyportError | null = null;

  /** Runs one step and records its end. The error passes through unchanged. */
  async step<T>(name: Step, detail: string | undefined, run: () => Promise<T>): Promise<T> {
    const entry: TraceStep = { name, ok: null, startedAtMs: performance.now(), durationMs: null };
    if (detail !== undefined) entry.detail = detail;
    this.steps.push(entry);
    try {
      const value = await run();
      entry.ok = true;
      if (this.retried?.details.failedStep === name) this.retried = null;
      return value;
    } catch (error) {
      entry.ok = false;
      entry.error = error instanceof Error ? error.message : String(error);
      if (error instanceof SallyportError) entry.code = error.code;
      throw error;
    } finally {
      entry.durationMs = performance.now() - entry.startedAtMs;
    }
  }

  /** The open step furthest on the way, for naming what hung; `instance` when none was begun. */
  current(): Step {
    const open = this.steps.filter((step) => step.ok === null).map((step) => STEPS.indexOf(step.name));
    const index =
      open.length > 0
        ? Math.max(...open)
        : this.steps.length > 0
          ? STEPS.indexOf(this.steps.at(-1)?.name ?? 'instance')
          : 0;
    return STEPS[index] ?? 'instance';
  }
}
