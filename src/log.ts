/**
 * The log: one JSON line per event on standard error, so that standard output stays a verb's own.
 *
 * Callers log chosen facts, never requests. This file is the second lock: fields with the names of secrets are cut out,
 * of an error only name, code, message, stack and cause are written, masked by the rules of audit rows, and no character
 * that a terminal acts on leaves as itself.
 */
import { type DestinationStream, type Logger, pino } from 'pino';
import { maskText } from './access/mask.ts';

const SECRET_NAMES = new Set([
  'authorization',
  'token',
  'password',
  'secret',
  'cookie',
  'stdin',
  'env',
  'body',
  'headers',
]);
const CUT_OUT = '[cut out]';
const CAUSES_MAX = 5;
const HELD_MAX_CHARS = 8 * 1024;
const HELD_MAX_MS = 50;

export function createLog(level: string, destination: DestinationStream = standardError()): Logger {
  return pino(
    {
      level,
      formatters: { log: withoutSecrets },
      serializers: { err: (error: unknown) => showError(error) },
      hooks: { streamWrite: neutralise },
    },
    destination,
  );
}

/**
 * Lines of a busy moment are written together: one write a line cost a busy gateway as much as a database statement. What
 * is held back is written at the end of the process too, whatever ends it but SIGKILL.
 */
function standardError(): DestinationStream & { flush(done: () => void): void } {
  const file = pino.destination({ fd: 2, sync: false, minLength: HELD_MAX_CHARS });
  let isDue = false;
  const flushDue = (): void => {
    isDue = false;
    file.flush();
  };
  return {
    write(line) {
      file.write(line);
      if (isDue) return;
      isDue = true;
      // The library's own periodicFlush wakes an idle gateway 20 times a second, for nothing.
      setTimeout(flushDue, HELD_MAX_MS).unref();
    },
    flush: (done) => file.flush(done),
  };
}

/** Resolves when every line is written: before an end on purpose, where a write under way and the last one could cross. */
export function flushLog(log: Logger): Promise<void> {
  return new Promise((resolve) => log.flush(() => resolve()));
}

/**
 * On two levels. Not pino's own redaction: with names on any member of a line it copies the whole line by way of JSON, a
 * sixth of all the memory that an exec took.
 */
function withoutSecrets(fields: object, depth = 0): Record<string, unknown> {
  const shown: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(fields)) {
    if (SECRET_NAMES.has(name)) shown[name] = CUT_OUT;
    else shown[name] = depth === 0 && hasMembers(value) ? withoutSecrets(value, 1) : value;
  }
  return shown;
}

/** Errors have a serializer, which chooses what is shown of them; a Date, say, has its own way to be shown. */
function hasMembers(value: unknown): value is object {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  return !(value instanceof Error) && !('toJSON' in value);
}

/** Errors of libraries carry queries, headers and whole requests in members of their own: those stay behind. */
function showError(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) return typeof error === 'string' ? maskText(error) : `a thrown ${typeof error}`;
  const { name, message, stack, cause } = error;
  const code = 'code' in error ? error.code : undefined;
  return {
    type: name,
    code: typeof code === 'string' || typeof code === 'number' ? code : undefined,
    message: maskText(message),
    stack: stack === undefined ? undefined : maskText(stack),
    cause: cause === undefined || depth === CAUSES_MAX ? undefined : showError(cause, depth + 1),
  };
}

/**
 * JSON escapes only what is below U+0020. Above it are DEL, the C1 controls (U+009B begins a sequence like ESC [), line
 * separators and marks that turn the direction of text. They can stand only within strings, so the line stays JSON.
 */
function neutralise(line: string): string {
  return line.replace(
    /[\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
