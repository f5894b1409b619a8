import {
  DescribeInstanceConnectEndpointsCommand,
  DescribeInstanceStatusCommand,
  DescribeInstancesCommand,
  type DescribeInstancesCommandInput,
  type EC2Client,
  GetConsoleOutputCommand,
  paginateDescribeInstances,
} from '@aws-sdk/client-ec2';
import { type EC2InstanceConnectClient, SendSSHPublicKeyCommand } from '@aws-sdk/client-ec2-instance-connect';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type TestLab, withLab } from '../support/lab.ts';
import { credentialsOf, ec2Client, eicClient, newUserKey } from './dial.ts';

let test: TestLab;
let ec2: EC2Client;
let eic: EC2InstanceConnectClient;
beforeAll(async () => {
  test = await withLab({
    instances: 12,
    specs: [{ tags: { Org: 'org-a', Name: 'a <&> "b"' } }, { tags: { Org: 'org-b' } }],
  });
  ec2 = ec2Client(test.lab);
  eic = eicClient(test.lab);
});
afterAll(() => test.stop());
afterEach(async () => {
  await test.clearFaults();
});

const idOf = (index: number) => test.lab.instances[index]?.id ?? '';
const describeIds = async (input: DescribeInstancesCommandInput) => {
  const { Reservations = [] } = await ec2.send(new DescribeInstancesCommand(input));
  return Reservations.flatMap(({ Instances = [] }) => Instances.map(({ InstanceId }) => InstanceId));
};
const filter = (Name: string, ...Values: string[]) => ({ Filters: [{ Name, Values }] });

describe('DescribeInstances', () => {
  it('shows a running instance with a private address only', async () => {
    const { Reservations } = await ec2.send(new DescribeInstancesCommand({ InstanceIds: [idOf(0)] }));
    const instance = Reservations?.[0]?.Instances?.[0];
    expect(instance).toMatchObject({
      InstanceId: expect.stringMatching(/^i-0[0-9a-f]{16}$/),
      State: { Code: 16, Name: 'running' },
      PrivateIpAddress: '10.0.1.10',
      VpcId: expect.stringMatching(/^vpc-/),
      SubnetId: expect.stringMatching(/^subnet-/),
      Placement: { AvailabilityZone: 'us-east-1a' },
      LaunchTime: expect.any(Date),
      MetadataOptions: { HttpEndpoint: 'enabled' },
      Tags: [
        { Key: 'Org', Value: 'org-a' },
        { Key: 'Name', Value: 'a <&> "b"' },
      ],
    });
    expect(instance?.PublicIpAddress).toBeUndefined();
    expect(instance?.Platform).toBeUndefined();
  });

  it('finds by filter: ids that are gone are left out, values may hold wildcards, filters are joined by and', async () => {
    const all = await describeIds({});
    expect(all).toHaveLength(12);
    expect(await describeIds(filter('instance-id', idOf(3), 'i-00000000000000000'))).toEqual([idOf(3)]);
    expect(await describeIds(filter('tag:Org', 'org-a'))).toEqual([idOf(0)]);
    expect(await describeIds(filter('tag:Org', 'org-?'))).toEqual([idOf(0), idOf(1)]);
    expect(await describeIds(filter('tag:NoSuchTag', '*'))).toEqual([]);
    expect(await describeIds(filter('private-ip-address', '10.0.2.*'))).toHaveLength(6);
    expect(await describeIds(filter('instance-state-name', 'stopped'))).toEqual([]);
    const both = [
      { Name: 'tag-key', Values: ['Org'] },
      { Name: 'availability-zone', Values: ['us-east-1b'] },
    ];
    expect(await describeIds({ Filters: both })).toEqual([idOf(1)]);
  });

  it('comes in pages', async () => {
    const pages: number[] = [];
    for await (const page of paginateDescribeInstances({ client: ec2, pageSize: 5 }, {}))
      pages.push(page.Reservations?.length ?? 0);
    expect(pages).toEqual([5, 5, 2]);
  });

  it.each([
    [{ InstanceIds: ['i-00000000000000000'] }, 'InvalidInstanceID.NotFound'],
    [{ InstanceIds: ['nonsense'] }, 'InvalidInstanceID.Malformed'],
    [filter('no-such-filter', 'x'), 'InvalidParameterValue'],
    [{ MaxResults: 3 }, 'InvalidParameterValue'],
    [{ NextToken: 'garbage' }, 'InvalidNextToken'],
    [{ DryRun: true }, 'DryRunOperation'],
  ])('%j is refused as %s', async (input, name) => {
    await expect(ec2.send(new DescribeInstancesCommand(input))).rejects.toMatchObject({ name });
  });

  it('takes ids or pages, not both, and fails as a whole for one bad id', async () => {
    await expect(describeIds({ InstanceIds: [idOf(0)], MaxResults: 5 })).rejects.toMatchObject({
      name: 'InvalidParameterCombination',
    });
    await expect(describeIds({ InstanceIds: [idOf(0), 'i-00000000000000000'] })).rejects.toMatchObject({
      name: 'InvalidInstanceID.NotFound',
    });
  });

  it('shows a stopped instance, which then has no status unless all are asked for', async () => {
    await test.fault('instance_stopped', { instanceId: idOf(2) });
    const { Reservations } = await ec2.send(new DescribeInstancesCommand({ InstanceIds: [idOf(2)] }));
    expect(Reservations?.[0]?.Instances?.[0]?.State).toEqual({ Code: 80, Name: 'stopped' });
    const running = await ec2.send(new DescribeInstanceStatusCommand({ InstanceIds: [idOf(2)] }));
    expect(running.InstanceStatuses).toEqual([]);
    const all = await ec2.send(
      new DescribeInstanceStatusCommand({ InstanceIds: [idOf(2)], IncludeAllInstances: true }),
    );
    expect(all.InstanceStatuses?.[0]).toMatchObject({
      InstanceState: { Name: 'stopped' },
      InstanceStatus: { Status: 'not-applicable' },
    });
  });

  it('does not know a missing instance: an error by id, nothing by filter', async () => {
    await test.fault('instance_missing', { instanceId: idOf(2) });
    await expect(describeIds({ InstanceIds: [idOf(2)] })).rejects.toMatchObject({ name: 'InvalidInstanceID.NotFound' });
    expect(await describeIds(filter('instance-id', idOf(2), idOf(3)))).toEqual([idOf(3)]);
  });
});

