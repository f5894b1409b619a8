import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { type Command, commandSchema, parseCommand } from '../../src/exec/command.ts';

const LIMITS = { maxTimeoutS: 120, outputCapBytes: 16 * 1024 * 1024 };
const parse = (raw: unknown, limits = LIMITS): Command => parseCommand(raw, limits);
const body = (change: Record<string, unknown>) => ({ cmd: ['true'], ...change });

function refusal(raw: unknown): { code: string; message: string } {
  try {
    parse(raw);
  } catch (error) {
    return error as { code: string; message: string };
  }
  throw new Error('the body was taken');
}

describe('a body', () => {
  test('with a command alone gets every default', () => {
    expect(parse({ cmd: ['uptime'] })).toEqual({
      argv: ['uptime'],
      env: {},
      cwd: null,
      stdin: null,
      timeoutS: 30,
      connectTimeoutS: 20,
      encoding: 'auto',
      capBytes: 1024 * 1024,
      dryRun: false,
    });
  });

  test('with everything keeps everything', () => {
    const raw = {
      cmd: ['sh', '-c', 'cat; echo "$A"', '', ' ', '--', '*', '$(x)', 'é\n'],
      timeout_s: 0.5,
      connect_timeout_s: 7,
      stdin: 'é\0\n',
      env: { A: '', _b9: 'x y' },
      cwd: '/srv/é',
      encoding: 'base64',
      max_output_bytes: 0,
      dry_run: true,
    };
    expect(parse(raw)).toEqual({
      argv: raw.cmd,
      env: raw.env,
      cwd: '/srv/é',
      stdin: Buffer.from('é\0\n'),
      timeoutS: 0.5,
      connectTimeoutS: 7,
      encoding: 'base64',
      capBytes: 0,
      dryRun: true,
    });
  });

  test.each([[null], [undefined], ['ls'], [['ls']], [5], [true]])('%j is no object and is refused', (raw) => {
    expect(refusal(raw)).toMatchObject({
      code: 'invalid_request',
      message: expect.stringContaining('expected a JSON object'),
    });
  });

  test.each(['command', 'timeout', 'CMD', '__proto__', 'constructor', 'toString', ''])(
    'with the unknown field "%s" is refused and the field is named',
    (name) => {
      const raw: unknown = JSON.parse(`{"cmd":["true"],${JSON.stringify(name)}:1}`);
      expect(refusal(raw).message).toMatch(`unknown field "${name}", expected one of cmd, timeout_s,`);
    },
  );

  test('names the unknown field before it misses cmd', () => {
    expect(refusal({ command: ['ls'] }).message).toContain('unknown field "command"');
  });

  test('optional fields are absent or right, never null', () => {
    for (const name of Object.keys(commandSchema.shape)) {
      expect(refusal(body({ [name]: null })).message).toMatch(new RegExp(`^${name}: expected .*, got null$`));
    }
  });
});

