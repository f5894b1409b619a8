/** Instances, statuses and endpoints as members of the XML answers. Names are those of the EC2 model of 2016-11-15. */
import type { LabContext } from './lab-context.ts';
import type { InstanceRecord } from './world.ts';
import type { XmlValue } from './xml.ts';

export type Members = { readonly [name: string]: XmlValue | undefined };

/** An instance as the API shows it at this moment. */
export interface SeenInstance {
  record: InstanceRecord;
  stopped: boolean;
  vpcId: string;
  fields: ReadonlyMap<string, readonly string[]>;
}

export function reservation(context: LabContext): (seen: SeenInstance) => Members {
  return (seen) => ({
    reservationId: seen.record.reservationId,
    ownerId: context.world.accountId,
    groupSet: [],
    instancesSet: [instanceMembers(seen, context)],
  });
}

function instanceMembers(seen: SeenInstance, context: LabContext): Members {
  const { record, stopped } = seen;
  const subnet = context.world.subnets[record.subnet];
  const host = `ip-${record.privateIp.replaceAll('.', '-')}.ec2.internal`;
  const groups = [{ groupId: context.world.securityGroupId, groupName: 'lab' }];
  return {
    instanceId: record.id,
    imageId: 'ami-0a1b2c3d4e5f60718',
    instanceState: state(stopped),
    privateDnsName: host,
    dnsName: null,
    reason: stopped
      ? `User initiated (${new Date(context.nowMs()).toISOString().slice(0, 19).replace('T', ' ')} GMT)`
      : null,
    amiLaunchIndex: 0,
    productCodes: [],
    instanceType: 't3.micro',
    launchTime: record.launchTime,
    placement: { availabilityZone: subnet.availabilityZone, groupName: null, tenancy: 'default' },
    monitoring: { state: 'disabled' },
    subnetId: subnet.id,
    vpcId: seen.vpcId,
    privateIpAddress: record.privateIp,
    sourceDestCheck: true,
    groupSet: groups,
    architecture: 'x86_64',
    rootDeviceType: 'ebs',
    rootDeviceName: '/dev/xvda',
    virtualizationType: 'hvm',
    hypervisor: 'xen',
    enaSupport: true,
    ebsOptimized: false,
    tagSet: tagMembers(context.tags.get(record.id)),
    networkInterfaceSet: [
      {
        networkInterfaceId: record.networkInterfaceId,
        subnetId: subnet.id,
        vpcId: seen.vpcId,
        ownerId: context.world.accountId,
        status: 'in-use',
        privateIpAddress: record.privateIp,
        privateDnsName: host,
        groupSet: groups,
        privateIpAddressesSet: [{ privateIpAddress: record.privateIp, privateDnsName: host, primary: true }],
      },
    ],
    metadataOptions: { state: 'applied', httpTokens: 'required', httpPutResponseHopLimit: 2, httpEndpoint: 'enabled' },
    platformDetails: 'Linux/UNIX',
  };
}

function state(stopped: boolean): Members {
  return stopped ? { code: 80, name: 'stopped' } : { code: 16, name: 'running' };
}

function tagMembers(tags: Readonly<Record<string, string>> | undefined): Members[] {
  return Object.entries(tags ?? {}).map(([key, value]) => ({ key, value }));
}

export function status(context: LabContext): (seen: SeenInstance) => Members {
  return ({ record, stopped }) => {
    const word = stopped ? 'not-applicable' : 'ok';
    const details = stopped ? undefined : [{ name: 'reachability', status: 'passed' }];
    const impaired = !stopped && context.faults.take('status_impaired', record.id) !== null;
    return {
      instanceId: record.id,
      availabilityZone: context.world.subnets[record.subnet].availabilityZone,
      instanceState: state(stopped),
      systemStatus: { status: word, details },
      instanceStatus: impaired
        ? { status: 'impaired', details: [{ name: 'reachability', status: 'failed' }] }
        : { status: word, details },
      attachedEbsStatus: { status: word, details },
    };
  };
}

export function endpointMembers(context: LabContext): Members {
  const { endpoint, region, accountId, vpcId, securityGroupId, subnets } = context.world;
  const names = { dnsName: endpoint.dnsName, fipsDnsName: endpoint.fipsDnsName };
  return {
    ownerId: accountId,
    instanceConnectEndpointId: endpoint.id,
    instanceConnectEndpointArn: `arn:aws:ec2:${region}:${accountId}:instance-connect-endpoint/${endpoint.id}`,
    state: 'create-complete',
    stateMessage: null,
    ...names,
    networkInterfaceIdSet: [endpoint.networkInterfaceId],
    vpcId,
    availabilityZone: subnets[0].availabilityZone,
    availabilityZoneId: subnets[0].availabilityZoneId,
    createdAt: endpoint.createdAt,
    subnetId: subnets[0].id,
    preserveClientIp: false,
    securityGroupIdSet: [securityGroupId],
    tagSet: [],
    ipAddressType: 'ipv4',
    publicDnsNames: { ipv4: names },
  };
}
