/** Sessions of people, against a real issuer: what is taken, what is not, and what of it an outage changes. */
import { createPublicKey, type JsonWebKey } from 'node:crypto';
import { type JWK, SignJWT, UnsecuredJWT } from 'jose';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createIssuerKeys } from '../../src/access/issuer.ts';
import { createSessionVerifier, type OidcSettings } from '../../src/access/oidc.ts';
import {
  createVerifier,
  generateSigningKey,
  loadSigningKey,
  type SigningKey,
  signToken,
  unauthenticated,
  type Verifier,
} from '../../src/access/token.ts';
import { SESSION_LIFE_MAX_S, SUB_MAX_CHARS } from '../../src/limits.ts';
import { AUDIENCE, SIGNING, startIssuer, type TestIssuer } from '../support/issuer.ts';
import { failOnLeaks } from '../support/leaks.ts';

failOnLeaks();

let issuer: TestIssuer;
let other: TestIssuer;
let key: SigningKey;
beforeAll(async () => {
  [issuer, other] = await Promise.all([startIssuer(), startIssuer()]);
  key = await loadSigningKey(await generateSigningKey());
});
afterAll(async () => {
  await Promise.all([issuer.stop(), other.stop()]);
});

interface Gateway extends Verifier {
  warnings: string[];
}

/** As a gateway has it. `lateS`: its clock is that much behind that of the issuer. */
function gateway({
  lateS = 0,
  askEveryMs = 60_000,
  ...change
}: Partial<OidcSettings> & { lateS?: number; askEveryMs?: number; freshMs?: number; keepMs?: number } = {}): Gateway {
  const { freshMs, keepMs, ...settings } = change;
  const warnings: string[] = [];
  const pace = {
    askEveryMs,
    ...(freshMs === undefined ? {} : { freshMs }),
    ...(keepMs === undefined ? {} : { keepMs }),
  };
  const oidc: OidcSettings = {
    issuer: issuer.url,
    audience: AUDIENCE,
    org: { claim: 'org' },
    rolesClaim: 'roles',
    roles: new Map([['sre', ['exec', 'activity:read']]]),
    ...settings,
  };
  const log = { warn: (_facts: object, message: string) => warnings.push(message) };
  const sessions = createSessionVerifier(oidc, createIssuerKeys(oidc.issuer, { log, pace }));
  const now = () => Date.now() - lateS * 1000;
  return { ...createVerifier({ key, adminToken: null, sessions, now }), warnings };
}

const nowS = () => Math.floor(Date.now() / 1000);
const unavailable = { code: 'issuer_unavailable', details: { retryable: true } };

describe('a session', () => {
  test('comes back as the person in their org, with the scopes of their roles', async () => {
    const token = await issuer.token({ sub: 'auth0|ada' });
    expect(await gateway().verify(token)).toEqual({
      kind: 'session',
      orgId: 'org-1',
      workspaceId: null,
      jti: null,
      sub: 'auth0|ada',
      scopes: new Set(['exec', 'activity:read']),
      allow: null,
      expiresAt: expect.any(Number),
      actor: 'session:auth0|ada',
    });
  });

  test.each(SIGNING)('may be signed by %s', async (alg) => {
    await expect(gateway().verify(await issuer.token({}, { alg }))).resolves.toMatchObject({ kind: 'session' });
  });

  test.each(['JWT', 'at+jwt', 'application/at+jwt', 'AT+JWT', undefined])('may be of the type %s', async (typ) => {
    await expect(gateway().verify(await issuer.sign({}, { typ }))).resolves.toMatchObject({ kind: 'session' });
  });

  test('may be for others too', async () => {
    const token = await issuer.sign({ aud: ['https://other.test', AUDIENCE] });
    await expect(gateway().verify(token)).resolves.toMatchObject({ sub: 'ada' });
  });

  test('without a role that is known has no scope, and is a person all the same', async () => {
    const { scopes, actor } = await gateway().verify(await issuer.token({ roles: ['guest'] }));
    expect([[...scopes], actor]).toEqual([[], 'session:ada']);
  });

  test('ends in a whole second, so that a token it issues does not outlive it', async () => {
    const exp = nowS() + 100.9;
    expect((await gateway().verify(await issuer.sign({ exp }))).expiresAt).toBe(Math.floor(exp));
  });

  test('stands beside tokens of ours, which stay as strict as they were', async () => {
    const verifier = gateway();
    const claims = { orgId: 'org-1', workspaceId: null, kind: 'org', scopes: ['exec'], allow: null, name: '' } as const;
    const ours = { ...claims, scopes: [...claims.scopes], jti: 'token-0001', sub: 'x', issuedAt: nowS() };
    const token = await signToken(key, { ...ours, expiresAt: nowS() + 60 });
    await expect(verifier.verify(token)).resolves.toMatchObject({ kind: 'org', jti: 'token-0001' });
    const asOurs = await issuer.sign({ iss: 'sallyport', aud: 'sallyport', kind: 'org', scopes: ['exec'] });
    await expect(verifier.verify(asOurs)).rejects.toThrow(unauthenticated());
  });
});

