import { execFile, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Client, ClientChannel } from 'ssh2';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type TestLab, withLab } from '../support/lab.ts';
import { collect, exec, execChannel, loginTo, newUserKey, pushKey } from './dial.ts';

let test: TestLab;
let client: Client;
beforeAll(async () => {
  process.env.LAB_TEST_SECRET = 'must not leak';
  const shells = ['/usr/bin/tcsh', '/usr/bin/zsh', '/usr/bin/fish', '/bin/bash'];
  test = await withLab({ instances: 5, specs: [{}, ...shells.map((shell) => ({ shell }))] });
  client = await loginTo(test.lab);
});
afterAll(async () => {
  client.end();
  await test.stop();
});
afterEach(() => test.clearFaults());

/** Polls: what is waited for is another process's doing. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await sleep(5);
}

/** ssh2's own `signal` sends nothing once stdin has ended. */
function signalAfterEof(on: Client, channel: ClientChannel, name: string): void {
  const { _protocol: protocol } = on as unknown as { _protocol: { signal(id: number, name: string): void } };
  protocol.signal((channel as unknown as { outgoing: { id: number } }).outgoing.id, name);
}

const isAlive = (pid: number) =>
  existsSync(`/proc/${pid}`) && !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));

describe('exit', () => {
  it.each([0, 1, 42, 126, 255])('code %i is told as it is', async (code) => {
    expect(await exec(client, `exit ${code}`)).toMatchObject({ code, signal: undefined });
  });

  it.each(['TERM', 'KILL', 'SEGV'])('an end by SIG%s is told as a signal', async (name) => {
    expect(await exec(client, `kill -${name} $$`)).toMatchObject({ code: null, signal: `SIG${name}` });
  });

  it('is told while a background child still holds the output', async () => {
    const channel = await execChannel(client, 'sleep 1000 & echo $!; exit 3');
    let closed = false;
    channel.on('close', () => {
      closed = true;
    });
    const [[pid], [code]] = await Promise.all([once(channel, 'data'), once(channel, 'exit')]);
    expect(code).toBe(3);
    expect((await exec(client, 'true')).code).toBe(0);
    expect(closed).toBe(false);
    await exec(client, `kill ${pid}`);
    await until(() => closed);
  });

  it('comes after the end of output when the program closed both outputs first', async () => {
    const channel = await execChannel(client, 'exec >&- 2>&-; read line; exit 4');
    const order: string[] = [];
    channel.on('end', () => {
      order.push('end');
      channel.end('go\n');
    });
    channel.on('exit', (code: number) => order.push(`exit ${code}`));
    await collect(channel);
    expect(order).toEqual(['end', 'exit 4']);
  });

  it('a login shell that is not there is an ordinary failure', async () => {
    const broken = await withLab({ instances: 1, specs: [{ shell: '/bin/no-such-shell' }] });
    const other = await loginTo(broken.lab);
    const ended = await exec(other, 'true');
    expect(ended.code).toBe(1);
    expect(ended.stderr.toString()).toContain('/bin/no-such-shell');
    other.end();
    await broken.stop();
  });
});

describe('bytes', () => {
  it('1 MiB of stdin comes back as it went in', async () => {
    const bytes = randomBytes(1024 * 1024);
    const ended = await exec(client, 'cat', bytes);
    expect(ended.stdout.equals(bytes)).toBe(true);
  });

  it('both outputs under back-pressure arrive whole and once', async () => {
    const size = 5 * 1024 * 1024;
    const channel = await execChannel(
      client,
      `head -c ${size} /dev/zero | tr '\\0' o & head -c ${size} /dev/zero | tr '\\0' e >&2; wait`,
    );
    const ended = collect(channel);
    // Both windows run full before anything is read.
    channel.pause();
    channel.stderr.pause();
    const channelWindow = () => (channel as unknown as { incoming: { window: number } }).incoming.window;
    await until(() => channelWindow() === 0);
    channel.resume();
    channel.stderr.resume();
    const { stdout, stderr, code } = await ended;
    expect(code).toBe(0);
    expect([stdout.length, stderr.length]).toEqual([size, size]);
    expect(stdout.equals(Buffer.alloc(size, 'o')) && stderr.equals(Buffer.alloc(size, 'e'))).toBe(true);
  });

  it('a program that reads nothing stops the sender, and is not hurt by it', async () => {
    const channel = await execChannel(client, 'read line; echo $line; exec cat | sha256sum');
    const bytes = Buffer.concat([Buffer.from('first\n'), randomBytes(6 * 1024 * 1024)]);
    const ended = collect(channel);
    channel.end(bytes);
    const digest = createHash('sha256').update(bytes.subarray(6)).digest('hex');
    expect((await ended).stdout.toString()).toBe(`first\n${digest}  -\n`);
  });

  it('a program that ends without reading its stdin ends in peace', async () => {
    expect(await exec(client, 'exit 5', randomBytes(4 * 1024 * 1024))).toMatchObject({ code: 5 });
  });

  it('the standard streams are pipes, and can be opened by name', async () => {
    const ended = await exec(
      client,
      'cat /dev/stdin; echo out >/dev/stdout; echo err >/dev/stderr; ls -l /proc/self/fd/0',
      Buffer.from('in\n'),
    );
    expect(ended.stdout.toString()).toMatch(/^in\nout\n.* -> .*pipe/);
    expect(ended.stderr.toString()).toBe('err\n');
  });
});

