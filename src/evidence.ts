/**
 * `sallyport audit verify|export|prune`: what an operator does with the evidence, on the database itself.
 *
 * Not over the API: a gateway that lies about its rows would lie about their evidence. Nothing here writes but `prune`.
 * Exit codes: 0 all is right, 1 something is wrong (or refused), 2 wrong usage or no database, 3 nothing wrong was found
 * but not everything could be checked, which is no success.
 */
import { createReadStream } from 'node:fs';
import { access, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { parseArgs } from 'node:util';
import {
  type Checkpoint,
  createSignatureCheck,
  loadPublicKey,
  type PublicKey,
  parseCheckpointLine,
  type SignatureCheck,
} from './access/checkpoint.ts';
import { exitOfBroken, neutralise, type Output } from './cli/output.ts';
import { type Config, ConfigError, readConfig } from './config/config.ts';
import { type AuditConnection, inSnapshot, openAuditConnection } from './db/audit-access.ts';
import { countUnsealed, type ExportedEntry, exportEntries } from './db/audit-export.ts';
import { type PruneResult, pruneOrg } from './db/audit-prune.ts';
import { type OrgReport, orgsWithAudit, verifyOrg } from './db/audit-verify.ts';
import { IDEMPOTENCY_LIFE_S } from './limits.ts';
import { createLog } from './log.ts';

const EXIT = { right: 0, wrong: 1, usage: 2, unchecked: 3 } as const;

const AUDIT_USAGE = `usage:
  sallyport audit verify [--org ID] [--public-key FILE]... [--checkpoint FILE|LINE|-] [--json]
  sallyport audit export --org ID [--format ndjson|csv] [--since TIME] [--until TIME]
  sallyport audit prune --org ID|--all --before TIME [--public-key FILE]... [--json]

verify recomputes the chain of every org, or of one, from DATABASE_URL (by default the embedded database). Signatures are
checked with the public keys given, or with that of SALLYPORT_SIGNING_KEY[_FILE]. --checkpoint takes a log of the gateway,
or one line of it: a chain whose end was cut off is found by what is kept outside of the database.
exit: 0 all is right, 1 something is wrong, 2 wrong usage or no database, 3 nothing wrong found, but not all was checked
prune deletes rows that were finished before TIME, up to a signed checkpoint; it needs the role that migrates.
`;

class UsageError extends Error {}

interface Io {
  env: NodeJS.ProcessEnv;
  /** Opened only by who reads it. */
  stdin: () => NodeJS.ReadableStream;
  output: Output;
}

/** `args`: what follows `audit`. Resolves with the exit code. */
export async function runAudit(args: readonly string[], io: Io): Promise<number> {
  const exitCode = await runVerb(args, io);
  await io.output.flush();
  // What was not written could not be read: no success, but nothing wrong with the evidence either.
  return exitCode === EXIT.right && io.output.broken.aborted ? exitOfBroken(io.output, EXIT.usage) : exitCode;
}

async function runVerb([verb, ...rest]: readonly string[], io: Io): Promise<number> {
  const { output } = io;
  try {
    switch (verb) {
      case 'verify':
        return await verify(rest, io);
      case 'export':
        return await exportOrg(rest, io);
      case 'prune':
        return await prune(rest, io);
      case undefined:
      case '--help':
      case '-h':
      case 'help':
        await output.write('stdout', AUDIT_USAGE);
        return verb === undefined ? EXIT.usage : EXIT.right;
      default:
        throw new UsageError(`verify, export or prune was expected, not "${verb}"`);
    }
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    await output.write('stderr', `sallyport audit: ${neutralise(message)}\n`);
    if (isUsage(error)) await output.write('stderr', AUDIT_USAGE);
    return EXIT.usage;
  }
}

function isUsage(error: unknown): boolean {
  if (error instanceof UsageError) return true;
  return error instanceof Error && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS');
}

async function verify(args: string[], io: Io): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      org: { type: 'string' },
      'public-key': { type: 'string', multiple: true },
      checkpoint: { type: 'string' },
      json: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help === true) return await help(io);
  const config = configOf(io.env);
  const check = await signatureCheck(config, values['public-key'] ?? []);
  if (values.checkpoint !== undefined && check === null)
    throw new UsageError('--checkpoint needs a key: --public-key FILE, or SALLYPORT_SIGNING_KEY[_FILE]');
  const given = values.checkpoint === undefined ? null : await readCheckpoints(values.checkpoint, io, check);
  const connection = await connect(config, 'serving');
  try {
    const reports = await inSnapshot(connection.client, async () => {
      const known = await orgsWithAudit(connection.client);
      const asked = values.org === undefined ? allOf(known, given) : [values.org];
      if (values.org !== undefined && !allOf(known, given).includes(values.org))
        throw new Error(`org ${values.org} has neither audit rows nor evidence`);
      const done: OrgReport[] = [];
      for (const orgId of asked)
        done.push(await verifyOrg(connection.client, { orgId, check, given: given?.newest.get(orgId) ?? null }));
      return done;
    });
    return await tellVerified({ reports, given, check, io, asJson: values.json === true });
  } finally {
    await connection.close();
  }
}

