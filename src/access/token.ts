/**
 * Tokens: how they are signed and verified. What may be issued to whom stands in token-request.ts, sessions of people in
 * oidc.ts.
 *
 * A token is an EdDSA JWT of ours. Signature, issuer, audience, life and every claim are checked here, before anything is
 * looked up; whether its row still stands is the Directory's answer, asked on every request and never remembered here.
 *
 * Decision: one message for every refusal, so that nobody learns which part of a guess was right. The reason goes to the
 * log as `cause`. A verified token is remembered by its SHA-256 (measured: a verification 0.14 ms, of a session 0.23, a look 1.3 µs), its expiry is
 * checked on every use. A session is verified again after ISSUER_KEYS_FRESH_MS, so that the issuer can withdraw a key.
 */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  hash,
  type KeyObject,
  sign,
  timingSafeEqual,
  verify as verifySignature,
} from 'node:crypto';
import { calculateJwkThumbprint, decodeJwt, exportJWK, jwtVerify, SignJWT } from 'jose';
import { z } from 'zod';
import { SallyportError } from '../errors.ts';
import { ISSUER_KEYS_FRESH_MS, TOKEN_LIFE_MAX_S } from '../limits.ts';
import { ID_PATTERN } from '../workspace.ts';
import { type Caller, type CommandRule, SCOPES, type Scope } from './access.ts';
import { commandRulesSchema } from './command-rule.ts';
import type { SessionVerifier } from './oidc.ts';

const ISSUER = 'sallyport';
const AUDIENCE = 'sallyport';
const ALGORITHM = 'EdDSA';
/** Clocks of replicas differ: a token may be used where it is not yet that late. Expiry has no such tolerance. */
const ISSUED_AHEAD_MAX_S = 60;
/** Header, body and an Ed25519 signature in base64url. jose also takes blanks around it; one token has one spelling. */
const COMPACT_JWT = /^[\w-]+\.[\w-]+\.[\w-]{86}$/;
/** About 1 KiB each. */
const REMEMBERED_MAX = 10_000;

export interface SigningKey {
  privateKey: KeyObject;
  publicKey: KeyObject;
  /** RFC 7638 thumbprint of the public key. */
  kid: string;
}

export interface TokenClaims {
  jti: string;
  sub: string;
  orgId: string;
  workspaceId: string | null;
  kind: 'org' | 'workspace';
  scopes: Scope[];
  allow: CommandRule[] | null;
  /** Stands in the row, not in the token. */
  name: string;
  /** Seconds since 1970, as `expiresAt`. */
  issuedAt: number;
  expiresAt: number;
}

/** Whether what the key signs can be verified with it. About 0.2 ms. */
export function canSign({ privateKey, publicKey }: SigningKey): boolean {
  const text = Buffer.from('ready?');
  return verifySignature(null, text, publicKey, sign(null, text, privateKey));
}

/** A new Ed25519 key as PKCS#8 PEM, to be stored. */
export async function generateSigningKey(): Promise<string> {
  return generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
}

/** Throws an Error with one sentence that says nothing of the key. */
export function parseSigningKey(pem: string): KeyObject {
  const key = privateKeyOrNull(pem);
  if (key?.asymmetricKeyType === 'ed25519') return key;
  throw new Error('expected an unencrypted Ed25519 private key as PKCS#8 PEM');
}

function privateKeyOrNull(pem: string): KeyObject | null {
  try {
    return createPrivateKey(pem);
  } catch {
    return null; // the reason is OpenSSL's and may quote its input
  }
}

/** Rejects as `parseSigningKey` throws. */
export async function loadSigningKey(pem: string): Promise<SigningKey> {
  const privateKey = parseSigningKey(pem);
  const publicKey = createPublicKey(privateKey);
  return { privateKey, publicKey, kid: await calculateJwkThumbprint(await exportJWK(publicKey)) };
}

const seconds = z.int().nonnegative();
const id = z.string().regex(ID_PATTERN);
const claimsShape = {
  iss: z.literal(ISSUER),
  aud: z.literal(AUDIENCE),
  sub: z.string().min(1),
  org: id,
  scopes: z.array(z.enum(SCOPES)).min(1),
  allow: commandRulesSchema.optional(),
  jti: z.string().regex(/^[\w-]{8,64}$/),
  iat: seconds,
  exp: seconds,
};
/** Strict: a claim that this version does not know may be one that narrows. */
const claimsSchema = z
  .discriminatedUnion('kind', [
    z.strictObject({ ...claimsShape, kind: z.literal('org') }),
    z.strictObject({ ...claimsShape, kind: z.literal('workspace'), ws: id }),
  ])
  .refine(({ iat, exp }) => exp > iat && exp - iat <= TOKEN_LIFE_MAX_S, { error: 'a life outside the limits' });
type RawClaims = z.output<typeof claimsSchema>;

/** Rejects with a ZodError when the claims are such that `verify` would refuse the token. */
export async function signToken(key: SigningKey, claims: TokenClaims): Promise<string> {
  const payload = claimsSchema.parse({
    iss: ISSUER,
    aud: AUDIENCE,
    sub: claims.sub,
    org: claims.orgId,
    kind: claims.kind,
    ...(claims.workspaceId === null ? {} : { ws: claims.workspaceId }),
    scopes: claims.scopes,
    ...(claims.allow === null ? {} : { allow: claims.allow }),
    jti: claims.jti,
    iat: claims.issuedAt,
    exp: claims.expiresAt,
  });
  return new SignJWT(payload).setProtectedHeader({ alg: ALGORITHM, typ: 'JWT', kid: key.kid }).sign(key.privateKey);
}

