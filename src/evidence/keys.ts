/** By which keys signatures are checked. */
import { access, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createSignatureCheck, loadPublicKey, type PublicKey, type SignatureCheck } from '../access/checkpoint.ts';
import type { Config } from '../config/config.ts';

/** The keys that were given; otherwise the gateway's own, which is kept in the data folder when the database is. */
export async function signatureCheck(config: Config, files: readonly string[]): Promise<SignatureCheck | null> {
  const keys: PublicKey[] = [];
  for (const file of files) keys.push(await publicKeyOf(file));
  if (keys.length === 0) {
    const kept = join(config.dataDir, 'signing-key.pem');
    if (config.signingKey !== null) keys.push(await loadPublicKey(config.signingKey));
    else if (config.databaseUrl === null && (await exists(kept))) keys.push(await publicKeyOf(kept));
  }
  return keys.length === 0 ? null : createSignatureCheck(keys);
}

async function publicKeyOf(file: string): Promise<PublicKey> {
  try {
    return await loadPublicKey(await readFile(file, 'utf8'));
  } catch (cause) {
    throw new Error(`--public-key ${file}: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
}

async function exists(file: string): Promise<boolean> {
  return await access(file).then(
    () => true,
    () => false,
  );
}
