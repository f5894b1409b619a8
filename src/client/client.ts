/**
 * Our HTTP API from outside: one function per thing a caller can ask for, for the command line, the console's tests and
 * whoever writes against the gateway.
 *
 * It decides nothing about rights and prints nothing. Failures are ProblemError (the gateway said so), NoAnswerError
 * (nobody answered) and UnfinishedStreamError (the answer stopped in the middle). It never repeats a request: only the
 * caller knows whether running a program twice is harmless. A token is not sent over plain http beyond loopback.
 */
import { isUtf8 } from 'node:buffer';
import { SallyportError } from '../errors.ts';
import { readFrames } from './frames.ts';
import { type Call, createTransport, headerOf, parseGateway, readDocument, readProblem } from './transport.ts';
import type {
  ActivityQuery,
  ActivityView,
  ConsoleView,
  DiagnosisView,
  ExecBody,
  ExecDocument,
  HostKeysView,
  ListQuery,
  OrgView,
  Page,
  PersonView,
  RescueView,
  RunningExecView,
  TokenBody,
  TokenView,
  WireFrame,
  WorkspaceBody,
  WorkspaceView,
} from './wire.ts';

/** A plain call answers from the database; cancelling an exec waits for its end, which takes seconds. */
const PLAIN_SILENCE_MS = 30_000;
/** What the gateway adds to run and connect budget: ending the program, looking again, answering. */
const EXEC_MARGIN_S = 30;
/** A diagnosis takes 30 s at most, a rescue twice that; nothing comes meanwhile. Source: contract, section 5. */
const DIAGNOSE_SILENCE_MS = 45_000;
const RESCUE_SILENCE_MS = 120_000;
/** The gateway's own defaults, for the time an exec may be silent. Source: contract, section 1. */
const TIMEOUT_DEFAULT_S = 30;
const CONNECT_TIMEOUT_DEFAULT_S = 20;

export interface ClientOptions {
  url: string;
  token: string;
  /** Sent as X-Org-Id: which org the admin token acts in. */
  orgId?: string;
  /** Keep connections for later calls; `close` ends them. Default: each call has its own. */
  keepAlive?: boolean;
}

export interface CallOptions {
  signal?: AbortSignal;
}

export interface ExecOptions extends CallOptions {
  /** Sent as the program's standard input, bytes exact; overrides `body.stdin`. */
  stdin?: Buffer;
  idempotencyKey?: string;
}

export interface ExecStream {
  execId: string | null;
  requestId: string | null;
  status: number;
  /** To be read once. Leaving the loop early, or aborting the signal, hangs up, which ends the program. */
  frames: AsyncIterable<WireFrame>;
}

interface List<Query, Item> {
  list(query?: Query, options?: CallOptions): Promise<Page<Item>>;
  /** Every item over all pages, from `after` on. */
  all(query?: Query, options?: CallOptions): AsyncIterable<Item>;
}

