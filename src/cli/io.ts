/** What a command line needs of its process, as one argument: streams, environment, signals. */

export type EndSignal = 'SIGINT' | 'SIGTERM';

export interface Io {
  readonly stdin: NodeJS.ReadableStream & { isTTY?: boolean };
  /** Descriptor of stdin, to look at what it is without opening it. */
  readonly stdinFd: number;
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: NodeJS.WritableStream;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** While a handler is set the signals do not end the process. Returns the way to take it back. */
  onSignal(handler: (name: EndSignal) => void): () => void;
}

/** This process. */
export function processIo(): Io {
  return {
    // Made on first use only: it costs time, and a verb that reads no input must not touch what a script lent to us.
    get stdin() {
      return process.stdin;
    },
    stdinFd: 0,
    get stdout() {
      return process.stdout;
    },
    get stderr() {
      return process.stderr;
    },
    env: process.env,
    onSignal(handler) {
      process.on('SIGINT', handler);
      process.on('SIGTERM', handler);
      return () => {
        process.off('SIGINT', handler);
        process.off('SIGTERM', handler);
      };
    },
  };
}
