import { join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readConfig } from '../../src/config/config.ts';
import { selfSigned } from '../client/self-signed.ts';
import { newKeyPair } from '../support/ssh-keys.ts';
import { DATABASE_URL, KEY, problems, withFolder } from './settings.ts';

const { folder, file } = withFolder();
const { cert, key } = selfSigned();
const CERT_FILE = file('cert.pem', cert);
const KEY_FILE = file('key.pem', key);
const SSH_KEY = newKeyPair().privateKey;
const SSH_KEY_FILE = file('ssh-key', SSH_KEY);
const KNOWN_HOSTS_FILE = file('known-hosts', '');

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

test('a role that migrates is of no use without the database', () => {
  expect(problems({ SALLYPORT_MIGRATE_DATABASE_URL: DATABASE_URL })).toEqual([
    expect.stringContaining('SALLYPORT_MIGRATE_DATABASE_URL'),
  ]);
});
