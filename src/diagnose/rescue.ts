/**
 * Evidence of a host that fails, collected once and kept: the diagnosis, the console and what a fixed list of commands
 * says, for whoever looks at it tomorrow.
 *
 * Everything is redacted before it is kept; what the redactor cannot take is not kept. A host that nobody can log in to
 * still leaves what needs no login. Commands run over the shared sessions as execs do, a few at a time, each ended at its
 * deadline.
 */
import { randomUUID } from 'node:crypto';
import { asSallyportError } from '../errors.ts';
import { RESCUE_AT_ONCE, RESCUE_RUN_MAX_MS, RESCUE_SECTION_MAX_BYTES, RESCUE_SECTION_MAX_MS } from '../limits.ts';
import type { Pool } from '../sessions/pool.ts';
import type { Workspace } from '../workspace.ts';
import { type Diagnose, type Diagnosis, toWire } from './diagnose.ts';
import { type ProgramResult, runProgram } from './program.ts';
import { cutMiddle, type Redact, safeOutput } from './redact.ts';
import { SECTIONS, type SectionPlan } from './sections.ts';

/** As it is kept and as callers read it. */
export interface Section {
  name: string;
  /** null: nothing could be had or kept; `error` says why. */
  output: string | null;
  command?: readonly string[];
  /** null: ended at its deadline. */
  exit_code?: number | null;
  truncated?: boolean;
  duration_ms: number;
  error?: string;
}

export interface Rescue {
  id: string;
  orgId: string;
  workspaceId: string;
  actor: string;
  createdAt: Date;
  diagnosis: Record<string, unknown>;
  sections: Section[];
}

export interface RescueStore {
  /** Also forgets all but the latest few of the workspace. */
  add(rescue: Rescue): Promise<void>;
  /** Null: none was kept. */
  latest(orgId: string, workspaceId: string): Promise<Rescue | null>;
}

/** Rejects with the reason of `signal`, or when the result cannot be kept. */
export type RunRescue = (
  workspace: Workspace,
  call: { id: string; actor: string; signal: AbortSignal },
) => Promise<{ rescue: Rescue; diagnosis: Diagnosis }>;

export function createRescue(deps: {
  pool: Pool;
  diagnose: Diagnose;
  readConsole(workspace: Workspace, signal: AbortSignal): Promise<{ text: string | null }>;
  store: RescueStore;
  redact: Redact;
}): RunRescue {
  const { pool, diagnose, readConsole, store, redact } = deps;

  async function consoleSection(workspace: Workspace, signal: AbortSignal): Promise<Section> {
    return await timed('console', async () => {
      const { text } = await readConsole(workspace, signal);
      if (text === null) return { output: null, error: 'nothing was posted' };
      return { ...cutMiddle(text, RESCUE_SECTION_MAX_BYTES) };
    });
  }

  async function runAll(workspace: Workspace, signal: AbortSignal): Promise<Section[]> {
    const tooLong = new AbortController();
    const timer = setTimeout(() => tooLong.abort(new DOMException('too long', 'TimeoutError')), RESCUE_RUN_MAX_MS);
    const both = AbortSignal.any([signal, tooLong.signal]);
    const todo = SECTIONS.map((section, index) => ({ section, index }));
    const done: Section[] = [];
    const work = async (): Promise<void> => {
      for (let next = todo.shift(); next !== undefined; next = todo.shift()) {
        const { section, index } = next;
        done[index] = await timed(section.name, () => runSection(workspace, section, both));
      }
    };
    try {
      await Promise.all(Array.from({ length: RESCUE_AT_ONCE }, work));
      return done;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The first try that says something good; else the last one that ran. */
  async function runSection(
    workspace: Workspace,
    { tries }: SectionPlan,
    signal: AbortSignal,
  ): Promise<Omit<Section, 'name' | 'duration_ms'>> {
    const untilMs = performance.now() + RESCUE_SECTION_MAX_MS;
    let last: Omit<Section, 'name' | 'duration_ms'> = { output: null, error: 'none of its commands is there' };
    for (const { argv, alsoGood = [] } of tries) {
      const result = await runOnce(workspace, argv, { timeoutMs: untilMs - performance.now(), signal });
      const code = result.exit?.kind === 'exited' ? result.exit.code : null;
      const missing = code === 126 || code === 127;
      if (!missing) last = { command: argv, exit_code: code, ...outputOf(result, redact) };
      if (code === 0 || (code !== null && alsoGood.includes(code)) || performance.now() >= untilMs) break;
    }
    return last;
  }

  async function runOnce(
    workspace: Workspace,
    argv: readonly [string, ...string[]],
    { timeoutMs, signal }: { timeoutMs: number; signal: AbortSignal },
  ): Promise<ProgramResult> {
    const lease = await pool.lease(workspace, { signal, timeoutMs });
    try {
      // An id of its own: a kill finds programs by it, and would end its neighbours.
      const program = { execId: randomUUID(), argv, timeoutMs, keepBytes: RESCUE_SECTION_MAX_BYTES };
      return await runProgram(lease.session, program, signal);
    } finally {
      lease.release();
    }
  }

  return async (workspace, { id, actor, signal }) => {
    const createdAt = new Date();
    const [diagnosis, console] = await Promise.all([
      diagnose(workspace, { id, signal }),
      consoleSection(workspace, signal),
    ]);
    const canRun = diagnosis.steps.some(({ name, ok }) => name === 'channel' && ok === true);
    const sections = canRun ? await runAll(workspace, signal) : [];
    signal.throwIfAborted();
    const { id: workspaceId, orgId } = workspace;
    const rescue: Rescue = {
      id,
      orgId,
      workspaceId,
      actor,
      createdAt,
      diagnosis: toWire(diagnosis),
      sections: [console, ...sections],
    };
    await store.add(rescue);
    return { rescue, diagnosis };
  };
}

/** What goes wrong with one section is written there, and the others go on. */
async function timed(name: string, run: () => Promise<Omit<Section, 'name' | 'duration_ms'>>): Promise<Section> {
  const startedAtMs = performance.now();
  const took = () => ({ duration_ms: Math.round(performance.now() - startedAtMs) });
  try {
    const section = await run();
    return { name, ...section, ...took() };
  } catch (error) {
    return { name, output: null, error: reasonOf(error), ...took() };
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof DOMException && error.name === 'TimeoutError') return 'the time for all commands was used up';
  return asSallyportError(error).message;
}

function outputOf(result: ProgramResult, redact: Redact): Pick<Section, 'output' | 'truncated' | 'error'> {
  try {
    const { text, truncated } = safeOutput(result, { redact, maxBytes: RESCUE_SECTION_MAX_BYTES });
    const late = result.exit === null ? { error: `ended after ${RESCUE_SECTION_MAX_MS / 1000} s` } : {};
    return { output: text, ...(truncated ? { truncated } : {}), ...late };
  } catch {
    // Whatever the redactor choked on may be the secret itself: not even its message is kept.
    return { output: null, error: 'not kept: it could not be redacted' };
  }
}
