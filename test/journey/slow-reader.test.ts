/**
 * Callers who do not read: they slow their own programs, cost the gateway a bounded amount of memory, and hold up
 * neither the others nor the end of anything. The gateway is a process of its own, whose memory is its own.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import ndjson from 'ndjson';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fixture } from '../support/fixtures.ts';
import { type Frame, outputOf, terminalOf } from '../support/gateway.ts';
import { bytesWritten, carryingExecId, processRow } from '../support/processes.ts';
import { type Serving, startServing } from '../support/serving.ts';
import { runSql } from '../support/sql.ts';
import { waitUntil, waitUntilStill } from '../support/wait.ts';

const READERS = 20;
/** Long enough to fill every buffer on the way of all of them on a busy machine: five MiB each, most of it the kernel's. */
const TIMEOUT_S = 15;
const SAMPLED_MS = 2_000;
const CAP_BYTES = 2 ** 30;
/** What one stalled exec may cost: 1 MiB held for it, frames and socket buffers on their way, and the garbage of both. */
const COST_MAX_MIB = 8;
/** Of a process that does nothing but hold, between the first look and the last. */
const DRIFT_MAX_MIB = 25;

let serving: Serving;
beforeAll(async () => {
  serving = await startServing({ env: { SALLYPORT_OUTPUT_CAP_BYTES: String(CAP_BYTES) } });
});
afterAll(() => serving.stop());

interface Stalled {
  execId: string;
  request: ClientRequest;
  /** Not a byte of the body is taken before this is called. */
  read(): Promise<Frame[]>;
}

/** Resolves when the answer has begun. */
function startStalled(body: object, workspace = 'ws-1'): Promise<Stalled> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(`${serving.url}/workspaces/${workspace}/exec`, {
      method: 'POST',
      headers: { authorization: `Bearer ${serving.token}`, 'content-type': 'application/json' },
    });
    request.on('error', reject);
    request.on('response', (response) => {
      resolve({ execId: String(response.headers['x-exec-id']), request, read: () => readFrames(response) });
    });
    request.end(JSON.stringify({ max_output_bytes: CAP_BYTES, ...body }));
  });
}

async function readFrames(response: IncomingMessage): Promise<Frame[]> {
  const frames: Frame[] = [];
  for await (const frame of response.pipe(ndjson.parse())) frames.push(frame as Frame);
  return frames;
}

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

