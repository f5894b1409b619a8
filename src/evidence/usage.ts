/** How `sallyport audit` is used, what its exit codes mean, and the two ways to be told: by asking, by using it wrong. */
import type { Output } from '../cli/output.ts';

export const EXIT = { right: 0, wrong: 1, usage: 2, unchecked: 3 } as const;

export const AUDIT_USAGE = `usage:
  sallyport audit verify [--org ID] [--public-key FILE]... [--checkpoint FILE|LINE|-] [--json]
  sallyport audit export --org ID [--format ndjson|csv] [--since TIME] [--until TIME]
  sallyport audit prune --org ID|--all --before TIME [--public-key FILE]... [--dry-run] [--json]

verify recomputes the chain of every org, or of one, from DATABASE_URL (by default the embedded database). Signatures are
checked with the public keys given, or with that of SALLYPORT_SIGNING_KEY[_FILE]. --checkpoint takes a log of the gateway,
or one line of it: a chain whose end was cut off is found by what is kept outside of the database.
exit: 0 all is right, 1 something is wrong, 2 wrong usage or no database, 3 nothing wrong found, but not all was checked
prune deletes rows that were finished before TIME, up to a signed checkpoint; it needs the role that migrates.
With --dry-run it deletes nothing and says what it would delete; that needs only the right to select.
`;

export class UsageError extends Error {}

export function isUsage(error: unknown): boolean {
  if (error instanceof UsageError) return true;
  return error instanceof Error && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS');
}

export async function help({ output }: { output: Output }): Promise<number> {
  await output.write('stdout', AUDIT_USAGE);
  return EXIT.right;
}
