/**
 * The HTTP edge over fakes at its ports: an in-memory directory, registry, token store and audit log, and an exec that
 * plays a script. Tokens, command rules and the registry of running execs are the real ones.
 */
import { createHash } from 'node:crypto';
import { trace as openTelemetry } from '@opentelemetry/api';
import pino from 'pino';
import type {
  Caller,
  Directory,
  FrozenPerson,
  Registry,
  Scope,
  TokenRecord,
  TokenStore,
} from '../../src/access/access.ts';
import { SCOPES } from '../../src/access/access.ts';
import { createBodyHash } from '../../src/access/body-hash.ts';
import {
  createVerifier,
  generateSigningKey,
  loadSigningKey,
  signToken,
  type TokenClaims,
} from '../../src/access/token.ts';
import type {
  ActivityReader,
  ActivityRow,
  AuditLog,
  ChangeFacts,
  ExecRequestFacts,
  RefusalFacts,
} from '../../src/audit.ts';
import { SallyportError } from '../../src/errors.ts';
import { createCancel } from '../../src/exec/cancel.ts';
import type { ExecRun, RunExec } from '../../src/exec/exec.ts';
import type { ExecEnd, ExecEvent } from '../../src/exec/frame.ts';
import { createRoom, type ShareStore } from '../../src/exec/room.ts';
import { createRunningExecs } from '../../src/exec/running.ts';
import { createMetrics, type Metrics } from '../../src/http/metrics.ts';
import { type AppPace, createApp, type HttpDeps } from '../../src/http/server.ts';
import type { Outcome } from '../../src/outcome.ts';
import type { Org, Workspace } from '../../src/workspace.ts';

export const ADMIN_TOKEN = 'admin-token-of-at-least-32-characters';

export function workspaceOf(change: Partial<Workspace> = {}): Workspace {
  return {
    id: 'ws-1',
    orgId: 'org-a',
    name: 'first',
    tier: 3,
    labels: {},
    target: {
      driver: 'ec2',
      instanceId: 'i-0123456789abcdef0',
      region: 'eu-central-1',
      osUser: 'ec2-user',
      route: null,
    },
    ...change,
  };
}

/** No other replica is there. */
export const ALONE: ShareStore = {
  read: async () => [],
  exchange: async (decide) => void decide([]),
};

const SHA_OF_NOTHING = createHash('sha256').digest('hex');

export function endOf(run: Pick<ExecRun, 'execId'>, change: Partial<ExecEnd> = {}): ExecEnd {
  return {
    kind: 'end',
    execId: run.execId,
    outcome: 'exited',
    exitCode: 0,
    signal: null,
    error: null,
    durationMs: 12,
    timeoutS: 30,
    stdoutBytes: 0,
    stderrBytes: 0,
    stdoutSha256: SHA_OF_NOTHING,
    stderrSha256: SHA_OF_NOTHING,
    complete: true,
    ...change,
  };
}

export function output(text: string, stream: 'stdout' | 'stderr' = 'stdout'): ExecEvent {
  return { kind: 'output', stream, bytes: Buffer.from(text), text: true };
}

export type Script = (run: ExecRun) => AsyncIterable<ExecEvent>;

/** A program that writes these and exits with 0. */
export function playing(...events: ExecEvent[]): Script {
  return async function* (run) {
    yield { kind: 'started', pid: 42 };
    yield* events;
    yield endOf(run);
  };
}

export interface FakeGateway {
  deps: HttpDeps;
  app: ReturnType<typeof createApp>;
  /** What reached a port, in order. */
  trace: string[];
  opened: ExecRequestFacts[];
  refused: RefusalFacts[];
  changed: ChangeFacts[];
  runs: ExecRun[];
  workspaces: Map<string, Workspace>;
  orgs: Map<string, Org>;
  records: Map<string, TokenRecord>;
  activity: ActivityRow[];
  logged: Record<string, unknown>[];
  script: { current: Script };
  token(change?: Partial<TokenClaims>): Promise<string>;
}

