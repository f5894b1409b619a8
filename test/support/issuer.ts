/**
 * A real OIDC issuer beside the tests: issues tokens over HTTP, changes its keys, dies and comes back at its address.
 *
 * Its private keys are the tests' too, for what it cannot be brought to issue: tokens that are over, or of another algorithm.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { exportJWK, generateKeyPair, importJWK, type JWK, SignJWT } from 'jose';
import { send } from './gateway.ts';
import { waitUntil } from './wait.ts';

const ENTRY = fileURLToPath(new URL('issuer-process.ts', import.meta.url));
export const AUDIENCE = 'https://sallyport.test';

export const SIGNING = ['RS256', 'PS256', 'ES256', 'EdDSA'] as const;
export type Signing = (typeof SIGNING)[number];

export interface TestIssuer {
  readonly url: string;
  /** From its token endpoint: for AUDIENCE, in org-1, with the role `sre`, unless `claims` or `audience` say otherwise. */
  token(claims?: object, how?: { audience?: string; alg?: Signing }): Promise<string>;
  /** Signed here with its own key. Nothing is added to the claims but what makes a good token. */
  sign(claims?: object, header?: object): Promise<string>;
  /** Its keys, private. */
  keys(): readonly JWK[];
  /** New keys in place of all it had. */
  rotate(): Promise<void>;
  /** Requests for its keys so far. */
  asked(): number;
  /** kill -9; its address refuses. */
  kill(): Promise<void>;
  /** Again at its address. */
  revive(): Promise<void>;
  stop(): Promise<void>;
}

export async function startIssuer(): Promise<TestIssuer> {
  let keys = await newKeys();
  const said: string[] = [];
  let child = await start('0');
  const url = child.url;

  async function start(port: string): Promise<{ process: ChildProcess; url: string }> {
    const from = said.length;
    const process_ = spawn(process.execPath, ['--import', 'tsx', ENTRY], {
      env: { PATH: process.env.PATH, ISSUER_KEYS: JSON.stringify({ keys }), ISSUER_PORT: port },
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    for (const stream of [process_.stdout, process_.stderr]) stream?.on('data', (chunk) => said.push(String(chunk)));
    const [, found = ''] = await waitUntil(
      'the issuer listens',
      () => {
        const log = said.slice(from).join('');
        if (process_.exitCode !== null) throw new Error(`the issuer ended: ${log}`);
        return /^listening on (\S+)$/m.exec(log);
      },
      30_000,
    );
    return { process: process_, url: found };
  }

  async function kill(): Promise<void> {
    const { process: dying } = child;
    if (dying.exitCode !== null || dying.signalCode !== null) return;
    const over = once(dying, 'close');
    dying.kill('SIGKILL');
    await over;
  }

  return {
    url,
    async token(claims = {}, { audience = AUDIENCE, alg = 'RS256' } = {}) {
      const form = new URLSearchParams({
        grant_type: 'client_credentials',
        resource: audience,
        alg,
        claims: JSON.stringify({ ...DEFAULT_CLAIMS, ...claims }),
      });
      const { status, body, text } = await send(`${url}/token`, {
        method: 'POST',
        headers: {
          authorization: `Basic ${Buffer.from('test:test-secret').toString('base64')}`,
          'content-type': 'application/x-www-form-urlencoded',
        },
        body: form.toString(),
      });
      if (status !== 200) throw new Error(`the issuer answered ${status} ${text}\n${said.join('')}`);
      return String(body.access_token);
    },
    async sign(claims = {}, header = {}) {
      const key = keys[0];
      if (key === undefined) throw new Error('the issuer has no key');
      const nowS = Math.floor(Date.now() / 1000);
      const standard = { iss: url, aud: AUDIENCE, iat: nowS, exp: nowS + 600 };
      return await new SignJWT({ ...standard, ...DEFAULT_CLAIMS, ...claims })
        .setProtectedHeader({ alg: 'RS256', typ: 'at+jwt', kid: key.kid, ...header })
        .sign(await importJWK(key, 'RS256'));
    },
    keys: () => keys,
    async rotate() {
      keys = await newKeys();
      const answered = once(child.process, 'message');
      child.process.send({ keys });
      await answered;
    },
    asked: () => said.join('').match(/^asked for \/jwks$/gm)?.length ?? 0,
    kill,
    async revive() {
      child = await start(new URL(url).port);
    },
    stop: kill,
  };
}

const DEFAULT_CLAIMS = { sub: 'ada', org: 'org-1', roles: ['sre'] };

/** One pair per kind; RSA keys are for both of its schemes. */
async function newKeys(): Promise<JWK[]> {
  const kinds = [
    ['RS256', {}],
    ['ES256', {}],
    ['EdDSA', { crv: 'Ed25519' }],
  ] as const;
  return await Promise.all(
    kinds.map(async ([alg, options]) => {
      const { privateKey } = await generateKeyPair(alg, { ...options, extractable: true });
      return { ...(await exportJWK(privateKey)), kid: crypto.randomUUID(), use: 'sig' };
    }),
  );
}

/** The settings of a gateway that takes its sessions. */
export function oidcEnv({ url }: TestIssuer): Record<string, string> {
  return {
    SALLYPORT_OIDC_ISSUER: url,
    SALLYPORT_OIDC_AUDIENCE: AUDIENCE,
    SALLYPORT_OIDC_ROLES: JSON.stringify({
      sre: ['exec', 'activity:read', 'workspaces:read', 'tokens:write'],
      auditor: ['activity:read', 'workspaces:read'],
    }),
  };
}
