import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { KILL_SCRIPT, readSurvivors } from '../../src/drivers/kill-script.ts';
import { carryingExecId } from '../support/processes.ts';
import { waitUntil } from '../support/wait.ts';

const dir = mkdtempSync(join(tmpdir(), 'kill-script-'));
const SHELLS = ['dash', 'bash'] as const;
let started: ChildProcess[] = [];
afterEach(() => {
  for (const child of started) if (child.pid !== undefined && child.exitCode === null) child.kill('SIGKILL');
  started = [];
});

/** Runs a shell program in a session of its own, as sshd does, and waits until it says that it is ready. */
async function program(text: string) {
  const execId = randomUUID();
  const ready = join(dir, execId);
  const child = spawn('/bin/sh', ['-c', text], {
    detached: true,
    stdio: 'ignore',
    env: { PATH: process.env.PATH ?? '', EXEC_ID: execId, READY: ready },
  });
  started.push(child);
  await waitUntil('the program is ready', () => existsSync(ready));
  rmSync(ready);
  const sid = child.pid ?? 0;
  return { execId, sid, startTicks: startTicks(sid) };
}

const fields = (pid: number): string[] => {
  const stat = existsSync(`/proc/${pid}/stat`) ? readFileSync(`/proc/${pid}/stat`, 'latin1') : '';
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
};
const startTicks = (pid: number): string => fields(pid)[19] ?? '0';

function runScript(shell: string, mode: string, of: { execId: string; sid: number; startTicks: string }) {
  const target = `${of.execId}:${of.sid}:${of.startTicks}`;
  const done = spawnSync(shell, ['-s', '--', mode, target], { input: KILL_SCRIPT });
  return { survivors: readSurvivors(done.stdout.toString(), of.execId), errors: done.stderr.toString() };
}

describe.each(SHELLS)('kill script under %s', (shell) => {
  it.each([
    ['a plain program', ': >$READY; exec sleep 100'],
    ['a program that makes its own group', ': >$READY; timeout 100 sleep 100'],
    ['job control', 'set -m; sleep 100 & : >$READY; sleep 100 & wait'],
    ['a child in a session of its own', 'setsid sleep 100 & : >$READY; sleep 100'],
    ['an orphan in a session of its own', '(setsid sleep 100 &); : >$READY; exec sleep 100'],
    ['a child that left the session and dropped its environment', 'env -i setsid sleep 100 & : >$READY; sleep 100'],
    [
      'a TERM handler that starts something new',
      'trap "setsid sleep 100 & exit" TERM; : >$READY; while :; do sleep 0.1; done',
    ],
    ['a program that forks all the time', ': >$READY; while :; do sleep 0.3 & sleep 0.01; done'],
  ])('ends %s', async (_name, text) => {
    const target = await program(text);
    expect(runScript(shell, 'kill', target)).toEqual({ survivors: [], errors: '' });
    expect(carryingExecId(target.execId)).toHaveLength(0);
  });

  it('ends a program that ignores TERM, after the grace', async () => {
    const target = await program('trap "" TERM; : >$READY; while :; do sleep 1; done');
    const from = performance.now();
    expect(runScript(shell, 'kill', target).survivors).toEqual([]);
    expect(performance.now() - from).toBeGreaterThan(1900);
  });

  it('finds an orphan by its marker when the session is not known', async () => {
    const target = await program('(setsid sleep 100 &); : >$READY; exec sleep 100');
    expect(runScript(shell, 'kill', { ...target, sid: 0, startTicks: '0' }).survivors).toEqual([]);
    expect(carryingExecId(target.execId)).toHaveLength(0);
  });

  it('ends several execs at once, tells them apart, and leaves the others alone', async () => {
    const [one, two, other] = [
      await program('trap "" TERM; : >$READY; while :; do sleep 1; done'),
      await program('(setsid sleep 100 &); : >$READY; exec sleep 100'),
      await program(': >$READY; exec sleep 100'),
    ];
    const targets = [one, two].map((of) => `${of.execId}:${of.sid}:${of.startTicks}`);
    const looked = spawnSync(shell, ['-s', '--', 'look', ...targets], { input: KILL_SCRIPT }).stdout.toString();
    expect(readSurvivors(looked, one.execId)).toContain(one.sid);
    expect(readSurvivors(looked, two.execId)).toHaveLength(2);
    const killed = spawnSync(shell, ['-s', '--', 'kill', ...targets], { input: KILL_SCRIPT }).stdout.toString();
    expect([one, two].map(({ execId }) => readSurvivors(killed, execId))).toEqual([[], []]);
    expect([one, two, other].map(({ execId }) => carryingExecId(execId).length)).toEqual([0, 0, 1]);
    runScript(shell, 'kill', other);
  });

  it('looks without touching', async () => {
    const target = await program('sleep 100 & : >$READY; exec sleep 100');
    const { survivors } = runScript(shell, 'look', target);
    expect(survivors).toHaveLength(2);
    expect(survivors).toContain(target.sid);
    expect(carryingExecId(target.execId)).toHaveLength(2);
    runScript(shell, 'kill', target);
  });

  it('never touches a session whose number was given out again', async () => {
    const other = await program(': >$READY; exec sleep 100');
    const gone = { execId: randomUUID(), sid: other.sid, startTicks: String(Number(other.startTicks) - 1) };
    expect(runScript(shell, 'kill', gone).survivors).toEqual([]);
    expect(carryingExecId(other.execId)).toHaveLength(1);
    runScript(shell, 'kill', other);
  });

  it('a process name with spaces, brackets and a newline does not hide a process', async () => {
    const name = 'x) S 1\n2 (';
    const target = await program(
      `cp "$(command -v sleep)" "${dir}/${shell} ${name}"; : >$READY; exec "${dir}/${shell} ${name}" 100`,
    );
    await waitUntil('the program has its odd name', () =>
      readFileSync(`/proc/${target.sid}/comm`, 'latin1').includes(')'),
    );
    expect(runScript(shell, 'kill', target).survivors).toEqual([]);
    expect(carryingExecId(target.execId)).toHaveLength(0);
  });
});

describe('readSurvivors', () => {
  it('reads the whole line of its exec only', () => {
    const output = 'survivors a 1 22\nsurvivors b\n';
    expect(readSurvivors(output, 'a')).toEqual([1, 22]);
    expect(readSurvivors(output, 'b')).toEqual([]);
    expect(readSurvivors(output, 'c')).toBeNull();
    for (const text of ['', 'unknown\n', 'survivors a x\n', 'sh: not found'])
      expect(readSurvivors(text, 'a')).toBeNull();
  });
});
