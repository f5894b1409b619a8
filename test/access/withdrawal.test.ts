import { describe, expect, test } from 'vitest';
import type { Standing } from '../../src/access/access.ts';
import { withdrawnRight } from '../../src/access/withdrawal.ts';
import type { Target, Workspace } from '../../src/workspace.ts';

const target = { driver: 'ec2', instanceId: 'i-1', region: 'eu-west-1', osUser: 'ec2-user', route: null } as const;
const workspace: Workspace = { id: 'ws-1', orgId: 'acme', name: 'one', tier: 3, labels: {}, target };
const standing = (change: Partial<Standing> = {}): Standing => ({
  token: 'active',
  org: { id: 'acme', name: 'Acme', frozen: false },
  personFrozen: false,
  workspace,
  ...change,
});
const needs = { jti: 'jti-1', target };
const on = (change: object): Partial<Standing> => ({
  workspace: { ...workspace, target: { ...target, ...change } as Target },
});

describe('what stands goes on', () => {
  test.each<[string, Partial<Standing>]>([
    ['nothing has changed', {}],
    ['the tier was raised', { workspace: { ...workspace, tier: 4 } }],
    ['name and labels are others', { workspace: { ...workspace, name: 'two', labels: { a: 'b' } } }],
    ['the same instance is reached by another route', on({ route: 'auto' })],
  ])('%s', (_name, change) => {
    expect(withdrawnRight(standing(change), needs)).toBeNull();
  });

  test('a credential without a row has none that could be revoked', () => {
    expect(withdrawnRight(standing({ token: 'none' }), { ...needs, jti: null })).toBeNull();
  });
});

describe('what was withdrawn ends it, and is named', () => {
  test.each<[string, Partial<Standing>]>([
    ['the token was revoked', { token: 'revoked' }],
    ['the token was revoked', { token: 'unknown' }],
    ['the org was frozen', { org: { id: 'acme', name: 'Acme', frozen: true } }],
    ['the org was frozen', { org: null }],
    ['the person was frozen', { personFrozen: true }],
    ['the workspace was deleted or moved', { workspace: null }],
    ['the tier of the workspace was lowered', { workspace: { ...workspace, tier: 2 } }],
    ['the workspace was given another host', on({ instanceId: 'i-2' })],
    ['the workspace was given another host', on({ region: 'eu-west-2' })],
    ['the workspace was given another host', on({ osUser: 'root' })],
    [
      'the workspace was given another host',
      { workspace: { ...workspace, target: { driver: 'local', osUser: 'ec2-user' } } },
    ],
  ])('%s', (why, change) => {
    expect(withdrawnRight(standing(change), needs)).toBe(why);
  });
});