it('DescribeInstanceStatus tells the checks of a running instance', async () => {
  const { InstanceStatuses } = await ec2.send(new DescribeInstanceStatusCommand({ InstanceIds: [idOf(0)] }));
  expect(InstanceStatuses).toMatchObject([
    {
      InstanceId: idOf(0),
      InstanceState: { Name: 'running' },
      InstanceStatus: { Status: 'ok' },
      SystemStatus: { Status: 'ok' },
    },
  ]);
});

describe('DescribeInstanceConnectEndpoints', () => {
  const find = async (...filters: { Name: string; Values: string[] }[]) =>
    (await ec2.send(new DescribeInstanceConnectEndpointsCommand({ Filters: filters }))).InstanceConnectEndpoints ?? [];

  it('shows the one endpoint of the VPC', async () => {
    const [endpoint, ...others] = await find({ Name: 'state', Values: ['create-complete', 'update-complete'] });
    expect(others).toEqual([]);
    expect(endpoint).toMatchObject({
      InstanceConnectEndpointId: expect.stringMatching(/^eice-/),
      InstanceConnectEndpointArn: expect.stringMatching(
        /^arn:aws:ec2:us-east-1:\d{12}:instance-connect-endpoint\/eice-/,
      ),
      State: 'create-complete',
      DnsName: expect.stringMatching(
        /^eice-[0-9a-f]+\.[0-9a-f]{8}\.ec2-instance-connect-endpoint\.us-east-1\.amazonaws\.com$/,
      ),
      FipsDnsName: expect.stringContaining('.fips.ec2-instance-connect-endpoint.'),
      SubnetId: expect.stringMatching(/^subnet-/),
      PreserveClientIp: false,
      IpAddressType: 'ipv4',
      CreatedAt: expect.any(Date),
      PublicDnsNames: { Ipv4: { DnsName: endpoint?.DnsName } },
    });
    expect(endpoint?.SecurityGroupIds).toHaveLength(1);
    expect(endpoint?.NetworkInterfaceIds).toHaveLength(1);
    expect(await find({ Name: 'vpc-id', Values: [endpoint?.VpcId ?? ''] })).toHaveLength(1);
    expect(await find({ Name: 'vpc-id', Values: ['vpc-1'] })).toEqual([]);
    expect(await find({ Name: 'state', Values: ['delete-complete'] })).toEqual([]);
  });

  it('names what is wrong with an id', async () => {
    const byId = (id: string) =>
      ec2.send(new DescribeInstanceConnectEndpointsCommand({ InstanceConnectEndpointIds: [id] }));
    await expect(byId('eice-1')).rejects.toMatchObject({ name: 'InvalidInstanceConnectEndpointId.NotFound' });
    await expect(byId('nonsense')).rejects.toMatchObject({ name: 'InvalidInstanceConnectEndpointId.Malformed' });
  });

  it('endpoint_missing: there is none; for one instance: it stands in a VPC without one', async () => {
    await test.fault('endpoint_missing', { instanceId: idOf(1) });
    const [endpoint] = await find();
    const { Reservations } = await ec2.send(new DescribeInstancesCommand({ InstanceIds: [idOf(1)] }));
    expect(await find({ Name: 'vpc-id', Values: [Reservations?.[0]?.Instances?.[0]?.VpcId ?? ''] })).toEqual([]);
    expect(endpoint?.State).toBe('create-complete');
    await test.fault('endpoint_missing');
    expect(await find()).toEqual([]);
  });
});

