/** `npm start` as people run it: the built program in a process of its own, on a data directory of its own. */
import { execFile } from 'node:child_process';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { generateSigningKey } from '../../src/access/token.ts';
import type { DemoFile } from '../../src/demo.ts';
import { createTestDatabase } from '../support/database.ts';
import { type Answer, createAsk, outputOf, type TestGateway, terminalOf } from '../support/gateway.ts';
import { isAlive, waitUntilGone } from '../support/processes.ts';
import { builtProgram, descendantsOf, type Ended, type Program, runProgram, startProgram } from '../support/program.ts';
import { requireProgram } from '../support/requirements.ts';
import { type Row, runSql } from '../support/sql.ts';
import { waitUntil } from '../support/wait.ts';

const COLLECT_GARBAGE = new URL('../fixtures/collect-garbage.mjs', import.meta.url).href;

interface Demo {
  program: Program;
  file: DemoFile;
  ask: TestGateway['ask'];
  exec(cmd: string[]): Promise<Answer>;
}

const folders: string[] = [];
const programs: Program[] = [];
let drained: Promise<Drained>;

beforeAll(async () => {
  ({ drained } = await startDraining());
});
afterAll(async () => {
  for (const program of programs) program.kill('SIGKILL');
  await Promise.all(programs.map(({ ended }) => ended));
  for (const folder of folders) await rm(folder, { recursive: true });
});

async function newFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'demo-'));
  folders.push(folder);
  return folder;
}

const settings = (dataDir: string, env = {}) => ({ SALLYPORT_DATA_DIR: dataDir, SALLYPORT_PORT: '0', ...env });

async function startDemo(dataDir: string, env = {}): Promise<Demo> {
  const program = await startProgram(['demo'], { env: settings(dataDir, env) });
  programs.push(program);
  await program.says(/Ctrl-C stops everything/);
  const file = JSON.parse(readFileSync(join(dataDir, 'demo.json'), 'utf8')) as DemoFile;
  const ask = createAsk(file);
  return {
    program,
    file,
    ask,
    exec: (cmd) => ask('/workspaces/ws-demo/exec', { method: 'POST', body: { cmd } }),
  };
}

interface Drained {
  ended: Ended;
  tookMs: number;
  /** Of the exec that ran. */
  answer: Answer;
  rows: Row[];
  /** To an exec while it drained. */
  refused: Answer;
  ready: Answer;
  /** Pids below it that are still there. */
  left: number[];
}

/**
 * A demo of its own that is told to stop while a program runs: fifteen seconds of grace, which go by while the other
 * tests run. Its rows are in a database that is there afterwards.
 */
async function startDraining(): Promise<{ drained: Promise<Drained> }> {
  const database = await createTestDatabase();
  const folder = await newFolder();
  const env = { DATABASE_URL: database.url, SALLYPORT_SIGNING_KEY: await generateSigningKey() };
  // A grace that nobody but the garbage collector knew of was lost now and then.
  const options = { SALLYPORT_LOG_LEVEL: 'info', NODE_OPTIONS: `--import=${COLLECT_GARBAGE}` };
  const demo = await startDemo(folder, { ...env, ...options });
  const file = join(folder, 'runs');
  const runs = demo.exec(['sh', '-c', 'touch "$0"; echo started; sleep 100; :', file]);
  await waitUntil('the program runs', () => existsSync(file));
  const children = descendantsOf(demo.program.pid);
  demo.program.kill('SIGTERM');
  const fromMs = performance.now();
  const ready = await waitUntil('it is not ready any more', async () => {
    const answer = await demo.ask('/readyz', { token: null });
    return answer.status === 503 && answer;
  });
  const refused = await demo.exec(['true']);
  const finish = async (): Promise<Drained> => {
    const [ended, answer] = await Promise.all([demo.program.ended, runs]);
    const tookMs = performance.now() - fromMs;
    const left = children.filter(isAlive);
    const rows = await runSql(database.url, 'select status, response_body from activity_logs where id = $1', [
      terminalOf(answer.frames).exec_id,
    ]);
    await database.drop();
    return { ended, tookMs, answer, rows, refused, ready, left };
  };
  const drained = finish();
  // It fails where it is awaited, in the tests below.
  drained.catch(() => undefined);
  return { drained };
}

/** A start that must fail: exit 1 and one sentence on stderr, nothing on stdout. */
function expectRefusal({ code, stdout, stderr }: Ended, sentence: RegExp): void {
  expect({ code, stdout: stdout.toString(), stderr }).toEqual({
    code: 1,
    stdout: '',
    stderr: expect.stringMatching(sentence),
  });
  expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  expect(stderr).toMatch(/^sallyport: /);
}