export interface Client {
  /** Resolves when the answer begins, which for a silent program is up to 15 s after its start. */
  exec(workspaceId: string, body: ExecBody, options?: ExecOptions): Promise<ExecStream>;
  /** The whole run as one document. A run without an end of its own (timeout, lost link) is a ProblemError. */
  execJson(workspaceId: string, body: ExecBody, options?: ExecOptions): Promise<ExecDocument>;
  /** Resolves when the exec has ended. */
  cancel(workspaceId: string, execId: string, options?: CallOptions): Promise<void>;
  /** What runs now in a workspace. */
  execs(workspaceId: string, options?: CallOptions): Promise<Page<RunningExecView>>;
  workspaces: List<ListQuery, WorkspaceView> & {
    get(id: string, options?: CallOptions): Promise<WorkspaceView>;
    put(id: string, body: WorkspaceBody, options?: CallOptions): Promise<WorkspaceView>;
    patch(id: string, body: WorkspaceBody, options?: CallOptions): Promise<WorkspaceView>;
    delete(id: string, options?: CallOptions): Promise<void>;
    hostKeys(id: string, options?: CallOptions): Promise<HostKeysView>;
    /** One line per key, as in /etc/ssh/ssh_host_*_key.pub; replaces what is pinned. */
    setHostKeys(id: string, keys: readonly string[], options?: CallOptions): Promise<HostKeysView>;
  };
  /** Walks every step of the way to the host; resolves also when one of them fails. */
  diagnose(workspaceId: string, options?: CallOptions): Promise<DiagnosisView>;
  /** The serial console log. */
  console(workspaceId: string, options?: CallOptions): Promise<ConsoleView>;
  /** Collects evidence on the host and keeps it. */
  rescue(workspaceId: string, options?: CallOptions): Promise<RescueView>;
  /** The latest evidence that was kept. */
  lastRescue(workspaceId: string, options?: CallOptions): Promise<RescueView>;
  tokens: List<ListQuery, TokenView> & {
    create(body: TokenBody, options?: CallOptions): Promise<TokenView & { token: string }>;
    revoke(id: string, options?: CallOptions): Promise<void>;
  };
  orgs: List<ListQuery, OrgView> & {
    get(id: string, options?: CallOptions): Promise<OrgView>;
    put(id: string, body: { name: string }, options?: CallOptions): Promise<OrgView>;
    freeze(id: string, options?: CallOptions): Promise<OrgView>;
    unfreeze(id: string, options?: CallOptions): Promise<OrgView>;
    /** Who is frozen in the org. */
    people(id: string): List<ListQuery, PersonView>;
    freezePerson(id: string, sub: string, options?: CallOptions): Promise<PersonView>;
    unfreezePerson(id: string, sub: string, options?: CallOptions): Promise<PersonView>;
  };
  /** Of one workspace, or of the whole org with null. */
  activity(workspaceId: string | null): List<ActivityQuery, ActivityView>;
  /** Sends no token. */
  healthz(options?: CallOptions): Promise<unknown>;
  close(): void;
}

