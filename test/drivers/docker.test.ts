/** Programs in containers of a real engine. */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createDockerDriver } from '../../src/drivers/docker.ts';
import type { Driver, Opening, Session } from '../../src/sessions/session.ts';
import { ConnectTrace } from '../../src/sessions/trace.ts';
import type { Workspace } from '../../src/workspace.ts';
import { type Engine, requireEngine, startEngine } from '../support/engine.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { anOpening } from '../support/opening.ts';
import { isAlive, processTable } from '../support/processes.ts';
import { closeSession } from '../support/ssh-login.ts';
import { within } from '../support/wait.ts';
import { collect, createRig, exitOf, type Open, type Rig, readLines } from './contract/rig.ts';
import { driverContract } from './contract.ts';

failOnLeaks();

const ready = requireEngine();
let engine: Engine;
let driver: Driver;

beforeAll(async () => {
  if (!ready) return;
  engine = await startEngine();
  driver = createDockerDriver({ socketPath: engine.socketPath });
});
afterAll(() => engine?.stop());

function workspace(container: string, osUser = 'root'): Workspace {
  return { id: 'ws', orgId: 'org', name: 'ws', tier: 3, labels: {}, target: { driver: 'docker', container, osUser } };
}

function openIn(container: () => string, osUser = 'root'): Open {
  return async () => {
    const session = await driver.open(workspace(container(), osUser), anOpening());
    return { session, close: () => closeSession(session) };
  };
}

function at(failedStep: string, code: string) {
  return { name: 'SallyportError', code, details: { failedStep } };
}

function start(session: Session, ...argv: [string, ...string[]]) {
  return session.start(
    { execId: 'exec', argv, env: {}, cwd: null, stdin: null, fixedPath: false },
    { signal: AbortSignal.timeout(15_000), committed: Promise.resolve() },
  );
}

describe.skipIf(!ready)('a container that sees this machine', () => {
  let container: string;
  beforeAll(async () => {
    container = await engine.run('here');
  });
  driverContract(
    'docker',
    openIn(() => container, userInfo().username),
  );
});

describe.skipIf(!ready)('a container with nothing but busybox', () => {
  let container: string;
  beforeAll(async () => {
    container = await engine.run('busybox', ['--workdir', '/tmp']);
  });

  describe('as root', () => {
    const rig = createRig(openIn(() => container));
    saysHowItEnded(rig);

    test('runs programs where `docker exec` would, with the environment of the container', async () => {
      const { stdout } = await rig.run(['sh', '-c', 'pwd; echo "$HOME"; env'], { env: { MINE: 'x' } });
      expect(stdout.toString()).toMatch(/^\/tmp\n\/\n(.*\n)*MINE=x\n/);
    });

    test('ends a program, and nothing else in it', async () => {
      const [ended, other] = [await rig.start(['sleep', '600']), await rig.start(['sleep', '600'])];
      // Ids are the container's own: the session of a program is that of no other, and not that of its first process.
      expect([ended, other].map(({ pid, marker }) => marker.session?.sid === pid && pid !== 1)).toEqual([true, true]);
      expect(await ended.kill()).toEqual([]);
      expect(await exitOf(ended)).toEqual({ kind: 'signaled', signal: 'TERM' });
      expect(await other.look()).toEqual([other.pid]);
      expect(await rig.session.reap({ execId: other.marker.execId, session: null })).toEqual([]);
      expect(await engine.podman('inspect', '--format', '{{.State.Status}}', container)).toBe('running');
    });

    test('a script that ends its own process group has its own exit code', async () => {
      const { exit } = await rig.run(['sh', '-c', "trap '' TERM; kill 0; exit 3"]);
      expect(exit).toEqual({ kind: 'exited', code: 3 });
    });

    test('what a background child writes within its time is not lost', async () => {
      const program = await rig.start(['sh', '-c', '(sleep 0.3; echo late) & echo early']);
      expect(await exitOf(program)).toEqual({ kind: 'exited', code: 0 });
      expect((await collect(program.output)).stdout.toString()).toBe('early\nlate\n');
      expect(program.outputEnded).toBe(true);
    });

    test('an output that the engine cuts off has not ended', async () => {
      const program = await rig.start(['sh', '-c', 'sleep 600 & echo $!']);
      const reader = readLines(program);
      await reader.lines(1);
      expect(await within('the engine to let go', reader.rest(), 10_000)).toBe('');
      expect(program.outputEnded).toBe(false);
      expect(await program.kill()).toEqual([]);
    });

    test('bytes that an engine might take for a wish to detach reach the program', async () => {
      const stdin = Buffer.from([16, 17]);
      expect((await rig.run(['cat'], { stdin })).stdout).toEqual(stdin);
    });
  });

  describe('as another user', () => {
    const rig = createRig(openIn(() => container, 'user'));

    test('programs are that user’s, and are ended as that user', async () => {
      expect((await rig.run(['sh', '-c', 'id -u; echo "$HOME"'])).stdout.toString()).toBe('1000\n/home/user\n');
      const program = await rig.start(['sh', '-c', "trap '' TERM; setsid sleep 600 & wait"]);
      expect(await program.kill()).toEqual([]);
      expect(await exitOf(program)).toEqual({ kind: 'signaled', signal: 'KILL' });
    });
  });
});

