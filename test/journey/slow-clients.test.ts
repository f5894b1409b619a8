/**
 * Many slow clients at one gateway process: execs hardly notice, each client is cut off by the limit it breaks, and no
 * descriptor stays. The limits are shorter than in service, or nobody could wait for all of them.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FAREWELL_MAX_MS } from '../../src/limits.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { nowAndThen, type Replica, type Replicas, startReplicas } from '../support/replicas.ts';
import { waitUntil } from '../support/wait.ts';

const SLOW = 2_000;
const SHORTER = { headersMs: 8_000, requestMs: 8_500, keepAliveMs: 8_000, answerStallMs: 8_000 };
/** The gateway looks four times per limit of the headers; the rest is this machine's. */
const CUT_WITHIN_MS = SHORTER.requestMs + SHORTER.headersMs / 4 + FAREWELL_MAX_MS + 5_000;
const SAMPLES = 200;
/** Connections of ours that are kept alive, and what the gateway opened for itself, come and go: few. */
const OURS = 30;
const CALLERS = 4;
/** Of the slowest in a hundred: what 2,000 slow clients may make of it. A gateway that waits for any of them needs seconds. */
const P99_MAX_MS = (alone: number) => 3 * alone + 500;

failOnLeaks(10_000);
let replicas: Replicas;
let gateway: Replica;
beforeAll(async () => {
  replicas = await startReplicas({ instances: 1 });
  gateway = await replicas.start({ slow: SHORTER });
});
afterAll(() => replicas.stop());

/** Runs execs while `goes`, at most SAMPLES, and resolves with what the slowest in a hundred took. */
async function p99(goes: () => boolean): Promise<{ ms: number; samples: number }> {
  const tookMs: number[] = [];
  const call = async (): Promise<void> => {
    while (tookMs.length < SAMPLES && goes()) {
      const askedMs = performance.now();
      const { status, frames } = await gateway.exec({ cmd: ['echo', 'fine'] });
      tookMs.push(performance.now() - askedMs);
      expect({ status, out: frames[0]?.data }).toEqual({ status: 200, out: 'fine\n' });
    }
  };
  await Promise.all(Array.from({ length: CALLERS }, call));
  const sorted = tookMs.sort((one, other) => one - other);
  return { ms: sorted[Math.ceil(sorted.length * 0.99) - 1] ?? Number.NaN, samples: sorted.length };
}

type Left = Record<string, number>;

test(`${SLOW} slow clients`, { timeout: 90_000 }, async () => {
  const descriptors = () => readdirSync(`/proc/${gateway.child.pid}/fd`).length;
  for (let warm = 0; warm < 20; warm += 1) await gateway.exec({ cmd: ['true'] });
  const alone = await p99(() => true);
  const before = descriptors();

  const entry = fileURLToPath(new URL('../support/slow-clients.ts', import.meta.url));
  const args = [new URL(gateway.url).port, replicas.token, String(SLOW)];
  const clients = fork(entry, args, { execArgv: ['--import', 'tsx'] });
  try {
    let left: Left = {};
    clients.on('message', (message: { left?: Left }) => {
      left = message.left ?? left;
    });
    const [{ open }] = (await once(clients, 'message')) as [{ open: Left }];
    const openedMs = performance.now();
    expect(Object.values(open).reduce((sum, count) => sum + count)).toBe(SLOW);

    const areAllThere = () => descriptors() >= before + SLOW - OURS;
    await waitUntil('the gateway has them all', areAllThere);
    const crowded = await p99(areAllThere);
    console.log(
      `p99 of an exec: ${alone.ms.toFixed(0)} ms alone, ${crowded.ms.toFixed(0)} ms beside ${SLOW} slow clients`,
    );
    expect(crowded.samples).toBeGreaterThan(50);
    expect(crowded.ms).toBeLessThan(P99_MAX_MS(alone.ms));

    await waitUntil(
      'the descriptors are closed',
      nowAndThen(() => descriptors() < before + OURS),
      CUT_WITHIN_MS - (performance.now() - openedMs),
    );
    // Who reads nothing cannot hear that either.
    await waitUntil('the clients know', () =>
      Object.entries(left).every(([kind, n]) => n === 0 || kind === 'reads nothing'),
    );
    expect((await gateway.exec({ cmd: ['true'] })).status).toBe(200);
  } finally {
    clients.kill();
    await once(clients, 'close');
  }
});