/** Throws `invalid_request` for an address or token that cannot be used; dials nothing. */
export function createClient(options: ClientOptions): Client {
  const { send, close } = createTransport(parseGateway(options));

  async function ask<Answer>(method: string, path: string, call: Partial<Call> = {}): Promise<Answer> {
    const silenceMs = call.silenceMs ?? PLAIN_SILENCE_MS;
    const response = await send({ accept: 'application/json', ...call, method, path, silenceMs });
    return (await readDocument(response, silenceMs)) as Answer;
  }

  function listOf<Query extends ListQuery, Item>(path: string): List<Query, Item> {
    const list = (query?: Query, call?: CallOptions) => ask<Page<Item>>('GET', `${path}${queryString(query)}`, call);
    return {
      list,
      async *all(query, call) {
        let after = query?.after;
        do {
          const page = await list({ ...query, after } as Query, call);
          yield* page.items;
          after = page.next ?? undefined;
        } while (after !== undefined);
      },
    };
  }

  return {
    async exec(workspaceId, body, how = {}) {
      const silenceMs = execSilenceMs(body);
      const response = await send({
        ...execCall(workspaceId, body, how),
        accept: 'application/x-ndjson',
        silenceMs,
      });
      const isStream = headerOf(response, 'content-type')?.startsWith('application/x-ndjson') === true;
      if (response.statusCode !== 200 || !isStream) throw await readProblem(response, PLAIN_SILENCE_MS);
      const execId = headerOf(response, 'x-exec-id');
      return {
        execId,
        requestId: headerOf(response, 'x-request-id'),
        status: response.statusCode,
        frames: readFrames(response, { execId, signal: how.signal }),
      };
    },
    async execJson(workspaceId, body, how = {}) {
      const { method, path, ...rest } = execCall(workspaceId, body, how);
      return await ask(method, path, { ...rest, silenceMs: execSilenceMs(body) });
    },
    async cancel(workspaceId, execId, how) {
      await ask('DELETE', `/workspaces/${segment(workspaceId)}/execs/${segment(execId)}`, how);
    },
    execs: async (workspaceId, how) => ask('GET', `/workspaces/${segment(workspaceId)}/execs`, how),
    workspaces: {
      ...listOf('/workspaces'),
      get: async (id, how) => ask('GET', `/workspaces/${segment(id)}`, how),
      put: async (id, body, how) => ask('PUT', `/workspaces/${segment(id)}`, { ...how, body }),
      patch: async (id, body, how) => ask('PATCH', `/workspaces/${segment(id)}`, { ...how, body }),
      delete: async (id, how) => ask('DELETE', `/workspaces/${segment(id)}`, how),
      hostKeys: async (id, how) => ask('GET', `/workspaces/${segment(id)}/host-keys`, how),
      setHostKeys: async (id, keys, how) =>
        ask('PUT', `/workspaces/${segment(id)}/host-keys`, { ...how, body: { keys } }),
    },
    diagnose: async (id, how) =>
      ask('GET', `/workspaces/${segment(id)}/diagnose`, { ...how, silenceMs: DIAGNOSE_SILENCE_MS }),
    console: async (id, how) => ask('GET', `/workspaces/${segment(id)}/console`, how),
    rescue: async (id, how) =>
      ask('POST', `/workspaces/${segment(id)}/rescue`, { ...how, silenceMs: RESCUE_SILENCE_MS }),
    lastRescue: async (id, how) => ask('GET', `/workspaces/${segment(id)}/rescue`, how),
    tokens: {
      ...listOf('/tokens'),
      create: async (body, how) => ask('POST', '/tokens', { ...how, body }),
      revoke: async (id, how) => ask('DELETE', `/tokens/${segment(id)}`, how),
    },
    orgs: {
      ...listOf('/orgs'),
      get: async (id, how) => ask('GET', `/orgs/${segment(id)}`, how),
      put: async (id, body, how) => ask('PUT', `/orgs/${segment(id)}`, { ...how, body }),
      freeze: async (id, how) => ask('POST', `/orgs/${segment(id)}/freeze`, how),
      unfreeze: async (id, how) => ask('POST', `/orgs/${segment(id)}/unfreeze`, how),
      people: (id) => listOf(`/orgs/${segment(id)}/people`),
      freezePerson: async (id, sub, how) => ask('POST', `/orgs/${segment(id)}/people/${segment(sub)}/freeze`, how),
      unfreezePerson: async (id, sub, how) => ask('POST', `/orgs/${segment(id)}/people/${segment(sub)}/unfreeze`, how),
    },
    activity: (workspaceId) =>
      listOf(workspaceId === null ? '/activity' : `/workspaces/${segment(workspaceId)}/activity`),
    healthz: async (how) => ask('GET', '/healthz', { ...how, anonymous: true }),
    close,
  };
}

function execCall(workspaceId: string, body: ExecBody, how: ExecOptions) {
  const { stdin, idempotencyKey, signal } = how;
  return {
    method: 'POST',
    path: `/workspaces/${segment(workspaceId)}/exec`,
    body: stdin === undefined ? body : { ...body, stdin: stdinField(stdin) },
    headers: idempotencyKey === undefined ? undefined : { 'idempotency-key': idempotencyKey },
    signal,
  };
}

function stdinField(bytes: Buffer): ExecBody['stdin'] {
  return isUtf8(bytes) ? bytes.toString('utf8') : { base64: bytes.toString('base64') };
}

function execSilenceMs(body: ExecBody): number {
  const runS = body.timeout_s !== undefined && body.timeout_s > 0 ? body.timeout_s : TIMEOUT_DEFAULT_S;
  return (runS + (body.connect_timeout_s ?? CONNECT_TIMEOUT_DEFAULT_S) + EXEC_MARGIN_S) * 1000;
}

/** `.` and `..` would be taken for steps of the path by what lies between us and the gateway. */
function segment(id: string): string {
  if (/^\.{0,2}$/.test(id)) throw new SallyportError('invalid_request', `"${id}" is not an id`);
  return encodeURIComponent(id);
}

function queryString(query: object = {}): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== undefined) parameters.set(name, String(value));
  return parameters.size === 0 ? '' : `?${parameters}`;
}
