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
import { readFileSync } from 'node:fs';
import { isIP, isIPv4 } from 'node:net';
import { resolve } from 'node:path';
import { createSecureContext } from 'node:tls';
import { z } from 'zod';
import { SCOPES, type Scope } from './access/access.ts';
import { isTrustworthyUrl } from './access/issuer.ts';
import { showValue } from './access/mask.ts';
import type { OidcSettings } from './access/oidc.ts';
import { parseSigningKey } from './access/token.ts';
import { readKeyFile, type SshKey } from './drivers/ssh-key.ts';
import { TUNNELS_PER_ENDPOINT } from './limits.ts';
import { ID_PATTERN, ROUTES, type Route } from './workspace.ts';

const HOST_KEY_MODES = ['console', 'first-use', 'pinned'] as const;
const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const;

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
  return { ...config, warnings: settings.unread().map(warning) };
}

function readDatabase(settings: Settings): Pick<Config, 'databaseUrl' | 'migrateDatabaseUrl'> {
  const databaseUrl = settings.read('DATABASE_URL', POSTGRES_URL);
  const migrateDatabaseUrl = settings.read('SALLYPORT_MIGRATE_DATABASE_URL', POSTGRES_URL);
  if (migrateDatabaseUrl !== null && !settings.isSet('DATABASE_URL')) {
    settings.problems.push('SALLYPORT_MIGRATE_DATABASE_URL is of use only together with DATABASE_URL.');
  }
  return { databaseUrl, migrateDatabaseUrl };
}

function readListening(settings: Settings): Pick<Config, 'host' | 'port' | 'tls'> {
  const host = settings.read('SALLYPORT_HOST', HOST) ?? '127.0.0.1';
  const port = settings.read('SALLYPORT_PORT', PORT) ?? 8080;
  const plaintext = settings.read('SALLYPORT_PLAINTEXT', oneOf(['behind-proxy']));
  const wantsTls = settings.isSet('SALLYPORT_TLS_CERT') || settings.isSet('SALLYPORT_TLS_KEY');
  const tls = wantsTls ? readTls(settings) : null;
  if (!wantsTls && plaintext === null && !isLoopback(host)) {
    settings.problems.push(
      `SALLYPORT_HOST ${showValue(host)} can be reached from other machines: set SALLYPORT_TLS_CERT and SALLYPORT_TLS_KEY, ` +
        'or SALLYPORT_PLAINTEXT=behind-proxy where a proxy in front speaks TLS.',
    );
  }
  return { host, port, tls };
}

function readTls(settings: Settings): Config['tls'] {
  const missing = ['SALLYPORT_TLS_CERT', 'SALLYPORT_TLS_KEY'].find((name) => !settings.isSet(name));
  if (missing !== undefined) settings.problems.push(`${missing} is missing: certificate and key are set together.`);
  const cert = settings.readFile('SALLYPORT_TLS_CERT');
  const key = settings.readFile('SALLYPORT_TLS_KEY');
  if (cert === null || key === null) return null;
  try {
    createSecureContext({ cert, key });
    return { cert, key };
  } catch {
    // OpenSSL's own words help nobody and may quote the file.
    settings.problems.push('SALLYPORT_TLS_CERT and SALLYPORT_TLS_KEY must be a PEM certificate and its private key.');
    return null;
  }
}

function readSigningKey(settings: Settings, isNeeded: boolean): string | null {
  const direct = 'SALLYPORT_SIGNING_KEY';
  const file = 'SALLYPORT_SIGNING_KEY_FILE';
  const isDirect = settings.isSet(direct);
  const isFile = settings.isSet(file);
  if (isDirect && isFile) {
    settings.problems.push(`${direct} and ${file} are two places for one key: set one of them.`);
    return null;
  }
  if (!isDirect && !isFile && isNeeded && settings.isSet('DATABASE_URL')) {
    settings.problems.push(
      `${direct} or ${file} is required together with DATABASE_URL: every replica signs with the same key, ` +
        'made by `openssl genpkey -algorithm ed25519`.',
    );
  }
  // Files of variables and secrets of CI keep a PEM on one line, with its line breaks written as \n.
  const pem = settings.read(direct, SECRET_TEXT)?.replaceAll('\\n', '\n') ?? settings.readFile(file);
  if (pem === null) return null;
  try {
    parseSigningKey(pem);
    return pem;
  } catch {
    const name = isFile ? file : direct; // why, parseSigningKey does not say: it never shows what it read
    settings.problems.push(`${name} must be an unencrypted Ed25519 private key as PKCS#8 PEM.`);
    return null;
  }
}

