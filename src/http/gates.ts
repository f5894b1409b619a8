/**
 * The gates: each asks access/ or the directory one question, writes the answer into the call, and lets the request on.
 *
 * A gate that says no throws; refusal.ts turns that into the answer and the audit row. The order stands in router.ts.
 */
import type { Request, RequestHandler, Response } from 'express';
import { type Caller, personOf, type Scope } from '../access/access.ts';
import { requireAllowed } from '../access/command-rule.ts';
import { guardOrg, mayLookAt, mayScope, notFound } from '../access/tenant.ts';
import { requireInstance, requireTier } from '../access/tier.ts';
import { unauthenticated } from '../access/token.ts';
import { asSallyportError, SallyportError } from '../errors.ts';
import { parseCommand } from '../exec/command.ts';
import type { Circle } from '../exec/room.ts';
import { watched } from '../span.ts';
import { ID_PATTERN } from '../workspace.ts';
import { readJson } from './body.ts';
import { callOf, execCall, knownCall, workspaceCall } from './call.ts';
import type { HttpDeps } from './deps.ts';
import { createGuessLimit, createRateLimit, showQuota } from './rate-limit.ts';
import { readIdempotencyKey } from './replay.ts';
import { withFacts } from './route-facts.ts';

export interface Gates {
  /** Signature of the credential, its rate, and org guard, before any lookup. */
  caller(activity: string): RequestHandler;
  /** The token still stands, neither its org nor its person is frozen. For routes that name no workspace; a workspace token brings its own. */
  standing: RequestHandler;
  /** The same query also finds the workspace `:id`; one that is foreign, unknown or deleted is 404. */
  workspace: RequestHandler;
  /** As `workspace`, but the admin token may name one that does not exist yet. */
  workspaceOrNew: RequestHandler;
  /** Nothing runs in a frozen org, whoever asks. */
  thawed: RequestHandler;
  /** The admin token; to everybody else the route does not exist. */
  admin: RequestHandler;
  scope(scope: Scope): RequestHandler;
  body: RequestHandler;
  command: RequestHandler;
  tier(what: string): RequestHandler;
  instance: RequestHandler;
  rules: RequestHandler;
  /** Room for one more exec, or 429. */
  room: RequestHandler;
}

