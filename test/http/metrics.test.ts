import request from 'supertest';
import { describe, expect, test } from 'vitest';
import { SallyportError } from '../../src/errors.ts';
import { createMetrics } from '../../src/http/metrics.ts';
import { createMetricsApp } from '../../src/http/server.ts';
import { waitUntil } from '../support/wait.ts';
import { endOf, type FakeGateway, fakeGateway, fakeMetrics, type Script, workspaceOf } from './fake-gateway.ts';

const PATH = '/workspaces/ws-1/exec';

async function countedGateway(): Promise<FakeGateway> {
  const metrics = fakeMetrics();
  return await fakeGateway({ metrics });
}

async function exec(gateway: FakeGateway, { path = PATH, body = { cmd: ['ls'] } as object } = {}) {
  return await request(gateway.app)
    .post(path)
    .auth(await gateway.token(), { type: 'bearer' })
    .send(body);
}

/** The samples that are not zero, without those of the process. */
async function samples(gateway: FakeGateway): Promise<Record<string, number>> {
  const { text } = await request(gateway.app).get('/metrics');
  const lines = text.split('\n').filter((line) => line.startsWith('sallyport_') && !line.includes('_bucket'));
  return Object.fromEntries(
    lines.map((line) => [line.slice(10, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ')))]),
  );
}

function ending(change: Parameters<typeof endOf>[1], { started = true } = {}): Script {
  return async function* (run) {
    if (started) yield { kind: 'started', pid: 1 };
    yield endOf(run, { exitCode: null, complete: false, ...change });
  };
}

describe('metrics', () => {
  test('count an exec by outcome, driver and tier, and how long it and its way took', async () => {
    const gateway = await countedGateway();
    await exec(gateway);
    expect(await samples(gateway)).toMatchObject({
      'execs_total{outcome="exited",driver="ec2",tier="3"}': 1,
      'exec_duration_seconds_count{driver="ec2"}': 1,
      'exec_duration_seconds_sum{driver="ec2"}': 0.012,
      'exec_connect_seconds_count{driver="ec2"}': 1,
      'http_requests_total{route="POST /workspaces/:id/exec",status="2xx"}': 1,
    });
  });

  test('count the step that failed, and no duration of a program that never started', async () => {
    const gateway = await countedGateway();
    const error = new SallyportError('host_unreachable', 'no', { failedStep: 'tunnel', outcome: 'unreachable' });
    gateway.script.current = ending({ outcome: 'unreachable', error }, { started: false });
    await exec(gateway);
    const counted = await samples(gateway);
    expect(counted).toMatchObject({
      'execs_total{outcome="unreachable",driver="ec2",tier="3"}': 1,
      'exec_failed_step_total{step="tunnel",driver="ec2"}': 1,
      'problems_total{code="host_unreachable"}': 1,
      'http_requests_total{route="POST /workspaces/:id/exec",status="5xx"}': 1,
    });
    expect(Object.keys(counted).filter((name) => name.startsWith('exec_duration'))).toEqual([]);
  });

  test.each([
    ['none', []],
    ['some', [4711]],
    ['unknown', null],
  ])('count a kill that left %s', async (kind, survivors) => {
    const gateway = await countedGateway();
    const error = new SallyportError('exec_timeout', 'over');
    gateway.script.current = ending({ outcome: 'timed_out', error, survivors });
    await exec(gateway);
    expect(await samples(gateway)).toMatchObject({ [`kills_total{survivors="${kind}"}`]: 1 });
  });

  test('a program that ended by itself and left a child is no kill', async () => {
    const gateway = await countedGateway();
    gateway.script.current = ending({ outcome: 'exited', exitCode: 0, survivors: [4711] });
    await exec(gateway);
    expect(Object.keys(await samples(gateway)).filter((name) => name.startsWith('kills'))).toEqual([]);
  });

  test('count refused execs as such, once, also those of strangers', async () => {
    const gateway = await countedGateway();
    gateway.workspaces.set('ws-1', workspaceOf({ tier: 2 }));
    await exec(gateway);
    await exec(gateway, { path: '/workspaces/nowhere/exec' });
    await request(gateway.app).post(PATH);
    const counted = await samples(gateway);
    expect(counted).toMatchObject({
      'execs_total{outcome="refused",driver="ec2",tier="2"}': 1,
      'execs_total{outcome="refused",driver="none",tier="none"}': 2,
      'problems_total{code="exec_tier_forbidden"}': 1,
      'problems_total{code="unauthenticated"}': 1,
    });
  });

  test('name no tenant, no argument and no path that a caller made up', async () => {
    const gateway = await countedGateway();
    await exec(gateway, { body: { cmd: ['canary-argv'], env: { CANARY: 'canary-env' }, cwd: '/canary-cwd' } });
    await exec(gateway, { path: '/workspaces/canary-ws/exec' });
    await request(gateway.app).get('/canary-path?canary=1').set('x-org-id', 'canary-org');
    const { text } = await request(gateway.app).get('/metrics');
    expect(text).toContain('route="(no route)",status="4xx"} 1');
    expect(text).not.toMatch(/canary|org-a|ws-1/i);
  });

  test('a caller who leaves before there is an answer is counted as gone', async () => {
    const gateway = await countedGateway();
    gateway.script.current = async function* (run) {
      await new Promise((resolve) => run.signal.addEventListener('abort', resolve));
      yield endOf(run, { outcome: 'cancelled', error: new SallyportError('exec_cancelled', 'gone'), exitCode: null });
    };
    const sent = request(gateway.app)
      .post(PATH)
      .auth(await gateway.token(), { type: 'bearer' })
      .send({ cmd: ['ls'] });
    sent.on('error', () => {});
    sent.end(() => {});
    await waitUntil('the exec runs', () => gateway.runs.length === 1);
    sent.abort();
    await waitUntil('the exec is over', () => gateway.deps.running.size === 0);
    expect(await samples(gateway)).toMatchObject({
      'http_requests_total{route="POST /workspaces/:id/exec",status="gone"}': 1,
      'execs_total{outcome="cancelled",driver="ec2",tier="3"}': 1,
    });
  });

  test('read what others hold when they are asked', async () => {
    let sessions = 3;
    const metrics = createMetrics({
      version: '1.2.3',
      nativeCrypto: false,
      running: () => 1,
      pool: () => ({ sessions, leases: 4, openings: 5, waiting: 6, tunnels: 7 }),
      auditPending: () => 8,
      auditUnsealed: () => ({ entries: 9, oldestMs: 1_500 }),
      rightsAgeMs: () => 1_500,
    });
    const gateway = await fakeGateway({ metrics });
    expect(await samples(gateway)).toMatchObject({
      execs_running: 1,
      pool_sessions: 3,
      pool_leases: 4,
      pool_openings: 5,
      pool_waiting: 6,
      tunnels: 7,
      audit_pending: 8,
      audit_unsealed: 9,
      audit_unsealed_age_seconds: 1.5,
      rights_age_seconds: 1.5,
      withdrawal_bound_seconds: 2,
      'build_info{version="1.2.3",ssh_crypto="javascript"}': 1,
    });
    sessions = 9;
    expect((await samples(gateway)).pool_sessions).toBe(9);
  });

  test('are text of Prometheus, with figures of the process', async () => {
    const response = await request((await countedGateway()).app).get('/metrics');
    expect(response.headers['content-type']).toMatch(/^text\/plain; version=0\.0\.4/);
    expect(response.text).toMatch(/^process_open_fds \d+$/m);
    expect(response.text).toMatch(/^nodejs_eventloop_lag_p99_seconds /m);
  });

  test('with a port of their own are served there and nowhere else', async () => {
    const gateway = await fakeGateway({ servesMetrics: false });
    expect((await request(gateway.app).get('/metrics')).status).toBe(404);
    const aside = createMetricsApp(gateway.deps);
    expect((await request(aside).get('/metrics')).text).toContain('sallyport_build_info');
    expect((await request(aside).get('/workspaces')).status).toBe(404);
  });
});
