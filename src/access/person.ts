/**
 * Who a person is, by the claims of an issuer: `sub`, org, scopes. Which claims say so is configuration.
 *
 * Nobody gets a scope that the operator has not written down: a role that the map does not know gives nothing, and there
 * is no default.
 */
import { SUB_MAX_CHARS } from '../limits.ts';
import { ID_PATTERN } from '../workspace.ts';
import type { Scope } from './access.ts';

/**
 * Visible ASCII and blanks within: all that OpenID Connect allows but control characters. It stands in audit rows, log
 * lines and paths as it is, so no two people can look like one. A step of a path cannot be told from `.` and `..`.
 */
const SUB_PATTERN = /^(?!\.{1,2}$)[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/;

export function isSub(text: unknown): text is string {
  return typeof text === 'string' && text.length <= SUB_MAX_CHARS && SUB_PATTERN.test(text);
}

export interface ClaimRules {
  /** Every person belongs to one org, or a claim says to which. */
  org: { id: string } | { claim: string };
  rolesClaim: string;
  /** What the issuer says → what it gives here. */
  roles: ReadonlyMap<string, readonly Scope[]>;
}

/** Null: the claims place nobody in an org. */
export function orgOf(claims: object, { org }: ClaimRules): string | null {
  if ('id' in org) return org.id;
  const value = claimOf(claims, org.claim);
  return typeof value === 'string' && ID_PATTERN.test(value) ? value : null;
}

export function scopesOf(claims: object, { rolesClaim, roles }: ClaimRules): Set<Scope> {
  const value = claimOf(claims, rolesClaim);
  const said = typeof value === 'string' ? rolesIn(rolesClaim, value) : Array.isArray(value) ? value : [];
  return new Set(said.flatMap((role) => roles.get(role) ?? []));
}

/** RFC 8693, section 4.2: `scope` is words separated by blanks, and some issuers call it `scp`. Any other text is one role. */
function rolesIn(claim: string, text: string): string[] {
  return claim === 'scope' || claim === 'scp' ? text.split(' ') : [text];
}

/**
 * The name of a claim as it stands (`groups`, `https://acme.example/roles`), or, when it begins with `/`, a JSON Pointer
 * (RFC 6901) into one (`/realm_access/roles`). Names with dots, colons and slashes are common, so none of these divides.
 */
function claimOf(claims: object, claim: string): unknown {
  const path = claim.startsWith('/') ? claim.slice(1).split('/').map(unescapePointer) : [claim];
  let value: unknown = claims;
  for (const name of path) {
    if (typeof value !== 'object' || value === null || Array.isArray(value) || !Object.hasOwn(value, name)) return;
    value = (value as Record<string, unknown>)[name];
  }
  return value;
}

function unescapePointer(name: string): string {
  return name.replaceAll('~1', '/').replaceAll('~0', '~');
}
