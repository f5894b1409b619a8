/** Evidence of a failing host through the whole gateway: what is collected, masked, kept and shown again. */
import { copyFile } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Answer, startTestGateway, type TestGateway } from '../support/gateway.ts';
import { waitUntil } from '../support/wait.ts';

interface Section {
  name: string;
  output: string | null;
  error?: string;
}

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await startTestGateway();
});
afterAll(() => gateway.stop());
afterEach(async () => {
  await gateway.clearFaults();
});

const rescue = (workspace = 'ws-demo', how: object = {}): Promise<Answer> =>
  gateway.ask(`/workspaces/${workspace}/rescue`, { method: 'POST', ...how });
const latest = (workspace = 'ws-demo', how: object = {}): Promise<Answer> =>
  gateway.ask(`/workspaces/${workspace}/rescue`, how);
const sectionsOf = ({ body }: Answer): Map<string, Section> =>
  new Map((body.sections as Section[]).map((section) => [section.name, section]));

async function instanceId(workspace: string): Promise<string> {
  const { body } = await gateway.ask(`/workspaces/${workspace}`, { token: 'admin' });
  return String(body.instance_id);
}

async function foundInDatabase(text: string): Promise<string[]> {
  const tables = await gateway.sql(`select tablename as name from pg_tables where schemaname = 'public'`);
  const found: string[] = [];
  for (const { name } of tables) {
    const rows = await gateway.sql(`select 1 from "${String(name)}" as t where t::text like $1`, [`%${text}%`]);
    if (rows.length > 0) found.push(String(name));
  }
  return found;
}

describe('a rescue', () => {
  it('is 404 before there is one', async () => {
    expect(await latest('ws-fleet-01')).toMatchObject({ status: 404, body: { code: 'not_found' } });
  });

  it('collects what the host says, keeps it, and shows it again', async () => {
    const made = await rescue();
    expect(made.status, made.text).toBe(200);
    expect(made.body).toMatchObject({
      workspace_id: 'ws-demo',
      actor: expect.stringMatching(/^org-token:/),
      diagnosis: { ok: true, first_failure: null },
    });
    const sections = sectionsOf(made);
    expect(sections.get('console')?.output).toContain('login:');
    expect(sections.get('uptime')?.output).toMatch(/\d/);
    expect(sections.get('disks')?.output).toContain('/');
    expect(sections.get('processes')?.output).toMatch(/PID/);
    const { body } = await latest();
    expect(body).toEqual(made.body);
    const { body: rows } = await gateway.ask('/activity?type=workspace_rescue&limit=5');
    expect(rows.items).toMatchObject([{ workspace_id: 'ws-demo', status: 'ok', summary: 'rescue ws-demo' }]);
  });

  it('masks secrets on the console and in what programs say; they are found nowhere in the database', async () => {
    // The name of a process is cut at 15 characters.
    const program = `${gateway.dataDir}/password=canary`;
    await copyFile('/bin/sleep', program);
    const stop = new AbortController();
    const running = gateway.exec({ cmd: [program, '60'] }, { signal: stop.signal }).catch(() => null);
    await waitUntil('it runs', () => gateway.pool.stats().leases === 1);
    await gateway.writeConsole(
      await instanceId('ws-demo'),
      'app: key AKIAQ3EGRIOSCANARY77 password=hunter2canary\r\n\u001b[31mred\u001b[0m\u0007\r\n',
    );
    const made = await rescue();
    stop.abort();
    await running;
    const console = sectionsOf(made).get('console')?.output ?? '';
    expect(console).toContain('app: key *** password=***\nred\\u0007\n');
    expect(sectionsOf(made).get('processes')?.output).toContain('password=***');
    expect(made.text).not.toMatch(/AKIAQ3EGRIOSCANARY77|hunter2canary|=canary/);
    const { body } = await gateway.ask('/workspaces/ws-demo/diagnose');
    expect(JSON.stringify(body)).not.toMatch(/AKIAQ3EGRIOSCANARY77|hunter2canary/);
    const text = await gateway.ask('/workspaces/ws-demo/console', { headers: { accept: 'text/plain' } });
    expect(text.text).toContain('password=***');
    for (const canary of ['AKIAQ3EGRIOSCANARY77', 'hunter2canary', '=canary '])
      expect(await foundInDatabase(canary)).toEqual([]);
  });

  it('of a host that nobody can log in to has what needs no login', async () => {
    await gateway.fault('login_refused', { instance_id: await instanceId('ws-fleet-02') });
    const made = await rescue('ws-fleet-02');
    expect(made).toMatchObject({
      status: 200,
      body: { diagnosis: { ok: false, first_failure: 'login', instance: { state: 'running' } } },
    });
    expect([...sectionsOf(made).keys()]).toEqual(['console']);
    expect((await latest('ws-fleet-02')).body).toEqual(made.body);
  });

  it('keeps the latest few', async () => {
    await gateway.fault('instance_stopped', { instance_id: await instanceId('ws-fleet-03') });
    for (let n = 0; n < 5; n += 1) await rescue('ws-fleet-03');
    const [row] = await gateway.sql(`select count(*)::int as n from rescues where workspace_id = 'ws-fleet-03'`);
    expect(row).toEqual({ n: 3 });
  });

  it('leaves nothing open but the shared session', async () => {
    await rescue('ws-fleet-04');
    expect(gateway.pool.stats().leases).toBe(0);
    await gateway.cutConnections();
    await waitUntil('no tunnel is open', async () => (await gateway.counters()).tunnels.open === 0);
  });
});

describe('who may', () => {
  it('the tier, the scope and the org are needed, and nothing is dialled without', async () => {
    const before = await gateway.counters();
    expect(await rescue('ws-sandbox')).toMatchObject({ status: 403, body: { code: 'exec_tier_forbidden' } });
    expect(await rescue('ws-demo', { token: 'readonly' })).toMatchObject({
      status: 403,
      body: { code: 'scope_missing' },
    });
    expect((await rescue('ws-demo', { token: 'other_org' })).status).toBe(404);
    expect((await latest('ws-demo', { token: 'other_org' })).status).toBe(404);
    expect(await latest('ws-demo', { token: 'readonly' })).toMatchObject({ status: 403 });
    expect(await rescue('ws-no-instance')).toMatchObject({ status: 400, body: { code: 'no_instance' } });
    expect(await gateway.counters()).toEqual(before);
  });

  it('a token with command rules collects nothing', async () => {
    const { body } = await gateway.ask('/tokens', {
      method: 'POST',
      body: { kind: 'org', name: 'narrow', scopes: ['diagnose', 'exec'], allow: [['uptime']], expires_in_s: 600 },
    });
    const narrow = await rescue('ws-demo', { token: { raw: String(body.token) } });
    expect(narrow).toMatchObject({ status: 403, body: { code: 'exec_command_forbidden' } });
  });
});
