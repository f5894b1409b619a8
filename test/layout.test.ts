/** Imports go downhill, third-party packages stay where they belong, files are named alike. */
import { readdirSync, readFileSync } from 'node:fs';
import { join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { checkLayout, nameProblems, type Tree } from './support/layout.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const manifest: { dependencies: object; optionalDependencies: object; peerDependencies: object } = JSON.parse(
  readFileSync(join(root, 'package.json'), 'utf8'),
);
const dependencies = Object.keys({
  ...manifest.dependencies,
  ...manifest.optionalDependencies,
  ...manifest.peerDependencies,
});

function filesBelow(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) =>
      join(entry.parentPath, entry.name)
        .slice(join(root, folder).length + 1)
        .replaceAll(sep, '/'),
    );
}

describe('this repository', () => {
  test('keeps the rules of the house in src', () => {
    const tree: Tree = new Map(filesBelow('src').map((path) => [path, readFileSync(join(root, 'src', path), 'utf8')]));
    expect(tree.size).toBeGreaterThan(5);
    expect(checkLayout(tree, dependencies)).toEqual([]);
  });

  // Node 20 collects a timeout as garbage that only AbortSignal.any refers to, and it never fires: a limit that is lost
  // now and then. A controller and a timer of one's own are held by each other.
  test('keeps AbortSignal.timeout out of the files that use AbortSignal.any', () => {
    const both = filesBelow('src').filter((path) => {
      const text = readFileSync(join(root, 'src', path), 'utf8');
      return text.includes('AbortSignal.any(') && text.includes('AbortSignal.timeout(');
    });
    expect(both).toEqual([]);
  });

  test('names the files of its tests in kebab case', () => {
    expect(filesBelow('test').flatMap((path) => nameProblems(path).map((problem) => `${path}: ${problem}`))).toEqual(
      [],
    );
  });
});

function check(files: Record<string, string>): string[] {
  return checkLayout(new Map(Object.entries(files)), ['express', 'pg', 'ssh2', 'zod', '@aws-sdk/client-ec2']);
}

/** [what, file, its text, part of the one complaint] */
const REFUSED: [string, string, string, string][] = [
  ['uphill', 'access/tier.ts', `import { run } from '../exec/run.ts';`, 'uphill from rank 2 to 3'],
  ['uphill for a type', 'exec/run.ts', `import type { Row } from '../db/audit.ts';`, 'uphill from rank 3 to 5'],
  ['uphill by a re-export', 'exec/run.ts', `export { x } from '../http/gates.ts';`, 'uphill from rank 3 to 6'],
  ['uphill by export star', 'exec/run.ts', `export * from '../http/gates.ts';`, 'uphill'],
  ['uphill, lazily', 'drivers/ec2.ts', `const x = () => import('../exec/exec.ts');`, 'uphill'],
  ['uphill, a lazy template', 'drivers/ec2.ts', 'const x = () => import(`../exec/exec.ts`);', 'uphill'],
  ['uphill in a type position', 'drivers/ec2.ts', `let x: import('../exec/exec.ts').X;`, 'uphill'],
  ['uphill by require', 'drivers/ec2.ts', `const x = require('../exec/exec.ts');`, 'uphill'],
  ['a port file its own folder', 'sessions/session.ts', `import { p } from './pool.ts';`, 'uphill from rank 1 to 2'],
  ['a driver the pool', 'drivers/ec2.ts', `import { createPool } from '../sessions/pool.ts';`, 'a neighbour of rank 2'],
  [
    'a driver an access type',
    'drivers/ec2.ts',
    `import type { C } from '../access/access.ts';`,
    'a neighbour of rank 2',
  ],
  ['files what exec has', 'files/files.ts', `import { run } from '../exec/run.ts';`, 'a neighbour of rank 3'],
  ['db a value of a port', 'db/tokens.ts', `import { SCOPES } from '../access/access.ts';`, 'use import type'],
  ['db an inline type', 'db/tokens.ts', `import { type T } from '../access/access.ts';`, 'use import type'],
  ['the client a driver', 'client/client.ts', `import { x } from '../drivers/ec2.ts';`, 'use import type'],
  ['the client the database', 'client/client.ts', `import type { D } from '../db/database.ts';`, 'a neighbour'],
  ['the command line limits', 'cli/exec.ts', `import { X } from '../limits.ts';`, 'only client/, errors.ts'],
  ['the console a frame type', 'console/app.ts', `import type { F } from '../exec/frame.ts';`, 'only client/'],
  ['the lab an error', 'lab/lab.ts', `import { SallyportError } from '../errors.ts';`, 'the lab stands alone'],
  ['a route the lab', 'http/router.ts', `import { startLab } from '../lab/lab.ts';`, 'only the programs start the lab'],
  ['the evidence the lab', 'evidence/verify.ts', `import { startLab } from '../lab/lab.ts';`, 'only the programs'],
  ['a route the program', 'http/router.ts', `import { x } from '../main.ts';`, 'nothing imports a program'],
  ['settings a program', 'config/config.ts', `import { serve } from '../serve.ts';`, 'nothing imports a program'],
  ['a route the settings', 'http/router.ts', `import { C } from '../config/config.ts';`, 'a neighbour of rank 6'],
  ['exec the settings', 'exec/exec.ts', `import type { C } from '../config/config.ts';`, 'uphill from rank 3 to 6'],
  ['a program the main one', 'demo.ts', `import { x } from './main.ts';`, 'nothing imports a program'],
  ['something without a rank', 'errors.ts', `import { x } from './utils/text.ts';`, 'which has no rank'],
  ['out of src', 'errors.ts', `import x from '../package.json' with { type: 'json' };`, 'outside src'],
  ['Express away from http', 'exec/exec.ts', `import type { Request } from 'express';`, 'belongs to http/ only'],
  ['pg away from db', 'http/server.ts', `import pg from 'pg';`, 'belongs to db/ only'],
  ['ssh2 away from drivers', 'exec/exec.ts', `import { Client } from 'ssh2';`, 'belongs to drivers/, lab/ only'],
  ['part of ssh2', 'exec/exec.ts', `import { x } from 'ssh2/lib/utils.js';`, 'belongs to drivers/, lab/ only'],
  ['AWS in another driver', 'drivers/ec2.ts', `await import('@aws-sdk/client-ec2');`, 'belongs to drivers/aws.ts only'],
  ['AWS in the lab', 'lab/aws-api.ts', `import '@aws-sdk/client-ec2';`, 'belongs to drivers/aws.ts only'],
  ['a signer in exec', 'exec/exec.ts', `import { S } from '@smithy/signature-v4';`, 'belongs to drivers/aws.ts'],
  ['commander in main', 'main.ts', `import { Command } from 'commander';`, 'belongs to cli/ only'],
  ['a development package', 'exec/exec.ts', `import fc from 'fast-check';`, 'not among the dependencies'],
  ['an index', 'exec/index.ts', '', 'is a barrel'],
  ['a camel-case file', 'exec/runCommand.ts', '', 'not kebab case'],
  ['a snake-case folder', 'exec/old_style/run.ts', '', 'not kebab case'],
];

