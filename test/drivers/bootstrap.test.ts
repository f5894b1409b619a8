import { spawnSync } from 'node:child_process';
import { mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  BOOTSTRAP,
  type BootstrapSpec,
  fitsLoginShell,
  LOGIN_SHELL,
  parseAnswer,
  READ_PREAMBLE,
  refusalText,
  writePreamble,
} from '../../src/drivers/bootstrap.ts';

const dir = mkdtempSync(join(tmpdir(), 'bootstrap-'));
const spec = (part: Partial<BootstrapSpec>): BootstrapSpec => ({
  argv: ['true'],
  env: {},
  cwd: null,
  execId: 'exec-1',
  fixedPath: false,
  ...part,
});

interface Login {
  shell?: string;
  command?: string;
  stdin?: string;
  env?: Record<string, string>;
  reader?: 'sh' | 'bash';
}

/** Runs the constant command line under a login shell, as sshd would. */
function start(part: Partial<BootstrapSpec>, login: Login = {}) {
  const { reader = 'sh', stdin = '', env = {} } = login;
  const { shell = reader === 'sh' ? '/bin/sh' : 'bash', command = reader === 'sh' ? BOOTSTRAP : LOGIN_SHELL } = login;
  const { line, nonce } = writePreamble(spec(part), reader);
  const done = spawnSync(shell, ['-c', command], {
    input: Buffer.concat([line, Buffer.from(stdin)]),
    env: { PATH: process.env.PATH, HOME: dir, ...env },
  });
  const stdout = done.stdout.toString();
  const stderr = done.stderr.toString();
  const at = stdout.indexOf(nonce);
  const end = stdout.indexOf('\n', at);
  return {
    answer: at === -1 ? null : parseAnswer(stdout.slice(at + nonce.length, end)),
    output: at === -1 ? stdout : stdout.slice(end + 1),
    errors: stderr.replace(`${nonce}\n`, ''),
    status: done.status,
    answeredOnStderr: stderr.includes(`${nonce}\n`),
  };
}

describe('bootstrap', () => {
  it('is one constant line of ASCII', () => {
    expect(BOOTSTRAP).toMatch(/^exec \/bin\/sh -c '[\x20-\x26\x28-\x7e]+'[\x20-\x26\x28-\x7e]+$/);
  });

  it.each(['sh', 'dash', 'bash', 'zsh', 'tcsh', 'fish'])(
    'starts the program with its exact arguments under %s',
    (shell) => {
      const argv: [string, ...string[]] = [
        'printf',
        '[%s]',
        "it's",
        '$HOME',
        '`id`',
        'a\nb\n',
        '!!',
        '\\n',
        '*',
        '',
        '-n',
        'ü€😀',
        '\u0081',
      ];
      const { output, answer, answeredOnStderr } = start({ argv }, { shell });
      expect(output).toBe(
        argv
          .slice(2)
          .map((word) => `[${word}]`)
          .join(''),
      );
      expect(answer).toMatchObject({ kind: 'ok' });
      expect(answeredOnStderr).toBe(true);
    },
  );
});

describe.each(['sh', 'bash'] as const)('a preamble read by %s', (reader) => {
  const run = (part: Partial<BootstrapSpec>, login: Login = {}) => start(part, { reader, ...login });

  it('tells pid, session and start time of the program itself', () => {
    const { answer, output } = run({ argv: ['sh', '-c', 'cat /proc/$$/stat'] });
    const fields = output.slice(output.lastIndexOf(')') + 2).split(' ');
    expect(answer).toMatchObject({
      kind: 'ok',
      pid: Number(output.split(' ')[0]),
      stat: { sid: Number(fields[3]), startTicks: fields[19] },
    });
  });

  it('leaves standard input untouched behind its line', () => {
    expect(run({ argv: ['cat'] }, { stdin: 'first\nsecond' }).output).toBe('first\nsecond');
  });

  it('adds EXEC_ID and what was asked for, and nothing else', () => {
    const env = { A: "x'y\nz", sallyport: 'mine', EMPTY: '' };
    const { output } = run({ argv: ['env', '-0'], env });
    const login = spawnSync(reader, ['-c', 'exec env -0'], { env: { PATH: process.env.PATH, HOME: dir } });
    const listed = (text: string): string[] => text.split('\0').filter(Boolean).sort();
    const added = listed(output).filter((entry) => !listed(login.stdout.toString()).includes(entry));
    expect(added.sort()).toEqual(["A=x'y\nz", 'EMPTY=', 'EXEC_ID=exec-1', 'sallyport=mine']);
  });

  it('gives a token with rules a PATH of its own', () => {
    const { output } = run(
      { argv: ['sh', '-c', 'echo $PATH'], fixedPath: true },
      { env: { PATH: `/evil:${process.env.PATH}` } },
    );
    expect(output).toBe('/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n');
  });

  it.each([
    ['a directory that is not there', '/no/such/dir', 'cwd does not exist on the host'],
    ['a file', '/etc/passwd', 'cwd is not a directory on the host'],
  ])('refuses %s as cwd, and starts nothing', (_name, cwd, text) => {
    const { answer, output } = run({ argv: ['echo', 'ran'], cwd });
    expect(answer?.kind === 'no' && refusalText(answer.reason)).toBe(text);
    expect(output).toBe('');
  });

  it('enters a directory whose name looks like an option or holds a newline', () => {
    const odd = mkdtempSync(join(dir, '-P \n'));
    expect(run({ argv: ['pwd'], cwd: odd }).output).toBe(`${odd}\n`);
  });

  it('names the variable that a shell does not allow to be set', () => {
    // bash makes UID read-only; as sh it ends at a failing export by itself.
    const shell = join(mkdtempSync(join(dir, 'bash-')), reader);
    symlinkSync('/bin/bash', shell);
    const { line, nonce } = writePreamble(spec({ argv: ['echo', 'ran'], env: { A: '1', UID: '5' } }), reader);
    const command = reader === 'sh' ? READ_PREAMBLE : LOGIN_SHELL;
    const done = spawnSync(shell, ['-c', command], { input: line });
    const answer = parseAnswer(done.stdout.toString().trimEnd().slice(nonce.length));
    expect(answer).toEqual({ kind: 'no', reason: 'env UID' });
    expect(refusalText('env UID')).toContain('UID');
  });

  it('refuses arguments and environment that the kernel does not take, before it answers', () => {
    const { answer, output } = run({ argv: ['echo', 'ran'], env: { BIG: 'x'.repeat(140_000) } });
    expect(answer).toEqual({ kind: 'no', reason: 'too-long' });
    expect(output).toBe('');
  });

  it('takes one argument of the largest size', () => {
    const { output } = run({ argv: ['sh', '-c', 'printf %s "$0" | wc -c', 'x'.repeat(131_071)] });
    expect(Number(output)).toBe(131_071);
  });

  it.each([
    ['a program that is not there', ['no-such-program'], 127],
    ['a directory', ['/etc'], 126],
    ['a name that looks like an option', ['-x'], 127],
  ] as const)('leaves %s to the shell', (_name, argv, status) => {
    expect(run({ argv })).toMatchObject({ status, answer: { kind: 'ok' } });
  });
});

