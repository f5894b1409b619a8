/**
 * The EC2 actions that the lab answers, in the query protocol: parameters in, the members of the XML answer out.
 * Names, states and shapes are those of the EC2 service model of 2016-11-15.
 */
import { bootLog, conflictingLog, partialLog } from './console-log.ts';
import type { LabContext } from './lab-context.ts';
import type { InstanceRecord } from './world.ts';
import { newHostKey } from './world.ts';
import type { XmlValue } from './xml.ts';

export class Ec2Error extends Error {
  readonly code: string;
  readonly status: number;
  constructor(code: string, message: string, status = 400) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

type Members = { readonly [name: string]: XmlValue | undefined };
type Action = (params: URLSearchParams, context: LabContext) => Members;

export const EC2_ACTIONS: Readonly<Record<string, Action>> = {
  DescribeInstances: describeInstances,
  DescribeInstanceConnectEndpoints: describeEndpoints,
  DescribeInstanceStatus: describeStatus,
  GetConsoleOutput: getConsoleOutput,
};

/** Where an instance stands when nobody may find its endpoint: a network without one. */
const OTHER_VPC_ID = 'vpc-00000000000000000';

function describeInstances(params: URLSearchParams, context: LabContext): Members {
  const ids = readList(params, 'InstanceId');
  const filters = readFilters(params);
  const page = readPage(params, { min: 5, max: 1000, ids });
  const named = new Set([...ids, ...(filters.get('instance-id') ?? [])]);
  const seen = seeInstances(context, ids, named).filter((instance) => matches(instance.fields, filters, context));
  const { items, nextToken } = cutPage(seen, page);
  return { reservationSet: items.map(reservation(context)), nextToken };
}

function describeStatus(params: URLSearchParams, context: LabContext): Members {
  const ids = readList(params, 'InstanceId');
  if (ids.length > 100) throw new Ec2Error('InvalidParameterValue', 'Up to 100 instance ids are taken');
  const page = readPage(params, { min: 5, max: 1000, ids });
  const all = params.get('IncludeAllInstances') === 'true';
  const filters = readFilters(params);
  const seen = seeInstances(context, ids, new Set(ids))
    .filter((instance) => all || !instance.stopped)
    .filter((instance) => matches(instance.fields, filters, context));
  const { items, nextToken } = cutPage(seen, page);
  return { instanceStatusSet: items.map(status(context)), nextToken };
}

function getConsoleOutput(params: URLSearchParams, context: LabContext): Members {
  const id = requireParam(params, 'InstanceId');
  const [instance] = seeInstances(context, [id], new Set([id]));
  if (instance === undefined) throw new Error('bug: an id that was found is gone');
  const output = readConsole(instance.record, context);
  return {
    instanceId: instance.record.id,
    timestamp: new Date(context.nowMs()).toISOString(),
    output: output === null ? undefined : Buffer.from(output, 'latin1').toString('base64'),
  };
}

function readConsole(record: InstanceRecord, context: LabContext): string | null {
  const bites = (name: 'console_empty' | 'console_partial' | 'console_conflict') =>
    context.faults.take(name, record.id) !== null;
  if (bites('console_empty')) return null;
  if (bites('console_partial')) return partialLog(record);
  if (bites('console_conflict')) return conflictingLog(record, [newHostKey('ed25519'), newHostKey('ecdsa')]);
  return bootLog(record);
}

function describeEndpoints(params: URLSearchParams, context: LabContext): Members {
  const ids = readList(params, 'InstanceConnectEndpointId');
  const filters = readFilters(params);
  const page = readPage(params, { min: 1, max: 50, ids: [] });
  const here = context.faults.take('endpoint_missing', null) === null ? [context.world.endpoint] : [];
  for (const id of ids) {
    if (!id.startsWith('eice-'))
      throw new Ec2Error('InvalidInstanceConnectEndpointId.Malformed', `Invalid id: "${id}"`);
    if (!here.some((endpoint) => endpoint.id === id)) {
      throw new Ec2Error(
        'InvalidInstanceConnectEndpointId.NotFound',
        `The instance connect endpoint ID '${id}' does not exist`,
      );
    }
  }
  const fields = endpointFields(context);
  const seen = here.filter(() => matches(fields, filters, context));
  const { items, nextToken } = cutPage(seen, page);
  return { instanceConnectEndpointSet: items.map(() => endpointMembers(context)), nextToken };
}

/** An instance as the API shows it at this moment. */
interface SeenInstance {
  record: InstanceRecord;
  stopped: boolean;
  vpcId: string;
  fields: ReadonlyMap<string, readonly string[]>;
}

/** Faults are counted for the instances that the call names, and only looked at for the others. */
function seeInstances(context: LabContext, ids: readonly string[], named: ReadonlySet<string>): SeenInstance[] {
  const bites = (name: 'instance_missing' | 'instance_stopped' | 'endpoint_missing', id: string) =>
    (named.has(id) ? context.faults.take(name, id) : context.faults.peek(name, id)) !== null;
  const wanted = ids.length === 0 ? context.world.instances : ids.map((id) => requireInstance(context, id));
  return wanted.flatMap((record) => {
    if (bites('instance_missing', record.id)) {
      if (ids.includes(record.id)) throw notFound(record.id);
      return [];
    }
    const stopped = bites('instance_stopped', record.id);
    const moved =
      context.faults.peek('endpoint_missing', record.id)?.instanceId === record.id &&
      bites('endpoint_missing', record.id);
    const vpcId = moved ? OTHER_VPC_ID : context.world.vpcId;
    return [{ record, stopped, vpcId, fields: instanceFields(context, { record, stopped, vpcId }) }];
  });
}

function requireInstance(context: LabContext, id: string): InstanceRecord {
  if (!/^i-[0-9a-f]{8,17}$/.test(id)) throw new Ec2Error('InvalidInstanceID.Malformed', `Invalid id: "${id}"`);
  const record = context.world.instances.find((instance) => instance.id === id);
  if (record === undefined) throw notFound(id);
  return record;
}

function notFound(id: string): Ec2Error {
  return new Ec2Error('InvalidInstanceID.NotFound', `The instance ID '${id}' does not exist`);
}

function instanceFields(context: LabContext, seen: Omit<SeenInstance, 'fields'>): Map<string, string[]> {
  const subnet = context.world.subnets[seen.record.subnet];
  const tags = Object.entries(context.tags.get(seen.record.id) ?? {});
  return new Map([
    ['instance-id', [seen.record.id]],
    ['instance-state-name', [seen.stopped ? 'stopped' : 'running']],
    ['instance-state-code', [seen.stopped ? '80' : '16']],
    ['private-ip-address', [seen.record.privateIp]],
    ['vpc-id', [seen.vpcId]],
    ['subnet-id', [subnet.id]],
    ['availability-zone', [subnet.availabilityZone]],
    ['reservation-id', [seen.record.reservationId]],
    ['tag-key', tags.map(([key]) => key)],
    ...tags.map(([key, value]): [string, string[]] => [`tag:${key}`, [value]]),
  ]);
}

function endpointFields(context: LabContext): Map<string, string[]> {
  const { endpoint, vpcId, subnets } = context.world;
  return new Map([
    ['instance-connect-endpoint-id', [endpoint.id]],
    ['state', ['create-complete']],
    ['subnet-id', [subnets[0].id]],
    ['vpc-id', [vpcId]],
    ['availability-zone', [subnets[0].availabilityZone]],
    ['tag-key', []],
  ]);
}

function matches(
  fields: ReadonlyMap<string, readonly string[]>,
  filters: ReadonlyMap<string, readonly string[]>,
  context: LabContext,
): boolean {
  return [...filters].every(([name, wanted]) => {
    const values = fields.get(name);
    // A tag that this one does not carry matches nothing; any other unknown name is the caller's mistake.
    if (values === undefined && !name.startsWith('tag:')) {
      context.log.warn({ filter: name }, 'a filter that the lab does not know');
      throw new Ec2Error('InvalidParameterValue', `The filter '${name}' is invalid`);
    }
    return (values ?? []).some((value) => wanted.some((pattern) => matchesPattern(value, pattern)));
  });
}

/** `*` any run, `?` any one character. */
function matchesPattern(value: string, pattern: string): boolean {
  if (!/[*?]/.test(pattern)) return value === pattern;
  const source = pattern
    .replace(/[\\^$.+()|[\]{}]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`, 's').test(value);
}

function reservation(context: LabContext): (seen: SeenInstance) => Members {
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

function status(context: LabContext): (seen: SeenInstance) => Members {
  return ({ record, stopped }) => {
    const word = stopped ? 'not-applicable' : 'ok';
    const details = stopped ? undefined : [{ name: 'reachability', status: 'passed' }];
    return {
      instanceId: record.id,
      availabilityZone: context.world.subnets[record.subnet].availabilityZone,
      instanceState: state(stopped),
      systemStatus: { status: word, details },
      instanceStatus: { status: word, details },
      attachedEbsStatus: { status: word, details },
    };
  };
}

function endpointMembers(context: LabContext): Members {
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

function requireParam(params: URLSearchParams, name: string): string {
  const value = params.get(name);
  if (value === null || value === '') {
    throw new Ec2Error('MissingParameter', `The request must contain the parameter ${name}`);
  }
  return value;
}

/** `Name.1`, `Name.2` … without gaps. */
function readList(params: URLSearchParams, name: string): string[] {
  const values: string[] = [];
  for (let index = 1; ; index++) {
    const value = params.get(`${name}.${index}`);
    if (value === null) return values;
    values.push(value);
  }
}

function readFilters(params: URLSearchParams): Map<string, string[]> {
  const filters = new Map<string, string[]>();
  for (let index = 1; ; index++) {
    const name = params.get(`Filter.${index}.Name`);
    if (name === null) return filters;
    filters.set(name, readList(params, `Filter.${index}.Value`));
  }
}

interface Page {
  offset: number;
  size: number;
}

function readPage(params: URLSearchParams, limits: { min: number; max: number; ids: readonly string[] }): Page {
  const rawSize = params.get('MaxResults');
  const rawToken = params.get('NextToken');
  if (rawSize === null && rawToken === null) return { offset: 0, size: limits.max };
  if (limits.ids.length > 0) {
    throw new Ec2Error(
      'InvalidParameterCombination',
      'The parameter instancesSet cannot be used with the parameter maxResults',
    );
  }
  const size = rawSize === null ? limits.max : Number(rawSize);
  if (!Number.isInteger(size) || size < limits.min || size > limits.max) {
    throw new Ec2Error('InvalidParameterValue', `MaxResults must be ${limits.min} to ${limits.max}, not ${rawSize}`);
  }
  return { offset: rawToken === null ? 0 : readToken(rawToken), size };
}

function readToken(token: string): number {
  const match = /^offset:(\d+)$/.exec(Buffer.from(token, 'base64url').toString());
  if (match === null) throw new Ec2Error('InvalidNextToken', 'The token is not valid');
  return Number(match[1]);
}

function cutPage<T>(all: readonly T[], page: Page): { items: readonly T[]; nextToken: string | undefined } {
  const end = page.offset + page.size;
  const nextToken = end < all.length ? Buffer.from(`offset:${end}`).toString('base64url') : undefined;
  return { items: all.slice(page.offset, end), nextToken };
}
