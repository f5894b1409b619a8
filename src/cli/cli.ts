/**
 * The command line: finds the verb, loads only that verb's code, gives back an exit code.
 *
 * It never ends the process itself; main.ts does, with the code that `runCli` resolves with. The verbs that start
 * servers live in main.ts and are handed in, so that help lists them and this folder knows nothing of the gateway. All
 * write through one Output, so that a reader who has gone ends any of them alike (output.ts).
 * Decision: everything is loaded on use, and `exec` without commander, because a remote exec should cost little more
 * than an empty node. The build makes this file and `exec` part of main.js, and verbs.ts one file of its own.
 */
import type { Io } from './io.ts';
import { createOutput, EXIT, exitOfBroken, type Output } from './output.ts';

export interface ServerVerb {
  description: string;
  /** Gets what follows the verb; resolves with the exit code, which does not have to tell that `output` is broken. */
  run(args: string[], output: Output): Promise<number>;
}

interface Call {
  argv: readonly string[];
  io: Io;
  output: Output;
  serverVerbs: Readonly<Record<string, ServerVerb>>;
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
  const output = createOutput(io);
  const exitCode = await runNamed(first ?? '', rest, { argv, io, output, serverVerbs });
  return exitCode === 0 && output.broken.aborted ? exitOfBroken(output, EXIT.failed) : exitCode;
}

async function runNamed(name: string, rest: string[], { argv, io, output, serverVerbs }: Call): Promise<number> {
  if (name === 'exec') return await (await import('./exec.ts')).exec(rest, { io, output });
  const serverVerb = Object.hasOwn(serverVerbs, name) ? serverVerbs[name] : undefined;
  if (serverVerb === undefined)
    return await (await import('./verbs.ts')).runVerb(name, argv, { io, output, serverVerbs });
  const exitCode = await serverVerb.run(rest, output);
  await output.flush();
  return exitCode;
}
