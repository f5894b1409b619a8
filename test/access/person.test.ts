import { describe, expect, test } from 'vitest';
import type { Scope } from '../../src/access/access.ts';
import { type ClaimRules, isSub, orgOf, scopesOf } from '../../src/access/person.ts';

const rules = (change: Partial<ClaimRules> = {}): ClaimRules => ({
  org: { claim: 'org' },
  rolesClaim: 'roles',
  roles: new Map<string, Scope[]>([
    ['sre', ['exec', 'diagnose']],
    ['Domain Users', ['workspaces:read']],
    ['auditor', ['activity:read', 'workspaces:read']],
  ]),
  ...change,
});
const OF_TWO = ['activity:read', 'diagnose', 'exec', 'workspaces:read'];
const scopes = (claims: object, change: Partial<ClaimRules> = {}) => [...scopesOf(claims, rules(change))].sort();

describe('the scopes of a person', () => {
  test.each<[string, object, string[]]>([
    ['of one role as text', { roles: 'sre' }, ['diagnose', 'exec']],
    ['of a role with a blank in its name', { roles: 'Domain Users' }, ['workspaces:read']],
    ['of a list are those of all its roles', { roles: ['sre', 'auditor'] }, OF_TWO],
    ['of a role that nobody has written down are none', { roles: ['root', 'exec'] }, []],
    ['of a role written otherwise are none', { roles: ['SRE', 'sre ', 'sre,auditor'] }, []],
    ['of a text with several words are none: it is one role', { roles: 'sre auditor' }, []],
    ['without the claim are none', {}, []],
    ['of null are none', { roles: null }, []],
    ['of what is no text are none', { roles: [1, null, { sre: true }, ['sre']] }, []],
    ['of an object are none', { roles: { sre: true } }, []],
    ['are not what every object has', { roles: ['constructor', '__proto__', 'toString'] }, []],
  ])('%s', (_what, claims, expected) => {
    expect(scopes(claims)).toEqual(expected);
  });

  test.each(['scope', 'scp'])('of the claim %s are those of each word', (claim) => {
    expect(scopes({ [claim]: 'openid sre  auditor' }, { rolesClaim: claim })).toEqual(OF_TWO);
  });

  test('of a claim with a name like a URL', () => {
    const claim = 'https://acme.example/roles';
    expect(scopes({ [claim]: ['sre'] }, { rolesClaim: claim })).toEqual(['diagnose', 'exec']);
  });

  test('of a claim with dots in its name', () => {
    expect(scopes({ 'a.b': 'sre', a: { b: 'auditor' } }, { rolesClaim: 'a.b' })).toEqual(['diagnose', 'exec']);
  });

  test.each<[string, object]>([
    ['/realm_access/roles', { realm_access: { roles: ['sre'] } }],
    ['/resource_access/https:~1~1gateway/roles', { resource_access: { 'https://gateway': { roles: 'sre' } } }],
    ['/a~0b', { 'a~b': 'sre' }],
  ])('of a claim within another: %s', (rolesClaim, claims) => {
    expect(scopes(claims, { rolesClaim })).toEqual(['diagnose', 'exec']);
  });

  test.each<[string, object]>([
    ['/realm_access/roles', { realm_access: null }],
    ['/realm_access/roles', { realm_access: 'sre' }],
    ['/realm_access/roles', { '/realm_access/roles': 'sre' }],
    ['/roles/0', { roles: ['sre'] }],
    ['/constructor/name', {}],
  ])('of a way that leads nowhere are none: %s in %j', (rolesClaim, claims) => {
    expect(scopes(claims, { rolesClaim })).toEqual([]);
  });
});

describe('the org of a person', () => {
  test('is what the claim says', () => {
    expect(orgOf({ org: 'acme' }, rules())).toBe('acme');
    expect(orgOf({ tenant: { id: 'acme' }, org: 'rival' }, rules({ org: { claim: '/tenant/id' } }))).toBe('acme');
  });

  test('is the one that is set, whatever a claim says', () => {
    expect(orgOf({ org: 'rival' }, rules({ org: { id: 'acme' } }))).toBe('acme');
  });

  test.each([{}, { org: '' }, { org: null }, { org: ['acme'] }, { org: 'a b' }, { org: '../acme' }, { org: 7 }])(
    'is none by %j',
    (claims) => {
      expect(orgOf(claims, rules())).toBeNull();
    },
  );
});

describe('a sub', () => {
  test.each([
    'a',
    'auth0|7c0b',
    'CORP\\ada',
    'CN=Ada Lovelace,O=Acme',
    'ada@acme.example',
    '...',
    '"',
    'x'.repeat(255),
  ])('may be %s', (sub) => {
    expect(isSub(sub)).toBe(true);
  });

  test.each(['', ' ', ' a', 'a ', '.', '..', 'a\nb', 'a\0', 'a\u202eb', 'josé', '\ud800', 'x'.repeat(256), 7, null])(
    'may not be %j',
    (sub) => {
      expect(isSub(sub)).toBe(false);
    },
  );
});
