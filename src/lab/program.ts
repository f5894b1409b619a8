/**
 * One program of an instance: a local process in a session of its own, tied to an SSH channel the way OpenSSH does it
 * without a terminal. The exit status goes out when the process has ended, whoever still holds its output; the channel
 * closes when both outputs have ended as well. A channel that dies closes the pipes and kills nothing.
 */
import { spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { constants } from 'node:os';
import { basename } from 'node:path';
import type { ServerChannel } from 'ssh2';
import type { Pipes } from './pipes.ts';
import type { ProgramSessions } from './processes.ts';
import { sendEof, writeOne } from './ssh2-server.ts';

export interface ProgramSpec {
  /** The login shell, which runs `command`. */
  shell: string;
  command: string;
  cwd: string;
  /** The whole environment. */
  env: Readonly<Record<string, string>>;
}

export interface Program {
  /** Also the id of its session and first process group. */
  readonly pid: number;
  /** To the process group. `name` without SIG. False: no such signal, or nobody left. */
  signal(name: string): boolean;
  /** Closes the program's pipes; what it does then is its own business. */
  letGo(): void;
}

/** Output read ahead of the channel, per stream. */
const READ_AHEAD_BYTES = 256 * 1024;

/** What a client may ask for; OpenSSH knows no others. */
const SIGNALS = ['ABRT', 'ALRM', 'FPE', 'HUP', 'INT', 'KILL', 'PIPE', 'QUIT', 'SEGV', 'TERM', 'USR1', 'USR2'];

/** Null: it could not be started, and the channel has been told. */
export async function startProgram(
  channel: ServerChannel,
  spec: ProgramSpec,
  { pipes, sessions }: { pipes: Pipes; sessions: ProgramSessions },
): Promise<Program | null> {
  const [stdin, stdout, stderr] = await pipes.open(3, (index) => (index === 0 ? 'write' : 'read'));
  if (!stdin || !stdout || !stderr) throw new Error('bug: three pipes were asked for');
  const child = spawn(spec.shell, ['-c', spec.command], {
    argv0: basename(spec.shell),
    cwd: spec.cwd,
    env: { ...spec.env },
    detached: true,
    stdio: [stdin.readFd, stdout.writeFd, stderr.writeFd],
  });
  for (const fd of [stdin.readFd, stdout.writeFd, stderr.writeFd]) closeSync(fd);
  const output = new Output(channel, {
    stdout: new Socket({ fd: stdout.readFd, readable: true, writable: false }),
    stderr: new Socket({ fd: stderr.readFd, readable: true, writable: false }),
  });
  const input = new Socket({ fd: stdin.writeFd, readable: false, writable: true });
  feedInput(channel, input);
  const exited = (code: number | null, signal: NodeJS.Signals | null) => {
    input.destroy();
    sendExit(channel, code, signal);
    output.exited();
  };
  const letGo = () => {
    input.destroy();
    output.destroy();
  };
  channel.on('close', letGo);
  child.once('exit', exited);
  child.once('error', (error) => {
    channel.stderr.write(`${spec.shell}: ${error.message}\n`);
    exited(1, null);
  });
  const { pid } = child;
  if (pid === undefined) return null;
  sessions.started(pid);
  child.once('exit', () => sessions.leaderEnded(pid));
  const signal = (name: string) => SIGNALS.includes(name) && signalGroup(pid, `SIG${name}` as NodeJS.Signals);
  return { pid, signal, letGo };
}

function signalGroup(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(-pid, signal);
  } catch {
    // ESRCH: the group has ended; the client learns that from the exit status.
    return false;
  }
}

function sendExit(channel: ServerChannel, code: number | null, signal: NodeJS.Signals | null): void {
  if (signal === null) {
    channel.exit(code ?? 0);
    return;
  }
  try {
    channel.exit(signal.slice(3), false, '');
  } catch {
    // ssh2 sends only the signals that RFC 4254 names; for the others the shell's way of saying it.
    channel.exit(128 + (constants.signals[signal] ?? 0));
  }
}

function feedInput(channel: ServerChannel, input: Socket): void {
  channel.on('data', (bytes: Buffer) => {
    if (input.writable && !input.write(bytes)) channel.pause();
  });
  input.on('drain', () => channel.resume());
  channel.on('end', () => input.end());
  // EPIPE: the program reads no more. What the client still sends is taken and dropped, as sshd does.
  input.on('error', () => undefined);
  input.on('close', () => channel.resume());
}

type Stream = 'stdout' | 'stderr';

/** Carries both outputs to the channel, one write at a time, and closes the channel at the end. */
class Output {
  readonly #channel: ServerChannel;
  readonly #sources: Record<Stream, Socket>;
  readonly #waiting: { stream: Stream; bytes: Buffer }[] = [];
  readonly #waitingBytes: Record<Stream, number> = { stdout: 0, stderr: 0 };
  readonly #open = new Set<Stream>(['stdout', 'stderr']);
  #writing = false;
  #eofSent = false;
  #exited = false;

  constructor(channel: ServerChannel, sources: Record<Stream, Socket>) {
    this.#channel = channel;
    this.#sources = sources;
    for (const stream of ['stdout', 'stderr'] as const) {
      const source = sources[stream];
      source.on('data', (bytes: Buffer) => this.#take(stream, bytes));
      source.on('close', () => this.#ended(stream));
      // A read error ends the stream, and `close` follows.
      source.on('error', () => undefined);
    }
  }

  exited(): void {
    this.#exited = true;
    this.#finish();
  }

  /** Without a reader the program gets SIGPIPE, as under sshd. */
  destroy(): void {
    for (const source of Object.values(this.#sources)) source.destroy();
  }

  #take(stream: Stream, bytes: Buffer): void {
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
    writeOne(this.#channel, next.stream, next.bytes, () => {
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
      sendEof(this.#channel);
    }
    if (this.#exited) this.#channel.close();
  }
}
