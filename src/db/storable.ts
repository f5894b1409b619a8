/**
 * Any JavaScript text as text that PostgreSQL takes: it refuses NUL everywhere, and half a surrogate pair in jsonb.
 *
 * They become U+FFFD instead of an error: a row that cannot be written is worse than a row that shows one character less.
 */
const UNSTORABLE = /[\0\p{Surrogate}]/gu;
/** The same as JSON.stringify writes them, and a few more: whoever writes a backslash goes the long way too. */
const UNSTORABLE_AS_JSON = /\\u(0000|d[89a-f])/;

export function storableText(text: string): string {
  return text.replace(UNSTORABLE, '\uFFFD');
}

/** JSON text for a json or jsonb parameter. */
export function storableJson(value: unknown): string {
  const json = JSON.stringify(value);
  if (!UNSTORABLE_AS_JSON.test(json)) return json;
  return JSON.stringify(value, (_key, item: unknown) => (typeof item === 'string' ? storableText(item) : item));
}

/** Cut in characters (code points), so that neither half a pair nor half a UTF-8 sequence is left. */
export function cutText(text: string, maxChars: number): string {
  // A code point takes at most two units: no need to look at the rest of a long text.
  return Array.from(text.slice(0, maxChars * 2))
    .slice(0, maxChars)
    .join('');
}
