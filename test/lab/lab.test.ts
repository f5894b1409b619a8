import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DescribeInstanceConnectEndpointsCommand, DescribeInstancesCommand } from '@aws-sdk/client-ec2';
import ssh2 from 'ssh2';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { FaultName } from '../../src/lab/faults.ts';
import { FAULTS } from '../../src/lab/faults.ts';
import { startLab } from '../../src/lab/lab.ts';
import { type TestLab, withLab } from '../support/lab.ts';
import { collect, ec2Client, exec, execChannel, loginTo, newUserKey, pushKey, sshConnect } from './dial.ts';

let test: TestLab;
let nowMs: () => number = Date.now;
beforeAll(async () => {
  test = await withLab({ instances: 2, specs: [{}, { osUser: 'ubuntu' }], now: () => nowMs() });
});
afterAll(() => test.stop());
afterEach(async () => {
  nowMs = Date.now;
  await test.clearFaults();
  await test.cutConnections();
  await test.resetCounters();
});

const instance = (index: number) => test.lab.instances[index] ?? { id: '', osUser: '', privateIp: '', sshPort: 0 };

describe('a login', () => {
  const pushed = async (index = 0, osUser = 'ec2-user') => {
    const key = newUserKey();
    await pushKey(test.lab, { instanceId: instance(index).id, osUser, publicKey: key.publicKey });
    return key;
  };
  const login = (privateKey: string, index = 0, username = 'ec2-user') =>
    sshConnect({ port: instance(index).sshPort, username, privateKey });

  it('works with a pushed key as often as one likes within a minute, and not after it', async () => {
    const { privateKey } = await pushed();
    const first = await login(privateKey);
    (await login(privateKey)).end();
    nowMs = () => Date.now() + 59_000;
    (await login(privateKey)).end();
    nowMs = () => Date.now() + 60_001;
    await expect(login(privateKey)).rejects.toThrow('authentication');
    expect((await exec(first, 'echo still here')).code).toBe(0);
    first.end();
  });

  it('works with an RSA key', async () => {
    const key = newUserKey('rsa');
    await pushKey(test.lab, { instanceId: instance(0).id, osUser: 'ec2-user', publicKey: key.publicKey });
    (await login(key.privateKey)).end();
  });

  it('is refused for a key of another instance, another user, or nobody', async () => {
    const { privateKey } = await pushed();
    await expect(login(privateKey, 1)).rejects.toThrow('authentication');
    await expect(login(privateKey, 0, 'root')).rejects.toThrow('authentication');
    await expect(login(newUserKey().privateKey)).rejects.toThrow('authentication');
    expect((await test.counters()).instances[instance(0).id]).toMatchObject({
      pushes: 1,
      logins: 0,
      login_failures: 2,
    });
  });

  it('is refused by any way but a key', async () => {
    for (const method of ['none', 'password', 'keyboard-interactive'] as const) {
      const client = new ssh2.Client();
      const failed = once(client, 'ready');
      client.connect({
        sock: connect({ host: '127.0.0.1', port: instance(0).sshPort, noDelay: true }),
        username: 'ec2-user',
        password: 'x',
        tryKeyboard: true,
        authHandler: [method],
      });
      await expect(failed).rejects.toThrow('authentication');
    }
  });

  it('is refused by login_refused as often as it was asked for', async () => {
    await test.fault('login_refused', { instanceId: instance(0).id, times: 1 });
    (await loginTo(test.lab, 1)).end();
    await expect(loginTo(test.lab)).rejects.toThrow('authentication');
    (await loginTo(test.lab)).end();
  });

  it('meets another host key under host_key_changed, the same one each time', async () => {
    const shown: string[] = [];
    const look = async () => (await loginTo(test.lab, 0, (wire) => shown.push(wire.toString('base64')))).end();
    await look();
    await test.fault('host_key_changed', { times: 2 });
    await look();
    await look();
    await look();
    const [own, changed] = shown;
    expect(changed).not.toBe(own);
    expect(shown).toEqual([own, changed, changed, own]);
  });

  it('offers an ECDSA host key to those who ask for one', async () => {
    const client = new ssh2.Client();
    const handshake = once(client, 'handshake');
    client.on('error', () => undefined);
    client.connect({
      sock: connect({ host: '127.0.0.1', port: instance(0).sshPort }),
      username: 'x',
      algorithms: { serverHostKey: ['ecdsa-sha2-nistp256'] },
    });
    expect(await handshake).toMatchObject([{ serverHostKey: 'ecdsa-sha2-nistp256' }]);
    client.destroy();
  });
});

