/**
 * What carries one command to a host and its output back: an SSH channel, an exec of a container engine, a local child.
 *
 * program.ts speaks over it and channel-session.ts makes a Session of many; neither knows what is below.
 */
import type { SallyportError } from '../errors.ts';
import type { Exit, ProcessMarker } from '../sessions/session.ts';

export interface Channel {
  /**
   * Runs the bootstrap (bootstrap.ts) on the host and sends `input`, then end-of-file. Once. `reader`: of the preamble at
   * the beginning of the input; `bash` only where `login` says so.
   */
  run(input: readonly Buffer[], events: ChannelEvents, reader: 'sh' | 'bash'): void;
  /** What all channels of a connection know of the login shell; null: none stands between. */
  readonly login: LoginShell | null;
  /** The reader took this many bytes; at most OUTPUT_BUFFER_MAX_BYTES may be on their way without. */
  grant(bytes: number): void;
  /**
   * The process session that holds this program and what it starts, and nothing else: only such a one is ended as a
   * whole. `stat`: what the program said of its own. Null: there is none, its processes are found by EXEC_ID alone.
   */
  ownSession(pid: number, stat: OwnSession): OwnSession | null;
  close(): void;
}

export interface LoginShell {
  /** Asked until it is known. */
  kind: 'unknown' | 'bash' | 'other';
}

export type OwnSession = NonNullable<ProcessMarker['session']>;

export interface ChannelEvents {
  /** Owns the bytes from now on; calls `grant` when they were taken. Must not throw. */
  data(stream: 'stdout' | 'stderr', bytes: Buffer): void;
  /** No more output on either stream. */
  eof(): void;
  /** How the command ended; output may still come. Null: the host said that it ended, not how. */
  exit(exit: Ended | null): void;
  /** The channel is gone, last of all and once. `refused`: the host would not run the command. */
  closed(refused: boolean): void;
}

/** An end that is known. */
export type Ended = Exclude<Exit, { kind: 'lost' }>;

/** Channels to one host. */
export interface Carrier {
  /**
   * Opens a channel, nothing of the request on it yet. Rejects with ChannelRefused when the host has no room for
   * another, with a SallyportError to be told as it is, with another error when the host cannot be reached this way any
   * more. What is opened after `signal` aborted is closed at once.
   */
  open(signal: AbortSignal): Promise<Channel>;
  /** Resolves once, when no channel can be opened any more; null: closed by us. Never rejects. */
  readonly closed: Promise<Error | null>;
  /** Ends every channel. Safe to call twice. */
  close(): void;
  /** `shell_unsupported` in the words of this kind of host; `what` it did instead of running the command. */
  unsupported(what: string): SallyportError;
}

/** What running a program on one of its channels needs of a carrier. */
export type Host = Pick<Carrier, 'unsupported'>;

/** The host refused to open a channel; the connection is fine. */
export class ChannelRefused extends Error {
  constructor(reason: unknown) {
    super(`the host refused another channel on this connection (reason ${String(reason)})`);
  }
}
