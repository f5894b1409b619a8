/** The HTTP caller: the same for the gateway and for every peer that speaks HTTP. */
import { Agent, request } from 'node:http';
import { type Load, runCalls, runLoad } from './load.ts';
import { type HttpTarget, RawHttp, requestBytes, requireSuccess } from './raw-http.ts';
import { answerAsks } from './worker.ts';

const agent = new Agent({ keepAlive: true, maxSockets: 1 });

interface Callers {
  callers: number;
}

const ops = {
  /** One call with Node's own client on a kept-alive connection, from the call to the end of the answer. ms */
  async once(target: HttpTarget): Promise<number> {
    const from = performance.now();
    const answer = await post(target);
    const ms = performance.now() - from;
    requireSuccess(answer);
    return ms;
  },

  /** `calls`: how many there were, with those before the clock started. */
  async load({
    callers,
    forMs,
    ...target
  }: HttpTarget & Callers & { forMs: number }): Promise<Load & { calls: number }> {
    const load = await onConnections(target, callers, (call) => runLoad({ callers, forMs }, call));
    return { ...load, calls: load.latenciesMs.length + callers };
  },

  async warm({ callers, calls, ...target }: HttpTarget & Callers & { calls: number }): Promise<void> {
    await onConnections(target, callers, (call) => runCalls({ callers, calls }, call));
  },

  /** Reads an answer of any length and counts. */
  async drain(target: HttpTarget): Promise<{ bytes: number; ms: number; tail: string }> {
    const connection = await RawHttp.open(target.url);
    try {
      const from = performance.now();
      const { bytes, tail } = await connection.drain(requestBytes(target));
      return { bytes, ms: performance.now() - from, tail };
    } finally {
      connection.close();
    }
  },
};

/**
 * A connection for each caller, on which one call has been answered already: a server under load takes new connections one
 * by one between all else that it does, and what waits for that waits for no exec.
 */
async function onConnections<T>(
  target: HttpTarget,
  callers: number,
  use: (call: (caller: number) => Promise<void>) => Promise<T>,
): Promise<T> {
  const bytes = requestBytes(target);
  const connections = await Promise.all(Array.from({ length: callers }, () => RawHttp.open(target.url)));
  const call = async (caller: number): Promise<void> => {
    requireSuccess((await connections[caller]?.ask(bytes)) ?? '');
  };
  try {
    await Promise.all(connections.map((_, caller) => call(caller)));
    return await use(call);
  } finally {
    for (const connection of connections) connection.close();
  }
}

function post({ url, path, token, body }: HttpTarget): Promise<string> {
  const text = JSON.stringify(body);
  const headers = {
    Authorization: `Bearer ${token}`,
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(text),
  };
  return new Promise((resolve, reject) => {
    const asking = request(url + path, { method: 'POST', agent, headers }, (response) => {
      let answer = `HTTP/1.1 ${response.statusCode} `;
      response.setEncoding('latin1');
      response.on('data', (piece: string) => {
        answer += piece;
      });
      response.on('end', () => resolve(answer));
      response.on('error', reject);
    });
    asking.on('error', reject);
    asking.end(text);
  });
}

export type HttpOps = typeof ops;
answerAsks(ops);