describe.skipIf(!ready)('a container without awk and setsid', () => {
  let container: string;
  beforeAll(async () => {
    container = await engine.run('bare');
  });
  const rig = createRig(openIn(() => container));
  saysHowItEnded(rig);

  test('a program shares a session with what tells of its end, and nobody else', async () => {
    const [ended, other] = [await rig.start(['sh', '-c', 'sleep 600 & sleep 600']), await rig.start(['sleep', '600'])];
    expect(ended.marker.session?.sid).toBeLessThan(ended.pid);
    expect(await ended.kill()).toEqual([]);
    expect(await exitOf(ended)).toEqual({ kind: 'signaled', signal: 'TERM' });
    expect(await other.look()).toContain(other.pid);
    expect(await other.kill()).toEqual([]);
  });

  test('a program that cleans up on TERM has its own exit code', async () => {
    const program = await rig.start(['sh', '-c', "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done"]);
    await readLines(program).lines(1);
    expect(await program.kill()).toEqual([]);
    expect(await exitOf(program)).toEqual({ kind: 'exited', code: 3 });
  });
});

/** No shell tells `exit 137` from a kill; here the latter is taken for true. */
function saysHowItEnded(rig: Rig): void {
  test.each([
    ['exit 0', { kind: 'exited', code: 0 }],
    ['exit 127', { kind: 'exited', code: 127 }],
    ['exit 255', { kind: 'exited', code: 255 }],
    ['kill -KILL $$', { kind: 'signaled', signal: 'KILL' }],
    ['kill -INT $$', { kind: 'signaled', signal: 'INT' }],
    ['exit 137', { kind: 'signaled', signal: 'KILL' }],
  ])('%s is told', async (script, exit) => {
    expect((await rig.run(['sh', '-c', script])).exit).toEqual(exit);
  });
}

