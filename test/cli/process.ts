/** The command line as a real process, against a scripted gateway. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { PassThrough, type Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { beforeAll } from 'vitest';
import { runCli, type ServerVerb } from '../../src/cli/cli.ts';
import type { Io } from '../../src/cli/io.ts';
import { builtProgram } from '../support/program.ts';

const ENTRY = fileURLToPath(new URL('entry.mjs', import.meta.url));
/** Known when the tests run. */
let words: string[] = [];
// Starting from the sources would take three times the CPU.
beforeAll(async () => {
  words = [process.execPath, ENTRY, join(dirname(await builtProgram()), 'gateway')];
});

export interface Ended {
  code: number | null;
  stdout: Buffer;
  stderr: string;
}

export interface Running {
  child: ChildProcess;
  /** Resolves with the first byte on stdout. */
  firstOutput: Promise<void>;
  /** Resolves with stderr as soon as it matches. */
  stderrMatches(pattern: RegExp): Promise<string>;
  ended: Promise<Ended>;
}

export interface Start {
  url?: string;
  env?: Readonly<Record<string, string>>;
  /** A number is an open file descriptor. Default: /dev/null. */
  stdin?: 'ignore' | 'pipe' | number;
  /** Leave stdout unread. */
  unread?: boolean;
}

export function startCli(args: readonly string[], how: Start = {}): Running {
  return startProgram([...words, ...args], how);
}

/** `$0` is the command line; its arguments are whatever the script gives it. */
export function startShell(script: string, how: Start = {}): Running {
  return startProgram(['/bin/sh', '-c', script.replaceAll('$0', words.map((word) => `'${word}'`).join(' '))], how);
}

function startProgram([command = '', ...args]: readonly string[], how: Start): Running {
  const env = { PATH: process.env.PATH, ...settings(how) };
  const child: ChildProcess = spawn(command, args, { env, stdio: [how.stdin ?? 'ignore', 'pipe', 'pipe'] });
  const out = child.stdout as Readable;
  const err = child.stderr as Readable;
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  const firstOutput = once(out, 'readable').then(() => undefined);
  if (how.unread !== true) out.on('data', (chunk: Buffer) => stdout.push(chunk));
  err.on('data', (chunk: Buffer) => stderr.push(chunk));
  const errors = () => Buffer.concat(stderr).toString('utf8');
  return {
    child,
    firstOutput,
    stderrMatches: (pattern) =>
      new Promise((resolve) => {
        const look = () => {
          if (pattern.test(errors())) resolve(errors());
        };
        err.on('data', look);
        look();
      }),
    // With stdout unread or destroyed there is no `close`.
    ended: once(child, how.unread === true ? 'exit' : 'close').then(([code]) => ({
      code: code as number | null,
      stdout: Buffer.concat(stdout),
      stderr: errors(),
    })),
  };
}

export function cli(args: readonly string[], how: Start = {}): Promise<Ended> {
  return startCli(args, how).ended;
}

/** The same in this process: for what does not depend on being one. Standard input is /dev/null. */
export async function cliHere(
  args: readonly string[],
  how: Pick<Start, 'url' | 'env'> & Partial<Pick<Io, 'onSignal'>> = {},
  serverVerbs: Record<string, ServerVerb> = {},
): Promise<Ended> {
  const { onSignal = () => () => {} } = how;
  const fd = openSync('/dev/null', 'r');
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const stdin = new PassThrough();
  const collected = Promise.all([stdout.toArray(), stderr.toArray()]);
  try {
    const code = await runCli(args, { stdin, stdinFd: fd, stdout, stderr, env: settings(how), onSignal }, serverVerbs);
    stdout.end();
    stderr.end();
    const [out, err] = await collected;
    return { code, stdout: Buffer.concat(out), stderr: Buffer.concat(err).toString('utf8') };
  } finally {
    closeSync(fd);
  }
}

function settings({ url, env }: Pick<Start, 'url' | 'env'>): Record<string, string | undefined> {
  return { SALLYPORT_URL: url, SALLYPORT_TOKEN: 'secret', ...env };
}
