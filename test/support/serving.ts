/**
 * `sallyport serve` as a process of its own, set up over its API as an operator would: real database, a lab in this
 * process, one org with three workspaces.
 */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SCOPES } from '../../src/access/access.ts';
import { createTestDatabase } from './database.ts';
import { type Answer, type Ask, send, sendingOf } from './gateway.ts';
import { gatewayEnv } from './gateway-env.ts';
import { type TestLab, withLab } from './lab.ts';
import { type Program, startProgram } from './program.ts';

export interface Serving {
  url: string;
  program: Program;
  lab: TestLab;
  databaseUrl: string;
  /** Every scope in org-1, which has the workspaces ws-1, ws-2 and ws-3. */
  token: string;
  adminToken: string;
  /** Default token: that of the org. */
  ask(path: string, how?: Omit<Ask, 'token'> & { token?: string }): Promise<Answer>;
  /** In ws-1, or in `workspace`. */
  exec(body: object, how?: { workspace?: string; headers?: Record<string, string> }): Promise<Answer>;
  stop(): Promise<void>;
}

export interface ServingOptions {
  env?: Readonly<Record<string, string>>;
  /** Certificate to trust, when `env` makes it speak TLS. */
  ca?: string;
}

export async function startServing({ env = {}, ca }: ServingOptions = {}): Promise<Serving> {
  const dataDir = await mkdtemp(join(tmpdir(), 'serving-'));
  const { url: databaseUrl, drop } = await createTestDatabase();
  const lab = await withLab({ instances: 3 });
  const adminToken = randomBytes(24).toString('hex');
  const program = await startProgram(['serve'], {
    env: { ...(await gatewayEnv({ databaseUrl, adminToken, dataDir, lab: lab.lab })), ...env },
  });
  const stop = async () => {
    program.kill('SIGTERM');
    await program.ended;
    await lab.stop();
    await drop();
    await rm(dataDir, { recursive: true, force: true });
  };
  try {
    const [, url = ''] = await program.says(/listening on (https?:\S+)/);
    const ask = (path: string, { token, ...how }: Omit<Ask, 'token'> & { token: string }) =>
      send(url + path, { ...sendingOf(token, how), ...(ca === undefined ? {} : { ca }) });
    const token = await setUp(lab, (path, method, body) => ask(path, { method, body, token: adminToken }));
    return {
      url,
      program,
      lab,
      databaseUrl,
      token,
      adminToken,
      ask: (path, how = {}) => ask(path, { token, ...how }),
      exec: (body, { workspace = 'ws-1', headers = {} } = {}) =>
        ask(`/workspaces/${workspace}/exec`, { method: 'POST', body, headers, token }),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Resolves with the org's token. */
async function setUp(
  { lab }: TestLab,
  asAdmin: (path: string, method: string, body: object) => Promise<Answer>,
): Promise<string> {
  const done = async (answer: Promise<Answer>): Promise<Answer['body']> => {
    const { status, text, body } = await answer;
    if (status !== 201) throw new Error(`setting up: ${status} ${text}`);
    return body;
  };
  await done(asAdmin('/orgs/org-1', 'PUT', { name: 'One' }));
  for (const [index, { id, osUser }] of lab.instances.entries()) {
    const where = { driver: 'ec2', region: lab.region, instance_id: id, os_user: osUser };
    await done(asAdmin(`/workspaces/ws-${index + 1}`, 'PUT', { org_id: 'org-1', tier: 3, ...where }));
  }
  const { token } = await done(
    asAdmin('/tokens', 'POST', { kind: 'org', org_id: 'org-1', name: 'test', scopes: SCOPES }),
  );
  return String(token);
}
