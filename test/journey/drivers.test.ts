/** Workspaces of the drivers ssh, docker and local, from the admin's PUT to the closed row. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Engine, requireEngine, startEngine } from '../support/engine.ts';
import { fixture } from '../support/fixtures.ts';
import { type Answer, outputOf, startTestGateway, type TestGateway, terminalOf } from '../support/gateway.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { carryingExecId, waitUntilGone } from '../support/processes.ts';
import { requireSshd } from '../support/requirements.ts';
import { type Sshd, startSshd } from '../support/sshd.ts';
import { waitUntil } from '../support/wait.ts';

failOnLeaks();

const ready = [requireSshd(), requireEngine()].every(Boolean);
const ORG = 'org-demo';
const os_user = userInfo().username;
const folder = mkdtempSync(join(tmpdir(), 'drivers-journey-'));
afterAll(() => rmSync(folder, { recursive: true }));

let engine: Engine;
let sshd: Sshd;
let gateway: TestGateway;

async function register(id: string, target: object, on = gateway): Promise<void> {
  const body = { org_id: ORG, tier: 3, os_user, ...target };
  const { status, text } = await on.ask(`/workspaces/${id}`, { method: 'PUT', token: 'admin', body });
  expect({ status, text }).toMatchObject({ status: 201 });
}

async function theRunning(workspace: string): Promise<string> {
  for (;;) {
    const { body } = await gateway.ask(`/workspaces/${workspace}/execs`);
    const [first] = body.items as { exec_id: string }[];
    if (first !== undefined) return first.exec_id;
  }
}

/** The terminal frame; the problem, where nothing had been written yet. */
function endOf({ status, frames, body }: Answer): object {
  return status === 200 ? terminalOf(frames) : body;
}

