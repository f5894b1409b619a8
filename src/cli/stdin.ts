/**
 * Which standard input travels with an exec, and reading it: all of it, because it is a field of the request.
 *
 * - A file or a pipe is read to its end, as by any filter. `producer | sallyport exec …` waits for the producer.
 * - A terminal, /dev/null and other devices: nothing is sent, the program reads end-of-file at once.
 * - A socket is what programs and daemons hand down, often open and silent for ever. It must begin within a second,
 *   or the program runs without it, and a note says so.
 * `--stdin` reads whatever it is to its end; `--no-stdin` never reads, which is what a `while read` loop needs.
 */
import { fstatSync } from 'node:fs';
import { SallyportError } from '../errors.ts';
import type { Io } from './io.ts';
import type { Output } from './output.ts';

/** Source: contract, section 1. */
const STDIN_MAX_BYTES = 1024 * 1024;
/** Whoever means to write to a socket has begun by then; a shell's pipe is a pipe. */
const SOCKET_FIRST_BYTE_MS = 1_000;
/** A pipe without a byte for this long may be one that nobody will ever write to. */
const PIPE_NOTE_MS = 2_000;

export type StdinChoice = 'auto' | 'always' | 'never';

/** Null: nothing to send. Throws `too_large` above 1 MiB, the signal's reason when aborted. */
export async function readStdin(
  choice: StdinChoice,
  how: { io: Pick<Io, 'stdin' | 'stdinFd'>; output: Output; signal: AbortSignal },
): Promise<Buffer | null> {
  if (choice === 'never') return null;
  const kind = kindOf(how.io.stdinFd);
  if (kind === 'device' && (choice === 'auto' || how.io.stdin.isTTY !== true)) return null;
  if (choice === 'always' || kind === 'file') return await readToEnd(how.io.stdin, how.signal, null);
  if (kind === 'socket') return await readSocket(how);
  const note = () => how.output.note('waiting for standard input, a pipe (--no-stdin runs without it)');
  return await readToEnd(how.io.stdin, how.signal, { ms: PIPE_NOTE_MS, act: note });
}

/** By descriptor: opening it as a stream loads a dozen modules of Node, also for /dev/null, where nothing is read. */
function kindOf(fd: number): 'device' | 'file' | 'pipe' | 'socket' {
  const stat = fstatSync(fd);
  if (stat.isFile()) return 'file';
  if (stat.isFIFO()) return 'pipe';
  return stat.isSocket() ? 'socket' : 'device';
}

async function readSocket(how: { io: Pick<Io, 'stdin'>; output: Output; signal: AbortSignal }) {
  const silent = new AbortController();
  const patience = { ms: SOCKET_FIRST_BYTE_MS, act: () => silent.abort() };
  try {
    return await readToEnd(how.io.stdin, AbortSignal.any([how.signal, silent.signal]), patience);
  } catch (error) {
    if (!silent.signal.aborted) throw error;
    how.output.note('standard input is an open, silent socket: running without it (--stdin waits for it)');
    return null;
  }
}

/** `firstByte.act` is called when nothing, not even the end, has come by then. */
async function readToEnd(
  stdin: Io['stdin'],
  signal: AbortSignal,
  firstByte: { ms: number; act: () => void } | null,
): Promise<Buffer | null> {
  const chunks: Buffer[] = [];
  let length = 0;
  const timer = firstByte === null ? undefined : setTimeout(firstByte.act, firstByte.ms);
  const ended = new Promise<void>((resolve, reject) => {
    stdin.on('data', (chunk: Buffer) => {
      clearTimeout(timer);
      chunks.push(chunk);
      length += chunk.length;
      if (length > STDIN_MAX_BYTES) reject(tooLarge());
    });
    stdin.once('end', resolve);
    stdin.once('error', reject);
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    if (signal.aborted) reject(signal.reason);
  });
  try {
    await ended;
  } finally {
    clearTimeout(timer);
    stdin.removeAllListeners('data');
    stdin.pause();
  }
  return length === 0 ? null : Buffer.concat(chunks, length);
}

function tooLarge(): SallyportError {
  return new SallyportError(
    'too_large',
    `standard input is larger than ${STDIN_MAX_BYTES} bytes, the most that can be sent`,
    {
      remedy: 'nothing was run; --no-stdin runs without it',
    },
  );
}
