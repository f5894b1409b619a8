import { describe, expect, test } from 'vitest';
import { readConfig } from '../../src/config/config.ts';
import { DATABASE_URL, KEY, problems, withFolder } from './settings.ts';

const { file } = withFolder();

describe('the signing key', () => {
  test('is required with a database of your own, except by verbs that do not use it', () => {
    expect(problems({ DATABASE_URL })).toEqual([expect.stringContaining('SALLYPORT_SIGNING_KEY_FILE is required')]);
    expect(readConfig({ DATABASE_URL }, { needsSigningKey: false }).signingKey).toBeNull();
  });

  test('may stand in a file', () => {
    const path = file('signing.pem', KEY);
    expect(readConfig({ DATABASE_URL, SALLYPORT_SIGNING_KEY_FILE: path }).signingKey).toBe(KEY);
  });

  test('may stand on one line', () => {
    const line = KEY.trim().replaceAll('\n', '\\n');
    expect(readConfig({ SALLYPORT_SIGNING_KEY: line }).signingKey).toBe(KEY.trim());
  });

  test('has one place', () => {
    const env = { SALLYPORT_SIGNING_KEY: KEY, SALLYPORT_SIGNING_KEY_FILE: file('signing.pem', KEY) };
    expect(problems(env)).toEqual([expect.stringContaining('set one of them')]);
  });
});
