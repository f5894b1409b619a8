/** Any string as one word of a POSIX shell. Needed only where a shell stands between us and the program. */

/** Single quotes keep every byte as it is; a single quote itself is closed, escaped and opened again. */
export function quote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

/**
 * The same for a text that must stay on one line: newlines come from the shell variable `newline`, which the caller
 * has set to one.
 */
export function quoteInLine(word: string, newline: string): string {
  return word.split('\n').map(quote).join(`"$${newline}"`);
}
