/** A receiver of traces as a collector has it: OTLP over HTTP, in JSON, on loopback. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';

export interface ReceivedSpan {
  name: string;
  traceId: string;
  spanId: string;
  /** Empty: it has none. */
  parentSpanId: string;
  traceState: string;
  /** 1: internal, 2: server. */
  kind: number;
  fromMs: number;
  toMs: number;
  attributes: Record<string, unknown>;
  /** Null: not an error. */
  error: string | null;
  resource: Record<string, unknown>;
}

export interface TraceReceiver {
  url: string;
  /** In the order of their begin. */
  spans(): ReceivedSpan[];
  /** Everything that came, as it came. */
  text(): string;
  stop(): Promise<void>;
}

interface WireAttribute {
  key: string;
  value: { stringValue?: string; intValue?: number | string; boolValue?: boolean; doubleValue?: number };
}
interface WireSpan {
  name: string;
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  traceState?: string;
  kind: number;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes: WireAttribute[];
  status: { code?: number; message?: string };
}
interface WireTraces {
  resourceSpans: { resource: { attributes: WireAttribute[] }; scopeSpans: { spans: WireSpan[] }[] }[];
}

export async function startTraceReceiver(): Promise<TraceReceiver> {
  const received: ReceivedSpan[] = [];
  const texts: string[] = [];
  const take = async (req: IncomingMessage, res: ServerResponse): Promise<void> => {
    const body = (await json(req)) as WireTraces;
    texts.push(JSON.stringify(body));
    for (const { resource, scopeSpans } of body.resourceSpans)
      for (const { spans } of scopeSpans) received.push(...spans.map((span) => spanOf(span, resource.attributes)));
    res.writeHead(200, { 'content-type': 'application/json' }).end('{}');
  };
  const server = createServer((req, res) => {
    if (req.method === 'POST' && req.url === '/v1/traces') take(req, res).catch(() => res.writeHead(400).end());
    else res.writeHead(404).end();
  });
  const port = await listen(server);
  return {
    url: `http://127.0.0.1:${port}`,
    spans: () => [...received].sort((a, b) => a.fromMs - b.fromMs),
    text: () => texts.join('\n'),
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

function spanOf(span: WireSpan, resource: WireAttribute[]): ReceivedSpan {
  const { name, traceId, spanId, parentSpanId = '', traceState = '', kind, status } = span;
  return {
    ...{ name, traceId, spanId, parentSpanId, traceState, kind },
    fromMs: Number(span.startTimeUnixNano) / 1e6,
    toMs: Number(span.endTimeUnixNano) / 1e6,
    attributes: valuesOf(span.attributes),
    error: status.code === 2 ? (status.message ?? '') : null,
    resource: valuesOf(resource),
  };
}

function valuesOf(attributes: WireAttribute[]): Record<string, unknown> {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]));
}
