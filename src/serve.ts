/**
 * The gateway as a running thing: config → database → drivers → pool → server, and back down again.
 *
 * It starts in the order in which one part needs the next and stops in the opposite one: not ready, no new execs, running
 * execs get DRAIN_GRACE_MS, then they are ended as `drained`, rows are made durable, connections closed.
 */
import { randomUUID } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { createBodyHash } from './access/body-hash.ts';
import { createIssuerKeys } from './access/issuer.ts';
import { createSessionVerifier, type SessionVerifier } from './access/oidc.ts';
import { canSign, createVerifier, generateSigningKey, loadSigningKey, type SigningKey } from './access/token.ts';
import { readVersion } from './cli/version.ts';
import type { Config } from './config/config.ts';
import { type Database, openDatabase } from './db/database.ts';
import { createOnCall } from './diagnose/on-call.ts';
import { type Aws, createAws } from './drivers/aws.ts';
import { createDockerDriver } from './drivers/docker.ts';
import { createEc2Driver } from './drivers/ec2.ts';
import { createLocalDriver } from './drivers/local.ts';
import { hasNativeCrypto } from './drivers/native-crypto.ts';
import { createSshDriver } from './drivers/ssh.ts';
import { SallyportError } from './errors.ts';
import { cancelHere, createCancel } from './exec/cancel.ts';
import { EndCause } from './exec/cause.ts';
import { createExec } from './exec/exec.ts';
import { createHostKeyWatch, type HostKeyWatch } from './exec/host-keys.ts';
import type { Notice } from './exec/notices.ts';
import { keepPresence } from './exec/presence.ts';
import { startReconciler } from './exec/reconcile.ts';
import { repeat } from './exec/repeat.ts';
import { createRoom, type Room } from './exec/room.ts';
import { createRunningExecs, type RunningExecs } from './exec/running.ts';
import { type Sealer, startSealer } from './exec/seal.ts';
import { startWithdrawal, type Withdrawal } from './exec/withdrawal.ts';
import { createMetrics, type Metrics } from './http/metrics.ts';
import {
  createApp,
  createMetricsApp,
  type HttpDeps,
  type RunningServer,
  type ServerSettings,
  startServer,
} from './http/server.ts';
import {
  CONNECTIONS_MAX,
  DRAIN_GRACE_MS,
  FLUSH_MAX_MS,
  HOST_KEYS_POLL_MS,
  KILL_BUDGET_MS,
  READY_CHECK_MS,
  ROOM_EVERY_MS,
  SESSION_HOLD_MIN_MS,
  SESSION_MAX_AGE_MS,
} from './limits.ts';
import { createPool, type Pool } from './sessions/pool.ts';
import type { Driver } from './sessions/session.ts';
import { startTelemetry } from './telemetry.ts';
import type { DriverName } from './workspace.ts';

export interface Gateway {
  url: string;
  metricsUrl: string;
  database: Database;
  signingKey: SigningKey;
  pool: Pool;
  /** Drains and stops. `graceMs`: how long running execs may go on. Safe to call twice; the shorter grace wins. */
  stop(graceMs?: number): Promise<void>;
}

/** What tests with gateways as processes make shorter; limits.ts has what holds otherwise, and why. */
export interface Pace {
  presenceBeatMs?: number;
  presenceMaxMs?: number;
  reconcileEveryMs?: number;
  sealEveryMs?: number;
  checkpointEveryMs?: number;
  /** Off: as behind a pooler that swallows notices. */
  listens?: boolean;
  /** What slow clients may take. */
  slow?: ServerSettings['slow'] & { answerStallMs?: number };
}

