/** Every verb but `exec`: what commander makes of them and prints as their help. */
import { Command, type CommanderError } from 'commander';
import type { ServerVerb } from './cli.ts';
import type { Io } from './io.ts';
import { EXIT, neutraliseLines, type Output } from './output.ts';
import type { Verb, VerbContext } from './verb.ts';
import { readVersion } from './version.ts';

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

/** Resolves with the exit code. */
export async function runVerb(
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
  const program = createProgram(output);
  const loaded = await wanted?.load();
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

function createProgram(output: Output): Command {
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