describe('the demo', () => {
  let folder: string;
  let demo: Demo;
  beforeAll(async () => {
    folder = await newFolder();
    demo = await startDemo(folder);
  });

  it('says where it is and what it takes to try it', async () => {
    const text = demo.program.stdout();
    expect(text).toContain(`listening on ${demo.file.url}`);
    expect(text).toContain(demo.file.tokens.org);
    expect(demo.file.url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
    // Nothing is wrong, so nothing is said.
    expect(demo.program.stderr()).not.toContain('"level":50');
  });

  it.skipIf(!requireProgram('/usr/bin/curl', 'curl'))('prints a curl line that works as it is', async () => {
    const [line = ''] = demo.program.stdout().match(/^ *curl .*$/m) ?? [];
    const { stdout, stderr } = await promisify(execFile)('/bin/sh', ['-c', `${line} --silent --show-error`]);
    const frames = stdout
      .trim()
      .split('\n')
      .map((text) => JSON.parse(text) as Record<string, unknown>);
    expect(outputOf(frames, 'stdout').toString()).toMatch(/^Linux /);
    expect(terminalOf(frames)).toMatchObject({ exit_code: 0, complete: true });
    expect(stderr).toBe('');
  });

  it('prints a line for the command line that works as it is', async () => {
    const [line = ''] = demo.program.stdout().match(/^ *export SALLYPORT_URL.*$/m) ?? [];
    const script = `${line}; "$0" "$1" exec ws-demo -- uname -s`;
    const { stdout } = await promisify(execFile)('/bin/sh', ['-c', script, process.execPath, await builtProgram()]);
    expect(stdout).toBe('Linux\n');
  });

  it('writes demo.json for tools, and nothing that others may read', async () => {
    const token = expect.stringMatching(/^eyJ/);
    expect(demo.file).toEqual({
      url: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/),
      lab: { url: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/) },
      tokens: {
        org: token,
        workspace: token,
        readonly: token,
        other_org: token,
        admin: expect.stringMatching(/^.{32,}$/),
      },
      workspaces: {
        privileged: 'ws-demo',
        sandboxed: 'ws-sandbox',
        no_instance: 'ws-no-instance',
        other_org: 'ws-other',
        fleet: Array.from({ length: 8 }, (_, index) => `ws-fleet-0${index + 1}`),
      },
    });
    const mode = (path: string) => (statSync(join(folder, path)).mode & 0o777).toString(8);
    expect({ '.': mode('.'), lab: mode('lab'), 'postgres-18': mode('postgres-18') }).toEqual({
      '.': '700',
      lab: '700',
      'postgres-18': '700',
    });
    expect({ demo: mode('demo.json'), key: mode('signing-key.pem'), lab: mode('lab/lab.json') }).toEqual({
      demo: '600',
      key: '600',
      lab: '600',
    });
  });

  it('its tokens are what their names say', async () => {
    const { tokens } = demo.file;
    const exec = (token: keyof DemoFile['tokens'], workspace: string) =>
      demo.ask(`/workspaces/${workspace}/exec`, { method: 'POST', token, body: { cmd: ['true'] } });
    expect((await exec('org', 'ws-fleet-08')).status).toBe(200);
    expect((await exec('workspace', 'ws-demo')).status).toBe(200);
    expect((await exec('workspace', 'ws-fleet-01')).status).toBe(404);
    expect((await exec('readonly', 'ws-demo')).body.code).toBe('scope_missing');
    expect((await exec('other_org', 'ws-other')).status).toBe(200);
    expect((await exec('other_org', 'ws-demo')).status).toBe(404);
    expect((await exec('admin', 'ws-other')).status).toBe(200);
    expect((await exec('org', 'ws-sandbox')).body.code).toBe('exec_tier_forbidden');
    expect((await exec('org', 'ws-no-instance')).body.code).toBe('no_instance');
    for (const token of Object.keys(tokens) as (keyof DemoFile['tokens'])[])
      expect((await demo.ask('/workspaces?limit=1', { token })).status).toBe(200);
  });

  it('refuses a second one on the same folder, and is not disturbed by it', async () => {
    const [begun, go] = [join(folder, 'begun'), join(folder, 'go')];
    const script = 'touch "$0"; until [ -e "$1" ]; do sleep 0.1; done; exit 7';
    const running = demo.exec(['sh', '-c', script, begun, go]);
    await waitUntil('the program runs', () => existsSync(begun));
    for (const [verb, by] of [
      ['demo', 'lab'],
      ['lab', 'lab'],
      ['serve', 'gateway'],
      ['migrate', 'gateway'],
    ] as const)
      expectRefusal(
        await runProgram([verb], { env: settings(folder) }),
        new RegExp(`is in use by another running ${by}: stop it first`),
      );
    writeFileSync(go, '');
    expect(terminalOf((await running).frames)).toMatchObject({ exit_code: 7 });
    expect(JSON.parse(readFileSync(join(folder, 'demo.json'), 'utf8'))).toEqual(demo.file);
  });

  it('killed in the middle of its work leaves nothing behind, and loses nothing that was acknowledged', async () => {
    const before = demo;
    const token = await before.ask('/tokens', {
      method: 'POST',
      body: { kind: 'org', name: 'kept', scopes: ['exec'] },
    });
    await before.ask('/workspaces/ws-fleet-01', { method: 'PATCH', body: { name: 'Renamed' } });
    const done = terminalOf((await before.exec(['echo', 'acknowledged'])).frames);
    await waitUntil('its row is read', async () => {
      const { body } = await before.ask('/activity?limit=1');
      return (body.items as { id: string; status: string }[])[0]?.status === 'ok';
    });
    const keysBefore = await hostKeys();
    const running = join(folder, 'running');
    const script = 'setsid sleep 100 & touch "$0"; echo started; trap "" TERM HUP PIPE; sleep 100; :';
    before.exec(['sh', '-c', script, running]).catch(() => undefined);
    await waitUntil('the program runs', () => existsSync(running));
    const children = descendantsOf(before.program.pid);
    // Database server and its keeper, the lab's keeper, and the program with its two children.
    expect(children.length).toBeGreaterThanOrEqual(6);

    before.program.kill('SIGKILL');
    await before.program.ended;
    await waitUntilGone(children, 10_000);

    demo = await startDemo(folder);
    expect(demo.file).toEqual({ ...before.file, url: expect.any(String), lab: expect.any(Object) });
    const { body } = await demo.ask('/activity?limit=500');
    const rows = body.items as { id: string; status: string; summary: string }[];
    expect(rows.find(({ id }) => id === done.exec_id)).toMatchObject({ status: 'ok', summary: 'echo acknowledged' });
    expect(rows.some(({ summary }) => summary.startsWith('sh -c setsid'))).toBe(true);
    const kept = await demo.ask('/workspaces/ws-demo/exec', {
      method: 'POST',
      token: { raw: String(token.body.token) },
      body: { cmd: ['true'] },
    });
    expect(terminalOf(kept.frames)).toMatchObject({ exit_code: 0 });
    // Pinned once, shown again: the console was not asked a second time.
    expect(await hostKeys()).toEqual(keysBefore);
    const { api } = (await (await fetch(`${demo.file.lab.url}/counters`)).json()) as { api: Record<string, number> };
    expect(api.DescribeInstances).toBeGreaterThan(0);
    expect(api).not.toHaveProperty('GetConsoleOutput');
  }, 40_000);

  async function hostKeys(): Promise<unknown[]> {
    const socket = encodeURIComponent(join(folder, 'postgres-18', 'run'));
    return await runSql(
      `postgresql://postgres@localhost/postgres?host=${socket}`,
      'select * from host_keys where instance_id in (select instance_id from workspaces where id = $1) order by type',
      ['ws-demo'],
    );
  }

  it('stops on SIGTERM with 0 and nothing left', async () => {
    const children = descendantsOf(demo.program.pid);
    expect(children.length).toBeGreaterThan(0);
    demo.program.kill('SIGTERM');
    expect(await demo.program.ended).toMatchObject({ code: 0 });
    expect(children.filter(isAlive)).toEqual([]);
  });

  it('--once prints the frames of one exec and exits 0', async () => {
    const { code, stdout, stderr } = await runProgram(['demo', '--once'], { env: settings(folder) });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const frames = stdout
      .toString()
      .trim()
      .split('\n')
      .map((text) => JSON.parse(text) as Record<string, unknown>);
    expect(outputOf(frames, 'stdout').toString()).toMatch(/^Linux /);
    expect(terminalOf(frames)).toMatchObject({ exit_code: 0, outcome: 'exited', complete: true });
  });

  it('a second signal stops at once', async () => {
    const again = await startDemo(folder);
    const file = join(folder, 'hastened');
    const runs = again.exec(['sh', '-c', 'touch "$0"; echo started; sleep 100; :', file]);
    await waitUntil('the program runs', () => existsSync(file));
    const from = performance.now();
    again.program.kill('SIGINT');
    await waitUntil('it drains', async () => (await again.ask('/readyz', { token: null })).status === 503);
    again.program.kill('SIGTERM');
    expect(await again.program.ended).toMatchObject({ code: 0 });
    expect(performance.now() - from).toBeLessThan(8_000);
    expect(terminalOf((await runs).frames)).toMatchObject({ code: 'draining', outcome: 'drained', survivors: [] });
  });
});

describe('a demo that is told to stop while a program runs', () => {
  it('starts nothing new and says why', async () => {
    const { refused, ready } = await drained;
    expect(ready.body).toEqual({ ok: false, reasons: [expect.stringMatching(/^draining/)] });
    expect({ status: refused.status, code: refused.body.code }).toEqual({ status: 503, code: 'draining' });
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0);
  });

  it('gives it its time, then ends it, tells the caller, closes the row and exits 0', async () => {
    const { ended, tookMs, answer, rows, left } = await drained;
    expect(answer.status).toBe(200);
    expect(outputOf(answer.frames, 'stdout').toString()).toBe('started\n');
    expect(terminalOf(answer.frames)).toMatchObject({ code: 'draining', outcome: 'drained', survivors: [] });
    expect(rows).toMatchObject([{ status: 'cancelled', response_body: { outcome: 'drained', stdout_bytes: 8 } }]);
    expect(left).toEqual([]);
    expect(ended.code).toBe(0);
    expect(tookMs).toBeGreaterThan(10_000);
    expect(tookMs, `it took too long: ${ended.stderr}`).toBeLessThan(20_000);
  });
});
