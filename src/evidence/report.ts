/** What a verification has found, for people or as one JSON document, and the exit code that goes with it. */
import type { SignatureCheck } from '../access/checkpoint.ts';
import { neutralise } from '../cli/output.ts';
import type { OrgReport } from '../db/audit-verify.ts';
import type { GivenCheckpoints } from './given-checkpoints.ts';
import { EXIT } from './usage.ts';
import type { Io } from './verb.ts';

/** Resolves with the exit code. */
export async function tellVerified(facts: {
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
