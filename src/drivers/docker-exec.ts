/** One exec of a container engine as a Channel: the wrapper's start, the streams taken apart, how it ended. */
import type { Socket } from 'node:net';
import { OUTPUT_BUFFER_MAX_BYTES } from '../limits.ts';
import type { Channel, ChannelEvents, Ended, OwnSession } from './channel.ts';
import { type Engine, EngineRefusal } from './docker-engine.ts';
import { createFrameReader, type EngineStream } from './docker-frames.ts';
import { createMarkReader, endOfExitCode } from './docker-wrapper.ts';

export interface DockerExec {
  engine: Engine;
  containerId: string;
  execId: string;
  /** The argument that its WRAPPER was created with. */
  mark: string;
  /** Told once, when the channel is closed. */
  gone(): void;
}

/** A container that is being stopped still counts as running for so long after its programs were killed. */
const STOPPING_PAUSES_MS = [0, 50, 100, 200, 400, 800];

export function createExecChannel({ engine, containerId, execId, mark, gone }: DockerExec): Channel {
  const frames = createFrameReader();
  const marks = { stdout: createMarkReader(mark), stderr: createMarkReader(mark) };
  const ended = new Set<EngineStream>();
  const stop = new AbortController();
  let listener: ChannelEvents | null = null;
  let connection: { destroy(): void } | null = null;
  let socket: Socket | null = null;
  let exit: Ended | null = null;
  let wrapper: OwnSession | null = null;
  let unreadBytes = 0;

  const close = (refused: boolean): void => {
    if (stop.signal.aborted) return;
    stop.abort();
    connection?.destroy();
    socket?.destroy();
    gone();
    listener?.closed(refused);
  };
  const give = (events: ChannelEvents, stream: EngineStream, bytes: Buffer): void => {
    unreadBytes += bytes.length;
    events.data(stream, bytes);
  };
  const tellExit = (events: ChannelEvents, how: Ended): void => {
    if (exit !== null) return;
    exit = how;
    events.exit(how);
  };
  const take = (events: ChannelEvents, stream: EngineStream, bytes: Buffer): void => {
    const told = marks[stream].push(bytes);
    for (const output of told.output) give(events, stream, output);
    wrapper ??= told.wrapper;
    if (told.end !== null) tellExit(events, told.end);
    if (!told.eof || ended.has(stream)) return;
    ended.add(stream);
    if (ended.size === 2) events.eof();
  };
  /** The engine closed the streams before the wrapper had said all. */
  const cutShort = async (events: ChannelEvents): Promise<void> => {
    for (const stream of ['stdout', 'stderr'] as const) {
      const rest = marks[stream].rest();
      if (rest.length > 0) give(events, stream, rest);
    }
    if (exit === null) {
      const found = await howItEnded(engine, { containerId, execId }, stop.signal).catch(() => null);
      if (!stop.signal.aborted && found !== null) tellExit(events, found);
    }
    close(false);
  };
  const read = (events: ChannelEvents, from: Socket): void => {
    from.on('data', (bytes: Buffer) => {
      try {
        frames.push(bytes, (stream, piece) => take(events, stream, piece));
      } catch {
        return close(false); // No frames: what it says cannot be told apart, so the end is unknown.
      }
      if (unreadBytes >= OUTPUT_BUFFER_MAX_BYTES) from.pause();
    });
    from.on('error', () => undefined); // `close` follows.
    from.on('close', () => {
      if (stop.signal.aborted) return;
      if (ended.size === 2 && exit !== null) close(false);
      else void cutShort(events);
    });
  };

  return {
    login: null,
    run(input, events) {
      listener = events;
      connection = engine.startExec(execId, (result) => {
        if (stop.signal.aborted) {
          if (!(result instanceof Error)) result.destroy();
          return;
        }
        if (result instanceof Error) return close(isRefusal(result));
        socket = result;
        read(events, socket);
        socket.end(Buffer.concat(input));
      });
    },
    grant(bytes) {
      unreadBytes -= bytes;
      if (unreadBytes < OUTPUT_BUFFER_MAX_BYTES / 2) socket?.resume();
    },
    ownSession(pid, stat) {
      if (stat.sid === pid) return stat;
      return stat.sid === wrapper?.sid ? wrapper : null;
    },
    close: () => close(false),
  };
}

/** The engine would not run it; 404 and 409 say that container or exec are gone, which is a loss. */
function isRefusal(error: Error): boolean {
  return error instanceof EngineRefusal && error.status !== 404 && error.status !== 409;
}

/** From the engine's own books, where the wrapper could not say. Null: the container went with it, or nobody knows. */
async function howItEnded(
  engine: Engine,
  { containerId, execId }: { containerId: string; execId: string },
  signal: AbortSignal,
): Promise<Ended | null> {
  const exec = await engine.exec(execId, signal);
  if (exec === null || exec.running || exec.exitCode === null) return null;
  const end = endOfExitCode(exec.exitCode);
  for (const pauseMs of end.kind === 'signaled' ? STOPPING_PAUSES_MS : [0]) {
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
    const container = await engine.container(containerId, signal);
    if (container?.status !== 'running') return null;
  }
  return end;
}
