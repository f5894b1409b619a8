/**
 * One program from its pid to its end: output → events, deadline, cap, linger, kill.
 *
 * Events are pulled, so a slow reader slows the program through the session's own window. The end is not pulled: the
 * deadline and the caller's abort start the kill at once, whether anybody reads or not, and `ended` settles when the
 * kill is done, so the audit row never waits for a stalled reader.
 */
import { SallyportError } from '../errors.ts';
import { DISCARD_BYTES_PER_S } from '../limits.ts';
import type { Exit, Process, ProcessMarker, Survivors } from '../sessions/session.ts';
import { EndCause } from './cause.ts';
import type { Command } from './command.ts';
import { endWithout } from './end.ts';
import type { ExecEnd, ExecEvent } from './frame.ts';
import { startLinger } from './linger.ts';
import { exitCodeOfSignal } from './signals.ts';
import { createStreamTally } from './stream-tally.ts';

export interface Run {
  /** `started`, then output. Stops early when `ended` settled first; `end` itself is the caller's to send. */
  events: AsyncIterable<ExecEvent>;
  /**
   * Settles once, when the program's end is decided and, where it had to be ended, the kill is done. Never rejects. The
   * process is then the caller's to release, without which `events` may go on waiting for output.
   */
  ended: Promise<ExecEnd>;
}

export interface RunOptions {
  execId: string;
  command: Command;
  /** Its reason is an EndCause. */
  signal: AbortSignal;
  startedAtMs: number;
  /** Ends the program over another connection, when its own cannot. */
  reapElsewhere(marker: ProcessMarker): Promise<Survivors>;
}

export function run(process: Process, options: RunOptions): Run {
  const { command, signal } = options;
  const tallies = {
    stdout: createStreamTally('stdout', command.encoding, command.capBytes),
    stderr: createStreamTally('stderr', command.encoding, command.capBytes),
  };
  let exit: Exit | null = null;
  let cause: EndCause | null = null;
  let delivered = false;
  let ending = false;
  let finished = false;
  let settle: (end: ExecEnd) => void = () => {};
  const ended = new Promise<ExecEnd>((resolve) => {
    settle = resolve;
  });

  const finish = (survivors?: Survivors): void => {
    if (finished) return;
    finished = true;
    clearTimeout(deadline);
    linger.stop();
    signal.removeEventListener('abort', onAbort);
    const whole = delivered && !tallies.stdout.truncated && !tallies.stderr.truncated;
    settle({
      ...endWithout(options, { durationMs: performance.now() - options.startedAtMs }),
      ...verdict(exit, cause, command.timeoutS),
      stdoutBytes: tallies.stdout.bytes,
      stderrBytes: tallies.stderr.bytes,
      stdoutSha256: tallies.stdout.sha256(),
      stderrSha256: tallies.stderr.sha256(),
      complete: whole && cause === null && exit !== null && exit.kind !== 'lost',
      ...(survivors === undefined ? {} : { survivors }),
    });
  };

  /** Ends the program; a program that had exited by itself keeps its own end. */
  const endProgram = async (why: EndCause): Promise<void> => {
    if (ending || finished) return;
    ending = true;
    if (exit === null) cause = why;
    finish((await process.kill()) ?? (await options.reapElsewhere(process.marker)));
  };
  /** The program has exited but its output stays open: whoever holds it is named and left alone. */
  const letGo = async (): Promise<void> => {
    if (ending || finished) return;
    ending = true;
    finish(await process.look());
  };

  const onAbort = (): void => void endProgram(signal.reason as EndCause);
  const onDeadline = (): void => {
    if (exit === null) void endProgram(timedOut(command.timeoutS));
    else if (exit.kind === 'lost') finish();
    else if (!process.outputEnded) void letGo();
  };
  const deadline = setTimeout(onDeadline, command.timeoutS * 1000);
  const linger = startLinger(() => void letGo());
  signal.addEventListener('abort', onAbort, { once: true });
  void process.exit.then((how) => {
    exit = how;
    if (how.kind !== 'lost') linger.programExited();
  });
  if (signal.aborted) onAbort();

  /** Who has lost the right to the program has lost it to its output too, also to what was read already. */
  const isRevoked = (): boolean => signal.aborted && (signal.reason as EndCause).outcome === 'revoked';

  async function* events(): AsyncGenerator<ExecEvent> {
    yield { kind: 'started', pid: process.pid };
    linger.waiting(true);
    for await (const chunk of process.output) {
      linger.waiting(false);
      if (finished || isRevoked()) return;
      const tally = tallies[chunk.stream];
      const discard = tally.truncated;
      for (const event of tally.add(chunk.bytes)) {
        if (isRevoked()) return;
        yield event;
      }
      if (discard) await pause((chunk.bytes.length / DISCARD_BYTES_PER_S) * 1000);
      linger.waiting(true);
    }
    linger.waiting(false);
    if (finished || isRevoked()) return;
    yield* tallies.stdout.end();
    yield* tallies.stderr.end();
    delivered = process.outputEnded;
    await process.exit;
    if (!ending) finish();
  }
  return { events: events(), ended };
}

function timedOut(timeoutS: number): EndCause {
  return new EndCause('timed_out', `the program was ended after ${timeoutS} s (timeout_s)`);
}

/** What was decided: on purpose, by the program itself, or unknown. */
function verdict(
  exit: Exit | null,
  cause: EndCause | null,
  timeoutS: number,
): Pick<ExecEnd, 'outcome' | 'exitCode' | 'signal' | 'error'> {
  if (cause !== null) return { outcome: cause.outcome, exitCode: null, signal: null, error: cause.toError(timeoutS) };
  if (exit?.kind === 'exited') return { outcome: 'exited', exitCode: exit.code, signal: null, error: null };
  if (exit?.kind === 'signaled')
    return { outcome: 'signaled', exitCode: exitCodeOfSignal(exit.signal), signal: exit.signal, error: null };
  const error = new SallyportError('connection_lost', 'the connection to the host was lost while the program ran', {
    outcome: 'connection_lost',
    cause: exit?.error,
  });
  return { outcome: 'connection_lost', exitCode: null, signal: null, error };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
