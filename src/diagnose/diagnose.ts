/**
 * Why a host cannot be used, or that it can: every step of the way walked live, one after the other, with what each took.
 *
 * It shares no session with execs and leaves none behind. It never throws for what it finds: a failure is the finding.
 * Evidence (status checks, facts, console) is read beside the walk and may be missing; the walk alone decides, but for
 * status checks that fail. Below the tier for logins it ends where the host has proved its key.
 */
import { mayLogIn } from '../access/tier.ts';
import { asSallyportError, SallyportError, STEPS, type Step } from '../errors.ts';
import {
  CONSOLE_TAIL_CHARS,
  DIAGNOSE_CHANNEL_MAX_MS,
  DIAGNOSE_CONNECT_MAX_MS,
  DIAGNOSE_STEP_MAX_MS,
} from '../limits.ts';
import type { Pool } from '../sessions/pool.ts';
import type { Driver, HostFacts, Session } from '../sessions/session.ts';
import { ConnectTrace, type TraceStep } from '../sessions/trace.ts';
import { type DriverName, EXEC_TIER, type Workspace } from '../workspace.ts';
import { type Evidence, type Explanation, explain, explainHealth } from './explain.ts';
import { runProgram } from './program.ts';
import { type Redact, safeText, tailOf } from './redact.ts';

export interface DiagnosisStep {
  name: Step;
  /** null: not reached, or nobody can say; `detail` says why where it is known. */
  ok: boolean | null;
  duration_ms: number | null;
  error?: string;
  detail?: string;
}

export interface Diagnosis {
  ok: boolean;
  firstFailure: Step | null;
  cause: string | null;
  remedy: string | null;
  /** Every step, in the order of the way. */
  steps: DiagnosisStep[];
  instance: Readonly<Record<string, unknown>> | null;
  consoleTail: string | null;
}

/** As callers read it. */
export function toWire({
  ok,
  firstFailure,
  cause,
  remedy,
  steps,
  instance,
  consoleTail,
}: Diagnosis): Record<string, unknown> {
  return { ok, first_failure: firstFailure, cause, remedy, steps, instance, console_tail: consoleTail };
}

/** Ends within DIAGNOSE_MAX_MS. Rejects only with the reason of `signal`. `id` marks the program that is started. */
export type Diagnose = (workspace: Workspace, call: { id: string; signal: AbortSignal }) => Promise<Diagnosis>;

/** Where only the host keeps us waiting; AWS's own retries take longer than a step of these. */
const STEPS_OF_HOST: ReadonlySet<Step> = new Set<Step>(['tunnel', 'banner', 'host_key', 'login']);
const PATIENCE_CHECK_MS = 100;

interface Walked {
  trace: ConnectTrace;
  failure: SallyportError | null;
}

export function createDiagnose(deps: {
  drivers: ReadonlyMap<DriverName, Driver>;
  pool: Pool;
  redact: Redact;
}): Diagnose {
  const { drivers, pool, redact } = deps;
  return async (workspace, { id, signal }) => {
    const driver = drivers.get(workspace.target.driver);
    const [walked, facts, consoleText] = await Promise.all([
      walk(pool, workspace, { id, signal }),
      learn<HostFacts>(signal, (until) => driver?.inspect(workspace, until)),
      learn<string | null>(signal, async (until) => {
        const output = (await driver?.readConsole(workspace, until))?.output ?? null;
        return output === null ? null : safeText(output, { cutBefore: true, redact });
      }),
    ]);
    signal.throwIfAborted();
    return conclude(workspace, walked, { facts, console: consoleText });
  };
}

