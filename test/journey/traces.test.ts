/** Traces as an operator gets them: the real program, a real receiver of OTLP, and what an exec leaves in both. */

import { cp, mkdir, mkdtemp, readdir, rm, symlink } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, describe, expect, onTestFinished, test } from 'vitest';
import { TRACES_FLUSH_MAX_MS } from '../../src/limits.ts';
import { terminalOf } from '../support/gateway.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { builtProgram, runNode } from '../support/program.ts';
import { type Serving, startServing } from '../support/serving.ts';
import { type ReceivedSpan, startTraceReceiver, type TraceReceiver } from '../support/trace-receiver.ts';
import { waitUntil } from '../support/wait.ts';

failOnLeaks(10_000);

const TRACE_ID = '0af7651916cd43dd8448eb211c80319c';
const PARENT_ID = 'b7ad6b7169203331';
const TRACEPARENT = `00-${TRACE_ID}-${PARENT_ID}-01`;
/** What an opening through an endpoint goes through. */
const STEPS = ['instance', 'endpoint', 'tunnel', 'banner', 'host_key', 'key_push', 'login'];

let serving: Serving | null = null;
let receiver: TraceReceiver | null = null;
afterEach(async () => {
  await serving?.stop();
  await receiver?.stop();
  [serving, receiver] = [null, null];
});

async function serveTraced(env: Record<string, string> = {}): Promise<{ gateway: Serving; traces: TraceReceiver }> {
  const traces = await startTraceReceiver();
  receiver = traces;
  const gateway = await startServing({
    env: { OTEL_EXPORTER_OTLP_ENDPOINT: traces.url, OTEL_BSP_SCHEDULE_DELAY: '50', ...env },
  });
  serving = gateway;
  return { gateway, traces };
}

/** The spans of one trace, once its request is among them. */
async function traceOf({ spans }: TraceReceiver, traceId: string): Promise<ReceivedSpan[]> {
  return await waitUntil('the trace', () => {
    const found = spans().filter((span) => span.traceId === traceId);
    const isWhole = found.some(({ name }) => name.startsWith('POST ')) && found.some(({ name }) => name === 'exec');
    return isWhole ? found : null;
  });
}

function oneOf(spans: readonly ReceivedSpan[], name: string): ReceivedSpan {
  const found = spans.filter((span) => span.name === name);
  expect(found.map((span) => span.name)).toEqual([name]);
  return found[0] as ReceivedSpan;
}

const childrenOf = (spans: readonly ReceivedSpan[], parent: ReceivedSpan): ReceivedSpan[] =>
  spans.filter(({ parentSpanId }) => parentSpanId === parent.spanId);

const traceparent = (index: number) => {
  const traceId = index.toString(16).padStart(32, 'a');
  return { traceId, headers: { traceparent: `00-${traceId}-${PARENT_ID}-01` } };
};

/** The row of an exec, once it is closed. */
async function rowOf(gateway: Serving, execId: unknown): Promise<Record<string, unknown>> {
  return await waitUntil('the row', async () => {
    const { body } = await gateway.ask('/activity');
    const rows = body.items as Record<string, unknown>[];
    return rows.find(({ id, status }) => id === execId && status !== 'running') ?? null;
  });
}

