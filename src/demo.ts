/**
 * `npm start`: the whole way on a fresh machine, with the lab in place of AWS. No configuration, no network.
 *
 * It starts the lab, points the AWS SDK at it, starts the gateway on loopback (no other address is taken), registers
 * orgs, workspaces and tokens, and says how to try it. A second start on the same data directory finds all of it again.
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { type Caller, SCOPES, type Scope } from './access/access.ts';
import { createVerifier, signToken } from './access/token.ts';
import { planToken } from './access/token-request.ts';
import { createClient } from './client/client.ts';
import type { Config } from './config/config.ts';
import { type Lab, startLab } from './lab/lab.ts';
import { type Gateway, startGateway } from './serve.ts';
import type { Workspace } from './workspace.ts';

const ORG = 'org-demo';
const OTHER_ORG = 'org-other';
const FLEET_SIZE = 8;
const TOKEN_LIFE_S = 30 * 24 * 3600;

/** The file for tools and tests. Source: contract, section 9. */
export interface DemoFile {
  url: string;
  lab: { url: string };
  tokens: { org: string; workspace: string; readonly: string; other_org: string; admin: string };
  workspaces: { privileged: string; sandboxed: string; no_instance: string; other_org: string; fleet: string[] };
}

export interface Demo {
  file: DemoFile;
  gateway: Gateway;
  stop(graceMs?: number): Promise<void>;
}

export async function startDemo(config: Config, { log, env }: { log: Logger; env: NodeJS.ProcessEnv }): Promise<Demo> {
  requireLoopback(config.host);
  mkdirSync(config.dataDir, { recursive: true, mode: 0o700 });
  const path = join(config.dataDir, 'demo.json');
  const earlier = readEarlier(path);
  const adminToken = config.adminToken ?? earlier?.tokens.admin ?? randomBytes(32).toString('base64url');
  const lab = await startLab({ dataDir: join(config.dataDir, 'lab'), log });
  try {
    pointSdkAtLab(env, lab);
    const gateway = await startOnFreePort({ ...config, adminToken, labTunnelUrl: lab.tunnelUrl }, { log, env });
    try {
      const workspaces = await register(gateway, lab);
      const tokens = { ...(await issueTokens(gateway, adminToken, { workspaces, earlier })), admin: adminToken };
      const file: DemoFile = { url: gateway.url, lab: { url: lab.url }, tokens, workspaces };
      writeSecret(path, `${JSON.stringify(file, null, 2)}\n`);
      return {
        file,
        gateway,
        async stop(graceMs) {
          await gateway.stop(graceMs);
          await lab.stop();
        },
      };
    } catch (error) {
      await gateway.stop(0);
      throw error;
    }
  } catch (error) {
    await lab.stop();
    throw error;
  }
}

/** One exec through the whole path, its frames printed as they come. */
export async function execOnce(file: DemoFile, print: (line: string) => Promise<void>): Promise<number> {
  const client = createClient({ url: file.url, token: file.tokens.workspace });
  const argv = ['uname', '-a'];
  const stream = await client.exec(file.workspaces.privileged, { cmd: argv });
  let exitCode = 1;
  for await (const frame of stream.frames) {
    await print(JSON.stringify(frame));
    if ('exit_code' in frame) exitCode = frame.exit_code;
  }
  return exitCode;
}

/** What a person needs to try it. */
export function welcome(file: DemoFile): string {
  const { url, tokens, workspaces } = file;
  return `
Sallyport is listening on ${url}

  token      ${tokens.org}
             (throw-away, every scope in ${ORG})
  workspace  ${workspaces.privileged}

Try it:

  curl -N ${url}/workspaces/${workspaces.privileged}/exec -H 'Authorization: Bearer ${tokens.org}' -H 'Content-Type: application/json' -d '{"cmd":["uname","-a"]}'

or:

  export SALLYPORT_URL=${url} SALLYPORT_TOKEN=${tokens.org}
  npx sallyport exec ${workspaces.privileged} -- uname -a

The lab (an EC2 look-alike whose instances run programs on this machine) is at ${file.lab.url}. Ctrl-C stops everything.
`;
}

function requireLoopback(host: string): void {
  if (host === '127.0.0.1' || host === '::1' || host === 'localhost') return;
  throw new Error(
    `SALLYPORT_HOST is ${JSON.stringify(host)}, but the demo listens on loopback only: its lab runs programs as you`,
  );
}

/** The SDK has its own environment; nothing of the person's own AWS account may be used by accident. */
function pointSdkAtLab(env: NodeJS.ProcessEnv, lab: Lab): void {
  for (const name of Object.keys(env)) if (name.startsWith('AWS_')) delete env[name];
  Object.assign(env, {
    AWS_REGION: lab.region,
    AWS_ACCESS_KEY_ID: lab.accessKeyId,
    AWS_SECRET_ACCESS_KEY: lab.secretAccessKey,
    AWS_ENDPOINT_URL_EC2: lab.url,
    AWS_ENDPOINT_URL_EC2_INSTANCE_CONNECT: lab.url,
    AWS_CONFIG_FILE: '/dev/null',
    AWS_SHARED_CREDENTIALS_FILE: '/dev/null',
    AWS_EC2_METADATA_DISABLED: 'true',
    // Said in the README; here it would stand between the welcome and the first frame.
    AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true',
  });
}