/** Never rejects. */
async function walk(pool: Pool, workspace: Workspace, call: { id: string; signal: AbortSignal }): Promise<Walked> {
  const trace = new ConnectTrace();
  let session: Session | null = null;
  try {
    session = await within(DIAGNOSE_CONNECT_MAX_MS, { trace, signal: call.signal }, (signal) =>
      withPatience(trace, signal, (patient) =>
        pool.probe(workspace, { trace, signal: patient }, mayLogIn(workspace) ? 'login' : 'host_key'),
      ),
    );
    if (session !== null) await startSomething(session, trace, call);
    return { trace, failure: null };
  } catch (error) {
    return { trace, failure: asSallyportError(error) };
  } finally {
    session?.close();
  }
}

async function startSomething(session: Session, trace: ConnectTrace, call: { id: string; signal: AbortSignal }) {
  await trace.step('channel', 'the program true', () =>
    within(DIAGNOSE_CHANNEL_MAX_MS, { trace, signal: call.signal }, async (signal) => {
      const program = { execId: call.id, argv: ['true'] as const, timeoutMs: DIAGNOSE_CHANNEL_MAX_MS, keepBytes: 4096 };
      const { exit } = await runProgram(session, program, signal);
      if (exit?.kind === 'exited' && exit.code === 0) return;
      throw new SallyportError('shell_unsupported', `the program "true" did not succeed on the host`, {
        failedStep: 'channel',
        remedy: 'look for a login shell or an rc file that is not made for commands',
      });
    }),
  );
}

/**
 * Runs `work` for so long at most. Past that it is not waited for, even when it does not heed its signal: who closes what
 * it holds is the caller. Rejects with the error that was being retried, else with the step that hung.
 */
