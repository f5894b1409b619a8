/**
 * What the gates have found out about one request so far; lives in `res.locals` from the first middleware on.
 *
 * The readers throw when a route asks for what its gates have not established: that is a mistake in router.ts, and a
 * request must rather fail than run on a guess.
 */
import type { Response } from 'express';
import type { Caller, CommandRule } from '../access/access.ts';
import type { ErrorCode } from '../errors.ts';
import type { Command } from '../exec/command.ts';
import type { Outcome } from '../outcome.ts';
import type { RecordedSpan } from '../span.ts';
import type { Workspace } from '../workspace.ts';

export interface Call {
  readonly requestId: string;
  /** Null: nobody records this request. */
  span: RecordedSpan | null;
  /** That of the span, else the caller's; null: there is none. */
  traceId: string | null;
  /** `activity_type` of the rows that this request may cause. */
  activity: string;
  caller: Caller | null;
  /** The org the request acts in; null: the admin token, before a workspace has named one. */
  orgId: string | null;
  /** The id in the path, also when there is no such workspace; null when it cannot be one. */
  askedWorkspaceId: string | null;
  workspace: Workspace | null;
  /** Whether the org of the request is frozen. */
  frozen: boolean;
  body: unknown;
  command: Command | null;
  /** Null: the request may run as often as it comes. */
  idempotencyKey: string | null;
  /** The rule that allowed the command; null: the caller has no rules. */
  rule: CommandRule | null;
  execId: string | null;
  /** How it ended, for the log: the code of the problem, also one in a terminal frame, and the outcome of an exec. */
  code: ErrorCode | null;
  outcome: Outcome | null;
  /** Of a refusal that has no audit row, above all of strangers: why, which only the log may say, and their address. */
  unrecorded: { reason: string; ip: string | undefined } | null;
}

export function newCall(requestId: string): Call {
  return {
    requestId,
    span: null,
    traceId: null,
    activity: 'request',
    caller: null,
    orgId: null,
    askedWorkspaceId: null,
    workspace: null,
    frozen: false,
    body: undefined,
    command: null,
    idempotencyKey: null,
    rule: null,
    execId: null,
    code: null,
    outcome: null,
    unrecorded: null,
  };
}

export function callOf(res: Response): Call {
  return res.locals.call as Call;
}

/** The call of a request that has passed the caller gate. */
export function knownCall(res: Response): Call & { caller: Caller } {
  const call = callOf(res);
  if (call.caller === null) throw new Error('bug: a route without the caller gate');
  return call as Call & { caller: Caller };
}

/** The call of a request that has passed the workspace gate. */
export function workspaceCall(res: Response): Call & { caller: Caller; workspace: Workspace } {
  const call = knownCall(res);
  if (call.workspace === null) throw new Error('bug: a route without the workspace gate');
  return call as Call & { caller: Caller; workspace: Workspace };
}

/** The call of a request that has passed the body gate of exec. */
export function execCall(res: Response): Call & { caller: Caller; workspace: Workspace; command: Command } {
  const call = workspaceCall(res);
  if (call.command === null) throw new Error('bug: a route without the command gate');
  return call as Call & { caller: Caller; workspace: Workspace; command: Command };
}
