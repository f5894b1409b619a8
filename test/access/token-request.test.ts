import { describe, expect, test } from 'vitest';
import { type Caller, SCOPES } from '../../src/access/access.ts';
import { createVerifier, generateSigningKey, loadSigningKey, signToken } from '../../src/access/token.ts';
import { parseTokenRequest, planToken, type TokenRequest } from '../../src/access/token-request.ts';
import { ADMIN, aCaller } from './a-caller.ts';

const NOW = new Date(1_800_000_000_400);
const NOW_S = 1_800_000_000;
const DAY_S = 24 * 3600;
const aRequest = (change: Partial<TokenRequest> = {}): TokenRequest => ({
  kind: 'org',
  name: 'ci',
  scopes: ['exec'],
  expiresInS: 3600,
  ...change,
});

describe('parseTokenRequest', () => {
  const body = { kind: 'workspace', workspace_id: 'ws-1', name: 'ci', scopes: ['exec'], expires_in_s: 60 };

  test('takes the whole body', () => {
    expect(parseTokenRequest({ ...body, org_id: 'acme', allow: [['ls', '**']], scopes: ['exec', 'exec'] })).toEqual({
      kind: 'workspace',
      orgId: 'acme',
      workspaceId: 'ws-1',
      name: 'ci',
      scopes: ['exec'],
      allow: [['ls', '**']],
      expiresInS: 60,
    });
  });

  test.each<[string, unknown, string]>([
    ['no object', [], 'body'],
    ['no kind', { ...body, kind: undefined }, 'kind'],
    ['kind admin', { ...body, kind: 'admin' }, 'got "admin"'],
    ['an unknown field', { ...body, 'super\u0007user': true }, 'unknown field "super\\u0007user"'],
    ['a workspace token for no workspace', { ...body, workspace_id: undefined }, 'workspace_id'],
    ['an org token for a workspace', { ...body, kind: 'org' }, 'workspace_id'],
    ['an id that is none', { ...body, workspace_id: '../x' }, 'workspace_id'],
    ['an empty name', { ...body, name: '' }, 'name'],
    ['a name of several lines', { ...body, name: 'a\nb' }, 'name'],
    ['a name with NUL', { ...body, name: 'a\0' }, 'name'],
    ['no scopes', { ...body, scopes: [] }, 'scopes'],
    ['an unknown scope', { ...body, scopes: ['exec', 'root'] }, 'scopes.1'],
    ['a broken rule', { ...body, allow: [['**', 'x']] }, 'allow.0'],
    ['no rules in allow', { ...body, allow: [] }, 'at least one rule'],
    ['a life of nothing', { ...body, expires_in_s: 0 }, 'expires_in_s'],
    ['a life over 90 days', { ...body, expires_in_s: 90 * DAY_S + 1 }, 'expires_in_s'],
    ['a life in a string', { ...body, expires_in_s: '60' }, 'expires_in_s'],
    ['a life in a fraction', { ...body, expires_in_s: 1.5 }, 'expires_in_s'],
  ])('refuses %s and names it', (_what, raw, text) => {
    expect(() => parseTokenRequest(raw)).toThrow(
      expect.objectContaining({ code: 'invalid_request', message: expect.stringContaining(text) }),
    );
  });

  test.each(['files:read', 'files:write', 'terminal', 'fleet:run', 'workspaces:write', 'tokens:write'])(
    'refuses %s beside command rules, which cannot bound it',
    (scope) => {
      const raw = { ...body, allow: [['ls']], scopes: ['exec', scope] };
      expect(() => parseTokenRequest(raw)).toThrow(`got "${scope}", which no command rule bounds`);
    },
  );
});