describe('the trace of an exec', () => {
  test('goes from the caller over request and exec to every step of a cold connection', async () => {
    const { gateway, traces } = await serveTraced();
    const canary = { cmd: ['sh', '-c', 'echo canary-output; exit 3'], env: { A: 'canary-env' }, stdin: 'canary-stdin' };
    const { frames } = await gateway.exec(canary, { headers: { traceparent: TRACEPARENT, tracestate: 'congo=t61' } });
    const execId = terminalOf(frames).exec_id;
    const spans = await traceOf(traces, TRACE_ID);

    const request = oneOf(spans, 'POST /workspaces/:id/exec');
    expect(request).toMatchObject({ parentSpanId: PARENT_ID, kind: 2, error: null, traceState: 'congo=t61' });
    expect(request.attributes).toMatchObject({ 'http.response.status_code': 200, 'sallyport.workspace_id': 'ws-1' });
    expect(request.resource).toMatchObject({ 'service.name': 'sallyport', 'service.version': expect.any(String) });

    const exec = oneOf(spans, 'exec');
    expect(exec).toMatchObject({ parentSpanId: request.spanId, kind: 1, error: null });
    expect(exec.attributes).toEqual({
      'sallyport.exec_id': execId,
      'sallyport.org_id': 'org-1',
      'sallyport.workspace_id': 'ws-1',
      'sallyport.driver': 'ec2',
      'sallyport.tier': 3,
      'sallyport.outcome': 'exited',
      'sallyport.exit_code': 3,
    });
    const parts = childrenOf(spans, exec);
    expect(new Set(parts.map(({ name }) => name))).toEqual(
      new Set(['audit.open', 'session.wait', ...STEPS, 'channel']),
    );
    for (const part of parts) expect(part).toMatchObject({ error: null, kind: 1 });
    for (const part of parts) expect(part.fromMs).toBeGreaterThanOrEqual(exec.fromMs);
    for (const part of parts) expect(part.toMs).toBeLessThanOrEqual(exec.toMs);
    expect(exec.fromMs).toBeGreaterThanOrEqual(request.fromMs);
    const wait = oneOf(spans, 'session.wait');
    expect(wait.fromMs).toBeGreaterThanOrEqual(oneOf(spans, 'audit.open').toMs);
    const steps = parts.filter(({ name }) => STEPS.includes(name));
    for (const step of steps) expect(step.fromMs).toBeGreaterThanOrEqual(wait.fromMs);
    expect(oneOf(spans, 'channel').fromMs).toBeGreaterThanOrEqual(wait.toMs);
    expect(traces.text()).not.toContain('canary');

    const row = await rowOf(gateway, execId);
    const written = row.tool_trace as { step: string; ok: boolean; started_ms: number; duration_ms: number }[];
    const shown = parts.filter(({ name }) => !['audit.open', 'session.wait'].includes(name));
    const inOrder = [...written].sort((one, other) => one.started_ms - other.started_ms);
    expect(inOrder).toEqual(
      shown.map(({ name, fromMs, toMs }) => ({
        step: name,
        ok: true,
        started_ms: expect.closeTo(fromMs - exec.fromMs, 0),
        duration_ms: expect.closeTo(toMs - fromMs, 0),
      })),
    );
  });

  test('has no steps where a session was open, and neither has its row', async () => {
    const { gateway, traces } = await serveTraced();
    await gateway.exec({ cmd: ['true'] });
    const { traceId, headers } = traceparent(1);
    const { frames } = await gateway.exec({ cmd: ['true'] }, { headers });
    const spans = await traceOf(traces, traceId);
    expect(spans.map(({ name }) => name).sort()).toEqual([
      'POST /workspaces/:id/exec',
      'audit.open',
      'channel',
      'exec',
      'rights',
    ]);
    expect(await rowOf(gateway, terminalOf(frames).exec_id)).toMatchObject({ tool_trace: null });
  });

  test('shows the steps of one opening to each of those that waited for it', async () => {
    const { gateway, traces } = await serveTraced();
    const callers = [2, 3, 4].map(traceparent);
    await Promise.all(callers.map(({ headers }) => gateway.exec({ cmd: ['true'] }, { headers })));
    const logins = await Promise.all(
      callers.map(async ({ traceId }) => {
        const spans = await traceOf(traces, traceId);
        const login = oneOf(spans, 'login');
        expect(login.parentSpanId).toBe(oneOf(spans, 'exec').spanId);
        return login;
      }),
    );
    expect(new Set(logins.map(({ spanId }) => spanId)).size).toBe(3);
    // Each request places its spans by a clock reading of its own, a millisecond wide.
    const begins = logins.map(({ fromMs }) => fromMs);
    expect(Math.max(...begins) - Math.min(...begins)).toBeLessThan(5);
  });

  test('names the step that failed, as do the row and the answer', async () => {
    const { gateway, traces } = await serveTraced();
    await gateway.lab.fault('login_refused');
    const { traceId, headers } = traceparent(5);
    const { status, body } = await gateway.exec({ cmd: ['canary-argv'] }, { headers });
    expect([status, body.failed_step]).toEqual([502, 'login']);
    const spans = await traceOf(traces, traceId);
    expect(oneOf(spans, 'POST /workspaces/:id/exec').error).toBe('login_refused');
    const exec = oneOf(spans, 'exec');
    expect(exec.error).toBe('login_refused');
    expect(exec.attributes).toMatchObject({
      'sallyport.outcome': 'unreachable',
      'sallyport.failed_step': 'login',
      'error.type': 'login_refused',
    });
    const login = childrenOf(spans, exec)
      .filter(({ name }) => name === 'login')
      .at(-1);
    expect(login?.attributes).toMatchObject({ 'error.type': 'login_refused' });
    expect(login?.error).not.toBeNull();
    // A refused login is tried once more, with everything read anew.
    for (const { name, error } of childrenOf(spans, exec))
      expect({ name, error }).toEqual({
        name,
        error: ['login', 'session.wait'].includes(name) ? expect.any(String) : null,
      });
    expect(traces.text()).not.toContain('canary');

    const steps = (await rowOf(gateway, body.exec_id)).tool_trace as Record<string, unknown>[];
    const failed = steps.filter(({ ok }) => ok === false).map(({ step, error }) => `${step}: ${error}`);
    expect(new Set(failed)).toEqual(new Set(['login: login_refused']));
    expect(steps.find(({ step }) => step === 'tunnel')).toMatchObject({ ok: true });
    expect(JSON.stringify(steps)).not.toMatch(/detail|127\.0\.0\.1|i-[0-9a-f]{8}/);
  });

  test('names the step that hung until the time was over', async () => {
    const { gateway, traces } = await serveTraced();
    await gateway.lab.fault('banner_hang');
    const { traceId, headers } = traceparent(6);
    const { status, body } = await gateway.exec({ cmd: ['true'], connect_timeout_s: 1 }, { headers });
    expect([status, body.failed_step]).toEqual([504, 'banner']);
    const banner = oneOf(await traceOf(traces, traceId), 'banner');
    expect(banner.attributes).toMatchObject({ 'error.type': 'connect_timeout' });
    const steps = (await rowOf(gateway, body.exec_id)).tool_trace as Record<string, unknown>[];
    const hung = steps.find(({ step }) => step === 'banner');
    expect(hung).toMatchObject({ ok: false, error: 'connect_timeout' });
    expect(hung?.duration_ms).toBeGreaterThan(200);
    expect(hung?.duration_ms).toBeLessThan(5_000);
  });

  test('of a request with a key has the opening of its row too', async () => {
    const { gateway, traces } = await serveTraced();
    const { traceId, headers } = traceparent(7);
    await gateway.exec({ cmd: ['true'] }, { headers: { ...headers, 'idempotency-key': 'k-1' } });
    const spans = await traceOf(traces, traceId);
    const request = oneOf(spans, 'POST /workspaces/:id/exec');
    expect(childrenOf(spans, request).map(({ name }) => name)).toContain('audit.open');
  });
});

