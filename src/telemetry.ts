/**
 * Who records traces: OpenTelemetry's SDK, loaded only where its own variables name a receiver (OTLP over HTTP).
 *
 * The SDK is not among the dependencies, for it is larger than the gateway: whoever exports installs it beside. Without a
 * receiver nothing is loaded, and the API alone is asked: where a program around this one has registered a provider
 * (`node --import …`), that one records, also when a receiver is named, for then the variables are its own.
 *
 * Decision: the provider is handed on as an argument and registered nowhere; only the SDK's complaints have no other way
 * than the API's global logger.
 */
import { DiagLogLevel, diag, ProxyTracerProvider, type Tracer, trace } from '@opentelemetry/api';
import type { Logger } from 'pino';
import { maskText } from './access/mask.ts';
import type { Config } from './config/config.ts';
import { TRACES_FLUSH_MAX_MS, TRACES_WARN_EVERY_MS } from './limits.ts';

export interface Telemetry {
  tracer: Tracer;
  /** Sends what is left, within TRACES_FLUSH_MAX_MS. Never rejects. */
  stop(): Promise<void>;
}

const NAME = 'sallyport';
const PACKAGES = [
  '@opentelemetry/sdk-trace-base',
  '@opentelemetry/exporter-trace-otlp-http',
  '@opentelemetry/resources',
];

/** Rejects with one sentence when the packages are not there. */
export async function startTelemetry(
  traces: Config['traces'],
  { version, replica, log }: { version: string; replica: string; log: Logger },
): Promise<Telemetry> {
  if (traces === null || isRecordedAround()) {
    return { tracer: trace.getTracer(NAME, version), stop: async () => undefined };
  }
  const { BasicTracerProvider, BatchSpanProcessor, OTLPTraceExporter, defaultResource, detectResources, ...sdk } =
    await loadSdk(traces.variable);
  const complaints = complainTo(log);
  diag.setLogger(complaints, { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true });
  const ours = { 'service.name': NAME, 'service.version': version, 'service.instance.id': replica };
  const named = detectResources({ detectors: [sdk.envDetector] });
  const provider = new BasicTracerProvider({
    resource: defaultResource().merge(sdk.resourceFromAttributes(ours)).merge(named),
    // Its queue is bounded: what does not fit, because a receiver is slow or gone, is dropped.
    spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())],
  });
  complaints.started();
  return {
    tracer: provider.getTracer(NAME, version),
    async stop() {
      const late = new AbortController();
      const limit = new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, TRACES_FLUSH_MAX_MS);
        late.signal.addEventListener('abort', () => clearTimeout(timer), { once: true });
      });
      // What is wrong with the receiver has been said.
      await Promise.race([provider.shutdown().catch(() => undefined), limit]);
      late.abort();
      diag.disable();
    },
  };
}

/** Asked of the API: the SDK of a program around this one stands behind its proxy. */
function isRecordedAround(): boolean {
  const provider = trace.getTracerProvider();
  return !(provider instanceof ProxyTracerProvider) || provider.getDelegateTracer(NAME) !== undefined;
}

async function loadSdk(variable: string) {
  try {
    const [base, exporter, resources] = await Promise.all([
      import('@opentelemetry/sdk-trace-base'),
      import('@opentelemetry/exporter-trace-otlp-http'),
      import('@opentelemetry/resources'),
    ]);
    return { ...base, ...exporter, ...resources };
  } catch (error) {
    throw new Error(
      `${variable} asks for traces, which need packages that cannot be loaded: npm install ${PACKAGES.join(' ')}`,
      { cause: error },
    );
  }
}

/** Every line while the SDK reads its settings; then one a minute, or a receiver that is gone would fill the log. */
function complainTo(log: Logger) {
  let quietUntilMs = Number.NEGATIVE_INFINITY;
  let isStarted = false;
  const warn = (message: string): void => {
    if (performance.now() < quietUntilMs) return;
    if (isStarted) quietUntilMs = performance.now() + TRACES_WARN_EVERY_MS;
    log.warn({ detail: maskText(message.slice(0, 500)) }, 'traces');
  };
  const silent = (): void => undefined;
  return {
    error: warn,
    warn,
    info: silent,
    debug: silent,
    verbose: silent,
    started(): void {
      isStarted = true;
    },
  };
}
