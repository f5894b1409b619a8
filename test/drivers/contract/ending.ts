/** How a program ended is told as it was; ending one ends all of it, and only it. */
import { randomUUID } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { KILL_GRACE_MS } from '../../../src/limits.ts';
import type { Process } from '../../../src/sessions/session.ts';
import { fixture } from '../../support/fixtures.ts';
import { carryingExecId, isAlive, processRow } from '../../support/processes.ts';
import { waitUntil, within } from '../../support/wait.ts';
import { type Argv, collect, exitOf, type Rig, readLines, readPids } from './rig.ts';

export function endingContract(rig: Rig): void {
  const byTerm = { kind: 'signaled', signal: 'TERM' } as const;
  const byKill = { kind: 'signaled', signal: 'KILL' } as const;

  /** Kills, and holds that whatever was `pids` is gone from the process table when the answer comes. */
  async function killAll(program: Process, pids: readonly number[] = []): Promise<number> {
    const begun = performance.now();
    expect(await within('the kill', program.kill(), 15_000)).toEqual([]);
    const tookMs = performance.now() - begun;
    expect([program.pid, ...pids].filter(isAlive)).toEqual([]);
    expect(carryingExecId(program.marker.execId)).toEqual([]);
    return tookMs;
  }

  describe('by itself', () => {
    test.each([0, 1, 2, 42, 124, 125, 126, 127, 128, 130, 137, 143, 254, 255])(
      'exit code %i is that code',
      async (code) => {
        expect((await rig.run([fixture('exit-with'), String(code)])).exit).toEqual({ kind: 'exited', code });
      },
    );

    test.each(['HUP', 'INT', 'QUIT', 'ABRT', 'KILL', 'USR1', 'SEGV', 'USR2', 'PIPE', 'ALRM', 'TERM'])(
      'killed by %s has that name, without SIG',
      async (signal) => {
        expect((await rig.run([fixture('kill-self'), signal])).exit).toEqual({ kind: 'signaled', signal });
      },
    );

    test('a background child that holds stdout does not hold up the exit', async () => {
      const program = await rig.start([fixture('background-child')]);
      const [child] = await readPids(program, 1);
      expect(await exitOf(program, 3_000)).toEqual({ kind: 'exited', code: 0 });
      expect(program.outputEnded).toBe(false);
      expect(await program.look()).toEqual([child]);
      expect(isAlive(child ?? 0)).toBe(true);
      await killAll(program, [child ?? 0]);
    });

    test('letting go ends the output for its reader, not the program; twice is once', async () => {
      const program = await rig.start(['/bin/sh', '-c', 'echo ready; exec sleep 600']);
      const reader = readLines(program);
      await reader.lines(1);
      const rest = reader.rest();
      program.release();
      program.release();
      expect(await within('the output to end', rest)).toBe('');
      expect(isAlive(program.pid)).toBe(true);
      expect(await rig.session.reap(program.marker)).toEqual([]);
      expect(isAlive(program.pid)).toBe(false);
    });
  });

  describe('looking', () => {
    test('names what runs and leaves it alone; afterwards there is nothing', async () => {
      const program = await rig.start([fixture('fork-tree'), '1']);
      const shells = await readPids(program, 3);
      const seen = await program.look();
      expect(seen).toEqual(expect.arrayContaining(shells));
      expect(seen?.filter(isAlive)).toEqual(seen);
      await killAll(program, seen ?? []);
      expect(await program.look()).toEqual([]);
    });

    test('after an ordinary end there is nothing to see or to kill', async () => {
      const program = await rig.start(['true']);
      await exitOf(program);
      expect([await program.look(), await program.kill()]).toEqual([[], []]);
    });
  });

  describe('kill', () => {
    test('a program that honours TERM ends by it, well within the grace', async () => {
      const program = await rig.start(['sleep', '600']);
      expect(await killAll(program)).toBeLessThan(KILL_GRACE_MS);
      expect(await exitOf(program)).toEqual(byTerm);
    });

    test('a program that cleans up on TERM has its own last words and exit code', async () => {
      const program = await rig.start([fixture('honours-term')]);
      const reader = readLines(program);
      expect(await reader.lines(1)).toEqual(['ready']);
      await killAll(program);
      expect(await reader.rest()).toBe('bye\n');
      expect(await exitOf(program)).toEqual({ kind: 'exited', code: 3 });
    });

    test('a program that ignores TERM is killed after the grace, not before', async () => {
      const program = await rig.start([fixture('ignores-term')]);
      await readLines(program).lines(1);
      expect(await killAll(program)).toBeGreaterThanOrEqual(KILL_GRACE_MS - 100);
      expect(await exitOf(program)).toEqual(byKill);
    });

    test('a stopped program ends as well', async () => {
      const program = await rig.start(['sleep', '600']);
      process.kill(program.pid, 'SIGSTOP');
      await killAll(program);
    });

    const families: [string, Argv, number][] = [
      ['children in process groups of their own', [fixture('own-group')], 2],
      ['a tree of fifteen shells', [fixture('fork-tree'), '3'], 15],
      ['a child that left with setsid', [fixture('setsid-child'), '600'], 1],
      ['a child of timeout(1)', ['timeout', '600', '/bin/sh', '-c', 'echo $$; sleep 600; :'], 1],
      [
        'a child that left with setsid and shed its environment',
        ['/bin/sh', '-c', 'env -i setsid sleep 600 >/dev/null 2>&1 & echo $!; exec sleep 600'],
        1,
      ],
      [
        'a daemon: left, and its parent gone',
        ['/bin/sh', '-c', `setsid sh -c 'sleep 600 >/dev/null 2>&1 & echo $!'; exec sleep 600`],
        1,
      ],
      [
        'a child that left and ignores TERM',
        ['/bin/sh', '-c', `(trap '' TERM; setsid sleep 600 >/dev/null 2>&1 & echo $!); exec sleep 600`],
        1,
      ],
    ];
    test.each(families)('%s: all of it ends', async (_what, argv, count) => {
      const program = await rig.start(argv);
      const pids = await readPids(program, count);
      expect(pids.filter(isAlive)).toEqual(pids);
      await killAll(program, pids);
    });

    test('what outlived an exec that has ended is still found', async () => {
      const program = await rig.start([fixture('setsid-child')]);
      const [child] = await readPids(program, 1);
      expect(await exitOf(program)).toEqual({ kind: 'exited', code: 0 });
      expect(await program.look()).toEqual([child]);
      await killAll(program, [child ?? 0]);
    });

    test('works while nobody reads the output', async () => {
      const program = await rig.start([fixture('forever')]);
      await killAll(program);
      const rest = collect(program.output);
      expect(await exitOf(program)).toEqual(byTerm);
      await within('the output to end', rest);
    });

    test('twice at once is answered twice', async () => {
      const program = await rig.start([fixture('ignores-term')]);
      await readLines(program).lines(1);
      expect(await Promise.all([program.kill(), program.kill()])).toEqual([[], []]);
    });

    test('leaves other programs of the same session alone, also one with a longer id', async () => {
      const execId = randomUUID();
      const [ended, other] = [
        await rig.start(['sleep', '600'], { execId }),
        await rig.start(['sleep', '600'], { execId: `${execId}-2`, env: { NOT_MINE: `EXEC_ID=${execId}` } }),
      ];
      await killAll(ended);
      expect(isAlive(other.pid)).toBe(true);
      expect(await killAll(other)).toBeLessThan(KILL_GRACE_MS);
    });

    test('as many kills at once as there are programs', { timeout: 30_000 }, async () => {
      const session = await rig.open();
      const programs = await Promise.all(
        Array.from({ length: session.capacity }, () => rig.start(['sleep', '600'], { session })),
      );
      await Promise.all(programs.map((program) => killAll(program)));
    });

    // What a withdrawn right promises, however many programs it ends. Source: contract, section 2.
    test('as many programs that ignore TERM are gone within 4.5 s', { timeout: 30_000 }, async () => {
      const session = await rig.open();
      const programs = await Promise.all(
        Array.from({ length: session.capacity }, () => rig.start([fixture('ignores-term')], { session })),
      );
      await Promise.all(programs.map((program) => readLines(program).lines(1)));
      expect(Math.max(...(await Promise.all(programs.map((program) => killAll(program)))))).toBeLessThan(4_500);
    });
  });

  describe('over another session', () => {
    test('reap ends what a lost one left behind, found by session and by marker alone', async () => {
      for (const knowSession of [true, false]) {
        const session = await rig.open();
        const program = await rig.start([fixture('setsid-child'), '600'], { session });
        const [child = 0] = await readPids(program, 1);
        session.close();
        const marker = knowSession ? program.marker : { ...program.marker, session: null };
        expect(await rig.session.reap(marker)).toEqual([]);
        expect([program.pid, child].filter(isAlive)).toEqual([]);
      }
    });

    test('reap of what is not there finds nothing', async () => {
      expect(await rig.session.reap({ execId: randomUUID(), session: null })).toEqual([]);
    });

    test('reap does not touch a session id that was given out again', async () => {
      const [gone, bystander] = [randomUUID(), await rig.start(['sleep', '600'])];
      const { sid = 0, startTicks = '' } = bystander.marker.session ?? {};
      expect(sid).toBe(processRow(bystander.pid)?.session);
      const reused = { execId: gone, session: { sid, startTicks: String(Number(startTicks) - 1) } };
      expect(await rig.session.reap(reused)).toEqual([]);
      expect(isAlive(bystander.pid)).toBe(true);
    });
  });

  describe('a session that ends', () => {
    test('leaves the end of its programs unknown, and says so; closing twice is once', async () => {
      const session = await rig.open();
      const program = await rig.start(['/bin/sh', '-c', 'echo ready; exec sleep 600'], { session });
      const reader = readLines(program);
      await reader.lines(1);
      session.close();
      session.close();
      expect(await within('the session to be closed', session.closed)).toBeNull();
      expect(await exitOf(program)).toMatchObject({ kind: 'lost', error: { code: 'connection_lost' } });
      expect(await within('the output to end', reader.rest())).toBe('');
      expect([await program.kill(), await program.look()]).toEqual([null, null]);
      program.release();
    });

    test('does not disturb another', async () => {
      const [session, other] = [await rig.open(), await rig.open()];
      const program = await rig.start(['cat'], { session: other, stdin: Buffer.from('still here') });
      session.close();
      expect((await collect(program.output)).stdout.toString()).toBe('still here');
    });
  });

  test('nothing of ours is left on the host after a program ended', async () => {
    const execId = randomUUID();
    await rig.run([fixture('echo-env')], { execId, stdin: Buffer.from('x') });
    await waitUntil('everything with the marker is gone', () => carryingExecId(execId).length === 0);
  });
}
