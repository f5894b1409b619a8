/**
 * One program on an open channel: bootstrap, answer, output, exit, end. The same over SSH, an engine, a local child.
 *
 * Output is kept in a queue that the channel bounds: bytes are granted back to it when the reader takes them.
 */
import { SallyportError } from '../errors.ts';
import { deferred } from '../sessions/deferred.ts';
import { createOutputQueue } from '../sessions/output-queue.ts';
import type { Exit, Process, ProcessMarker, Survivors } from '../sessions/session.ts';
import {
  type Answer,
  type BootstrapSpec,
  fitsLoginShell,
  parseAnswer,
  refusalText,
  writePreamble,
} from './bootstrap.ts';
import type { Channel, ChannelEvents, Host } from './channel.ts';
import { KILL_SCRIPT, readSurvivors } from './kill-script.ts';

/** An answer line is a nonce and a line of /proc/pid/stat; more than this is noise of another kind. */
const ANSWER_MAX_BYTES = 4096;
/** Noise of rc files before the answer is dropped; a host that says more than this before it is not answering. */
const NOISE_MAX_BYTES = 8 * 1024 * 1024;

/** What the channel itself can say; kill and look need another channel, which the session opens. */
export interface Program extends Omit<Process, 'kill' | 'look'> {
  /** Resolves when the channel is gone and its place on the connection free. */
  readonly ended: Promise<void>;
}

/**
 * Makes ready to run `spec` on an open channel; nothing is sent before the function that it returns is called, once. That
 * resolves when the host has answered with the pid; rejects `shell_unsupported`, `start_failed` or `connection_lost`. The
 * channel is closed on rejection and on `release`.
 */
export function prepareProgram(
  channel: Channel,
  spec: BootstrapSpec & { stdin: Buffer | null },
  { unsupported }: Host,
): () => Promise<Program> {
  const { login } = channel;
  const reader = login?.kind === 'bash' && fitsLoginShell(spec) ? 'bash' : 'sh';
  const { line, nonce } = writePreamble(spec, reader);
  const output = createOutputQueue((bytes) => channel.grant(bytes));
  const stdout = createAnswerScanner(nonce);
  const stderr = createAnswerScanner(nonce);
  let started = false;
  let exit: Exit | null = null;
  const exitKnown = deferred<Exit>();
  const ended = deferred();

  const input = spec.stdin === null ? [line] : [line, spec.stdin];
  return () =>
    new Promise((resolve, reject) => {
      const fail = (error: SallyportError): void => {
        if (started) return;
        // Whatever the login shell is, it does not do what was expected of it.
        if (login !== null && reader === 'bash' && error.code === 'shell_unsupported') login.kind = 'other';
        reject(error);
        channel.close();
      };
      const onAnswer = (text: string): void => {
        const answer = parseAnswer(text);
        if (answer === null) fail(unsupported('it did not answer as asked'));
        else if (answer.kind === 'no')
          fail(new SallyportError('start_failed', refusalText(answer.reason), { outcome: 'unreachable' }));
        else {
          started = true;
          if (login?.kind === 'unknown') login.kind = answer.fromBash ? 'bash' : 'other';
          resolve(describe(answer));
        }
      };
      const ownSession = ({ pid, stat }: Answer & { kind: 'ok' }): ProcessMarker['session'] =>
        stat === null ? null : channel.ownSession(pid, stat);
      const describe = (answer: Answer & { kind: 'ok' }): Program => {
        const marker: ProcessMarker = { execId: spec.execId ?? '', session: ownSession(answer) };
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

      const endedBefore = (end: Exit | null): SallyportError =>
        end === null ? connectionLost() : unsupported(exitText(end));

      const events: ChannelEvents = {
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
          exit = end;
          if (exit !== null) exitKnown.resolve(exit);
        },
        closed(refused) {
          output.cut();
          if (exit === null) exitKnown.resolve({ kind: 'lost', error: connectionLost() });
          if (!started) fail(refused ? unsupported('it refused to run a command') : endedBefore(exit));
          ended.resolve();
        },
      };
      channel.run(input, events, reader);
    });
}

function connectionLost(): SallyportError {
  return new SallyportError('connection_lost', 'the connection to the host was lost', { outcome: 'connection_lost' });
}

function exitText(exit: Exit): string {
  return exit.kind === 'exited'
    ? `it ended with status ${exit.code} without running the command`
    : 'it ended without running the command';
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

/** Runs the kill script on an open channel of its own. By exec id; absent or null: could not look. Never rejects. */
export async function runKillScript(
  channel: Channel,
  mode: 'kill' | 'look',
  { markers, signal, host }: { markers: readonly ProcessMarker[]; signal: AbortSignal; host: Host },
): Promise<Map<string, Survivors>> {
  const onAbort = (): void => channel.close();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    const spec = {
      argv: ['/bin/sh', '-s', '--', mode, ...markers.map(targetOf)],
      env: {},
      cwd: null,
      execId: null,
      fixedPath: false,
      stdin: Buffer.from(KILL_SCRIPT),
    } as const;
    const script = await prepareProgram(channel, spec, host)();
    let text = '';
    for await (const chunk of script.output) if (chunk.stream === 'stdout') text += chunk.bytes.toString('latin1');
    return new Map(markers.map(({ execId }) => [execId, readSurvivors(text, execId)]));
  } catch {
    // The script did not run, so nobody looked, which is what an empty answer says.
    return new Map();
  } finally {
    signal.removeEventListener('abort', onAbort);
    channel.close();
  }
}

function targetOf({ execId, session }: ProcessMarker): string {
  return `${execId}:${session?.sid ?? 0}:${session?.startTicks ?? 0}`;
}
