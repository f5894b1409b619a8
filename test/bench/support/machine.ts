/** What the figures were measured on. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { promisify } from 'node:util';
import { findBinaries } from '../../../src/db/postgres-binaries.ts';
import { hasNativeCrypto } from '../../../src/drivers/native-crypto.ts';

const SSHD = '/usr/sbin/sshd';

export interface Machine {
  cpu: string;
  cores: number;
  node: string;
  openssh: string;
  postgresql: string;
  /** Whether ssh2 encrypts in native code. */
  nativeCrypto: boolean;
  /** Over the last minute, before the first row. */
  loadBefore: number;
}

/** Rejects with what is to be installed where a peer is missing without which no row is valid. */
export async function readMachine(): Promise<Machine> {
  const run = promisify(execFile);
  if (!existsSync(SSHD)) throw new Error(`${SSHD} is missing (Debian: apt-get install openssh-server)`);
  const { postgres } = await findBinaries();
  const [ssh, database] = [await run('ssh', ['-V']).catch(noClient), await run(postgres, ['--version'])];
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    node: process.version,
    openssh: ssh.stderr.trim(),
    postgresql: database.stdout.trim(),
    nativeCrypto: hasNativeCrypto(),
    loadBefore: loadavg()[0] ?? Number.NaN,
  };
}

function noClient(cause: unknown): never {
  throw new Error('ssh is missing (Debian: apt-get install openssh-client)', { cause });
}
