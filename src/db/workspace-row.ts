/** A workspace as columns and back. */
import type { DriverName, Route, Target, Workspace } from '../workspace.ts';
import type { WorkspaceTable } from './schema.ts';
import { storableJson, storableText } from './storable.ts';

/** What a read returns: the columns below, by their names. */
export interface WorkspaceRow extends Omit<WorkspaceTable, 'labels' | 'updated_at' | 'deleted_at'> {
  labels: Record<string, string>;
}

export const WORKSPACE_COLUMNS = [
  'id',
  'org_id',
  'name',
  'tier',
  'labels',
  'driver',
  'instance_id',
  'region',
  'os_user',
  'host',
  'port',
  'container',
  'route',
] as const satisfies readonly (keyof WorkspaceRow)[];

export function toColumns(workspace: Workspace) {
  const { id, orgId, name, tier, labels, target } = workspace;
  const common = { id, org_id: orgId, name: storableText(name), tier, labels: storableJson(labels) };
  const none = { instance_id: null, region: null, host: null, port: null, container: null, route: null };
  return { ...common, ...none, driver: target.driver, os_user: target.osUser, ...targetColumns(target) };
}

function targetColumns(target: Target) {
  switch (target.driver) {
    case 'ec2':
      return { instance_id: target.instanceId, region: target.region, route: target.route };
    case 'ssh':
      return { host: target.host, port: target.port };
    case 'docker':
      return { container: target.container };
    case 'local':
      return {};
    default:
      throw new Error(`bug: unknown driver ${target satisfies never}`);
  }
}

export function toWorkspace(row: WorkspaceRow): Workspace {
  const { id, org_id: orgId, name, tier, labels } = row;
  return { id, orgId, name, tier, labels, target: toTarget(row) };
}

/** The table's check constraint holds what the casts claim. */
function toTarget(row: WorkspaceRow): Target {
  const osUser = row.os_user;
  switch (row.driver as DriverName) {
    case 'ec2': {
      const { instance_id: instanceId, region, route } = row;
      return { driver: 'ec2', instanceId, region: region as string, osUser, route: route as Route | null };
    }
    case 'ssh':
      return { driver: 'ssh', host: row.host as string, port: row.port as number, osUser };
    case 'docker':
      return { driver: 'docker', container: row.container as string, osUser };
    case 'local':
      return { driver: 'local', osUser };
    default:
      throw new Error(`bug: workspace ${row.id} has the unknown driver ${row.driver}`);
  }
}
