import { createHmac, generateKeyPairSync, randomUUID, sign as signBytes } from 'node:crypto';
import { SignJWT, UnsecuredJWT } from 'jose';
import { beforeAll, describe, expect, test } from 'vitest';
import { SCOPES } from '../../src/access/access.ts';
import {
  canSign,
  createVerifier,
  generateSigningKey,
  loadSigningKey,
  parseSigningKey,
  type SigningKey,
  signToken,
  type TokenClaims,
  unauthenticated,
} from '../../src/access/token.ts';

const NOW_S = 1_800_000_000;
const DAY_S = 24 * 3600;
const ADMIN_TOKEN = 'an-admin-token-of-32-characters!';
let key: SigningKey;
beforeAll(async () => {
  key = await loadSigningKey(await generateSigningKey());
});

const claims = (change: Partial<TokenClaims> = {}): TokenClaims => ({
  jti: '6b1c9f0e-7d0a-4c64-9d2e-3f5b8a1c2d3e',
  sub: 'ada',
  orgId: 'acme',
  workspaceId: null,
  kind: 'org',
  scopes: ['exec', 'activity:read'],
  allow: null,
  name: 'ci',
  issuedAt: NOW_S,
  expiresAt: NOW_S + DAY_S,
  ...change,
});
const verifierAt = (nowS: number) => createVerifier({ key, adminToken: ADMIN_TOKEN, now: () => nowS * 1000 });

/** The claims as they stand in a good token, to be spoilt one at a time. */
const payload = {
  iss: 'sallyport',
  aud: 'sallyport',
  sub: 'ada',
  org: 'acme',
  kind: 'org',
  scopes: ['exec'],
  jti: '6b1c9f0e-7d0a-4c64-9d2e-3f5b8a1c2d3e',
  iat: NOW_S,
  exp: NOW_S + DAY_S,
};
const sign = (body: Record<string, unknown>, header: Record<string, unknown> = {}, signer = key) =>
  new SignJWT(body).setProtectedHeader({ alg: 'EdDSA', typ: 'JWT', ...header }).sign(signer.privateKey);
const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

describe('a good token', () => {
  test('of an org comes back as the caller it was signed for', async () => {
    const caller = await verifierAt(NOW_S).verify(await signToken(key, claims({ allow: [['ls', '**']] })));
    expect(caller).toEqual({
      kind: 'org',
      orgId: 'acme',
      workspaceId: null,
      jti: '6b1c9f0e-7d0a-4c64-9d2e-3f5b8a1c2d3e',
      sub: 'ada',
      scopes: new Set(['exec', 'activity:read']),
      allow: [['ls', '**']],
      expiresAt: NOW_S + DAY_S,
      actor: 'org-token:6b1c9f0e',
    });
  });

  test('of a workspace is bound to it and named by it', async () => {
    const token = await signToken(key, claims({ kind: 'workspace', workspaceId: 'ws-1' }));
    expect(await verifierAt(NOW_S).verify(token)).toMatchObject({
      kind: 'workspace',
      workspaceId: 'ws-1',
      allow: null,
      actor: 'workspace:ws-1',
    });
  });

  test('does not carry its name', async () => {
    const [, body = ''] = (await signToken(key, claims({ name: 'quarterly' }))).split('.');
    expect(Buffer.from(body, 'base64url').toString()).not.toContain('quarterly');
  });

  test('of a replica whose clock is a little ahead is good', async () => {
    const token = await signToken(key, claims());
    await expect(verifierAt(NOW_S - 30).verify(token)).resolves.toMatchObject({ orgId: 'acme' });
    await expect(verifierAt(NOW_S - 90).verify(token)).rejects.toThrow(unauthenticated());
  });

  test('of another verifier with the same stored key is good', async () => {
    const pem = await generateSigningKey();
    const token = await signToken(await loadSigningKey(pem), claims());
    const later = createVerifier({ key: await loadSigningKey(pem), adminToken: null, now: () => NOW_S * 1000 });
    await expect(later.verify(token)).resolves.toMatchObject({ sub: 'ada' });
  });
});

