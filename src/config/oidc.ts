/** SALLYPORT_OIDC_*: whose sessions of people are taken, and what a role gives them. */
import { z } from 'zod';
import { SCOPES, type Scope } from '../access/access.ts';
import { isTrustworthyUrl } from '../access/issuer.ts';
import { showValue } from '../access/mask.ts';
import type { OidcSettings } from '../access/oidc.ts';
import { type Kind, matching, ORG_ID } from './kinds.ts';
import type { Settings } from './settings.ts';

const ISSUER_URL: Kind<string> = {
  expected: 'the https:// URL of an OIDC issuer (http:// on loopback), without query and fragment',
  parse(text) {
    const url = URL.canParse(text) ? new URL(text) : null;
    if (url === null || !isTrustworthyUrl(url) || /[?#@\s]/.test(text)) return null;
    return text;
  },
};
const AUDIENCE = matching('the audience of the tokens of people, at most 255 characters', /^[^\p{C}]{1,255}$/u);
const CLAIM = matching(
  'the name of a claim, or a JSON Pointer to one, which begins with a slash and escapes "~" and "/" in names as ~0 and ~1',
  /^(?:[^/\p{C}][^\p{C}]{0,199}|\/(?:[^~\p{C}]|~[01]){1,199})$/u,
);
const JSON_OBJECT: Kind<object> = {
  expected: 'a JSON object',
  parse(text) {
    try {
      const value: unknown = JSON.parse(text);
      return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : null;
    } catch {
      return null; // the caller says what was expected
    }
  },
};

const OIDC_ISSUER = 'SALLYPORT_OIDC_ISSUER';

export function readOidc(settings: Settings): OidcSettings | null {
  const issuer = settings.read(OIDC_ISSUER, ISSUER_URL);
  const audience = settings.read('SALLYPORT_OIDC_AUDIENCE', AUDIENCE);
  const roles = readRoles(settings);
  const rolesClaim = settings.read('SALLYPORT_OIDC_ROLES_CLAIM', CLAIM) ?? 'roles';
  const id = settings.read('SALLYPORT_OIDC_ORG', ORG_ID);
  const claim = settings.read('SALLYPORT_OIDC_ORG_CLAIM', CLAIM);
  if (id !== null && claim !== null) {
    settings.problems.push('SALLYPORT_OIDC_ORG and SALLYPORT_OIDC_ORG_CLAIM are two ways to one org: set one of them.');
  }
  const needed = ['SALLYPORT_OIDC_AUDIENCE', 'SALLYPORT_OIDC_ROLES'];
  if (!settings.isSet(OIDC_ISSUER)) {
    const all = [...needed, 'SALLYPORT_OIDC_ROLES_CLAIM', 'SALLYPORT_OIDC_ORG', 'SALLYPORT_OIDC_ORG_CLAIM'];
    for (const name of all.filter(settings.isSet))
      settings.problems.push(`${name} is of use only together with ${OIDC_ISSUER}.`);
    return null;
  }
  for (const name of needed.filter((one) => !settings.isSet(one))) {
    settings.problems.push(`${name} is missing: ${OIDC_ISSUER} needs it, and there is no default.`);
  }
  if (issuer === null || audience === null || roles === null) return null;
  return { issuer, audience, org: id === null ? { claim: claim ?? 'org' } : { id }, rolesClaim, roles };
}

const rolesSchema = z.record(z.string().min(1), z.array(z.enum(SCOPES)).min(1));

function readRoles(settings: Settings): ReadonlyMap<string, readonly Scope[]> | null {
  const name = 'SALLYPORT_OIDC_ROLES';
  const raw = settings.read(name, JSON_OBJECT);
  if (raw === null) return null;
  const parsed = rolesSchema.safeParse(raw, { reportInput: true });
  if (parsed.success && Object.keys(parsed.data).length > 0) return new Map(Object.entries(parsed.data));
  const [issue] = parsed.error?.issues ?? [];
  const where = issue === undefined ? 'got no role' : `${issue.path.join('.')} is ${showValue(issue.input)}`;
  settings.problems.push(`${name} must give each role a list of scopes out of ${SCOPES.join(', ')}; ${where}.`);
  return null;
}
