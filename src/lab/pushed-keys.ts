/**
 * The public keys that were pushed, per instance and OS user, for as long as they count. A key is good for any number of
 * logins within its life and is looked at only at authentication, as on EC2.
 */
import ssh2, { type ParsedKey } from 'ssh2';

export const KEY_LIFE_MS = 60_000;
const KEY_TYPES = ['ssh-ed25519', 'ssh-rsa'];

interface PushedKey {
  line: string;
  key: ParsedKey;
  expiresAtMs: number;
}

export class PushedKeys {
  readonly #nowMs: () => number;
  readonly #keys = new Map<string, PushedKey[]>();

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** False: not a key that the service takes. */
  push(target: { instanceId: string; osUser: string }, line: string): boolean {
    const key = parseKeyLine(line);
    if (key === null) return false;
    const kept = this.#living(target);
    kept.push({ line: line.trim(), key, expiresAtMs: this.#nowMs() + KEY_LIFE_MS });
    this.#keys.set(keyOf(target), kept);
    return true;
  }

  /** The living key with these wire bytes. */
  find(target: { instanceId: string; osUser: string }, wire: Buffer): ParsedKey | null {
    return this.#living(target).find(({ key }) => key.getPublicSSH().equals(wire))?.key ?? null;
  }

  /** As lines of an authorized_keys file. */
  lines(target: { instanceId: string; osUser: string }): string[] {
    return this.#living(target).map(({ line }) => line);
  }

  #living(target: { instanceId: string; osUser: string }): PushedKey[] {
    const nowMs = this.#nowMs();
    return (this.#keys.get(keyOf(target)) ?? []).filter(({ expiresAtMs }) => expiresAtMs > nowMs);
  }
}

function keyOf(target: { instanceId: string; osUser: string }): string {
  return `${target.instanceId} ${target.osUser}`;
}

/** Only lines that begin with `ssh` pass the instance's own parser (aws-ec2-instance-connect-config, eic_parse_authorized_keys). */
function parseKeyLine(line: string): ParsedKey | null {
  const [type = '', base64 = ''] = line.trim().split(/\s+/);
  if (line.trim().includes('\n') || !KEY_TYPES.includes(type)) return null;
  const parsed = ssh2.utils.parseKey(`${type} ${base64}`);
  if (parsed instanceof Error || parsed.type !== type || parsed.isPrivateKey()) return null;
  return parsed;
}