const OIDC_ISSUER = 'SALLYPORT_OIDC_ISSUER';

function readOidc(settings: Settings): OidcSettings | null {
  const issuer = settings.read(OIDC_ISSUER, ISSUER_URL);
  const audience = settings.read('SALLYPORT_OIDC_AUDIENCE', AUDIENCE);
  const roles = readRoles(settings);
  const rolesClaim = settings.read('SALLYPORT_OIDC_ROLES_CLAIM', CLAIM) ?? 'roles';
  const id = settings.read('SALLYPORT_OIDC_ORG', ORG_ID);
  const claim = settings.read('SALLYPORT_OIDC_ORG_CLAIM', CLAIM);
  if (id !== null && claim !== null) {
    settings.problems.push('SALLYPORT_OIDC_ORG and SALLYPORT_OIDC_ORG_CLAIM are two ways to one org: set one of them.');
  }
  const needed = ['SALLYPORT_OIDC_AUDIENCE', 'SALLYPORT_OIDC_ROLES'];
  if (!settings.isSet(OIDC_ISSUER)) {
    const all = [...needed, 'SALLYPORT_OIDC_ROLES_CLAIM', 'SALLYPORT_OIDC_ORG', 'SALLYPORT_OIDC_ORG_CLAIM'];
    for (const name of all.filter(settings.isSet))
      settings.problems.push(`${name} is of use only together with ${OIDC_ISSUER}.`);
    return null;
  }
  for (const name of needed.filter((one) => !settings.isSet(one))) {
    settings.problems.push(`${name} is missing: ${OIDC_ISSUER} needs it, and there is no default.`);
  }
  if (issuer === null || audience === null || roles === null) return null;
  return { issuer, audience, org: id === null ? { claim: claim ?? 'org' } : { id }, rolesClaim, roles };
}

const rolesSchema = z.record(z.string().min(1), z.array(z.enum(SCOPES)).min(1));

function readRoles(settings: Settings): ReadonlyMap<string, readonly Scope[]> | null {
  const name = 'SALLYPORT_OIDC_ROLES';
  const raw = settings.read(name, JSON_OBJECT);
  if (raw === null) return null;
  const parsed = rolesSchema.safeParse(raw, { reportInput: true });
  if (parsed.success && Object.keys(parsed.data).length > 0) return new Map(Object.entries(parsed.data));
  const [issue] = parsed.error?.issues ?? [];
  const where = issue === undefined ? 'got no role' : `${issue.path.join('.')} is ${showValue(issue.input)}`;
  settings.problems.push(`${name} must give each role a list of scopes out of ${SCOPES.join(', ')}; ${where}.`);
  return null;
}

function isOn(settings: Settings, name: string): boolean {
  return settings.read(name, oneOf(['on', 'off'])) === 'on';
}

function readSsh(settings: Settings): Config['ssh'] {
  const key = readSshKey(settings);
  const knownHosts = settings.read('SALLYPORT_KNOWN_HOSTS', ANY_TEXT);
  if (knownHosts !== null) settings.readFile('SALLYPORT_KNOWN_HOSTS');
  const loopback = isOn(settings, 'SALLYPORT_SSH_LOOPBACK');
  if (key !== null) return { key, knownHosts: knownHosts === null ? null : resolve(knownHosts), loopback };
  const keyIsMeant = settings.isSet('SALLYPORT_SSH_KEY_FILE') || settings.isSet('SALLYPORT_SSH_AGENT');
  for (const name of ['SALLYPORT_KNOWN_HOSTS', 'SALLYPORT_SSH_LOOPBACK']) {
    if (keyIsMeant || !settings.isSet(name)) continue;
    settings.problems.push(`${name} is of use only together with SALLYPORT_SSH_KEY_FILE or SALLYPORT_SSH_AGENT=on.`);
  }
  return null;
}

