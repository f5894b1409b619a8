/** Who is sent traces, if anybody. */
import type { Config } from './config.ts';
import { ANY_TEXT, type Kind, oneOf } from './kinds.ts';
import type { Settings } from './settings.ts';

const HTTP_URL: Kind<string> = {
  expected: 'an http:// or https:// URL',
  parse: (text) => (/^https?:\/\/./.test(text) && URL.canParse(text) ? text : null),
  isSecret: true, // may hold a password
};
/** A receiver on the port of HTTP takes both of its encodings; ours is JSON. */
const OTLP_PROTOCOL: Kind<string> = {
  expected: 'http/json or http/protobuf: traces are sent over HTTP',
  parse: (text) => (text === 'http/json' || text === 'http/protobuf' ? text : null),
};

/** OpenTelemetry's own variables; only those are read that decide whether and how its SDK is started, it reads the others. */
export function readTraces(settings: Settings): Config['traces'] {
  const variables = ['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT', 'OTEL_EXPORTER_OTLP_ENDPOINT'];
  const variable = variables.find((name) => settings.isSet(name));
  const isOff = settings.read('OTEL_SDK_DISABLED', ANY_TEXT)?.toLowerCase() === 'true';
  if (variable === undefined || isOff || settings.read('OTEL_TRACES_EXPORTER', ANY_TEXT) === 'none') return null;
  settings.read('OTEL_TRACES_EXPORTER', oneOf(['otlp', 'none']));
  for (const name of variables) settings.read(name, HTTP_URL);
  for (const name of ['OTEL_EXPORTER_OTLP_TRACES_PROTOCOL', 'OTEL_EXPORTER_OTLP_PROTOCOL']) {
    settings.read(name, OTLP_PROTOCOL);
  }
  return { variable };
}
