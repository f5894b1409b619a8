import { once } from 'node:events';
import { DescribeInstanceConnectEndpointsCommand } from '@aws-sdk/client-ec2';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import WebSocket from 'ws';
import { type TestLab, withLab } from '../support/lab.ts';
import {
  ec2Client,
  exec,
  newUserKey,
  openTunnel,
  openWebSocket,
  overTunnel,
  presign,
  pushKey,
  type Refused,
  type TunnelAsk,
} from './dial.ts';

const MAX_TUNNELS = 5;
let test: TestLab;
let ask: TunnelAsk;
beforeAll(async () => {
  test = await withLab({ instances: 2, maxTunnels: MAX_TUNNELS });
  const { InstanceConnectEndpoints } = await ec2Client(test.lab).send(new DescribeInstanceConnectEndpointsCommand({}));
  const endpoint = InstanceConnectEndpoints?.[0];
  ask = {
    endpointId: endpoint?.InstanceConnectEndpointId ?? '',
    dnsName: endpoint?.DnsName ?? '',
    privateIp: test.lab.instances[0]?.privateIp ?? '',
  };
});
afterAll(() => test.stop());
afterEach(async () => {
  await test.clearFaults();
  await test.cutConnections();
  await test.resetCounters();
});

const idOf = (index: number) => test.lab.instances[index]?.id ?? '';
const open = (more: Partial<TunnelAsk> = {}) => openTunnel(test.lab, { ...ask, ...more });
const refusal = async (more: Partial<TunnelAsk> = {}, host = ask.dnsName): Promise<Refused> => {
  const answer = await openWebSocket(test.lab, await presign(test.lab, { ...ask, ...more }), host);
  if (answer instanceof WebSocket) throw new Error('it was not refused');
  return answer;
};
const closing = async (websocket: WebSocket) => {
  const [code, reason] = (await once(websocket, 'close')) as [number, Buffer];
  return [code, reason.toString()];
};
const login = async () => {
  const key = newUserKey();
  await pushKey(test.lab, { instanceId: idOf(0), osUser: 'ec2-user', publicKey: key.publicKey });
  return overTunnel(test.lab, ask, { username: 'ec2-user', privateKey: key.privateKey });
};

describe('a refused upgrade', () => {
  it.each([
    ['another port', { port: '3306' }, 'InvalidParameter'],
    ['no such endpoint', { endpointId: 'eice-1' }, 'InvalidInstanceConnectEndpointId.NotFound'],
    ['an address outside the VPC', { privateIp: '192.168.1.1' }, 'InvalidParameter'],
    ['a duration of nothing', { maxDurationS: '0' }, 'InvalidParameter'],
    ['a duration over an hour', { maxDurationS: '3601' }, 'InvalidParameter'],
    ['an expired signature', { signedAt: new Date(Date.now() - 61_000) }, 'ExpiredException'],
    ['a signature of tomorrow', { signedAt: new Date(Date.now() + 400_000) }, 'ExpiredException'],
    [
      'a wrong secret',
      { credentials: { accessKeyId: 'AKIAWRONG', secretAccessKey: 'wrong' } },
      'UnrecognizedClientException',
    ],
  ])('for %s names the reason', async (_what, more, ErrorCode) => {
    expect(await refusal(more)).toMatchObject({
      ErrorCode,
      Message: expect.stringMatching(/./),
      requestId: expect.stringMatching(/./),
    });
    expect((await test.counters()).tunnels).toMatchObject({ opened: 0, refused: 1 });
  });

  it('follows from a host other than the one signed', async () => {
    expect(await refusal({}, '127.0.0.1')).toMatchObject({ status: 404 });
    expect(await refusal({ dnsName: 'eice-other.amazonaws.com' }, ask.dnsName)).toMatchObject({
      ErrorCode: 'InvalidSignatureException',
    });
  });

  it('follows from a parameter changed after signing', async () => {
    const target = (await presign(test.lab, ask)).replace(ask.privateIp, test.lab.instances[1]?.privateIp ?? '');
    expect(await openWebSocket(test.lab, target, ask.dnsName)).toMatchObject({
      ErrorCode: 'InvalidSignatureException',
    });
  });

  it('follows beyond the tunnels that an endpoint carries, until one is closed', async () => {
    const tunnels = await Promise.all(Array.from({ length: MAX_TUNNELS }, () => open()));
    expect(await refusal()).toMatchObject({ ErrorCode: 'ServiceQuotaExceededException' });
    expect((await test.counters()).tunnels).toEqual({
      open: MAX_TUNNELS,
      peak: MAX_TUNNELS,
      opened: MAX_TUNNELS,
      refused: 1,
    });
    const [first] = tunnels;
    first?.close();
    while ((await test.counters()).tunnels.open === MAX_TUNNELS) await new Promise(setImmediate);
    (await open()).terminate();
  });

  it('follows from the faults, counted, and for the instance they were set for', async () => {
    await test.fault('tunnel_denied', { instanceId: idOf(0), times: 1 });
    await test.fault('tunnel_refused', { instanceId: idOf(0), times: 1 });
    (await open({ privateIp: test.lab.instances[1]?.privateIp ?? '' })).terminate();
    const denied = await refusal();
    expect(denied).toMatchObject({ status: 403, ErrorCode: 'AccessDeniedException' });
    expect(denied.Message).toContain('ec2-instance-connect:OpenTunnel on resource: arn:aws:ec2:us-east-1:');
    expect(await refusal()).toMatchObject({ ErrorCode: 'ServiceQuotaExceededException' });
    (await open()).terminate();
    await test.fault('endpoint_missing');
    expect(await refusal()).toMatchObject({ ErrorCode: 'InvalidInstanceConnectEndpointId.NotFound' });
  });

  it('a clock ahead by more than the life of a signature refuses it', async () => {
    await test.fault('clock_skew_s', { value: 61 });
    expect(await refusal()).toMatchObject({ ErrorCode: 'ExpiredException' });
    (await open({ signedAt: new Date(Date.now() + 61_000) })).terminate();
  });
});

