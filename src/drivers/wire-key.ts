/** SSH public keys as they travel: RFC 4253 section 6.6, RFC 5656 section 3.1, RFC 8709 section 4. */
import { createHash } from 'node:crypto';

const CURVES: Readonly<Record<string, { name: string; pointBytes: number }>> = {
  'ecdsa-sha2-nistp256': { name: 'nistp256', pointBytes: 65 },
  'ecdsa-sha2-nistp384': { name: 'nistp384', pointBytes: 97 },
  'ecdsa-sha2-nistp521': { name: 'nistp521', pointBytes: 133 },
};
/** sshd makes no RSA key below 1024 bits, and a cut number is shorter. */
const RSA_MODULUS_MIN_BYTES = 128;

/** The type that a wire key names, or null when it does not even begin as one. */
export function wireKeyType(wire: Buffer): string | null {
  return readStrings(wire, 1)?.fields[0]?.toString('latin1') ?? null;
}

/** Whether this is one complete key of the type and nothing after it. */
export function isWireKey(wire: Buffer, type: string): boolean {
  const read = readStrings(wire, type === 'ssh-ed25519' ? 2 : 3);
  if (read === null || read.rest !== 0) return false;
  const [name, first, second] = read.fields;
  if (name?.toString('latin1') !== type) return false;
  if (type === 'ssh-ed25519') return first?.length === 32;
  if (type === 'ssh-rsa') return (first?.length ?? 0) > 0 && (second?.length ?? 0) >= RSA_MODULUS_MIN_BYTES;
  const curve = CURVES[type];
  if (curve === undefined) return false;
  return first?.toString('latin1') === curve.name && second?.length === curve.pointBytes && second[0] === 4;
}

/** As OpenSSH shows it. */
export function fingerprint(wire: Buffer): string {
  return `SHA256:${createHash('sha256').update(wire).digest('base64').replace(/=+$/, '')}`;
}

function readStrings(wire: Buffer, count: number): { fields: Buffer[]; rest: number } | null {
  const fields: Buffer[] = [];
  let at = 0;
  while (fields.length < count) {
    if (wire.length - at < 4) return null;
    const end = at + 4 + wire.readUInt32BE(at);
    if (end > wire.length) return null;
    fields.push(wire.subarray(at + 4, end));
    at = end;
  }
  return { fields, rest: wire.length - at };
}
