/**
 * The untrusted body of an exec request → Command. Refusals name the field, what was expected and what came.
 *
 * Decisions where the contract leaves room:
 * - `null` is not "absent" and is refused: JSON writes NaN as null, and a deadline must not become 30 s by mistake.
 * - Timeouts above their maximum are lowered to it, as the contract says. `max_output_bytes` above the limit is refused:
 *   output cut at another size than asked for would be found out only after the program ran. 0 is allowed: send nothing.
 * - `stdin` may contain NUL, it is a stream of bytes; argv, env and cwd cannot carry one to a program.
 * - Values of `env` and `stdin` are never shown in a refusal, and other values only with their secrets masked.
 *
 * Each field is parsed by a function of its own that stops at the first wrong element: a general validator reports every
 * one of a million. zod holds them together, finds unknown fields and gives the document its schema.
 */
import { z } from 'zod';
import { maskText, showValue } from '../access/mask.ts';
import { SallyportError } from '../errors.ts';
import {
  ARGV_MAX_ELEMENT_BYTES,
  ARGV_MAX_ELEMENTS,
  ARGV_MAX_TOTAL_BYTES,
  CONNECT_TIMEOUT_DEFAULT_S,
  CONNECT_TIMEOUT_MAX_S,
  OUTPUT_CAP_DEFAULT_BYTES,
  RUN_TIMEOUT_DEFAULT_S,
  STDIN_MAX_BYTES,
} from '../limits.ts';

export interface Command {
  argv: readonly [string, ...string[]];
  env: Record<string, string>;
  /** Absolute path, or null: the login directory. */
  cwd: string | null;
  /** Null: end-of-file at once. */
  stdin: Buffer | null;
  timeoutS: number;
  connectTimeoutS: number;
  encoding: 'auto' | 'base64';
  /** Per stream. */
  capBytes: number;
  dryRun: boolean;
}

const ENV_NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;
/** The gateway's own mark on every program, by which it is found and ended. */
const ENV_NAME_TAKEN = 'EXEC_ID';
/** Linux PATH_MAX is 4,096 with the closing NUL. */
const CWD_MAX_BYTES = 4095;

/** A field of the body: its parser and what the document says of it. */
function field<T>(parse: (raw: unknown) => T, describedAs: Record<string, unknown>) {
  return z.unknown().transform(parse).meta(describedAs).optional();
}

/** The body of an exec request; `z.toJSONSchema(…, { io: 'input' })` describes it. Parsers throw SallyportError. */
export const commandSchema = z.strictObject({
  cmd: z
    .unknown()
    .transform(parseArgv)
    .meta({
      description: 'The program and its arguments; no shell is involved. cmd[0] is not blank.',
      type: 'array',
      items: { type: 'string' },
      minItems: 1,
      maxItems: ARGV_MAX_ELEMENTS,
    }),
  timeout_s: field((raw) => parseSeconds('timeout_s', raw), {
    description: `Seconds the program may run. Absent, zero or less: ${RUN_TIMEOUT_DEFAULT_S}; above the maximum: the maximum.`,
    type: 'number',
  }),
  connect_timeout_s: field((raw) => parseSeconds('connect_timeout_s', raw), {
    description: `Seconds that connecting may take, at most ${CONNECT_TIMEOUT_MAX_S}. Absent, zero or less: ${CONNECT_TIMEOUT_DEFAULT_S}.`,
    type: 'number',
  }),
  stdin: field(parseStdin, {
    description: `Standard input of the program, at most ${STDIN_MAX_BYTES} bytes. Absent: end-of-file at once.`,
    anyOf: [
      { type: 'string' },
      {
        type: 'object',
        properties: { base64: { type: 'string', contentEncoding: 'base64' } },
        required: ['base64'],
        additionalProperties: false,
      },
    ],
  }),
  env: field(parseEnv, {
    description: `Added to the environment of the program. ${ENV_NAME_TAKEN} is taken.`,
    type: 'object',
    propertyNames: { pattern: ENV_NAME.source },
    additionalProperties: { type: 'string' },
  }),
  cwd: field(parseCwd, { description: 'An absolute path.', type: 'string', pattern: '^/' }),
  encoding: field(parseEncoding, {
    description: '`auto` (default): base64 only for what is not valid UTF-8. `base64`: always.',
    enum: ['auto', 'base64'],
  }),
  max_output_bytes: field(parseCap, {
    description: `Bytes sent per stream, the rest is counted. Absent: ${OUTPUT_CAP_DEFAULT_BYTES}.`,
    type: 'integer',
    minimum: 0,
  }),
  dry_run: field(parseDryRun, {
    description: 'Answers with the decision and the rule that made it, touches nothing.',
    type: 'boolean',
  }),
});

