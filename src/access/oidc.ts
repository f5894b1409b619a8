/**
 * Sessions of people: a JWT of the configured OIDC issuer becomes a caller.
 *
 * Signature, issuer, audience, life and what the token is for are checked here; whether the person was frozen is the
 * Directory's answer, as for every caller. Ours are token.ts' matter.
 *
 * Decisions:
 * - Access tokens and ID tokens are both taken: the audience says whom a token is for, so that must be this gateway's own.
 *   What says in `typ` that it is something else (a logout or security event token, a proof) is refused.
 * - Asymmetric algorithms only: nobody who can verify can sign.
 * - A token that is bound to a key of its client (`cnf`) is refused: taken as a bearer token, the binding would be void.
 */
import { type JWTPayload, type JWTVerifyGetKey, jwtVerify } from 'jose';
import { SallyportError } from '../errors.ts';
import { SESSION_EARLY_MAX_S, SESSION_LIFE_MAX_S } from '../limits.ts';
import type { Caller } from './access.ts';
import { type ClaimRules, isSub, orgOf, scopesOf } from './person.ts';
import { unauthenticated } from './token.ts';

const ALGORITHMS = [
  ...['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'],
  ...['ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'],
];
/** RFC 9068 and RFC 7519, in lower case; a media type may be written without `application/`. */
const TYPES: readonly unknown[] = [undefined, 'jwt', 'at+jwt'];

export interface OidcSettings extends ClaimRules {
  /** As tokens name it, character for character. */
  issuer: string;
  audience: string;
}

export interface SessionVerifier {
  issuer: string;
  /** Rejects with `unauthenticated`, or `issuer_unavailable` when nobody can say. The end of its life is not looked at. */
  verify(jwt: string, nowMs: number): Promise<Caller & { expiresAt: number }>;
}

export function createSessionVerifier(settings: OidcSettings, keys: JWTVerifyGetKey): SessionVerifier {
  const { issuer, audience } = settings;

  async function readClaims(jwt: string, nowMs: number): Promise<JWTPayload> {
    try {
      const { payload, protectedHeader } = await jwtVerify(jwt, keys, {
        algorithms: ALGORITHMS,
        issuer,
        audience,
        requiredClaims: ['sub', 'exp', 'iat'],
        clockTolerance: SESSION_EARLY_MAX_S,
        currentDate: new Date(nowMs),
      });
      const type = protectedHeader.typ?.toLowerCase().replace(/^application\//, '');
      if (!TYPES.includes(type)) throw new Error(`typ is ${type}`);
      return payload;
    } catch (error) {
      if (error instanceof SallyportError) throw error;
      throw unauthenticated(error);
    }
  }

  return {
    issuer,
    async verify(jwt, nowMs) {
      const claims = await readClaims(jwt, nowMs);
      const { sub, iat = 0, exp = 0 } = claims;
      if (iat > nowMs / 1000 + SESSION_EARLY_MAX_S) throw unauthenticated('issued in the future');
      if (exp - iat > SESSION_LIFE_MAX_S) throw unauthenticated(`a life of more than ${SESSION_LIFE_MAX_S} s`);
      if (claims.cnf !== undefined) throw unauthenticated('bound to a key of its client');
      if (!isSub(sub)) throw unauthenticated('a sub that is not 1 to 255 visible ASCII characters');
      const orgId = orgOf(claims, settings);
      if (orgId === null) throw unauthenticated(`sub ${sub}: the claims name no org`);
      return {
        kind: 'session',
        orgId,
        workspaceId: null,
        jti: null,
        sub,
        scopes: scopesOf(claims, settings),
        allow: null,
        // Tokens that it issues have whole seconds, and may not outlive it.
        expiresAt: Math.floor(exp),
        actor: `session:${sub}`,
      };
    },
  };
}
