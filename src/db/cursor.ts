/** Cursors of lists: where a page ended, in base64url, so that nobody is tempted to take it apart. */
import { SallyportError } from '../errors.ts';

type CursorKind = 'seq' | 'id' | 'sub';

export function encodeCursor(kind: CursorKind, value: string): string {
  return Buffer.from(`${kind}:${value}`).toString('base64url');
}

/** Throws `invalid_request` on anything that `encodeCursor` did not make for this kind of list. */
export function decodeCursor(kind: CursorKind, rawCursor: string): string {
  const text = Buffer.from(rawCursor, 'base64url').toString();
  const value = text.slice(kind.length + 1);
  const isOurs = text.startsWith(`${kind}:`) && encodeCursor(kind, value) === rawCursor;
  if (!isOurs || (kind === 'seq' && !isSeq(value)) || value.includes('\0')) {
    throw new SallyportError('invalid_request', 'after: expected the value of `next` of an earlier page of this list');
  }
  return value;
}

function isSeq(value: string): boolean {
  return /^\d{1,19}$/.test(value) && BigInt(value) < 2n ** 63n;
}

/** A page out of `limit + 1` rows: the extra one only says that there is more. */
export function pageOf<Row, Item>(
  rows: readonly Row[],
  limit: number,
  shape: { item(row: Row): Item; cursor(row: Row): string },
): { items: Item[]; next: string | null } {
  const page = rows.slice(0, limit);
  const last = page.at(-1);
  return {
    items: page.map((row) => shape.item(row)),
    next: rows.length > limit && last !== undefined ? shape.cursor(last) : null,
  };
}