describe.skipIf(!ready)('a workspace', () => {
  beforeAll(async () => {
    [engine, sshd] = await Promise.all([startEngine(), startSshd()]);
    const keyFile = join(folder, 'key');
    writeFileSync(keyFile, sshd.privateKey, { mode: 0o600 });
    gateway = await startTestGateway({
      SALLYPORT_LOCAL_DRIVER: 'on',
      SALLYPORT_DOCKER: 'on',
      DOCKER_HOST: `unix://${engine.socketPath}`,
      SALLYPORT_SSH_KEY_FILE: keyFile,
      SALLYPORT_SSH_LOOPBACK: 'on',
    });
    await register('ws-local', { driver: 'local' });
    await register('ws-ssh', { driver: 'ssh', host: '127.0.0.1', port: sshd.port });
    await register('ws-docker', { driver: 'docker', container: await engine.run('here') });
    // The first connection would be refused: nobody has said which key is right.
    const keys = [`ssh-ed25519 ${sshd.hostKey.toString('base64')}`];
    const stored = await gateway.ask('/workspaces/ws-ssh/host-keys', { method: 'PUT', token: 'admin', body: { keys } });
    expect(stored.status).toBe(200);
  });
  afterAll(async () => {
    await gateway?.stop();
    await sshd?.stop();
    await engine?.stop();
  });

  // First, because its row then waits for somebody who could look whether anything is left.
  test('of driver docker whose container goes away under a program is a lost connection', async () => {
    const container = await engine.run('busybox');
    await register('ws-gone', { driver: 'docker', container, os_user: 'root' });
    const running = gateway.exec({ cmd: ['sh', '-c', 'echo ready; exec sleep 600'] }, { workspace: 'ws-gone' });
    await theRunning('ws-gone');
    await engine.podman('rm', '--force', '--time', '0', container);
    expect(endOf(await running)).toMatchObject({ code: 'connection_lost' });
  });

  describe.each(['local', 'ssh', 'docker'])('of driver %s', (driver) => {
    const workspace = `ws-${driver}`;

    test('runs a program as it was asked for, and its row says by which driver', async () => {
      const argv = [fixture('echo-argv'), 'two words', '$HOME', "it's"];
      const { frames, headers } = await gateway.exec({ cmd: argv, cwd: '/' }, { workspace });
      expect(terminalOf(frames)).toMatchObject({ exit_code: 0, outcome: 'exited', complete: true });
      expect(outputOf(frames, 'stdout').toString().split('\0')).toEqual(['3', ...argv.slice(1), '']);
      const { body } = await gateway.ask(`/workspaces/${workspace}/activity?limit=1`);
      expect((body.items as object[])[0]).toMatchObject({
        id: headers['x-exec-id'],
        status: 'ok',
        request_body: { driver, argv },
      });
    });

    test('gives a program its stdin and environment, and both its outputs apart', async () => {
      const script = 'echo "$NAME"; cat; echo err >&2; exit 42';
      const { frames } = await gateway.exec(
        { cmd: ['sh', '-c', script], env: { NAME: 'ä€😀' }, stdin: { base64: 'AP8K' } },
        { workspace },
      );
      expect(terminalOf(frames)).toMatchObject({ exit_code: 42, outcome: 'exited', signal: null });
      expect(outputOf(frames, 'stdout')).toEqual(Buffer.concat([Buffer.from('ä€😀\n'), Buffer.from([0, 255, 10])]));
      expect(outputOf(frames, 'stderr').toString()).toBe('err\n');
    });

    test('tells a signal from an exit code', async () => {
      const { frames } = await gateway.exec({ cmd: [fixture('kill-self'), 'KILL'] }, { workspace });
      expect(terminalOf(frames)).toMatchObject({ exit_code: 137, outcome: 'signaled', signal: 'KILL' });
      const { frames: others } = await gateway.exec({ cmd: [fixture('exit-with'), '137'] }, { workspace });
      expect(terminalOf(others)).toMatchObject({ exit_code: 137, outcome: 'exited', signal: null });
    });

    test('ends all of a program at its deadline', async () => {
      const { status, body } = await gateway.exec(
        { cmd: [fixture('setsid-child'), '600'], timeout_s: 0.5 },
        { workspace, headers: { accept: 'application/json' } },
      );
      expect({ status, body }).toMatchObject({ status: 504, body: { code: 'exec_timeout', survivors: [] } });
      await waitUntilGone(carryingExecId(String(body.exec_id)));
      const { body: rows } = await gateway.ask(`/workspaces/${workspace}/activity?limit=1`);
      expect((rows.items as object[])[0]).toMatchObject({ status: 'timeout', response_body: { survivors: [] } });
    });

    test('ends a program that is cancelled', async () => {
      const running = gateway.exec({ cmd: ['sh', '-c', 'echo ready; exec sleep 600'] }, { workspace });
      const execId = await theRunning(workspace);
      await waitUntil('the program is on the host', () => carryingExecId(execId).length > 0);
      const path = `/workspaces/${workspace}/execs/${execId}`;
      expect((await gateway.ask(path, { method: 'DELETE' })).status).toBeLessThan(300);
      expect(endOf(await running)).toMatchObject({ outcome: 'cancelled', survivors: [] });
      expect(carryingExecId(execId)).toEqual([]);
    });

    test('says of a program that was not started why', async () => {
      const { status, body } = await gateway.exec({ cmd: ['true'], cwd: '/nowhere' }, { workspace });
      expect({ status, code: body.code }).toEqual({ status: 422, code: 'start_failed' });
    });
  });

  test.each<[string, string, object, number, string, string]>([
    ['local', 'another user', { os_user: 'somebody-else' }, 502, 'login_refused', 'login'],
    ['ssh', 'a name without an address', { host: 'x'.repeat(63) }, 502, 'host_unreachable', 'endpoint'],
    ['ssh', 'a port that is closed', { host: '127.0.0.1', port: 1 }, 502, 'host_unreachable', 'tunnel'],
    ['docker', 'a container that is not there', { container: 'none' }, 502, 'host_unreachable', 'instance'],
  ])('of driver %s with %s', async (driver, what, target, status, code, failed_step) => {
    const workspace = `ws-${what.replaceAll(' ', '-')}`;
    await register(workspace, { driver, ...target });
    const answer = await gateway.exec({ cmd: ['true'] }, { workspace });
    expect(answer).toMatchObject({ status, body: { code, failed_step, outcome: 'unreachable' } });
    const { body: rows } = await gateway.ask(`/workspaces/${workspace}/activity?limit=1&type=workspace_exec`);
    expect((rows.items as object[])[0]).toMatchObject({ id: answer.body.exec_id, status: 'error' });
  });

  test('of driver docker whose container was stopped is not running; started again it works', async () => {
    const container = await engine.run('busybox');
    await register('ws-stopped', { driver: 'docker', container, os_user: 'root' });
    const workspace = 'ws-stopped';
    expect(terminalOf((await gateway.exec({ cmd: ['true'] }, { workspace })).frames)).toMatchObject({ exit_code: 0 });
    await engine.podman('stop', '--time', '0', container);
    expect(await gateway.exec({ cmd: ['true'] }, { workspace })).toMatchObject({
      status: 409,
      body: { code: 'instance_not_running', failed_step: 'instance' },
    });
    await engine.podman('start', container);
    expect(terminalOf((await gateway.exec({ cmd: ['true'] }, { workspace })).frames)).toMatchObject({ exit_code: 0 });
  });

  test('of driver docker without a shell', async () => {
    await register('ws-empty', { driver: 'docker', container: await engine.run('empty'), os_user: 'root' });
    expect(await gateway.exec({ cmd: ['true'] }, { workspace: 'ws-empty' })).toMatchObject({
      status: 502,
      body: { code: 'shell_unsupported', failed_step: 'channel' },
    });
  });
});

describe('a driver that is not switched on', () => {
  let plain: TestGateway;
  beforeAll(async () => {
    plain = await startTestGateway();
  });
  afterAll(() => plain.stop());

  test.each([
    ['ssh', { host: '127.0.0.1', port: 22 }],
    ['docker', { container: 'any' }],
    ['local', {}],
  ])('%s runs nothing', async (driver, target) => {
    await register(`ws-${driver}`, { driver, ...target }, plain);
    expect(await plain.exec({ cmd: ['true'] }, { workspace: `ws-${driver}` })).toMatchObject({
      status: 502,
      body: { code: 'host_unreachable', failed_step: 'endpoint' },
    });
  });
});
