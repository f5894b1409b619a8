/**
 * Several gateways as processes of their own on one database, with a lab in this process. Any of them may be killed,
 * put to sleep or started again. Set up as an operator would: org-1 with a workspace per instance, org-2 beside it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SCOPES } from '../../src/access/access.ts';
import type { Pace } from '../../src/serve.ts';
import { createTestDatabase } from './database.ts';
import { type Answer, type Ask, send, sendingOf } from './gateway.ts';
import { gatewayEnv } from './gateway-env.ts';
import { type TestLab, withLab } from './lab.ts';
import { builtProgram } from './program.ts';
import { type Row, runSql } from './sql.ts';
import { waitUntil } from './wait.ts';

const ENTRY = fileURLToPath(new URL('replica-process.mjs', import.meta.url));

export interface Replica {
  readonly url: string;
  readonly child: ChildProcess;
  /** Default credential: every scope in org-1. */
  ask(path: string, how?: Omit<Ask, 'token'> & { token?: string }): Promise<Answer>;
  exec(body: object, how?: { workspace?: string; token?: string; headers?: Record<string, string> }): Promise<Answer>;
  /** kill -9; resolves when it is gone. */
  kill(): Promise<void>;
  log(): string;
}

export interface Replicas {
  lab: TestLab;
  databaseUrl: string;
  adminToken: string;
  token: string;
  /** `env`: beside what all replicas have. */
  start(pace?: Pace, env?: Readonly<Record<string, string>>): Promise<Replica>;
  /** As the admin, on the given replica. */
  admin(replica: Replica, method: string, path: string, body?: object): Promise<Answer>;
  issue(replica: Replica, token?: object): Promise<{ id: string; token: string }>;
  sql(text: string, values?: unknown[]): Promise<Row[]>;
  row(execId: string): Promise<Row>;
  stop(): Promise<void>;
}

export async function startReplicas({
  instances = 3,
  env = {},
}: {
  instances?: number;
  env?: object;
} = {}): Promise<Replicas> {
  const dataDir = await mkdtemp(join(tmpdir(), 'replicas-'));
  const { url: databaseUrl, drop } = await createTestDatabase();
  const lab = await withLab({ instances });
  // From the sources each of them would take twice the CPU to start.
  const built = join(dirname(await builtProgram()), 'gateway');
  const adminToken = randomBytes(24).toString('hex');
  const childEnv = {
    PATH: process.env.PATH,
    SALLYPORT_LOG_LEVEL: 'info',
    ...(await gatewayEnv({ databaseUrl, adminToken, dataDir, lab: lab.lab })),
    ...env,
  };
  const started: Replica[] = [];
  let orgToken = '';

  const start = async (pace: Pace = {}, extraEnv = {}): Promise<Replica> => {
    const child = spawn(process.execPath, [ENTRY, built], {
      env: { ...childEnv, ...extraEnv, PACE: JSON.stringify(pace) },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const said: Buffer[] = [];
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk: Buffer) => said.push(chunk));
    const log = () => Buffer.concat(said).toString();
    const over = once(child, 'close');
    const { url } = await waitUntil(
      'a replica listens',
      () => {
        if (child.exitCode !== null) throw new Error(`a replica ended: ${log()}`);
        const found = /^listening on (\S+)$/m.exec(log())?.[1];
        return found === undefined ? null : { url: found };
      },
      30_000,
    );
    const ask: Replica['ask'] = (path, { token = orgToken, ...how } = {}) => send(url + path, sendingOf(token, how));
    const replica: Replica = {
      url,
      child,
      ask,
      exec: (body, { workspace = 'ws-1', ...how } = {}) =>
        ask(`/workspaces/${workspace}/exec`, { method: 'POST', body, ...how }),
      async kill() {
        child.kill('SIGKILL');
        await over;
      },
      log,
    };
    started.push(replica);
    return replica;
  };
  const admin: Replicas['admin'] = async (replica, method, path, body) => {
    const answer = await replica.ask(path, { method, token: adminToken, ...(body === undefined ? {} : { body }) });
    if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status} ${answer.text}`);
    return answer;
  };
  const issue: Replicas['issue'] = async (replica, token = {}) => {
    const { body } = await admin(replica, 'POST', '/tokens', {
      ...{ kind: 'org', org_id: 'org-1', name: 'test', scopes: SCOPES },
      ...token,
    });
    return { id: String(body.id), token: String(body.token) };
  };
  const replicas: Replicas = {
    lab,
    databaseUrl,
    adminToken,
    get token() {
      return orgToken;
    },
    async start(pace, extraEnv) {
      const replica = await start(pace, extraEnv);
      if (orgToken === '') {
        for (const org of ['org-1', 'org-2']) await admin(replica, 'PUT', `/orgs/${org}`, { name: org });
        for (const [index] of lab.lab.instances.entries())
          await admin(replica, 'PUT', `/workspaces/ws-${index + 1}`, { org_id: 'org-1', ...placeOf(lab, index) });
        orgToken = (await issue(replica)).token;
      }
      return replica;
    },
    admin,
    issue,
    sql: (text, values) => runSql(databaseUrl, text, values),
    async row(execId) {
      const [row] = await runSql(databaseUrl, 'select * from activity_logs where id = $1', [execId]);
      if (row === undefined) throw new Error(`there is no row of exec ${execId}`);
      return row;
    },
    async stop() {
      for (const replica of started) await replica.kill();
      await lab.stop();
      await drop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
  return replicas;
}

/** What a body of a workspace says about the instance of that index. */
export function placeOf({ lab }: TestLab, index: number): object {
  const instance = lab.instances[index];
  if (instance === undefined) throw new Error(`the lab has no instance ${index}`);
  return { driver: 'ec2', region: lab.region, instance_id: instance.id, os_user: instance.osUser, tier: 3 };
}

/** Resolves with the id of an exec that runs in the workspace and is not among `known`. */
export async function runningExec(
  replica: Replica,
  workspace = 'ws-1',
  known: readonly string[] = [],
): Promise<string> {
  return await waitUntil(
    'an exec runs',
    nowAndThen(async () => {
      const { body } = await replica.ask(`/workspaces/${workspace}/execs`);
      const items = (body.items ?? []) as { exec_id: string }[];
      return items.find(({ exec_id }) => !known.includes(exec_id))?.exec_id;
    }),
    20_000,
  );
}

/**
 * For a condition that costs much to ask: reading the whole process table every 5 ms would take the time from the lab,
 * which lives in the same process as the tests.
 */
export function nowAndThen<T>(ask: () => T | Promise<T>, pauseMs = 100): () => Promise<T | null> {
  let askedAtMs = Number.NEGATIVE_INFINITY;
  return async () => {
    if (performance.now() - askedAtMs < pauseMs) return null;
    const answer = await ask();
    askedAtMs = performance.now();
    return answer;
  };
}
