import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { ConfigError, readConfig } from '../src/config.ts';
import { selfSigned } from './client/self-signed.ts';
import { newKeyPair } from './support/ssh-keys.ts';

const folder = mkdtempSync(join(tmpdir(), 'sallyport-config-'));
afterAll(() => rmSync(folder, { recursive: true }));
const file = (name: string, text: string, mode = 0o600): string => {
  const path = join(folder, name);
  writeFileSync(path, text, { mode });
  return path;
};

const newKey = () => generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
const KEY = newKey();
const DATABASE_URL = 'postgres://gateway:hunter2@127.0.0.1/sallyport';
const { cert, key } = selfSigned();
const CERT_FILE = file('cert.pem', cert);
const KEY_FILE = file('key.pem', key);
const SSH_KEY = newKeyPair().privateKey;
const SSH_KEY_FILE = file('ssh-key', SSH_KEY);
const KNOWN_HOSTS_FILE = file('known-hosts', '');
const OTHER_KEY_FILE = file('other-key.pem', selfSigned().key);

function problems(env: NodeJS.ProcessEnv): readonly string[] {
  try {
    readConfig(env);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}

describe('without any setting', () => {
  test('everything has its default', () => {
    expect(readConfig({ PATH: '/bin', AWS_REGION: 'eu-west-1' })).toEqual({
      databaseUrl: null,
      migrateDatabaseUrl: null,
      host: '127.0.0.1',
      port: 8080,
      tls: null,
      trustProxy: null,
      dataDir: resolve('.sallyport'),
      orgId: null,
      orgTag: null,
      adminToken: null,
      oidc: null,
      signingKey: null,
      hostKeys: 'console',
      route: 'endpoint',
      limits: {
        maxTimeoutS: 120,
        outputCapBytes: 16_777_216,
        maxExecsWorkspace: 128,
        maxExecsOrg: 1024,
        maxExecsGateway: 4096,
        ratePerMin: 0,
        tunnelsPerEndpoint: 20,
        tunnelMaxS: 3600,
      },
      logLevel: 'info',
      metricsPort: null,
      traces: null,
      labTunnelUrl: null,
      ssh: null,
      docker: null,
      localDriver: false,
      channelAhead: true,
      warnings: [],
    });
  });
});

test('every setting is read', () => {
  const config = readConfig({
    DATABASE_URL,
    SALLYPORT_MIGRATE_DATABASE_URL: 'postgresql://owner@127.0.0.1/sallyport',
    SALLYPORT_HOST: '0.0.0.0',
    SALLYPORT_PORT: '0',
    SALLYPORT_TLS_CERT: CERT_FILE,
    SALLYPORT_TLS_KEY: KEY_FILE,
    SALLYPORT_TRUST_PROXY: 'loopback, 10.0.0.0/8',
    SALLYPORT_DATA_DIR: 'data',
    SALLYPORT_ORG_ID: 'acme',
    SALLYPORT_ORG_TAG: 'team:org',
    SALLYPORT_ADMIN_TOKEN: 'a'.repeat(32),
    SALLYPORT_OIDC_ISSUER: 'https://id.example/realms/acme/',
    SALLYPORT_OIDC_AUDIENCE: 'sallyport',
    SALLYPORT_OIDC_ROLES: '{"sre":["exec","diagnose"],"Domain Users":["workspaces:read"]}',
    SALLYPORT_OIDC_ROLES_CLAIM: '/realm_access/roles',
    SALLYPORT_OIDC_ORG_CLAIM: 'https://id.example/org',
    SALLYPORT_SIGNING_KEY: KEY,
    SALLYPORT_HOST_KEYS: 'first-use',
    SALLYPORT_ROUTE: 'auto',
    SALLYPORT_MAX_TIMEOUT_S: '600',
    SALLYPORT_OUTPUT_CAP_BYTES: '1024',
    SALLYPORT_MAX_EXECS_WORKSPACE: '1',
    SALLYPORT_MAX_EXECS_ORG: '2',
    SALLYPORT_MAX_EXECS_GATEWAY: '3',
    SALLYPORT_RATE_PER_MIN: '60',
    SALLYPORT_TUNNELS_PER_ENDPOINT: '5',
    SALLYPORT_TUNNEL_MAX_S: '1800',
    SALLYPORT_LOG_LEVEL: 'warn',
    SALLYPORT_METRICS_PORT: '9100',
    SALLYPORT_LAB_TUNNEL_URL: 'ws://127.0.0.1:9999',
    SALLYPORT_SSH_KEY_FILE: SSH_KEY_FILE,
    SALLYPORT_KNOWN_HOSTS: KNOWN_HOSTS_FILE,
    SALLYPORT_SSH_LOOPBACK: 'on',
    SALLYPORT_DOCKER: 'on',
    DOCKER_HOST: 'unix:///run/engine.sock',
    SALLYPORT_LOCAL_DRIVER: 'on',
    SALLYPORT_SSH_CHANNEL_AHEAD: 'off',
    OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:4318',
  });
  expect(config).toEqual({
    databaseUrl: DATABASE_URL,
    migrateDatabaseUrl: 'postgresql://owner@127.0.0.1/sallyport',
    host: '0.0.0.0',
    port: 0,
    tls: { cert, key },
    trustProxy: 'loopback, 10.0.0.0/8',
    dataDir: resolve('data'),
    orgId: 'acme',
    orgTag: 'team:org',
    adminToken: 'a'.repeat(32),
    oidc: {
      issuer: 'https://id.example/realms/acme/',
      audience: 'sallyport',
      org: { claim: 'https://id.example/org' },
      rolesClaim: '/realm_access/roles',
      roles: new Map([
        ['sre', ['exec', 'diagnose']],
        ['Domain Users', ['workspaces:read']],
      ]),
    },
    signingKey: KEY,
    hostKeys: 'first-use',
    route: 'auto',
    limits: {
      maxTimeoutS: 600,
      outputCapBytes: 1024,
      maxExecsWorkspace: 1,
      maxExecsOrg: 2,
      maxExecsGateway: 3,
      ratePerMin: 60,
      tunnelsPerEndpoint: 5,
      tunnelMaxS: 1800,
    },
    logLevel: 'warn',
    metricsPort: 9100,
    traces: { variable: 'OTEL_EXPORTER_OTLP_ENDPOINT' },
    labTunnelUrl: 'ws://127.0.0.1:9999',
    ssh: { key: { pem: SSH_KEY }, knownHosts: KNOWN_HOSTS_FILE, loopback: true },
    docker: { socketPath: '/run/engine.sock' },
    localDriver: true,
    channelAhead: false,
    warnings: [],
  });
});

describe('one wrong setting is one sentence that names it', () => {
  test.each<[string, string]>([
    ['DATABASE_URL', 'mysql://db/x'],
    ['DATABASE_URL', 'postgres://ada:hunter2@db:port/x'],
    ['DATABASE_URL', 'db.internal:5432'],
    ['SALLYPORT_PORT', '65536'],
    ['SALLYPORT_PORT', '-1'],
    ['SALLYPORT_PORT', '80.5'],
    ['SALLYPORT_PORT', '8080 '],
    ['SALLYPORT_PORT', '0x50'],
    ['SALLYPORT_HOST', '[::1]'],
    ['SALLYPORT_HOST', 'a b'],
    ['SALLYPORT_PLAINTEXT', 'yes'],
    ['SALLYPORT_TRUST_PROXY', 'yes'],
    ['SALLYPORT_TRUST_PROXY', '10.0.0.0/33'],
    ['SALLYPORT_TRUST_PROXY', 'loopback,'],
    ['SALLYPORT_ORG_ID', 'my org'],
    ['SALLYPORT_ORG_TAG', 'a\nb'],
    ['SALLYPORT_ADMIN_TOKEN', 'a'.repeat(31)],
    ['SALLYPORT_ADMIN_TOKEN', `${'a'.repeat(32)} `],
    ['SALLYPORT_SIGNING_KEY', 'hunter2'],
    ['SALLYPORT_SIGNING_KEY', key],
    ['SALLYPORT_SIGNING_KEY_FILE', join(folder, 'missing.pem')],
    ['SALLYPORT_SIGNING_KEY_FILE', CERT_FILE],
    ['SALLYPORT_SIGNING_KEY_FILE', folder],
    ['SALLYPORT_HOST_KEYS', 'none'],
    ['SALLYPORT_ROUTE', 'Direct'],
    ['SALLYPORT_MAX_TIMEOUT_S', '0'],
    ['SALLYPORT_MAX_TIMEOUT_S', '1e3'],
    ['SALLYPORT_MAX_TIMEOUT_S', '99999999999999999999'],
    ['SALLYPORT_OUTPUT_CAP_BYTES', '0'],
    ['SALLYPORT_MAX_EXECS_WORKSPACE', '0'],
    ['SALLYPORT_MAX_EXECS_ORG', 'many'],
    ['SALLYPORT_MAX_EXECS_GATEWAY', '-5'],
    ['SALLYPORT_RATE_PER_MIN', '1.5'],
    ['SALLYPORT_LOG_LEVEL', 'INFO'],
    ['SALLYPORT_METRICS_PORT', 'none'],
    ['SALLYPORT_LAB_TUNNEL_URL', 'ws://10.0.0.1:80'],
    ['SALLYPORT_LAB_TUNNEL_URL', 'wss://127.0.0.1:80'],
    ['SALLYPORT_LAB_TUNNEL_URL', 'ws://127.0.0.1'],
    ['SALLYPORT_LAB_TUNNEL_URL', 'ws://127.0.0.1:99999'],
    ['SALLYPORT_LAB_TUNNEL_URL', 'ws://127.0.0.1:80@evil.example'],
    ['SALLYPORT_LOCAL_DRIVER', 'true'],
    ['SALLYPORT_DOCKER', 'yes'],
    ['SALLYPORT_SSH_AGENT', '1'],
    ['SALLYPORT_SSH_KEY_FILE', join(folder, 'missing.pem')],
    ['SALLYPORT_SSH_KEY_FILE', CERT_FILE],
  ])('%s=%j', (name, value) => {
    const found = problems({ SALLYPORT_SIGNING_KEY: name.startsWith('DATABASE') ? KEY : undefined, [name]: value });
    expect(found).toHaveLength(1);
    expect(found[0]).toMatch(new RegExp(`^${name} must .*\\.$`));
    if (/KEY$|TOKEN|DATABASE/.test(name)) expect(found[0]).not.toContain(value);
  });

  test.each(['DATABASE_URL', 'SALLYPORT_ORG_ID', 'SALLYPORT_ADMIN_TOKEN', 'SALLYPORT_PORT', 'SALLYPORT_DATA_DIR'])(
    '%s that is set to nothing is not the same as unset',
    (name) => {
      const found = problems({ SALLYPORT_SIGNING_KEY: KEY, [name]: '' });
      expect(found).toEqual([expect.stringMatching(new RegExp(`^${name} must .* is empty`))]);
    },
  );
});

test('all problems are told at once', () => {
  const env = {
    SALLYPORT_PORT: 'x',
    SALLYPORT_ROUTE: 'y',
    SALLYPORT_ADMIN_TOKEN: 'hunter2',
    SALLYPORT_HOST: '0.0.0.0',
  };
  expect(problems(env)).toHaveLength(4);
  expect(() => readConfig(env)).toThrow(/SALLYPORT_HOST.*\n.*SALLYPORT_PORT|SALLYPORT_PORT.*\n.*SALLYPORT_HOST/s);
  expect(() => readConfig(env)).toThrow(expect.objectContaining({ message: expect.not.stringContaining('hunter2') }));
});

describe('listening', () => {
  test.each(['127.0.0.1', '127.8.9.10', '::1', 'localhost'])('on %s needs nothing more', (host) => {
    expect(readConfig({ SALLYPORT_HOST: host }).host).toBe(host);
  });

  test.each(['0.0.0.0', '::', '10.0.0.1', 'gateway.example', 'localhost.example', '127.example', '::ffff:127.0.0.1'])(
    'on %s needs TLS or a proxy',
    (host) => {
      expect(problems({ SALLYPORT_HOST: host })).toEqual([expect.stringContaining('SALLYPORT_PLAINTEXT=behind-proxy')]);
      expect(problems({ SALLYPORT_HOST: host, SALLYPORT_PLAINTEXT: 'behind-proxy' })).toEqual([]);
      expect(problems({ SALLYPORT_HOST: host, SALLYPORT_TLS_CERT: CERT_FILE, SALLYPORT_TLS_KEY: KEY_FILE })).toEqual(
        [],
      );
    },
  );

  test('for metrics takes another port than for everything else', () => {
    expect(problems({ SALLYPORT_PORT: '9000', SALLYPORT_METRICS_PORT: '9000' })).toEqual([
      expect.stringContaining('SALLYPORT_METRICS_PORT must be another port'),
    ]);
    expect(problems({ SALLYPORT_METRICS_PORT: '8080' })).toHaveLength(1);
    expect(problems({ SALLYPORT_PORT: '0', SALLYPORT_METRICS_PORT: '0' })).toEqual([]);
  });

  test('with TLS works on loopback too', () => {
    const env = { SALLYPORT_TLS_CERT: CERT_FILE, SALLYPORT_TLS_KEY: KEY_FILE };
    expect(readConfig(env).tls).toEqual({ cert, key });
  });

  test.each<[string, NodeJS.ProcessEnv, string]>([
    ['a certificate without a key', { SALLYPORT_TLS_CERT: CERT_FILE }, 'SALLYPORT_TLS_KEY is missing'],
    ['a key without a certificate', { SALLYPORT_TLS_KEY: KEY_FILE }, 'SALLYPORT_TLS_CERT is missing'],
    [
      'a key of another certificate',
      { SALLYPORT_TLS_CERT: CERT_FILE, SALLYPORT_TLS_KEY: OTHER_KEY_FILE },
      'SALLYPORT_TLS_CERT and SALLYPORT_TLS_KEY must be',
    ],
    [
      'a file that is missing',
      { SALLYPORT_TLS_CERT: join(folder, 'missing'), SALLYPORT_TLS_KEY: KEY_FILE },
      'SALLYPORT_TLS_CERT must name a file that can be read',
    ],
  ])('with %s is refused, and only for that', (_what, env, text) => {
    expect(problems({ ...env, SALLYPORT_HOST: '0.0.0.0' })).toEqual([expect.stringContaining(text)]);
  });
});

describe('the signing key', () => {
  test('is required with a database of your own, except by verbs that do not use it', () => {
    expect(problems({ DATABASE_URL })).toEqual([expect.stringContaining('SALLYPORT_SIGNING_KEY_FILE is required')]);
    expect(readConfig({ DATABASE_URL }, { needsSigningKey: false }).signingKey).toBeNull();
  });

  test('may stand in a file', () => {
    const path = file('signing.pem', KEY);
    expect(readConfig({ DATABASE_URL, SALLYPORT_SIGNING_KEY_FILE: path }).signingKey).toBe(KEY);
  });

  test('may stand on one line', () => {
    const line = KEY.trim().replaceAll('\n', '\\n');
    expect(readConfig({ SALLYPORT_SIGNING_KEY: line }).signingKey).toBe(KEY.trim());
  });

  test('has one place', () => {
    const env = { SALLYPORT_SIGNING_KEY: KEY, SALLYPORT_SIGNING_KEY_FILE: file('signing.pem', KEY) };
    expect(problems(env)).toEqual([expect.stringContaining('set one of them')]);
  });
});

test('a role that migrates is of no use without the database', () => {
  expect(problems({ SALLYPORT_MIGRATE_DATABASE_URL: DATABASE_URL })).toEqual([
    expect.stringContaining('SALLYPORT_MIGRATE_DATABASE_URL'),
  ]);
});

describe('the key for hosts', () => {
  test('may be with an agent', () => {
    const { ssh } = readConfig({ SALLYPORT_SSH_AGENT: 'on', SSH_AUTH_SOCK: '/run/agent' });
    expect(ssh).toEqual({ key: { agent: '/run/agent' }, knownHosts: null, loopback: false });
  });

  test.each<[string, NodeJS.ProcessEnv, string]>([
    ['has one place', { SALLYPORT_SSH_AGENT: 'on', SALLYPORT_SSH_KEY_FILE: SSH_KEY_FILE }, 'set one of them'],
    ['is nowhere without the agent’s socket', { SALLYPORT_SSH_AGENT: 'on' }, 'needs SSH_AUTH_SOCK'],
    ['is its owner’s only', { SALLYPORT_SSH_KEY_FILE: file('open.pem', SSH_KEY, 0o644) }, 'chmod 600'],
    ['is needed by known hosts', { SALLYPORT_KNOWN_HOSTS: KNOWN_HOSTS_FILE }, 'only together with'],
    ['is needed by loopback', { SALLYPORT_SSH_LOOPBACK: 'on' }, 'only together with'],
    [
      'comes with known hosts that can be read',
      { SALLYPORT_SSH_KEY_FILE: SSH_KEY_FILE, SALLYPORT_KNOWN_HOSTS: join(folder, 'missing') },
      'SALLYPORT_KNOWN_HOSTS must name a file that can be read',
    ],
  ])('%s', (_what, env, text) => {
    expect(problems(env)).toEqual([expect.stringContaining(text)]);
  });
});

describe('the container engine', () => {
  test('has its socket at the usual place', () => {
    expect(readConfig({ SALLYPORT_DOCKER: 'on' }).docker).toEqual({ socketPath: '/var/run/docker.sock' });
  });

  test('of another machine is refused, and asked about only where the driver is on', () => {
    const env = { DOCKER_HOST: 'tcp://10.0.0.1:2375' };
    expect(problems({ ...env, SALLYPORT_DOCKER: 'on' })).toEqual([expect.stringMatching(/^DOCKER_HOST must be unix:/)]);
    expect(readConfig(env).docker).toBeNull();
  });
});

describe('trusting a proxy', () => {
  test.each<[string, string | boolean]>([
    ['true', true],
    ['false', false],
    ['1', '1'],
    ['uniquelocal', 'uniquelocal'],
    ['10.1.2.3,fd00::/8', '10.1.2.3,fd00::/8'],
  ])('%s', (text, value) => {
    expect(readConfig({ SALLYPORT_TRUST_PROXY: text }).trustProxy).toBe(value);
  });
});

describe('sessions of people', () => {
  const OIDC = {
    SALLYPORT_OIDC_ISSUER: 'https://id.example',
    SALLYPORT_OIDC_AUDIENCE: 'sallyport',
    SALLYPORT_OIDC_ROLES: '{"sre":["exec"]}',
  };

  test('need no more than issuer, audience and roles', () => {
    expect(readConfig(OIDC).oidc).toEqual({
      issuer: 'https://id.example',
      audience: 'sallyport',
      org: { claim: 'org' },
      rolesClaim: 'roles',
      roles: new Map([['sre', ['exec']]]),
    });
  });

  test('may all belong to one org', () => {
    expect(readConfig({ ...OIDC, SALLYPORT_OIDC_ORG: 'acme', SALLYPORT_ORG_ID: 'acme' }).oidc?.org).toEqual({
      id: 'acme',
    });
  });

  test.each(['http://127.0.0.1:8090', 'http://localhost/realms/a', 'http://[::1]:1/', 'https://id.example/'])(
    'the issuer may be %s',
    (issuer) => {
      expect(readConfig({ ...OIDC, SALLYPORT_OIDC_ISSUER: issuer }).oidc?.issuer).toBe(issuer);
    },
  );

  test.each<[string, string]>([
    ['SALLYPORT_OIDC_ISSUER', 'http://id.example'],
    ['SALLYPORT_OIDC_ISSUER', 'http://127.0.0.1.id.example'],
    ['SALLYPORT_OIDC_ISSUER', 'id.example'],
    ['SALLYPORT_OIDC_ISSUER', 'https://id.example/?realm=a'],
    ['SALLYPORT_OIDC_ISSUER', 'https://ada@id.example'],
    ['SALLYPORT_OIDC_ISSUER', ' https://id.example'],
    ['SALLYPORT_OIDC_ISSUER', ''],
    ['SALLYPORT_OIDC_AUDIENCE', ''],
    ['SALLYPORT_OIDC_AUDIENCE', 'a\nb'],
    ['SALLYPORT_OIDC_ROLES', 'sre=exec'],
    ['SALLYPORT_OIDC_ROLES', '["exec"]'],
    ['SALLYPORT_OIDC_ROLES', '{}'],
    ['SALLYPORT_OIDC_ROLES', '{"sre":"exec"}'],
    ['SALLYPORT_OIDC_ROLES', '{"sre":["exce"]}'],
    ['SALLYPORT_OIDC_ROLES', '{"sre":[]}'],
    ['SALLYPORT_OIDC_ROLES', '{"":["exec"]}'],
    ['SALLYPORT_OIDC_ROLES_CLAIM', '/realm~access/roles'],
    ['SALLYPORT_OIDC_ROLES_CLAIM', '/'],
    ['SALLYPORT_OIDC_ORG', 'a/b'],
    ['SALLYPORT_OIDC_ORG_CLAIM', 'a\tb'],
  ])('%s as %j stops the start with one sentence', (name, text) => {
    const found = problems({ ...OIDC, [name]: text });
    expect(found).toHaveLength(1);
    expect(found[0]).toMatch(new RegExp(`^${name} must .*\\.$`));
  });

  test('a scope that does not exist is named with its place', () => {
    expect(problems({ ...OIDC, SALLYPORT_OIDC_ROLES: '{"sre":["exec","exce"]}' })[0]).toMatch(/; sre\.1 is "exce"\.$/);
  });

  test.each(['SALLYPORT_OIDC_AUDIENCE', 'SALLYPORT_OIDC_ROLES'])('without %s nobody could come in', (name) => {
    const { [name as keyof typeof OIDC]: _left, ...rest } = OIDC;
    expect(problems(rest)).toEqual([`${name} is missing: SALLYPORT_OIDC_ISSUER needs it, and there is no default.`]);
  });

  test.each([
    ['SALLYPORT_OIDC_AUDIENCE', 'sallyport'],
    ['SALLYPORT_OIDC_ROLES', '{"sre":["exec"]}'],
    ['SALLYPORT_OIDC_ROLES_CLAIM', 'groups'],
    ['SALLYPORT_OIDC_ORG', 'acme'],
    ['SALLYPORT_OIDC_ORG_CLAIM', 'tenant'],
  ])('%s without an issuer is of no use', (name, text) => {
    expect(problems({ [name]: text })).toEqual([`${name} is of use only together with SALLYPORT_OIDC_ISSUER.`]);
  });

  test('have one way to their org, and it is one that this process serves', () => {
    expect(problems({ ...OIDC, SALLYPORT_OIDC_ORG: 'acme', SALLYPORT_OIDC_ORG_CLAIM: 'org' })).toEqual([
      'SALLYPORT_OIDC_ORG and SALLYPORT_OIDC_ORG_CLAIM are two ways to one org: set one of them.',
    ]);
    expect(problems({ ...OIDC, SALLYPORT_OIDC_ORG: 'acme', SALLYPORT_ORG_ID: 'rival' })).toEqual([
      'SALLYPORT_OIDC_ORG must be that of SALLYPORT_ORG_ID: this process serves no other.',
    ]);
  });
});

describe('a variable of ours that nobody reads', () => {
  test('is a warning with the nearest name', () => {
    expect(readConfig({ SALLYPORT_PROT: '80', SALLYPORT_TLS_CRT: 'x' }).warnings).toEqual([
      'SALLYPORT_PROT has no effect: this version has no such setting, did you mean SALLYPORT_PORT?',
      'SALLYPORT_TLS_CRT has no effect: this version has no such setting, did you mean SALLYPORT_TLS_CERT?',
    ]);
  });

  test('without a near name gets no guess', () => {
    expect(readConfig({ SALLYPORT_COLOUR_OF_THE_SKY: 'blue' }).warnings).toEqual([
      'SALLYPORT_COLOUR_OF_THE_SKY has no effect: this version has no such setting.',
    ]);
  });

  test('is none of those of the command line', () => {
    expect(readConfig({ SALLYPORT_URL: 'http://127.0.0.1:1', SALLYPORT_TOKEN: 'x' }).warnings).toEqual([]);
  });
});

describe('traces', () => {
  const ENDPOINT = { OTEL_EXPORTER_OTLP_ENDPOINT: 'https://collector:4318' };

  test.each([
    ['nothing is set', {}],
    ['the endpoint is empty', { OTEL_EXPORTER_OTLP_ENDPOINT: '' }],
    ['the SDK is disabled', { ...ENDPOINT, OTEL_SDK_DISABLED: 'TRUE' }],
    ['the exporter is none', { ...ENDPOINT, OTEL_TRACES_EXPORTER: 'none' }],
    ['another exporter is named and no endpoint', { OTEL_TRACES_EXPORTER: 'console' }],
  ])('are sent to nobody when %s', (_what, env) => {
    expect(readConfig(env).traces).toBeNull();
  });

  test('are sent where either endpoint says, theirs before the common one', () => {
    const theirs = { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://127.0.0.1:4318/v1/traces' };
    expect(readConfig(theirs).traces).toEqual({ variable: 'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT' });
    const set = { ...ENDPOINT, OTEL_SDK_DISABLED: 'false', OTEL_TRACES_EXPORTER: 'otlp', OTEL_SERVICE_NAME: '' };
    expect(readConfig(set).traces).toEqual({ variable: 'OTEL_EXPORTER_OTLP_ENDPOINT' });
    expect(readConfig({ ...set, ...theirs }).traces).toEqual({ variable: 'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT' });
  });

  test.each([
    [
      { OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4318' },
      'OTEL_EXPORTER_OTLP_ENDPOINT must be an http:// or https:// URL.',
    ],
    [{ ...ENDPOINT, OTEL_TRACES_EXPORTER: 'zipkin' }, 'OTEL_TRACES_EXPORTER must be otlp or none, not "zipkin".'],
    [
      { ...ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' },
      'OTEL_EXPORTER_OTLP_PROTOCOL must be http/json or http/protobuf: traces are sent over HTTP, not "grpc".',
    ],
  ])('%j stops the start', (env, problem) => {
    expect(problems(env)).toEqual([problem]);
  });
});
