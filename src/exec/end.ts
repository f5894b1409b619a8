/** The last event of an exec whose program said nothing, and the audit facts of any. */
import { createHash } from 'node:crypto';
import type { ExecResultFacts } from '../audit.ts';
import { asSallyportError, type SallyportError } from '../errors.ts';
import { EndCause } from './cause.ts';
import type { Command } from './command.ts';
import type { ExecEnd } from './frame.ts';

export const SHA256_OF_NOTHING = createHash('sha256').digest('hex');

/** An end with nothing read; what is known goes over it. */
export function endWithout(
  exec: { execId: string; command: Command },
  { durationMs, reason }: { durationMs: number; reason?: unknown },
): ExecEnd {
  const error = reason === undefined ? null : toError(reason, exec.command);
  return {
    kind: 'end',
    execId: exec.execId,
    outcome: error?.details.outcome ?? 'unreachable',
    exitCode: null,
    signal: null,
    error,
    durationMs: Math.round(durationMs),
    timeoutS: exec.command.timeoutS,
    stdoutBytes: 0,
    stderrBytes: 0,
    stdoutSha256: SHA256_OF_NOTHING,
    stderrSha256: SHA256_OF_NOTHING,
    complete: false,
  };
}

function toError(reason: unknown, command: Command): SallyportError {
  return reason instanceof EndCause ? reason.toError(command.timeoutS) : asSallyportError(reason);
}

export function auditFacts(end: ExecEnd, extra: Pick<ExecResultFacts, 'reaped' | 'survivors'> = {}): ExecResultFacts {
  const { outcome, exitCode, signal, durationMs, stdoutBytes, stderrBytes, error } = end;
  return {
    outcome,
    exitCode,
    signal,
    durationMs,
    stdoutBytes,
    stderrBytes,
    errorDetail: error === null ? null : `${error.code}: ${error.message}`,
    ...(end.survivors === undefined ? {} : { survivors: end.survivors }),
    ...extra,
  };
}