describe('the checker refuses', () => {
  test.each(REFUSED)('%s', (_what, path, text, complaint) => {
    expect(check({ [path]: text })).toEqual([expect.stringContaining(complaint)]);
  });

  test('a file that nobody gave a rank, once it imports something', () => {
    expect(check({ 'utils/text.ts': `import { x } from '../errors.ts';` })).toEqual([
      expect.stringContaining('has no rank'),
    ]);
  });

  test('a cycle, also a lazy one, and tells the way round', () => {
    const broken = check({
      'exec/a.ts': `import { b } from './b.ts';`,
      'exec/b.ts': `import { c } from './c.ts';`,
      'exec/c.ts': `export const c = () => import('./a.ts');`,
    });
    expect(broken).toEqual(['exec/a.ts: import cycle exec/a.ts → exec/b.ts → exec/c.ts → exec/a.ts']);
  });

  test('a file that imports itself', () => {
    expect(check({ 'exec/a.ts': `import { b } from './a.ts';` })).toEqual([expect.stringContaining('import cycle')]);
  });

  test('a computed import, because nobody can check it', () => {
    expect(() => check({ 'exec/a.ts': 'await import(name);' })).toThrow('computed');
  });
});

const ALLOWED: [string, string, string][] = [
  ['downhill', 'http/router.ts', `import { exec } from '../exec/exec.ts';`],
  ['its own folder', 'drivers/ec2.ts', `import { x } from './host-keys.ts';`],
  ['a port from a neighbouring folder', 'drivers/ec2.ts', `import type { Session } from '../sessions/session.ts';`],
  ['types between the nouns', 'errors.ts', `import type { Outcome } from './outcome.ts';`],
  ['the type of a port for an adapter', 'db/tokens.ts', `import type { TokenStore } from '../access/access.ts';`],
  ['values of ranks 0 and 1 for an adapter', 'db/audit.ts', `import { LIST_LIMIT_MAX } from '../limits.ts';`],
  ['the client for the command line', 'cli/exec.ts', `import { createClient } from '../client/client.ts';`],
  ['ssh2 for the lab', 'lab/instance.ts', `import ssh2 from 'ssh2';`],
  ['AWS in its place', 'drivers/aws.ts', `const ec2 = () => import('@aws-sdk/client-ec2');`],
  [
    'everything for the programs',
    'demo.ts',
    `import { startLab } from './lab/lab.ts'; import { s } from './serve.ts';`,
  ],
  ['what only looks like an import', 'exec/a.ts', `// import 'express';\nexport const x = "import('pg')";`],
];

describe('the checker allows', () => {
  test.each(ALLOWED)('%s', (_what, path, text) => {
    expect(check({ [path]: text })).toEqual([]);
  });

  test('types that point at each other', () => {
    const files = {
      'errors.ts': `import type { Outcome } from './outcome.ts';`,
      'outcome.ts': `import type { ErrorCode } from './errors.ts';`,
    };
    expect(check(files)).toEqual([]);
  });
});
