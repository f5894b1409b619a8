/** The on-call engineer's first question, asked of a real gateway: each fault named, at its step, with what to do. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { STEPS } from '../../src/errors.ts';
import type { FaultName } from '../../src/lab/faults.ts';
import { type Ask, startTestGateway, type TestGateway, terminalOf } from '../support/gateway.ts';
import { waitUntil } from '../support/wait.ts';

interface Step {
  name: string;
  ok: boolean | null;
  duration_ms: number | null;
  error?: string;
  detail?: string;
}

interface Diagnosis {
  workspace_id: string;
  ok: boolean;
  first_failure: string | null;
  cause: string | null;
  remedy: string | null;
  steps: Step[];
  instance: Record<string, unknown> | null;
  console_tail: string | null;
}

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await startTestGateway();
});
afterAll(() => gateway.stop());
afterEach(async () => {
  await gateway.clearFaults();
});

async function diagnose(workspace = 'ws-demo', how: Ask = {}): Promise<Diagnosis> {
  const { status, body, text } = await gateway.ask(`/workspaces/${workspace}/diagnose`, how);
  expect(status, text).toBe(200);
  return body as unknown as Diagnosis;
}

const okOf = ({ steps }: Diagnosis): Record<string, boolean | null> =>
  Object.fromEntries(steps.map(({ name, ok }) => [name, ok]));

async function instanceId(workspace: string): Promise<string> {
  const { body } = await gateway.ask(`/workspaces/${workspace}`, { token: 'admin' });
  return String(body.instance_id);
}

async function nothingOpen(): Promise<void> {
  await waitUntil('every tunnel of the diagnosis is closed', async () => (await gateway.counters()).tunnels.open === 0);
}

describe('a healthy host', () => {
  it('is walked to the end, every step in order with its time', async () => {
    const found = await diagnose();
    expect(found).toMatchObject({ workspace_id: 'ws-demo', ok: true, first_failure: null, cause: null, remedy: null });
    expect(found.steps.map(({ name }) => name)).toEqual(STEPS);
    for (const step of found.steps) expect(step).toMatchObject({ ok: true, duration_ms: expect.any(Number) });
    expect(found.instance).toMatchObject({
      id: await instanceId('ws-demo'),
      state: 'running',
      type: expect.any(String),
      availability_zone: expect.any(String),
      launch_time: expect.stringMatching(/^\d{4}-/),
      private_ip: expect.stringMatching(/^10\./),
      instance_status: 'ok',
      system_status: 'ok',
    });
    expect(found.console_tail).toContain('login:');
    expect(found.console_tail).toMatch(/^[\P{Cc}\n\t]*$/u);
    await nothingOpen();
  });

  it('keeps its pooled session, which the diagnosis does not use', async () => {
    const id = await instanceId('ws-fleet-01');
    await gateway.exec({ cmd: ['true'] }, { workspace: 'ws-fleet-01' });
    const before = (await gateway.counters()).instances[id];
    await diagnose('ws-fleet-01');
    const between = (await gateway.counters()).instances[id];
    expect(between?.logins).toBe((before?.logins ?? 0) + 1);
    const { frames } = await gateway.exec({ cmd: ['true'] }, { workspace: 'ws-fleet-01' });
    expect(terminalOf(frames)).toMatchObject({ exit_code: 0 });
    expect((await gateway.counters()).instances[id]?.logins).toBe(between?.logins);
    expect(gateway.pool.stats()).toMatchObject({ sessions: 1 });
    await gateway.cutConnections();
  });

  it('leaves one row that says what was found', async () => {
    await diagnose();
    const { body } = await gateway.ask('/activity?type=workspace_diagnose&limit=1');
    expect((body.items as unknown[])[0]).toMatchObject({
      workspace_id: 'ws-demo',
      activity_type: 'workspace_diagnose',
      status: 'ok',
      method: 'GET /workspaces/:id/diagnose',
      actor: expect.stringMatching(/^org-token:/),
    });
  });
});

const AFTER: Record<string, string[]> = Object.fromEntries(STEPS.map((name, at) => [name, STEPS.slice(at + 1)]));
const FAULTS: [FaultName, string, RegExp, RegExp][] = [
  [
    'instance_stopped',
    'instance',
    /is stopped.*User initiated/,
    /aws ec2 start-instances --region \S+ --instance-ids i-/,
  ],
  ['instance_missing', 'instance', /no instance i-/, /instance id and region/],
  [
    'endpoint_missing',
    'endpoint',
    /no usable EC2 Instance Connect Endpoint/,
    /create an EC2 Instance Connect Endpoint/,
  ],
  ['tunnel_refused', 'tunnel', /no free tunnel/, /20 connections/],
  ['tunnel_denied', 'tunnel', /ec2-instance-connect:OpenTunnel/, /IAM policy/],
  ['target_down', 'tunnel', /could not reach port 22/, /security group.*sshd/],
  [
    'push_denied',
    'key_push',
    /ec2-instance-connect:SendSSHPublicKey on arn:aws:ec2:/,
    /allow ec2-instance-connect:SendSSHPublicKey on arn:/,
  ],
  ['push_unavailable', 'key_push', /SendSSHPublicKey.* is not answering/, /AWS health page/],
  [
    'login_refused',
    'login',
    /refused the key that was pushed for/,
    /user .* exist.*package ec2-instance-connect.*clock/,
  ],
  ['no_shell', 'channel', /login shell .* cannot run commands/, /ForceCommand/],
];

describe('a host with a fault', () => {
  it.each(FAULTS)('%s is found at %s', async (fault, step, cause, remedy) => {
    await gateway.fault(fault, fault === 'endpoint_missing' ? {} : { instance_id: await instanceId('ws-demo') });
    const found = await diagnose();
    expect(found).toMatchObject({ ok: false, first_failure: step });
    expect(found.cause).toMatch(cause);
    expect(found.remedy).toMatch(remedy);
    const ok = okOf(found);
    for (const later of AFTER[step] ?? [])
      if (later !== 'status') expect({ [later]: ok[later] }).toEqual({ [later]: null });
    for (const earlier of STEPS.slice(0, STEPS.indexOf(step as never)))
      if (earlier !== 'status') expect({ [earlier]: ok[earlier] }).toEqual({ [earlier]: true });
    expect(found.steps.find(({ name }) => name === step)).toMatchObject({ ok: false, error: expect.any(String) });
    const { body } = await gateway.ask('/activity?type=workspace_diagnose&limit=1');
    expect((body.items as unknown[])[0]).toMatchObject({
      status: 'error',
      error_detail: expect.stringContaining(step),
    });
    await nothingOpen();
  });

  it('a host that answers with another key is found at host_key, with both fingerprints', async () => {
    await diagnose(); // pins
    await gateway.fault('host_key_changed', { instance_id: await instanceId('ws-demo') });
    const found = await diagnose();
    expect(found).toMatchObject({ ok: false, first_failure: 'host_key' });
    expect(found.cause).toMatch(/changed.*SHA256:.*SHA256:/);
    expect(found.remedy).toMatch(/admin/);
    expect(okOf(found)).toMatchObject({ tunnel: true, banner: true, key_push: null, login: null });
    await nothingOpen();
  });

  it.each([
    ['console_empty', 'ws-fleet-02', /empty/],
    ['console_partial', 'ws-fleet-03', /partial/],
    ['console_conflict', 'ws-fleet-04', /conflict/],
  ] as const)(
    '%s before a pin exists is found at host_key, after a banner that was seen',
    async (fault, workspace, said) => {
      await gateway.fault(fault, { instance_id: await instanceId(workspace) });
      const found = await diagnose(workspace);
      expect(found).toMatchObject({ ok: false, first_failure: 'host_key' });
      expect(found.cause).toMatch(said);
      expect(okOf(found)).toMatchObject({ tunnel: true, banner: true, key_push: null, channel: null });
    },
  );

  it('an sshd that says nothing is found at banner, in less than 30 s', async () => {
    await gateway.fault('banner_hang', { instance_id: await instanceId('ws-demo') });
    const startedAt = performance.now();
    const found = await diagnose();
    expect(performance.now() - startedAt).toBeLessThan(30_000);
    expect(found).toMatchObject({ ok: false, first_failure: 'banner' });
    expect(found.cause).toMatch(/does not say its version line, for \d+ s/);
    expect(found.remedy).toMatch(/sshd hangs|reboot/);
    expect(okOf(found)).toMatchObject({ tunnel: true, host_key: null });
    await nothingOpen();
  }, 40_000);

  it('AWS that throttles for ever is named, in less than 30 s', async () => {
    await gateway.fault('push_throttled', { instance_id: await instanceId('ws-demo') });
    const found = await diagnose();
    expect(found).toMatchObject({ ok: false, first_failure: 'key_push' });
    expect(found.cause).toMatch(/throttled ec2-instance-connect:SendSSHPublicKey/);
    await nothingOpen();
  }, 40_000);

  it('checks that fail are found at status, and the walk goes on', async () => {
    await gateway.fault('status_impaired', { instance_id: await instanceId('ws-demo') });
    const found = await diagnose();
    expect(found).toMatchObject({ ok: false, first_failure: 'status', instance: { instance_status: 'impaired' } });
    expect(found.cause).toMatch(/status checks.*instance check impaired/);
    expect(okOf(found)).toMatchObject({ status: false, tunnel: true, login: true, channel: true });
  });

  it('what the console says of the machine is part of the remedy', async () => {
    const id = await instanceId('ws-fleet-05');
    await gateway.writeConsole(id, '[ 9321.1] Out of memory: Killed process 812 (sshd)\r\n');
    await gateway.fault('target_down', { instance_id: id });
    const found = await diagnose('ws-fleet-05');
    expect(found.remedy).toMatch(/Security groups of the instance: sg-.*ran out of memory: ".*812 \(sshd\)"/);
    expect(found.console_tail).toMatch(/812 \(sshd\)\n$/);
  });

  it('is found healthy again when the fault is gone', async () => {
    expect(await diagnose()).toMatchObject({ ok: true });
  });
});

describe('who may ask', () => {
  it('below the tier nothing is pushed and nobody logs in', async () => {
    const id = await instanceId('ws-sandbox');
    const before = (await gateway.counters()).instances[id];
    const found = await diagnose('ws-sandbox');
    expect(okOf(found)).toEqual({
      instance: true,
      status: true,
      endpoint: true,
      tunnel: true,
      banner: true,
      host_key: true,
      key_push: null,
      login: null,
      channel: null,
    });
    for (const name of ['key_push', 'login', 'channel'])
      expect(found.steps.find((step) => step.name === name)?.detail).toMatch(/tier 1.*tier 3/);
    expect(found).toMatchObject({ ok: true, first_failure: null });
    const after = (await gateway.counters()).instances[id];
    expect({ pushes: after?.pushes ?? 0, logins: after?.logins ?? 0 }).toEqual({
      pushes: before?.pushes ?? 0,
      logins: before?.logins ?? 0,
    });
    await nothingOpen();
  });

  it('below the tier a host that hangs is found out, and not taken for a right that was withdrawn', async () => {
    await gateway.fault('banner_hang', { instance_id: await instanceId('ws-sandbox') });
    expect(await diagnose('ws-sandbox')).toMatchObject({ ok: false, first_failure: 'banner' });
    await nothingOpen();
  });

  it('a workspace without an instance has its diagnosis too', async () => {
    const found = await diagnose('ws-no-instance');
    expect(found).toMatchObject({ ok: false, first_failure: 'instance', instance: null, console_tail: null });
    expect(found.cause).toMatch(/no instance/);
  });

  it('the scope and the org are needed', async () => {
    const readonly = await gateway.ask('/workspaces/ws-demo/diagnose', { token: 'readonly' });
    expect(readonly).toMatchObject({ status: 403, body: { code: 'scope_missing' } });
    expect((await gateway.ask('/workspaces/ws-demo/diagnose', { token: 'other_org' })).status).toBe(404);
    expect((await gateway.ask('/workspaces/ws-demo/diagnose', { token: null })).status).toBe(401);
    expect((await gateway.ask('/workspaces/ws-demo/console', { token: 'readonly' })).status).toBe(403);
    expect((await gateway.ask('/workspaces/ws-demo/console', { token: 'other_org' })).status).toBe(404);
  });

  it('a right that is withdrawn ends it', async () => {
    const { body: token } = await gateway.ask('/tokens', {
      method: 'POST',
      body: { kind: 'org', name: 'on call', scopes: ['diagnose'], expires_in_s: 600 },
    });
    await gateway.fault('banner_hang', { instance_id: await instanceId('ws-demo') });
    const asked = gateway.ask('/workspaces/ws-demo/diagnose', { token: { raw: String(token.token) } });
    await waitUntil('its tunnel is open', async () => (await gateway.counters()).tunnels.open === 1);
    await gateway.ask(`/tokens/${String(token.id)}`, { method: 'DELETE' });
    expect(await asked).toMatchObject({ status: 403, body: { code: 'exec_revoked' } });
    await nothingOpen();
  });

  it('a caller who hangs up ends it', async () => {
    await gateway.fault('banner_hang', { instance_id: await instanceId('ws-demo') });
    const leaving = new AbortController();
    const asked = gateway.ask('/workspaces/ws-demo/diagnose', { signal: leaving.signal }).catch(() => null);
    await waitUntil('its tunnel is open', async () => (await gateway.counters()).tunnels.open === 1);
    leaving.abort();
    await asked;
    await nothingOpen();
    await waitUntil('its row is closed', async () => {
      const { body } = await gateway.ask('/activity?type=workspace_diagnose&limit=1');
      return (body.items as { status: string }[])[0]?.status === 'cancelled';
    });
  });
});

describe('the console', () => {
  it('is a document, or text for who asks for text', async () => {
    const { status, body } = await gateway.ask('/workspaces/ws-demo/console');
    expect(status).toBe(200);
    expect(body).toMatchObject({ workspace_id: 'ws-demo', instance_id: await instanceId('ws-demo') });
    expect(body.output).toContain('BEGIN SSH HOST KEY KEYS');
    const text = await gateway.ask('/workspaces/ws-demo/console', { headers: { accept: 'text/plain' } });
    expect(text.headers['content-type']).toMatch(/^text\/plain/);
    expect(text.text).toBe(body.output);
  });

  it('is null while nothing was posted', async () => {
    await gateway.fault('console_empty', { instance_id: await instanceId('ws-demo') });
    const { status, body } = await gateway.ask('/workspaces/ws-demo/console');
    expect({ status, output: body.output }).toEqual({ status: 200, output: null });
  });

  it('is refused for a host without one', async () => {
    expect((await gateway.ask('/workspaces/ws-no-instance/console')).body.code).toBe('no_instance');
  });
});