/** Throws `invalid_request`, or `cmd_not_argv` for a command in one string. */
export function parseCommand(raw: unknown, limits: { maxTimeoutS: number; outputCapBytes: number }): Command {
  if (!isObject(raw)) throw refuse('body', 'a JSON object', showValue(raw));
  refuseUnknownField(raw, commandSchema.shape);
  const body = commandSchema.parse(raw);
  return {
    argv: body.cmd,
    env: body.env ?? {},
    cwd: body.cwd ?? null,
    stdin: body.stdin ?? null,
    timeoutS: clampSeconds(body.timeout_s, RUN_TIMEOUT_DEFAULT_S, limits.maxTimeoutS),
    connectTimeoutS: clampSeconds(body.connect_timeout_s, CONNECT_TIMEOUT_DEFAULT_S, CONNECT_TIMEOUT_MAX_S),
    encoding: body.encoding ?? 'auto',
    capBytes: limitCap(body.max_output_bytes, limits.outputCapBytes),
    dryRun: body.dry_run ?? false,
  };
}

function isObject(raw: unknown): raw is Record<string, unknown> {
  return typeof raw === 'object' && raw !== null && !Array.isArray(raw);
}

function refuse(fieldName: string, expected: string, came: string): SallyportError {
  return new SallyportError('invalid_request', `${fieldName}: expected ${expected}, got ${came}`);
}

/** Before the fields: who writes `command` wants to read about that, not that `cmd` is missing. */
function refuseUnknownField(raw: Record<string, unknown>, fields: object): void {
  const unknown = Object.keys(raw).find((name) => !Object.hasOwn(fields, name));
  if (unknown === undefined) return;
  const known = Object.keys(fields).join(', ');
  throw new SallyportError('invalid_request', `unknown field ${showValue(unknown)}, expected one of ${known}`);
}

function parseArgv(raw: unknown): readonly [string, ...string[]] {
  if (typeof raw === 'string') throw refuseString(raw);
  const expected = `a JSON array of 1 to ${ARGV_MAX_ELEMENTS} strings`;
  if (!Array.isArray(raw) || raw.length > ARGV_MAX_ELEMENTS) throw refuse('cmd', expected, showValue(raw));
  const [program, ...rest] = raw.map((argument, index) => parseArgument(argument, index));
  if (program === undefined) throw refuse('cmd', expected, showValue(raw));
  if (program.trim() === '') throw refuse('cmd[0]', 'the name of a program', `${showValue(program)}, which is blank`);
  const totalBytes = rest.reduce((sum, argument) => sum + Buffer.byteLength(argument), Buffer.byteLength(program));
  if (totalBytes <= ARGV_MAX_TOTAL_BYTES) return [program, ...rest];
  throw refuse('cmd', `at most ${ARGV_MAX_TOTAL_BYTES} bytes in all`, `${totalBytes} bytes`);
}

function parseArgument(raw: unknown, index: number): string {
  const argument = parseText(`cmd[${index}]`, raw, showValue);
  const bytes = Buffer.byteLength(argument);
  if (bytes <= ARGV_MAX_ELEMENT_BYTES) return argument;
  throw refuse(`cmd[${index}]`, `at most ${ARGV_MAX_ELEMENT_BYTES} bytes`, `${bytes} bytes`);
}

/** The most frequent mistake, so the answer shows the caller's own command in the right form where that is safe and short. */
function refuseString(command: string): SallyportError {
  const canShow = /^[\x20-\x7e]{1,80}$/.test(command) && maskText(command) === command;
  const argv = JSON.stringify(['sh', '-c', canShow ? command : 'uptime']);
  return new SallyportError(
    'cmd_not_argv',
    `cmd: expected a JSON array of strings, got one string; to run a shell line send ${argv}, for a program and its arguments ["ls","-l"]`,
  );
}

/** `show` says what came when it is no string at all. What is wrong inside a string is said without the string. */
function parseText(fieldName: string, raw: unknown, show: (raw: unknown) => string): string {
  if (typeof raw !== 'string') throw refuse(fieldName, 'a string', show(raw));
  if (raw.includes('\0')) throw refuse(fieldName, 'text without NUL', 'text with NUL');
  if (hasLoneSurrogate(raw)) throw refuse(fieldName, 'well-formed Unicode', 'a lone surrogate, half of a character');
  return raw;
}

