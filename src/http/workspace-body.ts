/** A workspace as callers write and read it: one strict schema per driver, and the representation. */
import { z } from 'zod';
import type { Caller } from '../access/access.ts';
import { ID_PATTERN, labelsSchema, ROUTES, type Target, type Workspace } from '../workspace.ts';
import { textSchema } from './validate.ts';

const LABELS_MAX = 64;
const storable = textSchema(0, 255);

const idSchema = z.string().regex(ID_PATTERN, { error: 'expected letters, digits, ".", "_" or "-", at most 63' });
const nameSchema = textSchema(1, 200);
const labels = labelsSchema
  .refine((map) => Object.keys(map).length <= LABELS_MAX, { error: `expected at most ${LABELS_MAX} labels` })
  .refine(
    (map) =>
      Object.entries(map)
        .flat()
        .every((text) => storable.safeParse(text).success),
    {
      error: 'expected text without NUL and lone surrogates',
    },
  );
const osUser = z.string().regex(/^[A-Za-z_][A-Za-z0-9_.-]{0,31}$/, { error: 'expected the name of a login' });

const common = {
  org_id: idSchema.optional(),
  name: nameSchema.optional(),
  tier: z.int().min(0).max(100),
  labels: labels.default({}),
  os_user: osUser,
};

/** What the admin token may PUT. Names that reach a URL or an API call are narrow on purpose. */
export const workspaceBody = z.discriminatedUnion('driver', [
  z.strictObject({
    ...common,
    driver: z.literal('ec2'),
    instance_id: z
      .string()
      .regex(/^i-[0-9a-z]{1,32}$/, { error: 'expected an instance id such as "i-0123456789abcdef0"' })
      .nullable()
      .default(null),
    region: z.string().regex(/^[a-z]{2,}(-[a-z0-9]+){1,4}$/, { error: 'expected a region such as "eu-central-1"' }),
    route: z.enum(ROUTES).nullable().default(null),
  }),
  z.strictObject({
    ...common,
    driver: z.literal('ssh'),
    host: z.union([z.ipv4(), z.ipv6(), z.hostname()], { error: 'expected a host name or an address' }),
    port: z.int().min(1).max(65_535).default(22),
  }),
  z.strictObject({
    ...common,
    driver: z.literal('docker'),
    container: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/, { error: 'expected a container name or id' }),
  }),
  z.strictObject({ ...common, driver: z.literal('local') }),
]);
export type WorkspaceBody = z.output<typeof workspaceBody>;

/** What a tenant may PATCH, and PUT. */
export const tenantPatch = z.strictObject({ name: nameSchema.optional(), labels: labels.optional() });
export const tenantPut = z.strictObject({ name: nameSchema, labels: labels.default({}) });

/** Set by the admin token only. Source: contract, section 2. */
export const ADMIN_FIELDS: readonly string[] = [
  'org_id',
  'driver',
  'instance_id',
  'region',
  'route',
  'os_user',
  'host',
  'port',
  'container',
  'tier',
];

export const WORKSPACE_COLUMNS = [
  'id',
  'org_id',
  'name',
  'driver',
  'instance_id',
  'region',
  'os_user',
  'tier',
  'labels',
  'status',
];

export function toWorkspace(id: string, orgId: string, body: WorkspaceBody): Workspace {
  return { id, orgId, name: body.name ?? id, tier: body.tier, labels: body.labels, target: targetOf(body) };
}

function targetOf(body: WorkspaceBody): Target {
  const osUser = body.os_user;
  switch (body.driver) {
    case 'ec2':
      return { driver: 'ec2', instanceId: body.instance_id, region: body.region, osUser, route: body.route };
    case 'ssh':
      return { driver: 'ssh', host: body.host, port: body.port, osUser };
    case 'docker':
      return { driver: 'docker', container: body.container, osUser };
    case 'local':
      return { driver: 'local', osUser };
    default:
      return body satisfies never;
  }
}

/** The representation. How a host is addressed, beyond instance and region, is shown to the admin token only. */
export function showWorkspace(workspace: Workspace, caller: Caller): Record<string, unknown> {
  const { id, orgId, name, tier, labels, target } = workspace;
  return {
    id,
    org_id: orgId,
    name,
    driver: target.driver,
    instance_id: target.driver === 'ec2' ? target.instanceId : null,
    region: target.driver === 'ec2' ? target.region : null,
    os_user: target.osUser,
    tier,
    labels,
    status: target.driver === 'ec2' && target.instanceId === null ? 'no_instance' : 'active',
    ...(caller.kind === 'admin' ? addressOf(target) : {}),
  };
}

/** The members of a PUT body that would make the workspace as it is. */
export function toBody(workspace: Workspace): Record<string, unknown> {
  const { orgId, name, tier, labels, target } = workspace;
  const where = target.driver === 'ec2' ? { instance_id: target.instanceId, region: target.region } : {};
  return {
    org_id: orgId,
    name,
    tier,
    labels,
    driver: target.driver,
    os_user: target.osUser,
    ...where,
    ...addressOf(target),
  };
}

function addressOf(target: Target): Record<string, unknown> {
  switch (target.driver) {
    case 'ec2':
      return { route: target.route };
    case 'ssh':
      return { host: target.host, port: target.port };
    case 'docker':
      return { container: target.container };
    case 'local':
      return {};
    default:
      return target satisfies never;
  }
}
