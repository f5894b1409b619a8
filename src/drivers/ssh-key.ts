/** The gateway's own key for hosts of the driver ssh: a file, or an agent that holds it. */
import { readFileSync, statSync } from 'node:fs';
import ssh2 from 'ssh2';

/** `pem`: a private key in OpenSSH or PEM form, in memory only. `agent`: the path of its socket. */
export type SshKey = { pem: string } | { agent: string };

/** Others than the owner. */
const OTHERS = 0o077;

/** Throws an Error that says what the file must be, never what is in it. */
export function readKeyFile(path: string): string {
  const { mode } = statSync(path);
  if ((mode & OTHERS) !== 0) throw new Error('must be readable by its owner only (chmod 600)');
  const pem = readFileSync(path, 'utf8');
  const parsed = ssh2.utils.parseKey(pem);
  if (parsed instanceof Error || !parsed.isPrivateKey())
    throw new Error('must be a private key in OpenSSH form, without a passphrase');
  return pem;
}
