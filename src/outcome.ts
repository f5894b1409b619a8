/**
 * The closed table of outcomes: how an exec ended, in one word.
 *
 * The same words stand in frames, problem bodies, audit rows, metric labels, documents and the command line.
 * What follows from a word (error code, audit status, CLI exit code, text) stands here and nowhere else.
 */
import type { ErrorCode } from './errors.ts';

export type Outcome = keyof typeof OUTCOMES;
export type AuditStatus = 'running' | 'ok' | 'error' | 'timeout' | 'cancelled' | 'refused' | 'interrupted';

interface OutcomeRow {
  /** One sentence for a person; `null` where the text depends on the cause. */
  text: string;
  /** Status of the finished audit row; `exited` looks at the exit code as well, see `auditStatus`. */
  auditStatus: AuditStatus;
  /** Code in the problem body or the terminal error frame; null: the program's own end, not an error. */
  code: ErrorCode | null;
  /** Exit code of `sallyport exec`; null: the program's own. Source: contract, command line. */
  cliExit: number | null;
}

export const OUTCOMES = {
  exited: { text: 'the program exited', auditStatus: 'ok', code: null, cliExit: null },
  signaled: { text: 'the program was killed by a signal', auditStatus: 'error', code: null, cliExit: null },
  timed_out: {
    text: 'the program was ended at its deadline',
    auditStatus: 'timeout',
    code: 'exec_timeout',
    cliExit: 124,
  },
  cancelled: {
    text: 'the caller cancelled the exec or hung up',
    auditStatus: 'cancelled',
    code: 'exec_cancelled',
    cliExit: 130,
  },
  revoked: {
    text: 'the right to run this was withdrawn',
    auditStatus: 'cancelled',
    code: 'exec_revoked',
    cliExit: 125,
  },
  drained: {
    text: 'the gateway is stopping and ended the program',
    auditStatus: 'cancelled',
    code: 'draining',
    cliExit: 125,
  },
  connection_lost: {
    text: 'the connection to the host was lost; how the program ended is not known',
    auditStatus: 'error',
    code: 'connection_lost',
    cliExit: 255,
  },
  unreachable: { text: 'the program never started', auditStatus: 'error', code: 'host_unreachable', cliExit: 125 },
  refused: { text: 'a gate refused the request', auditStatus: 'refused', code: 'invalid_request', cliExit: 125 },
  interrupted: {
    text: 'the gateway died while the program ran',
    auditStatus: 'interrupted',
    code: 'internal',
    cliExit: 255,
  },
} as const satisfies Record<string, OutcomeRow>;

/** Audit status of a finished exec: `exited` is `ok` only with exit code 0. */
export function auditStatus(outcome: Outcome, exitCode: number | null): AuditStatus {
  if (outcome === 'exited') return exitCode === 0 ? 'ok' : 'error';
  return OUTCOMES[outcome].auditStatus;
}
