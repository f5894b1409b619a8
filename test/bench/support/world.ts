/**
 * What the rows run against, started when a row first asks for it and stopped together at the end: one sshd, one PostgreSQL,
 * gateways, workers. The same sshd serves the gateway and its peers.
 */
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { type Embedded, startEmbedded } from '../../../src/db/embedded.ts';
import { databaseUrl, silent } from '../../support/database-url.ts';
import { newKeyPair } from '../../support/ssh-keys.ts';
import { type Sshd, startSshd } from '../../support/sshd.ts';
import type { AnsweringOps } from './answering-server.ts';
import { startedHere } from './cpu-time.ts';
import { type GatewayOptions, type GatewayProcess, startGatewayProcess } from './gateway-process.ts';
import type { RelayOps } from './relay.ts';
import { startWarm, type Warm } from './warm.ts';
import { type Ops, startWorker, type Worker } from './worker.ts';

/** An SSH server that rows may use. */
export interface SshHost {
  port: number;
  username: string;
  privateKey: string;
}

export interface World {
  readonly folder: string;
  /** Fewer rounds, shorter times: for a look, not for a figure to keep. */
  readonly quick: boolean;
  /** Aborts when the run is broken off. */
  readonly signal: AbortSignal;
  /** Of the user that sshd and the answering server let in; 0600. */
  keyFile(): Promise<string>;
  knownHosts(): string;
  /** Of the sshd, as an admin stores it; for after `sshd()`. */
  hostKeyLine(): string;
  /** Real sshd, the workspace `real` of the gateway. */
  sshd(): Promise<SshHost>;
  /** The server that only answers, on every loopback address; the workspace `answering`. */
  answering(): Promise<SshHost>;
  /** The same sshd behind a relay; the workspace `far`. */
  far(): Promise<SshHost>;
  /** The one that most rows share; its workspaces are there as soon as the host of that name was asked for. */
  gateway(): Promise<GatewayProcess>;
  /** The gateway and its peers, all with their hot code compiled; for rows that measure warm execs. */
  warm(): Promise<Warm>;
  /** One more, on a database of its own, for a row that looks into the process. */
  newGateway(how?: Pick<GatewayOptions, 'nodeArgs' | 'env'>): Promise<GatewayProcess>;
  /** A new database on the durable server. */
  newDatabase(): Promise<string>;
  /** Of a server that was asked for before; null where /proc does not tell. */
  serverPid(server: 'postgres' | 'sshd' | 'answering'): number | null;
  worker<O extends Ops>(file: string): Promise<Worker<O>>;
  /** Words for `ssh` that reach a host as the gateway does. */
  sshArgs(host: SshHost): Promise<string[]>;
  /** Runs at the end, last come first. */
  atEnd(stop: () => Promise<void> | void): void;
  /** Never rejects; what could not be stopped is printed. */
  end(): Promise<void>;
}

/** Further callers than a default sshd takes: 100 on one ControlMaster. */
const SSHD_CONFIG = ['MaxSessions 128'];
/** Each way; 20 ms round trip. */
const FAR_DELAY_MS = 10;