function readSshKey(settings: Settings): SshKey | null {
  const byAgent = isOn(settings, 'SALLYPORT_SSH_AGENT');
  const path = settings.read('SALLYPORT_SSH_KEY_FILE', ANY_TEXT);
  if (byAgent && path !== null) {
    settings.problems.push(
      'SALLYPORT_SSH_KEY_FILE and SALLYPORT_SSH_AGENT are two places for one key: set one of them.',
    );
    return null;
  }
  if (byAgent) return readAgent(settings);
  if (path === null || settings.readFile('SALLYPORT_SSH_KEY_FILE') === null) return null;
  try {
    return { pem: readKeyFile(path) };
  } catch (error) {
    const why = error instanceof Error ? error.message : 'must be a private key';
    settings.problems.push(`SALLYPORT_SSH_KEY_FILE ${why}.`);
    return null;
  }
}

function readAgent(settings: Settings): SshKey | null {
  const agent = settings.read('SSH_AUTH_SOCK', ANY_TEXT);
  if (agent !== null) return { agent };
  if (!settings.isSet('SSH_AUTH_SOCK'))
    settings.problems.push('SALLYPORT_SSH_AGENT=on needs SSH_AUTH_SOCK, the path of the agent’s socket.');
  return null;
}

/** OpenTelemetry's own variables; only those are read that decide whether and how its SDK is started, it reads the others. */
function readTraces(settings: Settings): Config['traces'] {
  const variables = ['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT', 'OTEL_EXPORTER_OTLP_ENDPOINT'];
  const variable = variables.find((name) => settings.isSet(name));
  const isOff = settings.read('OTEL_SDK_DISABLED', ANY_TEXT)?.toLowerCase() === 'true';
  if (variable === undefined || isOff || settings.read('OTEL_TRACES_EXPORTER', ANY_TEXT) === 'none') return null;
  settings.read('OTEL_TRACES_EXPORTER', oneOf(['otlp', 'none']));
  for (const name of variables) settings.read(name, HTTP_URL);
  for (const name of ['OTEL_EXPORTER_OTLP_TRACES_PROTOCOL', 'OTEL_EXPORTER_OTLP_PROTOCOL']) {
    settings.read(name, OTLP_PROTOCOL);
  }
  return { variable };
}

/** OpenTelemetry's specification: an empty variable counts as unset. */
function withoutEmpty(env: NodeJS.ProcessEnv, prefix: string): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name, text]) => text !== '' || !name.startsWith(prefix)));
}

/** The engine's own variable, asked for only where the driver is on: a person's other tools may set it. */
function readDocker(settings: Settings): Config['docker'] {
  if (!isOn(settings, 'SALLYPORT_DOCKER')) return null;
  return { socketPath: settings.read('DOCKER_HOST', UNIX_SOCKET) ?? '/var/run/docker.sock' };
}

/** What a variable may say. `parse` answers null for what it does not understand. */
interface Kind<T> {
  expected: string;
  parse(text: string): T | null;
  isSecret?: boolean;
}

const matching = (expected: string, pattern: RegExp): Kind<string> => ({
  expected,
  parse: (text) => (pattern.test(text) ? text : null),
});

function oneOf<const T extends string>(words: readonly T[]): Kind<T> {
  return { expected: words.join(' or '), parse: (text) => words.find((word) => word === text) ?? null };
}

function whole(min: number, max: number): Kind<number> {
  return {
    expected: `a whole number from ${min} to ${max}`,
    parse(text) {
      const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
      return value >= min && value <= max ? value : null;
    },
  };
}

