/**
 * Which org a request acts in, what its credential may do, and which workspace it may look at.
 *
 * All three are asked before anything is looked up, so an answer says nothing about what exists.
 */
import { SallyportError } from '../errors.ts';
import { ID_PATTERN } from '../workspace.ts';
import type { Caller, Scope } from './access.ts';
import { SCOPES_WITH_RULES } from './command-rule.ts';

/** The one refusal for a workspace or org that is foreign, unknown or deleted: nobody can tell which. */
export function notFound(): SallyportError {
  return new SallyportError('not_found', 'not found, or not visible to this credential');
}

/**
 * The org that the request acts in; null only for the admin token without a header and without a process org: then it
 * acts in the org of the workspace it names. Throws `not_found` when header or process belong to another org.
 */
export function guardOrg(
  caller: Caller,
  asked: { headerOrgId: string | undefined; processOrgId: string | null },
): string | null {
  const { headerOrgId, processOrgId } = asked;
  if (headerOrgId !== undefined && !ID_PATTERN.test(headerOrgId)) throw notFound();
  if (caller.kind === 'admin') return guardAdmin(headerOrgId ?? null, processOrgId);
  if (caller.orgId === null) throw new Error(`bug: a ${caller.kind} credential without an org`);
  if (headerOrgId !== undefined && headerOrgId !== caller.orgId) throw notFound();
  if (processOrgId !== null && processOrgId !== caller.orgId) throw notFound();
  return caller.orgId;
}

/** The admin token belongs to no org: a header chooses one, within the one that this process serves. */
function guardAdmin(headerOrgId: string | null, processOrgId: string | null): string | null {
  if (headerOrgId !== null && processOrgId !== null && headerOrgId !== processOrgId) throw notFound();
  return headerOrgId ?? processOrgId;
}

/** Throws `scope_missing`. A credential with command rules has only the scopes that rules can bound, whatever it says. */
export function mayScope(caller: Caller, scope: Scope): void {
  if (!caller.scopes.has(scope)) {
    throw new SallyportError('scope_missing', `this credential lacks the scope "${scope}"`);
  }
  if (caller.allow !== null && !SCOPES_WITH_RULES.has(scope)) {
    throw new SallyportError('scope_missing', `a credential with command rules cannot use the scope "${scope}"`);
  }
}

/** Workspace tokens see only their own workspace; for everybody else the org decides. */
export function mayLookAt(caller: Caller, workspaceId: string): boolean {
  return caller.workspaceId === null || caller.workspaceId === workspaceId;
}