export function createWorld(options: { quick: boolean; profileDir: string | null; signal: AbortSignal }): World {
  const { quick, profileDir, signal } = options;
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-bench-'));
  const knownHosts = join(folder, 'known_hosts');
  writeFileSync(knownHosts, '');
  const stops: (() => Promise<void> | void)[] = [];
  const atEnd = (stop: () => Promise<void> | void): void => void stops.push(stop);

  let hostKeyLine = '';
  const startServer = once(async (): Promise<Sshd> => {
    const server = await startSshd(SSHD_CONFIG);
    atEnd(() => server.stop());
    know('127.0.0.1', server.port, server.hostKey);
    hostKeyLine = lineOf(server.hostKey);
    return server;
  });
  const know = (host: string, port: number, wireKey: Buffer): void =>
    appendFileSync(knownHosts, `[${host}]:${port} ${lineOf(wireKey)}\n`);

  const keyFile = once(async () => {
    const file = join(folder, 'key');
    writeFileSync(file, (await startServer()).privateKey, { mode: 0o600 });
    return file;
  });

  const startDatabase = once(async (): Promise<Embedded> => {
    const server = await startEmbedded({ dataDir: join(folder, 'postgres'), log: silent, durable: true });
    atEnd(() => server.stop());
    return server;
  });
  let databases = 0;
  const newDatabase = async (): Promise<string> => {
    const server = await startDatabase();
    databases += 1;
    const name = `bench_${databases}`;
    const client = new pg.Client({ connectionString: server.url });
    await client.connect();
    await client.query(`create database ${name}`);
    await client.end();
    return databaseUrl(server.url, name);
  };
  const newGateway: World['newGateway'] = async (how = {}) => {
    const url = await newDatabase();
    const gateway = await startGatewayProcess({
      folder,
      databaseUrl: url,
      keyFile: await keyFile(),
      knownHosts,
      ...how,
    });
    atEnd(() => gateway.stop());
    return gateway;
  };
  const profiling = profileDir === null ? [] : ['--cpu-prof', `--cpu-prof-dir=${profileDir}`];
  const gateway = once(() => newGateway({ nodeArgs: profiling }));
  const worker = async <O extends Ops>(file: string): Promise<Worker<O>> => {
    const started = await startWorker<O>(file);
    atEnd(() => started.stop());
    return started;
  };

  const inGateway = async (id: string, host: SshHost): Promise<SshHost> => {
    await (await gateway()).addWorkspace(id, { port: host.port, osUser: host.username });
    return host;
  };
  const loginOf = async (): Promise<Omit<SshHost, 'port'>> => {
    const { username, privateKey } = await startServer();
    return { username, privateKey };
  };

  let answeringPid: number | null = null;
  const world: World = {
    folder,
    quick,
    signal,
    keyFile,
    knownHosts: () => knownHosts,
    hostKeyLine: () => hostKeyLine,
    gateway,
    warm: once(() => startWarm(world)),
    newGateway,
    newDatabase,
    serverPid: (server) => (server === 'answering' ? answeringPid : startedHere(server)),
    worker,
    atEnd,
    sshd: once(async () => inGateway('real', { port: (await startServer()).port, ...(await loginOf()) })),
    answering: once(async () => {
      const pair = newKeyPair();
      const server = await worker<AnsweringOps>('answering-server.ts');
      answeringPid = server.pid;
      const { port } = await server.ask('listen', { hostKey: pair.privateKey });
      know('127.*', port, Buffer.from(pair.publicKey.split(' ')[1] ?? '', 'base64'));
      return inGateway('answering', { port, ...(await loginOf()) });
    }),
    far: once(async () => {
      const near = await startServer();
      const relay = await worker<RelayOps>('relay.ts');
      const { port } = await relay.ask('listen', { toPort: near.port, delayMs: FAR_DELAY_MS });
      know('127.0.0.1', port, near.hostKey);
      return inGateway('far', { port, ...(await loginOf()) });
    }),
    async sshArgs({ port, username }) {
      const settings = [
        ...['BatchMode=yes', 'IdentitiesOnly=yes', 'StrictHostKeyChecking=yes', 'GlobalKnownHostsFile=/dev/null'],
        ...[`UserKnownHostsFile=${knownHosts}`, 'KexAlgorithms=curve25519-sha256', 'Ciphers=aes128-gcm@openssh.com'],
      ];
      const words = settings.flatMap((setting) => ['-o', setting]);
      return ['-F', 'none', '-T', '-i', await keyFile(), '-p', String(port), '-l', username, ...words, '127.0.0.1'];
    },
    async end() {
      for (const stop of stops.reverse()) {
        try {
          await stop();
        } catch (error) {
          console.error('could not be stopped:', error);
        }
      }
      rmSync(folder, { recursive: true, force: true });
    },
  };
  return world;
}

function lineOf(wireKey: Buffer): string {
  return `ssh-ed25519 ${wireKey.toString('base64')}`;
}

/** The first call starts it, all calls get it. */
function once<T>(start: () => Promise<T>): () => Promise<T> {
  let started: Promise<T> | null = null;
  return () => {
    started ??= start();
    return started;
  };
}
