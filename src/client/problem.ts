/**
 * The three ways a call fails: the gateway said so, nobody answered, or the answer stopped in the middle.
 *
 * They differ in what is known about the program: a problem says what happened, no answer after sending says nothing,
 * an unfinished stream says it was started. Messages may hold the gateway's words; whoever prints them makes them safe.
 */
import type { Problem } from './wire.ts';

/** The gateway, or something in front of it, answered with anything but success. */
export class ProblemError extends Error {
  readonly status: number;
  /** A code of the closed list; null when what answered was not our gateway. */
  readonly code: string | null;
  readonly problem: Problem;
  readonly execId: string | null;

  constructor(status: number, problem: Problem, how: { message?: string; execId: string | null }) {
    super(how.message ?? problem.detail ?? problem.error ?? problem.title ?? `the gateway answered ${status}`);
    this.name = 'ProblemError';
    this.status = status;
    this.code = problem.code ?? null;
    this.problem = problem;
    this.execId = how.execId ?? problem.exec_id ?? null;
  }
}

/** No answer came. */
export class NoAnswerError extends Error {
  /** False: nothing reached the gateway. True: it may have, and nobody knows what became of it. */
  readonly wasSent: boolean;

  constructor(message: string, how: { wasSent: boolean; cause?: unknown }) {
    super(message, { cause: how.cause });
    this.name = 'NoAnswerError';
    this.wasSent = how.wasSent;
  }
}

/** The frames of an exec stopped before its terminal frame: how the program ended is not known. */
export class UnfinishedStreamError extends Error {
  readonly execId: string | null;

  constructor(execId: string | null, why: string, cause?: unknown) {
    super(`exec ${execId ?? '(unknown id)'} is unfinished: ${why}`, { cause });
    this.name = 'UnfinishedStreamError';
    this.execId = execId;
  }
}
