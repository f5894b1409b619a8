/** Which way to an instance, which addresses are never dialled, and dialling one. */

import type { AddressInfo } from 'node:net';
import { createServer, type Server } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Endpoint, Instance } from '../../src/drivers/aws.ts';
import { dialDirect, directWay, endpointWay, isDirect, requireDialable, sameWay } from '../../src/drivers/route.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { waitUntil } from '../support/wait.ts';

failOnLeaks();

const instance = (fields: Partial<Instance> = {}): Instance => ({
  id: 'i-1',
  state: 'running',
  privateIp: '10.0.1.23',
  publicIp: null,
  ipv6: null,
  vpcId: 'vpc-1',
  subnetId: 'subnet-1',
  zone: 'eu-west-1a',
  launchedAt: null,
  instanceType: null,
  imageId: null,
  stateReason: null,
  securityGroupIds: [],
  metadataEnabled: true,
  tags: new Map(),
  ...fields,
});

const endpoint = (id: string, fields: Partial<Endpoint> = {}): Endpoint => ({
  id,
  dnsName: `${id}.example`,
  vpcId: 'vpc-1',
  subnetId: 'subnet-9',
  zone: 'eu-west-1c',
  ipAddressType: 'ipv4',
  ...fields,
});

const chosen = (endpoints: Endpoint[], of = instance()) => {
  const way = endpointWay(of, endpoints);
  return way.kind === 'endpoint' ? [way.endpointId, way.address] : null;
};

describe('the endpoint', () => {
  it('is that of the same subnet, then of the same zone, then the smallest id', () => {
    const far = endpoint('eice-a');
    const farther = endpoint('eice-b');
    const zone = endpoint('eice-c', { zone: 'eu-west-1a' });
    const subnet = endpoint('eice-d', { subnetId: 'subnet-1' });
    expect(chosen([farther, far, zone, subnet])?.[0]).toBe('eice-d');
    expect(chosen([farther, far, zone])?.[0]).toBe('eice-c');
    expect(chosen([farther, far])?.[0]).toBe('eice-a');
  });

  it.each<[string, Partial<Endpoint>]>([
    ['of another VPC', { vpcId: 'vpc-2' }],
    ['without a DNS name', { dnsName: null }],
    ['for another kind of address', { ipAddressType: 'ipv6' }],
  ])('is none %s', (_, fields) => {
    expect(() => endpointWay(instance(), [endpoint('eice-a', fields)])).toThrow(
      expect.objectContaining({
        code: 'host_unreachable',
        details: expect.objectContaining({ failedStep: 'endpoint' }),
      }),
    );
  });

  it('is given an address of the kind it carries', () => {
    const both = instance({ ipv6: '2600:1f10::1' });
    expect(chosen([endpoint('eice-a', { ipAddressType: 'ipv6' })], both)?.[1]).toBe('2600:1f10::1');
    expect(chosen([endpoint('eice-a', { ipAddressType: 'dualstack' })], both)?.[1]).toBe('10.0.1.23');
    const only6 = instance({ privateIp: null, ipv6: '2600:1f10::1' });
    expect(chosen([endpoint('eice-a'), endpoint('eice-b', { ipAddressType: 'dualstack' })], only6)).toEqual([
      'eice-b',
      '2600:1f10::1',
    ]);
  });

  it('cannot be chosen for an instance without an address', () => {
    const none = instance({ privateIp: null });
    const refusal = expect.objectContaining({ details: expect.objectContaining({ failedStep: 'instance' }) });
    expect(() => endpointWay(none, [endpoint('eice-a')])).toThrow(refusal);
    expect(() => directWay(none)).toThrow(refusal);
  });
});

