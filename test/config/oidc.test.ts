import { describe, expect, test } from 'vitest';
import { readConfig } from '../../src/config/config.ts';
import { problems } from './settings.ts';

describe('sessions of people', () => {
  const OIDC = {
    SALLYPORT_OIDC_ISSUER: 'https://id.example',
    SALLYPORT_OIDC_AUDIENCE: 'sallyport',
    SALLYPORT_OIDC_ROLES: '{"sre":["exec"]}',
  };

  test('need no more than issuer, audience and roles', () => {
    expect(readConfig(OIDC).oidc).toEqual({
      issuer: 'https://id.example',
      audience: 'sallyport',
      org: { claim: 'org' },
      rolesClaim: 'roles',
      roles: new Map([['sre', ['exec']]]),
    });
  });

  test('may all belong to one org', () => {
    expect(readConfig({ ...OIDC, SALLYPORT_OIDC_ORG: 'acme', SALLYPORT_ORG_ID: 'acme' }).oidc?.org).toEqual({
      id: 'acme',
    });
  });

  test.each(['http://127.0.0.1:8090', 'http://localhost/realms/a', 'http://[::1]:1/', 'https://id.example/'])(
    'the issuer may be %s',
    (issuer) => {
      expect(readConfig({ ...OIDC, SALLYPORT_OIDC_ISSUER: issuer }).oidc?.issuer).toBe(issuer);
    },
  );

  test.each<[string, string]>([
    ['SALLYPORT_OIDC_ISSUER', 'http://id.example'],
    ['SALLYPORT_OIDC_ISSUER', 'http://127.0.0.1.id.example'],
    ['SALLYPORT_OIDC_ISSUER', 'id.example'],
    ['SALLYPORT_OIDC_ISSUER', 'https://id.example/?realm=a'],
    ['SALLYPORT_OIDC_ISSUER', 'https://ada@id.example'],
    ['SALLYPORT_OIDC_ISSUER', ' https://id.example'],
    ['SALLYPORT_OIDC_ISSUER', ''],
    ['SALLYPORT_OIDC_AUDIENCE', ''],
    ['SALLYPORT_OIDC_AUDIENCE', 'a\nb'],
    ['SALLYPORT_OIDC_ROLES', 'sre=exec'],
    ['SALLYPORT_OIDC_ROLES', '["exec"]'],
    ['SALLYPORT_OIDC_ROLES', '{}'],
    ['SALLYPORT_OIDC_ROLES', '{"sre":"exec"}'],
    ['SALLYPORT_OIDC_ROLES', '{"sre":["exce"]}'],
    ['SALLYPORT_OIDC_ROLES', '{"sre":[]}'],
    ['SALLYPORT_OIDC_ROLES', '{"":["exec"]}'],
    ['SALLYPORT_OIDC_ROLES_CLAIM', '/realm~access/roles'],
    ['SALLYPORT_OIDC_ROLES_CLAIM', '/'],
    ['SALLYPORT_OIDC_ORG', 'a/b'],
    ['SALLYPORT_OIDC_ORG_CLAIM', 'a\tb'],
  ])('%s as %j stops the start with one sentence', (name, text) => {
    const found = problems({ ...OIDC, [name]: text });
    expect(found).toHaveLength(1);
    expect(found[0]).toMatch(new RegExp(`^${name} must .*\\.$`));
  });

  test('a scope that does not exist is named with its place', () => {
    expect(problems({ ...OIDC, SALLYPORT_OIDC_ROLES: '{"sre":["exec","exce"]}' })[0]).toMatch(/; sre\.1 is "exce"\.$/);
  });

  test.each(['SALLYPORT_OIDC_AUDIENCE', 'SALLYPORT_OIDC_ROLES'])('without %s nobody could come in', (name) => {
    const { [name as keyof typeof OIDC]: _left, ...rest } = OIDC;
    expect(problems(rest)).toEqual([`${name} is missing: SALLYPORT_OIDC_ISSUER needs it, and there is no default.`]);
  });

  test.each([
    ['SALLYPORT_OIDC_AUDIENCE', 'sallyport'],
    ['SALLYPORT_OIDC_ROLES', '{"sre":["exec"]}'],
    ['SALLYPORT_OIDC_ROLES_CLAIM', 'groups'],
    ['SALLYPORT_OIDC_ORG', 'acme'],
    ['SALLYPORT_OIDC_ORG_CLAIM', 'tenant'],
  ])('%s without an issuer is of no use', (name, text) => {
    expect(problems({ [name]: text })).toEqual([`${name} is of use only together with SALLYPORT_OIDC_ISSUER.`]);
  });

  test('have one way to their org, and it is one that this process serves', () => {
    expect(problems({ ...OIDC, SALLYPORT_OIDC_ORG: 'acme', SALLYPORT_OIDC_ORG_CLAIM: 'org' })).toEqual([
      'SALLYPORT_OIDC_ORG and SALLYPORT_OIDC_ORG_CLAIM are two ways to one org: set one of them.',
    ]);
    expect(problems({ ...OIDC, SALLYPORT_OIDC_ORG: 'acme', SALLYPORT_ORG_ID: 'rival' })).toEqual([
      'SALLYPORT_OIDC_ORG must be that of SALLYPORT_ORG_ID: this process serves no other.',
    ]);
  });
});
