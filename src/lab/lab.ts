/**
 * The lab: an EC2 look-alike on loopback. One HTTP port answers the EC2 and EC2 Instance Connect APIs, the endpoint's
 * websocket and the control requests; every instance is an SSH server on a loopback port of its own.
 *
 * Imports nothing of the gateway: whoever talks to the lab goes through the same code and SDK that talk to AWS. Listens on
 * 127.0.0.1 only, and there is no setting for another address, because its instances run programs as this user.
 */
import { mkdirSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { join, resolve } from 'node:path';
import { answerAws } from './aws-api.ts';
import { claimFolder } from './claim.ts';
import { answerControl, type ControlDeps } from './control.ts';
import { Counters } from './counters.ts';
import { Endpoint } from './endpoint.ts';
import { Faults } from './faults.ts';
import { Instance } from './instance.ts';
import { startKeeper } from './keeper.ts';
import type { LabContext, Log } from './lab-context.ts';
import { Pipes } from './pipes.ts';
import { ProgramSessions } from './processes.ts';
import { PushedKeys } from './pushed-keys.ts';
import { startSshd } from './sshd.ts';
import { addSystemUsers, type SystemUser } from './system-users.ts';
import { openWorld, type World } from './world.ts';

export type { Log } from './lab-context.ts';
export { canRunSshd } from './sshd.ts';

export interface LabOptions {
  /** Keeps ids, addresses, host keys and the access key; one lab at a time. */
  dataDir: string;
  /** 0: any free port. */
  port?: number;
  /** At least so many: those of an earlier start on this folder stay. */
  instances?: number;
  /** By position; what is absent has the default. */
  specs?: readonly InstanceSpec[];
  /** The first `count` instances are real OpenSSH servers, and log in the users of this machine. See `canRunSshd`. */
  sshd?: { count: number; users?: readonly SystemUser[] };
  region?: string;
  /** Tunnels at once through the endpoint. */
  maxTunnels?: number;
  /** Set: every request must carry it. */
  sessionToken?: string;
  /** The clock of the services and instances, in ms. */
  now?: () => number;
  log?: Log;
}

export interface InstanceSpec {
  osUser?: string;
  /** Login shell, absolute. */
  shell?: string;
  tags?: Readonly<Record<string, string>>;
}

export interface Lab {
  /** The APIs (AWS_ENDPOINT_URL_EC2, AWS_ENDPOINT_URL_EC2_INSTANCE_CONNECT) and the control requests. */
  url: string;
  /** The endpoint's websocket; the Host header is its DnsName. */
  tunnelUrl: string;
  region: string;
  accessKeyId: string;
  secretAccessKey: string;
  instances: { id: string; osUser: string; privateIp: string; sshPort: number }[];
  /** Closes everything and ends every program that it started. Safe to call twice. */
  stop(): Promise<void>;
}

const DEFAULT_INSTANCES = 12;
const DEFAULT_OS_USER = 'ec2-user';
const DEFAULT_SHELL = '/bin/sh';
/** AWS: 20 per endpoint, not adjustable. */
const DEFAULT_MAX_TUNNELS = 20;
const BODY_MAX_BYTES = 1024 * 1024;
const QUIET: Log = { info: () => undefined, warn: () => undefined, error: () => undefined };

export async function startLab(options: LabOptions): Promise<Lab> {
  // Absolute: it becomes the home of programs.
  const dataDir = resolve(options.dataDir);
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const stopping = new Stopping();
  stopping.add(await claimFolder(dataDir));
  try {
    return await startClaimed(dataDir, options, stopping);
  } catch (error) {
    await stopping.run();
    throw error;
  }
}

async function startClaimed(dataDir: string, options: LabOptions, stopping: Stopping): Promise<Lab> {
  const nowMs = options.now ?? Date.now;
  const count = options.instances ?? DEFAULT_INSTANCES;
  const world = openWorld(dataDir, { count, region: options.region ?? null, nowMs: nowMs() });
  const context = newContext(world, options, nowMs);
  const homesDir = join(dataDir, 'home');
  const sessions = new ProgramSessions(homesDir);
  const pipes = new Pipes();
  const instances = world.instances.map((record, index) => {
    const { osUser = DEFAULT_OS_USER, shell = DEFAULT_SHELL } = options.specs?.[index] ?? {};
    return new Instance({ record, osUser, shell, homesDir, pipes, sessions, context });
  });
  const endpoint = new Endpoint({ context, targets: instances, maxTunnels: options.maxTunnels ?? DEFAULT_MAX_TUNNELS });
  const server = newServer(context, { endpoint, instances });
  const keeper = startKeeper(homesDir);
  stopping.add(() => keeper.stop());
  stopping.add(() => sessions.endAll());
  for (const instance of instances) stopping.add(() => instance.stop());
  stopping.add(() => pipes.close());
  await Promise.all(instances.map((instance) => instance.start()));
  const port = await listen(server, options.port ?? 0);
  stopping.add(() => closeServer(server));
  stopping.add(() => endpoint.cutConnections());
  await startRealSshd(instances, { dir: join(dataDir, 'sshd'), options, port, stopping });
  return {
    url: `http://127.0.0.1:${port}`,
    tunnelUrl: `ws://127.0.0.1:${port}`,
    region: world.region,
    accessKeyId: world.accessKeyId,
    secretAccessKey: world.secretAccessKey,
    instances: instances.map(({ id, osUser, privateIp, sshPort }) => ({ id, osUser, privateIp, sshPort })),
    stop: () => stopping.run(),
  };
}

/** What a stop does, in reverse order of what was started; once. */
class Stopping {
  readonly #steps: (() => Promise<void> | void)[] = [];
  #running: Promise<void> | null = null;

  /** Runs before every step that was given earlier. */
  add(step: () => Promise<void> | void): void {
    this.#steps.push(step);
  }

  run(): Promise<void> {
    this.#running ??= this.#runAll();
    return this.#running;
  }

  async #runAll(): Promise<void> {
    const errors: unknown[] = [];
    for (const step of this.#steps.toReversed()) {
      try {
        await step();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw new AggregateError(errors, 'the lab did not stop cleanly');
  }
}

async function startRealSshd(
  instances: readonly Instance[],
  { dir, options, port, stopping }: { dir: string; options: LabOptions; port: number; stopping: Stopping },
): Promise<void> {
  const { count = 0, users = [] } = options.sshd ?? {};
  stopping.add(await addSystemUsers(users));
  for (const instance of instances.slice(0, count)) {
    const sshd = await startSshd(instance.realSshd(join(dir, instance.id), port));
    stopping.add(() => sshd.stop());
    instance.useSshd(sshd);
  }
}

function newContext(world: World, options: LabOptions, nowMs: () => number): LabContext {
  return {
    world,
    faults: new Faults(),
    counters: new Counters(),
    keys: new PushedKeys(nowMs),
    consoles: new Map(),
    tags: new Map(world.instances.map(({ id }, index) => [id, options.specs?.[index]?.tags ?? {}])),
    sessionToken: options.sessionToken ?? null,
    nowMs,
    log: options.log ?? QUIET,
  };
}

function newServer(context: LabContext, parts: { endpoint: Endpoint; instances: readonly Instance[] }): Server {
  const { endpoint, instances } = parts;
  const control: ControlDeps = {
    ...context,
    instances: () =>
      instances.map(({ id, osUser, privateIp, sshPort }) => ({
        id,
        os_user: osUser,
        private_ip: privateIp,
        ssh: `127.0.0.1:${sshPort}`,
      })),
    refreshCounters: () => {
      for (const instance of instances) instance.refreshCounters();
    },
    cutConnections: () => {
      endpoint.cutConnections();
      for (const instance of instances) instance.cutConnections();
    },
    writeConsole: (id, text) => void context.consoles.set(id, (context.consoles.get(id) ?? '') + text),
    cutInstance: (instanceId) => {
      for (const instance of instances) {
        if (instanceId !== null && instanceId !== instance.id) continue;
        endpoint.cutInstance(instance.id);
        instance.cutConnections();
      }
    },
  };
  const server = createServer((request, response) => {
    answer(request, response, { context, control }).catch((error: unknown) => {
      // The client hung up while it waited; nobody is there to be told.
      if (response.destroyed) return;
      context.log.error({ err: error }, 'a request to the lab failed');
      if (!response.headersSent) response.writeHead(500);
      response.end();
    });
  });
  server.on('upgrade', (request, socket, head) => endpoint.upgrade(request, socket, head));
  return server;
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  deps: { context: LabContext; control: ControlDeps },
): Promise<void> {
  const body = await readBody(request);
  if (body === null) return refuse(response, 413, 'the body is too large');
  if (request.method === 'POST' && request.url === '/') return answerAws(request, response, body, deps.context);
  // A browser may be led to a loopback port under another name; nothing but a local program has business here.
  if (!isLoopbackName(request.headers.host) || request.headers.origin !== undefined)
    return refuse(response, 403, 'loopback only');
  if (!answerControl(request, response, body, deps.control))
    refuse(response, 404, `nothing at ${request.method} ${request.url}`);
}

function isLoopbackName(host: string | undefined): boolean {
  return host === undefined || /^(127\.0\.0\.1|localhost)(:\d+)?$/.test(host);
}

/** Null: too large. */
async function readBody(request: IncomingMessage): Promise<Buffer | null> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_MAX_BYTES) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function refuse(response: ServerResponse, status: number, message: string): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(`${JSON.stringify({ error: message })}\n`);
}

function listen(server: Server, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: '127.0.0.1', port }, () => {
      const address = server.address();
      if (typeof address !== 'object' || address === null) return reject(new Error('bug: a TCP server has a port'));
      resolve(address.port);
    });
  });
}

async function closeServer(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeAllConnections();
  await closed;
}
