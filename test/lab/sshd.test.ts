import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { basename } from 'node:path';
import type { Client } from 'ssh2';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { canRunSshd } from '../../src/lab/lab.ts';
import { type TestLab, withLab } from '../support/lab.ts';
import { exec, execChannel, loginTo, newUserKey, pushKey, sshConnect } from './dial.ts';

const isRoot = process.getuid?.() === 0;
const shells = {
  dash: '/usr/bin/dash',
  bash: '/bin/bash',
  zsh: '/usr/bin/zsh',
  tcsh: '/usr/bin/tcsh',
  fish: '/usr/bin/fish',
};
const users = isRoot ? Object.entries(shells).map(([name, shell]) => ({ name: `lab-${name}`, shell })) : [];

describe.runIf(canRunSshd() === null)('a real sshd', () => {
  let test: TestLab;
  let nowMs = Date.now();
  beforeAll(async () => {
    test = await withLab({ instances: 2, sshd: { count: 1, users }, now: () => nowMs });
  });
  afterAll(() => test.stop());
  afterEach(() => test.clearFaults());

  const idOf = () => test.lab.instances[0]?.id ?? '';
  const listInstances = async () =>
    (await (await fetch(`${test.lab.url}/instances`)).json()) as { instances: { id: string; ssh: string }[] };
  const counts = async () => (await test.counters()).instances[idOf()];

  it('logs in the user of this machine with a pushed key, and is counted', async () => {
    await test.resetCounters();
    expect(test.lab.instances[0]?.osUser).toBe(userInfo().username);
    const client = await loginTo(test.lab);
    expect((await exec(client, 'echo hello')).stdout.toString()).toBe('hello\n');
    expect(await counts()).toEqual({ pushes: 1, logins: 1, login_failures: 0, channels: 1, connections_open: 1 });
    client.end();
  });

  it('refuses a key that was pushed a minute ago, and while login_refused is on', async () => {
    const key = newUserKey();
    const osUser = userInfo().username;
    await pushKey(test.lab, { instanceId: idOf(), osUser, publicKey: key.publicKey });
    const login = () =>
      sshConnect({ port: test.lab.instances[0]?.sshPort ?? 0, username: osUser, privateKey: key.privateKey });
    (await login()).end();
    await test.fault('login_refused');
    await expect(login()).rejects.toThrow('authentication');
    await test.clearFaults();
    nowMs += 60_001;
    await expect(login()).rejects.toThrow('authentication');
    nowMs = Date.now();
  });

  it('shows the host keys that the console prints', async () => {
    let shown: Buffer = Buffer.alloc(0);
    const client = await loginTo(test.lab, 0, (wire) => {
      shown = wire;
    });
    client.end();
    const world = JSON.parse(readFileSync(`${test.dataDir}/lab.json`, 'utf8')) as {
      instances: { hostKeys: { publicKey: string }[] }[];
    };
    const printed = world.instances[0]?.hostKeys.map(({ publicKey }) => publicKey.split(' ')[1]);
    expect(printed).toContain(shown.toString('base64'));
  });

  it('has the faults that sshd has no switch for played on its port, with its own host keys', async () => {
    const shown: string[] = [];
    const client = async () => {
      const key = newUserKey();
      const osUser = userInfo().username;
      await pushKey(test.lab, { instanceId: idOf(), osUser, publicKey: key.publicKey });
      // Asked anew each time, as the endpoint does.
      const [{ ssh } = { ssh: '' }] = (await listInstances()).instances;
      const port = Number(ssh.split(':')[1]);
      return sshConnect({
        port,
        username: osUser,
        privateKey: key.privateKey,
        onHostKey: (wire) => shown.push(wire.toString('base64')),
      });
    };
    const said = async () => {
      const other = await client();
      const { stdout } = await exec(other, 'echo hello');
      other.end();
      return stdout.toString();
    };
    expect(await said()).toBe('hello\n');
    await test.fault('no_shell', { instanceId: idOf() });
    expect(await said()).toBe('This account is currently not available.\n');
    await test.clearFaults();
    await test.fault('host_key_changed', { instanceId: idOf() });
    await said();
    const [own, underNoShell, changed] = shown;
    expect(underNoShell).toBe(own);
    expect(changed).not.toBe(own);
  });

  it('has its connections cut with all others', async () => {
    const client = await loginTo(test.lab);
    // `once` would take the broken pipe for its own error.
    const closed = new Promise<void>((resolve) => client.on('close', () => resolve()));
    await test.cutConnections();
    await closed;
  });

  it.runIf(isRoot)('logs in users with the login shell they were made with', async () => {
    const said = new Map<string, string>();
    for (const { name } of users) {
      const key = newUserKey();
      await pushKey(test.lab, { instanceId: idOf(), osUser: name, publicKey: key.publicKey });
      const client = await sshConnect({
        port: test.lab.instances[0]?.sshPort ?? 0,
        username: name,
        privateKey: key.privateKey,
      });
      const { stdout, stderr } = await exec(client, "sh -c 'readlink /proc/$PPID/exe'; pwd");
      client.end();
      said.set(name, `${stdout}${stderr}`);
    }
    const expected = users.map(({ name, shell }) => [
      name,
      expect.stringMatching(`/${basename(shell)}\n/.*lab-home-.*\n$`),
    ]);
    expect(Object.fromEntries(said)).toEqual(Object.fromEntries(expected));
  });

  it('leaves no process and no user behind', async () => {
    const other = await withLab({
      instances: 1,
      sshd: { count: 1, users: isRoot ? [{ name: 'lab-gone', shell: '/bin/sh' }] : [] },
    });
    const client: Client = await loginTo(other.lab);
    const channel = await execChannel(
      client,
      "trap '' HUP TERM PIPE; setsid sleep 1004 & echo $!; echo $$; echo $PPID; wait",
    );
    let text = '';
    channel.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    while (text.split('\n').length < 4) await once(channel, 'data');
    await other.stop();
    const alive = text
      .trim()
      .split('\n')
      .filter((pid) => {
        try {
          return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
        } catch {
          return false;
        }
      });
    expect(alive).toEqual([]);
    expect(readFileSync('/etc/passwd', 'utf8')).not.toContain('lab-gone');
  });
});
