/** Sessions of people through a whole gateway: from the issuer's token endpoint to the row of the exec. */
import { decodeJwt } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Ask, outputOf, startTestGateway, type TestGateway, terminalOf } from '../support/gateway.ts';
import { oidcEnv, startIssuer, type TestIssuer } from '../support/issuer.ts';
import { nowAndThen } from '../support/replicas.ts';
import { waitUntil } from '../support/wait.ts';

/** The org of ws-demo. */
const ORG = 'org-demo';

let issuer: TestIssuer;
let gateway: TestGateway;
beforeAll(async () => {
  issuer = await startIssuer();
  gateway = await startTestGateway(oidcEnv(issuer));
});
afterAll(async () => {
  await gateway.stop();
  await issuer.stop();
});

/** A session in the org of ws-demo. */
async function session(claims: object = {}): Promise<{ raw: string }> {
  return { raw: await issuer.token({ sub: 'auth0|ada', org: ORG, ...claims }) };
}

async function rowOf(execId: unknown) {
  return await waitUntil('the row is finished', async () => {
    const [row] = await gateway.sql('select * from activity_logs where id = $1', [execId]);
    return row?.status !== 'running' && row;
  });
}

describe('a session', () => {
  it('runs a program, and the row names the person', async () => {
    const { status, frames } = await gateway.exec({ cmd: ['echo', 'hello'] }, { token: await session() });
    expect(status).toBe(200);
    expect(outputOf(frames, 'stdout').toString()).toBe('hello\n');
    const row = await rowOf(terminalOf(frames).exec_id);
    expect(row).toMatchObject({ status: 'ok', org_id: ORG, actor: 'session:auth0|ada' });
    expect(row.request_body).toMatchObject({ actor: 'session:auth0|ada' });
    const found = await gateway.ask(`/activity?actor=${encodeURIComponent('session:auth0|ada')}&limit=1`);
    expect(found.body.items).toMatchObject([{ id: row.id }]);
  });

  it('with the longest sub is found by it', async () => {
    const sub = 'x'.repeat(255);
    const { frames } = await gateway.exec({ cmd: ['true'] }, { token: await session({ sub }) });
    const { exec_id } = terminalOf(frames);
    const found = await gateway.ask(`/activity?actor=session:${sub}`);
    expect(found.body.items).toMatchObject([{ id: exec_id, actor: `session:${sub}` }]);
  });

  it('has the scopes of its roles and no other', async () => {
    const auditor = await session({ roles: ['auditor', 'guest'] });
    expect((await gateway.ask('/activity?limit=1', { token: auditor })).status).toBe(200);
    const refused = await gateway.exec({ cmd: ['true'] }, { token: auditor });
    expect([refused.status, refused.body.code]).toEqual([403, 'scope_missing']);
    const guest = await session({ roles: [] });
    for (const path of ['/workspaces', '/workspaces/ws-demo', '/activity', '/tokens']) {
      expect((await gateway.ask(path, { token: guest })).body.code, path).toBe('scope_missing');
    }
  });

  it('sees no other org, and one that was never made here is no more than that', async () => {
    const answers = await Promise.all([
      gateway.exec({ cmd: ['true'] }, { token: await session(), workspace: 'ws-other' }),
      gateway.exec({ cmd: ['true'] }, { token: await session(), workspace: 'ws-nowhere' }),
      gateway.exec({ cmd: ['true'] }, { token: await session({ org: 'org-nobody-made' }) }),
      gateway.ask('/workspaces', { token: await session({ org: 'org-nobody-made' }) }),
      gateway.ask('/workspaces', { token: await session(), headers: { 'x-org-id': 'org-other' } }),
    ]);
    for (const { status, body } of answers) {
      const { request_id: _, outcome: __, ...problem } = body;
      expect([status, problem]).toEqual([404, expect.objectContaining({ code: 'not_found' })]);
      expect(problem.error).toBe(answers[0]?.body.error);
    }
  });

  it('is no admin, whatever it claims', async () => {
    const claims = { kind: 'admin', scopes: ['tokens:write'], admin: true, roles: ['admin', 'sre'] };
    for (const path of ['/orgs', `/orgs/${ORG}`, `/orgs/${ORG}/people`]) {
      expect((await gateway.ask(path, { token: await session(claims) })).status, path).toBe(404);
    }
  });

  it('is a stranger with another audience', async () => {
    const raw = await issuer.token({ org: ORG }, { audience: 'https://other.test' });
    const refused = await gateway.exec({ cmd: ['true'] }, { token: { raw } });
    expect([refused.status, refused.body.code]).toEqual([401, 'unauthenticated']);
    const stranger = await gateway.exec({ cmd: ['true'] }, { token: { raw: 'x.y.z' } });
    expect(refused.body.error).toBe(stranger.body.error);
  });

  it('has idempotency keys that no other person can use', async () => {
    const headers = { 'idempotency-key': 'same' };
    const run = async (sub: string) =>
      terminalOf((await gateway.exec({ cmd: ['true'] }, { headers, token: await session({ sub }) })).frames);
    const [first, again, other] = [await run('ada'), await run('ada'), await run('ada ben')];
    expect([again.exec_id, again.replayed]).toEqual([first.exec_id, true]);
    expect(other.replayed).toBeUndefined();
  });
});

