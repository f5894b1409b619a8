/**
 * Where a text stops being JSON. `JSON.parse` tells the place in half of its messages only, and quotes the text in the
 * others. Runs once per refused body, in one pass, without recursion.
 */
const SPACE = /[ \t\r\n]*/y;
const WORD = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;

type Expected = 'value' | 'value or ]' | 'key' | 'key or }' | ':' | ', or end';

/** Index of the first character that has no place there; the length when the text ends too early; null: it is JSON. */
export function jsonMistakeAt(text: string): number | null {
  const closers: string[] = [];
  let expected: Expected = 'value';
  let at = skip(SPACE, text, 0);
  while (at < text.length) {
    const char = text[at] ?? '';
    const next: number = tokenEnd(text, at);
    if (next < 0) return -next - 1;
    if (char === closers.at(-1) && (expected === ', or end' || expected.endsWith(char))) {
      closers.pop();
      expected = ', or end';
    } else if (expected === ', or end') {
      if (char !== ',' || closers.length === 0) return at;
      expected = closers.at(-1) === '}' ? 'key' : 'value';
    } else if (expected === ':') {
      if (char !== ':') return at;
      expected = 'value';
    } else if (expected.startsWith('key')) {
      if (char !== '"') return at;
      expected = ':';
    } else if (char === '{' || char === '[') {
      closers.push(char === '{' ? '}' : ']');
      expected = char === '{' ? 'key or }' : 'value or ]';
    } else {
      if (',:]}'.includes(char)) return at;
      expected = ', or end';
    }
    at = skip(SPACE, text, next);
  }
  return closers.length === 0 && expected === ', or end' ? null : text.length;
}

/** Index after the token at `at`; `-i - 1` when the token is broken at index i. */
function tokenEnd(text: string, at: number): number {
  const char = text[at] ?? '';
  if ('{}[]:,'.includes(char)) return at + 1;
  if (char === '"') return stringEnd(text, at + 1);
  const end = skip(WORD, text, at);
  return end > at ? end : -at - 1;
}

function stringEnd(text: string, from: number): number {
  let at = from;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (code === 0x22) return at + 1;
    const next = code === 0x5c ? skip(ESCAPE, text, at) : code < 0x20 ? at : at + 1;
    if (next === at) return -at - 1;
    at = next;
  }
  return -at - 1;
}

function skip(pattern: RegExp, text: string, at: number): number {
  pattern.lastIndex = at;
  return pattern.test(text) ? pattern.lastIndex : at;
}
