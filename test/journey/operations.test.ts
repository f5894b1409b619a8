/** The real program as an operator sees it: its metrics, its log, and how it stops. */
import { afterEach, describe, expect, onTestFinished, test } from 'vitest';
import { DRAIN_GRACE_MS, RIGHTS_POLL_MS, WITHDRAWAL_MAX_MS } from '../../src/limits.ts';
import { openLine } from '../db/line.ts';
import { createTestDatabase } from '../support/database.ts';
import { send, sendingOf, terminalOf } from '../support/gateway.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { type Serving, startServing } from '../support/serving.ts';
import { waitUntil } from '../support/wait.ts';

failOnLeaks(10_000);
let serving: Serving | null = null;
afterEach(async () => {
  await serving?.stop();
  serving = null;
});

async function serve(env: Record<string, string> = {}): Promise<Serving> {
  serving = await startServing({ env });
  return serving;
}

function linesOf({ program }: Serving): Record<string, unknown>[] {
  return program
    .stderr()
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

const get = (url: string) => send(url, sendingOf(null, {}));

/** The program itself; an exec counts as running from the last gate on. */
async function hasStarted({ url }: Serving): Promise<boolean> {
  return /^sallyport_exec_connect_seconds_count\S* 1$/m.test((await get(`${url}/metrics`)).text);
}

/** The value of a metric without labels. */
async function metricOf({ url }: Serving, name: string): Promise<number> {
  const { text } = await get(`${url}/metrics`);
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1]);
}