describe('GetConsoleOutput', () => {
  const read = async (index = 0) => {
    const { Output } = await ec2.send(new GetConsoleOutputCommand({ InstanceId: idOf(index), Latest: true }));
    return Output === undefined ? null : Buffer.from(Output, 'base64').toString('latin1');
  };
  const keyBlocks = (text: string) =>
    [...text.matchAll(/-----BEGIN SSH HOST KEY KEYS-----\r\n(.*?)-----END SSH HOST KEY KEYS-----\r\n/gs)].map(
      (match) => match[1],
    );

  it('prints the host keys as cloud-init does', async () => {
    const text = (await read()) ?? '';
    const [block = '', ...others] = keyBlocks(text);
    expect(others).toEqual([]);
    expect(block).toMatch(
      /^ssh-ed25519 AAAA\S+ root@ip-10-0-1-10\.ec2\.internal\r\necdsa-sha2-nistp256 AAAA\S+ root@\S+\r\n$/,
    );
    expect(text).toMatch(/<14>\w{3} [ \d]\d \d\d:\d\d:\d\d cloud-init: 256 SHA256:[\w+/]{43} root@\S+ \(ED25519\)\r\n/);
    expect(text).toContain('ci-info: | ssh-rsa |');
  });

  it('fails for an instance that is not there', async () => {
    await expect(ec2.send(new GetConsoleOutputCommand({ InstanceId: 'i-00000000000000000' }))).rejects.toMatchObject({
      name: 'InvalidInstanceID.NotFound',
    });
  });

  it('can be empty, cut short, or name two keys of one type', async () => {
    await test.fault('console_empty', { times: 1 });
    expect(await read()).toBeNull();
    await test.fault('console_partial', { times: 1 });
    const partial = (await read()) ?? '';
    expect(partial).toContain('-----BEGIN SSH HOST KEY KEYS-----');
    expect(partial).not.toContain('-----END SSH HOST KEY KEYS-----');
    await test.fault('console_conflict', { times: 1 });
    const [first, second] = keyBlocks((await read()) ?? '');
    expect(second).toMatch(/^ssh-ed25519 /);
    expect(second).not.toBe(first);
    expect(keyBlocks((await read()) ?? '')).toEqual([first]);
  });
});

describe('SendSSHPublicKey', () => {
  const key = newUserKey().publicKey;
  const push = (
    fields: Partial<{
      InstanceId: string;
      InstanceOSUser: string;
      SSHPublicKey: string;
      AvailabilityZone: string;
    }> = {},
  ) =>
    eic.send(
      new SendSSHPublicKeyCommand({ InstanceId: idOf(0), InstanceOSUser: 'ec2-user', SSHPublicKey: key, ...fields }),
    );

  it('takes an ed25519 key without comment, which has exactly 80 characters, and an RSA key', async () => {
    const bare = key.split(' ').slice(0, 2).join(' ');
    expect(bare).toHaveLength(80);
    expect(await push({ SSHPublicKey: bare })).toMatchObject({ Success: true, RequestId: expect.any(String) });
    expect(await push({ SSHPublicKey: newUserKey('rsa').publicKey, AvailabilityZone: 'us-east-1a' })).toMatchObject({
      Success: true,
    });
  });

  it.each([
    [{ SSHPublicKey: 'ssh-ed25519 AAAA' }, 'InvalidArgsException'],
    [{ SSHPublicKey: `ssh-ed25519 ${'A'.repeat(4100)}` }, 'InvalidArgsException'],
    [{ SSHPublicKey: `ecdsa-sha2-nistp256 ${'A'.repeat(100)}` }, 'InvalidArgsException'],
    [{ SSHPublicKey: `ssh-ed25519 ${'A'.repeat(68)}` }, 'InvalidArgsException'],
    [{ InstanceId: 'i-xyz' }, 'InvalidArgsException'],
    [{ InstanceId: 'i-00000000000000000' }, 'EC2InstanceNotFoundException'],
    [{ InstanceOSUser: '12345' }, 'InvalidArgsException'],
    [{ InstanceOSUser: 'a b' }, 'InvalidArgsException'],
    [{ InstanceOSUser: 'a'.repeat(33) }, 'InvalidArgsException'],
    [{ AvailabilityZone: 'nowhere' }, 'InvalidArgsException'],
  ])('%j is refused as %s', async (fields, name) => {
    await expect(push(fields)).rejects.toMatchObject({ name });
  });

  it.each(['user.name@example', 'svc$', '_apt', 'u1'])('the user %s may have a key', async (InstanceOSUser) => {
    expect((await push({ InstanceOSUser })).Success).toBe(true);
  });

  it.each([
    ['push_denied', 'AccessDeniedException', 400],
    ['push_unavailable', 'EC2InstanceUnavailableException', 503],
    ['push_throttled', 'ThrottlingException', 429],
    ['instance_stopped', 'EC2InstanceStateInvalidException', 400],
    ['instance_missing', 'EC2InstanceNotFoundException', 404],
  ] as const)('%s answers %s with status %i, as often as it was asked for', async (fault, name, status) => {
    await test.fault(fault, { instanceId: idOf(0), times: 2 });
    await expect(push()).rejects.toMatchObject({ name, $metadata: { httpStatusCode: status } });
    expect((await push({ InstanceId: idOf(1) })).Success).toBe(true);
    await expect(push()).rejects.toMatchObject({ name });
    expect((await push()).Success).toBe(true);
  });

  it('a denial names the action and the resource', async () => {
    await test.fault('push_denied', { times: 1 });
    await expect(push()).rejects.toThrow(
      new RegExp(
        `not authorized to perform: ec2-instance-connect:SendSSHPublicKey on resource: arn:aws:ec2:us-east-1:\\d{12}:instance/${idOf(0)} `,
      ),
    );
  });
});

