/**
 * What a test needs of the machine, for `describe.skipIf(!require…())`.
 *
 * A machine without it may still run the other tests, after a loud word; where SALLYPORT_FORBID_SKIPS=1 it fails
 * instead, so that no CI stays green by running less.
 */
import { accessSync, constants } from 'node:fs';

export function requireSshd(): boolean {
  return requireProgram('/usr/sbin/sshd', 'openssh-server');
}

/** `debianPackage`: what to install. */
export function requireProgram(path: string, debianPackage: string): boolean {
  return must(isExecutable(path), `${path} is missing (Debian: apt-get install ${debianPackage})`);
}

/** Making users, and logging in others than oneself. */
export function requireRoot(): boolean {
  return must(isRoot(), 'only root can make the users that this test logs in');
}

export function isRoot(): boolean {
  return process.getuid?.() === 0;
}

function must(met: boolean, message: string): boolean {
  if (met) return true;
  if (process.env.SALLYPORT_FORBID_SKIPS === '1') throw new Error(message);
  console.warn(`\n!!! TESTS ARE SKIPPED: ${message}\n`);
  return false;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false; // The answer, not a failure.
  }
}