export async function startGateway(config: Config, log: Logger, pace: Pace = {}): Promise<Gateway> {
  mkdirSync(config.dataDir, { recursive: true, mode: 0o700 });
  const signingKey = await loadSigningKey(config.signingKey ?? (await keptSigningKey(config.dataDir)));
  const replica = `${hostname()}-${process.pid}-${randomUUID().slice(0, 8)}`;
  const version = readVersion();
  const telemetry = await startTelemetry(config.traces, { version, replica, log });
  const database = await openDatabase({
    url: config.databaseUrl,
    migrateUrl: config.migrateDatabaseUrl,
    dataDir: config.dataDir,
    replica,
    presenceMaxMs: pace.presenceMaxMs,
    log,
  });
  const aws = createAws({ log });
  const drivers = createDrivers(config, { aws, database });
  const pool = createPool({ drivers, tunnelsMax: config.limits.tunnelsPerEndpoint, maxAgeMs: sessionMaxAgeMs(config) });
  const hostKeys = createHostKeyWatch({ replaced: database.pins, pool });
  const running = createRunningExecs();
  const room = createRoom({ running, limits: config.limits, store: database.shares });
  let draining = false;

  const metrics = createMetrics({
    version,
    nativeCrypto: hasNativeCrypto(),
    running: () => running.size,
    pool: () => pool.stats(),
    auditPending: () => database.auditPending(),
    auditUnsealed: () => others.unsealed(),
    rightsAgeMs: () => others.rightsAgeMs(),
  });
  const others = createOthers({ database, signingKey, pool, running, room, hostKeys, metrics, pace, log });

  const deps: HttpDeps = {
    verifier: createVerifier({ key: signingKey, adminToken: config.adminToken, sessions: createSessions(config, log) }),
    signingKey,
    hashBody: createBodyHash(signingKey),
    directory: database.directory,
    tokens: database.tokens,
    registry: database.registry,
    audit: database.audit,
    exec: createExec({ pool }),
    running,
    room,
    cancel: createCancel({ running, rows: database.execs, notices: database.notices }),
    onCall: createOnCall({ drivers, pool, rescues: database.rescues }),
    hostKeys: { pins: database.pins, ...hostKeys },
    limits: config.limits,
    rates: config.limits.ratePerMin === 0 ? null : database.rates(config.limits.ratePerMin),
    processOrgId: config.orgId,
    trustProxy: config.trustProxy,
    ready: () => readiness({ database, signingKey, draining }),
    draining: () => draining,
    metrics,
    tracer: telemetry.tracer,
    version,
    servesMetrics: config.metricsPort === null,
    log,
  };

  try {
    await others.start();
    const server = await listen(deps, config, pace.slow);
    log.info({ url: server.url, metrics_url: server.metricsUrl, replica }, 'ready');
    // The first dial should not pay for loading the SDK; what goes wrong with it is told there.
    aws.preload().catch(() => undefined);
    const hasten = new AbortController();
    const stopAll = async (graceMs: number): Promise<void> => {
      draining = true;
      await drain(running, graceMs, hasten.signal);
      await server.close(1000);
      await Promise.all([database.audit.flush(AbortSignal.timeout(FLUSH_MAX_MS)), telemetry.stop()]);
      await others.stop();
      pool.close();
      aws.close();
      await database.close();
      log.info({}, 'stopped');
    };
    let stopping: Promise<void> | null = null;
    return {
      url: server.url,
      metricsUrl: server.metricsUrl,
      database,
      signingKey,
      pool,
      stop(graceMs = DRAIN_GRACE_MS) {
        if (stopping !== null && graceMs === 0) hasten.abort();
        stopping ??= stopAll(graceMs);
        return stopping;
      },
    };
  } catch (error) {
    await others.stop();
    pool.close();
    await telemetry.stop();
    await database.close();
    throw error;
  }
}

function createSessions({ oidc }: Config, log: Logger): SessionVerifier | null {
  return oidc === null ? null : createSessionVerifier(oidc, createIssuerKeys(oidc.issuer, { log }));
}

function createDrivers(
  config: Config,
  { aws, database }: { aws: Aws; database: Database },
): ReadonlyMap<DriverName, Driver> {
  const { pins } = database;
  const { hostKeys, ssh, docker, localDriver, channelAhead } = config;
  const ec2 = createEc2Driver({
    aws,
    pins,
    hostKeys,
    route: config.route,
    orgTag: config.orgTag,
    lab: config.labTunnelUrl === null ? null : { tunnelUrl: config.labTunnelUrl },
    maxTunnelDurationS: config.limits.tunnelMaxS,
    channelAhead,
  });
  const drivers = [ec2];
  if (ssh !== null) drivers.push(createSshDriver({ ...ssh, pins, hostKeys, channelAhead }));
  if (docker !== null) drivers.push(createDockerDriver(docker));
  if (localDriver) drivers.push(createLocalDriver());
  return new Map(drivers.map((driver) => [driver.name, driver]));
}