describe('an instance that is', () => {
  it('without a shell says so and exits 1, whatever was asked', async () => {
    const client = await loginTo(test.lab);
    await test.fault('no_shell', { instanceId: instance(0).id, times: 1 });
    expect(await exec(client, 'echo hello')).toMatchObject({
      code: 1,
      stdout: Buffer.from('This account is currently not available.\n'),
    });
    expect((await exec(client, 'echo hello')).stdout.toString()).toBe('hello\n');
    client.end();
  });

  it('short of sessions refuses one more', async () => {
    const client = await loginTo(test.lab);
    await test.fault('max_sessions', { value: 1 });
    const channel = await execChannel(client, 'cat');
    await expect(execChannel(client, 'true')).rejects.toMatchObject({ reason: 2 });
    const ended = collect(channel);
    channel.end();
    await ended;
    expect((await exec(client, 'true')).code).toBe(0);
    client.end();
  });

  it('deaf to signals lets the program run on', async () => {
    const client = await loginTo(test.lab);
    await test.fault('signal_ignored', { times: 1 });
    const channel = await execChannel(
      client,
      "trap 'echo heard; exit 3' TERM; echo ready; while :; do sleep 0.01; done",
    );
    const ended = collect(channel);
    await once(channel, 'data');
    channel.signal('TERM');
    // Handled in order: when this one is done, the first has been ignored.
    await exec(client, 'true');
    channel.signal('TERM');
    expect(await ended).toMatchObject({ code: 3, stdout: Buffer.from('ready\nheard\n') });
    client.end();
  });
});

describe('control', () => {
  const ask = async (method: string, path: string, body?: unknown) => {
    const response = await fetch(test.lab.url + path, {
      method,
      body: body === undefined ? null : JSON.stringify(body),
    });
    return { status: response.status, body: (await response.json()) as Record<string, unknown> };
  };

  it('lists the instances with the port of each', async () => {
    expect((await ask('GET', '/instances')).body).toEqual({
      instances: test.lab.instances.map(({ id, osUser, privateIp, sshPort }) => ({
        id,
        os_user: osUser,
        private_ip: privateIp,
        ssh: `127.0.0.1:${sshPort}`,
      })),
    });
  });

  it('keeps one fault per name and instance, tells what is left of it, and clears all', async () => {
    const id = instance(0).id;
    await ask('POST', '/faults', { fault: 'latency_ms', value: 1 });
    await ask('POST', '/faults', { fault: 'login_refused', instance_id: id, times: 3 });
    await ask('POST', '/faults', { fault: 'latency_ms', value: 0 });
    await expect(loginTo(test.lab)).rejects.toThrow();
    expect((await ask('GET', '/faults')).body).toEqual({
      faults: [
        { fault: 'login_refused', instance_id: id, times: 2, value: 0 },
        { fault: 'latency_ms', instance_id: null, times: null, value: 0 },
      ],
    });
    expect((await ask('DELETE', '/faults')).body).toEqual({ faults: [] });
    (await loginTo(test.lab)).end();
  });

  it.each([
    [{ fault: 'no_such_fault' }, Object.keys(FAULTS).join(', ')],
    [{ fault: 'toString' }, 'unknown fault "toString"'],
    [{ fault: 'latency_ms' }, 'latency_ms needs a numeric "value" from 0'],
    [{ fault: 'bandwidth_kbps', value: 0 }, 'from 1'],
    [{ fault: 'login_refused', times: 0 }, '"times" must be'],
    [{ fault: 'login_refused', instance_id: 'i-1' }, 'no instance "i-1" here'],
    ['text', 'expected a JSON object'],
  ])('%j is refused with the reason', async (body, reason) => {
    const answer = await ask('POST', '/faults', body);
    expect(answer.status).toBe(400);
    expect(answer.body.error).toContain(reason);
    expect((await ask('GET', '/faults')).body).toEqual({ faults: [] });
  });

  it('every fault that is listed can be set', async () => {
    for (const [fault, range] of Object.entries(FAULTS)) {
      expect((await ask('POST', '/faults', { fault, times: 1, value: range === null ? undefined : 1 })).status).toBe(
        200,
      );
      expect((await ask('DELETE', '/faults')).status).toBe(200);
    }
    expect(Object.keys(FAULTS)).toEqual(
      expect.arrayContaining<FaultName>(['tunnel_cut_after_ms', 'clock_skew_s', 'console_conflict']),
    );
  });

  it('counts API calls, logins and channels, and starts again at zero', async () => {
    await ec2Client(test.lab).send(new DescribeInstancesCommand({}));
    const client = await loginTo(test.lab);
    await Promise.all([exec(client, 'true'), exec(client, 'true')]);
    expect(await test.counters()).toEqual({
      api: { DescribeInstances: 1, SendSSHPublicKey: 1 },
      tunnels: { open: 0, peak: 0, opened: 0, refused: 0 },
      instances: {
        [instance(0).id]: { pushes: 1, logins: 1, login_failures: 0, channels: 2, connections_open: 1 },
        [instance(1).id]: { pushes: 0, logins: 0, login_failures: 0, channels: 0, connections_open: 0 },
      },
    });
    await test.resetCounters();
    expect((await test.counters()).instances[instance(0).id]).toEqual({
      pushes: 0,
      logins: 0,
      login_failures: 0,
      channels: 0,
      connections_open: 1,
    });
    client.end();
  });

  it('DELETE /connections cuts SSH connections now', async () => {
    const client = await loginTo(test.lab);
    const closed = new Promise<void>((resolve) => client.on('close', () => resolve()));
    await test.cutConnections();
    await closed;
  });

  it('answers nobody who came by another name or from a web page', async () => {
    const status = (headers: Record<string, string>) =>
      new Promise((resolve, reject) => {
        request(`${test.lab.url}/faults`, { headers }, (response) => resolve(response.resume().statusCode))
          .on('error', reject)
          .end();
      });
    expect(await status({})).toBe(200);
    expect(await status({ host: 'lab.example.com' })).toBe(403);
    expect(await status({ origin: 'http://127.0.0.1:3000' })).toBe(403);
    expect((await ask('GET', '/nothing')).status).toBe(404);
  });
});

