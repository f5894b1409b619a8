/**
 * The EC2 actions that the lab answers, in the query protocol: parameters in, the members of the XML answer out.
 * Names, states and shapes are those of the EC2 service model of 2016-11-15.
 */
import { bootLog, conflictingLog, partialLog } from './console-log.ts';
import { cutPage, Ec2Error, matchesPattern, readFilters, readList, readPage, requireParam } from './ec2-params.ts';
import { endpointMembers, type Members, reservation, type SeenInstance, status } from './ec2-shapes.ts';
import type { LabContext } from './lab-context.ts';
import type { InstanceRecord } from './world.ts';
import { newHostKey } from './world.ts';

type Action = (params: URLSearchParams, context: LabContext) => Members;

export const EC2_ACTIONS: Readonly<Record<string, Action>> = {
  DescribeInstances: describeInstances,
  DescribeInstanceConnectEndpoints: describeEndpoints,
  DescribeInstanceStatus: describeStatus,
  GetConsoleOutput: getConsoleOutput,
};

/** The service keeps the most recent 64 KB. */
const CONSOLE_MAX_CHARS = 64 * 1024;
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
  return (bootLog(record) + (context.consoles.get(record.id) ?? '')).slice(-CONSOLE_MAX_CHARS);
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
