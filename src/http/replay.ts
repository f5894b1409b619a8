/**
 * Idempotency-Key over HTTP: the header, the answer as it is kept, and the kept answer sent again.
 *
 * Output is never kept, so a replay says `complete: false` when there was any, and has no digests of what it cannot show.
 */
import type { Request, Response } from 'express';
import type { GivenAnswer } from '../audit.ts';
import { ERROR_CODES, type ErrorCode, SallyportError } from '../errors.ts';
import type { ExecEnd } from '../exec/frame.ts';
import { IDEMPOTENCY_KEY_MAX_CHARS } from '../limits.ts';
import type { Outcome } from '../outcome.ts';
import type { Survivors } from '../sessions/session.ts';
import { callOf } from './call.ts';
import { sendLine, terminalFrame } from './ndjson.ts';
import { sendProblem, statusOf } from './problem.ts';

const NAME = 'Idempotency-Key';
const PRINTABLE = /^[\x20-\x7e]+$/;

/** Null: none was sent. Throws `invalid_request`. */
export function readIdempotencyKey(req: Request): string | null {
  // The list of all headers is made when it is first read: not for every exec.
  if (req.headers[NAME.toLowerCase()] === undefined) return null;
  const sent = req.headersDistinct[NAME.toLowerCase()] ?? [];
  const [key = ''] = sent;
  if (sent.length === 1 && key.length <= IDEMPOTENCY_KEY_MAX_CHARS && PRINTABLE.test(key)) return key;
  throw new SallyportError(
    'invalid_request',
    `${NAME}: expected one value of 1 to ${IDEMPOTENCY_KEY_MAX_CHARS} printable ASCII characters`,
  );
}

/** What is kept of an end. `streams`: the first request asked for a stream, whose status is fixed by its first byte. */
export function keptAnswer(end: ExecEnd, res: Response, streams: boolean): Omit<GivenAnswer, 'execId'> {
  const hadOutput = end.stdoutBytes + end.stderrBytes > 0;
  const hasBegun = streams && (res.headersSent || hadOutput);
  const { stdout_sha256: _stdout, stderr_sha256: _stderr, ...frame } = terminalFrame(end) as Record<string, unknown>;
  return {
    status: end.error === null || hasBegun ? 200 : statusOf(end.error.code),
    frame: { ...frame, complete: end.complete && !hadOutput, replayed: true },
  };
}

/** The first answer again, in the form that this request asked for. */
export async function replay(res: Response, answer: GivenAnswer, streams: boolean): Promise<void> {
  const { execId, status, frame } = answer;
  callOf(res).execId = execId;
  callOf(res).outcome = frame.outcome as Outcome;
  res.setHeader('X-Exec-Id', execId);
  if (streams && status === 200) return sendLine(res, frame);
  const document = documentOf(frame);
  if ('exit_code' in frame) return void res.json(document);
  const code = codeOf(frame);
  callOf(res).code = code;
  await sendProblem(res, new SallyportError(code, String(frame.error), { retryable: false }), factsOf(frame), {
    ...(typeof frame.failed_step === 'string' ? { failed_step: frame.failed_step } : {}),
    ...(streams ? { replayed: true } : document),
  });
}

function codeOf({ code }: GivenAnswer['frame']): ErrorCode {
  return ERROR_CODES.find((known) => known === code) ?? 'internal';
}

function factsOf({ outcome, timeout_s, survivors }: GivenAnswer['frame']) {
  return {
    outcome: outcome as Outcome,
    ...(typeof timeout_s === 'number' ? { timeoutS: timeout_s } : {}),
    ...(survivors === undefined ? {} : { survivors: survivors as Survivors }),
  };
}

/** As the one document of an exec, with no output to show. */
function documentOf(frame: GivenAnswer['frame']): Record<string, unknown> {
  const { exec_id, exit_code = null, signal = null, outcome, duration_ms, complete, survivors } = frame;
  return {
    exec_id,
    exit_code,
    signal,
    outcome,
    success: outcome === 'exited' && exit_code === 0,
    stdout: '',
    stderr: '',
    stdout_encoding: 'utf8',
    stderr_encoding: 'utf8',
    stdout_truncated: false,
    stderr_truncated: false,
    duration_ms,
    complete,
    ...(survivors === undefined ? {} : { survivors }),
    replayed: true,
  };
}