describe('the route', () => {
  const open = instance({ publicIp: '203.0.113.5', ipv6: '2600:1f10::1' });
  const only6 = instance({ privateIp: null, ipv6: '2600:1f10::1' });

  it('auto takes a public IPv4, else the endpoint to the private one, else IPv6', () => {
    expect(isDirect('auto', open)).toBe(true);
    expect(isDirect('auto', instance({ ipv6: '2600:1f10::1' }))).toBe(false);
    expect(isDirect('auto', only6)).toBe(true);
    expect([isDirect('direct', instance()), isDirect('endpoint', open)]).toEqual([true, false]);
  });

  it('direct takes the public IPv4, then IPv6, then the private one', () => {
    expect(directWay(open)).toEqual({ kind: 'direct', address: '203.0.113.5' });
    expect(directWay(only6)).toEqual({ kind: 'direct', address: '2600:1f10::1' });
    expect(directWay(instance())).toEqual({ kind: 'direct', address: '10.0.1.23' });
  });

  it('is the same with the same endpoint and address only', () => {
    const way = endpointWay(instance(), [endpoint('eice-a')]);
    expect(sameWay(way, endpointWay(instance(), [endpoint('eice-a')]))).toBe(true);
    expect(sameWay(way, endpointWay(instance({ privateIp: '10.0.1.24' }), [endpoint('eice-a')]))).toBe(false);
    expect(sameWay(way, endpointWay(instance(), [endpoint('eice-b')]))).toBe(false);
    expect(sameWay(way, endpointWay(instance(), [endpoint('eice-a', { dnsName: 'other.example' })]))).toBe(false);
    expect(sameWay(way, directWay(instance()))).toBe(false);
    expect(sameWay(directWay(instance()), directWay(instance()))).toBe(true);
  });
});

describe('an address', () => {
  it.each([
    '0.0.0.0',
    '127.0.0.1',
    '127.255.255.254',
    '169.254.169.254',
    '169.254.0.1',
    '224.0.0.1',
    '239.255.255.255',
    '255.255.255.255',
    '::',
    '::1',
    '::7f00:1',
    '::ffff:127.0.0.1',
    '::ffff:7f00:1',
    '::ffff:169.254.169.254',
    '64:ff9b::a9fe:a9fe',
    'fe80::1',
    'fe80::1%eth0',
    'ff02::1',
    'fd00:ec2::254',
    'localhost',
    '2130706433',
    '',
  ])('%s is never dialled', (address) => {
    expect(() => requireDialable(address)).toThrow(expect.objectContaining({ code: 'host_unreachable' }));
  });

  it.each(['10.0.1.23', '172.31.0.4', '203.0.113.5', '2600:1f10::1', 'fd12:3456::1', '::ffff:10.0.1.23'])(
    '%s may be',
    (address) => {
      expect(() => requireDialable(address)).not.toThrow();
    },
  );
});

describe('dialling', () => {
  let server: Server;
  let port: number;
  beforeAll(async () => {
    server = createServer((socket) => socket.on('error', () => {}).end('SSH-2.0-x\r\n'));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    port = (server.address() as AddressInfo).port;
  });
  afterAll(() => new Promise((resolve) => server.close(resolve)));

  it('gives a connected socket', async () => {
    const socket = await dialDirect('127.0.0.1', port, AbortSignal.timeout(5_000));
    const text = await new Promise((resolve) => socket.once('data', (data) => resolve(String(data))));
    expect(text).toBe('SSH-2.0-x\r\n');
    socket.destroy();
  });

  it('names a refused connection', async () => {
    await expect(dialDirect('127.0.0.1', 1, AbortSignal.timeout(5_000))).rejects.toMatchObject({
      code: 'host_unreachable',
      message: expect.stringContaining('ECONNREFUSED'),
      details: { failedStep: 'tunnel', remedy: expect.any(String) },
    });
  });

  it('ends with the reason of an abort and leaves no socket', async () => {
    const reason = new Error('the caller left');
    const controller = new AbortController();
    const dialling = dialDirect('127.0.0.1', port, controller.signal);
    controller.abort(reason);
    await expect(dialling).rejects.toBe(reason);
    await expect(dialDirect('127.0.0.1', port, controller.signal)).rejects.toBe(reason);
    await waitUntil(
      'no connection is left',
      () => new Promise((resolve) => server.getConnections((_, count) => resolve(count === 0))),
    );
  });
});
