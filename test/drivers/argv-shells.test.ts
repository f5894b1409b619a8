/**
 * argv arrives byte for byte whatever the login shell is: through the lab's SSH servers, and through a real sshd with
 * users made for it, whose rc files print noise besides.
 */
import { execFileSync } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { quote } from '../../src/drivers/shell-quote.ts';
import type { Session } from '../../src/sessions/session.ts';
import { exec, pushKey, sshConnect } from '../lab/dial.ts';
import { copyFixturesForEverybody } from '../support/fixtures.ts';
import { type TestLab, withLab } from '../support/lab.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { requireProgram, requireRoot, requireSshd } from '../support/requirements.ts';
import { newKeyPair } from '../support/ssh-keys.ts';
import { closeSession, logIn } from '../support/ssh-login.ts';
import { type Sshd, startSshd } from '../support/sshd.ts';
import quoting from '../vectors/argv-quoting.json' with { type: 'json' };
import { anyArgument, collect, parseEchoedArgv } from './contract/rig.ts';

failOnLeaks();

interface LoginShell {
  path: string;
  debianPackage: string;
  /** Read by it also for a command that sshd hands it; below the home directory. */
  rcFiles: string[];
}

const SHELLS: LoginShell[] = [
  { path: '/bin/sh', debianPackage: 'dash', rcFiles: [] },
  { path: '/bin/dash', debianPackage: 'dash', rcFiles: [] },
  { path: '/bin/bash', debianPackage: 'bash', rcFiles: ['.bashrc'] },
  { path: '/usr/bin/zsh', debianPackage: 'zsh', rcFiles: ['.zshenv'] },
  { path: '/usr/bin/tcsh', debianPackage: 'tcsh', rcFiles: ['.tcshrc'] },
  { path: '/usr/bin/fish', debianPackage: 'fish', rcFiles: ['.config/fish/config.fish'] },
];
/** Means the same to all of them. */
const NOISE = `echo "noise of an rc file"\nsh -c 'echo noise on stderr >&2'\n`;

const fixtures = copyFixturesForEverybody();
afterAll(() => rmSync(fixtures, { recursive: true }));

// Where a shell or sshd is missing, the requirement says so aloud and fails where skips are forbidden.
const installed = SHELLS.filter(({ path, debianPackage }) => requireProgram(path, debianPackage));

test.each(quoting)('the vector "$what" is one word to a POSIX shell', ({ text, quoted }) => {
  expect(quote(text)).toBe(quoted);
  expect(execFileSync('/bin/sh', ['-c', `printf '%s' ${quoted}`]).toString()).toBe(text);
});

describe.each(installed)('through $path', ({ path, rcFiles }) => {
  describe('as the login shell of a lab instance', () => {
    let host: TestLab;
    let session: Session;
    beforeAll(async () => {
      host = await withLab({ instances: 1, specs: [{ shell: path }] });
      const [instance] = host.lab.instances;
      if (instance === undefined) throw new Error('bug: the lab was asked for one instance');
      const { publicKey, privateKey } = newKeyPair();
      await pushKey(host.lab, { instanceId: instance.id, osUser: instance.osUser, publicKey });
      session = await logIn({ port: instance.sshPort, username: instance.osUser, privateKey });
    });
    afterAll(async () => {
      await closeSession(session);
      await host.stop();
    });
    everythingArrives(() => session);
  });

  describe.skipIf(!requireSshd() || !requireRoot())(
    'as the login shell of a user of a real sshd, with noisy rc files',
    () => {
      let sshd: Sshd;
      let user: { name: string; remove(): void };
      let session: Session;
      beforeAll(async () => {
        // At the top level, where bash reads ~/.bashrc for a command too.
        sshd = await startSshd(['SetEnv SHLVL=0']);
        user = makeUser(path, rcFiles);
        session = await logIn({ ...sshd, username: user.name });
      });
      afterAll(async () => {
        await closeSession(session);
        await sshd.stop();
        user.remove();
      });
      everythingArrives(() => session);

      test('what sshd hands to that shell is preceded by noise', async () => {
        expect(execFileSync('getent', ['passwd', user.name]).toString()).toContain(`:${path}\n`);
        const plain = await sshConnect({ port: sshd.port, username: user.name, privateKey: sshd.privateKey });
        const { stdout, stderr } = await exec(plain, 'echo plain');
        plain.end();
        const noisy = rcFiles.length > 0;
        expect([stdout.toString(), stderr.toString()]).toEqual([
          noisy ? 'noise of an rc file\nplain\n' : 'plain\n',
          noisy ? 'noise on stderr\n' : '',
        ]);
      });
    },
  );
});

function everythingArrives(session: () => Session): void {
  async function echoed(
    args: readonly string[],
    env: Record<string, string> = {},
  ): Promise<{ argv: string[]; stderr: string }> {
    const program = await session().start(
      {
        execId: randomUUID(),
        argv: [join(fixtures, 'echo-argv'), ...args],
        env,
        cwd: null,
        stdin: null,
        fixedPath: false,
      },
      { signal: AbortSignal.timeout(15_000), committed: Promise.resolve() },
    );
    const { stdout, stderr } = await collect(program.output);
    program.release();
    return { argv: parseEchoedArgv(stdout), stderr: stderr.toString() };
  }

  test('the quoting vectors arrive as they were sent, and nothing of the shell comes with them', async () => {
    const args = quoting.map(({ text }) => text);
    expect(await echoed(args)).toEqual({ argv: args, stderr: '' });
  });

  test('any list of arguments arrives byte for byte', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyArgument, { minLength: 40, maxLength: 100, size: 'max' }), async (args) => {
        expect((await echoed(args)).argv).toEqual(args);
      }),
      { numRuns: 5 },
    );
  });

  test('one argument of 100,000 bytes arrives whole', async () => {
    const long = `${"it's\n$(x) ".repeat(10_000)}`;
    expect((await echoed([long])).argv).toEqual([long]);
  });
}

/** A user with that login shell whose rc files print on both streams. */
function makeUser(shell: string, rcFiles: readonly string[]): { name: string; remove(): void } {
  const name = `sallyport-${randomBytes(4).toString('hex')}`;
  const home = mkdtempSync(join(tmpdir(), `${name}-`));
  chmodSync(home, 0o755);
  for (const file of rcFiles) {
    mkdirSync(dirname(join(home, file)), { recursive: true });
    writeFileSync(join(home, file), NOISE);
  }
  // Not `!`, which useradd would write: sshd takes that for a locked account.
  execFileSync('useradd', ['--home-dir', home, '--no-create-home', '--shell', shell, '--password', '*', name]);
  execFileSync('chown', ['-R', name, home]);
  return {
    name,
    remove() {
      execFileSync('userdel', ['--force', name], { stdio: 'pipe' });
      rmSync(home, { recursive: true });
    },
  };
}
