/** `sallyport audit prune`: retention. The one verb here that writes; with --dry-run it says what it would delete. */
import { parseArgs } from 'node:util';
import { neutralise } from '../cli/output.ts';
import { type PrunePlan, type PruneResult, planPrune, pruneOrg } from '../db/audit-prune.ts';
import { orgsWithAudit } from '../db/audit-verify.ts';
import { IDEMPOTENCY_LIFE_S } from '../limits.ts';
import { signatureCheck } from './keys.ts';
import { EXIT, help, UsageError } from './usage.ts';
import { configOf, connect, type Io, requireKnown, timeOf } from './verb.ts';

/** Resolves with the exit code; throws UsageError. */
export async function prune(args: string[], io: Io): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      org: { type: 'string' },
      all: { type: 'boolean' },
      before: { type: 'string' },
      'public-key': { type: 'string', multiple: true },
      'dry-run': { type: 'boolean' },
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
  const isDry = values['dry-run'] === true;
  const connection = await connect(config, isDry ? 'serving' : 'migrating');
  try {
    const { client } = connection;
    const known = await orgsWithAudit(client);
    if (values.org !== undefined) requireKnown(values.org, known);
    const results: (PruneResult | PrunePlan)[] = [];
    for (const orgId of values.org === undefined ? known : [values.org])
      results.push(await (isDry ? planPrune : pruneOrg)(client, { orgId, before, check }));
    const document = isDry ? { dry_run: true, orgs: results } : { orgs: results };
    if (values.json === true) await io.output.write('stdout', `${JSON.stringify(document)}\n`);
    else for (const result of results) await io.output.write('stdout', `${neutralise(lineOf(result))}\n`);
    return results.some(({ refused }) => refused) ? EXIT.wrong : EXIT.right;
  } finally {
    await connection.close();
  }
}

function lineOf(result: PruneResult | PrunePlan): string {
  const { org_id, refused, reason } = result;
  const isDone = 'pruned' in result;
  const extent = isDone ? result.pruned : result.would_prune;
  if (extent === null) return `org ${org_id}: ${refused ? 'REFUSED' : 'nothing to do'}: ${reason}`;
  const [deleted, starts] = isDone ? ['deleted', 'now starts'] : ['would delete', 'would start'];
  return `org ${org_id}: ${deleted} ${extent.activities} rows and ${extent.entries} entries; the chain ${starts} at position ${extent.position}`;
}
