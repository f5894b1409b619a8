/**
 * The Docker Engine API over its unix socket, as far as the driver needs it. Plain node:http: six calls, of which one
 * turns into a raw connection, are less than a client library.
 *
 * Paths carry no version: the engine then answers in its own, and Docker 29 refuses the old ones.
 */
import { type ClientRequest, type IncomingMessage, request } from 'node:http';
import type { Socket } from 'node:net';

const ANSWER_MAX_BYTES = 1024 * 1024;

/** The engine answered, and not with success. */
export class EngineRefusal extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(`status ${status}: ${message}`);
    this.status = status;
  }
}

export interface ContainerState {
  /** The full id: names are given out again. */
  id: string;
  /** `running`, `paused`, `exited`, … */
  status: string;
  image: string;
  startedAt: string;
}

export interface ExecState {
  running: boolean;
  exitCode: number | null;
}

/** Answers reject with EngineRefusal, with the error of the connection, or with the signal's reason. */
export interface Engine {
  readonly socketPath: string;
  ping(signal: AbortSignal): Promise<void>;
  /** Null: there is none of this name. */
  container(name: string, signal: AbortSignal): Promise<ContainerState | null>;
  createExec(
    containerId: string,
    exec: { argv: readonly string[]; user: string },
    signal: AbortSignal,
  ): Promise<string>;
  /** Null: the engine knows it no more. */
  exec(execId: string, signal: AbortSignal): Promise<ExecState | null>;
  /**
   * Starts the exec; its streams are the connection, which the caller destroys. `answered` may be told of an error more
   * than once. Destroying what is returned gives the asking up.
   */
  startExec(execId: string, answered: (result: Socket | Error) => void): { destroy(): void };
}

/**
 * Nobody sends nine NULs, each alone in a packet. With the default, ctrl-p ctrl-q, podman takes two bytes of a program's
 * stdin for a wish to detach; it knows no way to switch that off.
 */
const DETACH_KEYS = Array(9).fill('ctrl-@').join(',');

export function createEngine(socketPath: string): Engine {
  const call = async (method: string, path: string, signal: AbortSignal, body?: object): Promise<unknown> => {
    signal.throwIfAborted();
    const asked = open(socketPath, { method, path, signal });
    asked.end(body === undefined ? undefined : JSON.stringify(body));
    try {
      const answer = await answerTo(asked);
      const text = await readText(answer);
      if (answer.statusCode === undefined || answer.statusCode >= 300) throw refusal(answer.statusCode ?? 0, text);
      return answer.headers['content-type']?.startsWith('application/json') ? JSON.parse(text) : text;
    } catch (error) {
      throw signal.aborted ? signal.reason : error;
    }
  };
  const unlessMissing = async (asked: Promise<unknown>): Promise<Record<string, unknown> | null> => {
    try {
      return (await asked) as Record<string, unknown>;
    } catch (error) {
      if (error instanceof EngineRefusal && error.status === 404) return null;
      throw error;
    }
  };

  return {
    socketPath,
    ping: async (signal) => void (await call('GET', '/_ping', signal)),
    async container(name, signal) {
      const found = await unlessMissing(call('GET', `/containers/${encodeURIComponent(name)}/json`, signal));
      if (found === null) return null;
      const { Status = 'unknown', StartedAt = '' } = (found.State ?? {}) as { Status?: string; StartedAt?: string };
      const { Image = '' } = (found.Config ?? {}) as { Image?: string };
      return { id: String(found.Id), status: Status, image: Image, startedAt: StartedAt };
    },
    async createExec(containerId, { argv, user }, signal) {
      const made = await call('POST', `/containers/${containerId}/exec`, signal, {
        AttachStdin: true,
        AttachStdout: true,
        AttachStderr: true,
        Tty: false,
        DetachKeys: DETACH_KEYS,
        User: user,
        Cmd: argv,
      });
      return (made as { Id: string }).Id;
    },
    async exec(execId, signal) {
      const found = await unlessMissing(call('GET', `/exec/${execId}/json`, signal));
      if (found === null) return null;
      const { Running, ExitCode } = found as { Running: boolean; ExitCode: number | null };
      return { running: Running, exitCode: ExitCode };
    },
    startExec(execId, answered) {
      const upgrade = { connection: 'Upgrade', upgrade: 'tcp' };
      const asked = open(socketPath, { method: 'POST', path: `/exec/${execId}/start`, headers: upgrade });
      asked.once('upgrade', (_answer, socket: Socket, head) => {
        if (head.length > 0) socket.unshift(head);
        answered(socket);
      });
      asked.once('response', (answer) => {
        readText(answer).then(
          (text) => answered(refusal(answer.statusCode ?? 0, text)),
          (error: Error) => answered(error),
        );
      });
      asked.on('error', answered);
      asked.end(JSON.stringify({ Detach: false, Tty: false }));
      return asked;
    },
  };
}

interface Asking {
  method: string;
  path: string;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** A connection of its own for each call: on a unix socket it costs nothing, and none is left open. */
function open(socketPath: string, { headers, ...asking }: Asking): ClientRequest {
  return request({
    socketPath,
    ...asking,
    agent: false,
    headers: { host: 'docker', 'content-type': 'application/json', ...headers },
  });
}

function answerTo(asked: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    asked.once('response', resolve);
    asked.on('error', reject);
  });
}

async function readText(answer: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of answer) {
    bytes += (chunk as Buffer).length;
    if (bytes > ANSWER_MAX_BYTES) throw new Error('the engine answered with more than anybody can need');
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks).toString();
}

function refusal(status: number, text: string): EngineRefusal {
  try {
    const { message } = JSON.parse(text) as { message?: unknown };
    return new EngineRefusal(status, String(message ?? text));
  } catch {
    return new EngineRefusal(status, text.slice(0, 200)); // An engine in front of which something else answers.
  }
}