describe('every refusal reads the same', () => {
  const publicPem = () => createPublicKey({ key: issuer.keys()[0] as JsonWebKey, format: 'jwk' });
  const refusals: [string, () => string | Promise<string>][] = [
    ['another audience', () => issuer.token({}, { audience: 'https://other.test' })],
    ['no audience', () => issuer.sign({ aud: undefined })],
    ['an audience of which ours is a part', () => issuer.sign({ aud: `${AUDIENCE}/v2` })],
    ['another issuer', () => other.token()],
    ['another issuer that names this one', () => other.sign({ iss: issuer.url })],
    ['another issuer that names this one and its key', () => other.sign({ iss: issuer.url }, { kid: kidOf(issuer) })],
    ['the issuer with a slash at its end', () => issuer.sign({ iss: `${issuer.url}/` })],
    ['no issuer', () => issuer.sign({ iss: undefined })],
    ['expired a second ago', () => issuer.sign({ iat: nowS() - 100, exp: nowS() - 1 })],
    ['no end', () => issuer.sign({ exp: undefined })],
    ['an end that is no number', () => issuer.sign({ exp: '2999-01-01' })],
    ['no beginning', () => issuer.sign({ iat: undefined })],
    ['issued in more than a minute', () => issuer.sign({ iat: nowS() + 90, exp: nowS() + 600 })],
    ['not to be used for more than a minute', () => issuer.sign({ nbf: nowS() + 90 })],
    ['a life of more than a day', () => issuer.sign({ exp: nowS() + SESSION_LIFE_MAX_S + 60 })],
    ['a life without end', () => issuer.sign({ exp: 1e300 })],
    ['no sub', () => issuer.sign({ sub: undefined })],
    ['an empty sub', () => issuer.sign({ sub: '' })],
    ['a sub that breaks lines', () => issuer.sign({ sub: 'ada\nadmin-token' })],
    ['a sub that turns the text around', () => issuer.sign({ sub: 'ada\u202e' })],
    ['a sub that is too long', () => issuer.sign({ sub: 'x'.repeat(SUB_MAX_CHARS + 1) })],
    ['no org', () => issuer.sign({ org: undefined })],
    ['an org that cannot be one', () => issuer.sign({ org: ['org-1'] })],
    ['a logout token', () => issuer.sign({}, { typ: 'logout+jwt' })],
    ['a type that is no text', () => issuer.sign({}, { typ: 7 })],
    ['bound to a key of its client', () => issuer.sign({ cnf: { jkt: 'x' } })],
    ['a critical header that nobody knows', () => crit()],
    ['no signature', async () => new UnsecuredJWT(payload()).encode()],
    ['no signature, and a third part', async () => `${new UnsecuredJWT(payload()).encode()}AAAA`],
    [
      'the public key taken for a secret',
      () =>
        new SignJWT(payload())
          .setProtectedHeader({ alg: 'HS256', typ: 'JWT', kid: kidOf(issuer) })
          .sign(Buffer.from(publicPem().export({ type: 'spki', format: 'pem' }) as string)),
    ],
    ['the algorithm of another of its keys', () => issuer.sign({}, { kid: issuer.keys()[1]?.kid })],
    ['a changed claim', async () => changed(await issuer.token())],
    ['a signature cut short', async () => (await issuer.token()).slice(0, -4)],
    ['blanks around it', async () => ` ${await issuer.token()}`],
  ];

  const payload = () => ({ iss: issuer.url, aud: AUDIENCE, sub: 'ada', org: 'org-1', iat: nowS(), exp: nowS() + 60 });
  const crit = async () => {
    const [, body, signature] = (await issuer.sign()).split('.');
    const header = { alg: 'RS256', kid: kidOf(issuer), crit: ['x'], x: 1 };
    return `${Buffer.from(JSON.stringify(header)).toString('base64url')}.${body}.${signature}`;
  };
  const changed = (token: string) => {
    const [header, body = '', signature] = token.split('.');
    const claims = { ...JSON.parse(Buffer.from(body, 'base64url').toString()), org: 'org-2' };
    return `${header}.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.${signature}`;
  };

  test.each(refusals)('%s', async (_what, token) => {
    const verifier = gateway();
    const error = await verifier.verify(await token()).catch((thrown: unknown) => thrown);
    expect(error).toEqual(unauthenticated());
  });

  test('a gateway without sessions knows no issuer', async () => {
    const verifier = createVerifier({ key, adminToken: null });
    await expect(verifier.verify(await issuer.token())).rejects.toThrow(unauthenticated());
  });
});