export async function fakeGateway(change: Partial<HttpDeps> = {}, pace: AppPace = {}): Promise<FakeGateway> {
  const key = await loadSigningKey(await generateSigningKey());
  const trace: string[] = [];
  const workspaces = new Map([
    ['ws-1', workspaceOf()],
    ['ws-other', workspaceOf({ id: 'ws-other', orgId: 'org-b' })],
  ]);
  const orgs = new Map<string, Org>([
    ['org-a', { id: 'org-a', name: 'A', frozen: false }],
    ['org-b', { id: 'org-b', name: 'B', frozen: false }],
  ]);
  const records = new Map<string, TokenRecord>();
  const frozen = new Map<string, FrozenPerson>();
  const [opened, refused, changed, runs, activity] = [
    [] as ExecRequestFacts[],
    [] as RefusalFacts[],
    [] as ChangeFacts[],
    [] as ExecRun[],
    [] as ActivityRow[],
  ];
  const logged: Record<string, unknown>[] = [];
  const script = { current: playing(output('hi\n')) };
  const verifier = createVerifier({ key, adminToken: ADMIN_TOKEN });

  const exec: RunExec = (run) =>
    (async function* () {
      runs.push(run);
      let outcome: Outcome = 'unreachable';
      try {
        await run.entry();
        trace.push('host');
        for await (const event of script.current(run)) {
          if (event.kind === 'end') outcome = event.outcome;
          yield event;
        }
      } finally {
        run.onSettled(outcome);
      }
    })();
  const running = createRunningExecs();
  const deps: HttpDeps = {
    verifier: {
      async verify(bearer): Promise<Caller> {
        trace.push('verify');
        return await verifier.verify(bearer);
      },
      remembers: verifier.remembers,
    },
    signingKey: key,
    hashBody: createBodyHash(key),
    directory: fakeDirectory({ trace, workspaces, orgs, records, frozen }),
    tokens: fakeTokens(records),
    registry: fakeRegistry(workspaces, orgs, frozen),
    audit: fakeAudit({ trace, opened, refused, changed, activity }),
    exec,
    running,
    cancel: createCancel({ running, rows: { find: async () => null }, notices: { async askToCancel() {} } }),
    hostKeys: { pins: { get: async () => [], put: async () => {} }, look: async () => {} },
    onCall: {
      diagnose: () => Promise.reject(new Error('no host here')),
      readConsole: () => Promise.reject(new Error('no host here')),
      rescue: () => Promise.reject(new Error('no host here')),
      rescues: { latest: async () => null },
    },
    room: createRoom({ running, limits: { maxExecsWorkspace: 2, maxExecsOrg: 3 }, store: ALONE }),
    limits: { maxTimeoutS: 120, outputCapBytes: 16_777_216, maxExecsGateway: 4 },
    rates: null,
    processOrgId: null,
    trustProxy: null,
    ready: async () => ({ ok: true, reasons: [] }),
    draining: () => false,
    metrics: fakeMetrics(),
    tracer: openTelemetry.getTracer('test'),
    version: '0.0.0',
    servesMetrics: true,
    log: pino({ level: 'info' }, { write: (line: string) => logged.push(JSON.parse(line)) }),
    ...change,
  };

  let tokens = 0;
  return {
    deps,
    app: createApp(deps, pace),
    trace,
    opened,
    refused,
    changed,
    runs,
    workspaces,
    orgs,
    records,
    activity,
    logged,
    script,
    async token(change = {}) {
      tokens += 1;
      const now = Math.floor(Date.now() / 1000);
      const claims: TokenClaims = {
        jti: `token-${tokens}-0000`,
        sub: `sub-${tokens}`,
        orgId: 'org-a',
        workspaceId: null,
        kind: 'org',
        scopes: [...SCOPES] as Scope[],
        allow: null,
        name: 'a token',
        issuedAt: now,
        expiresAt: now + 600,
        ...change,
      };
      records.set(claims.jti, recordOf(claims));
      return await signToken(key, claims);
    },
  };
}

/** The real counters, of a gateway where nothing is held. */
export function fakeMetrics(): Metrics {
  return createMetrics({
    version: '0.0.0',
    nativeCrypto: true,
    running: () => 0,
    pool: () => ({ sessions: 0, leases: 0, openings: 0, waiting: 0, tunnels: 0 }),
    auditPending: () => 0,
    auditUnsealed: () => ({ entries: 0, oldestMs: 0 }),
    rightsAgeMs: () => 0,
  });
}

function recordOf(claims: TokenClaims): TokenRecord {
  const { jti: id, orgId, workspaceId, kind, name, scopes, allow } = claims;
  return {
    ...{ id, orgId, workspaceId, kind, name, scopes, allow },
    createdAt: new Date(claims.issuedAt * 1000),
    expiresAt: new Date(claims.expiresAt * 1000),
    revokedAt: null,
    createdBy: 'admin-token',
  };
}

function fakeDirectory(world: {
  trace: string[];
  workspaces: Map<string, Workspace>;
  orgs: Map<string, Org>;
  records: Map<string, TokenRecord>;
  frozen: Map<string, FrozenPerson>;
}): Directory {
  return {
    async standing({ orgId, jti, sub, workspaceId }) {
      world.trace.push('standing');
      const record = jti === null ? null : world.records.get(jti);
      const found = world.workspaces.get(workspaceId ?? '') ?? null;
      const workspace = found !== null && (orgId === null || found.orgId === orgId) ? found : null;
      return {
        token: jti === null ? 'none' : !record ? 'unknown' : record.revokedAt === null ? 'active' : 'revoked',
        org: world.orgs.get(orgId ?? workspace?.orgId ?? '') ?? null,
        personFrozen: world.frozen.has(`${orgId} ${sub}`),
        workspace,
      };
    },
  };
}