describe.skipIf(!ready)('on the way to a program', () => {
  function open(container: string, opening: Partial<Opening> = {}, osUser = 'root'): Promise<Session> {
    return driver.open(workspace(container, osUser), anOpening(opening));
  }

  describe('the engine', () => {
    const folder = mkdtempSync(join(tmpdir(), 'no-engine-'));
    afterAll(() => rmSync(folder, { recursive: true }));

    test('that is not there, or has gone, is no endpoint', async () => {
      const socketPath = join(folder, 'api.sock');
      const elsewhere = createDockerDriver({ socketPath });
      await expect(elsewhere.open(workspace('any'), anOpening())).rejects.toMatchObject(
        at('endpoint', 'host_unreachable'),
      );
      const server = createServer((socket) => socket.destroy()).listen(socketPath);
      await once(server, 'listening');
      await expect(elsewhere.open(workspace('any'), anOpening())).rejects.toMatchObject(
        at('endpoint', 'host_unreachable'),
      );
      server.close();
    });

    test('that never answers leaves that step open, and nothing else', async () => {
      const socketPath = join(folder, 'silent.sock');
      const server = createServer((socket) => socket.resume()).listen(socketPath);
      const asked = once(server, 'connection');
      const [abort, trace] = [new AbortController(), new ConnectTrace()];
      const opening = createDockerDriver({ socketPath })
        .open(workspace('any'), anOpening({ signal: abort.signal, trace }))
        .catch((error: unknown) => error);
      await asked;
      abort.abort(new Error('too long'));
      expect(await opening).toMatchObject({ message: 'too long' });
      expect(trace.current()).toBe('endpoint');
      server.close();
      await once(server, 'close');
    });
  });

  test('every step is in the trace', async () => {
    const [container, trace] = [await engine.run('busybox'), new ConnectTrace()];
    await closeSession(await open(container, { trace }));
    expect(trace.steps.map(({ name, ok }) => [name, ok])).toEqual([
      ['endpoint', true],
      ['instance', true],
    ]);
  });

  test('a container that is not there is no instance', async () => {
    await expect(open('no-such-container')).rejects.toMatchObject(at('instance', 'host_unreachable'));
  });

  test.each([
    ['stop', 'exited'],
    ['pause', 'paused'],
  ])('a container after %s is not running, and is called what it is', async (verb, state) => {
    const container = await engine.run('busybox');
    await engine.podman(verb, ...(verb === 'stop' ? ['--time', '0'] : []), container);
    await expect(open(container)).rejects.toMatchObject({
      ...at('instance', 'instance_not_running'),
      message: expect.stringContaining(state),
    });
  });

  test.each([
    ['a container without a shell', 'empty', 'root'],
    ['a user that the container does not have', 'busybox', 'nobody-of-this-name'],
  ] as const)('%s fails at the channel, with the remedy', async (_what, image, osUser) => {
    const session = await open(await engine.run(image), {}, osUser);
    const error = await start(session, 'true').catch((e: unknown) => e);
    expect(error).toMatchObject(at('channel', 'shell_unsupported'));
    expect(error).toMatchObject({ details: { remedy: expect.stringContaining(osUser) } });
    await closeSession(session);
  });

  test.each([
    ['stopped', ['stop', '--time', '0']],
    ['removed', ['rm', '--force', '--time', '0']],
  ])(
    'a container that is %s takes its programs along: lost, not ended by a signal of their own',
    async (_what, verb) => {
      const container = await engine.run('busybox');
      const session = await open(container);
      const program = await start(session, 'sh', '-c', 'echo ready; exec sleep 600');
      await readLines(program).lines(1);
      await engine.podman(...verb, container);
      expect(await exitOf(program)).toMatchObject({ kind: 'lost', error: { code: 'connection_lost' } });
      // Never sent: whoever asked may try again, and then hears what is wrong with the container.
      await expect(start(session, 'true')).rejects.toMatchObject(at('channel', 'connection_lost'));
      expect(await within('the session to end', session.closed)).toBeInstanceOf(Error);
      await expect(open(container)).rejects.toMatchObject({ details: { failedStep: 'instance' } });
    },
  );

  test('a program that the kernel kills for its memory was killed, and its container runs on', async () => {
    const container = await engine.run('busybox', ['--memory', '32m']);
    const session = await open(container);
    const program = await start(session, 'awk', 'BEGIN { s = "x"; while (1) s = s s }');
    expect(await exitOf(program)).toEqual({ kind: 'signaled', signal: 'KILL' });
    program.release();
    expect(await exitOf(await start(session, 'true'))).toEqual({ kind: 'exited', code: 0 });
    await closeSession(session);
  });

  test('a diagnosis learns the state without a login, and finds no console', async () => {
    const container = await engine.run('busybox');
    const { signal } = new AbortController();
    expect(await driver.inspect(workspace(container), signal)).toMatchObject({
      instance: { state: 'running', image: expect.stringContaining('busybox') },
    });
    await expect(driver.inspect(workspace('no-such'), signal)).rejects.toMatchObject(
      at('instance', 'host_unreachable'),
    );
    expect(await driver.probe(workspace(container), anOpening(), 'host_key')).toBeNull();
    await expect(driver.readConsole(workspace(container), signal)).rejects.toMatchObject({ code: 'invalid_request' });
  });

  // The last one: it ends the engine of this file.
  test('an engine that dies loses its programs, which live on; then it is no endpoint', async () => {
    const session = await open(await engine.run('busybox'));
    const program = await start(session, 'sh', '-c', 'echo ready; exec sleep 654321');
    await readLines(program).lines(1);
    const [pid = 0] = processTable().flatMap(({ pid, args }) => (args.join(' ') === 'sleep 654321' ? [pid] : []));
    await engine.kill();
    expect(await exitOf(program)).toMatchObject({ kind: 'lost', error: { code: 'connection_lost' } });
    expect(isAlive(pid)).toBe(true);
    await expect(start(session, 'true')).rejects.toMatchObject({ code: 'connection_lost' });
    await expect(open('any')).rejects.toMatchObject(at('endpoint', 'host_unreachable'));
  });
});