describe('clocks that differ', () => {
  test('a session of an issuer whose clock is a little ahead is good', async () => {
    const token = await issuer.sign({ iat: nowS(), nbf: nowS() });
    await expect(gateway({ lateS: 45 }).verify(token)).resolves.toMatchObject({ sub: 'ada' });
    await expect(gateway({ lateS: 90 }).verify(token)).rejects.toThrow(unauthenticated());
  });

  test('the end is the end', async () => {
    const token = await issuer.sign({ iat: nowS() - 100, exp: nowS() + 100 });
    const verifier = gateway();
    await expect(verifier.verify(token)).resolves.toMatchObject({ sub: 'ada' });
    await expect(gateway({ lateS: -101 }).verify(token)).rejects.toThrow(unauthenticated());
  });
});

describe('a remembered session', () => {
  test('is not verified again, and ends in time', async () => {
    let nowMs = Date.now();
    let verified = 0;
    const sessions = {
      issuer: issuer.url,
      async verify(jwt: string) {
        verified += 1;
        return { ...(await gateway().verify(jwt)), expiresAt: Math.floor(nowMs / 1000) + 1500 };
      },
    };
    const verifier = createVerifier({ key, adminToken: null, sessions, now: () => nowMs });
    const token = await issuer.token();
    for (let time = 0; time < 3; time += 1) await verifier.verify(token);
    expect([verified, verifier.remembers(token)]).toEqual([1, true]);
    nowMs += 11 * 60_000; // a key may have been withdrawn meanwhile
    await verifier.verify(token);
    await verifier.verify(token);
    expect(verified).toBe(2);
  });

  test('is refused from the second on in which it ends', async () => {
    let nowMs = Date.now();
    const sessions = createSessionVerifier(
      { issuer: issuer.url, audience: AUDIENCE, org: { id: 'org-1' }, rolesClaim: 'roles', roles: new Map() },
      createIssuerKeys(issuer.url, { log: { warn() {} } }),
    );
    const verifier = createVerifier({ key, adminToken: null, sessions, now: () => nowMs });
    const exp = nowS() + 60;
    const token = await issuer.sign({ exp });
    await verifier.verify(token);
    nowMs = exp * 1000;
    await expect(verifier.verify(token)).rejects.toThrow(unauthenticated());
    expect(verifier.remembers(token)).toBe(false);
  });
});