function hasLoneSurrogate(text: string): boolean {
  return /\p{Surrogate}/u.test(text);
}

/** The kind of a value that may be secret. */
function showKind(raw: unknown): string {
  return typeof raw === 'object' || raw === undefined ? showValue(raw) : `a ${typeof raw}`;
}

function parseSeconds(fieldName: string, raw: unknown): number {
  if (typeof raw === 'number' && Number.isFinite(raw)) return raw;
  throw refuse(fieldName, 'a finite number of seconds', showValue(raw));
}

function clampSeconds(asked: number | undefined, defaultS: number, maxS: number): number {
  const wanted = asked === undefined || asked <= 0 ? defaultS : asked;
  return Math.min(wanted, maxS);
}

function parseStdin(raw: unknown): Buffer | null {
  const bytes = typeof raw === 'string' ? encodeStdin(raw) : decodeStdin(raw);
  if (bytes.length > STDIN_MAX_BYTES)
    throw refuse('stdin', `at most ${STDIN_MAX_BYTES} bytes`, `${bytes.length} bytes`);
  return bytes.length === 0 ? null : bytes;
}

function encodeStdin(text: string): Buffer {
  if (!hasLoneSurrogate(text)) return Buffer.from(text);
  throw refuse('stdin', 'well-formed Unicode, or {"base64": "..."} for bytes', 'a lone surrogate, half of a character');
}

function decodeStdin(raw: unknown): Buffer {
  const expected = 'a string or {"base64": "..."}';
  if (!isObject(raw)) throw refuse('stdin', expected, showKind(raw));
  const other = Object.keys(raw).find((name) => name !== 'base64');
  if (other !== undefined) throw refuse('stdin', expected, `an object with the field ${showValue(other)}`);
  const { base64 } = raw;
  if (typeof base64 !== 'string') throw refuse('stdin.base64', 'a string', showKind(base64));
  const bytes = Buffer.from(base64, 'base64');
  // Node decodes anything; only the canonical form comes back as it was.
  if (bytes.toString('base64') === base64) return bytes;
  throw refuse('stdin.base64', 'canonical base64 (RFC 4648, with padding)', 'other characters, padding or spare bits');
}

function parseEnv(raw: unknown): Record<string, string> {
  if (!isObject(raw)) throw refuse('env', 'an object of strings', showKind(raw));
  // fromEntries defines properties, so the legal name `__proto__` is a name like any other.
  return Object.fromEntries(Object.entries(raw).map(([name, value]) => parseVariable(name, value)));
}

function parseVariable(name: string, value: unknown): [string, string] {
  if (!ENV_NAME.test(name)) throw refuse('env', `names of the form ${ENV_NAME.source}`, showValue(name));
  if (name === ENV_NAME_TAKEN) throw refuse('env', `any name but ${ENV_NAME_TAKEN}, which the gateway sets`, name);
  return [name, parseText(`env.${shorten(name)}`, value, showKind)];
}

/** A name has no control characters, but any length. */
function shorten(name: string): string {
  return name.length > 40 ? `${name.slice(0, 40)}…` : name;
}

function parseCwd(raw: unknown): string {
  const cwd = parseText('cwd', raw, showValue);
  if (!cwd.startsWith('/')) throw refuse('cwd', 'an absolute path', showValue(cwd));
  const bytes = Buffer.byteLength(cwd);
  if (bytes > CWD_MAX_BYTES) throw refuse('cwd', `at most ${CWD_MAX_BYTES} bytes`, `${bytes} bytes`);
  return cwd;
}

function parseEncoding(raw: unknown): 'auto' | 'base64' {
  if (raw === 'auto' || raw === 'base64') return raw;
  throw refuse('encoding', '"auto" or "base64"', showValue(raw));
}

function parseCap(raw: unknown): number {
  if (typeof raw === 'number' && Number.isSafeInteger(raw) && raw >= 0) return raw;
  throw refuse('max_output_bytes', 'a whole number of bytes, 0 or more', showValue(raw));
}

function limitCap(asked: number | undefined, maxBytes: number): number {
  if (asked === undefined) return Math.min(OUTPUT_CAP_DEFAULT_BYTES, maxBytes);
  if (asked <= maxBytes) return asked;
  throw refuse('max_output_bytes', `at most ${maxBytes}, the limit of this gateway`, showValue(asked));
}

function parseDryRun(raw: unknown): boolean {
  if (typeof raw === 'boolean') return raw;
  throw refuse('dry_run', 'true or false', showValue(raw));
}
