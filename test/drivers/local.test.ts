/** Programs of the gateway's own machine. */
import { userInfo } from 'node:os';
import { describe, expect, test } from 'vitest';
import { createLocalDriver } from '../../src/drivers/local.ts';
import type { Session } from '../../src/sessions/session.ts';
import { ConnectTrace } from '../../src/sessions/trace.ts';
import type { Workspace } from '../../src/workspace.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { anOpening } from '../support/opening.ts';
import { closeSession } from '../support/ssh-login.ts';
import { collect, createRig, exitOf } from './contract/rig.ts';
import { driverContract } from './contract.ts';

failOnLeaks();

function workspace(osUser = userInfo().username): Workspace {
  return { id: 'ws', orgId: 'org', name: 'ws', tier: 3, labels: {}, target: { driver: 'local', osUser } };
}

async function open(options?: Parameters<typeof createLocalDriver>[0]): Promise<{
  session: Session;
  close(): Promise<void>;
}> {
  const session = await createLocalDriver(options).open(workspace(), anOpening());
  return { session, close: () => closeSession(session) };
}

driverContract('local', open);

describe('a local program', () => {
  const rig = createRig(open);

  test('has PATH, HOME and LANG, and what the shell makes of them', async () => {
    const { stdout } = await rig.run(['env']);
    const names = stdout
      .toString()
      .trimEnd()
      .split('\n')
      .map((entry) => entry.slice(0, entry.indexOf('=')));
    for (const name of ['PATH', 'HOME', 'LANG', 'EXEC_ID']) expect(names).toContain(name);
    expect(names.filter((name) => !/^(PATH|HOME|LANG|EXEC_ID|PWD|OLDPWD|SHLVL|_)$/.test(name))).toEqual([]);
  });

  test('has pipes, not sockets', async () => {
    const { stdout } = await rig.run(['sh', '-c', 'readlink /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2']);
    expect(stdout.toString()).toMatch(/^(pipe:\[\d+\]\n){3}$/);
  });
});

describe('a machine without perl', () => {
  const rig = createRig(() => open({ perl: '/nowhere/perl' }));

  test('runs programs on sockets', async () => {
    const program = await rig.start(['sh', '-c', 'cat; echo err >&2; exit 3'], { stdin: Buffer.from('in') });
    const { stdout, stderr } = await collect(program.output);
    expect([stdout.toString(), stderr.toString()]).toEqual(['in', 'err\n']);
    expect(await exitOf(program)).toEqual({ kind: 'exited', code: 3 });
  });
});

describe('on the way to a program', () => {
  test('another user than the gateway’s own is a login that is refused, with the remedy', async () => {
    const trace = new ConnectTrace();
    const opening = createLocalDriver().open(workspace('somebody-else'), anOpening({ trace }));
    await expect(opening).rejects.toMatchObject({
      code: 'login_refused',
      details: { failedStep: 'login', remedy: expect.stringContaining(userInfo().username) },
    });
    expect(trace.steps).toMatchObject([{ name: 'login', ok: false }]);
  });

  test.each([
    ['is missing', '/nowhere/sh'],
    ['is something else', '/bin/false'],
  ])('a shell that %s fails at the channel', async (_what, shell) => {
    const { session, close } = await open({ shell });
    const spec = { execId: 'x', argv: ['true'], env: {}, cwd: null, stdin: null, fixedPath: false } as const;
    const how = { signal: AbortSignal.timeout(10_000), committed: Promise.resolve() };
    await expect(session.start(spec, how)).rejects.toMatchObject({
      code: 'shell_unsupported',
      details: { failedStep: 'channel' },
    });
    await close();
  });

  test('a diagnosis finds nothing to ask, and no console', async () => {
    const [driver, { signal }] = [createLocalDriver(), new AbortController()];
    expect(await driver.inspect(workspace(), signal)).toMatchObject({ instance: null, health: { ok: null } });
    expect(await driver.probe(workspace(), anOpening(), 'host_key')).toBeNull();
    await expect(driver.readConsole(workspace(), signal)).rejects.toMatchObject({ code: 'invalid_request' });
  });
});
