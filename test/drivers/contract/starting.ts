/** A program is started as asked, with what was asked and nothing else, or it is not started and that is said. */
import { randomUUID } from 'node:crypto';
import { existsSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { SallyportError } from '../../../src/errors.ts';
import { deferred } from '../../../src/sessions/deferred.ts';
import { FIXTURES, fixture } from '../../support/fixtures.ts';
import { carryingExecId, environmentOf, processTable } from '../../support/processes.ts';
import { waitUntil, within } from '../../support/wait.ts';
import quoting from '../../vectors/argv-quoting.json' with { type: 'json' };
import { anyArgument, exitOf, parseEchoedArgv, type Rig, readLines } from './rig.ts';

/** Variables that one shell or another keeps for itself. */
const SPECIAL_NAMES = [
  ...['PPID', 'UID', 'EUID', 'IFS', 'OPTIND', 'LINENO', 'PS1', 'PS4', 'ENV', 'BASH_ENV', 'SHELLOPTS', 'PWD', 'OLDPWD'],
  ...['HOME', 'SHELL', '_', 'CDPATH', 'LC_ALL', 'RANDOM', 'SECONDS', 'POSIXLY_CORRECT', 'TERM', 'status', 'argv', 'a'],
];

export function startingContract(rig: Rig): void {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-contract-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const never = (): string => join(folder, `never-${randomUUID()}`);

  async function echoed(args: readonly string[], program = fixture('echo-argv')): Promise<string[]> {
    return parseEchoedArgv((await rig.run([program, ...args])).stdout);
  }

  async function environmentWith(env: Record<string, string>, execId: string = randomUUID()): Promise<string[]> {
    const { stdout } = await rig.run([fixture('echo-env')], { env, execId });
    return stdout.toString().split('\0').slice(0, -1);
  }

  function startFailure(options: Parameters<Rig['start']>[1], argv: Parameters<Rig['start']>[0]): Promise<unknown> {
    return rig.start(argv, options).then(
      () => 'was started',
      (error: unknown) => error,
    );
  }

  describe('argv', () => {
    test('every argument of the quoting vectors arrives as it was sent', async () => {
      const args = quoting.map(({ text }) => text);
      expect(await echoed(args)).toEqual(args);
    });

    test('any list of arguments arrives byte for byte', { timeout: 60_000 }, async () => {
      const anyList = fc.array(anyArgument, { minLength: 20, maxLength: 60, size: 'max' });
      await fc.assert(
        fc.asyncProperty(anyList, async (args) => {
          expect(await echoed(args)).toEqual(args);
        }),
        { numRuns: 15 },
      );
    });

    test('no arguments at all are no arguments', async () => {
      expect(await echoed([])).toEqual([]);
    });

    test('256 elements arrive in order', async () => {
      const args = Array.from({ length: 255 }, (_, i) => `argument ${i}`);
      expect(await echoed(args)).toEqual(args);
    });

    test('one element of 131,071 bytes arrives whole', async () => {
      const [long] = await echoed([`é${'x'.repeat(131_068)}'`]);
      expect(Buffer.byteLength(long ?? '')).toBe(131_071);
      expect(long).toBe(`é${'x'.repeat(131_068)}'`);
    });

    test.each(["it's", 'two words', '$(x)', 'new\nline', '-n', '*', '~', '日本', 'a=b', '!!', 'a\\'])(
      'a program whose own name is %j is found by it',
      async (name) => {
        const path = join(folder, name);
        symlinkSync(fixture('echo-argv'), path);
        expect(await echoed(['x', ''], path)).toEqual(['x', '']);
      },
    );

    test('a program is found along PATH, and relative to cwd when its name has a slash', async () => {
      expect((await rig.run(['true'])).exit).toEqual({ kind: 'exited', code: 0 });
      const { stdout } = await rig.run(['./echo-argv', 'x'], { cwd: FIXTURES });
      expect(parseEchoedArgv(stdout)).toEqual(['x']);
    });

    test('a name that begins with a dash is a program, not an option', async () => {
      expect((await rig.run(['-c', 'exit 3'])).exit).toEqual({ kind: 'exited', code: 127 });
    });

    test('a word that a shell knows as its own is looked up as a program', async () => {
      for (const word of ['exit', 'if', ':', 'alias', 'export']) {
        const { exit } = await rig.run([word, '0'], { env: { PATH: '/nowhere' } });
        expect({ word, exit }).toEqual({ word, exit: { kind: 'exited', code: 127 } });
      }
    });
  });

  describe('environment', () => {
    test.each(['two\nlines\n', '', ' ', `'"$(x)\`\\`, 'é😀', '-n', 'a=b=c', '\n', '%s\\n', '\u0001\u001b\u007f'])(
      'the value %j arrives as it was sent',
      async (value) => {
        expect(await environmentWith({ SOME_NAME: value })).toContain(`SOME_NAME=${value}`);
      },
    );

    test('any value arrives byte for byte', async () => {
      const anyEnv = fc.array(anyArgument, { minLength: 20, maxLength: 40, size: 'max' });
      await fc.assert(
        fc.asyncProperty(anyEnv, async (values) => {
          const env = Object.fromEntries(values.map((value, i) => [`V${i}`, value]));
          const expected = Object.entries(env).map(([name, value]) => `${name}=${value}`);
          expect(await environmentWith(env)).toEqual(expect.arrayContaining(expected));
        }),
        { numRuns: 10 },
      );
    });

    test.each(SPECIAL_NAMES)('%s has the value that was asked for, or the start fails', async (name) => {
      const asked = environmentWith({ [name]: 'asked for' }).catch((error: unknown) => error);
      const answer = await asked;
      if (answer instanceof SallyportError) {
        expect(answer.code).toBe('start_failed');
        expect(answer.message).toContain(name);
      } else
        expect((answer as string[]).filter((entry) => entry.startsWith(`${name}=`))).toEqual([`${name}=asked for`]);
    });

    test('PATH can be asked for, and is where the program is looked up', async () => {
      expect(await environmentWith({ PATH: '/usr/bin:/bin' })).toContain('PATH=/usr/bin:/bin');
      expect((await rig.run(['echo-argv'], { env: { PATH: `${FIXTURES}:/usr/bin:/bin` } })).exit).toMatchObject({
        code: 0,
      });
      expect((await rig.run(['true'], { env: { PATH: '/nowhere' } })).exit).toMatchObject({ code: 127 });
    });

    test('EXEC_ID is there, once, and nothing else is ours', async () => {
      const execId = randomUUID();
      const first = await environmentWith({}, execId);
      expect(first.filter((entry) => entry.startsWith('EXEC_ID='))).toEqual([`EXEC_ID=${execId}`]);
      // The runner sets these for this very process, as an operator sets secrets for the gateway.
      expect(process.env).toHaveProperty('VITEST');
      expect(first.filter((entry) => /^(\w*sallyport|vitest|node_|npm_)/i.test(entry))).toEqual([]);
      // What comes from a nonce or a counter of ours would differ.
      expect(await environmentWith({}, execId)).toEqual(first);
    });

    test('neither values nor stdin appear in any command line of the host', async () => {
      const canary = randomUUID();
      const program = await rig.start(['/bin/sh', '-c', 'cat >/dev/null; exec sleep 600'], {
        env: { SECRET: canary },
        stdin: Buffer.alloc(900_000, canary),
      });
      // The pid is told just before the shell becomes the program.
      await waitUntil('the program has its environment', () => environmentOf(program.pid).includes(`SECRET=${canary}`));
      expect(processTable().filter(({ args }) => args.some((arg) => arg.includes(canary)))).toEqual([]);
      expect(await program.kill()).toEqual([]);
    });

    test('a fixed PATH names only directories of the system', async () => {
      const { stdout } = await rig.run([fixture('echo-env'), 'PATH'], { fixedPath: true });
      expect(stdout.toString()).toMatch(/^\/(usr\/)?(local\/)?s?bin(:\/(usr\/)?(local\/)?s?bin)*$/);
    });
  });

  describe('directory', () => {
    test('cwd is where the program runs, whatever its name', async () => {
      const odd = join(folder, "it's -a \n $(dir)");
      symlinkSync('/usr', odd);
      for (const cwd of ['/', FIXTURES, odd]) {
        const { stdout } = await rig.run(['/bin/sh', '-c', 'readlink /proc/$$/cwd'], { cwd });
        expect(stdout.toString()).toBe(`${realpathSync(cwd)}\n`);
      }
    });

    test('without cwd it is the login directory', async () => {
      const { stdout } = await rig.run(['/bin/sh', '-c', 'readlink /proc/$$/cwd; cd; readlink /proc/$$/cwd']);
      const [here, home] = stdout.toString().split('\n');
      expect(here).toBe(home);
    });

    test.each([
      ['is missing', () => never()],
      ['is a file', () => fixture('echo-argv')],
    ])('a cwd that %s is a failed start, and nothing runs', async (_what, cwd) => {
      const marker = never();
      const error = await startFailure({ cwd: cwd() }, ['touch', marker]);
      expect(error).toMatchObject({ name: 'SallyportError', code: 'start_failed' });
      expect(existsSync(marker)).toBe(false);
    });
  });

  describe('what is no program', () => {
    test.each(['/nowhere/at-all', 'no-such-program-anywhere', './none'])('%s is exit code 127', async (name) => {
      expect((await rig.run([name])).exit).toEqual({ kind: 'exited', code: 127 });
    });

    test('a file that is not executable, and a directory, are exit code 126', async () => {
      const text = join(folder, 'text');
      writeFileSync(text, 'no program\n', { mode: 0o644 });
      expect((await rig.run([text])).exit).toEqual({ kind: 'exited', code: 126 });
      expect((await rig.run([folder])).exit).toEqual({ kind: 'exited', code: 126 });
    });
  });

  describe('the moment of starting', () => {
    test('pid is the program itself, running with its marker', async () => {
      const execId = randomUUID();
      const program = await rig.start(['sleep', '600'], { execId });
      await waitUntil('the shell has become the program', () =>
        processTable().some(({ pid, args }) => pid === program.pid && args.join(' ') === 'sleep 600'),
      );
      expect(carryingExecId(execId)).toEqual([program.pid]);
    });

    test('nothing is started before `committed`', async () => {
      const marker = never();
      const commit = deferred();
      const starting = rig.run(['touch', marker], { committed: commit.promise });
      // A whole other program has its turn meanwhile.
      await rig.run(['true']);
      expect(existsSync(marker)).toBe(false);
      commit.resolve();
      expect((await starting).exit).toEqual({ kind: 'exited', code: 0 });
      expect(existsSync(marker)).toBe(true);
    });

    test('when `committed` rejects, so does the start, with that error, and nothing ran', async () => {
      const [marker, execId, refusal] = [never(), randomUUID(), new Error('the row was not written')];
      const commit = deferred();
      const starting = startFailure({ committed: commit.promise, execId }, [
        '/bin/sh',
        '-c',
        `touch ${marker}; sleep 600`,
      ]);
      await rig.run(['true']);
      commit.reject(refusal);
      expect(await starting).toBe(refusal);
      await rig.run(['true']);
      expect(existsSync(marker)).toBe(false);
      expect(carryingExecId(execId)).toEqual([]);
    });

    test('a signal that has fired already rejects with its reason, and nothing ran', async () => {
      const [marker, reason] = [never(), new Error('the caller hung up')];
      expect(await startFailure({ signal: AbortSignal.abort(reason) }, ['touch', marker])).toBe(reason);
      await rig.run(['true']);
      expect(existsSync(marker)).toBe(false);
    });

    test('a signal that fires while the start waits for `committed` rejects with its reason, and nothing ran', async () => {
      const [marker, reason, abort] = [never(), new Error('the caller hung up'), new AbortController()];
      const commit = deferred();
      const starting = startFailure({ signal: abort.signal, committed: commit.promise }, ['touch', marker]);
      abort.abort(reason);
      commit.resolve();
      expect(await within('the start to be given up', starting)).toBe(reason);
      await rig.run(['true']);
      expect(existsSync(marker)).toBe(false);
    });

    test('a signal that fires while the program starts leaves it in the hands of the caller, or gone', async () => {
      for (let turns = 0; turns < 8; turns++) {
        const [execId, reason, abort] = [randomUUID(), new Error('the caller hung up'), new AbortController()];
        const starting = rig.start(['sleep', '600'], { execId, signal: abort.signal });
        for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
        abort.abort(reason);
        const outcome = await within(
          'the start to end',
          starting.then((program) => program.kill()).catch((e: unknown) => e),
        );
        expect(outcome === reason || JSON.stringify(outcome) === '[]').toBe(true);
        expect(carryingExecId(execId)).toEqual([]);
      }
    });

    test('a session that was closed starts nothing more: connection_lost', async () => {
      const session = await rig.open();
      session.close();
      expect(await within('the session to be closed', session.closed)).toBeNull();
      expect(await startFailure({ session }, ['true'])).toMatchObject({ code: 'connection_lost' });
    });

    test('the session takes as many programs at once as it says, each with its own output', async () => {
      const session = await rig.open();
      expect(session.capacity).toBeGreaterThan(0);
      const programs = await Promise.all(
        Array.from({ length: session.capacity }, (_, i) =>
          rig.start(['/bin/sh', '-c', `echo ${i}; echo error ${i} >&2; exec sleep 600`], { session }),
        ),
      );
      const firstLines = await Promise.all(programs.map((program) => readLines(program).lines(1)));
      expect(firstLines).toEqual(programs.map((_, i) => [String(i)]));
      expect(await Promise.all(programs.map((program) => program.kill()))).toEqual(programs.map(() => []));
      expect(await Promise.all(programs.map((program) => exitOf(program)))).toEqual(
        programs.map(() => ({ kind: 'signaled', signal: 'TERM' })),
      );
    });
  });
}
