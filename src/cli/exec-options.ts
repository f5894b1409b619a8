/**
 * The words of `sallyport exec`: our options, the workspace id, and the program's argv, which is touched by nobody.
 *
 * Decision: read here and not by commander, which the other verbs use. Loading it costs a remote exec 9 ms of its 20
 * over an empty node (measured), and what it would do here is this file: options end at the first word that is none.
 */
import { SallyportError } from '../errors.ts';

export const EXEC_HELP = `Usage: sallyport exec [options] <workspace> -- <argv...>

Runs one argv in a workspace as if it ran here: its bytes, its exit status.

Options (before the workspace id; what follows it belongs to the program):
  --timeout <s>            end the program after so many seconds (gateway: 30, at most 120)
  --connect-timeout <s>    seconds to reach the host (gateway: 20, at most 60)
  -e, --env <name=value>   set a variable; a name alone takes its value from here; may be given again
  --cwd <dir>              absolute directory to run in
  --max-output <bytes>     cut each stream here (gateway: 1 MiB)
  --stdin                  read standard input to its end, whatever it is
  --no-stdin               leave standard input alone
  --idempotency-key <key>  never run twice under this key
  --dry-run                print what would be decided, run nothing
  --json                   print the result, or the problem, as one JSON document
  --url <url>              address of the gateway (default: SALLYPORT_URL)
  --token-file <file>      file that holds the token (default: SALLYPORT_TOKEN)
  -h, --help               print this

Standard input: a pipe or a file is sent (at most 1 MiB), a terminal is not. Give --no-stdin in "while read" loops.

Exit status: the program's own; 124 its timeout ended it; 125 refused, or failed before it started; 126, 127 not
executable, not found; 128+n killed by signal n; 130 after Ctrl-C, which ends it there; 141 the reader of our output
closed it; 255 the link was lost, the stream is unfinished, or a replay has no output to show.

Example: sallyport exec --timeout 10 ws-1 -- journalctl -u nginx -n 50
`;

const WITH_VALUE = {
  '--timeout': 'timeout',
  '--connect-timeout': 'connectTimeout',
  '--cwd': 'cwd',
  '--max-output': 'maxOutput',
  '--idempotency-key': 'idempotencyKey',
  '--url': 'url',
  '--token-file': 'tokenFile',
} as const;

const WITHOUT_VALUE = {
  '--stdin': { stdin: 'always' },
  '--no-stdin': { stdin: 'never' },
  '--dry-run': { dryRun: true },
  '--json': { json: true },
} as const;

export type ExecFlags = { [Name in (typeof WITH_VALUE)[keyof typeof WITH_VALUE]]?: string } & {
  env: string[];
  stdin?: 'always' | 'never';
  dryRun?: boolean;
  json?: boolean;
};

export interface ExecWords {
  flags: ExecFlags;
  workspaceId: string;
  argv: string[];
}

/** Null: help is asked for. Throws `invalid_request` for wrong usage. */
export function parseExecWords(words: readonly string[]): ExecWords | null {
  const flags: ExecFlags = { env: [] };
  let at = 0;
  for (let word = words[at]; word !== undefined && /^-./.test(word); word = words[at]) {
    if (word === '--help' || word === '-h') return null;
    at += 1;
    if (word === '--') break;
    at += takeOption(flags, word, words[at]);
  }
  const [workspaceId, ...rest] = words.slice(at);
  if (workspaceId === undefined) throw usage('the workspace id is missing');
  return { flags, workspaceId, argv: programOf(rest) };
}

/** How many of the following words belong to this one. */
function takeOption(flags: ExecFlags, word: string, following: string | undefined): 0 | 1 {
  const equals = word.indexOf('=');
  const name = equals < 0 ? word : word.slice(0, equals);
  if (isKeyOf(WITHOUT_VALUE, name) && equals < 0) {
    Object.assign(flags, WITHOUT_VALUE[name]);
    return 0;
  }
  const isEnv = name === '--env' || name === '-e';
  if (!isEnv && !isKeyOf(WITH_VALUE, name)) throw usage(`there is no option "${word}"`);
  const value = equals < 0 ? following : word.slice(equals + 1);
  if (value === undefined) throw usage(`${name} takes a value`);
  if (isKeyOf(WITH_VALUE, name)) flags[WITH_VALUE[name]] = value;
  else flags.env.push(value);
  return equals < 0 ? 1 : 0;
}

/** What follows the workspace id; the `--` that ends our words is ours, every later one the program's. */
function programOf(rest: string[]): string[] {
  const [first, ...others] = rest;
  const argv = first === '--' ? others : rest;
  if (argv.length === 0) throw usage('there is no program to run after the workspace id');
  if (first === '--' || first?.startsWith('-') !== true) return argv;
  throw new SallyportError('invalid_request', `options stand before the workspace id; "${first}" came after it`, {
    remedy: `a program of that name is run with: <workspace> -- ${first}`,
  });
}

function isKeyOf<Table extends object>(table: Table, name: PropertyKey): name is keyof Table {
  return Object.hasOwn(table, name);
}

function usage(message: string): SallyportError {
  return new SallyportError('invalid_request', message, { remedy: 'sallyport exec --help shows the usage' });
}
