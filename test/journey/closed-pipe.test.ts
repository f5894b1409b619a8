/** A reader that has gone: every verb that writes to it ends quietly with 141, and leaves nothing behind. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { generateSigningKey } from '../../src/access/token.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { processTable } from '../support/processes.ts';
import { builtProgram } from '../support/program.ts';
import { waitUntil } from '../support/wait.ts';

let folder: string;
let database: TestDatabase;
let env: Record<string, string>;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'closed-pipe-'));
  [database] = await Promise.all([createTestDatabase(), builtProgram()]);
  env = {
    DATABASE_URL: database.url,
    SALLYPORT_SIGNING_KEY: await generateSigningKey(),
    SALLYPORT_DATA_DIR: folder,
    SALLYPORT_PORT: '0',
    SALLYPORT_LOG_LEVEL: 'error',
  };
});
afterAll(async () => {
  await database.drop();
  await rm(folder, { recursive: true });
});

/** With `descriptor` open on a pipe whose reader has ended before. bash takes a socket as stdin for a remote shell: no rc file. */
async function intoClosed(descriptor: 'stdout' | 'stderr', args: readonly string[], settings = env) {
  const script = `exec 3> >(:); wait $!; "$@" ${descriptor === 'stdout' ? '' : '2'}>&3; echo "code $?"`;
  const { stdout, stderr } = await promisify(execFile)(
    '/bin/bash',
    ['--norc', '-c', script, 'bash', process.execPath, await builtProgram(), ...args],
    { env: { PATH: process.env.PATH, ...settings } },
  );
  return { stdout, stderr };
}

describe('stdout closed by its reader', () => {
  it.each([
    '--version',
    '--help',
    'exec --help',
    'token --help',
    'audit --help',
    'audit verify',
    'audit verify --json',
    'migrate',
    'serve',
    'demo --once',
    'lab',
  ])('%s ends quietly with 141', async (words) => {
    expect(await intoClosed('stdout', words.split(' '))).toEqual({ stdout: 'code 141\n', stderr: '' });
  });

  it('demo does so too, and stops the database server that it has started', async () => {
    const { DATABASE_URL: _, ...embedded } = env;
    const ended = await intoClosed('stdout', ['demo'], embedded);
    expect(ended).toEqual({ stdout: 'code 141\n', stderr: '' });
    expect(existsSync(join(folder, 'demo.json'))).toBe(true);
    const left = () => processTable().filter(({ args }) => args.some((arg) => arg.includes(folder)));
    await waitUntil('nothing of it runs', () => left().length === 0);
  });
});

describe('stderr closed by its reader', () => {
  it.each([
    ['audit vertify', 2],
    ['demo --twice', 2],
    ['token list', 1],
    ['exec ws-1 -- true', 125],
  ])('%s keeps its exit code', async (words, code) => {
    expect(await intoClosed('stderr', words.split(' '))).toEqual({ stdout: `code ${code}\n`, stderr: '' });
  });
});
