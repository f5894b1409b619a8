/**
 * The gateway as people run it: `dist/main.js serve` in a process of its own, on a durable PostgreSQL, with every default
 * that matters for speed; set up over its API by the admin.
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SCOPES } from '../../../src/access/access.ts';
import { generateSigningKey } from '../../../src/access/token.ts';
import { waitUntil } from '../../support/wait.ts';
import type { HttpTarget } from './raw-http.ts';

const MAIN = fileURLToPath(new URL('../../../dist/main.js', import.meta.url));
const START_MAX_MS = 60_000;
const STOP_MAX_MS = 30_000;

export interface GatewayProcess {
  url: string;
  pid: number;
  /** Every scope in the one org. */
  token: string;
  /** As the admin; throws on what is not 2xx. */
  admin(method: string, path: string, body?: object): Promise<Record<string, unknown>>;
  /** A host of driver ssh. */
  addWorkspace(id: string, host: { host?: string; port: number; osUser: string }): Promise<void>;
  /** What a caller sends for one exec. */
  exec(workspace: string, cmd: readonly string[], more?: object): HttpTarget;
  /** Of its metrics, without `sallyport_`. */
  gauge(name: string): Promise<number>;
  stop(): Promise<void>;
}

export interface GatewayOptions {
  /** For its log and data. */
  folder: string;
  databaseUrl: string;
  keyFile: string;
  knownHosts: string;
  /** Words for node, before the program. */
  nodeArgs?: readonly string[];
  /** Settings besides. */
  env?: Readonly<Record<string, string>>;
}

export async function startGatewayProcess(options: GatewayOptions): Promise<GatewayProcess> {
  const { folder, databaseUrl, keyFile, knownHosts, nodeArgs = [], env = {} } = options;
  const adminToken = randomBytes(24).toString('hex');
  const name = `gateway-${randomBytes(3).toString('hex')}`;
  const log = join(folder, `${name}.log`);
  // As a service manager does it: the log goes to a file, one line per request.
  const child = spawn(process.execPath, [...nodeArgs, MAIN, 'serve'], {
    env: {
      PATH: process.env.PATH,
      // As in the image (infra/Dockerfile).
      NODE_OPTIONS: '--max-semi-space-size=32',
      DATABASE_URL: databaseUrl,
      SALLYPORT_SIGNING_KEY: await generateSigningKey(),
      SALLYPORT_ADMIN_TOKEN: adminToken,
      SALLYPORT_DATA_DIR: join(folder, name),
      SALLYPORT_PORT: '0',
      SALLYPORT_SSH_KEY_FILE: keyFile,
      SALLYPORT_KNOWN_HOSTS: knownHosts,
      SALLYPORT_SSH_LOOPBACK: 'on',
      SALLYPORT_OUTPUT_CAP_BYTES: String(2 ** 30),
      AWS_EC2_METADATA_DISABLED: 'true',
      ...env,
    },
    stdio: ['ignore', 'pipe', openSync(log, 'w')],
    detached: true,
  });
  let said = '';
  child.stdout?.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  const over = once(child, 'exit');
  const { url } = await waitUntil(
    'the gateway listens',
    () => {
      if (child.exitCode !== null) throw new Error(`the gateway did not start: ${readFileSync(log, 'utf8')}`);
      const found = /listening on (http:\S+)/.exec(said)?.[1];
      return found === undefined ? null : { url: found };
    },
    START_MAX_MS,
  );
  const admin: GatewayProcess['admin'] = async (method, path, body) => {
    const answer = await fetch(url + path, {
      method,
      headers: { Authorization: `Bearer ${adminToken}`, 'Content-Type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
    return (await answer.json()) as Record<string, unknown>;
  };
  await admin('PUT', '/orgs/bench', { name: 'bench' });
  const issued = await admin('POST', '/tokens', { kind: 'org', org_id: 'bench', name: 'bench', scopes: SCOPES });
  const token = String(issued.token);
  return {
    url,
    pid: child.pid ?? 0,
    token,
    admin,
    async addWorkspace(id, { host = '127.0.0.1', port, osUser }) {
      const where = { driver: 'ssh', host, port, os_user: osUser };
      await admin('PUT', `/workspaces/${id}`, { org_id: 'bench', tier: 3, ...where });
    },
    exec: (workspace, cmd, more = {}) => ({
      url,
      path: `/workspaces/${workspace}/exec`,
      token,
      body: { cmd, ...more },
    }),
    async gauge(name) {
      const text = await (await fetch(`${url}/metrics`)).text();
      const value = new RegExp(`^sallyport_${name} (\\S+)$`, 'm').exec(text)?.[1];
      if (value === undefined) throw new Error(`the gateway has no metric ${name}`);
      return Number(value);
    },
    async stop() {
      child.kill('SIGTERM');
      const late = setTimeout(() => child.kill('SIGKILL'), STOP_MAX_MS);
      await over;
      clearTimeout(late);
    },
  };
}
