/** Many execs on many instances behind one endpoint that carries twenty tunnels. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Command } from '../../src/exec/command.ts';
import { createExec } from '../../src/exec/exec.ts';
import type { ExecEnd } from '../../src/exec/frame.ts';
import { TUNNELS_PER_ENDPOINT } from '../../src/limits.ts';
import { createPool, type Pool } from '../../src/sessions/pool.ts';
import { type Ec2Rig, startEc2Rig } from '../drivers/ec2-rig.ts';

const INSTANCES = 40;
const EXECS = 500;
let rig: Ec2Rig;
let pool: Pool;
beforeAll(async () => {
  rig = await startEc2Rig({ instances: INSTANCES, maxTunnels: TUNNELS_PER_ENDPOINT });
  pool = createPool({ drivers: new Map([['ec2', rig.driver()]]) });
});
afterAll(async () => {
  pool.close();
  await rig.stop();
});

const command: Command = {
  argv: ['true'],
  env: {},
  cwd: null,
  stdin: null,
  timeoutS: 30,
  connectTimeoutS: 60,
  encoding: 'auto',
  capBytes: 1024,
  dryRun: false,
};

async function execOn(index: number): Promise<{ end: ExecEnd; tookMs: number }> {
  const execId = randomUUID();
  const from = performance.now();
  const events = createExec({ pool })({
    execId,
    workspace: rig.workspace(index),
    command,
    fixedPath: false,
    entry: () => Promise.resolve({ execId, close: () => Promise.resolve() }),
    signal: new AbortController().signal,
    onSettled: () => undefined,
  });
  for await (const event of events) if (event.kind === 'end') return { end: event, tookMs: performance.now() - from };
  throw new Error('the exec has no end');
}

describe('an endpoint that carries twenty tunnels', () => {
  it('500 execs on 40 instances are all served, and it never sees a twenty-first', { timeout: 60_000 }, async () => {
    const done = await Promise.all(Array.from({ length: EXECS }, (_, n) => execOn(n % INSTANCES)));
    const failed = done.filter(({ end }) => end.exitCode !== 0).map(({ end }) => end.error?.message ?? end);
    expect(failed).toEqual([]);
    const { tunnels } = await rig.counters();
    expect(tunnels).toMatchObject({ refused: 0 });
    expect(tunnels.peak).toBeLessThanOrEqual(TUNNELS_PER_ENDPOINT);
    const times = done.map(({ tookMs }) => tookMs).sort((one, other) => one - other);
    const at = (share: number): string => `${((times[Math.floor(EXECS * share)] ?? 0) / 1000).toFixed(2)} s`;
    console.log(
      `500 execs, 40 instances, 20 tunnels: p50 ${at(0.5)}, p95 ${at(0.95)}, last ${at(0.998)}, tunnels opened ${tunnels.opened}`,
    );
  });
});
