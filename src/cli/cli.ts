/**
 * The command line: finds the verb, loads only that verb's code, gives back an exit code.
 *
 * It never ends the process itself; main.ts does, with the code that `runCli` resolves with. The verbs that start
 * servers live in main.ts and are handed in, so that help lists them and this folder knows nothing of the gateway.
 * Decision: everything is loaded on use, and `exec` without commander, because a remote exec should cost little more
 * than an empty node. The build makes this file and `exec` part of main.js, and verbs.ts one file of its own.
 */
import type { Io } from './io.ts';
import { createOutput, EXIT, exitOfBroken } from './output.ts';

export interface ServerVerb {
  description: string;
  /** Gets what follows the verb; resolves with the exit code. */
  run(args: string[]): Promise<number>;
}

/** `argv` without the interpreter and the program. */
export async function runCli(
  argv: readonly string[],
  io: Io,
  serverVerbs: Readonly<Record<string, ServerVerb>> = {},
): Promise<number> {
  const [first, ...rest] = argv;
  // `help token create` is `token create --help`; commander would look at the first of the two names only.
  if (first === 'help' && rest.length > 0) return await runCli([...rest, '--help'], io, serverVerbs);
  const name = first ?? '';
  if (Object.hasOwn(serverVerbs, name)) return (await serverVerbs[name]?.run(rest)) ?? EXIT.failed;
  const output = createOutput(io);
  const exitCode =
    name === 'exec'
      ? await (await import('./exec.ts')).exec(rest, { io, output })
      : await (await import('./verbs.ts')).runVerb(name, argv, { io, output, serverVerbs });
  return exitCode === 0 && output.broken.aborted ? exitOfBroken(output, EXIT.failed) : exitCode;
}
