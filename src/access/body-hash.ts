/** A digest of a request body that says nothing to who does not hold the signing key: bodies carry secrets. */
import { createHmac, hkdfSync } from 'node:crypto';
import type { SigningKey } from './token.ts';

export type HashBody = (body: unknown) => string;

/** Every replica has the same signing key, so that one knows what another has seen. */
export function createBodyHash({ privateKey }: Pick<SigningKey, 'privateKey'>): HashBody {
  const secret = privateKey.export({ type: 'pkcs8', format: 'der' });
  const key = Buffer.from(hkdfSync('sha256', secret, '', 'sallyport request body', 32));
  return (body) => createHmac('sha256', key).update(JSON.stringify(body, inOrder)).digest('base64url');
}

/** JSON objects have no order: a client that writes the same fields in another one asks for the same. */
function inOrder(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}
