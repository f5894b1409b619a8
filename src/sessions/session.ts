/**
 * The ports between the gateway and a host: Driver, Session, Process.
 *
 * A driver opens sessions; a session starts processes; a process gives its output, its exit and a way to end it. Every
 * method is required, and every driver passes the suite in test/drivers/contract.ts.
 */
import type { DriverName, Workspace } from '../workspace.ts';
import type { ConnectTrace } from './trace.ts';

export interface Driver {
  readonly name: DriverName;
  /** Identity of the connection: workspaces with equal keys may share a session. Pure; never dials. */
  key(workspace: Workspace): string;
  /**
   * Opens one authenticated session. Rejects with a SallyportError whose details name `failedStep`.
   * Aborting `signal` rejects with its reason and leaves nothing open. The caller closes the session.
   */
  open(workspace: Workspace, opening: Opening): Promise<Session>;
}

export interface Opening {
  signal: AbortSignal;
  /** Steps are written here as they happen, so that a timeout can name the step that hung. */
  trace: ConnectTrace;
}

export interface Session {
  /**
   * Starts one program. Resolves when the host has answered with the program's pid; rejects with a SallyportError
   * (`shell_unsupported`, `start_failed`, `connection_lost`) when it was not started. The channel may be opened at once,
   * but no byte of `spec` is sent before `committed` resolves; if that rejects, so does `start`, with the same error.
   * Aborting `signal` before the pid is known ends what may have been started, then rejects with the signal's reason.
   */
  start(spec: StartSpec, how: { signal: AbortSignal; committed: Promise<unknown> }): Promise<Process>;
  /** Ends every process that carries `EXEC_ID=<execId>`, without a Process at hand. */
  reap(execId: string): Promise<Survivors>;
  /** Execs this session takes at once now; may fall when the host refuses channels. */
  readonly capacity: number;
  /** Resolves once, when the session is dead for whatever reason; null: closed by us. Never rejects. */
  readonly closed: Promise<Error | null>;
  /** Closes the session and everything on it. Safe to call twice. */
  close(): void;
}

export interface StartSpec {
  execId: string;
  argv: readonly [string, ...string[]];
  /** Added to the login environment; values appear in no command line. */
  env: Readonly<Record<string, string>>;
  /** Absolute path, or null: the login directory. */
  cwd: string | null;
  /** Null: end-of-file at once. */
  stdin: Buffer | null;
  /** A token with command rules gets a PATH that its holder cannot have prepared. */
  fixedPath: boolean;
}

/** Pids still there after a look: `[]` looked and found none, `null` could not look. */
export type Survivors = number[] | null;

export interface OutputChunk {
  stream: 'stdout' | 'stderr';
  bytes: Buffer;
}

/** How the program itself ended, or that nobody can say. */
export type Exit =
  | { kind: 'exited'; code: number }
  | { kind: 'signaled'; signal: string }
  | { kind: 'lost'; error: Error };

export interface Process {
  readonly pid: number;
  /**
   * Output in order of arrival, ends when both streams reached end-of-file or the process was let go. To be read by one
   * reader; not reading slows the program and buffers at most OUTPUT_BUFFER_MAX_BYTES beside the transport's own window.
   */
  readonly output: AsyncIterable<OutputChunk>;
  /** True once both streams reached end-of-file. */
  readonly outputEnded: boolean;
  /** Resolves when the program's end is known or lost; may come while `output` is still open. Never rejects. */
  readonly exit: Promise<Exit>;
  /** TERM, KILL_GRACE_MS, KILL to every process of the program's session and what escaped from it; looks again. */
  kill(): Promise<Survivors>;
  /** Looks for what is left of the program's session without touching it. */
  look(): Promise<Survivors>;
  /** Gives the channel back. Does not end the program. Safe to call twice. */
  release(): void;
}
