import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createEscaper, ESCAPE_MAX_BYTES } from '../../src/http/json-escape.ts';
import { createLineMaker, type FrameEvent, frameLine } from '../../src/http/ndjson.ts';
import { FRAME_MAX_BYTES } from '../../src/limits.ts';

const output = (bytes: Buffer, text: boolean): FrameEvent => ({ kind: 'output', stream: 'stdout', bytes, text });

/** Any text at any offset into its memory, short and long. */
const anyText = fc
  .tuple(
    fc.array(
      fc.oneof(fc.string({ unit: 'binary', maxLength: 40 }), fc.constantFrom('"', '\\', '\n', '\0', 'x'.repeat(16))),
      {
        maxLength: 30,
      },
    ),
    fc.constantFrom(1, 2, 50, 200),
    fc.nat(20),
  )
  .map(([parts, times, offset]) => Buffer.from('x'.repeat(offset) + parts.join('').repeat(times)).subarray(offset))
  .filter((bytes) => bytes.length <= ESCAPE_MAX_BYTES);

describe('what was escaped', () => {
  const escaper = createEscaper();
  if (escaper === null)
    throw new Error('expected the processor of whoever runs the tests to have 128-bit instructions');
  const escaped = (bytes: Buffer): string => escaper.wrap(bytes, '<', '>');
  const expected = (bytes: Buffer): string => `<${JSON.stringify(bytes.toString('latin1')).slice(1, -1)}>`;

  test('is what JSON.stringify makes of it', () => {
    fc.assert(
      fc.property(anyText, (bytes) => {
        expect(escaped(bytes)).toBe(expected(bytes));
      }),
      { numRuns: 3000 },
    );
  });

  test('is right for every value of a byte, in every place of a block and at every length', () => {
    for (let value = 0; value < 256; value += 1)
      for (let length = 1; length <= 33; length += 1)
        for (let at = 0; at < length; at += 1) {
          const bytes = Buffer.alloc(length, 'a');
          bytes[at] = value;
          if (escaped(bytes) !== expected(bytes)) expect.fail(`byte ${value} at ${at} of ${length}`);
        }
  });

  test('does not depend on what was escaped before', () => {
    const quotes = Buffer.alloc(ESCAPE_MAX_BYTES, '"');
    expect(escaped(quotes)).toBe(expected(quotes));
    expect(escaped(Buffer.from('short'))).toBe('<short>');
    expect(escaped(Buffer.alloc(0))).toBe('<>');
  });

  test('may be six times as long, and no longer than there is room for', () => {
    const worst = Buffer.alloc(ESCAPE_MAX_BYTES, 0x01);
    expect(escaped(worst)).toBe(expected(worst));
    expect(() => escaper.wrap(Buffer.alloc(ESCAPE_MAX_BYTES + 1), '', '')).toThrow('bug: 65537 bytes');
  });
});

describe('a made line', () => {
  const toLine = createLineMaker();

  test('is the line of the same event, text or not', () => {
    fc.assert(
      fc.property(anyText, fc.boolean(), fc.constantFrom('stdout', 'stderr'), (bytes, text, stream) => {
        const event = { kind: 'output', stream, bytes, text } as const;
        expect(toLine(event)).toBe(frameLine(event));
      }),
      { numRuns: 2000 },
    );
  });

  test.each([0, 1, 511, 512, 513, FRAME_MAX_BYTES, ESCAPE_MAX_BYTES, ESCAPE_MAX_BYTES + 1, 300_000])(
    'has no gap at a length of %i bytes',
    (length) => {
      for (const fill of ['x', '"', '\x01', 'é'])
        for (const text of [true, false]) {
          const event = output(Buffer.alloc(length, fill), text);
          expect(toLine(event) === frameLine(event), `${fill}, text: ${text}`).toBe(true);
        }
    },
  );
});
