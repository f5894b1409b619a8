/**
 * `sallyport audit verify|export|prune`: what an operator does with the evidence, on the database itself.
 *
 * Not over the API: a gateway that lies about its rows would lie about their evidence. Nothing here writes but `prune`.
 * Exit codes: 0 all is right, 1 something is wrong (or refused), 2 wrong usage or no database, 3 nothing wrong was found
 * but not everything could be checked, which is no success.
 */
import { exitOfBroken, neutralise } from '../cli/output.ts';
import { exportOrg } from './export.ts';
import { prune } from './prune.ts';
import { AUDIT_USAGE, EXIT, isUsage, UsageError } from './usage.ts';
import type { Io } from './verb.ts';
import { verify } from './verify.ts';

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
