/**
 * Text from a host as it may be shown and kept: no terminal sequences, no control characters, secrets masked.
 *
 * Decision: sequences go first, because a secret may be coloured in the middle; masking comes before any cut of ours,
 * because half a secret is known by no rule. What was cut before us (a console buffer, the end of a long output) may begin
 * inside a private key: everything up to its end marker goes.
 */
import { maskText } from '../access/mask.ts';

/** Colours, cursor movements, window titles. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are control characters.
const SEQUENCES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\-_])/g;
/** Everything but newline and tab that a terminal would act on, and what turns the direction of text. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what this is about.
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;
const KEY_BEGINS = /-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY/;
const KEY_ENDS = /-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----/;

export type Redact = (text: string) => string;

/** `cutBefore`: the text may begin in the middle of something. Throws what `redact` throws. */
export function safeText(
  raw: Buffer,
  { cutBefore, redact = maskText }: { cutBefore: boolean; redact?: Redact },
): string {
  const plain = raw
    .toString('utf8')
    .replace(SEQUENCES, '')
    .replace(/\r+\n?/g, '\n')
    .replace(CONTROLS, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
  return redact(cutBefore ? withoutKeyRest(plain) : plain);
}

/** The last `maxChars` at most, from the beginning of a line. */
export function tailOf(text: string, maxChars: number): string {
  if (text.length <= maxChars) return text;
  const tail = text.slice(-maxChars);
  const line = tail.indexOf('\n');
  return line >= 0 && line < tail.length - 1 ? tail.slice(line + 1) : tail.replace(/^[\udc00-\udfff]/, '');
}

function withoutKeyRest(text: string): string {
  const end = KEY_ENDS.exec(text);
  if (end === null) return text;
  const begin = KEY_BEGINS.exec(text);
  return begin !== null && begin.index < end.index ? text : `***${text.slice(end.index + end[0].length)}`;
}