function fakeTokens(records: Map<string, TokenRecord>): TokenStore {
  const within = (orgId: string | null, id: string) => {
    const record = records.get(id);
    return record && (orgId === null || record.orgId === orgId) ? record : null;
  };
  return {
    async add(record) {
      records.set(record.id, record);
    },
    async list({ orgId, limit }) {
      return { items: [...records.values()].filter((record) => record.orgId === orgId).slice(0, limit), next: null };
    },
    async get(orgId, id) {
      return within(orgId, id);
    },
    async revoke(orgId, id) {
      const record = within(orgId, id);
      if (record === null) return false;
      record.revokedAt ??= new Date();
      return true;
    },
  };
}

function fakeRegistry(
  workspaces: Map<string, Workspace>,
  orgs: Map<string, Org>,
  frozen: Map<string, FrozenPerson>,
): Registry {
  const within = (orgId: string | null, id: string) => {
    const found = workspaces.get(id);
    return found && (orgId === null || found.orgId === orgId) ? found : null;
  };
  return {
    async listWorkspaces({ orgId, limit, after = '' }) {
      const all = [...workspaces.values()]
        .filter((item) => orgId === null || item.orgId === orgId)
        .filter((item) => item.id > after)
        .sort((a, b) => (a.id < b.id ? -1 : 1));
      return { items: all.slice(0, limit), next: all.length > limit ? (all[limit - 1]?.id ?? null) : null };
    },
    async putWorkspace(workspace) {
      const result = workspaces.has(workspace.id) ? 'replaced' : 'created';
      workspaces.set(workspace.id, workspace);
      return result;
    },
    async patchWorkspace(orgId, id, change) {
      const found = within(orgId, id);
      if (found === null) return null;
      const changed = { ...found, ...change };
      workspaces.set(id, changed);
      return changed;
    },
    async deleteWorkspace(orgId, id) {
      return within(orgId, id) !== null && workspaces.delete(id);
    },
    async getOrg(id) {
      return orgs.get(id) ?? null;
    },
    async listOrgs({ limit }) {
      return { items: [...orgs.values()].slice(0, limit), next: null };
    },
    async putOrg({ id, name }) {
      const old = orgs.get(id);
      orgs.set(id, { id, name, frozen: old?.frozen ?? false });
      return old ? 'replaced' : 'created';
    },
    async freezeOrg(id, isFrozen) {
      const org = orgs.get(id);
      if (!org) return null;
      orgs.set(id, { ...org, frozen: isFrozen });
      return { ...org, frozen: isFrozen };
    },
    async freezePerson({ orgId, sub }, isFrozen) {
      const key = `${orgId} ${sub}`;
      if (isFrozen) frozen.set(key, frozen.get(key) ?? { sub, frozenAt: new Date() });
      else frozen.delete(key);
    },
    async listFrozenPeople({ orgId, limit }) {
      const all = [...frozen].filter(([key]) => key.startsWith(`${orgId} `)).map(([, person]) => person);
      return { items: all.slice(0, limit), next: null };
    },
  };
}

function fakeAudit(world: {
  trace: string[];
  opened: ExecRequestFacts[];
  refused: RefusalFacts[];
  changed: ChangeFacts[];
  activity: ActivityRow[];
}): AuditLog & ActivityReader {
  return {
    async open(facts) {
      world.trace.push('audit');
      world.opened.push(facts);
      return { execId: facts.execId, close: async () => {} };
    },
    async openOnce(facts) {
      return { entry: await this.open(facts) };
    },
    async refused(facts) {
      world.refused.push(facts);
    },
    async changed(facts) {
      world.trace.push('changed');
      world.changed.push(facts);
    },
    async flush() {},
    async list(filter) {
      if (filter.after === 'bad') throw new SallyportError('invalid_request', 'not a cursor of this list');
      const items = world.activity.filter(
        (row) =>
          row.org_id === filter.orgId && (filter.workspaceId === undefined || row.workspace_id === filter.workspaceId),
      );
      return { items: items.slice(0, filter.limit), next: items.length > filter.limit ? 'more' : null };
    },
    async running(orgId, workspaceId) {
      return world.opened
        .filter((facts) => facts.orgId === orgId && facts.workspaceId === workspaceId)
        .map(({ execId, argv, actor }) => ({
          exec_id: execId,
          argv: [...argv],
          actor,
          started_at: '2026-01-01T00:00:00.000Z',
          outcome: null,
        }));
    },
  };
}