describe('signing refuses', () => {
  test.each<[string, Partial<TokenClaims>]>([
    ['a life over 90 days', { expiresAt: NOW_S + 90 * DAY_S + 1 }],
    ['an end before the beginning', { expiresAt: NOW_S }],
    ['a workspace token without a workspace', { kind: 'workspace' }],
    ['an org token with a workspace', { workspaceId: 'ws-1' }],
    ['no scopes', { scopes: [] }],
  ])('%s', async (_what, change) => {
    await expect(signToken(key, claims(change))).rejects.toThrow();
  });
});

describe('every refusal reads the same', () => {
  const refusals: [string, () => string | Promise<string>][] = [
    ['nothing', () => ''],
    ['a word', () => 'hello'],
    ['the admin token with another end', () => `${ADMIN_TOKEN}x`],
    ['the beginning of the admin token', () => ADMIN_TOKEN.slice(0, -1)],
    ['a token of another key', async () => sign(payload, {}, await loadSigningKey(await generateSigningKey()))],
    [
      'a changed body',
      async () => (await sign(payload)).replace(/\.[^.]+\./, `.${encode({ ...payload, org: 'other' })}.`),
    ],
    ['no signature', async () => (await sign(payload)).replace(/[^.]+$/, '')],
    ['algorithm none', () => new UnsecuredJWT(payload).encode()],
    ['HMAC keyed with the public key', () => hmacToken()],
    ['an RSA signature', () => rsaToken()],
    ['no typ', () => sign(payload, { typ: undefined })],
    ['another typ', () => sign(payload, { typ: 'at+jwt' })],
    ['an unknown critical header', () => signRaw({ alg: 'EdDSA', typ: 'JWT', crit: ['x'], x: 1 })],
    ['another issuer', () => sign({ ...payload, iss: 'elsewhere' })],
    ['no issuer', () => sign({ ...payload, iss: undefined })],
    ['another audience', () => sign({ ...payload, aud: 'elsewhere' })],
    ['several audiences', () => sign({ ...payload, aud: ['sallyport', 'elsewhere'] })],
    ['no audience', () => sign({ ...payload, aud: undefined })],
    ['an end that has passed', () => sign({ ...payload, iat: NOW_S - 100, exp: NOW_S - 1 })],
    ['an end that is now', () => sign({ ...payload, iat: NOW_S - 100, exp: NOW_S })],
    ['no end', () => sign({ ...payload, exp: undefined })],
    ['a life over 90 days', () => sign({ ...payload, exp: NOW_S + 90 * DAY_S + 1 })],
    ['an end in a fraction', () => sign({ ...payload, exp: NOW_S + 10.5 })],
    ['no beginning', () => sign({ ...payload, iat: undefined })],
    ['no id', () => sign({ ...payload, jti: undefined })],
    ['no org', () => sign({ ...payload, org: undefined })],
    ['an org that is no id', () => sign({ ...payload, org: '../x' })],
    ['an unknown scope', () => sign({ ...payload, scopes: ['exec', 'root'] })],
    ['no scopes', () => sign({ ...payload, scopes: undefined })],
    ['scopes in one string', () => sign({ ...payload, scopes: 'exec' })],
    ['an unknown kind', () => sign({ ...payload, kind: 'admin' })],
    ['a workspace token without a workspace', () => sign({ ...payload, kind: 'workspace' })],
    ['an org token with a workspace', () => sign({ ...payload, ws: 'ws-1' })],
    ['broken rules', () => sign({ ...payload, allow: [['**', 'x']] })],
    ['a claim nobody knows', () => sign({ ...payload, only_on_sundays: true })],
  ];

  test.each(refusals)('%s', async (_what, make) => {
    const refusal = await verifierAt(NOW_S)
      .verify(await make())
      .then(
        () => null,
        (error: unknown) => error,
      );
    expect(refusal).toMatchObject({ code: 'unauthenticated', message: unauthenticated().message });
  });

  test('while the same claims unspoilt are good', async () => {
    await expect(verifierAt(NOW_S).verify(signRaw({ alg: 'EdDSA', typ: 'JWT' }))).resolves.toMatchObject({
      sub: 'ada',
    });
    await expect(verifierAt(NOW_S).verify(await sign(payload))).resolves.toMatchObject({ orgId: 'acme' });
  });

  function hmacToken(): string {
    const secret = key.publicKey.export({ type: 'spki', format: 'pem' });
    const input = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(payload)}`;
    return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`;
  }

  function signRaw(header: object): string {
    const input = `${encode(header)}.${encode(payload)}`;
    return `${input}.${signBytes(null, Buffer.from(input), key.privateKey).toString('base64url')}`;
  }

  function rsaToken(): Promise<string> {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    return new SignJWT(payload).setProtectedHeader({ alg: 'RS256', typ: 'JWT' }).sign(privateKey);
  }
});