const PORT = whole(0, 65_535);
const ANY_TEXT = matching('a path', /./);
const SECRET_TEXT: Kind<string> = { ...matching('text', /./), isSecret: true };
const ORG_ID = matching('an id of letters, digits, dots, dashes and underscores, at most 63', ID_PATTERN);
const ISSUER_URL: Kind<string> = {
  expected: 'the https:// URL of an OIDC issuer (http:// on loopback), without query and fragment',
  parse(text) {
    const url = URL.canParse(text) ? new URL(text) : null;
    if (url === null || !isTrustworthyUrl(url) || /[?#@\s]/.test(text)) return null;
    return text;
  },
};
const AUDIENCE = matching('the audience of the tokens of people, at most 255 characters', /^[^\p{C}]{1,255}$/u);
const CLAIM = matching(
  'the name of a claim, or a JSON Pointer to one, which begins with a slash and escapes "~" and "/" in names as ~0 and ~1',
  /^(?:[^/\p{C}][^\p{C}]{0,199}|\/(?:[^~\p{C}]|~[01]){1,199})$/u,
);
const JSON_OBJECT: Kind<object> = {
  expected: 'a JSON object',
  parse(text) {
    try {
      const value: unknown = JSON.parse(text);
      return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : null;
    } catch {
      return null; // the caller says what was expected
    }
  },
};
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
const HTTP_URL: Kind<string> = {
  expected: 'an http:// or https:// URL',
  parse: (text) => (/^https?:\/\/./.test(text) && URL.canParse(text) ? text : null),
  isSecret: true, // may hold a password
};
/** A receiver on the port of HTTP takes both of its encodings; ours is JSON. */
const OTLP_PROTOCOL: Kind<string> = {
  expected: 'http/json or http/protobuf: traces are sent over HTTP',
  parse: (text) => (text === 'http/json' || text === 'http/protobuf' ? text : null),
};
const UNIX_SOCKET: Kind<string> = {
  expected: 'unix:// and the absolute path of a socket: an engine of another machine is not supported',
  parse: (text) => /^unix:\/\/(\/.+)$/.exec(text)?.[1] ?? null,
};
const HOST: Kind<string> = {
  expected: 'an address without brackets, or a host name',
  parse: (text) => (isIP(text) !== 0 || /^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(text) ? text : null),
};
const TRUST_PROXY: Kind<string | boolean> = {
  expected: 'true, false, a number of proxies, or addresses and networks such as "loopback, 10.0.0.0/8"',
  parse(text) {
    if (text === 'true' || text === 'false') return text === 'true';
    return /^\d{1,2}$/.test(text) || text.split(',').every((part) => isNetwork(part.trim())) ? text : null;
  },
};

function isNetwork(text: string): boolean {
  if (['loopback', 'linklocal', 'uniquelocal'].includes(text)) return true;
  const [address = '', bits, ...rest] = text.split('/');
  if (isIP(address) === 0 || rest.length > 0) return false;
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (isIPv4(address) ? 32 : 128));
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'));
}

interface Settings {
  readonly problems: string[];
  isSet(name: string): boolean;
  /** Null: not set, or wrong and then among the problems. */
  read<T>(name: string, kind: Kind<T>): T | null;
  /** The text of the file that the variable names. */
  readFile(name: string): string | null;
  /** Names of ours that are set and that nobody asked for, each with the names that were asked for. */
  unread(): { name: string; known: readonly string[] }[];
}

function createSettings(env: NodeJS.ProcessEnv): Settings {
  const problems: string[] = [];
  const known = new Set<string>(['SALLYPORT_URL', 'SALLYPORT_TOKEN']); // the command line reads these

  function isSet(name: string): boolean {
    known.add(name);
    return env[name] !== undefined;
  }

  function read<T>(name: string, { expected, parse, isSecret = false }: Kind<T>): T | null {
    known.add(name);
    const text = env[name];
    if (text === undefined) return null;
    const value = text === '' ? null : parse(text);
    const came =
      text === '' ? ', and is empty: unset it or give it a value' : isSecret ? '' : `, not ${showValue(text)}`;
    if (value === null) problems.push(`${name} must be ${expected}${came}.`);
    return value;
  }

  function readFile(name: string): string | null {
    const path = read(name, ANY_TEXT);
    if (path === null) return null;
    try {
      return readFileSync(path, 'utf8');
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : 'an unknown error';
      problems.push(`${name} must name a file that can be read: ${showValue(path)} gives ${code}.`);
      return null;
    }
  }

  function unread(): { name: string; known: readonly string[] }[] {
    const names = Object.keys(env).filter((name) => name.startsWith('SALLYPORT_') && !known.has(name));
    return names.sort().map((name) => ({ name, known: [...known] }));
  }

  return { problems, isSet, read, readFile, unread };
}

function warning({ name, known }: { name: string; known: readonly string[] }): string {
  const [nearest] = known.map((other) => ({ other, edits: countEdits(name, other) })).sort((a, b) => a.edits - b.edits);
  const hint = nearest !== undefined && nearest.edits <= 3 ? `, did you mean ${nearest.other}?` : '.';
  return `${name} has no effect: this version has no such setting${hint}`;
}

/** Levenshtein distance. */
function countEdits(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (const [above, letter] of [...from].entries()) {
    const next = [above + 1];
    for (const [index, other] of [...to].entries()) {
      const replaced = (row[index] ?? 0) + (letter === other ? 0 : 1);
      next.push(Math.min(replaced, (row[index + 1] ?? 0) + 1, (next[index] ?? 0) + 1));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}
