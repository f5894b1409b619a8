/** Callers that ask and then do not read. */
import { once } from 'node:events';
import { type HttpTarget, RawHttp, requestBytes } from './raw-http.ts';
import { answerAsks } from './worker.ts';

let stalled: RawHttp[] = [];

const ops = {
  /** Each reads the beginning of its answer, and no more. */
  async stall({ readers, ...target }: HttpTarget & { readers: number }): Promise<void> {
    const bytes = requestBytes(target);
    await Promise.all(
      Array.from({ length: readers }, async () => {
        const reader = await RawHttp.open(target.url);
        stalled.push(reader);
        reader.socket.write(bytes);
        const [first] = (await once(reader.socket, 'data')) as [Buffer];
        reader.socket.pause();
        if (!first.toString('latin1').startsWith('HTTP/1.1 200')) throw new Error(`expected 200, got ${first}`);
      }),
    );
  },

  async hangUp(_: object): Promise<void> {
    for (const reader of stalled) reader.close();
    stalled = [];
  },
};

export type StallingOps = typeof ops;
answerAsks(ops);
