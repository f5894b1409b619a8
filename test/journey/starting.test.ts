/** Starts that cannot be, each told in one sentence that names its setting; and migrations. */
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { generateSigningKey } from '../../src/access/token.ts';
import { createTestDatabase } from '../support/database.ts';
import { type Ended, runProgram, startProgram } from '../support/program.ts';
import { runSql } from '../support/sql.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'starting-'));
});
afterAll(() => rm(folder, { recursive: true }));

const settings = (env = {}) => ({ SALLYPORT_DATA_DIR: join(folder, 'data'), SALLYPORT_PORT: '0', ...env });

async function listenSomewhere() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

/** A start that must fail: exit 1 and one sentence on stderr, nothing on stdout. */
function expectRefusal({ code, stdout, stderr }: Ended, sentence: RegExp): void {
  expect({ code, stdout: stdout.toString(), stderr }).toEqual({
    code: 1,
    stdout: '',
    stderr: expect.stringMatching(sentence),
  });
  expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  expect(stderr).toMatch(/^sallyport: /);
}

describe('a start is refused in one sentence for', () => {
  it.each<[string, string, Record<string, string>, RegExp]>([
    ['the demo beyond loopback', 'demo', { SALLYPORT_HOST: '0.0.0.0' }, /SALLYPORT_HOST/],
    [
      'the demo beyond loopback, with plaintext allowed',
      'demo',
      { SALLYPORT_HOST: '0.0.0.0', SALLYPORT_PLAINTEXT: 'behind-proxy' },
      /SALLYPORT_HOST.*loopback only/,
    ],
    [
      'the gateway beyond loopback without TLS',
      'serve',
      { SALLYPORT_HOST: '0.0.0.0' },
      /SALLYPORT_HOST.*SALLYPORT_TLS_CERT/,
    ],
    ['a port that is none', 'serve', { SALLYPORT_PORT: 'http' }, /SALLYPORT_PORT/],
    ['a short admin token', 'serve', { SALLYPORT_ADMIN_TOKEN: 'short-secret' }, /SALLYPORT_ADMIN_TOKEN.*32/],
    ['an empty org', 'serve', { SALLYPORT_ORG_ID: '' }, /SALLYPORT_ORG_ID.*empty/],
    ['a database without a signing key', 'serve', { DATABASE_URL: 'postgres://localhost/x' }, /SALLYPORT_SIGNING_KEY/],
    ['a key that is none', 'serve', { SALLYPORT_SIGNING_KEY: 'secret-key' }, /SALLYPORT_SIGNING_KEY.*Ed25519/],
    ['half of TLS', 'serve', { SALLYPORT_TLS_CERT: '/etc/hostname' }, /SALLYPORT_TLS_KEY/],
    [
      'a certificate that is not there',
      'serve',
      { SALLYPORT_TLS_CERT: '/no/certificate', SALLYPORT_TLS_KEY: '/etc/hostname' },
      /SALLYPORT_TLS_CERT.*ENOENT/,
    ],
    ['an unknown way to trust', 'demo', { SALLYPORT_HOST_KEYS: 'always' }, /SALLYPORT_HOST_KEYS.*console/],
    ['an unknown level', 'lab', { SALLYPORT_LOG_LEVEL: 'loud' }, /SALLYPORT_LOG_LEVEL/],
  ])('%s', async (_name, verb, env, sentence) => {
    const ended = await runProgram([verb], { env: settings(env) });
    expectRefusal(ended, sentence);
    expect(ended.stderr).not.toMatch(/short-secret|secret-key/);
    expect(existsSync(join(folder, 'data', 'demo.json'))).toBe(false);
  });

  it('a database that nobody answers for, without its password', async () => {
    const unused = await listenSomewhere();
    const { port } = unused.address() as AddressInfo;
    unused.close();
    await once(unused, 'close');
    const env = {
      DATABASE_URL: `postgres://app:secret-password@127.0.0.1:${port}/app`,
      SALLYPORT_SIGNING_KEY: await generateSigningKey(),
    };
    const migrating = { ...env, SALLYPORT_MIGRATE_DATABASE_URL: env.DATABASE_URL.replace('app:', 'owner:') };
    for (const [verb, used, sentence] of [
      ['serve', env, / DATABASE_URL: .*ECONNREFUSED/],
      ['migrate', env, / DATABASE_URL: .*ECONNREFUSED/],
      ['migrate', migrating, / SALLYPORT_MIGRATE_DATABASE_URL: .*ECONNREFUSED/],
    ] as const) {
      const ended = await runProgram([verb], { env: settings(used) });
      expectRefusal(ended, sentence);
      expect(ended.stderr).not.toContain('secret-password');
    }
  });

  it('a port that is taken', async () => {
    const holder = await listenSomewhere();
    const { port } = holder.address() as AddressInfo;
    const database = await createTestDatabase();
    try {
      const env = { DATABASE_URL: database.url, SALLYPORT_SIGNING_KEY: await generateSigningKey() };
      for (const verb of ['serve', 'demo']) {
        const ended = await runProgram([verb], {
          env: settings({ ...env, SALLYPORT_PORT: `${port}`, SALLYPORT_LOG_LEVEL: 'silent' }),
        });
        expectRefusal(ended, new RegExp(`SALLYPORT_PORT: .*EADDRINUSE.*:${port}\n$`));
      }
    } finally {
      await database.drop();
      holder.close();
    }
  });

  it('a data directory that is none', async () => {
    const file = join(folder, 'a-file');
    await writeFile(file, '');
    for (const verb of ['demo', 'serve', 'migrate', 'lab'])
      expectRefusal(
        await runProgram([verb], { env: settings({ SALLYPORT_DATA_DIR: file }) }),
        /SALLYPORT_DATA_DIR: .*a-file/,
      );
  });

  it('a word that no verb takes, as wrong usage', async () => {
    const ended = await runProgram(['demo', '--twice'], { env: settings() });
    expect(ended).toMatchObject({ code: 2, stderr: 'sallyport demo takes --once\n' });
  });
});

describe('migrate', () => {
  it('brings an empty database to this version, and a second time finds nothing to do', async () => {
    const database = await createTestDatabase();
    try {
      await runSql(database.url, 'drop schema public cascade');
      await runSql(database.url, 'create schema public');
      const migrate = () => runProgram(['migrate'], { env: { DATABASE_URL: database.url } });
      const first = await migrate();
      expect({ code: first.code, stdout: first.stdout.toString() }).toEqual({
        code: 0,
        stdout: expect.stringMatching(/^applied 0001-[a-z-]+\.sql/),
      });
      const second = await migrate();
      expect({ code: second.code, stdout: second.stdout.toString() }).toEqual({
        code: 0,
        stdout: 'the database is up to date\n',
      });
    } finally {
      await database.drop();
    }
  });

  it('does the same for the embedded database, which serve then finds', async () => {
    const migrate = () => runProgram(['migrate'], { env: settings() });
    expect(await migrate()).toMatchObject({ code: 0 });
    expect((await migrate()).stdout.toString()).toBe('the embedded database is up to date\n');
    const serve = await startProgram(['serve'], { env: settings() });
    const [, url = ''] = await serve.says(/listening on (http:\S+)/);
    expect((await fetch(`${url}/readyz`)).status).toBe(200);
    const key = readFileSync(join(folder, 'data', 'signing-key.pem'), 'utf8');
    serve.kill('SIGTERM');
    expect(await serve.ended).toMatchObject({ code: 0 });
    expect(readFileSync(join(folder, 'data', 'signing-key.pem'), 'utf8')).toBe(key);
  });
});