/** A port that somebody asked for is kept to; the default one may be taken already. */
async function startOnFreePort(
  config: Config,
  { log, env }: { log: Logger; env: NodeJS.ProcessEnv },
): Promise<Gateway> {
  try {
    return await startGateway(config, log);
  } catch (error) {
    const taken = error instanceof Error && 'code' in error && error.code === 'EADDRINUSE';
    if (!taken || env.SALLYPORT_PORT !== undefined) throw error;
    log.warn({ port: config.port }, 'the default port is taken; using any free one');
    return await startGateway({ ...config, port: 0 }, log);
  }
}

async function register(gateway: Gateway, lab: Lab): Promise<DemoFile['workspaces']> {
  const { registry } = gateway.database;
  for (const [id, name] of [
    [ORG, 'Demo'],
    [OTHER_ORG, 'Somebody else'],
  ] as const) {
    if ((await registry.getOrg(id)) === null) await registry.putOrg({ id, name });
  }
  const instances = lab.instances.values();
  const place = async (
    workspace: Pick<Workspace, 'id' | 'orgId' | 'tier' | 'labels'>,
    hosted = true,
  ): Promise<string> => {
    const instance = hosted ? instances.next().value : undefined;
    const target = {
      driver: 'ec2',
      instanceId: instance?.id ?? null,
      region: lab.region,
      osUser: instance?.osUser ?? 'ec2-user',
      route: null,
    } as const;
    await registry.putWorkspace({ ...workspace, name: workspace.id, target });
    return workspace.id;
  };
  const fleetIds = Array.from({ length: FLEET_SIZE }, (_, index) => `ws-fleet-${String(index + 1).padStart(2, '0')}`);
  const privileged = await place({ id: 'ws-demo', orgId: ORG, tier: 3, labels: { role: 'demo' } });
  const sandboxed = await place({ id: 'ws-sandbox', orgId: ORG, tier: 1, labels: {} });
  const otherOrg = await place({ id: 'ws-other', orgId: OTHER_ORG, tier: 3, labels: {} });
  const noInstance = await place({ id: 'ws-no-instance', orgId: ORG, tier: 3, labels: {} }, false);
  const fleet: string[] = [];
  for (const id of fleetIds) fleet.push(await place({ id, orgId: ORG, tier: 3, labels: { role: 'fleet' } }));
  return { privileged, sandboxed, no_instance: noInstance, other_org: otherOrg, fleet };
}

/** Tokens of an earlier start are kept while they are good: whoever copied one can go on using it. */
async function issueTokens(
  gateway: Gateway,
  adminToken: string,
  { workspaces, earlier }: { workspaces: DemoFile['workspaces']; earlier: DemoFile | null },
): Promise<Omit<DemoFile['tokens'], 'admin'>> {
  const { database, signingKey } = gateway;
  const verifier = createVerifier({ key: signingKey, adminToken });
  const admin = await verifier.verify(adminToken);
  const all: Scope[] = [...SCOPES];
  const stillGood = async (token: string | undefined): Promise<boolean> => {
    if (token === undefined) return false;
    const caller = await verifier.verify(token).catch((): Caller | null => null);
    if (caller?.jti == null) return false;
    return (await database.tokens.get(caller.orgId, caller.jti))?.revokedAt === null;
  };
  const issue = async (
    name: keyof Omit<DemoFile['tokens'], 'admin'>,
    request: { orgId: string; workspaceId?: string; scopes: Scope[] },
  ): Promise<string> => {
    const before = earlier?.tokens[name];
    if (before !== undefined && (await stillGood(before))) return before;
    const kind = request.workspaceId === undefined ? 'org' : 'workspace';
    const { claims, ...record } = planToken(
      admin,
      { ...request, kind, name: `demo ${name}`, expiresInS: TOKEN_LIFE_S },
      new Date(),
    );
    await database.tokens.add(record);
    return await signToken(signingKey, claims);
  };
  return {
    org: await issue('org', { orgId: ORG, scopes: all }),
    workspace: await issue('workspace', { orgId: ORG, workspaceId: workspaces.privileged, scopes: all }),
    readonly: await issue('readonly', { orgId: ORG, scopes: ['workspaces:read', 'activity:read'] }),
    other_org: await issue('other_org', { orgId: OTHER_ORG, scopes: all }),
  };
}

function readEarlier(path: string): DemoFile | null {
  if (!existsSync(path)) return null;
  try {
    const file = JSON.parse(readFileSync(path, 'utf8')) as Partial<DemoFile>;
    return typeof file.tokens?.admin === 'string' ? (file as DemoFile) : null;
  } catch {
    return null; // Cut short by a kill: it is written anew.
  }
}

/** Whole or not at all, and never readable by others. */
function writeSecret(path: string, text: string): void {
  const side = `${path}.new`;
  writeFileSync(side, text, { mode: 0o600 });
  chmodSync(side, 0o600);
  renameSync(side, path);
}
