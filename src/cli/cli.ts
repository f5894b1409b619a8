/**
 * The command line: finds the verb, loads only that verb's file, gives back an exit code.
 *
 * It never ends the process itself; main.ts does, with the code that `runCli` resolves with. The verbs that start
 * servers live in main.ts and are handed in, so that help lists them and this folder knows nothing of the gateway.
 * Decision: verbs are loaded on use, and commander for all but `exec`, because a remote exec should cost little more
 * than an empty node.
 */
import type { Command, CommanderError } from 'commander';
import type { Io } from './io.ts';
import { createOutput, EXIT, exitOfBroken, neutraliseLines, type Output } from './output.ts';
import type { Verb, VerbContext } from './verb.ts';
import { readVersion } from './version.ts';

export interface ServerVerb {
  description: string;
  /** Gets what follows the verb; resolves with the exit code. */
  run(args: string[]): Promise<number>;
}

interface ClientVerb {
  description: string;
  load(): Promise<{ verb: Verb }>;
}

/** `exec` stands apart, see exec-options.ts. */
const VERBS: Readonly<Record<string, ClientVerb>> = {
  activity: { description: 'what was done, newest first', load: () => import('./activity.ts') },
  diagnose: { description: 'why a host cannot be used, step by step', load: () => import('./diagnose.ts') },
  console: { description: 'the serial console log of a host', load: () => import('./console.ts') },
  rescue: { description: 'collect evidence on a host that fails', load: () => import('./rescue.ts') },
  workspace: { description: 'list, get, set, rename, delete', load: () => import('./workspace.ts') },
  token: { description: 'create, list, revoke', load: () => import('./token.ts') },
  org: {
    description: 'list, get, set, freeze and unfreeze orgs and people (admin token)',
    load: () => import('./org.ts'),
  },
  freeze: {
    description: 'withdraw every right in an org and end what it runs (admin token)',
    load: async () => ({ verb: (await import('./org.ts')).freeze }),
  },
  unfreeze: {
    description: 'give the rights of an org back (admin token)',
    load: async () => ({ verb: (await import('./org.ts')).unfreeze }),
  },
};

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
      : await runVerb(name, argv, { io, output, serverVerbs });
  return exitCode === 0 && output.broken.aborted ? exitOfBroken(output, EXIT.failed) : exitCode;
}

async function runVerb(
  name: string,
  argv: readonly string[],
  { io, output, serverVerbs }: { io: Io; output: Output; serverVerbs: Readonly<Record<string, ServerVerb>> },
): Promise<number> {
  let exitCode = 0;
  const context: VerbContext = {
    io,
    output,
    action:
      (act) =>
      async (...args) => {
        exitCode = await act(...args);
      },
  };
  const wanted = Object.hasOwn(VERBS, name) ? VERBS[name] : undefined;
  const [program, loaded] = await Promise.all([createProgram(output), wanted?.load()]);
  program.command('exec').description('run one command in a workspace');
  for (const [verb, { description }] of Object.entries(VERBS)) {
    const command = program.command(verb).description(description);
    if (verb === name) loaded?.verb.define(command, context);
  }
  for (const [verb, { description }] of Object.entries(serverVerbs)) program.command(verb).description(description);
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return exitCode;
  } catch (error) {
    if (!isCommanderError(error)) throw error;
    await output.flush();
    return error.exitCode === 0 ? 0 : EXIT.usage;
  }
}

async function createProgram(output: Output): Promise<Command> {
  const { Command } = await import('commander');
  return new Command('sallyport')
    .description("run one command on a tenant's own host over HTTPS and see its output live")
    .version(readVersion(), '-V, --version', 'print the version')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void output.write('stdout', text),
      writeErr: (text) => void output.write('stderr', neutraliseLines(text)),
      outputError: (text, write) => write(text.replace(/^error: /, 'sallyport: ')),
    })
    .showHelpAfterError('(--help shows the usage)');
}

/** commander ends by throwing: after help and version with exit code 0, after wrong usage with another. */
function isCommanderError(error: unknown): error is CommanderError {
  return error instanceof Error && 'exitCode' in error && 'code' in error;
}