function allOf(known: readonly string[], given: GivenCheckpoints | null): string[] {
  return [...new Set([...known, ...(given?.newest.keys() ?? [])])];
}

interface GivenCheckpoints {
  /** By org; a newer one says all that an older one does. */
  newest: ReadonlyMap<string, Checkpoint>;
  forged: number;
  unknownKey: number;
}

/** A log may be large: one line at a time, and the newest of an org is kept. */
async function readCheckpoints(source: string, io: Io, check: SignatureCheck | null): Promise<GivenCheckpoints> {
  const newest = new Map<string, Checkpoint>();
  const counts = { forged: 0, unknownKey: 0, found: 0 };
  for await (const line of createInterface({ input: inputOf(source, io), crlfDelay: Number.POSITIVE_INFINITY })) {
    const checkpoint = parseCheckpointLine(line);
    if (checkpoint === null) continue;
    counts.found += 1;
    const verdict = check?.(checkpoint);
    if (verdict === 'bad') counts.forged += 1;
    if (verdict === 'unknown key') counts.unknownKey += 1;
    const { orgId, position } = checkpoint;
    if (verdict === 'good' && position > (newest.get(orgId)?.position ?? 0)) newest.set(orgId, checkpoint);
  }
  if (counts.found === 0) throw new UsageError('--checkpoint: no line of a checkpoint is in what was given');
  return { newest, ...counts };
}

function inputOf(source: string, io: Io): NodeJS.ReadableStream {
  if (source === '-') return io.stdin();
  return source.trimStart().startsWith('{') ? Readable.from([source]) : createReadStream(source);
}

async function tellVerified(facts: {
  reports: readonly OrgReport[];
  given: GivenCheckpoints | null;
  check: SignatureCheck | null;
  io: Io;
  asJson: boolean;
}): Promise<number> {
  const { reports, given, check, io, asJson } = facts;
  const findings = reports.reduce((sum, report) => sum + report.findings_total, 0) + (given?.forged ?? 0);
  const notChecked = reports.flatMap((report) => report.not_checked.map((text) => `org ${report.org_id}: ${text}`));
  if (check === null && reports.length === 0) notChecked.push('there was nothing to check, and no key was given');
  if ((given?.unknownKey ?? 0) > 0)
    notChecked.push(`${given?.unknownKey} given checkpoints: the public key that they name was not given`);
  const verdict = findings > 0 ? 'wrong' : notChecked.length > 0 ? 'unchecked' : 'right';
  if (asJson) {
    const document = {
      verdict,
      findings_total: findings,
      not_checked: notChecked,
      forged_given: given?.forged ?? 0,
      orgs: reports,
    };
    await io.output.write('stdout', `${JSON.stringify(document)}\n`);
  } else {
    for (const report of reports)
      for (const line of linesOf(report)) await io.output.write('stdout', `${neutralise(line)}\n`);
    if ((given?.forged ?? 0) > 0)
      await io.output.write(
        'stdout',
        `${given?.forged} of the given checkpoints are not signed by the key that they name\n`,
      );
    for (const text of notChecked) await io.output.write('stdout', `${neutralise(`not checked: ${text}`)}\n`);
    await io.output.write('stdout', `${VERDICTS[verdict]}\n`);
  }
  return EXIT[verdict];
}

const VERDICTS = {
  right: 'the evidence is whole',
  wrong: 'THE EVIDENCE IS NOT WHOLE',
  unchecked: 'nothing wrong was found, but not everything could be checked',
} as const;

function linesOf(report: OrgReport): string[] {
  const { org_id, sealed, unsealed, checkpoints, before_evidence: before, findings, findings_total } = report;
  const chain = sealed === null ? 'nothing is sealed' : `positions ${sealed.from} to ${sealed.to}`;
  const signed =
    checkpoints.last_position === null ? 'none' : `${checkpoints.good}, the last at ${checkpoints.last_position}`;
  const oldest = unsealed.oldest_at === null ? '' : `, the oldest from ${unsealed.oldest_at}`;
  const lines = [
    `org ${org_id}: ${chain}; ${report.entries_checked} entries and ${report.activities_checked} rows checked; good checkpoints: ${signed}; not sealed yet: ${unsealed.entries}${oldest}`,
  ];
  if (sealed !== null && sealed.from > 1) lines.push(`  positions below ${sealed.from} were pruned`);
  if (before > 0) lines.push(`  ${before} rows are from before evidence began: nothing can be said of them`);
  if (checkpoints.given > 0) lines.push(`  the given checkpoint at position ${checkpoints.given} was looked at`);
  for (const { kind, activity_id, position, detail } of findings) {
    const where = [activity_id && `activity ${activity_id}`, position !== null && `position ${position}`].filter(
      Boolean,
    );
    lines.push(`  ${kind}: ${[...where, detail].join(', ')}`);
  }
  if (findings_total > findings.length) lines.push(`  and ${findings_total - findings.length} further findings`);
  return lines;
}

