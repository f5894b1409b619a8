/**
 * The rules of stdout, stderr and exit code, for every verb.
 *
 * - stdout is the program's own bytes, the table or the one JSON document that was asked for. Nothing of ours, ever.
 * - stderr is the program's, and our notes, each a line that begins with `sallyport: `. No colours anywhere.
 * - Text from the gateway is printed with its control characters escaped; a program's own output is not touched.
 * - Exit codes of `exec` come from the table of outcomes. Other verbs: 0 done, 1 failed, 2 wrong usage.
 * - A reader that closes our stdout (`| head`) ends every verb quietly with 141, which is what a shell shows for a program
 *   that SIGPIPE killed: what users of `git`, `ssh` and `kubectl` in a pipeline already know. Not by the signal itself: Node
 *   ignores it, and an exec has a program to end, a server a database to close. A verb that found something wrong says so.
 */
import { once } from 'node:events';
import { NoAnswerError, ProblemError, UnfinishedStreamError } from '../client/problem.ts';
import { SallyportError } from '../errors.ts';
import { OUTCOMES, type Outcome } from '../outcome.ts';
import type { Io } from './io.ts';

export const EXIT = {
  failed: 1,
  usage: 2,
  /** exec only: refused, or failed before the program started. */
  notStarted: 125,
  interrupted: 130,
  readerGone: 141,
  terminated: 143,
  /** exec only: how the program ended, or what it wrote, is not known here. */
  lost: 255,
} as const;

type StreamName = 'stdout' | 'stderr';

export interface Output {
  /** Resolves when there is room for more. Never rejects: see `broken`. */
  write(name: StreamName, bytes: Uint8Array | string): Promise<void>;
  /** One line on stderr, made safe. */
  note(text: string): void;
  /** One document on one line of stdout. */
  json(document: unknown): Promise<void>;
  table(header: readonly string[], rows: readonly (readonly string[])[]): Promise<void>;
  /** Resolves when everything has left the process or cannot. */
  flush(): Promise<void>;
  /** Aborted when stdout or stderr takes nothing more; the reason is its error, with `code` EPIPE when the reader is gone. */
  readonly broken: AbortSignal;
}

export function createOutput(io: Pick<Io, 'stdout' | 'stderr'>): Output {
  const breaking = new AbortController();
  const broken = breaking.signal;
  const used = new Set<StreamName>();
  const dead = new Set<StreamName>();

  // Node makes its streams on first use, a millisecond each: most programs leave stderr alone.
  function use(name: StreamName): NodeJS.WritableStream {
    if (used.has(name)) return io[name];
    used.add(name);
    return io[name].on('error', (error: Error) => {
      dead.add(name);
      breaking.abort(error);
    });
  }

  async function write(name: StreamName, bytes: Uint8Array | string): Promise<void> {
    if (dead.has(name) || use(name).write(bytes)) return;
    await once(io[name], 'drain', { signal: broken }).catch(() => {}); // broken: nothing is worth waiting for
  }

  async function settle(name: StreamName): Promise<void> {
    if (dead.has(name)) return;
    await new Promise<void>((resolve) => {
      io[name].once('error', () => resolve());
      io[name].write('', () => resolve());
    });
  }

  return {
    write,
    note: (text) => void write('stderr', `sallyport: ${neutralise(text)}\n`),
    json: (document) => write('stdout', `${jsonLine(document)}\n`),
    table: (header, rows) => write('stdout', formatTable(header, rows)),
    flush: async () => void (await Promise.all([...used].map(settle))),
    broken,
  };
}

/** Control characters, and what turns the direction of text, as visible escapes: a server cannot drive our terminal. */
export function neutralise(text: string): string {
  return text.replace(UNSAFE, escapeUnit);
}

/** The same for text of several lines, which stay lines. */
export function neutraliseLines(text: string): string {
  return text.split('\n').map(neutralise).join('\n');
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what this is about
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

function escapeUnit(unit: string): string {
  if (unit === '\n') return '\\n';
  if (unit === '\t') return '\\t';
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

/** The escapes are JSON's own, so the document stays the same document. */
function jsonLine(document: unknown): string {
  return neutralise(JSON.stringify(document));
}

function formatTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [header, ...rows].map((row) => row.map(neutralise));
  const widths = header.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)));
  return lines
    .map((line) => line.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  '))
    .map((line) => `${line.trimEnd()}\n`)
    .join('');
}

/** How `exec` ends after a failure. */
export function execExitOf(error: unknown): number {
  if (error instanceof UnfinishedStreamError) return EXIT.lost;
  if (error instanceof NoAnswerError) return error.wasSent ? EXIT.lost : EXIT.notStarted;
  if (!(error instanceof ProblemError)) return EXIT.notStarted;
  // Something in front of the gateway gave up: the program may be running.
  if (error.code === null) return error.status >= 500 ? EXIT.lost : EXIT.notStarted;
  return exitOfFailure(error.problem.outcome, error.code) ?? EXIT.notStarted;
}

/** By outcome; a problem without one says by its code which outcome it stands for. Null: neither word is known. */
export function exitOfFailure(outcome: string | undefined, code: string): number | null {
  const row =
    outcome !== undefined && Object.hasOwn(OUTCOMES, outcome)
      ? OUTCOMES[outcome as Outcome]
      : Object.values(OUTCOMES).find((candidate) => candidate.code === code);
  return row?.cliExit ?? null;
}

/** A failure in one or two lines on stderr. */
export function noteFailure(output: Output, error: unknown): void {
  const message = error instanceof Error ? error.message : String(error);
  noteProblem(output, message, error instanceof ProblemError ? { ...error.problem, exec_id: error.execId } : {});
  if (error instanceof SallyportError && error.details.remedy !== undefined) output.note(error.details.remedy);
}

/** `problem` is a problem body or a terminal error frame. */
export function noteProblem(
  output: Output,
  message: string,
  problem: { code?: string; failed_step?: string; exec_id?: string | null },
): void {
  const facts = [
    problem.code,
    problem.failed_step === undefined ? undefined : `failed step ${problem.failed_step}`,
    problem.exec_id == null ? undefined : `exec ${problem.exec_id}`,
  ].filter((fact) => fact !== undefined);
  output.note(facts.length === 0 ? message : `${message} (${facts.join(', ')})`);
}

/** What `--json` prints for a failure: the gateway's own problem, or one that says what happened on our side. */
export function failureDocument(error: unknown): object {
  if (error instanceof ProblemError && error.code !== null) return error.problem;
  return { code: null, error: error instanceof Error ? error.message : String(error) };
}

/** How any verb ends when its output can no longer be written. */
export function exitOfBroken(output: Output, otherwise: number): number {
  const error: NodeJS.ErrnoException = output.broken.reason;
  if (error.code === 'EPIPE') return EXIT.readerGone;
  output.note(`the output cannot be written: ${error.message}`);
  return otherwise;
}