describe('keys', () => {
  test('that are new are fetched when a token names one, and the old ones are no longer believed', async () => {
    const verifier = gateway({ askEveryMs: 0 });
    const old = await issuer.token();
    await verifier.verify(old);
    const alsoOld = await issuer.token();
    await issuer.rotate();
    await expect(verifier.verify(await issuer.token())).resolves.toMatchObject({ sub: 'ada' });
    await expect(verifier.verify(alsoOld)).rejects.toThrow(unauthenticated());
  });

  test('that were withdrawn are forgotten after a while, without anybody naming another', async () => {
    const verifier = gateway({ freshMs: 0 });
    await verifier.verify(await issuer.token());
    const token = await issuer.token();
    await issuer.rotate();
    await expect(verifier.verify(token)).rejects.toThrow(unauthenticated());
  });

  test('that nobody has are asked for once, however many tokens name one', async () => {
    const verifier = gateway();
    await verifier.verify(await issuer.token());
    const before = issuer.asked();
    const made = Array.from({ length: 200 }, (_, index) => issuer.sign({}, { kid: `made-up-${index}` }));
    for (const token of await Promise.all(made))
      await expect(verifier.verify(token)).rejects.toThrow(unauthenticated());
    expect(issuer.asked()).toBe(before);
  });

  test('that nobody has are asked for by all who come at once with one request', async () => {
    const verifier = gateway({ askEveryMs: 0 });
    const before = issuer.asked();
    const made = await Promise.all(
      Array.from({ length: 50 }, (_, index) => issuer.sign({}, { kid: `made-up-${index}` })),
    );
    const answers = await Promise.allSettled(made.map((token) => verifier.verify(token)));
    expect(answers.every(({ status }) => status === 'rejected')).toBe(true);
    // The first set, and at most once more for those who did not find their key in it.
    expect(issuer.asked() - before).toBeLessThanOrEqual(2);
  });

  test('are fetched for nobody but a session', async () => {
    const before = issuer.asked();
    const verifier = gateway();
    for (const bearer of ['hello', await other.token(), 'a.b.c']) {
      await expect(verifier.verify(bearer)).rejects.toThrow(unauthenticated());
    }
    expect(issuer.asked()).toBe(before);
  });
});

describe('an issuer that is down', () => {
  test('is no reason to call a token bad, nor to stop believing keys that are known', async () => {
    const mortal = await startIssuer();
    try {
      const late = gateway({ issuer: mortal.url, askEveryMs: 0 });
      const knows = gateway({ issuer: mortal.url, askEveryMs: 0, freshMs: 0 });
      const forgets = gateway({ issuer: mortal.url, askEveryMs: 0, keepMs: 0 });
      const patient = gateway({ issuer: mortal.url, freshMs: 0 });
      for (const verifier of [knows, forgets, patient]) await verifier.verify(await mortal.token());
      const [token, unknown] = [await mortal.token(), await mortal.sign({}, { kid: 'new' })];
      await mortal.kill();

      await expect(late.verify(token)).rejects.toMatchObject(unavailable);
      await expect(knows.verify(token)).resolves.toMatchObject({ sub: 'ada' });
      await expect(knows.verify(unknown)).rejects.toMatchObject(unavailable);
      await expect(forgets.verify(token)).rejects.toMatchObject(unavailable);
      expect(knows.warnings.length).toBeGreaterThan(0);
      // Who has just asked in vain does not ask for every request.
      for (let time = 0; time < 5; time += 1) await patient.verify(token);
      expect(patient.warnings).toHaveLength(1);

      await mortal.revive();
      for (const verifier of [late, knows, forgets]) {
        await expect(verifier.verify(await mortal.token())).resolves.toMatchObject({ sub: 'ada' });
      }
      await expect(knows.verify(unknown)).rejects.toThrow(unauthenticated());
    } finally {
      await mortal.stop();
    }
  });
});

function kidOf(of: TestIssuer): string {
  return (of.keys()[0] as JWK & { kid: string }).kid;
}