async function within<T>(
  ms: number,
  { trace, signal }: { trace: ConnectTrace; signal: AbortSignal },
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const limit = new AbortController();
  const leave = (): void => limit.abort(signal.reason);
  const timer = setTimeout(() => limit.abort(trace.retried ?? hung(trace.current(), ms)), ms);
  signal.addEventListener('abort', leave, { once: true });
  if (signal.aborted) leave();
  try {
    const late = new Promise<never>((_, reject) => {
      if (limit.signal.aborted) reject(limit.signal.reason);
      limit.signal.addEventListener('abort', () => reject(limit.signal.reason), { once: true });
    });
    return await Promise.race([work(limit.signal), late]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', leave);
  }
}

/** A host that is silent for so long is found out: who is on call need not wait for the rest of the time. */
async function withPatience<T>(
  trace: ConnectTrace,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const limit = new AbortController();
  const timer = setInterval(() => {
    const sinceMs = performance.now() - DIAGNOSE_STEP_MAX_MS;
    const silent = trace.steps.find(
      ({ name, ok, startedAtMs }) => ok === null && STEPS_OF_HOST.has(name) && startedAtMs < sinceMs,
    );
    if (silent !== undefined) limit.abort(trace.retried ?? hung(silent.name, DIAGNOSE_STEP_MAX_MS));
  }, PATIENCE_CHECK_MS);
  try {
    return await work(AbortSignal.any([signal, limit.signal]));
  } finally {
    clearInterval(timer);
  }
}

function hung(step: Step, ms: number): SallyportError {
  const timeoutS = ms / 1000;
  return new SallyportError('connect_timeout', `the step "${step}" did not finish within ${timeoutS} s`, {
    failedStep: step,
    outcome: 'unreachable',
    retryable: true,
    timeoutS,
  });
}

/** Evidence, or what kept it from us. Never rejects. */
type Learned<T> = { value: T } | { error: SallyportError };

async function learn<T>(
  signal: AbortSignal,
  ask: (signal: AbortSignal) => Promise<T> | undefined,
): Promise<Learned<T>> {
  try {
    const value = await within(DIAGNOSE_CONNECT_MAX_MS, { trace: new ConnectTrace(), signal }, async (until) =>
      ask(until),
    );
    if (value !== undefined) return { value };
    return { error: new SallyportError('host_unreachable', 'the driver is not enabled') };
  } catch (error) {
    return { error: asSallyportError(error) };
  }
}

function conclude(
  workspace: Workspace,
  { trace, failure }: Walked,
  { facts, console }: { facts: Learned<HostFacts>; console: Learned<string | null> },
): Diagnosis {
  const known = 'value' in facts ? facts.value : null;
  const health = known?.health ?? null;
  const consoleText = 'value' in console ? console.value : null;
  const evidence: Evidence = {
    workspace,
    instance: known?.instance ?? null,
    health,
    clockOffsetMs: known?.clockOffsetMs ?? 0,
    consoleText,
  };
  const failedStep = failure === null ? null : (failure.details.failedStep ?? trace.current());
  const words = failure === null || failedStep === null ? null : explain(failure, failedStep, evidence);
  const steps = STEPS.map((name) =>
    name === 'status' ? statusStep(health, facts) : stepOf(name, trace.steps, { failedStep, failure, workspace }),
  );
  const firstFailure = steps.find((step) => step.ok === false)?.name ?? null;
  const told: Explanation | null = health?.ok === false ? explainHealth(health, words, evidence) : words;
  return {
    ok: firstFailure === null,
    firstFailure,
    cause: told?.cause ?? null,
    remedy: told?.remedy ?? null,
    steps,
    instance: describe(known, console),
    consoleTail: consoleText === null ? null : tailOf(consoleText, CONSOLE_TAIL_CHARS),
  };
}

/** What the platform says, and what it would not say. */
function describe(known: HostFacts | null, console: Learned<string | null>): Diagnosis['instance'] {
  if (known === null || known.instance === null) return null;
  const clockOffsetS = Math.round(known.clockOffsetMs / 1000);
  return {
    ...known.instance,
    ...(Math.abs(clockOffsetS) < 2 ? {} : { gateway_clock_offset_s: clockOffsetS }),
    ...('error' in console ? { console_error: console.error.message } : {}),
  };
}

function statusStep(health: HostFacts['health'] | null, facts: Learned<HostFacts>): DiagnosisStep {
  if (health === null) {
    const detail = 'error' in facts ? `not read: ${facts.error.message}` : 'not read';
    return { name: 'status', ok: null, duration_ms: null, detail };
  }
  const { ok, detail, durationMs } = health;
  const duration_ms = durationMs === null ? null : Math.round(durationMs);
  return { name: 'status', ok, duration_ms, ...(ok === false ? { error: detail } : { detail }) };
}

/** A step may have been tried twice: the last try counts, the time is that of all. */
function stepOf(
  name: Step,
  traced: readonly TraceStep[],
  { failedStep, failure, workspace }: { failedStep: Step | null; failure: SallyportError | null; workspace: Workspace },
): DiagnosisStep {
  const tries = traced.filter((step) => step.name === name);
  const last = tries.at(-1);
  const order = failedStep === null ? -1 : STEPS.indexOf(name) - STEPS.indexOf(failedStep);
  const detail = [...new Set(tries.flatMap((step) => step.detail ?? []))].join(', ');
  const facts = {
    name,
    duration_ms:
      last === undefined
        ? null
        : Math.round(
            tries.reduce(
              (sum, { durationMs, startedAtMs }) => sum + (durationMs ?? performance.now() - startedAtMs),
              0,
            ),
          ),
    ...(detail === '' ? {} : { detail }),
  };
  if (order === 0) return { ...facts, ok: false, error: failure?.message ?? 'failed' };
  if (last === undefined || (failedStep !== null && order > 0)) return notReached(name, failedStep, workspace);
  return { ...facts, ok: last.ok };
}

function notReached(name: Step, failedStep: Step | null, workspace: Workspace): DiagnosisStep {
  const step = { name, ok: null, duration_ms: null };
  if (failedStep !== null) return step;
  if (mayLogIn(workspace)) return { ...step, detail: 'not on the way to this kind of host' };
  const detail = `not walked: the workspace has tier ${workspace.tier}, and a login needs tier ${EXEC_TIER}`;
  return { ...step, detail };
}
