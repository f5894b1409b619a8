/**
 * The program as people run it: built like `npm run build` builds it, started as a process of its own.
 *
 * It gets PATH and what a test gives it, nothing of this process' environment.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { inject } from 'vitest';
import { processTable } from './processes.ts';
import { waitUntil } from './wait.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const BUILD_MAX_MS = 60_000;

/** Path of `dist/main.js`, built once per test run: the first file that asks builds, others wait for it. About 2 s. */
export async function builtProgram(): Promise<string> {
  const root = join(inject('runFolder'), 'program');
  const main = join(root, 'dist', 'main.js');
  const isMine = await mkdir(root).then(
    () => true,
    () => false, // another file builds, or has built
  );
  if (isMine) await build(root);
  const done = join(root, 'package.json');
  await waitUntil('the program is built', () => existsSync(done), BUILD_MAX_MS);
  return main;
}

async function build(root: string): Promise<void> {
  const args = [join(ROOT, 'infra/build.js'), join(root, 'dist')];
  // Types are checked by `npm run check`; what matters here is that there is a program.
  await promisify(execFile)(process.execPath, args, { cwd: ROOT }).catch((error: Error) => {
    if (!existsSync(join(root, 'dist', 'gateway', 'serve.js'))) throw error;
  });
  // What dist/ expects beside it; the last one says that all is there.
  for (const name of ['node_modules', 'package.json']) await symlink(join(ROOT, name), join(root, name));
}

export interface Ended {
  /** Null: killed by a signal. */
  code: number | null;
  stdout: Buffer;
  stderr: string;
}

export interface Program {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly stdin: Writable;
  /** So far. */
  stdout(): string;
  stderr(): string;
  /** Resolves with the match as soon as stdout has one; rejects when the program ends without. */
  says(pattern: RegExp, withinMs?: number): Promise<RegExpExecArray>;
  /** Resolves when it has exited and both outputs have ended. */
  readonly ended: Promise<Ended>;
  kill(signal: NodeJS.Signals): void;
}

export interface StartOptions {
  env?: Readonly<Record<string, string>>;
  /** Default: /dev/null. */
  stdin?: 'ignore' | 'pipe';
  cwd?: string;
}

/** Starts `sallyport <args>`. Whoever starts it ends it, or waits for its end. */
export async function startProgram(args: readonly string[], options: StartOptions = {}): Promise<Program> {
  return startCommand([process.execPath, await builtProgram(), ...args], options);
}

/** Runs `sallyport <args>` to its end. */
export async function runProgram(args: readonly string[], options: StartOptions = {}): Promise<Ended> {
  return await (await startProgram(args, options)).ended;
}

/** Runs another program for Node to its end. */
export async function runNode(args: readonly string[], options: StartOptions = {}): Promise<Ended> {
  return await startCommand([process.execPath, ...args], options).ended;
}

function startCommand(
  [file = '', ...args]: readonly string[],
  { env = {}, stdin = 'ignore', cwd }: StartOptions,
): Program {
  const child: ChildProcess = spawn(file, args, {
    env: { PATH: process.env.PATH, ...env },
    stdio: [stdin, 'pipe', 'pipe'],
    ...(cwd === undefined ? {} : { cwd }),
  });
  const [stdout, stderr] = [collect(child.stdout), collect(child.stderr)];
  let isOver = false;
  const ended = once(child, 'close').then(([code]) => {
    isOver = true;
    return { code: code as number | null, stdout: stdout(), stderr: stderr().toString() };
  });
  return {
    child,
    pid: child.pid ?? 0,
    stdin: child.stdin as Writable,
    stdout: () => stdout().toString(),
    stderr: () => stderr().toString(),
    async says(pattern, withinMs = 30_000) {
      const { match } = await waitUntil(
        `the program says ${pattern}`,
        () => {
          const found = pattern.exec(stdout().toString());
          if (found !== null) return { match: found };
          if (isOver) throw new Error(`the program ended without saying ${pattern}: ${stderr().toString()}`);
          return null;
        },
        withinMs,
      );
      return match;
    },
    ended,
    kill: (signal) => void child.kill(signal),
  };
}

function collect(stream: Readable | null): () => Buffer {
  const chunks: Buffer[] = [];
  stream?.on('data', (chunk: Buffer) => chunks.push(chunk));
  return () => Buffer.concat(chunks);
}

/** Pids of everything below a process, at any depth. */
export function descendantsOf(pid: number): number[] {
  const table = processTable();
  const found: number[] = [];
  for (let parents = [pid]; parents.length > 0; ) {
    parents = table.filter(({ parent }) => parents.includes(parent)).map((row) => row.pid);
    found.push(...parents);
  }
  return found;
}
