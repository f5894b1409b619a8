/** Whether ssh2 encrypts in native code. Without a compiler at install time it falls back to JavaScript in silence. */
import { createRequire } from 'node:module';

export function hasNativeCrypto(): boolean {
  // ssh2 tells nobody but its own files.
  const crypto: unknown = createRequire(import.meta.url)('ssh2/lib/protocol/crypto.js');
  return (crypto as { bindingAvailable?: unknown }).bindingAvailable === true;
}