describe('a remembered token', () => {
  test('ends at its expiry', async () => {
    let nowS = NOW_S;
    const verifier = createVerifier({ key, adminToken: null, now: () => nowS * 1000 });
    const token = await signToken(key, claims());
    const first = await verifier.verify(token);
    expect(await verifier.verify(token)).toBe(first);
    nowS = NOW_S + DAY_S - 1;
    expect(await verifier.verify(token)).toBe(first);
    nowS += 1;
    await expect(verifier.verify(token)).rejects.toThrow(unauthenticated());
    await expect(verifier.verify(token)).rejects.toThrow(unauthenticated());
  });

  test('is found by its every character', async () => {
    const verifier = verifierAt(NOW_S);
    const token = await signToken(key, claims());
    await verifier.verify(token);
    for (const other of [`${token} `, `${token}A`, token.slice(0, -1), token.toLowerCase()]) {
      await expect(verifier.verify(other)).rejects.toThrow(unauthenticated());
    }
  });
});

describe('the admin token', () => {
  test('has every scope, no org and no end', async () => {
    expect(await verifierAt(NOW_S).verify(ADMIN_TOKEN)).toMatchObject({
      kind: 'admin',
      orgId: null,
      jti: null,
      scopes: new Set(SCOPES),
      allow: null,
      expiresAt: null,
      actor: 'admin-token',
    });
  });

  test.each([null, ''])('is nobody when there is none (%j)', async (adminToken) => {
    const verifier = createVerifier({ key, adminToken });
    for (const guess of ['', 'null', ADMIN_TOKEN]) {
      await expect(verifier.verify(guess)).rejects.toThrow(unauthenticated());
    }
  });
});

describe('a signing key', () => {
  test.each<[string, () => string]>([
    ['nothing', () => ''],
    ['a word', () => 'secret-word'],
    ['an RSA key', () => pemOf(generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey)],
    ['an X25519 key', () => pemOf(generateKeyPairSync('x25519').privateKey)],
    [
      'an encrypted key',
      () =>
        generateKeyPairSync('ed25519')
          .privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'p' })
          .toString(),
    ],
    ['a public key', () => generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'pem' }).toString()],
  ])('is not %s, and the refusal shows nothing of it', (_what, make) => {
    expect(() => parseSigningKey(make())).toThrow('expected an unencrypted Ed25519 private key as PKCS#8 PEM');
  });

  test('has an id that follows from it', async () => {
    const pem = await generateSigningKey();
    expect((await loadSigningKey(pem)).kid).toBe((await loadSigningKey(pem)).kid);
    expect((await loadSigningKey(pem)).kid).not.toBe(key.kid);
  });

  test('can sign as long as its halves belong together', async () => {
    const other = await loadSigningKey(await generateSigningKey());
    expect(canSign(key)).toBe(true);
    expect(canSign({ ...key, publicKey: other.publicKey })).toBe(false);
  });

  const pemOf = (privateKey: ReturnType<typeof parseSigningKey>) =>
    privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
});

test('memory for tokens is bounded, and the oldest goes first', async () => {
  const verifier = createVerifier({ key, adminToken: null, now: () => NOW_S * 1000 });
  const first = await signToken(key, claims());
  const firstCaller = await verifier.verify(first);
  let last = first;
  for (let count = 0; count < 10_000; count += 1) {
    last = await signToken(key, claims({ jti: randomUUID() }));
    await verifier.verify(last);
  }
  expect(await verifier.verify(last)).toBe(await verifier.verify(last));
  expect(await verifier.verify(first)).not.toBe(firstCaller);
});
