/**
 * The AuditLog port: one exec, one row, opened before the host is touched, closed exactly once on every path.
 *
 * `exec()` takes an `OpenEntry`, so an unaudited run does not compile. No output, stdin or environment value has a
 * field here. Masking of argv happens before (access/mask.ts), so a store cannot forget it.
 */
import type { Outcome } from './outcome.ts';
import type { Survivors } from './sessions/session.ts';
import type { DriverName } from './workspace.ts';

/** Who asked, as the row says it: `org-token:<jti prefix>`, `session:<sub>`, `admin-token`, `workspace:<id>`. */
export type ActorName = string;

export interface ExecRequestFacts {
  /** Absent: an exec. */
  activity?: { type: string; method: string; summary: string };
  execId: string;
  orgId: string;
  workspaceId: string;
  actor: ActorName;
  requestId: string;
  /** Already masked. */
  argv: readonly string[];
  cwd: string | null;
  envNames: readonly string[];
  stdinBytes: number;
  timeoutS: number;
  driver: DriverName;
}

export interface ExecResultFacts {
  outcome: Outcome;
  exitCode: number | null;
  /** Name without SIG, e.g. `TERM`. */
  signal: string | null;
  durationMs: number;
  stdoutBytes: number;
  stderrBytes: number;
  /** undefined: nobody had to look. */
  survivors?: Survivors;
  reaped?: boolean | 'unknown';
  /** Safe text: code and message, never output. */
  errorDetail: string | null;
  /** The connect trace where there was one; JSON. */
  toolTrace?: unknown;
  /** Kept for replays. Absent: the program was never asked to start, or the request had no key. */
  answer?: Omit<GivenAnswer, 'execId'>;
}

/** A request that must not run twice, within its org, workspace and actor. */
export interface OnceKey {
  key: string;
  /** Keyed: bodies hold secrets. */
  bodyHash: string;
}

/** What the first request with a key was answered: its status and its terminal frame, as replays show it. */
export interface GivenAnswer {
  execId: string;
  status: number;
  frame: Record<string, unknown>;
}

export interface OpenEntry {
  readonly execId: string;
  /**
   * Completes the row. Returns at once; a failed write is retried as long as the process lives. A second call throws.
   * The returned promise resolves when the row is durable (used by drain and tests; callers need not wait).
   */
  close(result: ExecResultFacts): Promise<void>;
}

export interface RefusalFacts {
  orgId: string;
  /** The id that was asked for; it may not exist. */
  workspaceId: string | null;
  actor: ActorName;
  requestId: string;
  method: string;
  code: string;
  message: string;
  activityType: string;
}

/** A change made through the API by an admin or a token holder: tokens, workspaces, orgs. */
export interface ChangeFacts {
  orgId: string;
  workspaceId: string | null;
  actor: ActorName;
  requestId: string;
  activityType: string;
  method: string;
  summary: string;
  targetId: string | null;
}

export interface AuditLog {
  /** Commits the row of an exec, or of something else that runs on a host, with status `running`. Rejects with `audit_unavailable` when it cannot. */
  open(facts: ExecRequestFacts): Promise<OpenEntry>;
  /**
   * As `open`, for a request with a key: the key is taken together with the row. Resolves with the first answer when there
   * is one. Rejects `idempotency_in_progress` while the first request runs, `idempotency_mismatch` for another body.
   */
  openOnce(facts: ExecRequestFacts, once: OnceKey): Promise<{ entry: OpenEntry } | { answer: GivenAnswer }>;
  /** Writes a `refused` row, bounded per actor and minute. Never rejects: a refusal is answered either way. */
  refused(facts: RefusalFacts): Promise<void>;
  /** Writes an `ok` row for a change. Rejects with `audit_unavailable`: the change must then not happen. */
  changed(facts: ChangeFacts): Promise<void>;
  /** Resolves when every entry that was closed until now is durable, or the signal aborts. */
  flush(signal: AbortSignal): Promise<void>;
}

export interface ActivityFilter {
  orgId: string;
  workspaceId?: string;
  type?: string;
  status?: string;
  actor?: string;
  since?: Date;
  until?: Date;
  limit: number;
  /** Opaque cursor from an earlier page. */
  after?: string;
}

/** A row as lists show it: the columns of contract section 3, ISO times. */
export type ActivityRow = Record<string, unknown> & { id: string; seq: string };

export interface ActivityReader {
  /** Newest first. Rejects with `invalid_request` on a cursor it did not make. */
  list(filter: ActivityFilter): Promise<{ items: ActivityRow[]; next: string | null }>;
  /** What runs now, on every replica. */
  running(orgId: string, workspaceId: string): Promise<RunningExec[]>;
}

export interface RunningExec {
  exec_id: string;
  argv: string[];
  actor: string;
  started_at: string;
  outcome: null;
}
