import { describe, expect, test } from 'vitest';
import { type Caller, SCOPES } from '../../src/access/access.ts';
import { guardOrg, mayLookAt, mayScope, notFound } from '../../src/access/tenant.ts';
import { ADMIN, aCaller } from './a-caller.ts';

const ORG = aCaller({});

describe('guardOrg', () => {
  test.each<[string, Caller, string | undefined, string | null, string | null]>([
    ['a token acts in its org', ORG, undefined, null, 'acme'],
    ['a header that matches changes nothing', ORG, 'acme', null, 'acme'],
    ['a process of the same org changes nothing', ORG, 'acme', 'acme', 'acme'],
    ['the admin token alone acts in no org', ADMIN, undefined, null, null],
    ['the admin token acts in the org of the header', ADMIN, 'acme', null, 'acme'],
    ['the admin token acts in the org of the process', ADMIN, undefined, 'acme', 'acme'],
    ['the admin token may name the org of the process', ADMIN, 'acme', 'acme', 'acme'],
  ])('%s', (_rule, caller, headerOrgId, processOrgId, org) => {
    expect(guardOrg(caller, { headerOrgId, processOrgId })).toBe(org);
  });

  test.each<[string, Caller, string | undefined, string | null]>([
    ['a header of another org', ORG, 'other', null],
    ['a header in other letters', ORG, 'Acme', null],
    ['an empty header', ORG, '', null],
    ['two headers joined', ORG, 'acme, acme', null],
    ['a process of another org', ORG, undefined, 'other'],
    ['a process of another org whatever the header says', ORG, 'other', 'other'],
    ['an admin header against the process', ADMIN, 'acme', 'other'],
    ['an admin header that is no id', ADMIN, '', null],
  ])('%s is not found', (_rule, caller, headerOrgId, processOrgId) => {
    expect(() => guardOrg(caller, { headerOrgId, processOrgId })).toThrow(notFound());
  });
});

describe('mayScope', () => {
  test('passes with the scope and names the one that is missing', () => {
    const caller = aCaller({ scopes: new Set(['exec'] as const) });
    expect(() => mayScope(caller, 'exec')).not.toThrow();
    expect(() => mayScope(caller, 'terminal')).toThrow(
      expect.objectContaining({ code: 'scope_missing', message: expect.stringContaining('"terminal"') }),
    );
  });

  test('a credential with rules has no files, terminal, fleet, registry or tokens, even when it carries the scope', () => {
    const caller = aCaller({ allow: [['true']] });
    const allowed = SCOPES.filter((scope) => {
      try {
        mayScope(caller, scope);
        return true;
      } catch {
        return false; // which error it is, is asked above
      }
    });
    expect(allowed).toEqual(['exec', 'diagnose', 'activity:read', 'workspaces:read']);
  });
});

test('a workspace token sees its own workspace only, an org token any id', () => {
  const bound = aCaller({ kind: 'workspace', workspaceId: 'ws-1' });
  expect(mayLookAt(bound, 'ws-1')).toBe(true);
  expect(mayLookAt(bound, 'ws-2')).toBe(false);
  expect(mayLookAt(ORG, 'ws-2')).toBe(true);
});
