import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import express, { type Response } from 'express';
import { describe, expect, onTestFinished, test } from 'vitest';
import { createLineWriter, type LineWriter } from '../../src/http/ndjson.ts';
import { FRAME_MAX_BYTES, UNSENT_MAX_BYTES } from '../../src/limits.ts';
import { within } from '../support/wait.ts';
import { rawSocket } from './wire.ts';

const LINE = 'x'.repeat(FRAME_MAX_BYTES);

/** A writer to a client that has asked; the client reads when it is told to. */
async function asked(): Promise<{ res: Response; writer: LineWriter; client: ReturnType<typeof rawSocket> }> {
  const app = express();
  const answering = new Promise<Response>((resolve) => app.get('/', (_req, res) => resolve(res)));
  const server = createServer(app).listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => server.closeAllConnections());
  onTestFinished(() => void server.close());
  const client = rawSocket((server.address() as AddressInfo).port);
  client.socket.pause();
  client.socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  const res = await within('the request', answering);
  return { res, writer: createLineWriter(res, { heartbeatMs: 60_000, stallMaxMs: 60_000 }), client };
}

/** Writes until it is to wait, for a reader that takes nothing. */
async function fill(writer: LineWriter): Promise<{ caughtUp: Promise<void> }> {
  for (let lines = 1; lines < 10_000; lines += 1) {
    const caughtUp = writer.write(LINE);
    if (caughtUp !== null && (await isStalled(caughtUp))) return { caughtUp };
  }
  throw new Error('expected the writer to wait for a reader that takes nothing');
}

/** The operating system takes what it has room for within a few turns. */
async function isStalled(caughtUp: Promise<void>): Promise<boolean> {
  let waits = true;
  void caughtUp.then(() => {
    waits = false;
  });
  for (let turn = 0; turn < 50 && waits; turn += 1) await new Promise(setImmediate);
  return waits;
}

describe('lines to a reader', () => {
  test('that takes nothing wait when UNSENT_MAX_BYTES have not left, with one line more at most', async () => {
    const { res, writer, client } = await asked();
    const { caughtUp } = await fill(writer);
    expect(res.writableLength).toBeGreaterThanOrEqual(UNSENT_MAX_BYTES);
    expect(res.writableLength).toBeLessThan(UNSENT_MAX_BYTES + 2 * LINE.length);
    client.socket.resume();
    await within('the reader', caughtUp);
    expect(res.writableLength).toBe(0);
  });

  test('do not wait below that', async () => {
    const { writer } = await asked();
    expect(writer.write(LINE)).toBeNull();
    expect(writer.write(LINE)).toBeNull();
  });

  test('that has gone are dropped, and nobody waits for it', async () => {
    const { res, writer, client } = await asked();
    const { caughtUp } = await fill(writer);
    client.socket.destroy();
    await within('the end', caughtUp);
    if (!res.closed) await within('the close', once(res, 'close'));
    expect(writer.write(LINE)).toBeNull();
  });
});
