import { DescribeInstanceConnectEndpointsCommand, DescribeInstancesCommand } from '@aws-sdk/client-ec2';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type TestLab, withLab } from '../support/lab.ts';
import { ec2Client, exec, newUserKey, overTunnel, pushKey } from './dial.ts';

let test: TestLab;
beforeAll(async () => {
  test = await withLab({ instances: 2 });
});
afterAll(() => test.stop());

it('the real clients get from an instance id to the output of a program', async () => {
  const { lab } = test;
  const [{ id } = { id: '' }] = lab.instances;
  const ec2 = ec2Client(lab);
  const described = await ec2.send(new DescribeInstancesCommand({ InstanceIds: [id] }));
  const instance = described.Reservations?.[0]?.Instances?.[0];
  const found = await ec2.send(
    new DescribeInstanceConnectEndpointsCommand({
      Filters: [
        { Name: 'state', Values: ['create-complete'] },
        { Name: 'vpc-id', Values: [instance?.VpcId ?? ''] },
      ],
    }),
  );
  const endpoint = found.InstanceConnectEndpoints?.[0];
  const key = newUserKey();
  await pushKey(lab, { instanceId: id, osUser: 'ec2-user', publicKey: key.publicKey });
  const client = await overTunnel(
    lab,
    {
      endpointId: endpoint?.InstanceConnectEndpointId ?? '',
      dnsName: endpoint?.DnsName ?? '',
      privateIp: instance?.PrivateIpAddress ?? '',
    },
    { username: 'ec2-user', privateKey: key.privateKey },
  );
  const ended = await exec(client, 'echo out; echo err >&2; exit 7');
  client.end();
  expect(ended).toMatchObject({ code: 7, stdout: Buffer.from('out\n'), stderr: Buffer.from('err\n') });
});
