/**
 * Text from a host as it may be shown and kept: no terminal sequences, no control characters, secrets masked.
 *
 * Decision: sequences go first, because a secret may be coloured in the middle; masking comes before any cut of ours,
 * because half a secret is known by no rule. What was cut before us (a console buffer, the end of a long output) may begin
 * inside a private key: everything up to its end marker goes.
 */
/** Colours, cursor movements, window titles. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are control characters.
const SEQUENCES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\-_])/g;
/** Everything but newline and tab that a terminal would act on, and what turns the direction of text. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what this is about.
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;
const NEWLINE = 0x0a;
const KEY_BEGINS = /-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY/;
const KEY_ENDS = /-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----/;

export type Redact = (text: string) => string;

/** `cutBefore`: the text may begin in the middle of something. Throws what `redact` throws. */
export function safeText(raw: Buffer, { cutBefore, redact }: { cutBefore: boolean; redact: Redact }): string {
  const plain = raw
    .toString('utf8')
    .replace(SEQUENCES, '')
    .replace(/\r+\n?/g, '\n')
    .replace(CONTROLS, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
  return redact(cutBefore ? withoutKeyRest(plain) : plain);
}

/**
 * A program's output whose middle may be missing. The lines at the cut go: half a secret is known by no rule.
 */
export function safeOutput(
  { head, tail, droppedBytes }: { head: Buffer; tail: Buffer | null; droppedBytes: number },
  { redact, maxBytes }: { redact: Redact; maxBytes: number },
): { text: string; truncated: boolean } {
  if (tail === null) {
    const { output, truncated = false } = cutMiddle(safeText(head, { cutBefore: false, redact }), maxBytes);
    return { text: output, truncated };
  }
  const lastLine = head.lastIndexOf(NEWLINE);
  const firstLine = tail.indexOf(NEWLINE);
  const before = safeText(head.subarray(0, lastLine + 1), { cutBefore: false, redact });
  const after = firstLine < 0 ? '' : safeText(tail.subarray(firstLine + 1), { cutBefore: true, redact });
  const { output } = cutMiddle(
    `${before}[${droppedBytes} bytes and the lines at both ends of them left out]\n${after}`,
    maxBytes,
  );
  return { text: output, truncated: true };
}

/** Redacted text that escapes have made too long, without its middle. */
export function cutMiddle(text: string, maxBytes: number): { output: string; truncated?: true } {
  const bytes = Buffer.from(text);
  if (bytes.length <= maxBytes) return { output: text };
  const note = '\n[the middle is left out]\n';
  const half = Math.floor((maxBytes - note.length) / 2) - 8; // Half a character at a cut becomes three bytes.
  const output = bytes.toString('utf8', 0, half) + note + bytes.toString('utf8', bytes.length - half);
  return { output, truncated: true };
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
