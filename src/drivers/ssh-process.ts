/**
 * One program on an open SSH connection: bootstrap, answer, output, exit, end.
 *
 * Output is kept in a queue that the SSH window bounds: bytes are granted back to the host when the reader takes them.
 */
import { SallyportError } from '../errors.ts';
import { deferred } from '../sessions/deferred.ts';
import { createOutputQueue } from '../sessions/output-queue.ts';
import type { Exit, Process, ProcessMarker, Survivors } from '../sessions/session.ts';
import { type Answer, BOOTSTRAP, type BootstrapSpec, parseAnswer, refusalText, writePreamble } from './bootstrap.ts';
import { KILL_SCRIPT, readSurvivors } from './kill-script.ts';
import type { ChannelEnd, SshChannel } from './ssh-channel.ts';

/** An answer line is a nonce and a line of /proc/pid/stat; more than this is noise of another kind. */
const ANSWER_MAX_BYTES = 4096;
/** Noise of rc files before the answer is dropped; a host that says more than this before it is not answering. */
const NOISE_MAX_BYTES = 8 * 1024 * 1024;

/** What the channel itself can say; kill and look need another channel, which the session opens. */
export interface SshProcess extends Omit<Process, 'kill' | 'look'> {
  /** Resolves when the channel is gone and its place on the connection free. */
  readonly ended: Promise<void>;
}

/**
 * Runs `spec` on an open channel. Resolves when the host has answered with the pid; rejects `shell_unsupported`,
 * `start_failed` or `connection_lost`. The channel is closed on rejection and on `release`.
 */
export function startProcess(channel: SshChannel, spec: BootstrapSpec & { stdin: Buffer | null }): Promise<SshProcess> {
  const { line, nonce } = writePreamble(spec);
  const output = createOutputQueue((bytes) => channel.grant(bytes));
  const stdout = createAnswerScanner(nonce);
  const stderr = createAnswerScanner(nonce);
  let started = false;
  let exit: Exit | null = null;
  const exitKnown = deferred<Exit>();
  const ended = deferred();

  return new Promise((resolve, reject) => {
    const fail = (error: SallyportError): void => {
      if (started) return;
      channel.close();
      reject(error);
    };
    const onAnswer = (text: string): void => {
      const answer = parseAnswer(text);
      if (answer === null) fail(unsupported('it did not answer as asked'));
      else if (answer.kind === 'no')
        fail(new SallyportError('start_failed', refusalText(answer.reason), { outcome: 'unreachable' }));
      else {
        started = true;
        resolve(describe(answer));
      }
    };
    const describe = (answer: Answer & { kind: 'ok' }): SshProcess => {
      const marker: ProcessMarker = { execId: spec.execId ?? '', session: answer.stat };
      return {
        pid: answer.pid,
        marker,
        output: output.chunks,
        get outputEnded() {
          return output.ended;
        },
        exit: exitKnown.promise,
        ended: ended.promise,
        release: () => {
          output.abandon();
          channel.close();
        },
      };
    };

    channel.exec(Buffer.from(BOOTSTRAP), spec.stdin === null ? [line] : [line, spec.stdin], {
      data(stream, bytes) {
        const scanner = stream === 'stdout' ? stdout : stderr;
        const found = scanner.push(bytes);
        if (found.answer !== null && stream === 'stdout') onAnswer(found.answer);
        if (found.overflow) fail(unsupported('it printed too much before the command'));
        if (found.rest !== null && found.rest.length > 0) output.push({ stream, bytes: found.rest });
        const dropped = bytes.length - (found.rest?.length ?? 0);
        if (dropped > 0) channel.grant(dropped);
      },
      eof: () => output.end(),
      exit(end) {
        exit = toExit(end);
        if (exit !== null) exitKnown.resolve(exit);
      },
      closed(refused) {
        output.end();
        const lost = new SallyportError('connection_lost', 'the connection to the host was lost', {
          outcome: 'connection_lost',
        });
        if (refused) fail(unsupported('it refused to run a command'));
        else if (exit === null) fail(lost);
        else fail(unsupported(exitText(exit)));
        exitKnown.resolve(exit ?? { kind: 'lost', error: lost });
        ended.resolve();
      },
    });
  });
}

function toExit(end: ChannelEnd): Exit | null {
  if (end.signal !== null) return { kind: 'signaled', signal: end.signal };
  return end.code === null ? null : { kind: 'exited', code: end.code };
}

function exitText(exit: Exit): string {
  return exit.kind === 'exited'
    ? `it ended with status ${exit.code} without running the command`
    : 'it ended without running the command';
}

function unsupported(what: string): SallyportError {
  return new SallyportError('shell_unsupported', `the login shell of the host cannot run commands: ${what}`, {
    failedStep: 'channel',
    outcome: 'unreachable',
    remedy: 'Look for a ForceCommand in sshd_config, a nologin or restricted login shell, or an rc file that exits.',
  });
}

interface Scanned {
  /** Text between the nonce and the end of its line, when the line was completed by this chunk. */
  answer: string | null;
  /** What followed the line: the program's own bytes. */
  rest: Buffer | null;
  overflow: boolean;
}

/** Finds the nonce in a stream and drops everything up to the end of its line; later chunks pass as they are. */
function createAnswerScanner(nonce: string): { push(bytes: Buffer): Scanned } {
  const mark = Buffer.from(nonce);
  let held: Buffer | null = Buffer.alloc(0);
  let dropped = 0;
  return {
    push(bytes) {
      if (held === null) return { answer: null, rest: bytes, overflow: false };
      held = held.length === 0 ? bytes : Buffer.concat([held, bytes]);
      const at = held.indexOf(mark);
      const end = at === -1 ? -1 : held.indexOf(0x0a, at);
      if (end !== -1) {
        const answer = held.toString('latin1', at + mark.length, end);
        const rest = held.subarray(end + 1);
        held = null;
        return { answer, rest, overflow: false };
      }
      // Without the mark only its possible beginning is kept; with it, the unfinished line.
      const keepFrom = at === -1 ? Math.max(0, held.length - mark.length + 1) : at;
      dropped += keepFrom;
      held = Buffer.from(held.subarray(keepFrom));
      return { answer: null, rest: null, overflow: dropped > NOISE_MAX_BYTES || held.length > ANSWER_MAX_BYTES };
    },
  };
}

/** Runs the kill script on an open channel of its own and reads its last line. Null: could not look. Never rejects. */
export async function runKillScript(
  channel: SshChannel,
  mode: 'kill' | 'look',
  marker: ProcessMarker,
  signal: AbortSignal,
): Promise<Survivors> {
  const { sid, startTicks } = marker.session ?? { sid: 0, startTicks: '0' };
  const onAbort = (): void => channel.close();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    const script = await startProcess(channel, {
      argv: ['/bin/sh', '-s', '--', mode, marker.execId, String(sid), startTicks],
      env: {},
      cwd: null,
      execId: null,
      fixedPath: false,
      stdin: Buffer.from(KILL_SCRIPT),
    });
    let text = '';
    for await (const chunk of script.output) if (chunk.stream === 'stdout') text += chunk.bytes.toString('latin1');
    return readSurvivors(text);
  } catch {
    // The script did not run, so nobody looked, which is what null says.
    return null;
  } finally {
    signal.removeEventListener('abort', onAbort);
    channel.close();
  }
}