describe('the login', () => {
  it('gives nothing of the environment of the lab', async () => {
    const { stdout } = await exec(client, 'exec env');
    const names = stdout
      .toString()
      .trim()
      .split('\n')
      .map((line) => line.slice(0, line.indexOf('=')));
    expect(names.sort()).toEqual(['HOME', 'LOGNAME', 'PATH', 'PWD', 'SHELL', 'SSH_CLIENT', 'SSH_CONNECTION', 'USER']);
  });

  it('starts in a home of its own, in a session of its own', async () => {
    const { stdout } = await exec(client, 'pwd; cut -d" " -f1,5,6 /proc/$$/stat');
    const [pwd, ids = ''] = stdout.toString().split('\n');
    const [pid, group, session] = ids.split(' ');
    expect(pwd).toBe(join(test.dataDir, 'home', test.lab.instances[0]?.id ?? ''));
    expect([group, session]).toEqual([pid, pid]);
  });

  it.each([
    [1, 'echo $version', 'tcsh'],
    [2, 'echo zsh $ZSH_VERSION', 'zsh'],
    [3, 'echo fish $FISH_VERSION', 'fish'],
    [4, 'echo bash $BASH_VERSION', 'bash'],
  ])('instance %i runs its own shell', async (index, command, name) => {
    const other = await loginTo(test.lab, index);
    const ended = await exec(other, command);
    other.end();
    expect(ended.stdout.toString()).toMatch(new RegExp(`^${name} \\d`));
    expect(ended.stderr.toString()).toBe('');
  });
});

describe('requests', () => {
  it('a signal reaches the process group, also after the end of stdin', async () => {
    const channel = await execChannel(client, 'sleep 1000 & echo $!; wait');
    const ended = collect(channel);
    const [pid] = (await once(channel, 'data')) as [Buffer];
    channel.end();
    signalAfterEof(client, channel, 'TERM');
    expect(await ended).toMatchObject({ signal: 'SIGTERM' });
    await until(() => !isAlive(Number(pid)));
  });

  it('an env request, a terminal and a shell are refused', async () => {
    const withEnv = await new Promise<string>((resolve, reject) => {
      client.exec('echo "[$FOO]"', { env: { FOO: 'bar' } }, (error, channel) => {
        if (error) return reject(error);
        collect(channel).then(({ stdout }) => resolve(stdout.toString()), reject);
        channel.end();
      });
    });
    expect(withEnv).toBe('[]\n');
    // Of its own: ssh2 does not give back the channel of a refused subsystem.
    const other = await loginTo(test.lab);
    const refused = (ask: (done: (error: Error | undefined) => void) => void) => new Promise((resolve) => ask(resolve));
    expect(await refused((done) => other.exec('true', { pty: true }, done))).toBeInstanceOf(Error);
    expect(await refused((done) => other.shell(done))).toBeInstanceOf(Error);
    expect(await refused((done) => other.sftp(done))).toBeInstanceOf(Error);
    other.end();
  });

  it('the eleventh session of a connection is refused, and the ten go on', async () => {
    const channels = await Promise.all(Array.from({ length: 10 }, () => execChannel(client, 'cat')));
    await expect(execChannel(client, 'true')).rejects.toMatchObject({ reason: 2 });
    const ended = channels.map((channel) => collect(channel));
    for (const [index, channel] of channels.entries()) channel.end(String(index));
    expect((await Promise.all(ended)).map(({ stdout }) => stdout.toString())).toEqual([...'0123456789']);
    expect((await exec(client, 'true')).code).toBe(0);
  });
});

