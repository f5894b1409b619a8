/**
 * The keys of an OIDC issuer: found through its discovery document, kept, asked for again.
 *
 * Decides nothing about tokens (oidc.ts does). The one file of this folder that dials: jose asks it for a key in the
 * middle of a verification.
 *
 * Decisions:
 * - Nothing is fetched before the first session comes, so a gateway starts and serves tokens while the issuer is down.
 * - An issuer that cannot be asked is `issuer_unavailable` (503), never 401: the caller's token may be good.
 * - A key that is not in the set makes it be fetched again (rotation), at most once in ISSUER_ASK_EVERY_MS, so that a flood
 *   of made-up key ids costs the issuer no more than that.
 * - The document is read again with the keys: a `jwks_uri` that has moved is followed without a restart.
 */
import { createRemoteJWKSet, customFetch, type JWTVerifyGetKey } from 'jose';
import { z } from 'zod';
import { SallyportError } from '../errors.ts';
import {
  ISSUER_ANSWER_MAX_BYTES,
  ISSUER_ANSWER_MAX_MS,
  ISSUER_ASK_EVERY_MS,
  ISSUER_KEYS_FRESH_MS,
  ISSUER_KEYS_KEEP_MS,
} from '../limits.ts';

interface Log {
  warn(facts: object, message: string): void;
}

const documentSchema = z.object({ issuer: z.string(), jwks_uri: z.url() });
/** An empty set is no answer: it would turn every session away. */
const keysSchema = z.object({ keys: z.array(z.looseObject({ kty: z.string() })).min(1) });

/** Whether what comes from there can be believed: https, or this machine. */
export function isTrustworthyUrl(url: URL): boolean {
  if (url.protocol === 'https:') return true;
  return url.protocol === 'http:' && /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/.test(url.hostname);
}

/**
 * For `jwtVerify`. Rejects with `issuer_unavailable`, or as jose does when the issuer has no such key. `pace`: what tests
 * make shorter.
 */
export function createIssuerKeys(
  issuer: string,
  { log, pace = {} }: { log: Log; pace?: { askEveryMs?: number; freshMs?: number; keepMs?: number } },
): JWTVerifyGetKey {
  const { askEveryMs = ISSUER_ASK_EVERY_MS, freshMs = ISSUER_KEYS_FRESH_MS, keepMs = ISSUER_KEYS_KEEP_MS } = pace;
  // OpenID Connect Discovery, section 4: a slash at the end is taken off before the path is added.
  const documentUrl = new URL(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`);
  let freshUntilMs: number | null = null;
  let failure: { error: SallyportError; untilMs: number } | null = null;

  async function load(signal: AbortSignal): Promise<Response> {
    if (failure !== null && performance.now() < failure.untilMs) throw failure.error;
    try {
      const keys = await fetchKeys(issuer, documentUrl, signal);
      failure = null;
      freshUntilMs = performance.now() + freshMs;
      return Response.json(keys);
    } catch (cause) {
      log.warn({ err: cause, issuer }, 'the OIDC issuer could not be asked for its keys');
      failure = { error: unavailable(cause), untilMs: performance.now() + askEveryMs };
      throw failure.error;
    }
  }

  const keys = createRemoteJWKSet(documentUrl, {
    cooldownDuration: askEveryMs,
    cacheMaxAge: keepMs,
    timeoutDuration: ISSUER_ANSWER_MAX_MS,
    [customFetch]: (_url, { signal }) => load(signal),
  });
  return async (header, token) => {
    // What is old is still good enough when the issuer does not answer: load has said so in the log.
    if (freshUntilMs !== null && performance.now() > freshUntilMs) await keys.reload().catch(() => {});
    return await keys(header, token);
  };
}

function unavailable(cause: unknown): SallyportError {
  return new SallyportError(
    'issuer_unavailable',
    'the issuer of this credential cannot be asked for its keys now, so nobody can say whether it is valid',
    { retryable: true, cause },
  );
}

async function fetchKeys(issuer: string, documentUrl: URL, signal: AbortSignal): Promise<z.output<typeof keysSchema>> {
  const document = documentSchema.parse(await fetchJson(documentUrl, signal));
  if (document.issuer !== issuer) throw new Error(`the document at ${documentUrl} is of the issuer ${document.issuer}`);
  const keysUrl = new URL(document.jwks_uri);
  const isDowngrade = documentUrl.protocol === 'https:' && keysUrl.protocol !== 'https:';
  if (isDowngrade || !isTrustworthyUrl(keysUrl)) throw new Error(`jwks_uri ${keysUrl} is not https`);
  return keysSchema.parse(await fetchJson(keysUrl, signal));
}

async function fetchJson(url: URL, signal: AbortSignal): Promise<unknown> {
  const accept = 'application/json, application/jwk-set+json';
  const response = await fetch(url, { signal, redirect: 'manual', headers: { accept } });
  const type = response.headers.get('content-type') ?? 'nothing';
  try {
    if (response.status !== 200) throw new Error(`${url} answered ${response.status}, expected 200`);
    if (!/^application\/([\w.-]+\+)?json\b/i.test(type)) throw new Error(`${url} answered ${type}, expected JSON`);
    return JSON.parse(await readText(response, url));
  } finally {
    // What is left of a refused answer is not wanted; a body that was read is closed already.
    await response.body?.cancel().catch(() => {});
  }
}

async function readText(response: Response, url: URL): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.byteLength;
    if (bytes > ISSUER_ANSWER_MAX_BYTES) throw new Error(`${url} answered more than ${ISSUER_ANSWER_MAX_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}
