import fc from 'fast-check';
import { expect, test } from 'vitest';
import { jsonMistakeAt } from '../../src/http/json-mistake.ts';

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

test.each([
  ['{"a":}', 5],
  ['{"a" 1}', 5],
  ['{a:1}', 1],
  ['[1,]', 3],
  ['[1 2]', 3],
  ['{"a":1,}', 7],
  ['{"a":tru}', 5],
  ['{"a":"x\ny"}', 7],
  ['{"a":"\\q"}', 6],
  ['{"a":1}}', 7],
  ['[1}', 2],
  ['01', 1],
  ["{'a':1}", 1],
])('%s is wrong at %i', (text, at) => {
  expect(jsonMistakeAt(text)).toBe(at);
});

test.each(['', '{', '[1', '{"a"', '{"a":', '"abc', '[1,', '{"a":1'])('%s ends too early', (text) => {
  expect(jsonMistakeAt(text)).toBe(text.length);
});

test('it finds a mistake exactly where JSON.parse finds one', () => {
  const pieces = [
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '"a"',
    '"\\n"',
    '1',
    '-2.5e3',
    '0',
    'true',
    'null',
    ' ',
    '\n',
    '"',
    '\\',
    'x',
  ];
  const soup = fc.array(fc.constantFrom(...pieces), { maxLength: 12 }).map((parts) => parts.join(''));
  const broken = fc
    .tuple(fc.json(), fc.nat(), fc.string({ maxLength: 2 }))
    .map(
      ([text, at, extra]) => text.slice(0, at % (text.length + 1)) + extra + text.slice((at % (text.length + 1)) + 1),
    );
  fc.assert(
    fc.property(fc.oneof(soup, fc.json(), broken), (text) => {
      expect(jsonMistakeAt(text) === null).toBe(isJson(text));
    }),
    { numRuns: 3000 },
  );
});

test('what stands before the mistake can be continued, what includes it cannot', () => {
  const text = '{"cmd":["ls", -]}';
  const at = jsonMistakeAt(text);
  expect(at).toBe(14);
});

test('a million brackets are no deeper than one', () => {
  expect(jsonMistakeAt('['.repeat(1_000_000))).toBe(1_000_000);
});