function closeWith(server: Server, sockets: readonly Socket[]): void {
  for (const socket of sockets) socket.destroy();
  server.close();
}

describe('exporting', () => {
  test('goes by the standard variables: name, attributes, sampler', async () => {
    const { gateway, traces } = await serveTraced({
      OTEL_SERVICE_NAME: 'gate',
      OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment.name=test',
      OTEL_TRACES_SAMPLER: 'parentbased_always_off',
    });
    await gateway.exec({ cmd: ['true'] });
    const { traceId, headers } = traceparent(8);
    await gateway.exec({ cmd: ['true'] }, { headers });
    const spans = await traceOf(traces, traceId);
    expect(spans[0]?.resource).toMatchObject({ 'service.name': 'gate', 'deployment.environment.name': 'test' });
    expect(new Set(traces.spans().map((span) => span.traceId))).toEqual(new Set([traceId]));
  });

  test('sends what is left when the gateway stops', async () => {
    const { gateway, traces } = await serveTraced({ OTEL_BSP_SCHEDULE_DELAY: '60000' });
    await gateway.exec({ cmd: ['true'] });
    expect(traces.spans()).toEqual([]);
    gateway.program.kill('SIGTERM');
    expect((await gateway.program.ended).code).toBe(0);
    expect(traces.spans().map(({ name }) => name)).toContain('exec');
  });

  test.each(['refuses connections', 'takes them and never answers'])(
    'to a receiver that %s costs no exec anything, and a stop little',
    async (how) => {
      const sockets: Socket[] = [];
      const silent = createServer((socket) => void sockets.push(socket));
      await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
      const { port } = silent.address() as { port: number };
      if (how === 'refuses connections') await new Promise((resolve) => silent.close(resolve));
      else onTestFinished(() => closeWith(silent, sockets));
      const { gateway } = await serveTraced({
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `http://127.0.0.1:${port}/v1/traces`,
        OTEL_BSP_SCHEDULE_DELAY: '20',
      });
      for (let index = 0; index < 5; index += 1) {
        const { frames } = await gateway.exec({ cmd: ['true'] });
        expect(terminalOf(frames)).toMatchObject({ exit_code: 0, complete: true });
      }
      const fromMs = performance.now();
      gateway.program.kill('SIGTERM');
      expect((await gateway.program.ended).code).toBe(0);
      expect(performance.now() - fromMs).toBeLessThan(TRACES_FLUSH_MAX_MS + 4_000);
    },
  );

  test('needs packages of its own; a start without them ends with one sentence that names them', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'bare-'));
    onTestFinished(() => rm(folder, { recursive: true }));
    const root = dirname(dirname(await builtProgram()));
    for (const name of ['dist', 'package.json'])
      await cp(join(root, name), join(folder, name), { recursive: true, dereference: true });
    const modules = join(root, 'node_modules');
    await mkdir(join(folder, 'node_modules', '@opentelemetry'), { recursive: true });
    const links = (await readdir(modules)).filter((name) => name !== '@opentelemetry');
    for (const name of [...links, '@opentelemetry/api'])
      await symlink(join(modules, name), join(folder, 'node_modules', name));
    const { code, stdout, stderr } = await runNode([join(folder, 'dist/main.js'), 'serve'], {
      env: { SALLYPORT_DATA_DIR: join(folder, 'data'), OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:4318' },
    });
    expect({ code, stdout: stdout.toString(), stderr }).toEqual({
      code: 1,
      stdout: '',
      stderr:
        'sallyport: OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, which need packages that cannot be loaded: npm install ' +
        '@opentelemetry/sdk-trace-base @opentelemetry/exporter-trace-otlp-http @opentelemetry/resources\n',
    });
  });
});