export function createGates(deps: HttpDeps): Gates {
  const { directory, limits, room, verifier } = deps;
  const guesses = createGuessLimit();
  const rate = createRateLimit(deps.rates);

  /** One query, whatever the answer will be: no branch here may do other work than another. */
  async function lookUp(res: Response, rawWorkspaceId: string | null): Promise<void> {
    const call = knownCall(res);
    const workspaceId = rawWorkspaceId !== null && ID_PATTERN.test(rawWorkspaceId) ? rawWorkspaceId : null;
    call.askedWorkspaceId = workspaceId;
    const { caller, orgId } = call;
    const asked = { orgId, jti: caller.jti, sub: personOf(caller), workspaceId };
    const standing = await watched(call.span, 'rights', () => directory.standing(asked));
    if (caller.jti !== null && standing.token !== 'active') throw unauthenticated(`the token is ${standing.token}`);
    const { workspace, org } = standing;
    // An issuer may name an org that was never made here; a token of ours cannot.
    if (caller.kind === 'session' && org === null) throw notFound();
    if (standing.personFrozen) throw frozenPerson();
    call.frozen = org?.frozen ?? false;
    if (workspace !== null && mayLookAt(caller, workspace.id)) call.workspace = workspace;
  }

  /** The admin token passes, so that it can look at a frozen org and change it. */
  function refuseFrozen(res: Response): void {
    const { caller, frozen } = knownCall(res);
    if (frozen && caller.kind !== 'admin') throw frozenOrg();
  }

  async function verify(req: Request, res: Response): Promise<Caller> {
    const [bearer, address] = [bearerOf(req), req.ip ?? ''];
    guesses.require(address, res, () => verifier.remembers(bearer));
    try {
      return await verifier.verify(bearer);
    } catch (error) {
      // An issuer that cannot be asked has refused nobody.
      if (asSallyportError(error).code === 'unauthenticated') guesses.note(address);
      throw error;
    }
  }

  return {
    caller: (activity) =>
      withFacts(
        { codes: ['unauthenticated', 'rate_limited', 'audit_unavailable', 'not_found', 'issuer_unavailable'] },
        async (req, res, next) => {
          const call = callOf(res);
          call.activity = activity;
          call.caller = await verify(req, res);
          await rate.take(call.caller, res);
          call.orgId = guardOrg(call.caller, {
            headerOrgId: req.get('x-org-id'),
            processOrgId: deps.processOrgId,
          });
          next();
        },
      ),

    standing: withFacts({ codes: ['exec_revoked', 'audit_unavailable'] }, async (_req, res, next) => {
      await lookUp(res, knownCall(res).caller.workspaceId);
      refuseFrozen(res);
      next();
    }),

    workspace: withFacts({ codes: ['not_found', 'exec_revoked', 'audit_unavailable'] }, async (req, res, next) => {
      await lookUp(res, String(req.params.id));
      const call = callOf(res);
      if (call.workspace === null) throw notFound();
      refuseFrozen(res);
      next();
    }),

    workspaceOrNew: withFacts({ codes: ['not_found', 'exec_revoked', 'audit_unavailable'] }, async (req, res, next) => {
      await lookUp(res, String(req.params.id));
      const call = knownCall(res);
      if (call.workspace === null && call.caller.kind !== 'admin') throw notFound();
      refuseFrozen(res);
      next();
    }),

    thawed: withFacts({ codes: ['exec_revoked'] }, (_req, res, next) => {
      if (callOf(res).frozen) throw frozenOrg();
      next();
    }),

    admin: withFacts({ codes: ['not_found', 'audit_unavailable'], adminOnly: true }, (_req, res, next) => {
      if (knownCall(res).caller.kind !== 'admin') throw notFound();
      next();
    }),

    scope: (scope) =>
      withFacts({ codes: ['scope_missing'], scope }, (_req, res, next) => {
        mayScope(knownCall(res).caller, scope);
        next();
      }),

    body: withFacts({ codes: ['invalid_request', 'too_large', 'unsupported_media_type'] }, async (req, res, next) => {
      callOf(res).body = await readJson(req);
      next();
    }),

    command: withFacts({ codes: ['invalid_request', 'cmd_not_argv'] }, (req, res, next) => {
      const call = callOf(res);
      call.command = parseCommand(call.body, limits);
      call.idempotencyKey = readIdempotencyKey(req);
      next();
    }),

    tier: (what) =>
      withFacts({ codes: ['exec_tier_forbidden'] }, (_req, res, next) => {
        requireTier(workspaceCall(res).workspace, what);
        next();
      }),

    instance: withFacts({ codes: ['no_instance'] }, (_req, res, next) => {
      requireInstance(workspaceCall(res).workspace);
      next();
    }),

    rules: withFacts({ codes: ['exec_command_forbidden'] }, (_req, res, next) => {
      const { caller, command } = execCall(res);
      callOf(res).rule = requireAllowed(caller, command);
      next();
    }),

    room: withFacts(
      { codes: ['too_many_execs', 'capacity', 'draining', 'audit_unavailable'] },
      async (_req, res, next) => {
        const { caller, workspace } = workspaceCall(res);
        const runner = { orgId: workspace.orgId, workspaceId: workspace.id, jti: caller.jti, sub: personOf(caller) };
        refuseDraining(deps);
        let full = room.full(runner);
        const claimed = full === null ? null : room.claim(runner);
        if (claimed !== null) {
          await claimed;
          refuseDraining(deps);
          // Who has gone meanwhile would not be noticed any more.
          if (res.closed) return;
          full = room.full(runner);
        }
        requireRoom(res, full);
        requireCapacity(deps);
        next();
      },
    ),
  };
}

function refuseDraining({ draining }: HttpDeps): void {
  if (draining()) throw new SallyportError('draining', 'the gateway is stopping and starts nothing new');
}

function requireRoom(res: Response, full: Circle | null): void {
  if (full === null) return;
  const { policy, most } = full;
  showQuota(res, { policy, most, left: 0, resetS: 1 });
  throw new SallyportError('too_many_execs', `the ${policy} has no room: it may run ${most} execs at once`);
}

/** Of this process alone; last, so that a refusal names the limit that the caller can do most about. */
function requireCapacity({ running, limits }: HttpDeps): void {
  if (running.size < limits.maxExecsGateway) return;
  throw new SallyportError('capacity', `the gateway already runs ${limits.maxExecsGateway} execs, which is its limit`);
}

function bearerOf(req: Request): string {
  const match = /^Bearer +([A-Za-z0-9._~+/-]+=*) *$/i.exec(req.get('authorization') ?? '');
  if (match?.[1] === undefined) throw unauthenticated('no bearer token was sent');
  return match[1];
}

function frozenPerson(): SallyportError {
  return new SallyportError(
    'exec_revoked',
    'the person is frozen: their sessions and the tokens they have made may do nothing until they are unfrozen',
  );
}

function frozenOrg(): SallyportError {
  return new SallyportError('exec_revoked', 'the org is frozen: its credentials may do nothing until it is unfrozen');
}