describe('signatures', () => {
  const describeWith = (credentials: Parameters<typeof ec2Client>[1]) =>
    ec2Client(test.lab, credentials).send(new DescribeInstancesCommand({}));

  it('a wrong secret, an unknown key and a session token that nobody gave out are refused', async () => {
    const good = credentialsOf(test.lab);
    await expect(describeWith({ ...good, secretAccessKey: 'wrong' })).rejects.toMatchObject({
      name: 'SignatureDoesNotMatch',
    });
    await expect(describeWith({ ...good, accessKeyId: 'AKIAUNKNOWN' })).rejects.toMatchObject({ name: 'AuthFailure' });
    await expect(describeWith({ ...good, sessionToken: 'token' })).rejects.toMatchObject({ name: 'AuthFailure' });
    const pushWith = (credentials: Parameters<typeof eicClient>[1]) =>
      eicClient(test.lab, credentials).send(
        new SendSSHPublicKeyCommand({
          InstanceId: idOf(0),
          InstanceOSUser: 'ec2-user',
          SSHPublicKey: newUserKey().publicKey,
        }),
      );
    await expect(pushWith({ ...good, secretAccessKey: 'wrong' })).rejects.toMatchObject({
      name: 'InvalidSignatureException',
    });
    await expect(pushWith({ ...good, accessKeyId: 'AKIAUNKNOWN' })).rejects.toMatchObject({
      name: 'UnrecognizedClientException',
    });
  });

  it('a session token is demanded where there is one', async () => {
    const other = await withLab({ instances: 1, sessionToken: 'the token' });
    const good = credentialsOf(other.lab);
    const ask = (sessionToken?: string) =>
      ec2Client(other.lab, { ...good, ...(sessionToken && { sessionToken }) }).send(new DescribeInstancesCommand({}));
    expect((await ask('the token')).Reservations).toHaveLength(1);
    await expect(ask()).rejects.toMatchObject({ name: 'AuthFailure' });
    await expect(ask('another')).rejects.toMatchObject({ name: 'AuthFailure' });
    await other.stop();
  });

  it('a clock that is six minutes off is refused once, and the client sets its own by the answer', async () => {
    for (const skewS of [360, -360]) {
      await test.fault('clock_skew_s', { value: skewS });
      const client = ec2Client(test.lab);
      await expect(client.send(new DescribeInstancesCommand({}))).rejects.toMatchObject({ name: 'RequestExpired' });
      const offsetMs = (client.config as { systemClockOffset: number }).systemClockOffset;
      expect(Math.abs(offsetMs - skewS * 1000)).toBeLessThan(2000);
      expect((await client.send(new DescribeInstancesCommand({}))).Reservations).toHaveLength(12);
    }
  });

  it('another region and another service are refused', async () => {
    const lab = { ...test.lab, region: 'eu-west-1' };
    await expect(ec2Client(lab).send(new DescribeInstancesCommand({}))).rejects.toMatchObject({
      name: 'SignatureDoesNotMatch',
    });
  });

  it('a request without a signature is refused', async () => {
    const response = await fetch(test.lab.url, { method: 'POST', body: 'Action=DescribeInstances&Version=2016-11-15' });
    expect(response.status).toBe(403);
    expect(await response.text()).toContain('<Code>MissingAuthenticationToken</Code>');
  });
});
