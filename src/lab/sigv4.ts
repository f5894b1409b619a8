/**
 * Checks AWS signatures version 4, in the header or in the query, from nothing but the raw request and the secret.
 *
 * Decision: written from the specification with node:crypto, and not with the SDK's signer, so that a mistake in the way
 * the gateway uses that signer is found here. Source: AWS General Reference, "Signature Version 4 signing process".
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';

export interface Expected {
  accessKeyId: string;
  secretAccessKey: string;
  /** Null: a request with a session token is refused. */
  sessionToken: string | null;
  service: string;
  region: string;
  nowMs: number;
}

export interface RawRequest {
  method: string;
  /** As on the request line: path and query. */
  target: string;
  /** Names and values in turn, as they came. */
  rawHeaders: readonly string[];
  body: Buffer;
}

/** Why a request is not signed well; the words are those of AWS's common errors. */
export type SignatureFault =
  | 'MissingAuthenticationToken'
  | 'IncompleteSignature'
  | 'UnrecognizedClient'
  | 'InvalidSignature'
  | 'Expired';

export class SignatureError extends Error {
  readonly fault: SignatureFault;
  constructor(fault: SignatureFault, message: string) {
    super(message);
    this.fault = fault;
  }
}

const ALGORITHM = 'AWS4-HMAC-SHA256';
const SKEW_MAX_MS = 5 * 60_000;
const PRESIGN_MAX_S = 604_800;
/** The service's own default for a URL that names no life is not public; five minutes is ours. */
const PRESIGN_DEFAULT_S = 300;

interface Signed {
  credential: string;
  signedHeaders: string;
  signature: string;
  amzDate: string;
  sessionToken: string | null;
}

/** Checks the Authorization header. Throws SignatureError. */
export function verifyHeader(request: RawRequest, expected: Expected): void {
  const headers = collectHeaders(request.rawHeaders);
  const authorization = headers.get('authorization');
  if (authorization === undefined)
    throw new SignatureError('MissingAuthenticationToken', 'Missing Authentication Token');
  const signed: Signed = {
    ...parseAuthorization(authorization),
    amzDate: headers.get('x-amz-date') ?? '',
    sessionToken: headers.get('x-amz-security-token') ?? null,
  };
  const bodyHash = sha256(request.body);
  const claimed = headers.get('x-amz-content-sha256');
  if (claimed !== undefined && claimed !== bodyHash) {
    throw new SignatureError(
      'InvalidSignature',
      'The provided x-amz-content-sha256 header does not match what was computed.',
    );
  }
  requireSignedHeaders(signed.signedHeaders, ['host', 'x-amz-date', ...headers.keys()].filter(mustBeSigned));
  const signedAtMs = parseAmzDate(signed.amzDate);
  if (signedAtMs < expected.nowMs - SKEW_MAX_MS) {
    throw new SignatureError(
      'Expired',
      `Signature expired: ${signed.amzDate} is now earlier than ${formatAmzDate(expected.nowMs - SKEW_MAX_MS)}`,
    );
  }
  requireNotFuture(signed.amzDate, signedAtMs, expected.nowMs);
  const [path = '', query = ''] = splitTarget(request.target);
  requireSignature(
    signed,
    canonicalRequest({ ...request, path, query: parseQuery(query), headers, signed, bodyHash }),
    expected,
  );
}

/** Checks a presigned URL. Throws SignatureError. */
export function verifyQuery(request: RawRequest, expected: Expected): void {
  const [path = '', rawQuery = ''] = splitTarget(request.target);
  const query = parseQuery(rawQuery);
  const get = (name: string) => query.find(([key]) => key === name)?.[1] ?? null;
  if (get('X-Amz-Signature') === null)
    throw new SignatureError('MissingAuthenticationToken', 'Missing Authentication Token');
  if (get('X-Amz-Algorithm') !== ALGORITHM)
    throw new SignatureError('IncompleteSignature', `X-Amz-Algorithm must be ${ALGORITHM}`);
  const signed: Signed = {
    credential: get('X-Amz-Credential') ?? '',
    signedHeaders: get('X-Amz-SignedHeaders') ?? '',
    signature: get('X-Amz-Signature') ?? '',
    amzDate: get('X-Amz-Date') ?? '',
    sessionToken: get('X-Amz-Security-Token'),
  };
  requireSignedHeaders(signed.signedHeaders, ['host']);
  const signedAtMs = parseAmzDate(signed.amzDate);
  requireNotFuture(signed.amzDate, signedAtMs, expected.nowMs);
  const expiresAtMs = signedAtMs + parseExpires(get('X-Amz-Expires')) * 1000;
  if (expected.nowMs > expiresAtMs) {
    throw new SignatureError(
      'Expired',
      `Signature expired: ${formatAmzDate(expiresAtMs)} is now earlier than ${formatAmzDate(expected.nowMs)}`,
    );
  }
  const unsigned = query.filter(([key]) => key !== 'X-Amz-Signature');
  const headers = collectHeaders(request.rawHeaders);
  const bodyHash = sha256(Buffer.alloc(0));
  requireSignature(
    signed,
    canonicalRequest({ ...request, path, query: unsigned, headers, signed, bodyHash }),
    expected,
  );
}