describe('planToken', () => {
  test('plans row and claims that agree', () => {
    const planned = planToken(aCaller({}), aRequest({ kind: 'workspace', workspaceId: 'ws-1', allow: [['ls']] }), NOW);
    expect(planned).toEqual({
      id: planned.claims.jti,
      orgId: 'acme',
      workspaceId: 'ws-1',
      kind: 'workspace',
      name: 'ci',
      scopes: ['exec'],
      allow: [['ls']],
      createdAt: NOW,
      expiresAt: new Date((NOW_S + 3600) * 1000),
      revokedAt: null,
      createdBy: 'org-token:6b1c9f0e',
      claims: {
        jti: planned.id,
        sub: 'ada',
        orgId: 'acme',
        workspaceId: 'ws-1',
        kind: 'workspace',
        scopes: ['exec'],
        allow: [['ls']],
        name: 'ci',
        issuedAt: NOW_S,
        expiresAt: NOW_S + 3600,
      },
    });
  });

  test('what it plans can be signed and verified, also at the longest life', async () => {
    const key = await loadSigningKey(await generateSigningKey());
    const planned = planToken(ADMIN, aRequest({ orgId: 'acme', scopes: [...SCOPES], expiresInS: 90 * DAY_S }), NOW);
    const verifier = createVerifier({ key, adminToken: null, now: () => NOW.getTime() });
    const caller = await verifier.verify(await signToken(key, planned.claims));
    expect(caller).toMatchObject({ orgId: 'acme', jti: planned.id, scopes: new Set(SCOPES) });
  });

  test('no two plans share an id', () => {
    expect(planToken(aCaller({}), aRequest(), NOW).id).not.toBe(planToken(aCaller({}), aRequest(), NOW).id);
  });

  test('the admin token has to name an org', () => {
    expect(() => planToken(ADMIN, aRequest(), NOW)).toThrow(
      expect.objectContaining({ code: 'invalid_request', message: expect.stringContaining('org_id') }),
    );
  });

  test('a token of the admin token has a subject of its own, every other one its maker’s', () => {
    const planned = planToken(ADMIN, aRequest({ orgId: 'acme' }), NOW);
    expect(planned.claims.sub).toBe(`token:${planned.id}`);
    expect(planToken(aCaller({ kind: 'session', jti: null }), aRequest(), NOW).claims.sub).toBe('ada');
  });

  const bound = aCaller({ kind: 'workspace', workspaceId: 'ws-1' });
  test.each<[string, Caller, TokenRequest, string]>([
    ['a scope', aCaller({ scopes: new Set(['exec']) }), aRequest({ scopes: ['exec', 'terminal'] }), '"terminal"'],
    ['another org', aCaller({}), aRequest({ orgId: 'other' }), 'org_id'],
    ['another workspace', bound, aRequest({ kind: 'workspace', workspaceId: 'ws-2' }), 'workspace_id'],
    ['the whole org', bound, aRequest(), 'workspace_id'],
    ['a longer life', aCaller({ expiresAt: NOW_S + 3599 }), aRequest(), 'at most 3599'],
    ['a life after its own', aCaller({ expiresAt: NOW_S }), aRequest({ expiresInS: 1 }), 'expires_in_s'],
    ['wider rules', aCaller({ allow: [['ls']] }), aRequest({ allow: [['ls', '**']] }), 'allow'],
    ['no rules', aCaller({ allow: [['ls']] }), aRequest(), 'allow'],
  ])('never gives %s that the caller has not', (_what, caller, request, text) => {
    expect(() => planToken(caller, request, NOW)).toThrow(
      expect.objectContaining({ code: 'scope_missing', message: expect.stringContaining(text) }),
    );
  });

  test('a session passes on no more than its own scopes and what is left of its life', () => {
    const session = aCaller({
      kind: 'session',
      jti: null,
      scopes: new Set(['exec', 'tokens:write']),
      expiresAt: NOW_S + 300,
    });
    const { expiresInS: _, ...request } = aRequest({ scopes: ['exec'] });
    const { claims, createdBy } = planToken({ ...session, actor: 'session:ada' }, request, NOW);
    expect(claims).toMatchObject({ sub: 'ada', orgId: 'acme', scopes: ['exec'], expiresAt: NOW_S + 300 });
    expect(createdBy).toBe('session:ada');
    expect(() => planToken(session, { ...request, scopes: ['diagnose'] }, NOW)).toThrow('"diagnose"');
    expect(() => planToken(session, { ...request, expiresInS: 301 }, NOW)).toThrow('at most 300');
  });

  test('passes on all that the caller has', () => {
    const caller = aCaller({ ...bound, allow: [['ls', '**']], expiresAt: NOW_S + 3600 });
    const request = aRequest({ kind: 'workspace', workspaceId: 'ws-1', orgId: 'acme', allow: [['ls', '*']] });
    expect(planToken(caller, request, NOW).claims.expiresAt).toBe(NOW_S + 3600);
  });

  test('without a life asked for it lives a day, or as long as the caller if that is less', () => {
    const { expiresInS: _, ...request } = aRequest();
    expect(planToken(aCaller({}), request, NOW).claims.expiresAt).toBe(NOW_S + DAY_S);
    expect(planToken(aCaller({ expiresAt: NOW_S + 60 }), request, NOW).claims.expiresAt).toBe(NOW_S + 60);
  });
});
