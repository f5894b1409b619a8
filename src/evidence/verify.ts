/** `sallyport audit verify`: looks at every org, or at one, and says what it has found. */
import { parseArgs } from 'node:util';
import { inSnapshot } from '../db/audit-access.ts';
import { type OrgReport, orgsWithAudit, verifyOrg } from '../db/audit-verify.ts';
import { type GivenCheckpoints, readCheckpoints } from './given-checkpoints.ts';
import { signatureCheck } from './keys.ts';
import { tellVerified } from './report.ts';
import { help, UsageError } from './usage.ts';
import { configOf, connect, type Io, requireKnown } from './verb.ts';

/** Resolves with the exit code; throws UsageError. */
export async function verify(args: string[], io: Io): Promise<number> {
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
      if (values.org !== undefined) requireKnown(values.org, allOf(known, given));
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
