/**
 * SallyportError: the one error class that crosses module borders, with a code from a closed list.
 *
 * `message` is safe to show: it says what was expected and what came. `cause` is for the log only. The HTTP status of a
 * code stands in `http/problem.ts`, the one table of that edge. Programmer mistakes are `Error('bug: …')` instead.
 */
import type { Outcome } from './outcome.ts';

export const ERROR_CODES = [
  'invalid_request',
  'cmd_not_argv',
  'no_instance',
  'unauthenticated',
  'exec_tier_forbidden',
  'exec_command_forbidden',
  'scope_missing',
  'exec_revoked',
  'not_found',
  'instance_not_running',
  'idempotency_in_progress',
  'exec_cancelled',
  'too_large',
  'unsupported_media_type',
  'idempotency_mismatch',
  'start_failed',
  'rate_limited',
  'too_many_execs',
  'internal',
  'issuer_unavailable',
  'host_unreachable',
  'host_key_mismatch',
  'login_refused',
  'shell_unsupported',
  'connection_lost',
  'aws_denied',
  'audit_unavailable',
  'capacity',
  'aws_throttled',
  'aws_unavailable',
  'draining',
  'exec_timeout',
  'connect_timeout',
] as const;
export type ErrorCode = (typeof ERROR_CODES)[number];

/** Where a connection failed, in the order of the way to the host. Source: contract, section 4. */
export const STEPS = [
  'instance',
  'status',
  'endpoint',
  'tunnel',
  'banner',
  'host_key',
  'key_push',
  'login',
  'channel',
] as const;
export type Step = (typeof STEPS)[number];

/** What a problem body or terminal error frame may carry beside code and message. */
export interface ErrorDetails {
  failedStep?: Step;
  outcome?: Outcome;
  /** Whether the same request may succeed later without anybody changing anything. */
  retryable?: boolean;
  /** Whole seconds for `Retry-After`. */
  retryAfterS?: number;
  timeoutS?: number;
  /** What a person should do next, in plain words. */
  remedy?: string;
  cause?: unknown;
}

export class SallyportError extends Error {
  readonly code: ErrorCode;
  readonly details: Omit<ErrorDetails, 'cause'>;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    const { cause, ...rest } = details;
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'SallyportError';
    this.code = code;
    this.details = rest;
  }
}

/** Any thrown value as a SallyportError; what is not one becomes `internal` with the original as cause. */
export function asSallyportError(error: unknown): SallyportError {
  if (error instanceof SallyportError) return error;
  return new SallyportError('internal', 'something went wrong inside the gateway', { cause: error });
}
