/** Spans of requests, recorded by the real SDK into memory. */
import { AsyncLocalStorage } from 'node:async_hooks';
import type { RequestListener } from 'node:http';
import {
  type Context,
  type ContextManager,
  context,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api';
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  type Sampler,
  SamplingDecision,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base';
import request from 'supertest';
import { describe, expect, onTestFinished, test } from 'vitest';
import { SallyportError } from '../../src/errors.ts';
import { waitUntil } from '../support/wait.ts';
import { endOf, type FakeGateway, fakeGateway } from './fake-gateway.ts';
import { listen, post } from './wire.ts';

const TRACE_ID = '0af7651916cd43dd8448eb211c80319c';
const PARENT_ID = 'b7ad6b7169203331';
const PATH = '/workspaces/ws-1/exec';

async function recordingGateway(sampler?: Sampler): Promise<FakeGateway & { spans(): ReadableSpan[] }> {
  const exporter = new InMemorySpanExporter();
  const provider = new BasicTracerProvider({
    spanProcessors: [new SimpleSpanProcessor(exporter)],
    ...(sampler === undefined ? {} : { sampler }),
  });
  const gateway = await fakeGateway({ tracer: provider.getTracer('test') });
  // The lookup of rights below them is for the journeys to test.
  const spans = (): ReadableSpan[] => exporter.getFinishedSpans().filter(({ name }) => name !== 'rights');
  return { ...gateway, spans };
}

async function exec(gateway: FakeGateway, headers: Record<string, string> = {}) {
  return await request(gateway.app)
    .post(PATH)
    .auth(await gateway.token(), { type: 'bearer' })
    .set({ 'x-request-id': 'r-1', ...headers })
    .send({ cmd: ['ls'] });
}

describe('the span of a request', () => {
  test('has the route as its name, and who asked for what by ids', async () => {
    const gateway = await recordingGateway();
    await exec(gateway);
    const [span, ...others] = await waitUntil('the span', () => (gateway.spans().length > 0 ? gateway.spans() : null));
    expect(others).toEqual([]);
    expect(span).toMatchObject({ name: 'POST /workspaces/:id/exec', kind: SpanKind.SERVER, status: { code: 0 } });
    expect(span?.attributes).toEqual({
      'http.request.method': 'POST',
      'url.scheme': 'http',
      'http.route': '/workspaces/:id/exec',
      'http.response.status_code': 200,
      'sallyport.request_id': 'r-1',
      'sallyport.org_id': 'org-a',
      'sallyport.workspace_id': 'ws-1',
    });
    expect(gateway.logged).toMatchObject([{ trace_id: span?.spanContext().traceId }]);
  });

  test("continues the caller's trace, and its state", async () => {
    const gateway = await recordingGateway();
    await exec(gateway, { traceparent: `00-${TRACE_ID}-${PARENT_ID}-01`, tracestate: 'congo=t61' });
    const [span] = gateway.spans();
    expect(span?.spanContext()).toMatchObject({ traceId: TRACE_ID });
    expect(span?.spanContext().traceState?.serialize()).toBe('congo=t61');
    expect(span?.parentSpanContext).toMatchObject({ spanId: PARENT_ID, isRemote: true });
    expect(gateway.logged).toMatchObject([{ trace_id: TRACE_ID }]);
  });

  test('begins a trace of its own where that of the caller is not valid', async () => {
    const gateway = await recordingGateway();
    await exec(gateway, { traceparent: `00-${TRACE_ID}-${PARENT_ID}-01-more` });
    const [span] = gateway.spans();
    expect(span?.parentSpanContext).toBeUndefined();
    expect(gateway.logged).toMatchObject([{ trace_id: span?.spanContext().traceId }]);
    expect(span?.spanContext().traceId).not.toBe(TRACE_ID);
  });

  test('is not made where the caller decided against recording; the line keeps the trace id', async () => {
    const gateway = await recordingGateway();
    await exec(gateway, { traceparent: `00-${TRACE_ID}-${PARENT_ID}-00` });
    expect(gateway.spans()).toEqual([]);
    expect(gateway.runs).toMatchObject([{ span: null }]);
    expect(gateway.logged).toMatchObject([{ trace_id: TRACE_ID }]);
  });

  test('is not made where the sampler wants none, and the line has no trace id', async () => {
    const gateway = await recordingGateway({
      shouldSample: () => ({ decision: SamplingDecision.NOT_RECORD }),
      toString: () => 'never',
    });
    await exec(gateway);
    expect(gateway.spans()).toEqual([]);
    expect(gateway.logged[0]).not.toHaveProperty('trace_id');
  });

  test('is an error where the gateway or a host failed, by the code; not where the caller did', async () => {
    const gateway = await recordingGateway();
    gateway.script.current = async function* (run) {
      const error = new SallyportError('host_unreachable', 'no', { failedStep: 'tunnel', outcome: 'unreachable' });
      yield endOf(run, { outcome: 'unreachable', exitCode: null, error });
    };
    await exec(gateway);
    await request(gateway.app).get('/activity');
    expect(gateway.spans()).toMatchObject([
      {
        status: { code: SpanStatusCode.ERROR, message: 'host_unreachable' },
        attributes: { 'http.response.status_code': 502, 'error.type': 'host_unreachable' },
      },
      {
        name: 'GET /activity',
        status: { code: SpanStatusCode.UNSET },
        attributes: { 'http.response.status_code': 401 },
      },
    ]);
  });

  test('says nothing of a path that is none of ours', async () => {
    const gateway = await recordingGateway();
    await request(gateway.app).get('/canary?token=canary');
    expect(gateway.spans()).toMatchObject([{ name: 'GET', attributes: { 'http.response.status_code': 404 } }]);
    expect(JSON.stringify(gateway.spans()[0]?.attributes)).not.toContain('canary');
  });

  test.each(['/healthz', '/readyz', '/metrics'])('is not made for the probe %s', async (path) => {
    const gateway = await recordingGateway();
    expect((await request(gateway.app).get(path)).status).toBe(200);
    expect(gateway.spans()).toEqual([]);
  });

  test('ends when the caller hangs up, without a status that nobody got', async () => {
    const gateway = await recordingGateway();
    gateway.script.current = async function* (run) {
      await new Promise((resolve) => run.signal.addEventListener('abort', resolve, { once: true }));
      yield endOf(run, { outcome: 'cancelled', exitCode: null, error: new SallyportError('exec_cancelled', 'gone') });
    };
    const server = await listen(gateway.app);
    const sent = post(server.url + PATH, { token: await gateway.token(), body: { cmd: ['ls'] } });
    await waitUntil('it runs', () => gateway.runs.length === 1);
    sent.request.destroy();
    const [span] = await waitUntil('the span', () => (gateway.spans().length > 0 ? gateway.spans() : null));
    expect(span?.attributes).not.toHaveProperty('http.response.status_code');
  });

  test('belongs to that of a program around, which is the SERVER span then', async () => {
    const gateway = await recordingGateway();
    const storage = new AsyncLocalStorage<Context>();
    const manager: ContextManager = {
      active: () => storage.getStore() ?? ROOT_CONTEXT,
      with: (active, run, self, ...args) => storage.run(active, () => run.call(self as never, ...args)),
      bind: (_active, target) => target,
      enable: () => manager,
      disable: () => manager,
    };
    context.setGlobalContextManager(manager);
    onTestFinished(() => context.disable());
    const around = gateway.deps.tracer.startSpan('around');
    const inContext = trace.setSpan(ROOT_CONTEXT, around);
    const handle: RequestListener = (req, res) => context.with(inContext, () => gateway.app(req, res));
    await request(handle)
      .get('/activity')
      .set({ traceparent: `00-${TRACE_ID}-${PARENT_ID}-01` });
    expect(gateway.spans()).toMatchObject([
      { kind: SpanKind.INTERNAL, parentSpanContext: { spanId: around.spanContext().spanId } },
    ]);
  });
});
