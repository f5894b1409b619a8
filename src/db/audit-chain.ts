/**
 * The hash that chains audit entries, and the text of a row that they hold. Whoever wants to recheck needs this file only.
 *
 *   hash(0) = SHA-256("sallyport audit chain v1\n" org)
 *   hash(n) = SHA-256("sallyport audit entry v1\n" hash(n-1) "\n" n "\n" entry id "\n" activity id "\n" kind "\n" at "\n" body)
 *
 * Text in UTF-8, hashes in lower-case hex, numbers in decimal, `at` in UTC with microseconds. All but the last part have a
 * fixed alphabet without line breaks, so no two entries make one text. test/fixtures/verify-export.mjs does it again
 * without this file.
 */
import { hash } from 'node:crypto';

export interface ChainedEntry {
  position: number;
  entryId: string;
  activityId: string;
  kind: string;
  at: string;
  body: string;
}

/** What the first entry of an org follows. */
export function chainStart(orgId: string): string {
  return hash('sha256', `sallyport audit chain v1\n${orgId}`, 'hex');
}

export function chainHash(previous: string, { position, entryId, activityId, kind, at, body }: ChainedEntry): string {
  const text = ['sallyport audit entry v1', previous, position, entryId, activityId, kind, at, body].join('\n');
  return hash('sha256', text, 'hex');
}

/** A timestamptz as this chain writes it. */
export function utcText(column: string): string {
  return `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;
}

/** In order, and the same as in migration 0008 (a test compares them). */
const COLUMNS = [
  ...['id', 'org_id', 'workspace_id', 'activity_type', 'source_id', 'target_id', 'method', 'summary', 'request_body'],
  ...['response_body', 'tool_trace', 'duration_ms', 'status', 'error_detail', 'actor', 'request_id', 'replica'],
  ...['created_at', 'finished_at', 'seq'],
];

/** What an entry says of the row `alias` of activity_logs: only built-in functions, nothing that stands in the database. */
export function canonicalText(alias: string): string {
  const members = COLUMNS.map((column) => {
    const value = column.endsWith('_at') ? utcText(`${alias}.${column}`) : `${alias}.${column}`;
    return `'${column}', ${value}`;
  });
  return `pg_catalog.json_build_object(${members.join(', ')})::text`;
}
