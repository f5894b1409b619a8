/** The programs of test/fixtures/bin, by absolute path. */
import { chmodSync, cpSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const FIXTURES = fileURLToPath(new URL('../fixtures/bin', import.meta.url));

export function fixture(name: string): string {
  return join(FIXTURES, name);
}

/** A copy that every user of this machine may run; the checkout may lie in somebody's private folder. */
export function copyFixturesForEverybody(): string {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-fixtures-'));
  cpSync(FIXTURES, folder, { recursive: true });
  chmodSync(folder, 0o755);
  return folder;
}
