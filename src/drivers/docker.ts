/**
 * The driver for containers: the Docker Engine API over its unix socket. Off unless an operator turns it on.
 *
 * A session is a container that was found running, by its full id; each program is an exec of it, with a connection of its
 * own, so nothing is kept open between programs. Ending a program is another exec, which runs the kill script inside.
 * - The container needs /bin/sh; awk, setsid, ls and grep are used where they are (docker-wrapper.ts says for what).
 * - `cwd` absent is the container's own working directory, as with `docker exec`.
 * - Steps: `endpoint` the engine answers, `instance` the container is there and running, `channel` it runs a command.
 * - Whoever may speak to the engine is root on its machine: the socket is the operator's to give.
 */
import { randomBytes } from 'node:crypto';
import { SallyportError } from '../errors.ts';
import { deferred } from '../sessions/deferred.ts';
import type { Driver, Opening, Session } from '../sessions/session.ts';
import type { Workspace } from '../workspace.ts';
import type { Channel } from './channel.ts';
import { createChannelSession } from './channel-session.ts';
import { type ContainerState, createEngine, type Engine, EngineRefusal } from './docker-engine.ts';
import { createExecChannel } from './docker-exec.ts';
import { WRAPPER } from './docker-wrapper.ts';

/** `socketPath`: of the engine, e.g. /var/run/docker.sock. */
export function createDockerDriver({ socketPath }: { socketPath: string }): Driver {
  const engine = createEngine(socketPath);

  async function open(workspace: Workspace, { signal, trace }: Opening): Promise<Session> {
    const { container, osUser } = targetOf(workspace);
    await trace.step('endpoint', socketPath, () => requireEngine(engine, signal));
    const state = await trace.step('instance', container, () => requireRunning(engine, container, signal));
    return createContainerSession(engine, { containerId: state.id, osUser });
  }

  return {
    name: 'docker',
    key(workspace) {
      const { container, osUser } = targetOf(workspace);
      return [workspace.orgId, container, osUser].join(' ');
    },
    open,
    async probe(workspace, opening, until) {
      const session = await open(workspace, opening);
      if (until === 'login') return session;
      session.close();
      return null;
    },
    async inspect(workspace, signal) {
      const { container } = targetOf(workspace);
      const { id, status, image, startedAt } = await findContainer(engine, container, signal);
      return {
        instance: { container: id.slice(0, 12), state: status, image, started_at: startedAt },
        health: { ok: null, detail: 'the engine is asked for the state of the container only', durationMs: null },
        clockOffsetMs: 0,
      };
    },
    readConsole: async () => {
      throw new SallyportError('invalid_request', 'a workspace of driver "docker" has no serial console');
    },
  };
}

function targetOf({ target }: Workspace): { container: string; osUser: string } {
  if (target.driver !== 'docker')
    throw new Error(`bug: the docker driver was given a workspace of driver ${target.driver}`);
  return target;
}

async function requireEngine(engine: Engine, signal: AbortSignal): Promise<void> {
  try {
    await engine.ping(signal);
  } catch (error) {
    throw signal.aborted ? signal.reason : engineUnreachable(error);
  }
}

function engineUnreachable(cause: unknown): SallyportError {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : null;
  return new SallyportError('host_unreachable', `the container engine does not answer (${code ?? 'error'})`, {
    failedStep: 'endpoint',
    outcome: 'unreachable',
    retryable: code !== 'EACCES',
    remedy:
      code === 'EACCES'
        ? 'The gateway’s user may not speak to the engine: it must be in the group that owns the socket.'
        : 'Look whether the engine runs, and whether DOCKER_HOST names its socket.',
    cause,
  });
}

async function findContainer(engine: Engine, container: string, signal: AbortSignal): Promise<ContainerState> {
  let found: ContainerState | null;
  try {
    found = await engine.container(container, signal);
  } catch (error) {
    throw signal.aborted ? signal.reason : engineUnreachable(error);
  }
  if (found !== null) return found;
  throw new SallyportError('host_unreachable', `there is no container ${container}`, {
    failedStep: 'instance',
    outcome: 'unreachable',
    remedy: 'Check the container of the workspace, and that the gateway speaks to the engine that runs it.',
  });
}

async function requireRunning(engine: Engine, container: string, signal: AbortSignal): Promise<ContainerState> {
  const state = await findContainer(engine, container, signal);
  if (state.status === 'running') return state;
  const starting = state.status === 'created' || state.status === 'restarting';
  throw new SallyportError('instance_not_running', `container ${container} is ${state.status}, not running`, {
    failedStep: 'instance',
    outcome: 'unreachable',
    retryable: starting,
    remedy: starting ? 'Wait until the container is running.' : 'Start the container.',
  });
}

function createContainerSession(
  engine: Engine,
  { containerId, osUser }: { containerId: string; osUser: string },
): Session {
  const channels = new Set<Channel>();
  const closed = deferred<Error | null>();

  const openChannel = async (signal: AbortSignal): Promise<Channel> => {
    const mark = randomBytes(16).toString('hex');
    const exec = { argv: ['/bin/sh', '-c', WRAPPER, 'sallyport', mark], user: osUser };
    const execId = await engine.createExec(containerId, exec, signal);
    const channel = createExecChannel({ engine, containerId, execId, mark, gone: () => channels.delete(channel) });
    channels.add(channel);
    return channel;
  };

  return createChannelSession({
    async open(signal) {
      try {
        return await openChannel(signal);
      } catch (error) {
        if (signal.aborted) throw signal.reason;
        if (error instanceof EngineRefusal && (await isRunning(engine, containerId, signal))) throw execRefused(error);
        // The container or the engine is gone: the next opening says which.
        closed.resolve(error instanceof Error ? error : new Error('the engine was lost', { cause: error }));
        throw error;
      }
    },
    closed: closed.promise,
    close() {
      closed.resolve(null);
      for (const channel of [...channels]) channel.close();
    },
    unsupported: (what) =>
      new SallyportError('shell_unsupported', `the container cannot run commands: ${what}`, {
        failedStep: 'channel',
        outcome: 'unreachable',
        remedy: `The image needs /bin/sh, and the user ${osUser} must exist in it.`,
      }),
  });
}

async function isRunning(engine: Engine, containerId: string, signal: AbortSignal): Promise<boolean> {
  const state = await engine.container(containerId, signal).catch(() => null);
  signal.throwIfAborted();
  return state?.status === 'running';
}

function execRefused(cause: EngineRefusal): SallyportError {
  return new SallyportError('host_unreachable', `the engine prepares no exec in the container (${cause.status})`, {
    failedStep: 'channel',
    outcome: 'unreachable',
    retryable: cause.status >= 500,
    cause,
  });
}