describe('what stands before the answer', () => {
  it('a forced command that echoes its input is no answer', () => {
    expect(start({}, { command: 'cat' }).answer).toBeNull();
  });

  it('noise before the answer is not part of the output', () => {
    const noisy = join(dir, 'noisy');
    writeFileSync(noisy, '#!/bin/sh\nprintf "welcome to "; printf "warning " >&2; exec /bin/sh "$@"\n', {
      mode: 0o755,
    });
    expect(start({ argv: ['echo', 'x'] }, { shell: noisy })).toMatchObject({ output: 'x\n', answer: { kind: 'ok' } });
  });
});

describe('a login shell that is bash', () => {
  const bashSays = (env: Record<string, string>, shell = 'bash') =>
    start({}, { shell, env }).answer as { fromBash?: boolean } | null;

  it('is told from others, and from others that call themselves so', () => {
    expect(bashSays({ SHELL: '/bin/bash' })).toMatchObject({ fromBash: true });
    expect(bashSays({ SHELL: '/usr/bin/fish' })).toMatchObject({ fromBash: false });
    for (const shell of ['dash', 'tcsh', 'fish'])
      expect(bashSays({ SHELL: '/bin/bash' }, shell)).toMatchObject({ fromBash: false });
  });

  it.each(['dash', 'zsh'])('hands on to /bin/sh where it is %s after all', (shell) => {
    const { output, answer } = start({ argv: ['echo', 'a\nb', "it's Z:;"] }, { reader: 'bash', shell });
    expect(output).toBe("a\nb it's Z:;\n");
    expect(answer).toMatchObject({ kind: 'ok' });
  });

  it.each(['en_US.UTF-8', 'C.UTF-8', 'C', 'POSIX'])('reads as much as was sent under the locale %s', (locale) => {
    const argv: [string, ...string[]] = ['sh', '-c', 'printf %s "$0"; cat', `~'"\\${'x'.repeat(3_000)}\n\x01\x7f`];
    const login = { reader: 'bash', stdin: 'ünd\nmore', env: { LC_ALL: locale } } as const;
    expect(start({ argv }, login).output).toBe(`${argv[3]}${login.stdin}`);
  });

  it('gets nothing but ASCII: of other text it could not tell the length', () => {
    expect(fitsLoginShell(spec({ argv: ['echo', 'a\n\x7f'], env: { A: '~' }, cwd: '/tmp' }))).toBe(true);
    for (const part of [{ argv: ['echo', 'ü'] as const }, { env: { A: '\u0080' } }, { cwd: '/é' }])
      expect(fitsLoginShell(spec(part as Partial<BootstrapSpec>))).toBe(false);
    expect(() => writePreamble(spec({ argv: ['echo', 'ü'] }), 'bash')).toThrow('ASCII');
  });

  it('does what is asked whatever its rc files did to it', () => {
    const rc = join(dir, 'hostile');
    const hostile = [
      'cd() { echo hijacked; }; exec() { echo hijacked; }; export() { :; }; trap() { :; }',
      "builtin trap 'echo noise' DEBUG EXIT ERR; shopt -s expand_aliases; alias printf='echo hijacked'",
      'set -aeux -o functrace',
    ];
    writeFileSync(rc, hostile.join('\n'));
    const env = { BASH_ENV: rc };
    const argv: [string, ...string[]] = ['sh', '-c', 'pwd; echo $A; env | grep -c "^[ens][0-9a-f]*="; false'];
    const { output, status, errors } = start({ argv, cwd: '/tmp', env: { A: '1' } }, { reader: 'bash', env });
    expect({ output, status }).toEqual({ output: '/tmp\n1\n0\n', status: 1 });
    expect(errors.split('\n').at(-1)).toBe('');
  });
});
