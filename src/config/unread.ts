/** A variable of ours that nobody reads is most often a typing error: the log says so, with the nearest name there is. */

/** One sentence. */
export function warnOfUnread({ name, known }: { name: string; known: readonly string[] }): string {
  const [nearest] = known.map((other) => ({ other, edits: countEdits(name, other) })).sort((a, b) => a.edits - b.edits);
  const hint = nearest !== undefined && nearest.edits <= 3 ? `, did you mean ${nearest.other}?` : '.';
  return `${name} has no effect: this version has no such setting${hint}`;
}

/** Levenshtein distance. */
function countEdits(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (const [above, letter] of [...from].entries()) {
    const next = [above + 1];
    for (const [index, other] of [...to].entries()) {
      const replaced = (row[index] ?? 0) + (letter === other ? 0 : 1);
      next.push(Math.min(replaced, (row[index + 1] ?? 0) + 1, (next[index] ?? 0) + 1));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}
