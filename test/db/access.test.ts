/** The ports of access/: standing, registry, tokens. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { seed, tokenOf, workspaceOf } from './facts.ts';

failOnLeaks();

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
  await seed(db.database);
});
afterAll(() => db.drop());

const acme = { id: 'acme', name: 'Acme', frozen: false };

describe('standing', () => {
  test('of a token and a workspace of its org', async () => {
    const token = tokenOf();
    await db.database.tokens.add(token);
    const query = { orgId: 'acme', jti: token.id, sub: null, workspaceId: 'ws-1' };
    expect(await db.database.directory.standing(query)).toEqual({
      token: 'active',
      org: acme,
      personFrozen: false,
      workspace: workspaceOf(),
    });
    await db.database.tokens.revoke('acme', token.id);
    expect(await db.database.directory.standing(query)).toMatchObject({ token: 'revoked', org: acme });
  });

  test('is the same for a foreign, an unknown and a deleted workspace', async () => {
    await db.database.registry.putWorkspace(workspaceOf({ id: 'ws-gone' }));
    await db.database.registry.deleteWorkspace('acme', 'ws-gone');
    for (const workspaceId of ['ws-other', 'ws-nowhere', 'ws-gone', 'ws-\0', 'é'.repeat(5_000)]) {
      const standing = await db.database.directory.standing({ orgId: 'acme', jti: null, sub: null, workspaceId });
      expect(standing).toEqual({ token: 'none', org: acme, personFrozen: false, workspace: null });
    }
  });

  test("of a token that is unknown, or another org's, is unknown", async () => {
    const foreign = tokenOf({ orgId: 'rival' });
    await db.database.tokens.add(foreign);
    for (const jti of ['nobody', foreign.id]) {
      const standing = await db.database.directory.standing({ orgId: 'acme', jti, sub: null, workspaceId: null });
      expect(standing).toEqual({ token: 'unknown', org: acme, personFrozen: false, workspace: null });
    }
  });

  test('of an expired token stays active: its execs may run on', async () => {
    const token = tokenOf({ expiresAt: new Date(0) });
    await db.database.tokens.add(token);
    const query = { orgId: 'acme', jti: token.id, sub: null, workspaceId: null };
    expect(await db.database.directory.standing(query)).toMatchObject({ token: 'active' });
  });

  test('of the admin names the org of the workspace', async () => {
    const standing = await db.database.directory.standing({
      orgId: null,
      jti: null,
      sub: null,
      workspaceId: 'ws-other',
    });
    expect(standing).toMatchObject({ token: 'none', org: { id: 'rival' }, workspace: { id: 'ws-other' } });
    expect(
      await db.database.directory.standing({ orgId: null, jti: null, sub: null, workspaceId: 'ws-nowhere' }),
    ).toEqual({
      token: 'none',
      org: null,
      personFrozen: false,
      workspace: null,
    });
  });

  test('of an org that does not exist has no org', async () => {
    expect(await db.database.directory.standing({ orgId: 'none', jti: null, sub: null, workspaceId: 'ws-1' })).toEqual({
      token: 'none',
      org: null,
      personFrozen: false,
      workspace: null,
    });
  });

  test('asked by many at once, everybody gets their own', async () => {
    const ids = Array.from({ length: 300 }, (_, n) => ['ws-1', 'ws-2', 'ws-other', 'ws-nowhere'][n % 4] as string);
    const answers = await Promise.all(
      ids.map((workspaceId) => db.database.directory.standing({ orgId: 'acme', jti: null, sub: null, workspaceId })),
    );
    expect(answers.map(({ workspace }) => workspace?.id ?? null)).toEqual(
      ids.map((id) => (id === 'ws-1' || id === 'ws-2' ? id : null)),
    );
  });

  test('sees what was written before it was asked', async () => {
    for (const frozen of [true, false]) {
      await db.database.registry.freezeOrg('rival', frozen);
      const [standing] = await Promise.all(
        Array.from({ length: 20 }, () =>
          db.database.directory.standing({ orgId: 'rival', jti: null, sub: null, workspaceId: null }),
        ),
      );
      expect(standing).toMatchObject({ org: { frozen } });
    }
  });
});

describe('people', () => {
  const standingOf = async (sub: string | null, orgId = 'acme') =>
    (await db.database.directory.standing({ orgId, jti: null, sub, workspaceId: null })).personFrozen;

  test('are frozen in one org, by exactly their sub, until they are unfrozen', async () => {
    const { registry } = db.database;
    const ada = { orgId: 'acme', sub: 'auth0|ada' };
    await registry.freezePerson(ada, true);
    await registry.freezePerson(ada, true);
    expect(await standingOf('auth0|ada')).toBe(true);
    for (const other of ['auth0|Ada', 'auth0|ada ', 'auth0|ad', '', null]) expect(await standingOf(other)).toBe(false);
    expect(await standingOf('auth0|ada', 'rival')).toBe(false);
    await registry.freezePerson(ada, false);
    await registry.freezePerson(ada, false);
    expect(await standingOf('auth0|ada')).toBe(false);
  });

  test('who are frozen are listed page by page, those of the org only', async () => {
    const { registry } = db.database;
    const subs = ['a b', 'c|d', 'e', 'f'];
    for (const sub of subs) await registry.freezePerson({ orgId: 'acme', sub }, true);
    await registry.freezePerson({ orgId: 'rival', sub: 'x' }, true);
    const found: string[] = [];
    let after: string | undefined;
    do {
      const page = await registry.listFrozenPeople({ orgId: 'acme', limit: 3, ...(after ? { after } : {}) });
      for (const { sub, frozenAt } of page.items) {
        found.push(sub);
        expect(Math.abs(Date.now() - frozenAt.getTime())).toBeLessThan(60_000);
      }
      after = page.next ?? undefined;
    } while (after !== undefined);
    expect(found.sort()).toEqual(subs);
    for (const sub of subs) await registry.freezePerson({ orgId: 'acme', sub }, false);
  });

  test('cannot be frozen in an org that does not exist', async () => {
    await expect(db.database.registry.freezePerson({ orgId: 'nobody', sub: 'x' }, true)).rejects.toMatchObject({
      code: 'not_found',
    });
  });
});

describe('workspaces', () => {
  test.each([
    ['ec2', { driver: 'ec2', instanceId: 'i-77', region: 'us-east-1', osUser: 'ubuntu', route: 'auto' }],
    [
      'ec2 without an instance',
      { driver: 'ec2', instanceId: null, region: 'us-east-1', osUser: 'ubuntu', route: null },
    ],
    ['ssh', { driver: 'ssh', host: '10.0.0.1', port: 22, osUser: 'root' }],
    ['docker', { driver: 'docker', container: 'web', osUser: 'app' }],
    ['local', { driver: 'local', osUser: 'me' }],
  ] as const)('with the driver %s come back as they were put', async (_what, target) => {
    const workspace = workspaceOf({ id: 'ws-put', tier: 2, labels: { 'a"b': '\\' }, target });
    await db.database.registry.putWorkspace(workspace);
    const { workspace: found } = await db.database.directory.standing({
      orgId: 'acme',
      jti: null,
      sub: null,
      workspaceId: 'ws-put',
    });
    expect(found).toEqual(workspace);
  });

  test('put says whether there was one', async () => {
    const workspace = workspaceOf({ id: 'ws-new' });
    expect(await db.database.registry.putWorkspace(workspace)).toBe('created');
    expect(await db.database.registry.putWorkspace({ ...workspace, name: 'again' })).toBe('replaced');
    await db.database.registry.deleteWorkspace('acme', 'ws-new');
    expect(await db.database.registry.putWorkspace(workspace)).toBe('created');
  });

  test('a deleted id belongs to its org for ever', async () => {
    await db.database.registry.putWorkspace(workspaceOf({ id: 'ws-used' }));
    expect(await db.database.registry.deleteWorkspace('rival', 'ws-used')).toBe(false);
    expect(await db.database.registry.deleteWorkspace('acme', 'ws-used')).toBe(true);
    expect(await db.database.registry.deleteWorkspace('acme', 'ws-used')).toBe(false);
    await expect(
      db.database.registry.putWorkspace(workspaceOf({ id: 'ws-used', orgId: 'rival' })),
    ).rejects.toMatchObject({ code: 'invalid_request', message: expect.stringMatching(/^id: /) });
  });

  test('a living id may be moved to another org', async () => {
    await db.database.registry.putWorkspace(workspaceOf({ id: 'ws-moves' }));
    expect(await db.database.registry.putWorkspace(workspaceOf({ id: 'ws-moves', orgId: 'rival' }))).toBe('replaced');
    const ask = (orgId: string) =>
      db.database.directory.standing({ orgId, jti: null, sub: null, workspaceId: 'ws-moves' });
    expect([(await ask('acme')).workspace, (await ask('rival')).workspace?.id]).toEqual([null, 'ws-moves']);
  });

  test('an instance has one workspace over all orgs, and the refusal does not tell which', async () => {
    const target = { driver: 'ec2', instanceId: 'i-shared', region: 'eu-west-1', osUser: 'u', route: null } as const;
    const { registry } = db.database;
    await registry.putWorkspace(workspaceOf({ id: 'ws-holder', target }));
    const rejection = await registry.putWorkspace(workspaceOf({ id: 'ws-thief', orgId: 'rival', target })).then(
      () => null,
      (error) => error,
    );
    expect(rejection).toMatchObject({ code: 'invalid_request', message: expect.stringMatching(/^instance_id: /) });
    expect(rejection.message).not.toMatch(/ws-holder|acme/);
    await registry.putWorkspace(workspaceOf({ id: 'ws-elsewhere', target: { ...target, region: 'us-east-1' } }));
    await registry.deleteWorkspace('acme', 'ws-holder');
    await registry.putWorkspace(workspaceOf({ id: 'ws-thief', orgId: 'rival', target }));
    await expect(registry.putWorkspace(workspaceOf({ id: 'ws-holder', target }))).rejects.toMatchObject({
      code: 'invalid_request',
    });
  });

  test('many may lack an instance', async () => {
    const target = { driver: 'ec2', instanceId: null, region: 'eu-west-1', osUser: 'u', route: null } as const;
    for (const id of ['ws-none-1', 'ws-none-2']) await db.database.registry.putWorkspace(workspaceOf({ id, target }));
  });

  test('an org that does not exist is invalid_request and named', async () => {
    await expect(db.database.registry.putWorkspace(workspaceOf({ id: 'ws-x', orgId: 'nobody' }))).rejects.toMatchObject(
      { code: 'invalid_request', message: 'org_id: expected an org that exists, got nobody' },
    );
  });

  test('patch changes name and labels in its own org only', async () => {
    const { registry } = db.database;
    await registry.putWorkspace(workspaceOf({ id: 'ws-patch' }));
    expect(await registry.patchWorkspace('rival', 'ws-patch', { name: 'stolen' })).toBeNull();
    expect(await registry.patchWorkspace('acme', 'ws-patch', { name: 'New' })).toEqual(
      workspaceOf({ id: 'ws-patch', name: 'New' }),
    );
    expect(await registry.patchWorkspace(null, 'ws-patch', { labels: {} })).toEqual(
      workspaceOf({ id: 'ws-patch', name: 'New', labels: {} }),
    );
    await registry.deleteWorkspace(null, 'ws-patch');
    expect(await registry.patchWorkspace('acme', 'ws-patch', { name: 'Ghost' })).toBeNull();
  });

  test('are listed by id, page by page, an org at a time or all', async () => {
    const { registry } = db.database;
    await registry.putOrg({ id: 'lister', name: 'L' });
    for (const id of ['wl-3', 'wl-1', 'wl-2', 'wl-0'])
      await registry.putWorkspace(workspaceOf({ id, orgId: 'lister' }));
    await registry.deleteWorkspace('lister', 'wl-0');
    const first = await registry.listWorkspaces({ orgId: 'lister', limit: 2 });
    const second = await registry.listWorkspaces({ orgId: 'lister', limit: 2, after: first.next ?? '' });
    expect([first, second].map(({ items }) => items.map(({ id }) => id))).toEqual([['wl-1', 'wl-2'], ['wl-3']]);
    expect(second.next).toBeNull();
    const all = (await registry.listWorkspaces({ orgId: null, limit: 500 })).items.map(({ orgId }) => orgId);
    expect(new Set(all)).toEqual(new Set(['acme', 'rival', 'lister']));
    await expect(registry.listWorkspaces({ orgId: 'lister', limit: 2, after: 'wl-1' })).rejects.toMatchObject({
      code: 'invalid_request',
    });
  });
});

describe('orgs', () => {
  test('are put, read, frozen, unfrozen and listed', async () => {
    const { registry } = db.database;
    expect(await registry.putOrg({ id: 'org-a', name: 'A' })).toBe('created');
    expect(await registry.freezeOrg('org-a', true)).toEqual({ id: 'org-a', name: 'A', frozen: true });
    expect(await registry.putOrg({ id: 'org-a', name: 'B' })).toBe('replaced');
    expect(await registry.getOrg('org-a')).toEqual({ id: 'org-a', name: 'B', frozen: true });
    expect(await registry.freezeOrg('org-a', false)).toMatchObject({ frozen: false });
    expect(await registry.freezeOrg('nobody', true)).toBeNull();
    expect(await registry.getOrg('nobody')).toBeNull();
    const first = await registry.listOrgs({ limit: 1 });
    const rest = await registry.listOrgs({ limit: 500, after: first.next ?? '' });
    expect([...first.items, ...rest.items].map(({ id }) => id)).toEqual(expect.arrayContaining(['acme', 'org-a']));
    expect(rest.items).not.toContainEqual(first.items[0]);
  });
});

describe('tokens', () => {
  test('come back as they were added, newest first', async () => {
    const { tokens, registry } = db.database;
    await registry.putOrg({ id: 'issuer', name: 'I' });
    await registry.putWorkspace(workspaceOf({ id: 'ws-issued', orgId: 'issuer' }));
    const plain = tokenOf({ orgId: 'issuer' });
    const bound = tokenOf({
      orgId: 'issuer',
      kind: 'workspace',
      workspaceId: 'ws-issued',
      allow: [['systemctl', 'status', '*']],
    });
    for (const token of [plain, bound]) await tokens.add(token);
    expect((await tokens.list({ orgId: 'issuer', limit: 10 })).items).toEqual([bound, plain]);
    const first = await tokens.list({ orgId: 'issuer', limit: 1 });
    expect((await tokens.list({ orgId: 'issuer', limit: 1, after: first.next ?? '' })).items).toEqual([plain]);
    expect(await tokens.get('issuer', bound.id)).toEqual(bound);
    expect(await tokens.get(null, bound.id)).toEqual(bound);
    expect(await tokens.get('acme', bound.id)).toBeNull();
  });

  test('are revoked once, by their own org or the admin', async () => {
    const { tokens } = db.database;
    const token = tokenOf();
    await tokens.add(token);
    expect(await tokens.revoke('rival', token.id)).toBe(false);
    expect(await tokens.revoke('acme', 'nobody\0')).toBe(false);
    expect(await tokens.revoke('acme', token.id)).toBe(true);
    const first = (await tokens.get('acme', token.id))?.revokedAt;
    expect(await tokens.revoke(null, token.id)).toBe(true);
    expect(first).toBeInstanceOf(Date);
    expect((await tokens.get('acme', token.id))?.revokedAt).toEqual(first);
  });

  test('are not added for a workspace that its org does not have', async () => {
    for (const workspaceId of ['ws-other', 'ws-nowhere']) {
      await expect(db.database.tokens.add(tokenOf({ kind: 'workspace', workspaceId }))).rejects.toMatchObject({
        code: 'not_found',
      });
    }
  });
});

describe('pins', () => {
  const ed = { type: 'ssh-ed25519', blob: 'AAAAC3NzaC1lZDI1NTE5' };
  const ecdsa = { type: 'ecdsa-sha2-nistp256', blob: 'AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY' };

  test('are replaced as a set and belong to region and instance', async () => {
    const { pins } = db.database;
    expect(await pins.get('eu', 'i-1')).toEqual([]);
    await pins.put('eu', 'i-1', [ed, ecdsa], 'console');
    await pins.put('us', 'i-1', [ed], 'first-use');
    expect(await pins.get('eu', 'i-1')).toEqual([ecdsa, ed].map((pin) => ({ ...pin, source: 'console' })));
    await pins.put('eu', 'i-1', [ed], 'admin');
    expect(await pins.get('eu', 'i-1')).toEqual([{ ...ed, source: 'admin' }]);
    expect(await pins.get('us', 'i-1')).toEqual([{ ...ed, source: 'first-use' }]);
    await pins.put('eu', 'i-1', [], 'admin');
    expect(await pins.get('eu', 'i-1')).toEqual([]);
  });

  test("of two writers at once are one writer's, not the union", async () => {
    const { pins } = db.database;
    for (let round = 0; round < 10; round += 1) {
      await Promise.all([pins.put('eu', 'i-2', [ed], 'console'), pins.put('eu', 'i-2', [ecdsa], 'console')]);
      expect(await pins.get('eu', 'i-2')).toHaveLength(1);
      await pins.put('eu', 'i-2', [], 'admin');
    }
  });
});