describe('cmd', () => {
  test('as one string is refused with the form to send', () => {
    expect(refusal({ cmd: 'uptime' })).toMatchObject({
      code: 'cmd_not_argv',
      message: expect.stringContaining('["sh","-c","uptime"]'),
    });
  });

  test.each(['', 'x'.repeat(500), 'a\nb', 'a\u001b[31m', 'mysql --password=hunter2', '\ud800'])(
    'as the string %j shows the form with another command',
    (cmd) => {
      const { code, message } = refusal({ cmd });
      expect(code).toBe('cmd_not_argv');
      expect(message).toContain('["sh","-c","uptime"]');
      expect(message).not.toContain('hunter2');
    },
  );

  test.each<[string, unknown, string]>([
    ['missing', undefined, 'cmd: expected a JSON array of 1 to 256 strings, got nothing'],
    ['empty', [], 'cmd: expected a JSON array of 1 to 256 strings, got an array of 0'],
    ['an object', { 0: 'ls' }, 'cmd: expected a JSON array of 1 to 256 strings, got an object'],
    ['a number', 5, 'got 5'],
    ['too many', Array(257).fill('a'), 'got an array of 257'],
    ['a million numbers', Array(1_000_000).fill(0), 'got an array of 1000000'],
    ['blank', [' \t', 'x'], 'cmd[0]: expected the name of a program, got " \\t", which is blank'],
    ['nameless', ['', 'x'], 'cmd[0]'],
    ['with a number', ['sleep', 5], 'cmd[1]: expected a string, got 5'],
    ['with null', ['echo', null], 'cmd[1]: expected a string, got null'],
    ['nested', ['echo', ['x']], 'cmd[1]: expected a string, got an array of 1'],
    ['with NUL', ['echo', 'a\0b'], 'cmd[1]: expected text without NUL'],
    ['with half a character', ['echo', 'a\udc00'], 'cmd[1]: expected well-formed Unicode'],
    [
      'with one long argument',
      ['echo', 'a'.repeat(131_072)],
      'cmd[1]: expected at most 131071 bytes, got 131072 bytes',
    ],
    ['long in bytes, not in characters', ['echo', 'é'.repeat(65_536)], 'cmd[1]: expected at most 131071 bytes'],
    ['too long together', ['echo', 'a'.repeat(100_000), 'b'.repeat(31_069)], 'at most 131072 bytes in all, got 131073'],
  ])('%s is refused', (_what, cmd, message) => {
    expect(refusal({ cmd })).toMatchObject({ code: 'invalid_request', message: expect.stringContaining(message) });
  });

  test('takes 256 arguments, one of 131,071 bytes, and 128 KiB in all', () => {
    expect(parse({ cmd: Array(256).fill('a') }).argv).toHaveLength(256);
    expect(parse({ cmd: ['e', 'a'.repeat(131_071)] }).argv).toHaveLength(2);
    expect(parse({ cmd: ['echo', 'a'.repeat(100_000), 'b'.repeat(31_068)] }).argv).toHaveLength(3);
  });

  test('the longest argument is one that Linux takes', () => {
    expect(execFileSync('/bin/echo', ['a'.repeat(131_071)]).length).toBe(131_072);
    expect(() => execFileSync('/bin/echo', ['a'.repeat(131_072)])).toThrow('E2BIG');
  });

  test('any other strings come through as they are', () => {
    const argument = fc.string({ unit: 'binary', maxLength: 20 }).filter((text) => !text.includes('\0'));
    fc.assert(
      fc.property(fc.array(argument, { maxLength: 10 }), (rest) => {
        expect(parse({ cmd: ['echo', ...rest] }).argv).toEqual(['echo', ...rest]);
      }),
    );
  });
});

describe('timeouts', () => {
  test.each([
    [undefined, 30, 20],
    [0, 30, 20],
    [-5, 30, 20],
    [0.25, 0.25, 0.25],
    [60, 60, 60],
    [61, 61, 60],
    [120, 120, 60],
    [120.5, 120, 60],
    [1e300, 120, 60],
  ])('%j means %d s to run and %d s to connect', (raw, timeoutS, connectTimeoutS) => {
    expect(parse(body({ timeout_s: raw, connect_timeout_s: raw }))).toMatchObject({ timeoutS, connectTimeoutS });
  });

  test.each(['30', '', true, [30], {}, Number.NaN, Number.POSITIVE_INFINITY])('%j is refused', (raw) => {
    expect(refusal(body({ timeout_s: raw })).message).toMatch(/^timeout_s: expected a finite number of seconds, got /);
    expect(refusal(body({ connect_timeout_s: raw })).message).toMatch(/^connect_timeout_s: /);
  });

  test('the default is never above what the operator allows', () => {
    expect(parse(body({}), { ...LIMITS, maxTimeoutS: 10 }).timeoutS).toBe(10);
    expect(parse(body({ timeout_s: 300 }), { ...LIMITS, maxTimeoutS: 600 }).timeoutS).toBe(300);
  });
});