function rssMiB(): number {
  const status = readFileSync(`/proc/${serving.program.pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
}

/**
 * Resolves with the number of bytes that the programs of these execs had written when they stopped writing. A trickle
 * of less than 64 KiB in all does not count.
 */
async function untilBlocked(readers: readonly Stalled[], forMs = 500): Promise<number> {
  const pids = readers.flatMap(({ execId }) => carryingExecId(execId));
  const written = () => pids.reduce((sum, pid) => sum + bytesWritten(pid), 0);
  return (await waitUntilStill('the programs', () => Math.round(written() / 65_536), forMs, TIMEOUT_S * 1000)) * 65_536;
}

function expectWhole(frames: readonly Frame[]): void {
  const terminal = terminalOf(frames);
  for (const stream of ['stdout', 'stderr'] as const) {
    const output = outputOf(frames, stream);
    expect({ bytes: output.length, sha256: sha256(output) }).toEqual({
      bytes: terminal[`${stream}_bytes`],
      sha256: terminal[`${stream}_sha256`],
    });
  }
}

describe('twenty readers who do not read', () => {
  // Endless on stdout as fast as it is taken, a little on stderr all the time.
  const cmd = ['sh', '-c', '(while :; do echo tick >&2; sleep 0.3; done) & exec yes "$0"', 'x'.repeat(100)];
  let stalled: Stalled[] = [];
  const samples: number[] = [];
  let idle: number;

  it('cost the gateway a bounded amount of memory, which does not grow', async () => {
    // Everything is loaded and every host is logged in to before it is measured.
    for (const workspace of ['ws-1', 'ws-2', 'ws-3']) await serving.exec({ cmd: ['echo', 'hi'] }, { workspace });
    idle = rssMiB();
    stalled = await Promise.all(
      Array.from({ length: READERS }, (_, index) =>
        startStalled({ cmd, timeout_s: TIMEOUT_S }, `ws-${(index % 3) + 1}`),
      ),
    );
    // When nobody can write any more, everything on the way is full.
    const held = (await untilBlocked(stalled)) / 2 ** 20;
    const until = performance.now() + SAMPLED_MS;
    await waitUntil('there are enough samples', () => {
      samples.push(rssMiB());
      return performance.now() > until;
    });
    expect(stalled.map(({ execId }) => carryingExecId(execId).length)).not.toContain(0);
    const [least, most] = [Math.min(...samples), Math.max(...samples)];
    const round = (value: number) => Math.round(value * 10) / 10;
    console.info(
      `gateway RSS: ${round(idle)} MiB idle, ${round(least)} to ${round(most)} MiB with ${READERS} stalled readers ` +
        `(${round((most - idle) / READERS)} MiB each, of ${round(held / READERS)} MiB each that are on their way)`,
    );
    expect(most - idle).toBeLessThan(READERS * COST_MAX_MIB);
    expect(most - least).toBeLessThan(DRIFT_MAX_MIB);
  });

  it('do not hold up others, on the same hosts', async () => {
    for (const workspace of ['ws-1', 'ws-2', 'ws-3']) {
      const from = performance.now();
      const { frames } = await serving.exec({ cmd: ['echo', 'hi'] }, { workspace });
      expect(outputOf(frames, 'stdout').toString()).toBe('hi\n');
      expect(performance.now() - from).toBeLessThan(1_500);
    }
  });

  it('have their programs ended at the deadline, and their rows closed, all unread', async () => {
    const ids = stalled.map(({ execId }) => execId);
    expect(new Set(ids).size).toBe(READERS);
    const rows = await waitUntil(
      'every row is closed',
      async () => {
        const found = await runSql(
          serving.databaseUrl,
          'select status, response_body, duration_ms from activity_logs where id = any($1)',
          [ids],
        );
        return found.every(({ status }) => status !== 'running') && found;
      },
      (TIMEOUT_S + 10) * 1000,
    );
    expect(rows).toHaveLength(READERS);
    for (const row of rows) {
      expect(row).toMatchObject({ status: 'timeout', response_body: { outcome: 'timed_out', survivors: [] } });
      expect(Number(row.duration_ms)).toBeLessThan((TIMEOUT_S + 6) * 1000);
    }
    expect(ids.flatMap(carryingExecId).map(processRow)).toEqual([]);
  }, 30_000);

  it('get, when they read after all, exactly what the terminal frame says was read', async () => {
    const [first, second, ...others] = stalled;
    for (const reader of [first, second]) {
      const frames = await (reader as Stalled).read();
      expect(terminalOf(frames)).toMatchObject({
        code: 'exec_timeout',
        outcome: 'timed_out',
        complete: false,
        survivors: [],
      });
      expect(outputOf(frames, 'stdout').length).toBeGreaterThan(100_000);
      expectWhole(frames);
    }
    for (const { request } of others) request.destroy();
    // Whoever leaves now leaves nothing to end.
    expect((await serving.exec({ cmd: ['true'] })).status).toBe(200);
  });
});

describe('a reader who stops for a while', () => {
  it('stops the program for as long, and then misses nothing', async () => {
    const total = 60_000_000;
    const reader = await startStalled({ cmd: [fixture('noisy'), String(total), '3000000'], timeout_s: 60 });
    const stoppedAt = await untilBlocked([reader]);
    expect(carryingExecId(reader.execId)).not.toEqual([]);
    expect(stoppedAt).toBeLessThan(total);
    const frames = await reader.read();
    expect(terminalOf(frames)).toMatchObject({
      exit_code: 0,
      complete: true,
      stdout_bytes: total,
      stderr_bytes: 3_000_000,
    });
    expectWhole(frames);
  });

  it('and hangs up ends the program', async () => {
    const reader = await startStalled({ cmd: [fixture('forever')], timeout_s: 60 });
    await untilBlocked([reader]);
    expect(carryingExecId(reader.execId)).not.toEqual([]);
    reader.request.destroy();
    await waitUntil('the program is gone', () => carryingExecId(reader.execId).length === 0);
    await waitUntil('its row says so', async () => {
      const [row] = await runSql(serving.databaseUrl, 'select status from activity_logs where id = $1', [
        reader.execId,
      ]);
      return row?.status === 'cancelled';
    });
  });
});
