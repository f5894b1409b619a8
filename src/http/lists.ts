/**
 * The one way every list answers: `{"items","next"}`, one line per item, or a table, as `Accept` asks.
 *
 * The cursor of the next page is in the JSON and, for all three, in a `Link` header (RFC 8288).
 */
import type { Request, Response } from 'express';
import { z } from 'zod';
import { LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX } from '../limits.ts';
import { textSchema } from './validate.ts';

export interface Page<Item> {
  items: readonly Item[];
  next: string | null;
}

/** A larger `limit` is answered with the largest page. */
export const listQuery = z.strictObject({
  limit: z
    .string()
    .regex(/^[1-9]\d{0,8}$/, { error: `expected a whole number from 1 to ${LIST_LIMIT_MAX}` })
    .transform((text) => Math.min(Number(text), LIST_LIMIT_MAX))
    .default(LIST_LIMIT_DEFAULT),
  after: textSchema(1, 512).optional(),
});

const FORMATS = ['application/json', 'application/x-ndjson', 'text/csv'];

/** `columns` are the members in the order of the table; a list without items has them too. */
export function sendList(
  req: Request,
  res: Response,
  { items, next, columns }: Page<Record<string, unknown>> & { columns: readonly string[] },
): void {
  if (next !== null) res.setHeader('Link', `<${nextUrl(req, next)}>; rel="next"`);
  res.setHeader('Vary', 'Accept');
  const { type, text } = render(req, { items, next, columns });
  res.setHeader('Content-Type', type);
  res.end(text);
}

function render(
  req: Request,
  { items, next, columns }: Page<Record<string, unknown>> & { columns: readonly string[] },
): { type: string; text: string } {
  switch (req.accepts(FORMATS)) {
    case 'text/csv':
      return { type: 'text/csv; charset=utf-8', text: csvTable(columns, items) };
    case 'application/x-ndjson':
      return { type: 'application/x-ndjson', text: items.map((item) => `${JSON.stringify(item)}\n`).join('') };
    default:
      return { type: 'application/json', text: JSON.stringify({ items, next }) };
  }
}

function nextUrl(req: Request, next: string): string {
  const [path, query] = req.originalUrl.split('?', 2);
  const parameters = new URLSearchParams(query);
  parameters.set('after', next);
  return `${path}?${parameters}`;
}

/** RFC 4180: lines end in CRLF, cells are quoted where they must be. */
export function csvTable(columns: readonly string[], items: readonly Record<string, unknown>[]): string {
  const rows = [columns, ...items.map((item) => columns.map((column) => item[column]))];
  return rows.map((row) => `${row.map(csvCell).join(',')}\r\n`).join('');
}

/**
 * A text that a spreadsheet would run as a formula gets an apostrophe in front; numbers stay numbers. Source: OWASP,
 * CSV injection, with the full-width forms that some programs fold to ASCII.
 */
function csvCell(value: unknown): string {
  if (value === null || value === undefined) return '';
  const text = typeof value === 'object' ? JSON.stringify(value) : String(value);
  const safe = typeof value !== 'number' && /^(?:[\t\r\n]|\s*[=+\-@＝＋－＠])/.test(text) ? `'${text}` : text;
  return /[",\r\n]|^\s|\s$/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
