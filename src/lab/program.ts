/**
 * One program of an instance: a local process in a session of its own, tied to an SSH channel the way OpenSSH does it
 * without a terminal. The exit status goes out when the process has ended, whoever still holds its output; the channel
 * closes when both outputs have ended as well. A client that goes away closes the pipes and kills nothing.
 */
import { spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { basename } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import type { Pipes, ProgramPipes } from './pipes.ts';
import type { ProgramSessions } from './processes.ts';
import type { SessionChannel } from './ssh2-server.ts';

export interface ProgramSpec {
  /** The login shell, which runs `command`. */
  shell: string;
  command: string;
  cwd: string;
  /** The whole environment. */
  env: Readonly<Record<string, string>>;
}

/** Sends a signal, named without SIG, to the process group. False: no such signal, or nobody left. */
export type SendSignal = (name: string) => boolean;

/** Output read ahead of the channel, per stream. */
const READ_AHEAD_BYTES = 256 * 1024;

/** What a client may ask for; OpenSSH knows no others. */
const SIGNALS = ['ABRT', 'ALRM', 'FPE', 'HUP', 'INT', 'KILL', 'PIPE', 'QUIT', 'SEGV', 'TERM', 'USR1', 'USR2'];

interface Surroundings {
  pipes: Pipes;
  sessions: ProgramSessions;
}

/** `fromClient` is what the client sends to the channel. */
export async function startProgram(
  channel: SessionChannel,
  fromClient: NodeJS.ReadableStream,
  spec: ProgramSpec,
  { pipes, sessions }: Surroundings,
): Promise<SendSignal> {
  const { child, input, output } = spawnPiped(spec, await pipes.open(), channel);
  const letGo = () => {
    input.destroy();
    output.destroy();
  };
  const ended = (code: number | null, signal: NodeJS.Signals | null) => {
    input.destroy();
    sendExit(channel, code, signal);
    output.exited();
  };
  child.once('error', (error) => {
    output.take('stderr', Buffer.from(`${spec.shell}: ${error.message}\n`));
    ended(1, null);
  });
  child.once('exit', ended);
  feedInput(fromClient, input);
  if (channel.gone) letGo();
  else channel.whenGone(letGo);
  const { pid } = child;
  if (pid === undefined) return () => false;
  sessions.started(pid);
  child.once('exit', () => sessions.leaderEnded(pid));
  return (name) => SIGNALS.includes(name) && signalGroup(pid, `SIG${name}` as NodeJS.Signals);
}

function spawnPiped(spec: ProgramSpec, piped: ProgramPipes | null, channel: SessionChannel) {
  const child = spawn(spec.shell, ['-c', spec.command], {
    argv0: basename(spec.shell),
    cwd: spec.cwd,
    env: { ...spec.env },
    detached: true,
    stdio: piped?.fds ?? ['pipe', 'pipe', 'pipe'],
  });
  for (const fd of piped?.fds ?? []) closeSync(fd);
  const stdin = piped?.stdin ?? child.stdin;
  const stdout = piped?.stdout ?? child.stdout;
  const stderr = piped?.stderr ?? child.stderr;
  if (!stdin || !stdout || !stderr) throw new Error('bug: a program without standard streams');
  return { child, input: stdin, output: new Output(channel, { stdout, stderr }) };
}

function signalGroup(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(-pid, signal);
  } catch {
    // ESRCH: the group has ended; the client learns that from the exit status.
    return false;
  }
}

function sendExit(channel: SessionChannel, code: number | null, signal: NodeJS.Signals | null): void {
  if (signal === null) {
    channel.sendExitCode(code ?? 0);
    return;
  }
  try {
    channel.sendExitSignal(signal.slice(3));
  } catch {
    // For a signal that the protocol has no name for: the shell's way of saying it.
    channel.sendExitCode(128 + (constants.signals[signal] ?? 0));
  }
}

function feedInput(fromClient: NodeJS.ReadableStream, input: Writable): void {
  fromClient.on('data', (bytes: Buffer) => {
    if (input.writable && !input.write(bytes)) fromClient.pause();
  });
  fromClient.on('end', () => input.end());
  input.on('drain', () => fromClient.resume());
  // EPIPE: the program reads no more. What the client still sends is taken and dropped, as sshd does.
  input.on('error', () => undefined);
  input.on('close', () => fromClient.resume());
}

type Stream = 'stdout' | 'stderr';

/** Carries both outputs to the channel, one write at a time, and closes the channel at the end. */
class Output {
  readonly #channel: SessionChannel;
  readonly #sources: Record<Stream, Readable>;
  readonly #waiting: { stream: Stream; bytes: Buffer }[] = [];
  readonly #waitingBytes: Record<Stream, number> = { stdout: 0, stderr: 0 };
  readonly #open = new Set<Stream>(['stdout', 'stderr']);
  #writing = false;
  #eofSent = false;
  #exited = false;
  #destroyed = false;

  constructor(channel: SessionChannel, sources: Record<Stream, Readable>) {
    this.#channel = channel;
    this.#sources = sources;
    for (const stream of ['stdout', 'stderr'] as const) {
      const source = sources[stream];
      source.on('data', (bytes: Buffer) => this.take(stream, bytes));
      source.on('close', () => this.#ended(stream));
      // A read error ends the stream, and `close` follows.
      source.on('error', () => undefined);
    }
  }

  exited(): void {
    this.#exited = true;
    this.#finish();
  }

  /** Nobody takes output any more. Without a reader the program gets SIGPIPE, as under sshd. */
  destroy(): void {
    this.#destroyed = true;
    this.#waiting.length = 0;
    this.#writing = false;
    for (const source of Object.values(this.#sources)) source.destroy();
    this.#finish();
  }

  take(stream: Stream, bytes: Buffer): void {
    // A stream that flows gives what it has buffered even after it was destroyed.
    if (this.#destroyed) return;
    this.#waiting.push({ stream, bytes });
    this.#waitingBytes[stream] += bytes.length;
    if (this.#waitingBytes[stream] >= READ_AHEAD_BYTES) this.#sources[stream].pause();
    this.#send();
  }

  #send(): void {
    if (this.#writing) return;
    const next = this.#waiting.shift();
    if (next === undefined) {
      this.#finish();
      return;
    }
    this.#writing = true;
    this.#channel.write(next.stream, next.bytes, () => {
      if (this.#destroyed) return;
      this.#writing = false;
      this.#waitingBytes[next.stream] -= next.bytes.length;
      if (this.#waitingBytes[next.stream] < READ_AHEAD_BYTES) this.#sources[next.stream].resume();
      this.#send();
    });
  }

  #ended(stream: Stream): void {
    this.#open.delete(stream);
    this.#finish();
  }

  #finish(): void {
    if (this.#open.size > 0 || this.#writing || this.#waiting.length > 0) return;
    if (!this.#eofSent) {
      this.#eofSent = true;
      this.#channel.sendEof();
    }
    if (this.#exited) this.#channel.close();
  }
}
