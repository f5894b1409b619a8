/**
 * What an exec tells its caller, in order: `started`, then any number of `output` and `truncated`, then one `end`.
 *
 * Events carry bytes; http/ndjson.ts turns them into lines. `end` is always last and comes exactly once, also when the
 * program never started (then it is the only one).
 */
import type { SallyportError } from '../errors.ts';
import type { Outcome } from '../outcome.ts';
import type { Survivors } from '../sessions/session.ts';

export type StreamName = 'stdout' | 'stderr';

export type ExecEvent =
  | { kind: 'started'; pid: number }
  /** `text`: the bytes are complete valid UTF-8 and may be sent as such; otherwise they go as base64. */
  | { kind: 'output'; stream: StreamName; bytes: Buffer; text: boolean }
  /** Sent once per stream, right after byte number `capBytes`. */
  | { kind: 'truncated'; stream: StreamName; capBytes: number }
  | ExecEnd;

export interface ExecEnd {
  kind: 'end';
  execId: string;
  outcome: Outcome;
  /** Null exactly when `error` is not: the program's own end is not known. 128+n when a signal killed it. */
  exitCode: number | null;
  signal: string | null;
  error: SallyportError | null;
  durationMs: number;
  timeoutS: number;
  stdoutBytes: number;
  stderrBytes: number;
  stdoutSha256: string;
  stderrSha256: string;
  /** Both streams reached end-of-file and every byte was sent. */
  complete: boolean;
  /** Present only when somebody looked or tried to. */
  survivors?: Survivors;
}
