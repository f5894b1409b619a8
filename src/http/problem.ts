/**
 * Code → status, title and body: the one table of this edge (RFC 9457, `application/problem+json`).
 *
 * The text of `unauthenticated` and `internal` stands here, whoever threw: the first must not tell a stranger why, the
 * second must not carry an address or a stack. Everything else shows the message of its error, which is made to be shown.
 */
import type { Response } from 'express';
import type { ErrorCode, SallyportError } from '../errors.ts';
import type { Outcome } from '../outcome.ts';
import type { Survivors } from '../sessions/session.ts';
import { discardRest } from './body.ts';
import { callOf } from './call.ts';

interface Row {
  status: number;
  title: string;
  /** Shown in place of the error's own message. */
  detail?: string;
  /** Whole seconds; also says that trying again may help. An error may know better. */
  retryAfterS?: number;
}

const PROBLEMS: Readonly<Record<ErrorCode, Row>> = {
  invalid_request: { status: 400, title: 'Invalid request' },
  cmd_not_argv: { status: 400, title: 'cmd must be an argv array' },
  no_instance: { status: 400, title: 'The workspace has no instance' },
  unauthenticated: {
    status: 401,
    title: 'Not authenticated',
    detail: 'a valid credential is required: Authorization: Bearer <token>',
  },
  exec_tier_forbidden: { status: 403, title: 'The tier of the workspace does not allow this' },
  exec_command_forbidden: { status: 403, title: 'The command rules of the credential do not allow this' },
  scope_missing: { status: 403, title: 'The credential lacks the right' },
  exec_revoked: { status: 403, title: 'The right was withdrawn' },
  not_found: { status: 404, title: 'Not found' },
  instance_not_running: { status: 409, title: 'The instance is not running' },
  idempotency_in_progress: { status: 409, title: 'The first request with this key still runs' },
  exec_cancelled: { status: 409, title: 'The exec was cancelled' },
  too_large: { status: 413, title: 'Too large' },
  unsupported_media_type: { status: 415, title: 'Unsupported media type' },
  idempotency_mismatch: { status: 422, title: 'The key belongs to another request' },
  start_failed: { status: 422, title: 'The program could not be started' },
  rate_limited: { status: 429, title: 'Too many requests', retryAfterS: 60 },
  too_many_execs: { status: 429, title: 'Too many execs at once', retryAfterS: 1 },
  internal: { status: 500, title: 'Internal error', detail: 'something went wrong inside the gateway' },
  issuer_unavailable: { status: 503, title: 'The issuer of the credential cannot be asked', retryAfterS: 5 },
  host_unreachable: { status: 502, title: 'The host cannot be reached' },
  host_key_mismatch: { status: 502, title: 'The host key is not the expected one' },
  login_refused: { status: 502, title: 'The host refused the login' },
  shell_unsupported: { status: 502, title: 'The login shell of the host cannot run commands' },
  connection_lost: { status: 502, title: 'The connection to the host was lost' },
  aws_denied: { status: 502, title: 'AWS denied a call of the gateway' },
  audit_unavailable: { status: 503, title: 'The audit log cannot be written', retryAfterS: 2 },
  capacity: { status: 503, title: 'The gateway is at its capacity', retryAfterS: 1 },
  aws_throttled: { status: 503, title: 'AWS throttles calls of the gateway', retryAfterS: 5 },
  aws_unavailable: { status: 503, title: 'AWS does not answer', retryAfterS: 5 },
  draining: { status: 503, title: 'The gateway is stopping', retryAfterS: 5 },
  exec_timeout: { status: 504, title: 'The program ran into its deadline' },
  connect_timeout: { status: 504, title: 'The host could not be reached in time' },
};

/** Members of a problem body that the error itself does not know. */
export interface ProblemFacts {
  outcome?: Outcome;
  timeoutS?: number;
  survivors?: Survivors;
}

export function statusOf(code: ErrorCode): number {
  return PROBLEMS[code].status;
}

export function titleOf(code: ErrorCode): string {
  return PROBLEMS[code].title;
}

/** What a caller reads about an error, in a problem body and in the terminal frame. */
export function publicText(error: SallyportError): string {
  const text = PROBLEMS[error.code].detail ?? error.message;
  return error.details.remedy === undefined ? text : `${text}; ${error.details.remedy}`;
}

export function problemBody(
  error: SallyportError,
  ids: { requestId: string; execId: string | null },
  facts: ProblemFacts = {},
): Record<string, unknown> {
  const { status, title, retryAfterS } = PROBLEMS[error.code];
  const detail = publicText(error);
  return withoutUndefined({
    type: `urn:sallyport:problem:${error.code}`,
    title,
    status,
    detail,
    code: error.code,
    error: detail,
    request_id: ids.requestId,
    exec_id: ids.execId ?? undefined,
    outcome: facts.outcome ?? error.details.outcome,
    failed_step: error.details.failedStep,
    retryable: error.details.retryable ?? (retryAfterS === undefined ? undefined : true),
    timeout_s: facts.timeoutS ?? error.details.timeoutS,
    survivors: facts.survivors,
  });
}

/**
 * Answers with the problem. When the request body is still on its way, the answer leaves first and the rest of the body
 * is read for a while: a connection closed under a sender is reset, and a reset discards the answer on its side.
 */
export async function sendProblem(
  res: Response,
  error: SallyportError,
  facts: ProblemFacts = {},
  more: Record<string, unknown> = {},
): Promise<void> {
  callOf(res).code = error.code;
  if (res.headersSent || res.closed) return void res.destroy();
  const { status, retryAfterS } = PROBLEMS[error.code];
  const text = JSON.stringify({ ...problemBody(error, callOf(res), facts), ...more });
  if (status === 401) res.setHeader('WWW-Authenticate', 'Bearer');
  // A body that came in one piece with the headers is parsed when this turn is over: no reason to close the connection.
  if (!res.req.complete) await new Promise(setImmediate);
  const waitS = error.details.retryAfterS ?? retryAfterS;
  if ((status === 429 || status === 503) && waitS !== undefined) res.setHeader('Retry-After', String(waitS));
  res.statusCode = status;
  res.setHeader('Content-Type', 'application/problem+json');
  if (res.req.complete) return void res.end(text);
  res.setHeader('Connection', 'close');
  res.setHeader('Content-Length', Buffer.byteLength(text));
  res.write(text);
  await discardRest(res.req);
  res.end();
}

function withoutUndefined(members: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined));
}
