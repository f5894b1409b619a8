import { describe, expect, test } from 'vitest';
import { readConfig } from '../../src/config/config.ts';
import { problems } from './settings.ts';

describe('traces', () => {
  const ENDPOINT = { OTEL_EXPORTER_OTLP_ENDPOINT: 'https://collector:4318' };

  test.each([
    ['nothing is set', {}],
    ['the endpoint is empty', { OTEL_EXPORTER_OTLP_ENDPOINT: '' }],
    ['the SDK is disabled', { ...ENDPOINT, OTEL_SDK_DISABLED: 'TRUE' }],
    ['the exporter is none', { ...ENDPOINT, OTEL_TRACES_EXPORTER: 'none' }],
    ['another exporter is named and no endpoint', { OTEL_TRACES_EXPORTER: 'console' }],
  ])('are sent to nobody when %s', (_what, env) => {
    expect(readConfig(env).traces).toBeNull();
  });

  test('are sent where either endpoint says, theirs before the common one', () => {
    const theirs = { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://127.0.0.1:4318/v1/traces' };
    expect(readConfig(theirs).traces).toEqual({ variable: 'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT' });
    const set = { ...ENDPOINT, OTEL_SDK_DISABLED: 'false', OTEL_TRACES_EXPORTER: 'otlp', OTEL_SERVICE_NAME: '' };
    expect(readConfig(set).traces).toEqual({ variable: 'OTEL_EXPORTER_OTLP_ENDPOINT' });
    expect(readConfig({ ...set, ...theirs }).traces).toEqual({ variable: 'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT' });
  });

  test.each([
    [
      { OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4318' },
      'OTEL_EXPORTER_OTLP_ENDPOINT must be an http:// or https:// URL.',
    ],
    [{ ...ENDPOINT, OTEL_TRACES_EXPORTER: 'zipkin' }, 'OTEL_TRACES_EXPORTER must be otlp or none, not "zipkin".'],
    [
      { ...ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' },
      'OTEL_EXPORTER_OTLP_PROTOCOL must be http/json or http/protobuf: traces are sent over HTTP, not "grpc".',
    ],
  ])('%j stops the start', (env, problem) => {
    expect(problems(env)).toEqual([problem]);
  });
});