function requireSignature(signed: Signed, canonical: string, expected: Expected): void {
  const [accessKeyId, date, region, service, terminator] = signed.credential.split('/');
  if (accessKeyId !== expected.accessKeyId) {
    throw new SignatureError('UnrecognizedClient', 'The security token included in the request is invalid.');
  }
  if ((signed.sessionToken ?? null) !== expected.sessionToken) {
    throw new SignatureError('UnrecognizedClient', 'The security token included in the request is invalid.');
  }
  const scope = `${signed.amzDate.slice(0, 8)}/${expected.region}/${expected.service}/aws4_request`;
  const claimed = [date, region, service, terminator].join('/');
  if (claimed !== scope)
    throw new SignatureError('InvalidSignature', `Credential should be scoped to ${scope}, not ${claimed}.`);
  const text = [ALGORITHM, signed.amzDate, scope, sha256(canonical)].join('\n');
  const key = scope
    .split('/')
    .reduce<string | Buffer>((secret, part) => hmac(secret, part), `AWS4${expected.secretAccessKey}`);
  if (!sameText(hmac(key, text).toString('hex'), signed.signature)) {
    throw new SignatureError(
      'InvalidSignature',
      'The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.',
    );
  }
}

interface Canonical {
  method: string;
  path: string;
  query: [string, string][];
  headers: ReadonlyMap<string, string>;
  signed: Signed;
  bodyHash: string;
}

function canonicalRequest(request: Canonical): string {
  const names = request.signed.signedHeaders.split(';');
  return [
    request.method,
    // Every service but S3 has the path encoded a second time.
    request.path.split('/').map(encode).join('/'),
    canonicalQuery(request.query),
    ...names.map((name) => `${name}:${request.headers.get(name) ?? ''}`),
    '',
    request.signed.signedHeaders,
    request.bodyHash,
  ].join('\n');
}

function canonicalQuery(query: readonly [string, string][]): string {
  const encoded = query.map(([key, value]): [string, string] => [encode(key), encode(value)]);
  encoded.sort(([keyA, valueA], [keyB, valueB]) => compare(keyA, keyB) || compare(valueA, valueB));
  return encoded.map(([key, value]) => `${key}=${value}`).join('&');
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** RFC 3986: only unreserved characters stay. */
function encode(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}

export function parseQuery(raw: string): [string, string][] {
  if (raw === '') return [];
  return raw.split('&').map((pair) => {
    const at = pair.indexOf('=');
    return at < 0 ? [decode(pair), ''] : [decode(pair.slice(0, at)), decode(pair.slice(at + 1))];
  });
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // A stray percent sign: taken as it is, and the signature will not match.
    return text;
  }
}

export function splitTarget(target: string): [path: string, query: string] {
  const at = target.indexOf('?');
  return at < 0 ? [target, ''] : [target.slice(0, at), target.slice(at + 1)];
}

/** Lower-case names; values trimmed, inner spaces folded, repeated headers joined by a comma. */
function collectHeaders(rawHeaders: readonly string[]): Map<string, string> {
  const headers = new Map<string, string>();
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const name = (rawHeaders[index] ?? '').toLowerCase();
    const value = (rawHeaders[index + 1] ?? '').trim().replace(/\s+/g, ' ');
    const known = headers.get(name);
    headers.set(name, known === undefined ? value : `${known},${value}`);
  }
  return headers;
}

function parseAuthorization(header: string): Pick<Signed, 'credential' | 'signedHeaders' | 'signature'> {
  const match = /^AWS4-HMAC-SHA256 Credential=([^,\s]+),\s*SignedHeaders=([^,\s]+),\s*Signature=([0-9a-f]{64})$/.exec(
    header,
  );
  if (match === null)
    throw new SignatureError(
      'IncompleteSignature',
      'The Authorization header is not a complete AWS4-HMAC-SHA256 signature.',
    );
  const [, credential = '', signedHeaders = '', signature = ''] = match;
  return { credential, signedHeaders, signature };
}

function mustBeSigned(name: string): boolean {
  return name === 'host' || name.startsWith('x-amz-');
}

function requireSignedHeaders(signedHeaders: string, needed: readonly string[]): void {
  const names = signedHeaders.split(';');
  const missing = needed.filter((name) => !names.includes(name));
  if (missing.length > 0) throw new SignatureError('IncompleteSignature', `Not signed: ${missing.join(', ')}`);
  if (signedHeaders !== [...names].sort(compare).join(';'))
    throw new SignatureError('IncompleteSignature', 'SignedHeaders are not in order.');
}

function parseExpires(raw: string | null): number {
  if (raw === null) return PRESIGN_DEFAULT_S;
  const seconds = Number(raw);
  if (/^\d+$/.test(raw) && seconds >= 1 && seconds <= PRESIGN_MAX_S) return seconds;
  throw new SignatureError('IncompleteSignature', `X-Amz-Expires must be 1 to ${PRESIGN_MAX_S} seconds, not ${raw}`);
}

function requireNotFuture(amzDate: string, signedAtMs: number, nowMs: number): void {
  if (signedAtMs <= nowMs + SKEW_MAX_MS) return;
  throw new SignatureError(
    'Expired',
    `Signature not yet current: ${amzDate} is still later than ${formatAmzDate(nowMs + SKEW_MAX_MS)}`,
  );
}

function parseAmzDate(text: string): number {
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(text);
  if (match === null)
    throw new SignatureError('IncompleteSignature', `Date must be in ISO-8601 'basic format'. Got '${text}'.`);
  const [, year, month, day, hour, minute, second] = match;
  return Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
}

function formatAmzDate(ms: number): string {
  return new Date(ms).toISOString().replace(/[-:]|\.\d+/g, '');
}

function sha256(data: Buffer | string): string {
  return createHash('sha256').update(data).digest('hex');
}

function hmac(key: string | Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}

function sameText(a: string, b: string): boolean {
  return a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b));
}