/** The one answer to a credential that is missing, malformed, forged, expired, revoked or unknown. `cause` is for the log. */
export function unauthenticated(cause?: unknown): SallyportError {
  return new SallyportError(
    'unauthenticated',
    'a valid credential is required: "Authorization: Bearer <token>"',
    cause === undefined ? {} : { cause },
  );
}

export interface Verifier {
  /** Rejects with `unauthenticated`, whatever the reason; with `issuer_unavailable` when nobody can say. Callers are shared between requests: read them only. */
  verify(bearer: string): Promise<Caller>;
  /** Whether it was verified before; cheap, and says nothing of its life. The admin token is always remembered. */
  remembers(bearer: string): boolean;
}

interface Remembered {
  caller: Caller & { expiresAt: number };
  againAtMs: number;
}

/** `sessions` null: there are none. `now` in milliseconds since 1970. */
export function createVerifier(options: {
  key: SigningKey;
  adminToken: string | null;
  sessions?: SessionVerifier | null;
  now?: () => number;
}): Verifier {
  const { key, adminToken, sessions = null, now = Date.now } = options;
  const adminDigest = adminToken === null ? null : sha256(adminToken);
  const remembered = new Map<string, Remembered>();

  async function verify(bearer: string): Promise<Caller> {
    if (bearer === '') throw unauthenticated();
    const digest = sha256(bearer);
    // Digests have one length and say nothing of the token: comparing them leaks neither its length nor a prefix.
    if (adminDigest !== null && timingSafeEqual(digest, adminDigest)) return ADMIN;
    const memoryKey = digest.toString('base64');
    const known = remembered.get(memoryKey);
    const entry = known !== undefined && now() < known.againAtMs ? known : await verifyAny(bearer);
    if (entry.caller.expiresAt * 1000 <= now()) {
      remembered.delete(memoryKey);
      throw unauthenticated('expired');
    }
    if (entry !== known) remember(memoryKey, entry);
    return entry.caller;
  }

  /** What the token says of its issuer only chooses who verifies it, and is then verified too. */
  async function verifyAny(bearer: string): Promise<Remembered> {
    if (sessions === null || statedIssuer(bearer) !== sessions.issuer) {
      return { caller: await verifyJwt(bearer, key, now()), againAtMs: Number.POSITIVE_INFINITY };
    }
    const caller = await sessions.verify(bearer, now());
    return { caller, againAtMs: now() + ISSUER_KEYS_FRESH_MS };
  }

  function remember(memoryKey: string, entry: Remembered): void {
    // Also what is verified again is the newest: the first in the map is the first to be forgotten.
    remembered.delete(memoryKey);
    const [oldest] = remembered.keys();
    if (remembered.size >= REMEMBERED_MAX && oldest !== undefined) remembered.delete(oldest);
    remembered.set(memoryKey, entry);
  }

  function remembers(bearer: string): boolean {
    const digest = sha256(bearer);
    if (adminDigest !== null && timingSafeEqual(digest, adminDigest)) return true;
    return remembered.has(digest.toString('base64'));
  }

  return { verify, remembers };
}

function sha256(text: string): Buffer {
  return hash('sha256', text, 'buffer');
}

const ADMIN: Caller = Object.freeze({
  kind: 'admin',
  orgId: null,
  workspaceId: null,
  jti: null,
  sub: 'admin',
  scopes: new Set(SCOPES),
  allow: null,
  expiresAt: null,
  actor: 'admin-token',
});

function statedIssuer(bearer: string): unknown {
  try {
    return decodeJwt(bearer).iss;
  } catch {
    return null; // no JWT at all; verifyJwt says so
  }
}

async function verifyJwt(jwt: string, key: SigningKey, nowMs: number): Promise<Caller & { expiresAt: number }> {
  if (!COMPACT_JWT.test(jwt)) throw unauthenticated('not a token of ours');
  const claims = await readClaims(jwt, key, nowMs);
  if (claims.iat > nowMs / 1000 + ISSUED_AHEAD_MAX_S) throw unauthenticated('issued in the future');
  const workspaceId = claims.kind === 'workspace' ? claims.ws : null;
  return {
    kind: claims.kind,
    orgId: claims.org,
    workspaceId,
    jti: claims.jti,
    sub: claims.sub,
    scopes: new Set(claims.scopes),
    allow: claims.allow ?? null,
    expiresAt: claims.exp,
    actor: workspaceId === null ? `org-token:${claims.jti.slice(0, 8)}` : `workspace:${workspaceId}`,
  };
}

async function readClaims(jwt: string, key: SigningKey, nowMs: number): Promise<RawClaims> {
  try {
    const { payload } = await jwtVerify(jwt, key.publicKey, {
      algorithms: [ALGORITHM],
      typ: 'JWT',
      issuer: ISSUER,
      audience: AUDIENCE,
      currentDate: new Date(nowMs),
    });
    return claimsSchema.parse(payload);
  } catch (error) {
    throw unauthenticated(error);
  }
}
