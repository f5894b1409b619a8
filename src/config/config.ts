/**
 * The environment, read once → Config; refuses to start with the full list of what is wrong.
 *
 * Every problem is one sentence that names its variable; values of secrets are in none. Reads the files that variables
 * name (TLS, signing key, SSH key), creates nothing, connects to nothing. `AWS_*` and most of `OTEL_*` belong to their SDKs.
 *
 * Decisions:
 * - A variable that is set but empty is refused: `SALLYPORT_ORG_ID=$ORG` with no ORG must not serve every org.
 * - A SALLYPORT_ variable that nobody reads is a warning with the nearest name: most are typing errors, and an older
 *   version must still start where a newer one was configured.
 * - Sessions of people need the whole of SALLYPORT_OIDC_*: an issuer whose claims give nobody a scope is a mistake.
 */
import { resolve } from 'node:path';
import type { OidcSettings } from '../access/oidc.ts';
import type { SshKey } from '../drivers/ssh-key.ts';
import { TUNNELS_PER_ENDPOINT } from '../limits.ts';
import { ROUTES, type Route } from '../workspace.ts';
import { readDocker, readSsh } from './drivers.ts';
import { ANY_TEXT, type Kind, matching, ORG_ID, oneOf, PORT, whole } from './kinds.ts';
import { readListening, TRUST_PROXY } from './listening.ts';
import { readOidc } from './oidc.ts';
import { createSettings, isOn, type Settings } from './settings.ts';
import { readSigningKey } from './signing-key.ts';
import { readTraces } from './traces.ts';
import { warnOfUnread } from './unread.ts';

const HOST_KEY_MODES = ['console', 'first-use', 'pinned'] as const;
const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const;
const TAG_KEY = matching('the key of a tag, at most 128 characters', /^[^\p{C}]{1,128}$/u);
const ADMIN_TOKEN: Kind<string> = {
  ...matching('at least 32 characters, all of them visible ASCII', /^[\x21-\x7e]{32,}$/),
  isSecret: true,
};
const POSTGRES_URL: Kind<string> = {
  expected: 'a postgres:// URL',
  parse: (text) => (/^postgres(?:ql)?:\/\/./.test(text) && URL.canParse(text) ? text : null),
  isSecret: true,
};
const LAB_URL: Kind<string> = {
  expected: 'ws:// with 127.0.0.1 or [::1] and a port: the lab is on this machine',
  parse: (text) => (/^ws:\/\/(?:127\.0\.0\.1|\[::1\]):\d+\/?$/.test(text) && URL.canParse(text) ? text : null),
};

export interface Config {
  /** Null: the embedded database in `dataDir`. */
  databaseUrl: string | null;
  /** Null: as `databaseUrl`. */
  migrateDatabaseUrl: string | null;
  host: string;
  /** 0: any free port. */
  port: number;
  /** PEM text. */
  tls: { cert: string; key: string } | null;
  /** Express' own setting; a number of proxies stands as text. */
  trustProxy: string | boolean | null;
  /** Absolute. */
  dataDir: string;
  /** Set: this process serves one org only. */
  orgId: string | null;
  /** Set: the tag of an instance that must equal the org. */
  orgTag: string | null;
  adminToken: string | null;
  /** Null: there are no sessions of people. */
  oidc: OidcSettings | null;
  /** PKCS#8 PEM; null: made and kept in `dataDir`. */
  signingKey: string | null;
  hostKeys: (typeof HOST_KEY_MODES)[number];
  route: Route;
  limits: {
    maxTimeoutS: number;
    outputCapBytes: number;
    maxExecsWorkspace: number;
    maxExecsOrg: number;
    maxExecsGateway: number;
    /** Requests per minute and credential; 0: no limit. */
    ratePerMin: number;
    /** Connections of this process at once through one endpoint; AWS allows 20 to all replicas together. */
    tunnelsPerEndpoint: number;
    /** Asked for at each tunnel; AWS cuts one after an hour, an IAM policy may ask for less. */
    tunnelMaxS: number;
  };
  logLevel: (typeof LOG_LEVELS)[number];
  /** Null: metrics are served beside everything else; 0: any free port. */
  metricsPort: number | null;
  /** Null: nobody is sent traces. `variable`: the one that names the receiver. */
  traces: { variable: string } | null;
  /** For development: used in place of the endpoint's own address. */
  labTunnelUrl: string | null;
  /** Null: the driver ssh is off. `knownHosts`: absolute path. `loopback`: whether this machine may be dialled. */
  ssh: { key: SshKey; knownHosts: string | null; loopback: boolean } | null;
  /** Null: the driver docker is off. */
  docker: { socketPath: string } | null;
  localDriver: boolean;
  /** Whether each SSH connection keeps a channel open ahead of the next exec. */
  channelAhead: boolean;
  /** One sentence each, for the log. */
  warnings: string[];
}

