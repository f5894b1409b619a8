/** What the parts of the suite share: a session, programs on it, and nothing left behind. */
import { createHash, randomUUID } from 'node:crypto';
import * as fc from 'fast-check';
import { afterAll, afterEach, beforeAll } from 'vitest';
import type { Exit, OutputChunk, Process, Session, StartSpec } from '../../../src/sessions/session.ts';
import { killCarrying } from '../../support/processes.ts';
import { within } from '../../support/wait.ts';
import quoting from '../../vectors/argv-quoting.json' with { type: 'json' };

/** The host behind the session is this machine: the suite looks at its process table and its files. */
export interface Opened {
  session: Session;
  /** Ends the session and whatever was made for it. Safe after `session.close()`. */
  close(): Promise<void>;
}

export type Open = () => Promise<Opened>;
export type Argv = StartSpec['argv'];
type Options = Partial<Omit<StartSpec, 'argv'>> & {
  session?: Session;
  signal?: AbortSignal;
  committed?: Promise<unknown>;
};

export interface Finished {
  exit: Exit;
  stdout: Buffer;
  stderr: Buffer;
}

export interface Rig {
  /** Shared by the tests of a file: opening costs more than most of them. */
  readonly session: Session;
  /** One more session, closed after the test. */
  open(): Promise<Session>;
  start(argv: Argv, options?: Options): Promise<Process>;
  /** Starts, reads everything, waits for the end. */
  run(argv: Argv, options?: Options): Promise<Finished>;
}

/** Call inside a `describe`. Programs a test left are killed after it, by their marker. */
export function createRig(open: Open): Rig {
  let shared: Opened | null = null;
  const perTest: Opened[] = [];
  const started: Process[] = [];
  const execIds: string[] = [];

  const rig: Rig = {
    get session() {
      if (shared === null) throw new Error('bug: the session is opened by the hooks of the suite');
      return shared.session;
    },
    async open() {
      const opened = await open();
      perTest.push(opened);
      return opened.session;
    },
    async start(argv, { session, signal, committed, ...spec } = {}) {
      const execId = spec.execId ?? randomUUID();
      execIds.push(execId);
      const program = await (session ?? rig.session).start(
        { env: {}, cwd: null, stdin: null, fixedPath: false, ...spec, execId, argv },
        { signal: signal ?? new AbortController().signal, committed: committed ?? Promise.resolve() },
      );
      started.push(program);
      return program;
    },
    async run(argv, options) {
      const program = await rig.start(argv, options);
      const [output, exit] = await Promise.all([collect(program.output), exitOf(program)]);
      program.release();
      return { exit, ...output };
    },
  };

  beforeAll(async () => {
    shared = await open();
  });
  afterEach(async () => {
    for (const program of started.splice(0)) program.release();
    for (const execId of execIds.splice(0)) killCarrying(execId);
    for (const opened of perTest.splice(0)) await opened.close();
  });
  afterAll(() => shared?.close());
  return rig;
}

export function exitOf(program: Process, withinMs = 15_000): Promise<Exit> {
  return within('the exit of the program', program.exit, withinMs);
}

export async function collect(output: AsyncIterable<OutputChunk>): Promise<{ stdout: Buffer; stderr: Buffer }> {
  const parts: Record<OutputChunk['stream'], Buffer[]> = { stdout: [], stderr: [] };
  for await (const { stream, bytes } of output) parts[stream].push(bytes);
  return { stdout: Buffer.concat(parts.stdout), stderr: Buffer.concat(parts.stderr) };
}

/** Counts and digests of output that is too big to keep. */
export async function digest(output: AsyncIterable<OutputChunk>): Promise<Record<OutputChunk['stream'], string>> {
  const hashes = { stdout: createHash('sha256'), stderr: createHash('sha256') };
  for await (const { stream, bytes } of output) hashes[stream].update(bytes);
  return { stdout: hashes.stdout.digest('hex'), stderr: hashes.stderr.digest('hex') };
}

export interface LineReader {
  /** The next `count` lines of stdout; fails when the output ends before. */
  lines(count: number): Promise<string[]>;
  /** The rest of stdout, to its end. */
  rest(): Promise<string>;
}

/** For programs that say when they are ready and then run on. The one reader of the output. */
export function readLines(program: Process): LineReader {
  const chunks = program.output[Symbol.asyncIterator]();
  let text = '';
  const pull = async (): Promise<boolean> => {
    const { done, value } = await within('output of the program', chunks.next(), 15_000);
    if (done === true) return false;
    if (value.stream === 'stdout') text += value.bytes.toString();
    return true;
  };
  return {
    async lines(count) {
      while (text.split('\n').length <= count) {
        if (!(await pull())) throw new Error(`the output ended early, after ${JSON.stringify(text)}`);
      }
      const lines = text.split('\n');
      text = lines.slice(count).join('\n');
      return lines.slice(0, count);
    },
    async rest() {
      while (await pull());
      return text;
    },
  };
}

export async function readPids(program: Process, count: number): Promise<number[]> {
  return (await readLines(program).lines(count)).map(Number);
}

/** Arguments as echo-argv gives them back. */
export function parseEchoedArgv(stdout: Buffer): string[] {
  const [count, ...args] = stdout.toString().split('\0').slice(0, -1);
  if (Number(count) !== args.length) throw new Error(`echo-argv counted ${count}, ${args.length} arrived`);
  return args;
}

/** Any text that argv can carry: every code point but NUL, whole characters only. */
export const anyArgument = fc
  .oneof(
    fc.string({ unit: 'binary', maxLength: 40 }),
    fc.string({ unit: fc.constantFrom(...` \t\n\r'"\\$\`!*?[]{}()<>|&;#~=%^-\0aé😀`), maxLength: 24 }),
    fc.constantFrom(...quoting.map(({ text }) => text)),
  )
  .map((text) => text.replaceAll('\0', ''));
