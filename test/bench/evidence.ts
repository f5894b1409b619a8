/**
 * What evidence costs the writer of audit rows: the same work with the triggers of migration 0008 and without them, in
 * turn, on the embedded server as it runs for real (commits are synced). `tsx test/bench/evidence.ts`.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openDatabase } from '../../src/db/database.ts';
import { startEmbedded } from '../../src/db/embedded.ts';
import { execOf, exited } from '../db/facts.ts';
import { silent } from '../support/database-url.ts';
import { runSql } from '../support/sql.ts';

const ROUNDS = 5;
const CALLERS = 192;
const BATCHED_ROWS = 12_000;
const SINGLE_ROWS = 400;

const dataDir = await mkdtemp(join(tmpdir(), 'bench-audit-'));
const server = await startEmbedded({ dataDir, log: silent });
const database = await openDatabase({ url: server.url, migrateUrl: null, dataDir, replica: 'bench', log: silent });
try {
  const rounds: Record<string, number>[] = [];
  await setTriggers(true);
  await measure();
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const evidence of [false, true]) {
      await setTriggers(evidence);
      rounds.push({ evidence: Number(evidence), ...(await measure()) });
    }
  }
  const rows = [0, 1].map((evidence) => medians(rounds.filter((round) => round.evidence === evidence)));
  console.table(rows);
  console.log(JSON.stringify({ bench: 'audit', node: process.version, rounds: ROUNDS, rows }));
} finally {
  await database.close();
  await server.stop();
  await rm(dataDir, { recursive: true, force: true });
}

async function setTriggers(enabled: boolean): Promise<void> {
  const word = enabled ? 'enable' : 'disable';
  for (const trigger of ['inserted', 'updated'])
    await runSql(server.url, `alter table activity_logs ${word} trigger activity_logs_${trigger}`);
}

async function measure(): Promise<Record<string, number>> {
  const cyclesUs: number[] = [];
  for (let index = 0; index < SINGLE_ROWS; index += 1)
    cyclesUs.push(1000 * (await timed(async () => (await database.audit.open(execOf())).close(exited()))));
  const entries: Awaited<ReturnType<typeof database.audit.open>>[] = [];
  const openMs = await timed(() =>
    inParallel(BATCHED_ROWS, async () => void entries.push(await database.audit.open(execOf()))),
  );
  const closeMs = await timed(() => inParallel(BATCHED_ROWS, async (index) => entries[index]?.close(exited())));
  let sealed = 0;
  const sealMs = await timed(async () => {
    for (let batch = 1; batch > 0; sealed += batch) batch = (await database.seals.seal('acme')) ?? 0;
  });
  return {
    openedPerS: Math.round((BATCHED_ROWS / openMs) * 1000),
    closedPerS: Math.round((BATCHED_ROWS / closeMs) * 1000),
    cycleUs: Math.round(median(cyclesUs)),
    sealedPerS: Math.round((sealed / sealMs) * 1000),
  };
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const from = performance.now();
  await work();
  return performance.now() - from;
}

async function inParallel(count: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const lane = async () => {
    for (let index = next++; index < count; index = next++) await work(index);
  };
  await Promise.all(Array.from({ length: CALLERS }, lane));
}

function medians(rounds: Record<string, number>[]): Record<string, number> {
  const names = Object.keys(rounds[0] ?? {});
  return Object.fromEntries(names.map((name) => [name, median(rounds.map((round) => round[name] ?? 0))]));
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}
