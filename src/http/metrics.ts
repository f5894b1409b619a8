/**
 * What the gateway counts, in Prometheus' text format; nothing else knows prom-client.
 *
 * Labels are words of closed lists (outcome, driver, tier, step, code, route pattern): never a tenant, a workspace, a
 * host or an argument, so the number of series has an end whatever callers send. What others hold (sessions, rows that
 * wait) is read when somebody asks, not counted twice.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { ErrorCode } from '../errors.ts';
import type { ExecEnd } from '../exec/frame.ts';
import { WITHDRAWAL_MAX_MS } from '../limits.ts';
import type { Pool } from '../sessions/pool.ts';
import type { Workspace } from '../workspace.ts';

/** Where the gauges are read. */
export interface MetricSources {
  version: string;
  /** Whether SSH encrypts in native code; in JavaScript it is several times slower. */
  nativeCrypto: boolean;
  running(): number;
  pool(): ReturnType<Pool['stats']>;
  auditPending(): number;
  auditUnsealed(): { entries: number; oldestMs: number };
  /** Of what runs; 0 while nothing runs. */
  rightsAgeMs(): number;
}

export interface FinishedRequest {
  /** Method and route pattern; null: no such route. */
  route: string | null;
  /** Null: the caller had gone before there was one. */
  status: number | null;
  /** Null: no problem. */
  code: ErrorCode | null;
  /** Set: the request was for an exec, and a gate refused it. */
  refusedExec: { workspace: Workspace | null } | null;
}

export interface Metrics {
  countRequest(request: FinishedRequest): void;
  /** An exec was ended, for a right that was last seen to hold so long ago. */
  countWithdrawal(withinMs: number): void;
  /** The host has answered that the program starts. */
  countStart(workspace: Workspace, withinMs: number): void;
  /** `started`: as `countStart` was told. */
  countEnd(end: ExecEnd, workspace: Workspace, started: boolean): void;
  read(): Promise<{ type: string; text: string }>;
}

/** From a warm `true` to the longest run that an operator commonly allows. */
const RUN_BUCKETS_S = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 600];
/** From an open session to the end of the connect budget. */
const CONNECT_BUCKETS_S = [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60];

/** Up to the poll, to the bound, and what a database that was away may make of it. */
const WITHDRAWAL_BUCKETS_S = [0.1, 0.25, 0.5, 0.75, 1, 1.5, WITHDRAWAL_MAX_MS / 1000, 3, 5, 15, 60, 120];