describe('an open tunnel', () => {
  it('one URL opens several while it lives', async () => {
    const target = await presign(test.lab, ask);
    for (let round = 0; round < 2; round++) {
      const websocket = await openWebSocket(test.lab, target, ask.dnsName);
      expect(websocket).toBeInstanceOf(WebSocket);
    }
  });

  it('carries the banner of the SSH server first', async () => {
    const websocket = await open();
    const [data, isBinary] = (await once(websocket, 'message')) as [Buffer, boolean];
    expect(isBinary).toBe(true);
    expect(data.toString()).toMatch(/^SSH-2\.0-/);
  });

  it('to nobody closes with the reason that AWS gives', async () => {
    await test.fault('target_down', { times: 1 });
    expect(await closing(await open())).toEqual([1011, 'Unable to connect to target']);
    expect(await closing(await open({ privateIp: '10.0.1.250' }))).toEqual([1011, 'Unable to connect to target']);
    for (const fault of ['instance_stopped', 'instance_missing'] as const) {
      await test.fault(fault, { instanceId: idOf(0) });
      expect(await closing(await open())).toEqual([1011, 'Unable to connect to target']);
      await test.clearFaults();
    }
  });

  it('closes when its duration is over', async () => {
    const started = performance.now();
    expect(await closing(await open({ maxDurationS: '1' }))).toEqual([1001, 'Maximum tunnel duration reached']);
    expect(performance.now() - started).toBeGreaterThan(950);
  });

  it('closes in good order when the SSH server hangs up', async () => {
    const websocket = await open();
    await once(websocket, 'message');
    websocket.send('no SSH at all\r\n'.repeat(100), { binary: true });
    expect((await closing(websocket))[0]).toBe(1000);
  });

  it('takes no text, and no frame beyond 64 KiB', async () => {
    const text = await open();
    text.send('text');
    expect((await closing(text))[0]).toBe(1003);
    const large = await open();
    large.send(Buffer.alloc(65_537), { binary: true });
    expect((await closing(large))[0]).toBe(1009);
  });

  it('tolerates empty frames', async () => {
    const websocket = await open();
    for (let count = 0; count < 100; count++) websocket.send(Buffer.alloc(0));
    expect((await once(websocket, 'message')).toString()).toMatch(/^SSH-2\.0-/);
  });

  it('is cut without a word by tunnel_cut_after_ms', async () => {
    await test.fault('tunnel_cut_after_ms', { value: 30, times: 1 });
    expect((await closing(await open()))[0]).toBe(1006);
    const next = await open();
    await once(next, 'message');
  });

  it('is cut by DELETE /connections, and by the stop of its instance', async () => {
    const cut = closing(await open());
    await test.cutConnections();
    expect((await cut)[0]).toBe(1006);
    const other = await open({ privateIp: test.lab.instances[1]?.privateIp ?? '' });
    const stopped = closing(await open());
    await test.fault('instance_stopped', { instanceId: idOf(0) });
    expect((await stopped)[0]).toBe(1006);
    expect(other.readyState).toBe(WebSocket.OPEN);
  });

  it('says nothing at all under banner_hang', async () => {
    await test.fault('banner_hang', { times: 1 });
    const websocket = await open();
    let heard = 0;
    websocket.on('message', () => {
      heard += 1;
    });
    // A second tunnel gets its banner long after the first would have had its own.
    await once(await open(), 'message');
    const pong = once(websocket, 'pong');
    websocket.ping();
    await pong;
    expect(heard).toBe(0);
  });
});