describe('a data folder', () => {
  const describeAll = async (lab: TestLab['lab']) => {
    const ec2 = ec2Client(lab);
    const [{ Reservations }, { InstanceConnectEndpoints }] = await Promise.all([
      ec2.send(new DescribeInstancesCommand({})),
      ec2.send(new DescribeInstanceConnectEndpointsCommand({})),
    ]);
    const shown: string[] = [];
    for (const index of lab.instances.keys()) {
      (await loginTo(lab, index, (wire) => shown.push(wire.toString('base64')))).end();
    }
    return { Reservations, InstanceConnectEndpoints, shown };
  };

  it('keeps ids, addresses, names, host keys and the access key over a restart, also when instances are added', async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'lab-'));
    const first = await withLab({ dataDir, instances: 2 });
    const before = await describeAll(first.lab);
    await first.stop();
    await expect(startLab({ dataDir, region: 'eu-west-1' })).rejects.toThrow('is in region us-east-1, not eu-west-1');
    const second = await withLab({ dataDir, instances: 3 });
    const after = await describeAll(second.lab);
    await second.stop();
    expect(after.Reservations?.slice(0, 2)).toEqual(before.Reservations);
    expect(after.InstanceConnectEndpoints).toEqual(before.InstanceConnectEndpoints);
    expect(after.shown.slice(0, 2)).toEqual(before.shown);
    expect([second.lab.accessKeyId, second.lab.secretAccessKey]).toEqual([
      first.lab.accessKeyId,
      first.lab.secretAccessKey,
    ]);
    await rm(dataDir, { recursive: true });
  });

  it('holds its secrets where only its owner reads them', async () => {
    const file = join(test.dataDir, 'lab.json');
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect(await readFile(file, 'utf8')).toContain(test.lab.secretAccessKey);
  });

  it('that holds nonsense is not overwritten', async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'lab-'));
    await writeFile(join(dataDir, 'lab.json'), '{');
    await expect(startLab({ dataDir, instances: 1 })).rejects.toThrow('remove it to start a new lab');
    expect(await readFile(join(dataDir, 'lab.json'), 'utf8')).toBe('{');
    await rm(dataDir, { recursive: true });
  });

  it('is left without open ports when the lab cannot start', async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'lab-'));
    const taken = Number(new URL(test.lab.url).port);
    await expect(startLab({ dataDir, instances: 2, port: taken })).rejects.toThrow('EADDRINUSE');
    await expect(startLab({ dataDir, instances: 0 })).rejects.toThrow('1 to 480 instances, not 0');
    expect(existsSync(join(dataDir, 'lab.json'))).toBe(true);
    await rm(dataDir, { recursive: true });
  });
});

it('stop closes every port and connection, and may be called twice', async () => {
  const short = await withLab({ instances: 1 });
  const client = await loginTo(short.lab);
  const closed = new Promise<void>((resolve) => client.on('close', () => resolve()));
  await Promise.all([short.stop(), short.stop()]);
  await closed;
  await expect(fetch(`${short.lab.url}/faults`)).rejects.toThrow();
  const socket = connect({ host: '127.0.0.1', port: short.lab.instances[0]?.sshPort ?? 0 });
  await expect(once(socket, 'connect')).rejects.toThrow('ECONNREFUSED');
});
