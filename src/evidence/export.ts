/** `sallyport audit export`: what is sealed of one org, a line an entry, for whoever rechecks it elsewhere. */
import { parseArgs } from 'node:util';
import { inSnapshot } from '../db/audit-access.ts';
import { countUnsealed, type ExportedEntry, exportEntries } from '../db/audit-export.ts';
import { orgsWithAudit } from '../db/audit-verify.ts';
import { EXIT, help, UsageError } from './usage.ts';
import { configOf, connect, type Io, requireKnown, timeOf } from './verb.ts';

const CSV_COLUMNS = [
  ...['org_id', 'position', 'previous_hash', 'hash', 'entry_id', 'activity_id', 'kind', 'at', 'body'],
  ...['checkpoint_at', 'checkpoint_kid', 'checkpoint_signature'],
];

/** Resolves with the exit code; throws UsageError. */
export async function exportOrg(args: string[], io: Io): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      org: { type: 'string' },
      format: { type: 'string', default: 'ndjson' },
      since: { type: 'string' },
      until: { type: 'string' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help === true) return await help(io);
  const { org: orgId, format } = values;
  if (orgId === undefined) throw new UsageError('--org ID is needed');
  if (format !== 'ndjson' && format !== 'csv') throw new UsageError(`--format takes ndjson or csv, not "${format}"`);
  const [since, until] = [timeOf('--since', values.since), timeOf('--until', values.until)];
  const connection = await connect(configOf(io.env), 'serving');
  try {
    const { client } = connection;
    await inSnapshot(client, async () => {
      requireKnown(orgId, await orgsWithAudit(client));
      const entries = exportEntries(client, { orgId, since, until });
      for await (const line of format === 'csv' ? csvOf(entries) : ndjsonOf(entries)) {
        await io.output.write('stdout', line);
        if (io.output.broken.aborted) return;
      }
      const unsealed = await countUnsealed(client, orgId);
      if (unsealed > 0)
        await io.output.write(
          'stderr',
          `sallyport audit: ${unsealed} entries are not sealed yet and not in this export\n`,
        );
    });
    return EXIT.right;
  } finally {
    await connection.close();
  }
}

async function* ndjsonOf(entries: AsyncIterable<ExportedEntry>): AsyncGenerator<string> {
  for await (const entry of entries) yield `${JSON.stringify(entry)}\n`;
}

/** RFC 4180. Nothing here begins like a formula but an org may, and the text of a row must stay as it is: JSON, in quotes. */
async function* csvOf(entries: AsyncIterable<ExportedEntry>): AsyncGenerator<string> {
  yield `${CSV_COLUMNS.join(',')}\r\n`;
  for await (const { checkpoint, ...entry } of entries) {
    const signed = [checkpoint?.at ?? '', checkpoint?.kid ?? '', checkpoint?.signature ?? ''];
    yield `${[...Object.values(entry), ...signed].map(csvCell).join(',')}\r\n`;
  }
}

function csvCell(value: string | number): string {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
