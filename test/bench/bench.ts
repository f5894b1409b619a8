/**
 * `npm run bench`: how fast the gateway is, each figure beside its peers in the same run.
 *
 *   npm run bench                        every row, under 10 minutes
 *   npm run bench -- --quick             fewer rounds, without rows 0 and 8, under 2 minutes: for a look, not for a figure to keep
 *   npm run bench -- --row 1,4           only these rows; row 0 has no peers: where the time and the CPU of an exec go
 *   npm run bench -- --json FILE         where the results go (default: the folder for temporary files)
 *   npm run bench -- --row 6 --profile D the shared gateway writes a CPU profile into the folder D
 *
 * Rows run one after the other; inside a row all are measured in turn. Ends with 0 when every row was measured, whatever its
 * figures are; with 1 when a row was not valid: a wrong answer, an exec that failed, a peer that must run and did not, a run
 * that was broken off. Goals are marked for the reader only. Not part of the tests.
 */
import { writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { auditCost } from './audit.ts';
import { manyCallers, ownCost } from './callers.ts';
import { coldExec } from './cold.ts';
import { commandLine } from './command-line.ts';
import { ending } from './ending.ts';
import { memory } from './memory.ts';
import { readMachine } from './support/machine.ts';
import { printRow, type RowResult } from './support/report.ts';
import { createWorld, type World } from './support/world.ts';
import { throughput } from './throughput.ts';
import { farExec, warmExec } from './warm-exec.ts';
import { whereItGoes } from './where.ts';

const ROWS: ReadonlyMap<number, (world: World) => Promise<RowResult>> = new Map([
  [0, whereItGoes],
  [1, warmExec],
  [2, farExec],
  [3, coldExec],
  [4, throughput],
  [5, manyCallers],
  [6, ownCost],
  [8, memory],
  [9, commandLine],
  [10, auditCost],
  [11, ending],
]);

/** Left out of a quick run unless they are asked for: one has no peers, the other waits until a process is still. */
const NOT_QUICK: ReadonlySet<number> = new Set([0, 8]);

interface Options {
  quick: boolean;
  rows: number[];
  json: string;
  profileDir: string | null;
}

function readOptions(args: string[]): Options {
  const { values } = parseArgs({
    args,
    options: {
      quick: { type: 'boolean', default: false },
      row: { type: 'string', multiple: true },
      json: { type: 'string', default: join(tmpdir(), 'sallyport-bench-results.json') },
      profile: { type: 'string' },
    },
  });
  const asked =
    values.row?.flatMap((text) => text.split(',')).map(Number) ??
    [...ROWS.keys()].filter((row) => !values.quick || !NOT_QUICK.has(row));
  const unknown = asked.find((row) => !ROWS.has(row));
  if (unknown !== undefined) throw new Error(`--row takes ${[...ROWS.keys()].join(', ')}, not ${unknown}`);
  const profileDir = values.profile === undefined ? null : resolve(values.profile);
  return { quick: values.quick, rows: asked, json: resolve(values.json), profileDir };
}

/** Null when it was valid, else why not. */
async function measure(row: number, world: World, results: RowResult[]): Promise<string | null> {
  const run = ROWS.get(row);
  if (run === undefined) throw new Error(`bug: there is no row ${row}`);
  const from = performance.now();
  try {
    const result = await run(world);
    results.push(result);
    printRow(result);
    return null;
  } catch (error) {
    console.error(error);
    return `row ${row}: ${error instanceof Error ? error.message : String(error)}`;
  } finally {
    console.log(`  row ${row} took ${((performance.now() - from) / 1000).toFixed(1)} s`);
  }
}

async function main(args: string[]): Promise<number> {
  const { quick, rows, json, profileDir } = readOptions(args);
  const stopping = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const)
    process.once(name, () => stopping.abort(new Error(`broken off by ${name}`)));
  const machine = await readMachine();
  console.log(machine);
  const startedAt = new Date().toISOString();
  const results: RowResult[] = [];
  const invalid: string[] = [];
  const world = createWorld({ quick, profileDir, signal: stopping.signal });
  try {
    for (const row of rows) {
      const why = await measure(row, world, results);
      if (why !== null) invalid.push(why);
      if (stopping.signal.aborted) break;
    }
  } finally {
    await world.end();
  }
  const loadAfter = loadavg()[0];
  writeFileSync(json, `${JSON.stringify({ startedAt, quick, machine, loadAfter, invalid, rows: results }, null, 2)}\n`);
  console.log(`\nload average after: ${loadAfter?.toFixed(2)}; results: ${json}`);
  for (const why of invalid) console.error(`NOT VALID: ${why}`);
  return invalid.length === 0 ? 0 : 1;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  console.error(`bench: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
