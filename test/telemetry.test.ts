import { trace } from '@opentelemetry/api';
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';
import { pino } from 'pino';
import { expect, onTestFinished, test } from 'vitest';
import { startTelemetry } from '../src/telemetry.ts';

const how = { version: '1.2.3', replica: 'r-1', log: pino({ level: 'silent' }) };

test('without a receiver nobody records', async () => {
  const { tracer, stop } = await startTelemetry(null, how);
  expect(tracer.startSpan('x').isRecording()).toBe(false);
  await stop();
});

test('with a receiver the SDK records, and is registered nowhere', async () => {
  const { tracer, stop } = await startTelemetry({ variable: 'OTEL_EXPORTER_OTLP_ENDPOINT' }, how);
  expect(tracer.startSpan('x').isRecording()).toBe(true);
  expect(trace.getTracer('other').startSpan('x').isRecording()).toBe(false);
  await stop();
});

test.each([null, { variable: 'OTEL_EXPORTER_OTLP_ENDPOINT' }])(
  'a provider that a program around has registered is the one that records, with %j',
  async (traces) => {
    const exporter = new InMemorySpanExporter();
    trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }));
    onTestFinished(() => trace.disable());
    const { tracer, stop } = await startTelemetry(traces, how);
    tracer.startSpan('x').end();
    await stop();
    const scope = { name: 'sallyport', version: '1.2.3' };
    expect(exporter.getFinishedSpans()).toMatchObject([{ name: 'x', instrumentationScope: scope }]);
  },
);
