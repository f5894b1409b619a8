/** The HTTP caller: the same for the gateway and for the server that runs bash on this machine. */
import { Agent, request } from 'node:http';
import { runLoad } from './load.ts';
import { type HttpTarget, RawHttp, requestBytes, requireSuccess } from './raw-http.ts';
import { answerAsks } from './worker.ts';

const agent = new Agent({ keepAlive: true, maxSockets: 1 });

const ops = {
  /** One call with Node's own client on a kept-alive connection, from the call to the end of the answer. ms */
  async once(target: HttpTarget): Promise<number> {
    const from = performance.now();
    const answer = await post(target);
    const ms = performance.now() - from;
    requireSuccess(answer);
    return ms;
  },

  async load({ callers, forMs, ...target }: HttpTarget & { callers: number; forMs: number }) {
    const bytes = requestBytes(target);
    const connections = await Promise.all(Array.from({ length: callers }, () => RawHttp.open(target.url)));
    try {
      return await runLoad({ callers, forMs }, async (caller) => {
        requireSuccess((await connections[caller]?.ask(bytes)) ?? '');
      });
    } finally {
      for (const connection of connections) connection.close();
    }
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
