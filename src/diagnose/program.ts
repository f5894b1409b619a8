/**
 * One program of ours on a session: run to its end or ended at its deadline, the head and the tail of what it wrote.
 *
 * Execs of callers go through exec/run.ts; this one has no frames, no slow reader and no audit row of its own.
 */
import type { Exit, Session } from '../sessions/session.ts';

export interface ProgramRun {
  execId: string;
  argv: readonly [string, ...string[]];
  timeoutMs: number;
  /** Of both streams together; what is longer loses its middle. */
  keepBytes: number;
}

export interface ProgramResult {
  /** Null: ended by us at the deadline. */
  exit: Exit | null;
  head: Buffer;
  /** Null: everything is in `head`. */
  tail: Buffer | null;
  droppedBytes: number;
}

/** Rejects as Session.start does, or with the reason of `signal`; the program is ended then. */
export async function runProgram(session: Session, run: ProgramRun, signal: AbortSignal): Promise<ProgramResult> {
  const { execId, argv, timeoutMs, keepBytes } = run;
  const process = await session.start(
    { execId, argv, env: {}, cwd: null, stdin: null, fixedPath: true },
    { signal, committed: Promise.resolve() },
  );
  const kept = createKeeper(keepBytes);
  let ended = false;
  let late = false;
  let kill: Promise<unknown> = Promise.resolve();
  const end = (): void => {
    if (ended) return;
    ended = true;
    kill = process.kill().finally(() => process.release());
  };
  const timer = setTimeout(() => {
    late = true;
    end();
  }, timeoutMs);
  signal.addEventListener('abort', end, { once: true });
  if (signal.aborted) end();
  try {
    for await (const { bytes } of process.output) kept.add(bytes);
    const exit = late ? null : await process.exit;
    ended ||= exit !== null;
    await kill;
    signal.throwIfAborted();
    return { exit, ...kept.result() };
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', end);
    process.release();
  }
}

/** Half of the room for the head, half for a tail that moves on. */
function createKeeper(keepBytes: number) {
  const half = Math.floor(keepBytes / 2);
  const head: Buffer[] = [];
  let headBytes = 0;
  let tail: Buffer[] = [];
  let tailBytes = 0;
  let dropped = 0;
  return {
    add(bytes: Buffer): void {
      const first = bytes.subarray(0, half - headBytes);
      if (first.length > 0) head.push(first);
      headBytes += first.length;
      const rest = bytes.subarray(first.length);
      if (rest.length === 0) return;
      tail.push(rest);
      tailBytes += rest.length;
      if (tailBytes <= 4 * half) return;
      const whole = Buffer.concat(tail);
      tail = [Buffer.from(whole.subarray(whole.length - half))];
      dropped += whole.length - half;
      tailBytes = half;
    },
    result(): Pick<ProgramResult, 'head' | 'tail' | 'droppedBytes'> {
      const whole = Buffer.concat(tail);
      const over = Math.max(0, whole.length - half);
      const droppedBytes = dropped + over;
      if (droppedBytes === 0) return { head: Buffer.concat([...head, whole]), tail: null, droppedBytes };
      return { head: Buffer.concat(head), tail: whole.subarray(over), droppedBytes };
    },
  };
}
