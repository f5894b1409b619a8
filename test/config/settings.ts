/** What the tests of settings share: the sentences that an environment gets, and files for variables to name. */
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { ConfigError, readConfig } from '../../src/config/config.ts';

/** Never connected to. */
export const DATABASE_URL = 'postgres://gateway:hunter2@127.0.0.1/sallyport';
/** A signing key, PKCS#8 PEM. */
export const KEY = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();

/** What stops a start with these settings; empty for nothing. */
export function problems(env: NodeJS.ProcessEnv): readonly string[] {
  try {
    readConfig(env);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}

/** A folder for one test file, gone with it. `file` writes into it and gives back the path. */
export function withFolder(): { folder: string; file(name: string, text: string, mode?: number): string } {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-config-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  return {
    folder,
    file(name, text, mode = 0o600) {
      const path = join(folder, name);
      writeFileSync(path, text, { mode });
      return path;
    },
  };
}
