/**
 * Issuing a token: the untrusted request becomes a plan that is never wider than the credential that asks.
 *
 * Not wider in org, workspace, scopes, command rules and life. Signs nothing and stores nothing.
 */
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { SallyportError } from '../errors.ts';
import { TOKEN_LIFE_DEFAULT_S, TOKEN_LIFE_MAX_S } from '../limits.ts';
import { ID_PATTERN } from '../workspace.ts';
import { type Caller, type CommandRule, SCOPES, type Scope, type TokenRecord } from './access.ts';
import { commandRulesSchema, isNarrower, SCOPES_WITH_RULES } from './command-rule.ts';
import { showValue } from './mask.ts';
import type { TokenClaims } from './token.ts';

export interface TokenRequest {
  kind: 'org' | 'workspace';
  /** Admin only, who has no org of its own. */
  orgId?: string;
  workspaceId?: string;
  name: string;
  scopes: Scope[];
  allow?: CommandRule[];
  /** Absent: TOKEN_LIFE_DEFAULT_S, or what is left of the caller's own life. */
  expiresInS?: number;
}

/** Body of `POST /tokens`. */
export const tokenRequestSchema = z.strictObject({
  kind: z.enum(['org', 'workspace']),
  org_id: z.string().regex(ID_PATTERN).optional(),
  workspace_id: z.string().regex(ID_PATTERN).optional(),
  name: z
    .string()
    .regex(/^[^\p{C}]{1,100}$/u, { error: 'expected 1 to 100 characters, none of them a control character' }),
  scopes: z.array(z.enum(SCOPES)).min(1).max(SCOPES.length),
  allow: commandRulesSchema.optional(),
  expires_in_s: z.int().min(1).max(TOKEN_LIFE_MAX_S).optional(),
});

/** Throws `invalid_request` that names the field. */
export function parseTokenRequest(raw: unknown): TokenRequest {
  const parsed = tokenRequestSchema.safeParse(raw, { reportInput: true });
  if (!parsed.success) throw refuseShape(parsed.error);
  const { kind, org_id: orgId, workspace_id: workspaceId, name, scopes, allow, expires_in_s: expiresInS } = parsed.data;
  if (kind === 'workspace' && workspaceId === undefined) {
    throw invalid('workspace_id: expected the id of a workspace for a token of kind "workspace", got nothing');
  }
  if (kind === 'org' && workspaceId !== undefined) {
    throw invalid(`workspace_id: expected nothing for a token of kind "org", got ${showValue(workspaceId)}`);
  }
  const unbounded = allow === undefined ? undefined : scopes.find((scope) => !SCOPES_WITH_RULES.has(scope));
  if (unbounded !== undefined) {
    const possible = [...SCOPES_WITH_RULES].join(', ');
    throw invalid(`scopes: expected only ${possible} beside "allow", got "${unbounded}", which no command rule bounds`);
  }
  return {
    kind,
    ...(orgId === undefined ? {} : { orgId }),
    ...(workspaceId === undefined ? {} : { workspaceId }),
    name,
    scopes: [...new Set(scopes)],
    ...(allow === undefined ? {} : { allow }),
    ...(expiresInS === undefined ? {} : { expiresInS }),
  };
}

function refuseShape(error: z.ZodError): SallyportError {
  const [issue] = error.issues;
  if (issue?.code === 'unrecognized_keys') return invalid(`unknown field ${showValue(issue.keys[0])}`);
  return invalid(`${issue?.path.join('.') || 'body'}: ${issue?.message}, got ${showValue(issue?.input)}`);
}

function invalid(message: string): SallyportError {
  return new SallyportError('invalid_request', message);
}

function wider(message: string): SallyportError {
  return new SallyportError('scope_missing', message);
}

/**
 * What is to be signed and stored; signs and stores nothing. Throws `scope_missing` when the token would be wider than
 * the caller, `invalid_request` when an admin names no org. That the workspace exists in that org is for the caller of
 * this function to look up, and so is the org of a workspace that an admin names.
 */
export function planToken(caller: Caller, request: TokenRequest, now: Date): TokenRecord & { claims: TokenClaims } {
  const orgId = planOrg(caller, request);
  const workspaceId = request.workspaceId ?? null;
  requireNarrower(caller, request);
  const issuedAt = Math.floor(now.getTime() / 1000);
  const expiresAt = issuedAt + planLife(caller, request, issuedAt);
  const jti = randomUUID();
  const allow = request.allow ?? null;
  const { kind, name, scopes } = request;
  // A token made by a person stays that person's: freezing the `sub` withdraws it too. The admin token is nobody.
  const sub = caller.kind === 'admin' ? `token:${jti}` : caller.sub;
  return {
    id: jti,
    orgId,
    workspaceId,
    kind,
    name,
    scopes,
    allow,
    createdAt: now,
    expiresAt: new Date(expiresAt * 1000),
    revokedAt: null,
    createdBy: caller.actor,
    claims: { jti, sub, orgId, workspaceId, kind, scopes, allow, name, issuedAt, expiresAt },
  };
}

function planOrg(caller: Caller, request: TokenRequest): string {
  if (caller.orgId === null) {
    if (request.orgId !== undefined) return request.orgId;
    throw invalid('org_id: expected the org of the token, because the admin token belongs to none, got nothing');
  }
  if (request.orgId === undefined || request.orgId === caller.orgId) return caller.orgId;
  throw wider('org_id: this credential issues tokens only in its own org');
}

function requireNarrower(caller: Caller, request: TokenRequest): void {
  if (caller.workspaceId !== null && request.workspaceId !== caller.workspaceId) {
    throw wider('workspace_id: a workspace token issues tokens only for its own workspace');
  }
  const missing = request.scopes.find((scope) => !caller.scopes.has(scope));
  if (missing !== undefined) throw wider(`scopes: this credential lacks the scope "${missing}" and cannot pass it on`);
  if (!isNarrower(caller.allow, request.allow ?? null)) {
    throw wider('allow: expected rules that allow nothing beyond the command rules of this credential');
  }
}

/** Seconds. */
function planLife(caller: Caller, request: TokenRequest, nowS: number): number {
  const left = caller.expiresAt === null ? TOKEN_LIFE_MAX_S : Math.min(caller.expiresAt - nowS, TOKEN_LIFE_MAX_S);
  const life = request.expiresInS ?? Math.min(TOKEN_LIFE_DEFAULT_S, left);
  if (life >= 1 && life <= left) return life;
  throw wider(`expires_in_s: expected at most ${left}, what is left of this credential's own life, got ${life}`);
}
