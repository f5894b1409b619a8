/**
 * Leaving an exec before its end: Ctrl-C, SIGTERM, or a reader that closed our stdout.
 *
 * The program on the host is cancelled by name and its end awaited for a few seconds, so that the prompt does not come
 * back before the program is gone; then we hang up, which cancels it as well. Before the exec has told its id there is
 * only hanging up. A second signal leaves at once. The first cause decides the exit code.
 */
import { ProblemError } from '../client/problem.ts';
import type { EndSignal, Io } from './io.ts';
import { EXIT, exitOfBroken, type Output } from './output.ts';

/** TERM, two seconds, KILL, a last look: what the gateway needs, and a little for the way. */
const CANCEL_WAIT_MS = 6_000;
/** The terminal frame follows the answer to the cancelling. */
const LAST_FRAME_WAIT_MS = 500;
/** After this much waiting a person wonders. */
const EXPLAIN_AFTER_MS = 1_000;

export interface Ending {
  /** Aborted: hang up. */
  readonly signal: AbortSignal;
  /** Resolves with the exit code when there is nothing left to wait for. */
  readonly left: Promise<number>;
  /** Null: nobody wants to leave. */
  readonly exitCode: number | null;
  /** From now on the exec can be cancelled by name. */
  started(cancel: (signal: AbortSignal) => Promise<void>): void;
  /** Signals end the process again. */
  release(): void;
}

export function watchEnding(io: Pick<Io, 'onSignal'>, output: Output): Ending {
  const hangUp = new AbortController();
  const patience = new AbortController();
  let leave = (_exitCode: number) => {};
  const left = new Promise<number>((resolve) => {
    leave = resolve;
  });
  let exitCode: number | null = null;
  let cancel: ((signal: AbortSignal) => Promise<void>) | null = null;

  async function end(code: number): Promise<void> {
    exitCode = code;
    if (cancel !== null) await endRemotely(cancel, patience.signal, output);
    hangUp.abort(new Error('left before the end'));
    leave(code);
  }

  const take = (name: EndSignal) => {
    if (exitCode === null) return void end(name === 'SIGINT' ? EXIT.interrupted : EXIT.terminated);
    patience.abort();
  };
  const takeBack = io.onSignal(take);
  output.broken.addEventListener('abort', () => {
    if (exitCode === null) void end(exitOfBroken(output, EXIT.lost));
  });

  return {
    signal: hangUp.signal,
    left,
    get exitCode() {
      return exitCode;
    },
    started(how) {
      cancel = how;
    },
    release() {
      patience.abort();
      takeBack();
    },
  };
}

/** Never rejects: whatever happens here, hanging up comes next. */
async function endRemotely(
  cancel: (signal: AbortSignal) => Promise<void>,
  patience: AbortSignal,
  output: Output,
): Promise<void> {
  const late = new AbortController();
  const limit = setTimeout(() => late.abort(new Error(`nothing came for ${CANCEL_WAIT_MS / 1000} s`)), CANCEL_WAIT_MS);
  const explain = setTimeout(() => output.note('ending the program (once more leaves at once)'), EXPLAIN_AFTER_MS);
  try {
    await cancel(AbortSignal.any([patience, late.signal]));
    const { setTimeout: sleep } = process.getBuiltinModule('node:timers/promises'); // no run that ends by itself needs it
    await sleep(LAST_FRAME_WAIT_MS, undefined, { signal: patience });
  } catch (error) {
    // Not found: it has ended by itself meanwhile.
    if (patience.aborted || (error instanceof ProblemError && error.status === 404)) return;
    const reason = error instanceof Error ? error.message : String(error);
    output.note(`the gateway did not confirm the end of the program: ${reason}`);
  } finally {
    clearTimeout(limit);
    clearTimeout(explain);
  }
}
