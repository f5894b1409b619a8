/**
 * A gateway that is killed again and again while it is used: no program without a row, none run twice, none left.
 *
 * Callers do what callers do: they send the same request with the same key until somebody answers. CRASH_EXECS sets how
 * many there are (150; with 1,000 it is killed 40 times).
 */
import { randomInt, randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Answer } from '../support/gateway.ts';
import { environmentOf, processTable } from '../support/processes.ts';
import { type Replica, type Replicas, startReplicas } from '../support/replicas.ts';
import { waitUntil } from '../support/wait.ts';

const EXECS = Number(process.env.CRASH_EXECS ?? 150);
const KILLS_MAX = Math.ceil(EXECS / 25);
const CALLERS = 24;
const PACE = { presenceBeatMs: 300, presenceMaxMs: 3_000, reconcileEveryMs: 500 };

let replicas: Replicas;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'crash-'));
  replicas = await startReplicas();
});
afterAll(async () => {
  await replicas.stop();
  await rm(folder, { recursive: true });
});

it(
  `${EXECS} execs over a gateway that is killed at random times`,
  async () => {
    const file = join(folder, 'started');
    await writeFile(file, '');
    // Finishes what the others leave. Alone, a gateway that never lives for long could not say who else is over.
    const survivor = await replicas.start(PACE);
    let gateway: Replica = await replicas.start(PACE);
    let isDone = false;
    let answered = 0;
    let kills = 0;

    /** Kills it as long as there is enough to do; the last one is left to answer. */
    const killing = (async () => {
      while (!isDone && answered < EXECS * 0.9 && kills < KILLS_MAX) {
        await sleep(randomInt(150, 1_200));
        await gateway.kill();
        kills += 1;
        gateway = await replicas.start(PACE);
      }
    })();

    const callOnce = async (job: string): Promise<Answer | null> => {
      const cmd = ['sh', '-c', 'echo "$EXEC_ID $1" >> "$0"; sleep 0.2', file, job];
      // The same every time: a key is one of its workspace.
      const workspace = `ws-${(job.charCodeAt(0) % 3) + 1}`;
      try {
        return await gateway.exec({ cmd, timeout_s: 20 }, { workspace, headers: { 'idempotency-key': job } });
      } catch {
        return null; // It was killed while it answered, or is not up again yet.
      }
    };
    const call = async (): Promise<{ job: string; outcome: unknown }> => {
      const job = randomUUID();
      for (;;) {
        const answer = await callOnce(job);
        const { outcome, code } = answer?.frames.at(-1) ?? answer?.body ?? {};
        const isFinal = outcome === 'exited' || outcome === 'interrupted' || outcome === 'connection_lost';
        if (isFinal) return { job, outcome };
        if (answer !== null && answer.status < 500 && code !== 'idempotency_in_progress')
          throw new Error(`unexpected: ${answer.status} ${JSON.stringify(answer.frames.at(-1) ?? answer.body)}`);
        await sleep(100);
      }
    };
    const jobs: { job: string; outcome: unknown }[] = [];
    let begun = 0;
    const callers = Array.from({ length: CALLERS }, async () => {
      while (begun < EXECS) {
        begun += 1;
        jobs.push(await call());
        answered += 1;
      }
    });
    await Promise.all(callers);
    isDone = true;
    await killing;
    expect(kills).toBeGreaterThan(1);
    expect(survivor.log()).toContain('was interrupted');

    const running = () => replicas.sql(`select id from activity_logs where status = 'running'`);
    await waitUntil('no row is running', async () => (await running()).length === 0, 60_000);
    const rows = await replicas.sql(
      `select id, response_body->>'outcome' as outcome from activity_logs where method = 'exec'`,
    );
    const outcomes = new Map(rows.map(({ id, outcome }) => [String(id), String(outcome)]));
    const started = (await readFile(file, 'utf8'))
      .trim()
      .split('\n')
      .map((line) => line.split(' ') as [string, string]);

    expect(started.length).toBeGreaterThan(EXECS / 4);
    // One program, one row; one key, one program.
    expect(new Set(started.map(([execId]) => execId)).size).toBe(started.length);
    expect(new Set(started.map(([, job]) => job)).size).toBe(started.length);
    expect(started.filter(([execId]) => !outcomes.has(execId))).toEqual([]);
    // What is said to have run has run, and who was told so is right.
    const ids = new Set(started.map(([execId]) => execId));
    const ranByRow = [...outcomes].filter(([, outcome]) => outcome === 'exited').map(([execId]) => execId);
    expect(ranByRow.filter((execId) => !ids.has(execId))).toEqual([]);
    const ran = new Map(started.map(([execId, job]) => [job, execId]));
    expect(jobs).toHaveLength(EXECS);
    for (const { job, outcome } of jobs)
      if (outcome === 'exited') expect(outcomes.get(ran.get(job) ?? '')).toBe('exited');
    // Without a program there is no row but of those that died before they asked for it, or never got that far.
    const withoutProgram = [...outcomes].filter(([execId]) => !ids.has(execId)).map(([, outcome]) => outcome);
    for (const outcome of withoutProgram) expect(['interrupted', 'unreachable', 'connection_lost']).toContain(outcome);
    const left = processTable().filter(({ pid }) =>
      environmentOf(pid).some((entry) => outcomes.has(entry.slice('EXEC_ID='.length))),
    );
    expect(left).toEqual([]);
  },
  60_000 + EXECS * 1_000,
);
