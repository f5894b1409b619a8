/** One program as a child process of the gateway, read no faster than it is taken. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync } from 'node:fs';
import { userInfo } from 'node:os';
import type { Readable, Writable } from 'node:stream';
import { OUTPUT_BUFFER_MAX_BYTES } from '../limits.ts';
import { FIXED_PATH, READ_PREAMBLE } from './bootstrap.ts';
import type { Channel, ChannelEvents, Ended } from './channel.ts';
import type { ProgramPipes } from './pipes.ts';

interface Streams {
  stdin: Writable;
  stdout: Readable;
  stderr: Readable;
}

const OUTPUTS = ['stdout', 'stderr'] as const;

/** `piped` null: Node's own sockets have to do. `gone`: told once, when the channel is closed. */
export function createLocalChannel(shell: string, piped: ProgramPipes | null, gone: () => void): Channel {
  let child: ChildProcess | null = null;
  let streams: Streams | null = piped;
  let listener: ChannelEvents | null = null;
  const open = new Set<string>(OUTPUTS);
  let [exited, closed] = [false, false];
  let unreadBytes = 0;

  const close = (refused: boolean): void => {
    if (closed) return;
    closed = true;
    if (child === null) piped?.fds.forEach(closeSync);
    if (streams !== null) for (const name of ['stdin', ...OUTPUTS] as const) streams[name].destroy();
    // The program may live on; it does not keep the gateway alive.
    child?.unref();
    gone();
    listener?.closed(refused);
  };
  const closeAtEnd = (): void => {
    if (exited && open.size === 0) close(false);
  };
  const read = (
    name: (typeof OUTPUTS)[number],
    { stdout, stderr, [name]: source }: Streams,
    events: ChannelEvents,
  ): void => {
    source.on('data', (bytes: Buffer) => {
      unreadBytes += bytes.length;
      events.data(name, bytes);
      if (unreadBytes >= OUTPUT_BUFFER_MAX_BYTES) for (const each of [stdout, stderr]) each.pause();
    });
    source.on('error', () => undefined); // `close` follows.
    source.on('close', () => {
      open.delete(name);
      if (open.size === 0 && !closed) events.eof();
      closeAtEnd();
    });
  };

  return {
    login: null,
    run(input, events) {
      listener = events;
      try {
        child = spawnBootstrap(shell, piped);
      } catch {
        return close(true); // No process could be made.
      }
      streams = piped ?? streamsOf(child);
      const { stdin } = streams;
      child.once('error', () => close(true));
      child.once('exit', (code, signal) => {
        exited = true;
        stdin.destroy();
        if (!closed) events.exit(toEnded(code, signal));
        closeAtEnd();
      });
      for (const name of OUTPUTS) read(name, streams, events);
      stdin.on('error', () => undefined); // What the program does not read is dropped.
      stdin.end(Buffer.concat(input));
    },
    grant(bytes) {
      unreadBytes -= bytes;
      if (streams === null || unreadBytes >= OUTPUT_BUFFER_MAX_BYTES / 2) return;
      for (const name of OUTPUTS) streams[name].resume();
    },
    ownSession: (pid, stat) => (stat.sid === pid ? stat : null),
    close: () => close(false),
  };
}

function spawnBootstrap(shell: string, piped: ProgramPipes | null): ChildProcess {
  const { homedir } = userInfo();
  const child = spawn(shell, ['-c', READ_PREAMBLE], {
    cwd: existsSync(homedir) ? homedir : '/',
    env: { PATH: FIXED_PATH, HOME: homedir, LANG: 'C.UTF-8' },
    detached: true,
    stdio: piped === null ? 'pipe' : [...piped.fds],
  });
  for (const fd of piped?.fds ?? []) closeSync(fd);
  return child;
}

function streamsOf({ stdin, stdout, stderr }: ChildProcess): Streams {
  if (stdin === null || stdout === null || stderr === null) throw new Error('bug: a program without standard streams');
  return { stdin, stdout, stderr };
}

function toEnded(code: number | null, signal: NodeJS.Signals | null): Ended | null {
  if (signal !== null) return { kind: 'signaled', signal: signal.replace(/^SIG/, '') };
  return code === null ? null : { kind: 'exited', code };
}