const CSV_COLUMNS = [
  ...['org_id', 'position', 'previous_hash', 'hash', 'entry_id', 'activity_id', 'kind', 'at', 'body'],
  ...['checkpoint_at', 'checkpoint_kid', 'checkpoint_signature'],
];

async function exportOrg(args: string[], io: Io): Promise<number> {
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
      if (!(await orgsWithAudit(client)).includes(orgId))
        throw new Error(`org ${orgId} has neither audit rows nor evidence`);
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

async function prune(args: string[], io: Io): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      org: { type: 'string' },
      all: { type: 'boolean' },
      before: { type: 'string' },
      'public-key': { type: 'string', multiple: true },
      json: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help === true) return await help(io);
  if ((values.org === undefined) === (values.all !== true)) throw new UsageError('either --org ID or --all is needed');
  const before = timeOf('--before', values.before);
  if (before === null) throw new UsageError('--before TIME is needed');
  // A key of an idempotent request lives so long, and is judged by its row.
  if (before.getTime() > Date.now() - IDEMPOTENCY_LIFE_S * 1000)
    throw new UsageError(
      '--before takes a time at least 24 hours ago: repeated requests are still answered from later rows',
    );
  const config = configOf(io.env);
  const check = await signatureCheck(config, values['public-key'] ?? []);
  if (check === null) throw new UsageError('prune needs a key: --public-key FILE, or SALLYPORT_SIGNING_KEY[_FILE]');
  const connection = await connect(config, 'migrating');
  try {
    const { client } = connection;
    const known = await orgsWithAudit(client);
    if (values.org !== undefined && !known.includes(values.org))
      throw new Error(`org ${values.org} has neither audit rows nor evidence`);
    const results: PruneResult[] = [];
    for (const orgId of values.org === undefined ? known : [values.org])
      results.push(await pruneOrg(client, { orgId, before, check }));
    if (values.json === true) await io.output.write('stdout', `${JSON.stringify({ orgs: results })}\n`);
    else for (const result of results) await io.output.write('stdout', `${neutralise(lineOf(result))}\n`);
    return results.some(({ refused }) => refused) ? EXIT.wrong : EXIT.right;
  } finally {
    await connection.close();
  }
}

function lineOf({ org_id, pruned, refused, reason }: PruneResult): string {
  if (pruned === null) return `org ${org_id}: ${refused ? 'REFUSED' : 'nothing to do'}: ${reason}`;
  const { activities, entries, position } = pruned;
  return `org ${org_id}: deleted ${activities} rows and ${entries} entries; the chain now starts at position ${position}`;
}

async function help({ output }: Io): Promise<number> {
  await output.write('stdout', AUDIT_USAGE);
  return EXIT.right;
}

function configOf(env: NodeJS.ProcessEnv): Config {
  try {
    return readConfig(env, { needsSigningKey: false });
  } catch (error) {
    throw error instanceof ConfigError ? new Error(error.message, { cause: error }) : error;
  }
}

async function connect(config: Config, as: 'serving' | 'migrating'): Promise<AuditConnection> {
  const migrateUrl = as === 'migrating' ? config.migrateDatabaseUrl : null;
  return await openAuditConnection({
    url: migrateUrl ?? config.databaseUrl,
    setting: migrateUrl === null ? 'DATABASE_URL' : 'SALLYPORT_MIGRATE_DATABASE_URL',
    dataDir: config.dataDir,
    log: createLog('warn'),
  });
}

/** The keys that were given; otherwise the gateway's own, which is kept in the data folder when the database is. */
async function signatureCheck(config: Config, files: readonly string[]): Promise<SignatureCheck | null> {
  const keys: PublicKey[] = [];
  for (const file of files) keys.push(await publicKeyOf(file));
  if (keys.length === 0) {
    const kept = join(config.dataDir, 'signing-key.pem');
    if (config.signingKey !== null) keys.push(await loadPublicKey(config.signingKey));
    else if (config.databaseUrl === null && (await exists(kept))) keys.push(await publicKeyOf(kept));
  }
  return keys.length === 0 ? null : createSignatureCheck(keys);
}

async function publicKeyOf(file: string): Promise<PublicKey> {
  try {
    return await loadPublicKey(await readFile(file, 'utf8'));
  } catch (cause) {
    throw new Error(`--public-key ${file}: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
}

async function exists(file: string): Promise<boolean> {
  return await access(file).then(
    () => true,
    () => false,
  );
}

function timeOf(option: string, text: string | undefined): Date | null {
  if (text === undefined) return null;
  const time = /^\d{4}-\d\d-\d\d(T.*(Z|[+-]\d\d:\d\d))?$/.test(text) ? new Date(text) : new Date(Number.NaN);
  if (!Number.isNaN(time.getTime())) return time;
  throw new UsageError(`${option} takes an ISO 8601 date, or time with offset; not "${text}"`);
}