describe('stdin', () => {
  const MIB = 1024 * 1024;

  test('in base64 carries every byte', () => {
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
    expect(parse(body({ stdin: { base64: bytes.toString('base64') } })).stdin).toEqual(bytes);
  });

  test.each([[''], [{ base64: '' }]])('%j is no input at all', (stdin) => {
    expect(parse(body({ stdin })).stdin).toBeNull();
  });

  test('takes 1 MiB, counted in bytes after decoding', () => {
    expect(parse(body({ stdin: 'é'.repeat(MIB / 2) })).stdin).toHaveLength(MIB);
    expect(parse(body({ stdin: { base64: Buffer.alloc(MIB).toString('base64') } })).stdin).toHaveLength(MIB);
  });

  test.each<[string, unknown, string]>([
    ['over 1 MiB of text', `${'é'.repeat(MIB / 2)}a`, `stdin: expected at most ${MIB} bytes, got ${MIB + 1} bytes`],
    ['over 1 MiB in base64', { base64: Buffer.alloc(MIB + 1).toString('base64') }, `got ${MIB + 1} bytes`],
    ['half a character', 'a\ud800', 'stdin: expected well-formed Unicode'],
    ['a number', 5, 'stdin: expected a string or {"base64": "..."}, got a number'],
    ['an array', ['a'], 'got an array of 1'],
    ['no base64', {}, 'stdin.base64: expected a string, got nothing'],
    ['base64 that is no string', { base64: 5 }, 'stdin.base64: expected a string, got a number'],
    ['another field', { base64: 'YQ==', text: 'a' }, 'got an object with the field "text"'],
    ['no padding', { base64: 'YQ' }, 'stdin.base64: expected canonical base64'],
    ['too much padding', { base64: 'YWI==' }, 'stdin.base64'],
    ['spare bits', { base64: 'YR==' }, 'stdin.base64'],
    ['the URL alphabet', { base64: '_-8=' }, 'stdin.base64'],
    ['a line break', { base64: 'YWJj\n' }, 'stdin.base64'],
    ['one character', { base64: 'Y' }, 'stdin.base64'],
    ['no base64 at all', { base64: '***' }, 'stdin.base64'],
  ])('with %s is refused', (_what, stdin, message) => {
    expect(refusal(body({ stdin }))).toMatchObject({
      code: 'invalid_request',
      message: expect.stringContaining(message),
    });
  });
});

describe('env', () => {
  test.each(['A', '_', 'aB_9', '__proto__', 'constructor', 'EXEC_IDS', 'exec_id'])('takes the name %s', (name) => {
    const { env } = parse(JSON.parse(`{"cmd":["true"],"env":{"${name}":"v"}}`));
    expect(Object.entries(env)).toEqual([[name, 'v']]);
  });

  test.each<[string, unknown, string]>([
    ['the name EXEC_ID', { EXEC_ID: 'x' }, 'env: expected any name but EXEC_ID'],
    ['an empty name', { '': 'x' }, 'env: expected names of the form'],
    ['a digit first', { '1A': 'x' }, 'got "1A"'],
    ['a dash', { 'A-B': 'x' }, 'got "A-B"'],
    ['an equals sign', { 'A=B': 'x' }, 'env'],
    ['a line break', { 'A\n': 'x' }, 'got "A\\n"'],
    ['another alphabet', { Ä: 'x' }, 'env'],
    ['NUL in a value', { A: 'x\0' }, 'env.A: expected text without NUL'],
    ['half a character', { A: '\ud800' }, 'env.A: expected well-formed Unicode'],
    ['a number', { A: 5 }, 'env.A: expected a string, got a number'],
    ['null', { A: null }, 'env.A: expected a string, got null'],
    ['an array for all', ['A=1'], 'env: expected an object of strings, got an array of 1'],
    ['a string for all', 'A=1', 'env: expected an object of strings, got a string'],
    ['a long name', { ['A'.repeat(9999)]: 5 }, `env.${'A'.repeat(40)}…: expected a string`],
  ])('with %s is refused', (_what, env, message) => {
    expect(refusal(body({ env }))).toMatchObject({
      code: 'invalid_request',
      message: expect.stringContaining(message),
    });
  });
});

