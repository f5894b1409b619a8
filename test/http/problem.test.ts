import { expect, test } from 'vitest';
import { ERROR_CODES, type ErrorCode, SallyportError } from '../../src/errors.ts';
import { problemBody, statusOf } from '../../src/http/problem.ts';

const IDS = { requestId: 'r-1', execId: null };

/** The table of the contract, section 4. */
const STATUSES: Record<number, ErrorCode[]> = {
  400: ['invalid_request', 'cmd_not_argv', 'no_instance'],
  401: ['unauthenticated'],
  403: ['exec_tier_forbidden', 'exec_command_forbidden', 'scope_missing', 'exec_revoked'],
  404: ['not_found'],
  409: ['instance_not_running', 'idempotency_in_progress', 'exec_cancelled'],
  413: ['too_large'],
  415: ['unsupported_media_type'],
  422: ['idempotency_mismatch', 'start_failed'],
  429: ['rate_limited', 'too_many_execs'],
  500: ['internal'],
  502: ['host_unreachable', 'host_key_mismatch', 'login_refused', 'shell_unsupported', 'connection_lost', 'aws_denied'],
  503: ['issuer_unavailable', 'audit_unavailable', 'capacity', 'aws_throttled', 'aws_unavailable', 'draining'],
  504: ['exec_timeout', 'connect_timeout'],
};

test('every code has the status of the contract', () => {
  const table = Object.entries(STATUSES).flatMap(([status, codes]) => codes.map((code) => [code, Number(status)]));
  expect(ERROR_CODES.map((code) => [code, statusOf(code)]).sort()).toEqual(table.sort());
});

test('a body has every member that applies, and no other', () => {
  expect(problemBody(new SallyportError('not_found', 'no'), IDS)).toEqual({
    type: 'urn:sallyport:problem:not_found',
    title: 'Not found',
    status: 404,
    detail: 'no',
    code: 'not_found',
    error: 'no',
    request_id: 'r-1',
  });
  const details = { failedStep: 'banner', retryable: false, timeoutS: 20, remedy: 'look at it' } as const;
  const error = new SallyportError('connect_timeout', 'no banner', details);
  const body = problemBody(error, { requestId: 'r-1', execId: 'e-1' }, { outcome: 'unreachable', survivors: null });
  expect(body).toMatchObject({
    detail: 'no banner; look at it',
    error: 'no banner; look at it',
    exec_id: 'e-1',
    outcome: 'unreachable',
    failed_step: 'banner',
    retryable: false,
    timeout_s: 20,
    survivors: null,
  });
});

test('an internal error says nothing of its cause', () => {
  const error = new SallyportError('internal', 'connect ECONNREFUSED 10.0.0.5:5432', { cause: new Error('x') });
  expect(JSON.stringify(problemBody(error, IDS))).not.toMatch(/ECONNREFUSED|10\.0\.0\.5/);
});
