/** `sallyport workspace`: the registry. Which fields a caller may set is the gateway's decision. */
import { readFileSync } from 'node:fs';
import type { HostKeysView, WorkspaceBody, WorkspaceView } from '../client/wire.ts';
import { SallyportError } from '../errors.ts';
import {
  cell,
  collect,
  countOf,
  definePlain,
  type PlainCall,
  type PlainFlags,
  printDone,
  printItem,
  printItems,
  takeItems,
  type Verb,
} from './verb.ts';

interface SetFlags extends PlainFlags {
  name?: string;
  driver?: string;
  instanceId?: string;
  region?: string;
  osUser?: string;
  host?: string;
  port?: string;
  container?: string;
  route?: string;
  tier?: string;
  label?: string[];
}

const TABLE = {
  header: ['ID', 'ORG', 'NAME', 'DRIVER', 'TARGET', 'USER', 'TIER', 'LABELS', 'STATUS'],
  row: (workspace: WorkspaceView) =>
    [
      workspace.id,
      workspace.org_id,
      workspace.name,
      workspace.driver,
      targetOf(workspace),
      workspace.os_user,
      workspace.tier,
      workspace.labels,
      workspace.status,
    ].map(cell),
};

export const verb: Verb = {
  define(command, context) {
    const list = command
      .command('list')
      .description('list workspaces')
      .option('--limit <n>', 'at most so many', '1000')
      .option('--org <id>', 'the org to look in (admin token)');
    definePlain(list, context, listWorkspaces);

    definePlain(command.command('get <id>').description('show one workspace'), context, async (call, id = '') => {
      await printItem(call, await call.client.workspaces.get(id), TABLE);
    });

    const set = command
      .command('set <id>')
      .description('create or replace a workspace (admin token)')
      .option('--org <id>', 'the org it belongs to')
      .option('--name <name>')
      .option('--driver <driver>', 'ec2, ssh, docker or local')
      .option('--instance-id <id>')
      .option('--region <region>')
      .option('--os-user <name>')
      .option('--host <address>')
      .option('--port <n>')
      .option('--container <name>')
      .option('--route <route>', 'endpoint, direct or auto')
      .option('--tier <n>')
      .option('--label <name=value>', 'may be given again', collect);
    definePlain(set, context, async (call: PlainCall<SetFlags>, id = '') => {
      await printItem(call, await call.client.workspaces.put(id, bodyOf(call.flags)), TABLE);
    });

    const rename = command.command('rename <id> <name>').description('give a workspace another name');
    definePlain(rename, context, async (call, id = '', name = '') => {
      await printItem(call, await call.client.workspaces.patch(id, { name }), TABLE);
    });

    const hostKeys = command
      .command('host-keys <id>')
      .description('show the pinned host keys, or replace them (admin token)')
      .option('--set <file>', 'one public key per line, as in /etc/ssh/ssh_host_*_key.pub; - reads stdin');
    definePlain(hostKeys, context, async (call: PlainCall<PlainFlags & { set?: string }>, id = '') => {
      const { client, flags } = call;
      const view =
        flags.set === undefined
          ? await client.workspaces.hostKeys(id)
          : await client.workspaces.setHostKeys(id, readKeys(flags.set));
      await printHostKeys(call, view);
    });

    const remove = command.command('delete <id>').description('delete a workspace; what runs there is ended');
    definePlain(remove, context, async (call, id = '') => {
      await call.client.workspaces.delete(id);
      await printDone(call, id, 'deleted');
    });
  },
};

async function listWorkspaces(call: PlainCall<PlainFlags & { limit: string }>): Promise<void> {
  const page = await takeItems(call.client.workspaces.list, {}, countOf('--limit', call.flags.limit));
  await printItems(call, page, TABLE);
}

async function printHostKeys(call: PlainCall<PlainFlags>, view: HostKeysView): Promise<void> {
  if (call.flags.json === true) return await call.output.json(view);
  const rows = view.keys.map(({ type, fingerprint, source }) => [type, fingerprint, source]);
  await call.output.table(['TYPE', 'FINGERPRINT', 'SOURCE'], rows);
}

/** Comments and empty lines are left out. */
function readKeys(path: string): string[] {
  try {
    const text = readFileSync(path === '-' ? 0 : path, 'utf8');
    return text
      .split(/\r?\n/)
      .map((line) => line.trim())
      .filter((line) => line !== '' && !line.startsWith('#'));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new SallyportError('invalid_request', `the keys cannot be read: ${reason}`, { cause: error });
  }
}

function targetOf(workspace: WorkspaceView): string | null {
  if (workspace.driver === 'ec2') return `${cell(workspace.instance_id)}@${cell(workspace.region)}`;
  if (workspace.host == null) return workspace.container ?? null;
  return `${workspace.host}:${cell(workspace.port)}`;
}

function bodyOf(flags: SetFlags): WorkspaceBody {
  return {
    org_id: flags.org,
    name: flags.name,
    driver: flags.driver,
    instance_id: flags.instanceId,
    region: flags.region,
    os_user: flags.osUser,
    host: flags.host,
    port: flags.port === undefined ? undefined : countOf('--port', flags.port),
    container: flags.container,
    route: flags.route,
    tier: flags.tier === undefined ? undefined : countOf('--tier', flags.tier, 0),
    labels: flags.label && Object.fromEntries(flags.label.map(labelOf)),
  };
}

function labelOf(pair: string): [string, string] {
  const equals = pair.indexOf('=');
  if (equals > 0) return [pair.slice(0, equals), pair.slice(equals + 1)];
  throw new SallyportError('invalid_request', `--label takes name=value; "${pair}" is none`);
}
