/**
 * OpenSSH's file of known hosts: which keys it gives to one host. Source: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".
 *
 * Plain and hashed names, patterns with * and ?, negation, `[host]:port`, `@revoked`, `@cert-authority`. What cannot be read
 * counts for nothing, as in OpenSSH. Its fallback from `[host]:port` to the bare name is left out: another port is often
 * another machine behind the same address.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import { type HostKeyPin, parseKeyLine } from './host-keys.ts';

export interface KnownHost {
  keys: HostKeyPin[];
  /** Never to be accepted, whoever else names them. */
  revoked: HostKeyPin[];
  /** The file trusts an authority to sign this host's keys. */
  hasAuthority: boolean;
}

const SSH_PORT = 22;

/** `text`: of the file. Never throws. */
export function findKnownHost(text: string, host: string, port: number): KnownHost {
  const name = nameOf(host, port);
  const found: KnownHost = { keys: [], revoked: [], hasAuthority: false };
  for (const line of text.split(/\r?\n/)) {
    const entry = parseLine(line);
    if (entry === null || !matches(entry.hosts, name)) continue;
    const key = parseKeyLine(entry.key);
    if (entry.marker === '@cert-authority') found.hasAuthority = true;
    else if (key !== null) found[entry.marker === '@revoked' ? 'revoked' : 'keys'].push(key);
  }
  return found;
}

/** As OpenSSH writes a host into the file. */
function nameOf(host: string, port: number): string {
  const lower = host.toLowerCase();
  return port === SSH_PORT ? lower : `[${lower}]:${port}`;
}

const MARKERS = ['@revoked', '@cert-authority'];

/** Null: empty, a comment, or a marker that nobody knows. */
function parseLine(line: string): { marker: string | null; hosts: string; key: string } | null {
  const words = line.trim().split(/[ \t]+/);
  const marker = words[0]?.startsWith('@') ? (words.shift() ?? null) : null;
  const [hosts = '', ...key] = words;
  if (hosts === '' || hosts.startsWith('#') || (marker !== null && !MARKERS.includes(marker))) return null;
  return { marker, hosts, key: key.join(' ') };
}

function matches(hosts: string, name: string): boolean {
  if (hosts.startsWith('|')) return matchesHashed(hosts, name);
  const patterns = hosts.toLowerCase().split(',');
  const hit = (pattern: string): boolean => toRegExp(pattern).test(name);
  if (patterns.some((pattern) => pattern.startsWith('!') && hit(pattern.slice(1)))) return false;
  return patterns.some((pattern) => !pattern.startsWith('!') && hit(pattern));
}

/** `|1|salt|hash`: HMAC-SHA1 of the name, so that a stolen file names no hosts. */
function matchesHashed(hosts: string, name: string): boolean {
  const [, version, salt = '', hash = ''] = hosts.split('|');
  const expected = Buffer.from(hash, 'base64');
  const actual = createHmac('sha1', Buffer.from(salt, 'base64')).update(name).digest();
  return version === '1' && expected.length === actual.length && timingSafeEqual(expected, actual);
}

function toRegExp(pattern: string): RegExp {
  const literal = pattern.replaceAll(/[.+^${}()|[\]\\]/g, '\\$&');
  // Runs of stars are one: they would cost time without bound.
  return new RegExp(`^${literal.replaceAll(/\*+/g, '.*').replaceAll('?', '.')}$`, 's');
}