/** What this replica does about the others that share its database. */
function createOthers(deps: {
  database: Database;
  signingKey: SigningKey;
  pool: Pool;
  running: RunningExecs;
  room: Room;
  hostKeys: HostKeyWatch;
  metrics: Metrics;
  pace: Pace;
  log: Logger;
}) {
  const { database, signingKey, pool, running, room, hostKeys, metrics, pace, log } = deps;
  const store = database.replicas;
  const parts: { stop(): Promise<void> }[] = [];
  let withdrawal: Withdrawal | null = null;
  let sealer: Sealer | null = null;
  return {
    rightsAgeMs: () => withdrawal?.rightsAgeMs() ?? 0,
    /** The presence comes first: a row of a replica that nobody knows is nobody's. */
    async start(): Promise<void> {
      // Stopped last, so that it seals what the others still write.
      const { sealEveryMs: everyMs, checkpointEveryMs } = pace;
      sealer = startSealer({ store: database.seals, key: signingKey, log, everyMs, checkpointEveryMs });
      parts.push(sealer);
      parts.push(await keepPresence({ store, running, log, beatMs: pace.presenceBeatMs }));
      const readRoom = () =>
        room.refresh().catch((error: unknown) => log.warn({ err: error }, 'what other replicas run could not be read'));
      const readKeys = () =>
        hostKeys.look().catch((error: unknown) => log.warn({ err: error }, 'replaced host keys could not be read'));
      await Promise.all([readRoom(), readKeys()]);
      const readingRoom = repeat(ROOM_EVERY_MS, readRoom);
      const readingKeys = repeat(HOST_KEYS_POLL_MS, readKeys);
      parts.push(readingRoom, readingKeys);
      parts.push(startReconciler({ store, pool, log, everyMs: pace.reconcileEveryMs }));
      const onEnded = metrics.countWithdrawal;
      const begun = startWithdrawal({ running, directory: database.directory, log, onEnded });
      parts.push(begun);
      withdrawal = begun;
      if (pace.listens === false) return;
      const heard = (notice: Notice): void => {
        if (notice.kind === 'cancel') void cancelHere(running, notice);
        else if (notice.kind === 'replica') readingRoom.now();
        else if (notice.kind === 'host_keys') readingKeys.now();
        else begun.heard(notice);
      };
      parts.push(database.notices.listen(heard));
    },
    unsealed: () => sealer?.unsealed() ?? { entries: 0, oldestMs: 0 },
    async stop(): Promise<void> {
      for (const part of parts.reverse()) {
        await part.stop().catch((error: unknown) => log.warn({ err: error }, 'the other replicas were not told'));
      }
    },
  };
}

/** So that the longest exec that a session takes last still ends before its tunnel is cut. */
function sessionMaxAgeMs({ limits }: Config): number {
  const longestMs = 2 * (limits.maxTimeoutS * 1000 + KILL_BUDGET_MS);
  return Math.max(SESSION_HOLD_MIN_MS, Math.min(SESSION_MAX_AGE_MS, limits.tunnelMaxS * 1000 - longestMs));
}

/** Made once and kept beside the embedded database; 0600. */
async function keptSigningKey(dataDir: string): Promise<string> {
  const file = join(dataDir, 'signing-key.pem');
  if (!existsSync(file)) writeFileSync(file, await generateSigningKey(), { mode: 0o600, flag: 'wx' });
  chmodSync(file, 0o600);
  return readFileSync(file, 'utf8');
}

/** The API, and where metrics have a port of their own a second server, which is the last to go. */
async function listen(
  deps: HttpDeps,
  config: Config,
  slow: Pace['slow'] = {},
): Promise<RunningServer & { metricsUrl: string }> {
  const { host, port, tls, metricsPort } = config;
  const onFull = createFullWarning(deps.log);
  const aside =
    metricsPort === null ? null : await startServer(createMetricsApp(deps), { host, port: metricsPort, tls });
  try {
    const server = await startServer(createApp(deps, slow), { host, port, tls, onFull, slow });
    return {
      url: server.url,
      metricsUrl: `${(aside ?? server).url}/metrics`,
      async close(graceMs) {
        await server.close(graceMs);
        await aside?.close(0);
      },
    };
  } catch (error) {
    await aside?.close(0);
    throw error;
  }
}

/** A flood of connections is one line a minute. */
function createFullWarning(log: Logger): () => void {
  let quietUntilMs = 0;
  return () => {
    if (performance.now() < quietUntilMs) return;
    quietUntilMs = performance.now() + 60_000;
    log.warn({ connections: CONNECTIONS_MAX }, 'too many connections: new ones are closed as they come');
  };
}

async function readiness(state: {
  database: Database;
  signingKey: SigningKey;
  draining: boolean;
}): Promise<{ ok: boolean; reasons: string[] }> {
  const { database, signingKey, draining } = state;
  const reasons = draining ? ['draining: the gateway is stopping'] : [];
  if (!canSign(signingKey)) reasons.push('signing key: a signature of it cannot be verified');
  try {
    await database.ping(AbortSignal.timeout(READY_CHECK_MS));
  } catch (error) {
    reasons.push(`database: ${error instanceof SallyportError ? error.message : 'it does not answer'}`);
  }
  return { ok: reasons.length === 0, reasons };
}

/** Running execs get their time, then they are ended; resolves when none is left. */
async function drain(running: RunningExecs, graceMs: number, hasten: AbortSignal): Promise<void> {
  // Rejects when somebody hastens.
  const grace = sleep(graceMs, undefined, { signal: hasten, ref: false }).catch(() => undefined);
  await Promise.race([running.idle(), grace]);
  await running.endAll(new EndCause('drained', 'the gateway is stopping and ended the program'));
}