it.runIf(existsSync('/usr/bin/ssh'))(
  'the client of OpenSSH runs one program after another on one connection',
  async () => {
    const [instance] = test.lab.instances;
    const key = newUserKey();
    const keyFile = join(test.dataDir, 'user-key');
    writeFileSync(keyFile, key.privateKey, { mode: 0o600 });
    await pushKey(test.lab, { instanceId: instance?.id ?? '', osUser: 'ec2-user', publicKey: key.publicKey });
    const options = [
      '-F',
      '/dev/null',
      '-i',
      keyFile,
      '-o',
      'StrictHostKeyChecking=no',
      '-o',
      'UserKnownHostsFile=/dev/null',
      '-o',
      'LogLevel=ERROR',
    ];
    const shared = [
      ...options,
      '-o',
      `ControlPath=${join(test.dataDir, 'mux')}`,
      '-p',
      String(instance?.sshPort),
      'ec2-user@127.0.0.1',
    ];
    const ssh = (...args: string[]) => promisify(execFile)('/usr/bin/ssh', args, { timeout: 10_000 });
    const before = (await test.counters()).instances[instance?.id ?? '']?.logins ?? 0;
    const master = spawn('/usr/bin/ssh', ['-o', 'ControlMaster=yes', '-N', ...shared], { stdio: 'inherit' });
    await until(() => existsSync(join(test.dataDir, 'mux')));
    for (let round = 0; round < 5; round++) {
      expect(await ssh(...shared, `echo ${round}; echo err >&2`)).toEqual({ stdout: `${round}\n`, stderr: 'err\n' });
      await expect(ssh(...shared, 'exit 7')).rejects.toMatchObject({ code: 7 });
    }
    expect((await test.counters()).instances[instance?.id ?? '']?.logins).toBe(before + 1);
    await ssh('-O', 'exit', ...shared).catch(() => undefined);
    if (master.exitCode === null) await once(master, 'exit');
  },
);

describe('the end', () => {
  it('a session that is given back unused is answered, and counts no more', async () => {
    const other = await loginTo(test.lab);
    for (let round = 0; round < 11; round++) {
      const failed = new Promise((resolve) => other.exec('true', { pty: true }, resolve));
      await failed;
    }
    expect((await exec(other, 'true')).code).toBe(0);
    other.end();
  });

  it('a client that closes the channel still gets the exit status, when the program ends', async () => {
    const channel = await execChannel(client, 'echo ready; cat >/dev/null; exit 9');
    const exit = once(channel, 'exit');
    await once(channel, 'data');
    channel.close();
    expect(await exit).toEqual([9]);
  });

  it.each([
    ['has ended', 3_200_000],
    ['still writes', 9_000_000],
  ])('a session that is closed with its output unread counts no more, when the program %s', async (_what, size) => {
    const other = await loginTo(test.lab);
    for (let round = 0; round < 11; round++) {
      // ssh2 takes 3 MiB unread; the way to it holds some 300 KiB more.
      const channel = await execChannel(other, `head -c ${size} /dev/zero`);
      const { incoming } = channel as unknown as { incoming: { window: number } };
      await until(() => incoming.window === 0);
      const closed = once(channel, 'close');
      channel.close();
      channel.resume();
      await closed;
    }
    expect((await exec(other, 'true')).code).toBe(0);
    other.end();
  });

  it('a connection that dies ends the input and not the program', async () => {
    const other = await loginTo(test.lab);
    const mark = join(test.dataDir, 'went-on');
    const channel = await execChannel(other, `echo ready; cat >/dev/null; trap '' PIPE; echo lost; echo done >${mark}`);
    await once(channel, 'data');
    other.destroy();
    await until(() => existsSync(mark) && readFileSync(mark, 'utf8') === 'done\n');
  });

  it('a connection that dies while the program reads nothing ends its input all the same', async () => {
    const other = await loginTo(test.lab);
    const mark = join(test.dataDir, 'input-ended');
    const channel = await execChannel(other, `echo $$; while [ ! -e ${mark}.go ]; do sleep 0.01; done; wc -c >${mark}`);
    await once(channel, 'data');
    channel.write(Buffer.alloc(3 * 1024 * 1024));
    await sleep(0);
    other.destroy();
    await exec(client, `touch ${mark}.go`);
    await until(() => existsSync(mark) && readFileSync(mark, 'utf8') !== '');
    expect(Number(readFileSync(mark, 'utf8'))).toBeLessThan(3 * 1024 * 1024);
  });

  it('stop ends every program, also those that left their session', async () => {
    const short = await withLab({ instances: 1 });
    const other = await loginTo(short.lab);
    const channel = await execChannel(
      other,
      "trap '' TERM HUP; sleep 1001 & echo $!; setsid sleep 1002 & echo $!; setsid env -i sleep 1003 & echo $! $$; wait",
    );
    const pids: number[] = [];
    channel.on('data', (chunk: Buffer) => pids.push(...chunk.toString().trim().split(/\s+/).map(Number)));
    await until(() => pids.length === 4);
    await until(() => pids.every(isAlive));
    await short.stop();
    expect(pids.filter(isAlive)).toEqual([]);
  });
});
