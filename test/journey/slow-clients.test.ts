/** Many slow clients at the real program, with the limits that it has in service. */
import { readdirSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { BODY_DRAIN_MAX_MS, HEADERS_MAX_MS } from '../../src/limits.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { type Serving, startServing } from '../support/serving.ts';
import { waitUntil } from '../support/wait.ts';

const SLOW = 2_000;
/** The gateway looks four times per limit; the rest is this machine's. */
const CUT_WITHIN_MS = HEADERS_MAX_MS * 1.25 + BODY_DRAIN_MAX_MS + 3_000;

failOnLeaks(10_000);
let serving: Serving;
beforeAll(async () => {
  serving = await startServing();
});
afterAll(() => serving.stop());

/** What each kind of slow client sends at first, and then again and again. */
const KINDS = [
  { first: '', more: '' },
  { first: 'G', more: '' },
  { first: 'GET /healthz HTTP/1.1\r\nX-Slow: ', more: 'x' },
  { first: 'POST /workspaces/ws-1/exec HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n', more: ' ' },
];

async function openSlow(port: number): Promise<Socket[]> {
  const sockets: Socket[] = [];
  let connected = 0;
  for (let index = 0; index < SLOW; index += 1) {
    const { first, more } = KINDS[index % KINDS.length] ?? { first: '', more: '' };
    const socket = connect({ port, host: '127.0.0.1' });
    socket.on('error', () => {}); // being cut off is what this is about
    socket.resume();
    socket.once('connect', () => {
      connected += 1;
      socket.write(first);
    });
    const drip = setInterval(() => more !== '' && socket.write(more), 1_000);
    socket.once('close', () => clearInterval(drip));
    sockets.push(socket);
    // As many at once as the queue of a listener commonly holds.
    if (index % 100 === 99) await waitUntil('they are connected', () => connected === index + 1);
  }
  return sockets;
}

test(`${SLOW} slow clients are cut off in time, execs go on meanwhile, and no descriptor stays`, {
  timeout: 60_000,
}, async () => {
  const { url, program, exec } = serving;
  const descriptors = () => readdirSync(`/proc/${program.pid}/fd`).length;
  expect((await exec({ cmd: ['true'] })).status).toBe(200);
  const before = descriptors();
  const fromMs = performance.now();
  const sockets = await openSlow(Number(new URL(url).port));
  const left = () => sockets.filter(({ closed }) => !closed).length;
  expect(left()).toBeGreaterThan(SLOW / 2);
  expect(descriptors()).toBeGreaterThan(before + SLOW / 2);

  const tookMs: number[] = [];
  while (left() > 0 && performance.now() - fromMs < CUT_WITHIN_MS) {
    const askedMs = performance.now();
    const { status, frames } = await exec({ cmd: ['echo', 'fine'] });
    expect({ status, out: frames[0]?.data }).toEqual({ status: 200, out: 'fine\n' });
    tookMs.push(performance.now() - askedMs);
  }
  expect(left()).toBe(0);
  expect(tookMs.length).toBeGreaterThan(20);
  expect(Math.max(...tookMs)).toBeLessThan(2_000);
  // Connections of ours that are kept alive, and what the gateway opened for itself, are few.
  await waitUntil('the descriptors are closed', () => descriptors() < before + 20, 10_000);
});