describe('a token that a person has made', () => {
  const make = async (body: object, token: Ask['token']) =>
    await gateway.ask('/tokens', { method: 'POST', body: { kind: 'org', name: 'mine', ...body }, token });

  it('is not wider than their session, does not outlive it, and names them', async () => {
    const token = await session();
    const made = await make({ scopes: ['exec'] }, token);
    expect(made.status).toBe(201);
    expect(decodeJwt(String(made.body.token))).toMatchObject({ sub: 'auth0|ada', org: ORG, scopes: ['exec'] });
    expect(decodeJwt(String(made.body.token)).exp).toBe(decodeJwt(token.raw).exp);
    const { items } = (await gateway.ask('/tokens?limit=1', { token })).body as { items: object[] };
    expect(items).toMatchObject([{ id: made.body.id, created_by: 'session:auth0|ada' }]);
    for (const body of [{ scopes: ['diagnose'] }, { scopes: ['exec'], expires_in_s: 86_400 }]) {
      expect((await make(body, token)).body.code).toBe('scope_missing');
    }
  });

  it('is frozen with them and goes on with them', async () => {
    const token = await session({ sub: 'eve' });
    const made = { raw: String((await make({ scopes: ['exec', 'workspaces:read'] }, token)).body.token) };
    const asAdmin = async (verb: string) =>
      await gateway.ask(`/orgs/${ORG}/people/eve/${verb}`, { method: 'POST', token: 'admin' });
    const look = async () =>
      await Promise.all([token, made].map(async (one) => (await gateway.ask('/workspaces', { token: one })).status));
    expect(await look()).toEqual([200, 200]);
    expect((await asAdmin('freeze')).status).toBe(200);
    expect(await look()).toEqual([403, 403]);
    const refused = await gateway.exec({ cmd: ['true'] }, { token });
    expect(refused.body).toMatchObject({ code: 'exec_revoked', outcome: 'refused' });
    expect((await asAdmin('unfreeze')).status).toBe(200);
    expect(await look()).toEqual([200, 200]);
    const rows = await gateway.sql(
      `select activity_type, actor, summary from activity_logs where target_id = 'eve' order by seq`,
    );
    expect(rows).toEqual([
      { activity_type: 'person_freeze', actor: 'admin-token', summary: `freeze person eve in org ${ORG}` },
      { activity_type: 'person_unfreeze', actor: 'admin-token', summary: `unfreeze person eve in org ${ORG}` },
    ]);
  });
});

describe('the issuer', () => {
  it('changes its keys, and sessions go on without a restart', async () => {
    expect((await gateway.ask('/workspaces', { token: await session() })).status).toBe(200);
    await issuer.rotate();
    const token = await session();
    // Within the first seconds after the keys were fetched they are not fetched again.
    await waitUntil(
      'the new key is known',
      nowAndThen(async () => (await gateway.ask('/workspaces', { token })).status === 200, 300),
      15_000,
    );
  });

  it('may be down when the gateway starts, which is then ready and says 503 to sessions only', async () => {
    const mortal = await startIssuer();
    const raw = await mortal.token({ org: ORG });
    await mortal.kill();
    const late = await startTestGateway(oidcEnv(mortal));
    try {
      expect((await late.ask('/readyz', { token: null })).status).toBe(200);
      expect((await late.exec({ cmd: ['true'] })).status).toBe(200);
      const refused = await late.exec({ cmd: ['true'] }, { token: { raw } });
      expect([refused.status, refused.headers['retry-after']]).toEqual([503, '5']);
      expect(refused.body).toMatchObject({ code: 'issuer_unavailable', retryable: true });
      expect(refused.headers['www-authenticate']).toBeUndefined();
      await mortal.revive();
      await waitUntil(
        'the issuer is asked again',
        nowAndThen(async () => (await late.exec({ cmd: ['true'] }, { token: { raw } })).status === 200),
        15_000,
      );
    } finally {
      await late.stop();
      await mortal.stop();
    }
  });
});