describe('the link', () => {
  it('carries large data both ways unchanged', async () => {
    const client = await login();
    const bytes = Buffer.alloc(8 * 1024 * 1024, 'abcdefghij');
    const { stdout } = await exec(client, 'cat', bytes);
    expect(stdout.equals(bytes)).toBe(true);
    client.end();
  });

  it('latency_ms is one round trip, and takes nothing away', async () => {
    const client = await login();
    await exec(client, 'true');
    await test.fault('latency_ms', { value: 60 });
    const started = performance.now();
    expect((await exec(client, 'echo late')).stdout.toString()).toBe('late\n');
    // Open the channel, then run the program.
    expect(performance.now() - started).toBeGreaterThan(110);
    await test.clearFaults();
    const bytes = Buffer.alloc(1024 * 1024, 'x');
    await test.fault('latency_ms', { value: 10 });
    expect((await exec(client, 'cat', bytes)).stdout.equals(bytes)).toBe(true);
    client.end();
  });

  it('latency_ms delays the handshake of a tunnel, which a cut may meet', async () => {
    await test.fault('latency_ms', { instanceId: idOf(0), value: 80 });
    const started = performance.now();
    await open();
    expect(performance.now() - started).toBeGreaterThan(78);
    await test.fault('latency_ms', { instanceId: idOf(0), value: 60_000 });
    const refused = expect(open()).rejects.toThrow('socket hang up');
    const websocket = await open({ privateIp: test.lab.instances[1]?.privateIp ?? '' });
    await once(websocket, 'message');
    await test.cutConnections();
    await refused;
  });

  it('latency_ms delays the API as well', async () => {
    await test.fault('latency_ms', { value: 80, times: 1 });
    const started = performance.now();
    await ec2Client(test.lab).send(new DescribeInstanceConnectEndpointsCommand({}));
    expect(performance.now() - started).toBeGreaterThan(78);
  });

  it('an API call whose client hangs up holds nothing up', async () => {
    await test.fault('latency_ms', { value: 60_000, times: 1 });
    const hangUp = new AbortController();
    const call = ec2Client(test.lab).send(new DescribeInstanceConnectEndpointsCommand({}), {
      abortSignal: hangUp.signal,
    });
    while ((await test.counters()).api.DescribeInstanceConnectEndpoints !== 1) await new Promise(setImmediate);
    hangUp.abort();
    await expect(call).rejects.toMatchObject({ name: 'AbortError' });
    await ec2Client(test.lab).send(new DescribeInstanceConnectEndpointsCommand({}));
  });

  it('bandwidth_kbps bounds the rate', async () => {
    const client = await login();
    await test.fault('bandwidth_kbps', { value: 8_000 });
    const started = performance.now();
    const { stdout } = await exec(client, 'head -c 500000 /dev/zero');
    // 4 Mbit at 8 Mbit/s.
    expect(performance.now() - started).toBeGreaterThan(480);
    expect(stdout).toHaveLength(500_000);
    client.end();
  });

  it('a counted fault holds for the tunnel that met it, and not for the next', async () => {
    await test.fault('latency_ms', { instanceId: idOf(0), value: 600, times: 1 });
    const slow = await open();
    const fast = await open();
    const order: string[] = [];
    const banner = (websocket: WebSocket, name: string) => once(websocket, 'message').then(() => order.push(name));
    await Promise.all([banner(slow, 'slow'), banner(fast, 'fast')]);
    expect(order).toEqual(['fast', 'slow']);
  });
});
