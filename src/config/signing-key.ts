/** The key that signs tokens and checkpoints: from a variable or from a file. */
import { parseSigningKey } from '../access/token.ts';
import { SECRET_TEXT } from './kinds.ts';
import type { Settings } from './settings.ts';

/** PKCS#8 PEM. Null: there is none, or it is wrong and among the problems. */
export function readSigningKey(settings: Settings, isNeeded: boolean): string | null {
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