export class ConfigError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(problems.join('\n'));
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

/** Throws ConfigError. `needsSigningKey` false: for verbs that touch the database but issue and verify no tokens. */
export function readConfig(env: NodeJS.ProcessEnv, { needsSigningKey = true } = {}): Config {
  const settings = createSettings(withoutEmpty(env, 'OTEL_'));
  const config = {
    ...readDatabase(settings),
    ...readListening(settings),
    trustProxy: settings.read('SALLYPORT_TRUST_PROXY', TRUST_PROXY),
    dataDir: resolve(settings.read('SALLYPORT_DATA_DIR', ANY_TEXT) ?? './.sallyport'),
    orgId: settings.read('SALLYPORT_ORG_ID', ORG_ID),
    orgTag: settings.read('SALLYPORT_ORG_TAG', TAG_KEY),
    adminToken: settings.read('SALLYPORT_ADMIN_TOKEN', ADMIN_TOKEN),
    oidc: readOidc(settings),
    signingKey: readSigningKey(settings, needsSigningKey),
    hostKeys: settings.read('SALLYPORT_HOST_KEYS', oneOf(HOST_KEY_MODES)) ?? 'console',
    route: settings.read('SALLYPORT_ROUTE', oneOf(ROUTES)) ?? 'endpoint',
    limits: {
      maxTimeoutS: settings.read('SALLYPORT_MAX_TIMEOUT_S', whole(1, 86_400)) ?? 120,
      outputCapBytes: settings.read('SALLYPORT_OUTPUT_CAP_BYTES', whole(1, 2 ** 30)) ?? 16 * 1024 * 1024,
      maxExecsWorkspace: settings.read('SALLYPORT_MAX_EXECS_WORKSPACE', whole(1, 1_000_000)) ?? 128,
      maxExecsOrg: settings.read('SALLYPORT_MAX_EXECS_ORG', whole(1, 1_000_000)) ?? 1024,
      maxExecsGateway: settings.read('SALLYPORT_MAX_EXECS_GATEWAY', whole(1, 1_000_000)) ?? 4096,
      ratePerMin: settings.read('SALLYPORT_RATE_PER_MIN', whole(0, 1_000_000)) ?? 0,
      tunnelsPerEndpoint: settings.read('SALLYPORT_TUNNELS_PER_ENDPOINT', whole(1, 10_000)) ?? TUNNELS_PER_ENDPOINT,
      tunnelMaxS: settings.read('SALLYPORT_TUNNEL_MAX_S', whole(60, 3_600)) ?? 3_600,
    },
    logLevel: settings.read('SALLYPORT_LOG_LEVEL', oneOf(LOG_LEVELS)) ?? 'info',
    metricsPort: settings.read('SALLYPORT_METRICS_PORT', PORT),
    traces: readTraces(settings),
    labTunnelUrl: settings.read('SALLYPORT_LAB_TUNNEL_URL', LAB_URL),
    ssh: readSsh(settings),
    docker: readDocker(settings),
    localDriver: isOn(settings, 'SALLYPORT_LOCAL_DRIVER'),
    channelAhead: settings.read('SALLYPORT_SSH_CHANNEL_AHEAD', oneOf(['on', 'off'])) !== 'off',
  };
  if (config.metricsPort === config.port && config.port !== 0) {
    settings.problems.push('SALLYPORT_METRICS_PORT must be another port than SALLYPORT_PORT, or 0 for any free one.');
  }
  if (config.oidc !== null && config.orgId !== null && 'id' in config.oidc.org && config.oidc.org.id !== config.orgId) {
    settings.problems.push('SALLYPORT_OIDC_ORG must be that of SALLYPORT_ORG_ID: this process serves no other.');
  }
  if (settings.problems.length > 0) throw new ConfigError(settings.problems);
  return { ...config, warnings: settings.unread().map(warnOfUnread) };
}

function readDatabase(settings: Settings): Pick<Config, 'databaseUrl' | 'migrateDatabaseUrl'> {
  const databaseUrl = settings.read('DATABASE_URL', POSTGRES_URL);
  const migrateDatabaseUrl = settings.read('SALLYPORT_MIGRATE_DATABASE_URL', POSTGRES_URL);
  if (migrateDatabaseUrl !== null && !settings.isSet('DATABASE_URL')) {
    settings.problems.push('SALLYPORT_MIGRATE_DATABASE_URL is of use only together with DATABASE_URL.');
  }
  return { databaseUrl, migrateDatabaseUrl };
}

/** OpenTelemetry's specification: an empty variable counts as unset. */
function withoutEmpty(env: NodeJS.ProcessEnv, prefix: string): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name, text]) => text !== '' || !name.startsWith(prefix)));
}