describe('watching', () => {
  test('metrics have their own port where one is set, and count what has happened', async () => {
    const gateway = await serve({ SALLYPORT_METRICS_PORT: '0' });
    await gateway.exec({ cmd: ['sh', '-c', 'exit 3'] });
    await gateway.exec({ cmd: ['sleep', '100'], timeout_s: 0.2 });
    await gateway.exec({ cmd: 'not argv' });
    await waitUntil('the log', () => linesOf(gateway).some(({ msg }) => msg === 'ready'));
    const { metrics_url: metricsUrl } = linesOf(gateway).find(({ msg }) => msg === 'ready') ?? {};
    expect((await get(`${gateway.url}/metrics`)).status).toBe(404);
    const { text } = await get(String(metricsUrl));
    expect(text).toContain('sallyport_execs_total{outcome="exited",driver="ec2",tier="3"} 1\n');
    expect(text).toContain('sallyport_execs_total{outcome="timed_out",driver="ec2",tier="3"} 1\n');
    expect(text).toContain('sallyport_execs_total{outcome="refused",driver="ec2",tier="3"} 1\n');
    expect(text).toContain('sallyport_kills_total{survivors="none"} 1\n');
    expect(text).toContain('sallyport_pool_sessions 1\n');
    expect(text).toContain('sallyport_tunnels 1\n');
    expect(text).toContain('sallyport_execs_running 0\n');
    expect(text).toMatch(/sallyport_build_info\{version="\d+\.\d+\.\d+",ssh_crypto="(native|javascript)"\} 1\n/);
    expect(text).not.toMatch(/ws-1|org-1|sleep/);
  });

  test('every request is one line on standard error, and no line shows what ran or what it said', async () => {
    const gateway = await serve();
    const headers = { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', 'x-request-id': 'r-1' };
    const body = { cmd: ['echo', 'canary-argv'], env: { A: 'canary-env' }, stdin: 'canary-stdin' };
    const answer = await gateway.exec(body, { headers });
    await gateway.ask('/workspaces/canary-ws', { headers: { 'x-request-id': 'r-2' } });
    await waitUntil('both lines', () => linesOf(gateway).some((line) => line.request_id === 'r-2'));
    const lines = linesOf(gateway).filter(({ msg }) => msg === 'request');
    expect(lines.filter((line) => line.request_id === 'r-1')).toMatchObject([
      {
        trace_id: '0af7651916cd43dd8448eb211c80319c',
        route: '/workspaces/:id/exec',
        status: 200,
        outcome: 'exited',
        org: 'org-1',
        exec_id: answer.headers['x-exec-id'],
      },
    ]);
    expect(lines.filter((line) => line.request_id === 'r-2')).toMatchObject([{ status: 404, code: 'not_found' }]);
    expect(gateway.program.stderr()).not.toContain('canary');
    expect(gateway.program.stderr()).not.toContain(gateway.token.slice(20, 80));
  });

  test('a database that is gone is why the gateway is not ready, and lets the rights of what runs grow old', async () => {
    const real = await createTestDatabase();
    const line = await openLine(real.url);
    onTestFinished(async () => {
      await line.close();
      await real.drop();
    });
    const gateway = await serve({ DATABASE_URL: line.url });
    expect(await metricOf(gateway, 'sallyport_withdrawal_bound_seconds')).toBe(WITHDRAWAL_MAX_MS / 1000);
    expect(await metricOf(gateway, 'sallyport_rights_age_seconds')).toBe(0);
    const stuck = gateway.exec({ cmd: ['sleep', '100'], timeout_s: 60 });
    await waitUntil('it runs', () => hasStarted(gateway));
    const isOld = async () => (await metricOf(gateway, 'sallyport_rights_age_seconds')) > WITHDRAWAL_MAX_MS / 1000;

    line.cut();
    const notReady = await waitUntil('not ready', async () => {
      const answer = await get(`${gateway.url}/readyz`);
      return answer.status === 503 ? answer : null;
    });
    expect(notReady.body).toEqual({ ok: false, reasons: [expect.stringMatching(/^database: /)] });
    await waitUntil('the rights are old', isOld, 10_000);
    expect((await get(`${gateway.url}/healthz`)).status).toBe(200);
    expect((await gateway.exec({ cmd: ['true'] })).body).toMatchObject({ code: 'audit_unavailable' });

    line.mend();
    await waitUntil('ready again', async () => (await get(`${gateway.url}/readyz`)).status === 200, 10_000);
    await waitUntil('the rights are known again', async () => !(await isOld()), 10_000);
    expect(await metricOf(gateway, 'sallyport_execs_running')).toBe(1);
    const { items } = (await gateway.ask('/workspaces/ws-1/execs')).body as { items: { exec_id: string }[] };
    await gateway.ask(`/workspaces/ws-1/execs/${items[0]?.exec_id}`, { method: 'DELETE' });
    expect((await stuck).body).toMatchObject({ outcome: 'cancelled' });
  });

  test('a withdrawal counts how long it took at most', async () => {
    const gateway = await serve();
    const stuck = gateway.exec({ cmd: ['sleep', '100'], timeout_s: 60 });
    await waitUntil('it runs', () => hasStarted(gateway));
    await gateway.ask('/orgs/org-1/freeze', { method: 'POST', token: gateway.adminToken });
    expect((await stuck).body).toMatchObject({ code: 'exec_revoked', outcome: 'revoked' });
    expect(await metricOf(gateway, 'sallyport_withdrawal_seconds_count')).toBe(1);
    expect(await metricOf(gateway, 'sallyport_withdrawal_seconds_sum')).toBeLessThan(RIGHTS_POLL_MS / 1000 + 2);
  });

  test('a rate is enforced where one is set', async () => {
    const gateway = await serve({ SALLYPORT_RATE_PER_MIN: '20' });
    const statuses: number[] = [];
    for (let index = 0; index < 21; index += 1) statuses.push((await gateway.ask('/workspaces')).status);
    expect(statuses).toEqual([...Array<number>(20).fill(200), 429]);
  });
});

describe('stopping', () => {
  test('is told by /readyz at once; new execs are sent away, running ones get their time', async () => {
    const gateway = await serve();
    const stuck = gateway.exec({ cmd: ['sh', '-c', 'echo begun; sleep 100'] });
    const brief = gateway.exec({ cmd: ['sh', '-c', 'sleep 1; echo ended'] });
    await waitUntil('both run', async () => /execs_running 2/.test((await get(`${gateway.url}/metrics`)).text));
    expect((await get(`${gateway.url}/readyz`)).body).toEqual({ ok: true, reasons: [] });

    gateway.program.kill('SIGTERM');
    const notReady = await waitUntil('not ready', async () => {
      const answer = await get(`${gateway.url}/readyz`);
      return answer.status === 503 ? answer : null;
    });
    expect(notReady.body).toEqual({ ok: false, reasons: ['draining: the gateway is stopping'] });
    expect(notReady.headers.connection).toBe('close');
    expect((await get(`${gateway.url}/healthz`)).status).toBe(200);
    const refused = await gateway.exec({ cmd: ['true'] });
    expect(refused.status).toBe(503);
    expect(refused.body).toMatchObject({ code: 'draining', outcome: 'refused', retryable: true });
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0);

    const { frames } = await brief;
    expect(terminalOf(frames)).toMatchObject({ exit_code: 0, outcome: 'exited', complete: true });

    // The second signal ends the patience with what still runs.
    gateway.program.kill('SIGTERM');
    expect(terminalOf((await stuck).frames)).toMatchObject({ code: 'draining', outcome: 'drained', survivors: [] });
    expect((await gateway.program.ended).code).toBe(0);
    expect(linesOf(gateway).at(-1)).toMatchObject({ msg: 'stopped' });
  });

  test('ends what still runs when its time is over, and exits with 0', { timeout: 60_000 }, async () => {
    const gateway = await serve();
    const stuck = gateway.exec({ cmd: ['sh', '-c', 'echo begun; sleep 100'] });
    await waitUntil('it runs', async () => /execs_running 1/.test((await get(`${gateway.url}/metrics`)).text));
    const fromMs = performance.now();
    gateway.program.kill('SIGTERM');
    expect(terminalOf((await stuck).frames)).toMatchObject({ code: 'draining', outcome: 'drained', survivors: [] });
    const tookMs = performance.now() - fromMs;
    expect(tookMs).toBeGreaterThan(DRAIN_GRACE_MS - 500);
    expect(tookMs).toBeLessThan(DRAIN_GRACE_MS + 5_000);
    expect((await gateway.program.ended).code).toBe(0);
  });

  test('is done at once when nothing runs', async () => {
    const gateway = await serve();
    const fromMs = performance.now();
    gateway.program.kill('SIGTERM');
    expect((await gateway.program.ended).code).toBe(0);
    expect(performance.now() - fromMs).toBeLessThan(5_000);
  });
});