export function createMetrics(sources: MetricSources): Metrics {
  const registers = [new Registry()];
  const [registry] = registers as [Registry];
  collectDefaultMetrics({ register: registry });
  addGauges(registers, sources);

  const execs = new Counter({
    name: 'sallyport_execs_total',
    help: 'Execs that have ended, refused ones included.',
    labelNames: ['outcome', 'driver', 'tier'],
    registers,
  });
  const runSeconds = new Histogram({
    name: 'sallyport_exec_duration_seconds',
    help: 'From the last gate to the end, for programs that started.',
    labelNames: ['driver'],
    buckets: RUN_BUCKETS_S,
    registers,
  });
  const connectSeconds = new Histogram({
    name: 'sallyport_exec_connect_seconds',
    help: 'From the last gate until the host answered that the program starts; audit row and session included.',
    labelNames: ['driver'],
    buckets: CONNECT_BUCKETS_S,
    registers,
  });
  const failedSteps = new Counter({
    name: 'sallyport_exec_failed_step_total',
    help: 'Execs that failed on the way to the host, by the step that failed.',
    labelNames: ['step', 'driver'],
    registers,
  });
  const kills = new Counter({
    name: 'sallyport_kills_total',
    help: 'Programs that were ended on purpose. survivors: none, some, or unknown (nobody could look).',
    labelNames: ['survivors'],
    registers,
  });
  const withdrawals = new Histogram({
    name: 'sallyport_withdrawal_seconds',
    help: 'What it took at most from the withdrawal of a right until an exec that needed it was ended: since the reading before.',
    buckets: WITHDRAWAL_BUCKETS_S,
    registers,
  });
  const requests = new Counter({
    name: 'sallyport_http_requests_total',
    help: 'Finished requests by route pattern and class of status; "gone": the caller left before there was one.',
    labelNames: ['route', 'status'],
    registers,
  });
  const problems = new Counter({
    name: 'sallyport_problems_total',
    help: 'Requests and execs that ended with a problem, by its code.',
    labelNames: ['code'],
    registers,
  });

  function countEnd(end: ExecEnd, { target: { driver }, tier }: Workspace, started: boolean): void {
    execs.inc({ outcome: end.outcome, driver, tier: String(tier) });
    if (started) runSeconds.observe({ driver }, end.durationMs / 1000);
    const step = end.error?.details.failedStep;
    if (step !== undefined) failedSteps.inc({ step, driver });
    const wasEnded = end.error !== null && end.survivors !== undefined;
    if (wasEnded) kills.inc({ survivors: kindOf(end.survivors ?? null) });
  }

  return {
    countRequest({ route, status, code, refusedExec }) {
      requests.inc({
        route: route ?? '(no route)',
        status: status === null ? 'gone' : `${Math.floor(status / 100)}xx`,
      });
      if (code !== null) problems.inc({ code });
      if (refusedExec === null) return;
      const { workspace } = refusedExec;
      const where = { driver: workspace?.target.driver ?? 'none', tier: String(workspace?.tier ?? 'none') };
      execs.inc({ outcome: 'refused', ...where });
    },

    countWithdrawal: (withinMs) => withdrawals.observe(withinMs / 1000),

    countStart({ target: { driver } }, withinMs) {
      connectSeconds.observe({ driver }, withinMs / 1000);
    },

    countEnd,

    async read() {
      return { type: registry.contentType, text: await registry.metrics() };
    },
  };
}

function kindOf(survivors: readonly number[] | null): string {
  if (survivors === null) return 'unknown';
  return survivors.length === 0 ? 'none' : 'some';
}

function addGauges(registers: Registry[], sources: MetricSources): void {
  const { version, nativeCrypto, running, pool, auditPending, auditUnsealed, rightsAgeMs } = sources;
  const gauge = (name: string, help: string, read: () => number): void => {
    new Gauge({
      name: `sallyport_${name}`,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  };
  gauge('execs_running', 'Execs of this process that have not ended.', running);
  gauge('pool_sessions', 'Open sessions to hosts.', () => pool().sessions);
  gauge('pool_leases', 'Uses of sessions.', () => pool().leases);
  gauge('pool_openings', 'Sessions that are being opened.', () => pool().openings);
  gauge('pool_waiting', 'Execs that wait for a place on a session.', () => pool().waiting);
  gauge(
    'tunnels',
    'Tunnels through EC2 Instance Connect Endpoints, those being opened included.',
    () => pool().tunnels,
  );
  gauge('audit_pending', 'Audit rows that are not durable yet.', auditPending);
  gauge(
    'audit_unsealed',
    'Audit entries of all replicas that are not sealed yet, as this one saw them last.',
    () => auditUnsealed().entries,
  );
  gauge(
    'audit_unsealed_age_seconds',
    'How long the oldest of them has waited; above 5 nobody seals.',
    () => auditUnsealed().oldestMs / 1000,
  );
  gauge(
    'rights_age_seconds',
    'Since the rights of what runs were last known; 0 while nothing runs. Grows while the database does not answer.',
    () => rightsAgeMs() / 1000,
  );
  gauge(
    'withdrawal_bound_seconds',
    'A right that is withdrawn ends what runs by it within this, also when every notice is lost.',
    () => WITHDRAWAL_MAX_MS / 1000,
  );
  new Gauge({
    name: 'sallyport_build_info',
    help: 'Always 1. ssh_crypto: native, or javascript, which is several times slower.',
    labelNames: ['version', 'ssh_crypto'],
    registers,
  }).set({ version, ssh_crypto: nativeCrypto ? 'native' : 'javascript' }, 1);
}
