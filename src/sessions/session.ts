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
  /**
   * The same way for a diagnosis: nothing from memory, one step after the other, so that the trace shows each by itself.
   * `host_key`: ends when the host has proved its key, before anything is pushed or logs in; resolves null, with nothing
   * left open. `login`: resolves with a session that the caller closes. Rejects as `open` does.
   */
  probe(workspace: Workspace, opening: Opening, until: ProbeEnd): Promise<Session | null>;
  /** What can be learned without a login. Rejects with a SallyportError, or with the signal's reason. */
  inspect(workspace: Workspace, signal: AbortSignal): Promise<HostFacts>;
  /** The serial console. Rejects as `inspect` does; `invalid_request` where this kind of host has none. */
  readConsole(workspace: Workspace, signal: AbortSignal): Promise<ConsoleLog>;
}

export type ProbeEnd = 'host_key' | 'login';

export interface HostFacts {
  /** What the platform says of the host, as it is shown; null: it knows of none. */
  instance: Readonly<Record<string, unknown>> | null;
  /** The platform's own checks. */
  health: Health;
  /** Its clock minus ours; 0 where nobody can say. */
  clockOffsetMs: number;
}

/** `ok` null: there are no such checks, they have not ended, or could not be read; `detail` says which. */
export type Health = { ok: boolean | null; detail: string; durationMs: number | null };

export interface ConsoleLog {
  instanceId: string;
  /** Raw bytes, at most the last 64 KiB; null: nothing was posted. */
  output: Buffer | null;
}

export interface Opening {
  signal: AbortSignal;
  /** Steps are written here as they happen, so that a timeout can name the step that hung. */
  trace: ConnectTrace;
  /**
   * Waits for a place among the connections that share `resource`, e.g. an endpoint's id. To be called before the
   * scarce way is taken, once per opening; whoever called `open` gives the place back when the session is closed.
   */
  reserve(resource: string): Promise<void>;
}

export interface Session {
  /**
   * Starts one program. Resolves when the host has answered with the program's pid; rejects with a SallyportError
   * (`shell_unsupported`, `start_failed`, `connection_lost`) when it was not started. The channel may be opened at once,
   * but no byte of `spec` is sent before `committed` resolves; if that rejects, so does `start`, with the same error.
   * `sending` is told right before the request leaves: from then on the program may run, whatever is answered.
   * Aborting `signal` before the request is sent rejects with its reason. Afterwards the answer is waited for
   * ANSWER_GRACE_MS more, and the process handed out all the same, for the caller to kill; without an answer the host is
   * searched for EXEC_ID, what is found ended, and the reason thrown.
   */
  start(
    spec: StartSpec,
    how: { signal: AbortSignal; committed: Promise<unknown>; sending?: () => void },
  ): Promise<Process>;
  /**
   * Ends what is left of an exec that another session, or another gateway, started. Null: could not look.
   * Never rejects; gives up after KILL_BUDGET_MS.
   */
  reap(marker: ProcessMarker): Promise<Survivors>;
  /** Execs this session takes at once now; may fall when the host refuses channels. */
  readonly capacity: number;
  /** Resolves once, when the session is dead for whatever reason; null: closed by us. Never rejects. */
  readonly closed: Promise<Error | null>;
  /** Closes the session and everything on it. Safe to call twice. */
  close(): void;
}

/** One user of a session. */
export interface Lease {
  readonly session: Session;
  /** Gives the place back. A second call throws. */
  release(): void;
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

/** What an exec's processes are found by on the host. */
export interface ProcessMarker {
  /** In the environment of each of them, as EXEC_ID. */
  execId: string;
  /** Session id and the leader's start time in clock ticks after boot; null where unknown. */
  session: { sid: number; startTicks: string } | null;
}

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
  readonly marker: ProcessMarker;
  /**
   * Output in order of arrival, ends when both streams reached end-of-file or the process was let go. To be read by one
   * reader; not reading slows the program and buffers at most OUTPUT_BUFFER_MAX_BYTES beside the transport's own window.
   */
  readonly output: AsyncIterable<OutputChunk>;
  /** True once both streams reached end-of-file. */
  readonly outputEnded: boolean;
  /** Resolves when the program's end is known or lost; may come while `output` is still open. Never rejects. */
  readonly exit: Promise<Exit>;
  /**
   * TERM, KILL_GRACE_MS, KILL to every process of the program's session and what escaped from it; looks again.
   * Null: could not look, for instance because this connection is dead; `Session.reap` on another one may.
   * Never rejects; gives up after KILL_BUDGET_MS.
   */
  kill(): Promise<Survivors>;
  /** Looks for what is left of the program's session without touching it. Never rejects. */
  look(): Promise<Survivors>;
  /** Gives the channel back. Does not end the program. Safe to call twice. */
  release(): void;
}