describe('cwd', () => {
  test.each<[unknown, string]>([
    ['', 'cwd: expected an absolute path, got ""'],
    ['srv', 'cwd: expected an absolute path, got "srv"'],
    ['~/x', 'got "~/x"'],
    ['/a\0', 'cwd: expected text without NUL'],
    ['/\udfff', 'cwd: expected well-formed Unicode'],
    [5, 'cwd: expected a string, got 5'],
    [`/${'a'.repeat(4095)}`, 'cwd: expected at most 4095 bytes, got 4096 bytes'],
  ])('%j is refused', (cwd, message) => {
    expect(refusal(body({ cwd })).message).toContain(message);
  });

  test('may be the root, odd, and as long as Linux allows', () => {
    for (const cwd of ['/', '//', '/a b/../$x\n', `/${'a'.repeat(4094)}`]) expect(parse(body({ cwd })).cwd).toBe(cwd);
  });
});

describe('the rest', () => {
  test.each<[string, unknown, string]>([
    ['encoding', 'utf8', 'encoding: expected "auto" or "base64", got "utf8"'],
    ['encoding', ['auto'], 'encoding: expected "auto" or "base64", got an array of 1'],
    ['dry_run', 'true', 'dry_run: expected true or false, got "true"'],
    ['dry_run', 1, 'dry_run: expected true or false, got 1'],
    ['max_output_bytes', -1, 'max_output_bytes: expected a whole number of bytes, 0 or more, got -1'],
    ['max_output_bytes', 1.5, 'max_output_bytes'],
    ['max_output_bytes', '1024', 'max_output_bytes'],
    ['max_output_bytes', 1e300, 'max_output_bytes'],
    ['max_output_bytes', 16 * 1024 * 1024 + 1, 'expected at most 16777216, the limit of this gateway, got 16777217'],
  ])('%s %j is refused', (name, value, message) => {
    expect(refusal(body({ [name]: value }))).toMatchObject({
      code: 'invalid_request',
      message: expect.stringContaining(message),
    });
  });

  test('output may be capped up to the limit, and the default never lies above it', () => {
    expect(parse(body({ max_output_bytes: 16 * 1024 * 1024 })).capBytes).toBe(16 * 1024 * 1024);
    expect(parse(body({}), { ...LIMITS, outputCapBytes: 1000 }).capBytes).toBe(1000);
  });
});

describe('a refusal', () => {
  const SECRET = 'hunter2';

  test.each<[string, Record<string, unknown>]>([
    ['a value of env', { env: { A: `${SECRET}\0` } }],
    ['a value of env after a good one', { env: { A: SECRET, 'B-': '' } }],
    ['env in one string', { env: `A=${SECRET}` }],
    ['stdin', { stdin: `${SECRET}\ud800` }],
    ['stdin in base64', { stdin: { base64: `${SECRET}!` } }],
    ['an argument', { cmd: ['x', `${SECRET}\0`] }],
    ['a password in a path', { cwd: `--password=${SECRET}` }],
  ])('never shows %s', (_what, change) => {
    expect(refusal(body(change)).message).not.toContain(SECRET);
  });

  test('is one short printable line, whatever came', () => {
    const anything = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.json().map((json): unknown => JSON.parse(json)),
    );
    const field = fc.constantFrom(...Object.keys(commandSchema.shape), 'other');
    fc.assert(
      fc.property(field, fc.string({ unit: 'binary' }), anything, (name, suffix, value) => {
        let message = '';
        try {
          parse(body({ [name === 'other' ? name + suffix : name]: value }));
        } catch (error) {
          message = (error as Error).message;
        }
        expect(message).toMatch(/^[^\p{C}\p{Zl}\p{Zp}]{0,600}$/u);
      }),
      { numRuns: 2000 },
    );
  });
});

test('the schema describes every field and nothing else', () => {
  const document = z.toJSONSchema(commandSchema, { io: 'input' });
  expect(document).toMatchObject({
    type: 'object',
    required: ['cmd'],
    additionalProperties: false,
    properties: {
      cmd: { type: 'array', items: { type: 'string' }, minItems: 1, maxItems: 256 },
      timeout_s: { type: 'number' },
      stdin: { anyOf: [{ type: 'string' }, { required: ['base64'] }] },
      env: { type: 'object', additionalProperties: { type: 'string' } },
    },
  });
  for (const described of Object.values(document.properties ?? {})) expect(described).toHaveProperty('description');
});
