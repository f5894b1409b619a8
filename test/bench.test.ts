/** The parts of the bench (test/bench) that its figures rest on; the bench itself is run by people. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { partsOf } from './bench/support/cpu-profile.ts';
import { cpuUsOf, createCpuMeter, type ProcessTimes, parseStat } from './bench/support/cpu-time.ts';
import type { FloorOps } from './bench/support/floor-server.ts';
import { interleave, shuffled } from './bench/support/interleave.ts';
import { runCalls } from './bench/support/load.ts';
import { RawHttp, requestBytes, requireSuccess } from './bench/support/raw-http.ts';
import { startWorker } from './bench/support/worker.ts';
import { createTestDatabase } from './support/database.ts';
import { runSql } from './support/sql.ts';
import { startSshd } from './support/sshd.ts';

test('a shuffle keeps every item once, in the order of what it draws', () => {
  const items = ['a', 'b', 'c', 'd'];
  expect(shuffled(items, (n) => n - 1)).toEqual(['d', 'c', 'b', 'a']);
  expect(shuffled(items, () => 0)).toEqual(items);
  expect(shuffled(items).sort()).toEqual(items);
});

test('a shuffle can put everybody behind everybody else', () => {
  const pairs = new Set<string>();
  // Each of the six pairs stands in a third of all orders: that one is missing has a chance of 1e-34.
  for (let round = 0; round < 200; round += 1) {
    const [first, second, third] = shuffled(['a', 'b', 'c']);
    pairs.add(`${first}${second}`).add(`${second}${third}`);
  }
  expect([...pairs].sort()).toEqual(['ab', 'ac', 'ba', 'bc', 'ca', 'cb']);
});

test('each round measures everybody once, the slow ones in every how many-th, and warming up leaves no sample', async () => {
  let runs = 0;
  const one = async () => ++runs;
  const entrants = [
    { name: 'each', run: one },
    { name: 'third', every: 3, run: one },
  ];
  const samples = await interleave(entrants, { rounds: 6, warmUps: 3, signal: new AbortController().signal });
  expect([samples.get('each')?.length, samples.get('third')?.length, runs]).toEqual([6, 2, 9 + 3]);
});

test('a number of calls is that number, over all callers, and a wrong answer ends them', async () => {
  const seen: number[] = [];
  await runCalls({ callers: 3, calls: 10 }, async (caller) => void seen.push(caller));
  expect([seen.length, new Set(seen).size]).toEqual([10, 3]);
  const failing = runCalls({ callers: 2, calls: 10 }, async () => {
    throw new Error('expected 200');
  });
  await expect(failing).rejects.toThrow('expected 200');
});

test('the CPU time of a process has its user and system time and that of children it has waited for', () => {
  const stat = '4242 (a (b) c) S 17 4242 4242 0 -1 4194304 900 800 7 6 11 22 300 400 20 0 1 0 123456 2600000 200\n';
  expect(parseStat(stat)).toEqual({ pid: 4242, name: 'a (b) c', parent: 17, cpuUs: (11 + 22 + 300 + 400) * 10_000 });
});

test('a tree of processes is its root and all below, and nothing beside', () => {
  const row = (pid: number, parent: number, cpuUs: number): ProcessTimes => ({ pid, name: 'x', parent, cpuUs });
  const processes = [row(1, 0, 1), row(20, 10, 20), row(10, 1, 100), row(30, 20, 3), row(11, 1, 5_000)];
  expect(cpuUsOf(10, processes)).toBe(123);
  expect(cpuUsOf(99, processes)).toBe(0);
});

test('a profile gives each part what ran in it or was called by it, within a time, and nothing to idleness', () => {
  const frame = (functionName: string, url = '') => ({ functionName, url });
  const profile = {
    nodes: [
      { id: 1, callFrame: frame('(root)'), children: [2, 3, 6] },
      { id: 2, callFrame: frame('(idle)') },
      { id: 3, callFrame: frame('query', 'pg'), children: [4, 5] },
      { id: 4, callFrame: frame('emit', 'node:events') },
      { id: 5, callFrame: frame('writev') },
      { id: 6, callFrame: frame('(program)') },
    ],
    startTime: 1_000,
    samples: [3, 4, 2, 5, 6, 4],
    timeDeltas: [10, 100, 1_000, 20, 5, 7],
  };
  const partOf = ({ functionName, url }: { functionName: string; url: string }) =>
    functionName === 'writev' ? 'writes' : url === 'pg' ? 'database' : null;
  const parts = (fromUs: number, toUs: number) => [...partsOf(profile, { partOf, rest: 'rest', fromUs, toUs })];
  expect(parts(0, 10_000)).toEqual([
    ['database', 117],
    ['writes', 20],
    ['rest', 5],
  ]);
  expect(parts(1_011, 2_130)).toEqual([
    ['database', 100],
    ['writes', 20],
  ]);
});

test('a meter counts what ran within a load, per call, without the loads that it is to skip', async () => {
  const meter = createCpuMeter({ here: process.pid });
  const burn = 'const until = process.cpuUsage().user + 400_000; while (process.cpuUsage().user < until);';
  const load = (calls: number) => async () => {
    spawnSync(process.execPath, ['-e', burn]);
    return { calls };
  };
  await meter.during(async () => ({ calls: 1_000 }));
  expect(await meter.during(load(4))).toEqual({ calls: 4 });
  const { here = 0 } = meter.perCallUs(1) ?? {};
  expect(here).toBeGreaterThanOrEqual(95_000);
  expect(meter.perCallUs(0)?.here).toBeLessThan(here);
});

test('a meter tells nothing when one of the processes cannot be seen', async () => {
  const meter = createCpuMeter({ here: process.pid, unseen: null });
  await meter.during(async () => ({ calls: 1 }));
  expect(meter.perCallUs(0)).toBeNull();
});

test('the floor runs a command only after its row is committed', async () => {
  const [sshd, database, floor] = await Promise.all([
    startSshd(),
    createTestDatabase(),
    startWorker<FloorOps>('floor-server.ts'),
  ]);
  onTestFinished(async () => {
    await floor.stop();
    await database.drop();
    await sshd.stop();
  });
  const { url } = await floor.ask('listen', { database: database.url });
  const { port, username, privateKey } = sshd;
  await floor.ask('connect', { port, username, privateKey, connections: 1 });
  const connection = await RawHttp.open(url);
  onTestFinished(() => connection.close());
  const send = (command: string, more: object = {}): Promise<string> =>
    connection.ask(requestBytes({ url, path: `/${port}`, token: 'none', body: { command, ...more } }));

  const answer = await send('echo out; echo err >&2');
  requireSuccess(answer);
  expect(answer).toContain(String.raw`{"exit_code":0,"stdout":"out\n","stderr":"err\n"}`);
  expect(await send('exit 7')).toContain('"exit_code":7');
  const rows = await runSql(database.url, 'select command from floor_execs order by id');
  expect(rows.map(({ command }) => command)).toEqual(['echo out; echo err >&2', 'exit 7']);

  const end = `"exit_code":0,"stdout_bytes":4,"stdout_sha256":"${createHash('sha256').update('a"b\n').digest('hex')}"`;
  const text = await send(`echo 'a"b'`, { lines: 'text' });
  expect(text).toContain(String.raw`{"data":"a\"b\n"}`);
  expect(text).toContain(end);
  const base64 = await send(`echo 'a"b'`, { lines: 'base64' });
  expect(base64).toContain(`{"data":"${Buffer.from('a"b\n').toString('base64')}"}`);
  expect(base64).toContain(end);

  await runSql(database.url, 'drop table floor_execs');
  const mark = join(mkdtempSync(join(tmpdir(), 'floor-')), 'mark');
  expect(await send(`touch ${mark}`)).toMatch(/^HTTP\/1\.1 500 /);
  expect(existsSync(mark)).toBe(false);
});
